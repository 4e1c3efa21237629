"""No limit may decide anything on values that are information."""

from dataclasses import replace
from pathlib import Path

import pytest

from fxeval.errors import SuiteError
from fxeval.metrics import occlusion_generalisability
from fxeval.records.judged import MetricEntry
from fxeval.strict.yaml_file import parsed
from fxeval.suite.load import KnownIds, planned

KNOWN = KnownIds(*(frozenset({"any"}),) * 3)
SUITE = """\
fxeval: 1
suite: s
models: [any]
explainers: [any]
pairs: [any]
checks:
  - id: c
    kind: generalisability.occlusion
    legacy_percentile: {legacy}
    limits:
      - {{metric: occlusion_tmr, at_most: 0.5{severity}}}
"""


def suite(legacy="true", severity=""):
    text = SUITE.format(legacy=legacy, severity=severity)
    return planned(parsed(text.encode(), Path("s.yaml")), Path("s.yaml"), KNOWN)


@pytest.mark.parametrize(
    ("severity", "got", "place"),
    [
        ("", "none, which is 'critical'", "11:9"),
        (", severity: critical", "'critical'", "11:57"),
        (", severity: warning", "'warning'", "11:57"),
    ],
)
def test_a_limit_that_could_decide_is_refused_at_its_place(severity, got, place):
    with pytest.raises(SuiteError) as caught:
        suite(severity=severity)
    first = str(caught.value).splitlines()[0]
    assert first == (
        f"s.yaml:{place}: error: 'legacy_percentile: true' is a demonstration: it occludes all "
        "pixels that tie with a percentile of the map, the whole image where the map is constant, "
        f"so its figures say nothing about maps; expected 'severity: info', got {got}"
    )
    assert str(caught.value).count(": error: ") == 1


def test_information_is_allowed_and_exactly_k_needs_none():
    assert suite(severity=", severity: info").checks[0].parameters.legacy_percentile is True
    for severity in ("", ", severity: critical", ", severity: info"):
        assert suite("false", severity).checks[0].parameters.legacy_percentile is False


def test_a_parameter_that_cannot_be_read_is_the_only_fault():
    with pytest.raises(SuiteError) as caught:
        suite("often")
    assert str(caught.value).count(": error: ") == 1
    assert "'legacy_percentile' must be true or false" in str(caught.value)


WHY = "nobody has shown that it tells explainers apart"


@pytest.fixture
def information(monkeypatch):
    """Let ``occlusion_tmr`` alone be information."""
    first, *others = occlusion_generalisability.METRICS
    assert first.name == "occlusion_tmr"
    monkeypatch.setattr(
        occlusion_generalisability, "METRICS", (replace(first, information_only=WHY), *others)
    )


@pytest.mark.usefixtures("information")
@pytest.mark.parametrize(
    ("severity", "got", "place"),
    [
        ("", "none, which is 'critical'", "11:9"),
        (", severity: critical", "'critical'", "11:57"),
        (", severity: warning", "'warning'", "11:57"),
    ],
)
def test_a_metric_that_is_information_gates_nothing(severity, got, place):
    with pytest.raises(SuiteError) as caught:
        suite("false", severity)
    first = str(caught.value).splitlines()[0]
    assert first == (
        f"s.yaml:{place}: error: occlusion_tmr is information: {WHY}; expected 'severity: info', "
        f"got {got}"
    )
    assert str(caught.value).count(": error: ") == 1


@pytest.mark.usefixtures("information")
def test_information_about_it_is_allowed_and_other_metrics_still_gate():
    assert suite("false", ", severity: info").checks[0].limits[0].severity == "info"
    text = SUITE.format(legacy="false", severity="").replace("occlusion_tmr", "occlusion_accuracy")
    found = planned(parsed(text.encode(), Path("s.yaml")), Path("s.yaml"), KNOWN)
    assert found.checks[0].limits[0].severity == "critical"


@pytest.mark.usefixtures("information")
def test_a_demonstration_of_such_a_metric_is_refused_for_both_reasons():
    with pytest.raises(SuiteError) as caught:
        suite()
    assert "is a demonstration" in str(caught.value)
    assert WHY in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("two_sided", "raw_redrawn_similarity"),
        ("two_sided", "redrawn_similarity"),
        ("two_sided", "raw_mean_map_similarity"),
        ("impostor_swap", "impostor_similarity"),
        ("impostor_swap", "floor_similarity"),
    ],
)
def test_one_side_of_a_sanity_verdict_alone_gates_nothing(kind, metric):
    text = SUITE.format(legacy="", severity="").replace("    legacy_percentile: \n", "")
    text = text.replace("generalisability.occlusion", f"sanity.{kind}")
    text = text.replace("occlusion_tmr", metric)
    with pytest.raises(SuiteError, match=f"{metric} is information: a noisy map is like no other"):
        planned(parsed(text.encode(), Path("s.yaml")), Path("s.yaml"), KNOWN)


def test_records_without_the_declaration_load():
    entry = {
        "name": "m", "title": "M", "unit": "u", "better": "lower", "range": (0, 1),
        "statistic": "mean", "source": "s", "meaning": "w",
    }  # fmt: skip
    assert MetricEntry(**entry).information_only == ""

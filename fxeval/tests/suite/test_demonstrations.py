"""No limit of a check that only demonstrates an artefact may decide anything."""

from pathlib import Path

import pytest

from fxeval.errors import SuiteError
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

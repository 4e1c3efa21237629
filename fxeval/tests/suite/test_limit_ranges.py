"""A limit that no value can break, or that none can keep, is an error at its key."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fxeval.errors import SuiteError
from fxeval.metrics import deletion_insertion, model_randomisation
from fxeval.results import Metric
from fxeval.run.evaluation import _limits
from fxeval.statistics.limits import AtLeast, AtMost, BetterThan
from fxeval.strict.yaml_file import parsed
from fxeval.suite.load import KnownIds, planned

FLIP, AUC = "insertion_fraction_to_match", "deletion_auc"
RHO, RHO_SIZE, *_ = (metric.name for metric in model_randomisation.METRICS)
KNOWN = KnownIds(*(frozenset({"any"}),) * 3)


def suite(limit="{metric: deletion_auc, at_most: 0.5}", verification=""):
    kind = "faithfulness.deletion_insertion\n    controls: [centre]"
    if "correlation" in limit:
        kind = "sanity.model_randomisation"
        limit = limit.removesuffix("}") + ", severity: info}"  # it gates nothing
    text = (
        "fxeval: 1\nsuite: s\nmodels: [any]\nexplainers: [any]\npairs: [any]\n"
        f"{verification}checks:\n  - id: c\n    kind: {kind}\n    limits:\n      - {limit}\n"
    )
    return text, planned(parsed(text.encode(), Path("s.yaml")), Path("s.yaml"), KNOWN)


def refused(key, **changes):
    """Return the single fault of a suite, which must lie at a key."""
    with pytest.raises(SuiteError) as caught:
        suite(**changes)
    (line, *_) = [one for one in str(caught.value).splitlines() if ": error: " in one]
    assert str(caught.value).count(": error: ") == 1
    _, row, column, _ = line.split(":", 3)
    number = int(row) - 1
    shown = next(one for one in str(caught.value).splitlines() if f" {row} |" in one)
    assert shown.split("|", 1)[1][1:][int(column) - 1 :].startswith(key), (number, line)
    return line.split(": error: ")[1]


@pytest.mark.parametrize(
    ("metric", "limit", "words"),
    [
        (AUC, "at_most: 1", "can never fail: deletion_auc lies in [-1, 1]; expected less than 1"),
        (AUC, "at_most: 7", "can never fail"),
        (AUC, "at_most: -1.01", "can never pass: deletion_auc lies in [-1, 1]; expected at least"),
        (AUC, "at_least: -1", "can never fail: deletion_auc lies in [-1, 1]; expected more than"),
        (AUC, "at_least: -9", "can never fail"),
        (AUC, "at_least: 1.5", "can never pass: deletion_auc lies in [-1, 1]; expected at most 1"),
        (FLIP, "at_most: 1.0", "can never fail"),
        (FLIP, "at_most: 30", "can never fail"),  # a percentage
        (FLIP, "at_most: 0", "can never pass"),  # the first pixel is no decision of the map
        (FLIP, "at_least: 0", "can never fail"),
        (RHO, "at_most: 1", "can never fail"),
        (RHO, "at_least: -1", "can never fail"),
        (RHO_SIZE, "at_most: 1", "can never fail"),  # medians are no exception
        (RHO_SIZE, "at_least: 0", "can never fail"),
        (RHO_SIZE, "at_most: -0.1", "can never pass"),
    ],
)
def test_a_limit_outside_the_range_is_refused_at_its_key(metric, limit, words):
    key, value = limit.split(": ")
    found = refused(key, limit=f"{{metric: {metric}, {limit}}}")
    assert found.startswith(f"'{key}: {value}' {words}")


@pytest.mark.parametrize(
    ("metric", "by", "words"),
    [
        (AUC, "absolute: 2", "can never pass: deletion_auc lies in [-1, 1], so an improvement is "
         "at most 2, and it must be more than 2; expected a smaller margin"),
        (FLIP, "absolute: 1", "so an improvement is at most 1"),
        (FLIP, "absolute: 30", "can never pass"),
        (FLIP, "relative: 1", "so an improvement, less 1 of the control's value, is at most 0"),
        (FLIP, "relative: 50", "can never pass"),
        (FLIP, f"relative: 1{'0' * 98}", "can never pass"),
        (FLIP, f"absolute: 1{'0' * 98}", "can never pass"),
    ],
)  # fmt: skip
def test_a_margin_that_no_improvement_can_reach_is_refused_at_its_key(metric, by, words):
    limit = f"{{metric: {metric}, better_than: control.centre, by: {{{by}}}}}"
    found = refused(by.split(":")[0], limit=limit)
    assert found.startswith(f"'{by[:20]}")
    assert " can never pass: " in found
    assert words in found


@pytest.mark.parametrize(
    "limit",
    [
        f"{{metric: {AUC}, at_most: -1}}", f"{{metric: {AUC}, at_least: 1}}",
        f"{{metric: {AUC}, at_most: 0.999}}", f"{{metric: {FLIP}, at_least: 1}}",
        f"{{metric: {RHO_SIZE}, at_most: 0}}",
        f"{{metric: {FLIP}, better_than: control.centre, by: {{absolute: 0.999}}}}",
        f"{{metric: {FLIP}, better_than: control.centre, by: {{relative: 0.999}}}}",
        # Where the control's value is 0, any margin relative to it is 0.
        f"{{metric: {AUC}, better_than: control.centre, by: {{relative: 30}}}}",
    ],
)  # fmt: skip
def test_a_limit_that_can_fail_and_pass_is_not_refused(limit):
    suite(limit)


@pytest.mark.parametrize(
    "limit",
    ["at_most: .nan", "at_most: .inf", "at_least: -.inf", "at_most: 1e999",
     "better_than: control.centre, by: {absolute: .nan}",
     "better_than: control.centre, by: {relative: -1}"],
)  # fmt: skip
def test_a_limit_that_is_no_number_or_helps_the_explainer_has_one_fault(limit):
    with pytest.raises(SuiteError, match=r"s\.yaml:11:\d+: error: ") as caught:
        suite(f"{{metric: {AUC}, {limit}}}")
    assert str(caught.value).count(": error: ") == 1


@pytest.mark.parametrize(
    ("metric", "demand", "words"),
    [
        ("verification_accuracy", "at_least: 0",
         "can never fail: verification_accuracy lies in [0, 1]; expected more than 0"),
        ("verification_accuracy", "at_least: 1.0", "can never pass: the interval of a finite list "
         "does not rule out an error; expected less than 1"),
        ("tmr_at_fmr_1e-3", "at_least: 0", "can never fail"),
        ("verification_eer", "at_most: 1", "can never fail"),
        ("verification_eer", "at_most: 0", "can never pass"),
    ],
)  # fmt: skip
def test_a_demand_on_a_model_that_decides_nothing_is_refused_at_its_key(metric, demand, words):
    asked = f"verification: {{limits: [{{metric: {metric}, {demand}}}]}}\n"
    found = refused(demand.split(":")[0], verification=asked)
    assert found.startswith(f"'{demand}' {words}")


def metric_in(least, largest, better="lower"):
    return Metric("m", "M", "u", better, (least, largest), "mean", "s", "m")


def test_a_range_without_end_makes_only_its_other_end_pointless():
    share, any_number = metric_in(0.0, math.inf), metric_in(-math.inf, math.inf)
    assert not AtMost("m", at_most=1e9).pointless(share)
    assert "m lies in [0, inf)" in AtLeast("m", at_least=0.0).pointless(share)
    assert "can never pass" in AtMost("m", at_most=-1.0).pointless(share)
    for limit in (AtMost("m", at_most=-1e9), AtLeast("m", at_least=1e9)):
        assert not limit.pointless(any_number)
    for metric in (any_number, metric_in(0.0, math.inf, "higher")):
        assert not BetterThan("m", better_than="control.c", by={"absolute": 1e9}).pointless(metric)
    huge = BetterThan("m", better_than="control.c", by={"relative": 1e300})
    assert "can never pass" in huge.pointless(share)
    assert not huge.pointless(any_number)  # a control's value of 0 leaves no margin
    within = BetterThan("m", better_than="control.c", by={"relative": 0.5})
    beyond = BetterThan("m", better_than="control.c", by={"relative": 1.0})
    assert not within.pointless(share)
    assert "can never pass" in beyond.pointless(share)
    # A higher value without end beats any control by any margin.
    assert not beyond.pointless(metric_in(0.0, math.inf, "higher"))


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (-1.0, 1.0), (0.25, 2.0), (-3.0, -0.5)])
@pytest.mark.parametrize("by", [{}, {"absolute": 0.8}, {"relative": 0.4}, {"relative": 1.2}])
def test_a_margin_is_refused_exactly_where_no_two_values_of_the_range_reach_it(better, ends, by):
    metric = metric_in(*ends, better)
    limit = BetterThan("m", better_than="control.c", by=by)
    grid = np.linspace(*ends, 101)
    own, control = (axis.ravel() for axis in np.meshgrid(grid, grid))
    reached = limit.rows(lambda map_: own if map_ == "explainer" else control, metric).max()
    assert bool(limit.pointless(metric)) == (reached <= limit.absolute)


def test_evaluate_without_limits_asks_for_one_that_every_range_allows(monkeypatch):
    for metric in (metric_in(0.0, 1.0), metric_in(-math.inf, math.inf), metric_in(2.0, math.inf),
                   metric_in(-math.inf, -2.0), *deletion_insertion.METRICS):  # fmt: skip
        protocol = SimpleNamespace(METRICS=(metric,))
        monkeypatch.setattr("fxeval.run.evaluation.kinds", lambda found=protocol: {"k": found})
        ((asked,),) = [_limits("k", ())]
        assert not AtLeast(asked["metric"], at_least=asked["at_least"]).pointless(metric)

"""Metrics that put maps of known worth in their order, and those that do not, from made-up rows."""

import itertools
import math
import random

import numpy as np
import pytest

from fxeval.records.judged import MetricEntry
from fxeval.records.schema import CellPlan, Measured, Row
from fxeval.seeding import generator_of
from fxeval.statistics.self_check import KNOWN_MAPS, Ground, self_checks

LOWER, HIGHER = (
    MetricEntry(
        name=name, title=name, unit="u", better=better, range=(-20.0, 20.0), statistic="mean",
        kind="light", source="s", meaning="m",
    )
    for name, better in (("auc", "lower"), ("gain", "higher"))
)  # fmt: skip
NAMES = {
    "oracle": "explainer",
    "blurred_oracle": "explainer:blurred_oracle",
    "random": "explainer:random",
    "inverse": "explainer:inverse",
}
LIKENESS = Ground("likeness", "a planted network", NAMES)
MARGIN = Ground("margin", "twins", NAMES)
ORDERED = {"oracle": 0.1, "blurred_oracle": 0.2, "random": 0.4, "inverse": 0.6}
BLUR = {"fill": "blur"}


def plan(*metrics):
    return CellPlan(
        id="self_check", check="self_check", kind="acme.removal", why="", where="s.yaml:1:1",
        model="planted", explainer="oracle", pairs="p", parameters={}, confidence=0.95,
        on_inconclusive="fail", metrics=list(metrics), asked=[],
    )  # fmt: skip


def rows(worth, n=40, *, metric="auc", under=BLUR, noise=0.05, states=None):
    """Rows of one person each: the worth of every map, its own noise, and some of the person's."""
    drawn = np.random.default_rng(3)
    own, shared = drawn.normal(0, noise, (n, len(KNOWN_MAPS))), drawn.normal(0, noise, n)
    return [
        Row(
            cell="self_check", row=f"r{number:03}", identities=[number], state="ok",
            measured=[
                Measured(
                    map=NAMES[known], under=under,
                    values={metric: worth[known] + own[number, place] + shared[number]},
                    states={metric: (states or {}).get(number, "ok")},
                )
                for place, known in enumerate(KNOWN_MAPS)
            ],
        )
        for number in range(n)
    ]  # fmt: skip


def only(found):
    (one,) = found
    return one


def test_a_metric_that_puts_known_maps_in_their_order_is_fit():
    found = only(self_checks(plan(LOWER), rows(ORDERED), LIKENESS))
    assert (found.fitness, found.reason) == ("fit", "")
    assert (found.kind, found.metric, found.under) == ("acme.removal", "auc", BLUR)
    assert [one.map for one in found.maps] == list(KNOWN_MAPS)
    assert [(one.better, one.worse, one.holds) for one in found.steps] == [
        (better, worse, True) for better, worse in itertools.pairwise(KNOWN_MAPS)
    ]
    assert (found.n_rows, found.n_identities) == (40, 40)


def test_values_and_steps_are_means_over_the_rows_in_the_right_direction():
    given = rows(ORDERED)
    found = only(self_checks(plan(LOWER), given, LIKENESS))
    columns = np.array([[one.values["auc"] for one in row.measured] for row in given])
    assert [one.value for one in found.maps] == pytest.approx(columns.mean(axis=0).tolist())
    better = np.diff(columns, axis=1).mean(axis=0)
    assert [one.value for one in found.steps] == pytest.approx(better.tolist())
    for one in found.steps:
        assert 0.0 < one.low < one.value < one.high
    turned = rows({name: -value for name, value in ORDERED.items()}, metric="gain")
    assert only(self_checks(plan(HIGHER), turned, LIKENESS)).fitness == "fit"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_metric_that_turns_any_step_over_is_unfit(step: int):
    worth = [*ORDERED.values()]
    worth[step], worth[step + 1] = worth[step + 1], worth[step]
    found = only(
        self_checks(plan(LOWER), rows(dict(zip(KNOWN_MAPS, worth, strict=True))), LIKENESS)
    )
    assert found.fitness == "unfit"
    assert not found.steps[step].holds
    assert "auc (blur) does not put" in found.reason
    assert "expected a difference above 0, got" in found.reason


def test_the_wrong_direction_is_unfit_in_all_steps():
    found = only(self_checks(plan(HIGHER), rows(ORDERED, metric="gain"), LIKENESS))
    assert found.fitness == "unfit"
    assert [step.holds for step in found.steps] == [False] * 3


def test_a_difference_that_chance_could_have_made_is_unfit():
    worth = {**ORDERED, "blurred_oracle": 0.102}
    found = only(self_checks(plan(LOWER), rows(worth, noise=0.1), LIKENESS))
    assert found.fitness == "unfit"
    assert found.steps[0].low <= 0.0
    assert "oracle before blurred oracle" in found.reason


def test_maps_that_tie_are_unfit():
    found = only(self_checks(plan(LOWER), rows(dict.fromkeys(KNOWN_MAPS, 0.3), noise=0), LIKENESS))
    assert found.fitness == "unfit"
    assert found.reliability is None


def test_differences_without_variance_are_never_fit():
    found = only(self_checks(plan(LOWER), rows(ORDERED, noise=0), LIKENESS))
    assert found.fitness == "unfit"
    assert [step.value for step in found.steps] == pytest.approx([0.1, 0.2, 0.2])


@pytest.mark.parametrize(("n", "fitness"), [(29, "not_checked"), (30, "fit")])
def test_too_few_people_say_nothing(n: int, fitness: str):
    found = only(self_checks(plan(LOWER), rows(ORDERED, n), LIKENESS))
    assert found.fitness == fitness
    assert found.reason == ("" if fitness == "fit" else "expected at least 30 people, got 29")


def test_rows_without_a_number_are_no_evidence():
    given = rows(ORDERED)
    for row in given[:5]:  # of one map alone: the row has no value of all maps
        row.measured[2].values["auc"] = math.nan
    found = only(self_checks(plan(LOWER), given, LIKENESS))
    assert (found.fitness, found.n_rows) == ("fit", 35)
    for row in given:
        row.measured[2].values["auc"] = None
    found = only(self_checks(plan(LOWER), given, LIKENESS))
    assert found.fitness == "not_checked"
    assert "no row has a value" in found.reason


def test_people_count_and_not_their_rows():
    many = [
        row.model_copy(update={"identities": [number // 4]})
        for number, row in enumerate(rows(ORDERED, 80))
    ]
    found = only(self_checks(plan(LOWER), many, LIKENESS))
    assert found.reason == "expected at least 30 people, got 20"


def test_twins_that_the_model_confuses_check_nothing():
    excluded = dict.fromkeys(range(5), "excluded")
    given = rows(ORDERED, states=excluded)
    for row in given[:5]:
        for one in row.measured:
            one.values["auc"] = None
    found = only(self_checks(plan(LOWER), given, MARGIN))
    assert found.fitness == "not_checked"
    assert found.reason.startswith("the model decides 88% of the twins rightly; expected at least")
    solved = only(self_checks(plan(LOWER), given[1:], MARGIN))
    assert (solved.fitness, solved.n_rows) == ("not_checked", 0)
    assert only(self_checks(plan(LOWER), given[2:], MARGIN)).fitness == "fit"  # 35 of 38
    assert only(self_checks(plan(LOWER), given, LIKENESS)).fitness == "fit"


def test_a_metric_that_the_start_decides_is_not_checked():
    decision = LOWER.model_copy(update={"is_decision": True})
    beyond = dict.fromkeys(range(9), "start_beyond")
    found = only(self_checks(plan(decision), rows(ORDERED, states=beyond), LIKENESS))
    assert found.fitness == "not_checked"
    assert "9 of 40 pairs already match" in found.reason


def test_metrics_that_decide_nothing_have_no_entry_and_ratios_none_that_is_checked():
    known = LOWER.model_copy(update={"information_only": "it says how much was removed"})
    assert self_checks(plan(known), rows(ORDERED), LIKENESS) == []
    below = LOWER.model_copy(update={"name": "below"})
    ratio = LOWER.model_copy(update={"statistic": "ratio", "denominator": "below"})
    found = only(self_checks(plan(ratio, below), rows(ORDERED), LIKENESS))
    assert found.fitness == "not_checked"
    assert found.reason.startswith("a ratio of two means")


def test_every_condition_is_checked_by_itself_and_networks_are_no_condition():
    white = {"fill": "white", "evaluator": "planted"}
    turned = {"oracle": 0.6, "blurred_oracle": 0.4, "random": 0.2, "inverse": 0.1}
    both = [
        one.model_copy(update={"measured": [*one.measured, *other.measured]})
        for one, other in zip(rows(ORDERED), rows(turned, under=white), strict=True)
    ]
    found = self_checks(plan(LOWER), both, LIKENESS)
    assert [(one.under, one.fitness) for one in found] == [
        (BLUR, "fit"), ({"fill": "white"}, "unfit"),
    ]  # fmt: skip


def test_the_order_of_the_rows_changes_nothing():
    given = rows(ORDERED)
    expected = self_checks(plan(LOWER), given, LIKENESS)
    random.Random(5).shuffle(given)
    assert self_checks(plan(LOWER), given, LIKENESS) == expected


def test_reliability_is_that_of_halves_and_falls_with_the_noise():
    found = {
        noise: only(self_checks(plan(LOWER), rows(ORDERED, noise=noise), LIKENESS)).reliability
        for noise in (0.01, 1.0)
    }
    assert 0.999 < found[0.01] <= 1.0
    assert found[1.0] < 0.9


def test_reliability_equals_a_plain_loop():
    given = rows(ORDERED, noise=0.3)
    found = only(self_checks(plan(LOWER), given, LIKENESS)).reliability
    columns = np.array([[one.values["auc"] for one in row.measured] for row in given])
    agreed = []
    for turn in range(200):
        order = generator_of("self_check_halves", turn).permutation(40)
        first, second = columns[order[:20]].mean(axis=0), columns[order[20:]].mean(axis=0)
        deviations = first - first.mean(), second - second.mean()
        r = (deviations[0] @ deviations[1]) / math.sqrt(
            (deviations[0] @ deviations[0]) * (deviations[1] @ deviations[1])
        )
        agreed.append(2 * r / (1 + r) if r > 0 else r)
    assert found == pytest.approx(sum(agreed) / 200, rel=1e-9)


def test_what_is_detectable_shrinks_with_the_number_of_people():
    few, many = (
        only(self_checks(plan(LOWER), rows(ORDERED, n), LIKENESS)).detectable for n in (40, 360)
    )
    assert 0.0 < many < few
    assert 2.5 < few / many < 5.0  # about the root of 9; the interval of few is wider


def test_a_known_map_without_a_name_is_an_error():
    names = {known: NAMES[known] for known in KNOWN_MAPS if known != "inverse"}
    with pytest.raises(ValueError, match="expected the names of all known maps, got no inverse"):
        self_checks(plan(LOWER), rows(ORDERED), Ground("likeness", "p", names))

"""Every form of a limit, over whom it is about, at every seed and over the conditions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.records.schema import CellFacts
from fxeval.results import Outcome
from fxeval.tests.statistics.judged_cells import (
    BLACK,
    BLUR,
    RESTLESS,
    STEADY,
    STOCHASTIC,
    cell,
    limit,
    metric,
    spread,
)

AT = {"absolute": 0.05}
OWN = spread(0.3)
EDGE = "control.edge"
OTHER = "explainer:other"


def better_by(gain):
    """Return values that are better than the explainer's own by -gain, with some noise."""
    return OWN + gain + spread(0.0, by=0.01)[::-1]


FORMS = [
    ({"at_most": 0.35}, {}, "pass"),
    ({"at_most": 0.3}, {}, "inconclusive"),
    ({"at_most": 0.25}, {}, "fail"),
    ({"at_least": 0.25}, {}, "pass"),
    ({"at_least": 0.3}, {}, "inconclusive"),
    ({"at_least": 0.35}, {}, "fail"),
    *(
        found
        for other in (EDGE, OTHER)
        for found in (
            ({"better_than": other}, {other: better_by(0.1)}, "pass"),
            ({"better_than": other}, {other: better_by(0.0)}, "inconclusive"),
            ({"better_than": other}, {other: better_by(-0.1)}, "fail"),
            ({"better_than": other, "by": AT}, {other: better_by(0.1)}, "pass"),
            ({"better_than": other, "by": AT}, {other: better_by(0.05)}, "inconclusive"),
            ({"better_than": other, "by": AT}, {other: better_by(0.02)}, "fail"),
            ({"better_than": other, "by": {"relative": 0.2}}, {other: better_by(0.1)}, "pass"),
            ({"better_than": other, "by": {"relative": 0.5}}, {other: better_by(0.1)}, "fail"),
            ({"better_than": other}, {}, "invalid"),
        )
    ),
    *(
        found
        for earlier in ("baseline", "base")
        for found in (
            ({"not_worse_than": earlier, "within": AT}, {earlier: better_by(0.0)}, "pass"),
            ({"not_worse_than": earlier, "within": AT}, {earlier: better_by(0.2)}, "pass"),
            ({"not_worse_than": earlier, "within": AT}, {earlier: better_by(-0.05)},
             "inconclusive"),
            ({"not_worse_than": earlier, "within": AT}, {earlier: better_by(-0.1)}, "fail"),
            ({"not_worse_than": earlier, "within": {"relative": 0.2}},
             {earlier: better_by(-0.02)}, "pass"),
            ({"not_worse_than": earlier, "within": {"relative": 0.2}},
             {earlier: better_by(-0.1)}, "fail"),
            ({"not_worse_than": earlier, "within": AT}, {}, "inconclusive"),
        )
    ),
    *(
        found
        for other in ("baseline", "base", OTHER, EDGE)
        for found in (
            ({"equivalent_to": other, "within": AT}, {other: better_by(0.0)}, "pass"),
            ({"equivalent_to": other, "within": AT}, {other: better_by(0.05)}, "inconclusive"),
            ({"equivalent_to": other, "within": AT}, {other: better_by(-0.05)}, "inconclusive"),
            ({"equivalent_to": other, "within": AT}, {other: better_by(0.1)}, "fail"),
            ({"equivalent_to": other, "within": AT}, {other: better_by(-0.1)}, "fail"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "others", "outcome"), FORMS)
@pytest.mark.parametrize("kind", ["light", "heavy"])
def test_every_form_has_every_outcome(asked, others, outcome, kind):
    values = {"explainer": OWN, **others}
    result = cell([asked], values, of=metric(kind=kind))
    [found] = result.limits
    assert found.verdict.outcome == result.verdict.outcome == outcome
    assert "\n" not in found.verdict.reason
    low, high = (inf if end is None else end
                 for end, inf in zip(found.region, (-np.inf, np.inf), strict=True))  # fmt: skip
    if outcome == "pass":
        assert found.estimate.low >= low
        assert found.estimate.high <= high
        assert found.p_value <= 0.025
        assert found.p_opposite > 0.025
    if outcome == "fail":
        assert found.estimate.high < low or found.estimate.low > high
        assert found.p_opposite <= 0.025
    if outcome == "inconclusive" and found.estimate:
        assert found.p_value > 0.025


@pytest.mark.parametrize(("asked", "others", "outcome"), FORMS)
def test_the_other_direction_mirrors_every_outcome(asked, others, outcome):
    swapped = {"at_most": "at_least", "at_least": "at_most"}
    asked = {swapped.get(key, key): -one if key in swapped else one for key, one in asked.items()}
    values = {map_: -np.asarray(found) for map_, found in {"explainer": OWN, **others}.items()}
    found = limit(asked, values, of=metric("higher"))
    assert found.verdict.outcome == outcome


def test_without_an_earlier_run_the_reason_says_what_to_give():
    found = limit({"not_worse_than": "baseline", "within": AT}, {"explainer": OWN})
    assert found.verdict.reason == (
        "m (blur): improvement over baseline: no baseline values: give an earlier run with "
        "--fx-baseline"
    )
    assert found.estimate is None


# --- what noise, a copy, and a constant get


@pytest.mark.parametrize("kind", ["light", "heavy", "rate"])
@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("by", [{}, {"absolute": 0.01}])
def test_a_copy_of_a_control_and_a_constant_difference_are_never_better(kind, better, by):
    for gain in (0.0, 0.25, -0.25):
        values = {"explainer": OWN, EDGE: OWN + gain}
        found = limit({"better_than": EDGE, "by": by}, values, of=metric(better, kind))
        assert found.verdict.outcome in ("fail", "inconclusive")
        assert "do not vary" in found.verdict.reason


@pytest.mark.parametrize(
    ("kind", "outcome"), [("light", "pass"), ("heavy", "pass"), ("rate", "inconclusive")]
)
def test_equal_rows_are_not_worse_unless_rare_events_may_hide(kind, outcome):
    values = {"explainer": OWN, "baseline": OWN}
    for asked in ({"not_worse_than": "baseline"}, {"equivalent_to": "baseline"}):
        found = limit({**asked, "within": AT}, values, of=metric(kind=kind))
        assert found.verdict.outcome == outcome
        remark = "every row is equal; this says nothing about groups rarer than 8.8% of all people"
        assert (outcome == "pass") is (remark in found.verdict.reason)
    few = {map_: one[:29] for map_, one in values.items()}
    found = limit({"not_worse_than": "baseline", "within": AT}, few, of=metric(kind=kind))
    assert found.verdict.outcome == "inconclusive"


def test_noise_is_not_better_than_noise():
    random = np.random.default_rng(1)
    passed = 0
    for _ in range(60):
        values = {"explainer": random.uniform(0, 1, 40), EDGE: random.uniform(0, 1, 40)}
        passed += limit({"better_than": EDGE}, values).verdict.outcome == "pass"
    assert passed <= 5  # 2.5 % expected; more than 5 of 60 has a probability of 0.2 %


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["lower", "higher"]),
    st.sampled_from(["light", "heavy", "rate"]),
    st.integers(10, 45),
    st.floats(0.1, 0.8),
)
def test_an_explainer_made_ten_percent_better_never_fails(seed, better, kind, n, line):
    random = np.random.default_rng(seed)
    old = 0.9 * random.uniform(0.05, 1.0, n) ** random.uniform(0.5, 3)
    new = old * (0.9 if better == "lower" else 1.1)
    values = {"explainer": new, "baseline": old, OTHER: old}
    of = metric(better, kind)
    asked = [
        {"not_worse_than": "baseline", "within": {"absolute": 0.0}},
        {"not_worse_than": "baseline", "within": {"relative": 0.02}},
        {"better_than": OTHER},
        {"better_than": OTHER, "by": {"relative": 0.09}},
        {"equivalent_to": "baseline", "within": {"absolute": 0.1}},
    ]
    for found in cell(asked, values, of=of).limits:
        assert found.verdict.outcome != "fail", found.verdict.reason
    bound = {"lower": "at_most", "higher": "at_least"}[better]
    was = limit({bound: line}, {"explainer": old}, of=of).verdict.outcome
    now = limit({bound: line}, {"explainer": new}, of=of).verdict.outcome
    order = ["fail", "inconclusive", "pass"]
    assert order.index(now) >= order.index(was)


# --- over the conditions


def conditions(blur, black):
    return {("explainer", BLUR): spread(blur), ("explainer", BLACK): spread(black)}


def test_the_worst_condition_is_one_verdict():
    values = conditions(0.1, 0.2)
    for bound, outcome in ((0.3, "pass"), (0.15, "fail"), (0.2, "inconclusive"), (0.05, "fail")):
        result = cell([{"at_most": bound, "judge": "worst"}], values)
        [found] = result.limits
        assert (found.under, found.judge) == ({"fill": "black"}, "worst")
        assert found.verdict.outcome == result.verdict.outcome == outcome
    assert len(cell([{"at_most": 0.3}], values).limits) == 2


def test_the_mean_over_conditions_is_one_verdict_on_the_rows_means():
    values = conditions(0.1, 0.2)
    found = limit({"at_most": 0.16, "judge": "mean"}, values)
    assert found.verdict.outcome == "pass"
    assert found.under == {}
    assert found.estimate.value == pytest.approx(0.15)
    assert found.verdict.reason.startswith("m (mean of 2 conditions): 0.15 [")
    each = cell([{"at_most": 0.16}], values).limits
    assert [one.verdict.outcome.value for one in each] == ["pass", "fail"]
    pinned = limit({"at_most": 0.16, "judge": "mean", "under": {"fill": "blur"}}, values)
    assert pinned.verdict.reason.startswith("m (blur): 0.1 [")


def test_a_row_without_a_value_under_one_condition_has_no_mean():
    values = conditions(0.1, 0.2)
    values["explainer", BLACK][0] = np.nan
    assert limit({"at_most": 0.3, "judge": "mean"}, values).estimate.n_pairs == 39


def test_the_mean_of_comparisons_compares_the_means():
    values = {**conditions(0.1, 0.2), (EDGE, BLUR): spread(0.3), (EDGE, BLACK): spread(0.1) ** 1.2}
    found = limit({"better_than": EDGE, "judge": "mean"}, values)
    expected = (np.mean(values[EDGE, BLUR] + values[EDGE, BLACK]) - 0.3) / 2
    assert found.estimate.value == pytest.approx(expected)


def test_rows_that_equal_the_baseline_show_no_interval_that_would_contradict_the_pass():
    same = {"explainer": spread(0.2), "baseline": spread(0.2)}
    found = limit({"not_worse_than": "baseline", "within": {"absolute": 0.01}}, same)
    shown = found.estimate
    assert (found.verdict.outcome, shown.low, shown.value, shown.high) == ("pass", 0, 0, 0)
    assert shown.method == "every row is equal to the one that it is compared with: no interval"
    assert (found.p_value, found.detectable, found.hangs_on_one) == (None, None, None)
    assert "says nothing about groups rarer than" in found.verdict.reason


# --- seeds


def seeded(*means, **more):
    return {("explainer", BLUR, seed): spread(mean) for seed, mean in enumerate(means)} | more


def stochastic(asked, values, repeatability=STOCHASTIC, **more):
    return limit(asked, values, facts=CellFacts(repeatability=repeatability), **more)


@pytest.mark.parametrize(
    ("means", "outcome", "worst"),
    [
        ((0.1, 0.11, 0.12), "pass", 2),
        ((0.1, 0.2, 0.12), "inconclusive", 1),
        ((0.3, 0.11, 0.12), "fail", 0),
        ((0.1, 0.11), "inconclusive", 1),
        ((0.1, 0.3), "fail", 1),
    ],
)
def test_over_a_population_the_worst_seed_decides(means, outcome, worst):
    found = stochastic({"at_most": 0.2}, seeded(*means))
    assert found.verdict.outcome == outcome
    assert found.seeds.values == pytest.approx(means)
    assert found.seeds.sd == pytest.approx(np.std(means, ddof=1))
    assert found.seeds.worst == worst
    assert found.estimate.value == pytest.approx(means[worst])
    assert f"{len(means)} seeds" in found.verdict.reason


def test_one_seed_of_a_stochastic_explainer_passes_nothing_over_a_population():
    found = stochastic({"at_most": 0.5}, seeded(0.1))
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reason.endswith(
        "the maps depend on their seed, and 1 seed cannot decide for a population: give 'seeds: 3'"
    )
    assert stochastic({"at_most": 0.05}, seeded(0.1)).verdict.outcome == "fail"
    for known in (STEADY, None):  # of earlier versions nothing is known, and one seed decides
        assert stochastic({"at_most": 0.5}, seeded(0.1), known).verdict.outcome == "pass"


def test_a_control_that_has_no_seed_is_compared_at_every_seed():
    found = stochastic({"better_than": EDGE}, seeded(0.1, 0.11, 0.12, **{EDGE: spread(0.3)[::-1]}))
    assert found.verdict.outcome == "pass"
    assert found.seeds.values == pytest.approx([0.2, 0.19, 0.18])


def test_an_explainer_without_a_seed_is_compared_with_every_seed_of_another():
    other = {
        ("explainer:x", BLUR, seed): spread(mean)[::-1] for seed, mean in enumerate((0.3, 0.2, 0.1))
    }
    steady = {("explainer", BLUR): spread(0.15)}
    found = stochastic({"better_than": "explainer:x"}, steady | other, STEADY)
    assert found.seeds.values == pytest.approx([0.15, 0.05, -0.05])
    assert (found.seeds.worst, found.verdict.outcome) == (2, "fail")
    of_list = stochastic({"better_than": "explainer:x", "over": "list"}, steady | other, STEADY)
    assert of_list.verdict.outcome == "inconclusive"
    assert of_list.estimate.value == pytest.approx(0.05)


def test_tables_show_the_rows_means_over_seeds_and_how_seeds_differ():
    facts = CellFacts(repeatability=STOCHASTIC)
    result = cell([], seeded(0.1, 0.2, 0.3, **{EDGE: spread(0.5)}), facts=facts)
    own, control = result.estimates
    assert own.value == pytest.approx(0.2)
    assert own.seed_sd == pytest.approx(0.1)
    assert (control.value, control.seed_sd) == (pytest.approx(0.5), None)
    [difference] = result.differences
    assert (difference.value, difference.seed_sd) == (pytest.approx(0.3), pytest.approx(0.1))
    assert own.states == {"ok": 40}


# --- over the list


@pytest.mark.parametrize(("bound", "outcome"), [(0.31, "pass"), (0.29, "fail")])
def test_over_a_list_the_value_of_few_people_decides_if_maps_repeat(bound, outcome):
    few = {"explainer": spread(0.3, 5, by=0.2)}
    asked = {"at_most": bound, "over": "list"}
    found = stochastic(asked, few, STEADY)
    assert found.verdict.outcome == outcome
    assert (found.estimate.low, found.estimate.high) == (found.estimate.value,) * 2
    assert (found.p_value, found.seeds) == (None, None)
    assert stochastic({"at_most": bound}, few, STEADY).verdict.outcome == "inconclusive"


@pytest.mark.parametrize("known", [STOCHASTIC, None])
def test_over_a_list_seeds_decide_if_maps_depend_on_them_or_nobody_knows(known):
    asked = {"at_most": 0.2, "over": "list"}
    means = (0.1, 0.11, 0.12)
    found = stochastic(asked, seeded(*means), known)
    half = 4.302652729749464 * 0.01 / np.sqrt(3)  # Student's t of two degrees of freedom
    assert found.verdict.outcome == "pass"
    assert (found.estimate.low, found.estimate.high) == pytest.approx((0.11 - half, 0.11 + half))
    assert "on this list over 3 seeds" in found.verdict.reason
    assert stochastic(asked, seeded(0.1, 0.2, 0.3), known).verdict.outcome == "inconclusive"
    one = stochastic(asked, seeded(0.1), known)
    assert one.verdict.outcome == "inconclusive"
    assert "give 'seeds: 3'" in one.verdict.reason


def test_over_a_list_a_new_version_is_compared_without_a_margin():
    asked = {"not_worse_than": "baseline", "over": "list"}
    for gain, outcome in ((0.001, "pass"), (0.0, "pass"), (-0.001, "fail")):
        values = {"explainer": OWN[:5], "baseline": OWN[:5] + gain + spread(0.0, 5, by=0.0001)}
        if not gain:
            values["baseline"] = OWN[:5]
        assert stochastic(asked, values, STEADY).verdict.outcome == outcome


def test_over_a_list_a_copy_is_not_better_and_nothing_is_no_evidence():
    asked = {"better_than": EDGE, "over": "list"}
    assert stochastic(asked, {"explainer": OWN, EDGE: OWN}, STEADY).verdict.outcome == "fail"
    assert stochastic(asked, {"explainer": OWN}, STEADY).verdict.outcome == "invalid"
    one = {"explainer": OWN[:1], EDGE: OWN[:1] + 0.1}
    assert stochastic(asked, one, STEADY).verdict.outcome == "pass"


# --- cells


def test_an_explainer_that_does_not_repeat_fails_before_its_limits():
    values = {"explainer": OWN}
    for asked in ([{"at_most": 0.9}], [{"at_most": 0.9}, {"better_than": EDGE}], []):
        result = cell(asked, values, facts=CellFacts(repeatability=RESTLESS))
        assert result.verdict.outcome is Outcome.FAIL
        assert result.verdict.reason.startswith("explainer 'own' does not repeat: ")


def test_no_explainer_is_compared_with_itself():
    asked = {"better_than": "explainer:own"}
    result = cell([asked], {"explainer": OWN})
    assert result.limits == []
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert result.verdict.reason == (
        "no critical limit; limits that compare with explainer 'own' do not apply to it"
    )
    shown = cell([asked, {"at_most": 0.9, "severity": "info"}], {"explainer": OWN})
    assert shown.verdict == result.verdict
    both = cell([asked, {"at_most": 0.9}], {"explainer": OWN})
    assert [one.at_most for one in both.limits] == [0.9]
    assert both.verdict.outcome is Outcome.PASS


def test_a_value_beyond_the_declared_range_is_invalid_and_named():
    values = {"explainer": OWN.copy(), EDGE: OWN + 0.1}
    values["explainer"][3] = 1.5
    result = cell([{"at_most": 0.9}, {"better_than": EDGE}], values)
    assert result.verdict.outcome is Outcome.INVALID
    assert result.verdict.reason == (
        "m: 1.5 in row r0003 lies beyond the range that the metric declares, [-1, 1]"
    )
    values["explainer"][3] = 1.0 + 1e-12
    assert cell([{"at_most": 0.9}], values).verdict.outcome is Outcome.PASS


def test_rows_of_two_people_are_estimated_by_both():
    people = [[i, j] for i in range(12) for j in range(i)]
    values = {"explainer": spread(0.3, len(people)), EDGE: spread(0.5, len(people))[::-1]}
    result = cell([{"better_than": EDGE}], values, identities=people)
    assert result.n_identities == 12
    assert {one.n_identities for one in result.estimates} == {12}
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "too few identities (12 of at least 30)" in result.verdict.reason


def list_of(own, other, n=36):
    """Rows of n people: one mated each, and one nonmated of each and the next; values of two."""
    people = [*([i, i] for i in range(n)), *([i, (i + 1) % n] for i in range(n))]
    mated = [True] * n + [False] * n
    random = np.random.default_rng(4)
    noise = random.normal(0, 0.1, 2 * n)
    values = {
        map_: np.clip(apart * np.array(mated) - 0.1 + noise, -1, 1)
        for map_, apart in (("explainer", own), (EDGE, other))
    }
    return values, {"identities": people, "is_mated": mated}


def test_a_figure_of_the_list_is_judged_and_compared_as_one_figure():
    of = metric("higher", statistic="auc")
    values, rows = list_of(0.25, 0.02)
    asked = [{"at_least": 0.7}, {"at_least": 0.999}, {"better_than": EDGE}]
    result = cell(asked, values, of=of, **rows)
    assert [one.verdict.outcome.value for one in result.limits][::2] == ["pass", "pass"]
    assert result.limits[1].verdict.outcome != "pass"
    own, control = (one.value for one in result.estimates)
    assert result.limits[2].estimate.value == pytest.approx(own - control)
    assert result.differences[0].value == pytest.approx(own - control)
    swapped, _ = list_of(0.02, 0.25)
    assert limit({"better_than": EDGE}, swapped, of=of, **rows).verdict.outcome == "fail"
    same, _ = list_of(0.2, 0.2)
    assert limit({"better_than": EDGE}, same, of=of, **rows).verdict.outcome != "pass"
    relative = limit({"better_than": EDGE, "by": {"relative": 0.1}}, values, of=of, **rows)
    assert relative.verdict.outcome == "invalid"
    assert "expected 'absolute'" in relative.verdict.reason


def test_a_figure_of_the_list_needs_to_know_which_rows_are_mated():
    values, rows = list_of(0.25, 0.02)
    found = limit({"at_least": 0.7}, values, of=metric("higher", statistic="auc"),
                  identities=rows["identities"])  # fmt: skip
    assert found.verdict.outcome == "invalid"
    assert found.verdict.reason == "m: some row does not say whether it is of one person"


def test_the_order_of_rows_changes_nothing():
    values = {**seeded(0.1, 0.11, 0.12), ("explainer", BLACK): spread(0.2), EDGE: spread(0.4)[::-1],
              "baseline": spread(0.15) ** 1.1, OTHER: spread(0.25)}  # fmt: skip
    asked = [
        {"at_most": 0.5, "judge": "worst"}, {"at_most": 0.5, "judge": "mean"},
        {"better_than": EDGE}, {"better_than": OTHER, "over": "list"},
        {"not_worse_than": "baseline", "within": AT}, {"equivalent_to": OTHER, "within": AT},
    ]  # fmt: skip
    facts = CellFacts(repeatability=STOCHASTIC)
    first = cell(asked, values, facts=facts)
    order = np.random.default_rng(3).permutation(40)
    again = cell(asked, values, facts=facts, rows=lambda rows: [rows[at] for at in order])
    assert again == first

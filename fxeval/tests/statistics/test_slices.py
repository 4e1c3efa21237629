"""Estimates and limits in the slices that a column makes: no small group hides behind a mean."""

import numpy as np
import pytest

from fxeval.records.schema import CellFacts
from fxeval.results import Outcome
from fxeval.statistics.holm import regressions_of
from fxeval.tests.statistics.judged_cells import (
    BLACK,
    BLUR,
    STEADY,
    STOCHASTIC,
    cell,
    limit,
    metric,
    spread,
)

EDGE = "control.edge"
WORST = {"slice": "look", "judge": "worst"}


def looks(**counts):
    """Return the words of rows: so many of each look, one after another."""
    return [{"look": look} for look, n in counts.items() for _ in range(n)]


def of_looks(counts, **means):
    """Return values around a mean for each look."""
    return np.concatenate([spread(means[look], n) for look, n in counts.items()])


MOST = {"round": 270, "long": 40}
GAMED = of_looks(MOST, round=0.3, long=0.6)


def outcome(found):
    return str(found.verdict.outcome)


# --- a group that the mean hides


def test_an_explainer_that_is_bad_for_one_small_group_passes_over_all_rows_and_fails_in_the_worst():
    asked = {"at_most": 0.4}
    rows = {"slices": looks(**MOST)}
    assert outcome(limit(asked, {"explainer": GAMED}, **rows)) == "pass"
    found = limit({**asked, **WORST}, {"explainer": GAMED}, **rows)
    assert outcome(found) == "fail"
    assert found.under == {"fill": "blur", "look": "long"}
    assert found.verdict.reason.startswith("worst of 2 slices of look: m (blur, look long): 0.6 [")
    assert (found.slice, found.estimate.n_identities) == ("look", 40)


def test_a_limit_is_judged_in_each_slice_where_no_word_says_how():
    found = cell([{"at_most": 0.4, "slice": "look"}], {"explainer": GAMED}, slices=looks(**MOST))
    assert [(one.under["look"], outcome(one)) for one in found.limits] == [
        ("long", "fail"), ("round", "pass"),
    ]  # fmt: skip
    assert found.verdict.outcome is Outcome.FAIL


def test_being_better_than_a_control_on_average_is_no_pass_where_a_group_is_worse():
    control = of_looks(MOST, round=0.4, long=0.5) + spread(0.0, 310, by=0.001)
    values, rows = {"explainer": GAMED, EDGE: control}, {"slices": looks(**MOST)}
    assert outcome(limit({"better_than": EDGE}, values, **rows)) == "pass"
    found = limit({"better_than": EDGE, **WORST}, values, **rows)
    assert (outcome(found), found.under["look"]) == ("fail", "long")


def test_the_worst_slice_of_a_pass_is_named_as_well():
    values = of_looks(MOST, round=0.2, long=0.3)
    found = limit({"at_most": 0.4, **WORST}, {"explainer": values}, slices=looks(**MOST))
    assert outcome(found) == "pass"
    assert found.verdict.reason.startswith("worst of 2 slices of look: m (blur, look long): 0.3")


def test_a_noise_map_passes_in_no_slice():
    noise = np.random.default_rng(3).uniform(-0.9, 0.9, 310)
    values = {"explainer": noise, EDGE: noise[::-1].copy()}
    found = cell([{"better_than": EDGE, "slice": "look"}], values, slices=looks(**MOST))
    assert {outcome(one) for one in found.limits} == {"inconclusive"}


# --- too few people


@pytest.mark.parametrize("over", ["population", "list"])
@pytest.mark.parametrize(("n", "expected"), [(29, "inconclusive"), (30, "pass")])
def test_29_people_of_a_slice_pass_nothing_however_good_they_are(over, n, expected):
    counts = {"round": 100, "long": n}
    values = {"explainer": of_looks(counts, round=0.2, long=0.1)}
    facts = CellFacts(repeatability=None if over == "population" else STEADY)
    found = cell(
        [{"at_most": 0.4, "slice": "look", "over": over}],
        values,
        slices=looks(**counts),
        facts=facts,
    )
    by_look = {one.under["look"]: one for one in found.limits}
    assert outcome(by_look["round"]) == "pass"
    assert outcome(by_look["long"]) == expected
    if n < 30:
        assert "too few identities" in by_look["long"].verdict.reason


def test_many_rows_of_few_people_are_few_people():
    n = 29 * 4
    found = limit(
        {"at_most": 0.4, **WORST},
        {"explainer": spread(0.1, n)},
        identities=[[place % 29] for place in range(n)],
        slices=looks(long=n),
    )
    assert (outcome(found), found.estimate.n_identities) == ("inconclusive", 29)


def test_an_inconclusive_slice_is_not_outvoted_into_a_pass():
    counts = {"round": 270, "oval": 270, "long": 12}
    values = {"explainer": of_looks(counts, round=0.3, oval=0.39, long=0.0)}
    found = limit({"at_most": 0.4, **WORST}, values, slices=looks(**counts))
    assert (outcome(found), found.under["look"]) == ("inconclusive", "long")


def test_a_failed_slice_comes_before_an_inconclusive_one():
    counts = {"round": 270, "oval": 30, "long": 12}
    values = {"explainer": of_looks(counts, round=0.3, oval=0.6, long=0.0)}
    found = limit({"at_most": 0.4, **WORST}, values, slices=looks(**counts))
    assert (outcome(found), found.under["look"]) == ("fail", "oval")


def test_a_slice_in_which_no_row_has_a_value_passes_nothing():
    values = GAMED.copy()
    values[270:] = np.nan
    found = limit({"at_most": 0.4, **WORST}, {"explainer": values}, slices=looks(**MOST))
    assert (outcome(found), found.under["look"]) == ("invalid", "long")


def test_rows_without_a_word_are_a_slice_of_their_own():
    rows = looks(round=270)
    found = cell(
        [{"at_most": 0.4, "slice": "look"}],
        {"explainer": GAMED},
        rows=lambda made: [*made[:270], *(r.model_copy(update={"slices": {}}) for r in made[270:])],
        slices=[*rows, *looks(long=40)],
    )
    assert [(one.under["look"], outcome(one)) for one in found.limits] == [
        ("round", "pass"), ("unknown", "fail"),
    ]  # fmt: skip


# --- what else a limit may say


def test_a_pinned_condition_is_judged_in_each_of_its_slices():
    bad = GAMED + 0.3
    values = {("explainer", BLUR): of_looks(MOST, round=0.2, long=0.3), ("explainer", BLACK): bad}
    pinned = {"at_most": 0.4, "under": dict(BLUR), **WORST}
    assert outcome(limit(pinned, values, slices=looks(**MOST))) == "pass"
    found = limit({"at_most": 0.4, **WORST}, values, slices=looks(**MOST))
    assert found.under == {"fill": "black", "look": "long"}
    assert found.verdict.reason.startswith("worst of 2 slices of look under 2 conditions: ")


def test_every_seed_is_judged_in_a_slice():
    good = of_looks(MOST, round=0.2, long=0.3)
    bad = of_looks(MOST, round=0.2, long=0.6)
    values = {("explainer", BLUR, seed): bad if seed == 1 else good for seed in range(3)}
    facts = CellFacts(repeatability=STOCHASTIC)
    found = limit({"at_most": 0.4, **WORST}, values, facts=facts, slices=looks(**MOST))
    assert (outcome(found), found.under["look"], found.seeds.worst) == ("fail", "long", 1)
    assert "(the worst of 3 seeds)" in found.verdict.reason


def test_a_group_that_got_worse_since_an_earlier_run_is_found_and_counted():
    earlier = of_looks(MOST, round=0.35, long=0.3) + spread(0.0, 310, by=0.001)
    asked = {"not_worse_than": "baseline", "within": {"absolute": 0.05}}
    values, rows = {"explainer": GAMED, "baseline": earlier}, {"slices": looks(**MOST)}
    assert outcome(limit(asked, values, **rows)) == "pass"
    found = cell([{**asked, "slice": "look"}], values, **rows)
    assert [(one.under["look"], outcome(one)) for one in found.limits] == [
        ("long", "fail"), ("round", "pass"),
    ]  # fmt: skip
    family = regressions_of([found]).tested
    assert [(one.under["look"], one.is_worse) for one in family] == [
        ("long", True), ("round", False),
    ]  # fmt: skip


def test_a_decision_must_be_failed_by_random_orders_in_the_slice_itself():
    random = of_looks(MOST, round=0.9, long=0.3)
    values = {
        "explainer": of_looks(MOST, round=0.2, long=0.2),
        "control.random_pixels": random,
        "control.random_blobs": random,
    }
    of = metric(is_decision=True)
    found = cell([{"at_most": 0.5}, {"at_most": 0.5, **WORST}], values, of=of, slices=looks(**MOST))
    whole, worst = found.limits
    assert outcome(whole) == "pass"
    assert (outcome(worst) != "pass", worst.under["look"]) == (True, "long")


# --- figures of a list within slices


def test_an_eer_that_the_mix_of_slices_makes_is_not_there_within_them():
    """In one slice nearly all pairs are mated and all similarities high, in the other neither."""
    n = 240
    is_high = np.arange(n) < n // 2
    is_mated = [bool(high) == (place % 20 > 0) for place, high in enumerate(is_high)]
    values = np.where(is_high, 0.8, 0.2) + spread(0.0, n, by=0.05)
    of = metric(statistic="eer", better="lower", range=(0.0, 1.0))
    found = cell(
        [{"at_most": 0.2}, {"at_most": 0.2, "slice": "look"}],
        {"explainer": np.clip(values, 0, 1)},
        of=of,
        is_mated=is_mated,
        identities=[[p] if m else [p, (p + 1) % n] for p, m in enumerate(is_mated)],
        slices=looks(high=n // 2, low=n // 2),
    )
    whole, *within = found.limits
    assert whole.estimate.value == pytest.approx(0.05)
    assert all(one.estimate.value > 0.25 for one in within)
    assert outcome(whole) == "pass"
    assert all(outcome(one) != "pass" for one in within)


# --- estimates


def test_slices_add_estimates_and_change_none():
    values = {"explainer": GAMED, EDGE: GAMED + spread(0.1, 310)}
    plain = cell([{"at_most": 0.4}], values)
    found = cell([{"at_most": 0.4}], values, slices=looks(**MOST))
    assert found.estimates[:2] == plain.estimates
    assert found.differences[:1] == plain.differences
    assert [(one.map, one.under["look"], one.n_pairs) for one in found.estimates[2:]] == [
        (map_, look, n)
        for map_ in ("explainer", EDGE)
        for look, n in (("long", 40), ("round", 270))
    ]
    assert [(one.control, one.under["look"]) for one in found.differences[1:]] == [
        ("edge", "long"), ("edge", "round"),
    ]  # fmt: skip
    assert found.verdict == plain.verdict


def test_an_estimate_in_a_slice_is_that_of_its_rows_alone():
    found = cell([{"at_most": 0.4}], {"explainer": GAMED}, slices=looks(**MOST))
    alone = cell([{"at_most": 0.4}], {"explainer": GAMED[270:]})
    keys = ("value", "low", "high", "n_pairs", "n_identities", "method", "states")
    [within] = [one for one in found.estimates if one.under.get("look") == "long"]
    assert [getattr(within, key) for key in keys] == [
        getattr(alone.estimates[0], key) for key in keys
    ]


def test_the_order_of_the_rows_changes_nothing():
    values = {"explainer": GAMED, EDGE: GAMED + spread(0.1, 310)}
    asked = [{"at_most": 0.4, **WORST}, {"better_than": EDGE, "slice": "look"}]
    order = np.random.default_rng(1).permutation(310)
    found, other = (
        cell(asked, values, slices=looks(**MOST), rows=rows)
        for rows in (list, lambda made: [made[place] for place in order])
    )
    assert found == other


def test_a_limit_on_slices_that_no_row_has_is_invalid():
    found = limit({"at_most": 0.4, "slice": "look"}, {"explainer": GAMED})
    assert outcome(found) == "invalid"


def test_a_figure_of_a_list_that_a_slice_lacks_the_pairs_for_says_so():
    asked = {"at_least": 0.1, "over": "list", "slice": "look"}
    values = {"explainer": spread(0.5, 80)}
    mated = [*[True] * 40, *[place % 2 == 0 for place in range(40)]]
    of = metric(better="higher", statistic="eer", range=(None, None))
    rows = {"slices": looks(round=40, long=40), "is_mated": mated}
    found = cell([asked], values, of=of, facts=CellFacts(repeatability=STEADY), **rows).limits
    said = {one.under["look"]: one.verdict.reason for one in found}
    assert "no nonmated pairs" in said["round"]
    assert "no nonmated pairs" not in said["long"]

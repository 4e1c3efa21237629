import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import RowState
from fxeval.results import Estimate, Outcome, Verdict
from fxeval.scorecard.wording import map_name
from fxeval.statistics.limits import AtLeast, AtMost, BetterThan, EquivalentTo, NotWorseThan
from fxeval.statistics.verdict import (
    MIN_IDENTITIES,
    MIN_IDENTITIES_TO_FAIL,
    combine,
    judge,
    judge_list,
    state_verdict,
)

PASS, FAIL, INCONCLUSIVE, INVALID = (
    Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.INVALID,
)  # fmt: skip
AT_MOST = AtMost("deletion_auc", at_most=0.4)
AT_LEAST = AtLeast("insertion_auc", at_least=0.4)
BETTER = BetterThan("deletion_auc", better_than="control.random_blobs")
NOT_WORSE = NotWorseThan("deletion_auc", not_worse_than="baseline", within={"absolute": 0.02})
EQUIVALENT = EquivalentTo("deletion_auc", equivalent_to="base", within={"absolute": 0.02})
BEYOND = replace(BETTER, by={"absolute": 0.02})


def _estimate(low, value, high, identities=50):
    return Estimate(value, low, high, 0.95, 100, identities, "cluster-robust t over identities")


@pytest.mark.parametrize(
    ("limit", "interval", "outcome"),
    [
        (AT_MOST, (0.2, 0.3, 0.39), PASS),
        (AT_MOST, (0.2, 0.3, 0.4), PASS),
        (AT_MOST, (0.2, 0.3, 0.41), INCONCLUSIVE),
        (AT_MOST, (0.4, 0.5, 0.6), INCONCLUSIVE),
        (AT_MOST, (0.41, 0.5, 0.6), FAIL),
        (AT_MOST, (0.3, 0.3, 0.3), PASS),
        (AT_LEAST, (0.41, 0.5, 0.6), PASS),
        (AT_LEAST, (0.4, 0.5, 0.6), PASS),
        (AT_LEAST, (0.39, 0.5, 0.6), INCONCLUSIVE),
        (AT_LEAST, (0.2, 0.3, 0.4), INCONCLUSIVE),
        (AT_LEAST, (0.2, 0.3, 0.39), FAIL),
        (BETTER, (0.044, 0.061, 0.078), PASS),
        (BETTER, (0.0, 0.061, 0.078), INCONCLUSIVE),
        (BETTER, (-0.01, 0.061, 0.078), INCONCLUSIVE),
        (BETTER, (-0.02, -0.01, 0.0), INCONCLUSIVE),
        (BETTER, (-0.02, -0.01, -0.001), FAIL),
        (BEYOND, (0.021, 0.061, 0.078), PASS),
        (BEYOND, (0.02, 0.061, 0.078), INCONCLUSIVE),
        (BEYOND, (0.001, 0.01, 0.019), FAIL),
        (NOT_WORSE, (-0.02, 0.0, 0.02), PASS),
        (NOT_WORSE, (0.1, 0.2, 0.3), PASS),
        (NOT_WORSE, (-0.021, 0.0, 0.02), INCONCLUSIVE),
        (NOT_WORSE, (-0.05, -0.03, -0.02), INCONCLUSIVE),
        (NOT_WORSE, (-0.05, -0.03, -0.021), FAIL),
        (EQUIVALENT, (-0.02, 0.0, 0.02), PASS),
        (EQUIVALENT, (-0.02, 0.0, 0.021), INCONCLUSIVE),
        (EQUIVALENT, (-0.021, 0.0, 0.02), INCONCLUSIVE),
        (EQUIVALENT, (-0.1, 0.0, 0.1), INCONCLUSIVE),
        (EQUIVALENT, (0.021, 0.03, 0.04), FAIL),
        (EQUIVALENT, (-0.04, -0.03, -0.021), FAIL),
    ],
)
def test_the_interval_decides(limit, interval, outcome):
    assert judge(limit, _estimate(*interval)).outcome is outcome


@pytest.mark.parametrize(
    ("value", "outcome"), [(0.0, FAIL), (-0.1, FAIL), (0.1, INCONCLUSIVE), (1e-9, INCONCLUSIVE)]
)
@pytest.mark.parametrize("noise", [0.0, 1e-17])
def test_a_paired_difference_without_variance_never_passes(value, outcome, noise):
    verdict = judge(BETTER, _estimate(value - noise, value, value + noise))
    assert verdict.outcome is outcome
    assert "do not vary" in verdict.reason


@pytest.mark.parametrize("limit", [AT_MOST, AT_LEAST, BETTER])
@pytest.mark.parametrize("identities", [2, 9, 10, 29, 30])
def test_few_identities_never_pass_and_very_few_decide_nothing(limit, identities):
    better = -0.5 if limit is AT_MOST else 0.9
    good = judge(limit, _estimate(better - 0.01, better, better + 0.01, identities))
    bad = judge(limit, _estimate(0.4 - better, 0.41 - better, 0.42 - better, identities))
    assert good.outcome is (PASS if identities >= MIN_IDENTITIES else INCONCLUSIVE)
    assert bad.outcome is (FAIL if identities >= MIN_IDENTITIES_TO_FAIL else INCONCLUSIVE)
    if identities < MIN_IDENTITIES:
        assert f"too few identities ({identities} of at least 30)" in good.reason


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([AT_MOST, AT_LEAST, BETTER, BEYOND, NOT_WORSE, EQUIVALENT]),
    st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3),
    st.integers(0, 60),
)
def test_only_an_interval_beyond_the_limit_with_enough_identities_passes(
    limit, interval, identities
):
    verdict = judge(limit, _estimate(*interval, identities))
    low, value, high = interval
    clears = {
        "at_most": high <= 0.4,
        "at_least": low >= 0.4,
        "better_than": low > limit.line(),
        "not_worse_than": low >= -0.02,
        "equivalent_to": low >= -0.02 and high <= 0.02,
    }
    if verdict.outcome is PASS:
        assert math.isfinite(value)
        assert low <= value <= high
        assert identities >= MIN_IDENTITIES
        assert clears[limit.form]
    assert verdict.reason


@pytest.mark.parametrize("limit", [AT_MOST, AT_LEAST, BETTER])
@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ((math.nan, math.nan, math.nan), INVALID),
        ((0.1, math.inf, 0.3), INVALID),
        ((math.nan, 0.2, 0.3), INVALID),
        ((0.3, 0.2, 0.1), INVALID),
        ((0.1, 0.5, 0.3), INVALID),
        ((math.nan, 0.2, math.nan), INCONCLUSIVE),
    ],
)
def test_what_is_no_number_is_never_a_pass(limit, interval, outcome):
    assert judge(limit, _estimate(*interval)).outcome is outcome


@pytest.mark.parametrize(
    ("limit", "interval", "outcome"),
    [
        (AT_MOST, (-math.inf, 0.2, 0.3), PASS),
        (AT_MOST, (-math.inf, 0.2, 0.41), INCONCLUSIVE),
        (AT_MOST, (0.41, 0.5, math.inf), FAIL),
        (AT_MOST, (0.1, 0.2, math.inf), INCONCLUSIVE),
        (AT_LEAST, (0.4, 0.5, math.inf), PASS),
        (AT_LEAST, (-math.inf, 0.2, 0.3), FAIL),
        (BETTER, (0.01, 0.2, math.inf), PASS),
        (BETTER, (-math.inf, 0.2, 0.3), INCONCLUSIVE),
        (BETTER, (-math.inf, -0.2, -0.1), FAIL),
        (NOT_WORSE, (-0.02, 0.0, math.inf), PASS),
        (NOT_WORSE, (-math.inf, 0.0, 0.1), INCONCLUSIVE),
        (EQUIVALENT, (-math.inf, 0.0, 0.01), INCONCLUSIVE),
        (EQUIVALENT, (-0.01, 0.0, math.inf), INCONCLUSIVE),
        (EQUIVALENT, (0.03, 0.04, math.inf), FAIL),
        (EQUIVALENT, (-math.inf, 0.0, math.inf), INCONCLUSIVE),
    ],
)
def test_an_interval_without_an_end_decides_where_the_other_end_suffices(limit, interval, outcome):
    assert judge(limit, _estimate(*interval)).outcome is outcome


def test_no_rows_are_no_evidence():
    nothing = Estimate(math.nan, math.nan, math.nan, 0.95, 0, 0, "no row has a value")
    assert judge(AT_MOST, nothing) == Verdict(INVALID, "deletion_auc: no row has a value")


@pytest.mark.parametrize(
    "limit",
    [
        *(replace(AT_MOST, at_most=bound) for bound in (math.nan, math.inf)),
        *(replace(BETTER, by={"absolute": margin}) for margin in (math.nan, math.inf, -0.1)),
        *(replace(BETTER, by={"relative": margin}) for margin in (math.nan, -0.1)),
        *(replace(NOT_WORSE, within={"absolute": margin}) for margin in (math.nan, math.inf, -0.1)),
        replace(NOT_WORSE, within={"relative": -0.1}),
        *(replace(EQUIVALENT, within={"absolute": one}) for one in (math.nan, math.inf, -0.1)),
        replace(EQUIVALENT, within={"relative": 0.1}),
        replace(EQUIVALENT, within={}),
    ],
)
def test_a_limit_that_is_no_number_or_helps_the_explainer_is_invalid(limit):
    assert judge(limit, _estimate(0.1, 0.2, 0.3)).outcome is INVALID


@pytest.mark.parametrize("limit", [NOT_WORSE, EQUIVALENT])
def test_equal_rows_are_as_good_and_the_reason_says_what_they_do_not_show(limit):
    nothing = replace(_estimate(math.nan, 0.0, math.nan, 50), spread=0.0)
    verdict = judge(limit, nothing, is_equal=True)
    assert verdict.outcome is PASS
    assert verdict.reason.endswith(
        ": every row is equal; this says nothing about groups rarer than 7.1% of all people"
    )
    assert judge(limit, nothing).outcome is INCONCLUSIVE
    assert judge(limit, replace(nothing, n_identities=29), is_equal=True).outcome is INCONCLUSIVE
    assert judge(BETTER, replace(nothing, low=0.0, high=0.0), is_equal=True).outcome is FAIL


@pytest.mark.parametrize(
    ("limit", "value", "outcome"),
    [
        (AT_MOST, 0.4, PASS), (AT_MOST, 0.41, FAIL), (AT_LEAST, 0.4, PASS), (AT_LEAST, 0.39, FAIL),
        (BETTER, 0.01, PASS), (BETTER, 0.0, FAIL), (NOT_WORSE, -0.02, PASS),
        (NOT_WORSE, -0.021, FAIL), (EQUIVALENT, 0.02, PASS), (EQUIVALENT, -0.021, FAIL),
    ],
)  # fmt: skip
def test_over_the_list_the_value_decides_if_maps_do_not_depend_on_a_seed(limit, value, outcome):
    three_people = replace(_estimate(value, value, value, 3), spread=0.1)
    verdict = judge_list(limit, three_people, {}, 0)
    assert verdict.outcome is outcome
    assert f"{value:g} on this list, must" in verdict.reason


def test_over_the_list_seeds_decide_if_maps_depend_on_them_and_one_seed_decides_nothing():
    three = replace(_estimate(0.01, 0.02, 0.03, 3), spread=0.1)
    assert judge_list(BETTER, three, {}, 3) == Verdict(
        PASS,
        "deletion_auc: improvement over control.random_blobs 0.02 [0.01, 0.03] on this list over 3 "
        "seeds, must lie above 0",
    )
    assert judge_list(BETTER, replace(three, low=-0.01), {}, 3).outcome is INCONCLUSIVE
    one = replace(three, low=math.nan, high=math.nan)
    verdict = judge_list(BETTER, one, {}, 1)
    assert verdict.outcome is INCONCLUSIVE
    assert "give 'seeds: 3'" in verdict.reason
    assert judge_list(BETTER, replace(one, n_pairs=0), {}, 1).outcome is INVALID


def test_without_an_earlier_run_nothing_can_be_said_and_the_reason_says_what_to_do():
    nothing = Estimate(math.nan, math.nan, math.nan, 0.95, 0, 0, "no row has a value")
    assert judge(NOT_WORSE, nothing) == Verdict(
        INCONCLUSIVE,
        "deletion_auc: improvement over baseline: no baseline values: give an earlier run with "
        "--fx-baseline",
    )
    assert judge(BETTER, nothing).outcome is INVALID


def test_reasons_are_sentences_with_numbers():
    assert judge(BETTER, _estimate(0.0441, 0.06099, 0.0779)).reason == (
        "deletion_auc: improvement over control.random_blobs 0.061 [0.0441, 0.0779], "
        "must lie above 0"
    )
    assert judge(AT_MOST, _estimate(0.35, 0.4, 0.45), {"fill": "blur"}).reason == (
        "deletion_auc (blur): 0.4 [0.35, 0.45], must be at most 0.4: "
        "the interval contains the limit"
    )
    assert judge(replace(BETTER, by={"relative": 0.1}), _estimate(-0.3, -0.2, -0.1)).reason == (
        "deletion_auc: improvement over control.random_blobs beyond 0.1 of the control -0.2 "
        "[-0.3, -0.1], must lie above 0"
    )
    assert judge(AT_LEAST, _estimate(math.nan, 0.5, math.nan, 1)).reason == (
        "insertion_auc: 0.5 without an interval: 1 identities, at least 30 needed"
    )


def test_a_number_is_never_rounded_onto_the_limit_it_misses():
    reason = judge(AT_MOST, _estimate(0.3, 0.35, 0.40004)).reason
    assert "[0.3, 0.40004]" in reason


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ({RowState.OK: 200}, None),
        ({RowState.OK: 198, RowState.DEGENERATE_MAP: 2}, None),
        ({RowState.OK: 197, RowState.DEGENERATE_MAP: 3}, FAIL),
        ({RowState.OK: 198, RowState.NAN_MAP: 1, RowState.EXPLAINER_RAISED: 1}, None),
        ({RowState.OK: 197, RowState.NAN_MAP: 1, RowState.EXPLAINER_RAISED: 2}, FAIL),
        ({RowState.OK: 196, RowState.NAN_MAP: 2, RowState.DEGENERATE_MAP: 2}, None),
        ({RowState.OK: 100, RowState.NOT_CROSSED: 100}, None),
        ({RowState.MODEL_CHANGED: 200}, FAIL),
        ({}, None),
    ],
)
def test_more_than_one_percent_of_bad_maps_fail(states, outcome):
    verdict = state_verdict(states, 200)
    assert (verdict.outcome if verdict else None) is outcome


def test_one_bad_map_of_few_fails_and_is_named():
    verdict = state_verdict({RowState.OK: 38, RowState.DEGENERATE_MAP: 1, RowState.NAN_MAP: 1}, 40)
    assert verdict.reason == (
        "1 of 40 saliency maps are degenerate (constant); at most 1% are allowed; "
        "1 of 40 rows have no usable saliency map (nan_map 1); at most 1% are allowed"
    )


@pytest.mark.parametrize(
    ("constant", "broken", "outcome"),
    [(40, 0, None), (41, 0, INCONCLUSIVE), (200, 0, INCONCLUSIVE), (0, 3, FAIL), (41, 3, FAIL)],
)
def test_constant_maps_that_are_allowed_leave_a_verdict_open_and_broken_ones_fail(
    constant, broken, outcome
):
    states = {RowState.DEGENERATE_MAP: constant, RowState.NAN_MAP: broken}
    verdict = state_verdict(states, 200, constant_allowed=0.2)
    assert (verdict.outcome if verdict else None) is outcome


def test_what_does_not_apply_decides_nothing_and_is_no_pass_alone():
    away = Verdict(Outcome.UNSUPPORTED, "nudge: does not apply")
    for outcome in (PASS, FAIL, INCONCLUSIVE, INVALID):
        both = [(away, "critical"), (Verdict(outcome, "r"), "critical")]
        assert combine(both) == Verdict(outcome, "r")
    alone = combine([(away, "critical"), (Verdict(PASS, "p"), "warning")])
    assert alone == Verdict(INCONCLUSIVE, "no critical limit applies: nudge: does not apply")


def test_the_severest_critical_verdict_decides_the_cell():
    good, bad, open_, void = (
        Verdict(outcome, outcome.value) for outcome in (PASS, FAIL, INCONCLUSIVE, INVALID)
    )
    ordered = [void, bad, open_, good]
    for index, severest in enumerate(ordered):
        group = [(verdict, "critical") for verdict in reversed(ordered[index:])]
        assert combine(group) == severest
    assert combine([(good, "critical"), (bad, "warning"), (void, "info")]) == good
    two = [(Verdict(FAIL, "a"), "critical"), (good, "critical"), (Verdict(FAIL, "b"), "critical")]
    assert combine(two) == Verdict(FAIL, "a; b")


@pytest.mark.parametrize("severities", [[], ["warning"], ["info", "warning"]])
def test_without_a_critical_limit_nothing_is_passed(severities):
    verdict = combine([(Verdict(PASS, "fine"), severity) for severity in severities])
    assert verdict == Verdict(INCONCLUSIVE, "no critical limit")


def test_what_was_asked_for_information_alone_decides_nothing():
    for verdict in (PASS, FAIL, INVALID):
        found = combine([(Verdict(PASS, "fine"), "info"), (Verdict(verdict, "x"), "info")])
        assert found == Verdict(Outcome.INFORMATION, "no limit decides: information only")


def test_a_sentence_keeps_the_name_that_a_suite_gave_and_writes_that_of_a_control_for_readers():
    of_another = BetterThan("m", better_than="explainer:s_rise").sentence("T", "0.1", map_name)
    of_control = BetterThan("m", better_than="control.random_blobs").sentence("T", "0.1", map_name)
    assert "better than the explainer s_rise;" in of_another
    assert "better than the control random blobs;" in of_control

"""From rows to estimates and verdicts: by hand, in any order, and never a pass without evidence."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.errors import StoreError
from fxeval.records.form import VerdictEntry
from fxeval.records.judged import LimitEntry, MetricEntry
from fxeval.records.schema import CellFacts, CellPlan, CellResult, Measured, Network, Row
from fxeval.results import Outcome, RowState
from fxeval.statistics.bands import drawn
from fxeval.statistics.intervals import interval, skew_t
from fxeval.statistics.results import SHOWN_PROBLEMS, refused, results_of
from fxeval.statistics.verdict import overall

BLUR, BLACK = {"fill": "blur"}, {"fill": "black"}
AUC, GAIN = (
    MetricEntry(
        name=name, title=name, unit="u", better=better, range=(-1.0, 1.0), statistic="mean",
        source="s", meaning="m",
    )
    for name, better in (("auc", "lower"), ("gain", "higher"))
)  # fmt: skip
MEDIAN = AUC.model_copy(update={"name": "typical", "statistic": "median", "range": (0.0, 100.0)})


def plan(*asked, metrics=(AUC,), confidence=0.95):
    return CellPlan(
        id="c[m-e-p]", check="c", kind="k", why="", where="s.yaml:1:1", model="m", explainer="e",
        pairs="p", parameters={"steps": 4}, confidence=confidence, on_inconclusive="fail",
        metrics=list(metrics), asked=[LimitEntry(**one) for one in asked],
    )  # fmt: skip


def measured(values, map_="explainer", under=BLUR, *, curves=None, state="ok"):
    return Measured(
        map=map_, under=under, values=values, states=dict.fromkeys(values, state),
        curves=curves or {},
    )  # fmt: skip


def row(number, *found, person=None, state="ok", reason="", **more):
    people = [number if person is None else person]
    return Row(cell="c[m-e-p]", row=f"r{number:03}", identities=people, state=state, reason=reason,
               measured=list(found), **more)  # fmt: skip


def many(n=40, value=0.2, *, spread=0.01, metric="auc", under=BLUR):
    """Rows of one metric whose values alternate around a value, a person each."""
    return [
        row(i, measured({metric: value + (spread if i % 2 else -spread)}, under=under))
        for i in range(n)
    ]


def by_hand(values, confidence=0.95, edges=(-1.0, 1.0)):
    """Mean and interval of one value per person, of an unknown kind."""
    found = interval(np.array(values), "heavy", *edges, confidence)
    expected = (statistics.fmean(values), float(found.low), float(found.high))
    return pytest.approx(expected, rel=1e-12)


def ends(entry):
    return entry.value, entry.low, entry.high


# --- by hand


def test_a_mean_and_its_interval_are_those_of_the_people():
    rows = [
        row(0, measured({"auc": 0.1}), person=7),
        row(1, measured({"auc": 0.3}), person=7),
        row(2, measured({"auc": 0.5}), person=9),
        row(3, measured({"auc": 0.6}), person=4),
    ]
    result = results_of(plan(confidence=0.9), CellFacts(), rows)
    [entry] = result.estimates
    assert ends(entry) == by_hand([0.2, 0.5, 0.6], 0.9)
    assert (entry.metric, entry.map, entry.under) == ("auc", "explainer", BLUR)
    assert (entry.n_pairs, entry.n_identities, entry.confidence) == (4, 3, 0.9)
    assert entry.states == {RowState.OK: 4}
    assert (result.n_pairs, result.n_identities) == (4, 3)


def test_a_difference_is_paired_and_positive_where_the_explainer_is_better():
    own, control = [0.1, 0.4, 0.2], [0.3, 0.5, 0.7]
    rows = [
        row(i, measured({"auc": a, "gain": a}), measured({"auc": b, "gain": b}, "control.edge"))
        for i, (a, b) in enumerate(zip(own, control, strict=True))
    ]
    result = results_of(plan(metrics=(AUC, GAIN)), CellFacts(), rows)
    found = {one.metric: one for one in result.differences}
    improvement = [b - a for a, b in zip(own, control, strict=True)]
    assert ends(found["auc"]) == by_hand(improvement, edges=(-2.0, 2.0))
    assert ends(found["gain"]) == by_hand([-one for one in improvement], edges=(-2.0, 2.0))
    assert {one.control for one in result.differences} == {"edge"}
    assert [(one.metric, one.map) for one in result.estimates] == [
        ("auc", "explainer"), ("gain", "explainer"),
        ("auc", "control.edge"), ("gain", "control.edge"),
    ]  # fmt: skip


def test_a_median_has_an_interval_of_order_statistics():
    rows = [row(i, measured({"typical": float(i)})) for i in range(40)]
    [entry] = results_of(plan(metrics=(MEDIAN,)), CellFacts(), rows).estimates
    assert ends(entry) == (19.5, 13.0, 26.0)  # the 14th smallest and the 14th largest
    below = stats.binom.cdf(13, 40, 0.5)
    assert 1 - 2 * below >= 0.95 > 1 - 2 * stats.binom.cdf(14, 40, 0.5)


@pytest.mark.parametrize(
    ("by", "margin"), [({}, 0.0), ({"absolute": 0.15}, 0.15), ({"relative": 0.5}, 0.0)]
)
def test_a_limit_over_a_control_is_judged_on_the_paired_improvement(by, margin):
    own = [0.1 + 0.001 * i for i in range(40)]
    control = [0.3 + 0.003 * i for i in range(40)]
    rows = [
        row(i, measured({"auc": a}), measured({"auc": b}, "control.edge"))
        for i, (a, b) in enumerate(zip(own, control, strict=True))
    ]
    asked = {"metric": "auc", "better_than": "control.edge", "by": by, "where": "s.yaml:2:3"}
    [limit] = results_of(plan(asked), CellFacts(), rows).limits
    less = by.get("relative", 0.0)
    assert ends(limit.estimate) == by_hand(
        [b - a - less * b for a, b in zip(own, control, strict=True)], edges=(-2 - less, 2.0)
    )
    assert limit.line == margin
    assert (limit.better_than, limit.by, limit.where) == ("control.edge", by, "s.yaml:2:3")
    assert limit.verdict.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("keys", "outcome"),
    [
        ({"at_most": 0.25}, "pass"),
        ({"at_most": 0.15}, "fail"),
        ({"at_most": 0.2}, "inconclusive"),
        ({"at_least": 0.15}, "pass"),
        ({"at_least": 0.25}, "fail"),
    ],
)
def test_the_interval_decides_the_cell(keys, outcome):
    result = results_of(plan({"metric": "auc", **keys}), CellFacts(), many())
    [limit] = result.limits
    assert result.verdict.outcome == limit.verdict.outcome == outcome
    assert ends(limit.estimate) == ends(result.estimates[0])
    assert limit.line == next(iter(keys.values()))


# --- conditions


def test_a_limit_holds_under_every_condition_that_it_does_not_name():
    rows = [
        row(i, measured({"auc": 0.1 + i / 1e4}), measured({"auc": 0.5 + i / 1e4}, under=BLACK))
        for i in range(40)
    ]
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), CellFacts(), rows)
    assert [(one.under, one.verdict.outcome.value) for one in result.limits] == [
        (BLUR, "pass"), (BLACK, "fail")]  # fmt: skip
    assert result.verdict.outcome is Outcome.FAIL
    assert "auc (black)" in result.verdict.reason
    for under, outcome in ((BLUR, "pass"), (BLACK, "fail")):
        asked = {"metric": "auc", "at_most": 0.3, "under": under}
        result = results_of(plan(asked), CellFacts(), rows)
        assert [one.under for one in result.limits] == [under]
        assert result.verdict.outcome == outcome


def test_an_axis_that_a_limit_names_is_pinned_and_the_others_are_not():
    conditions = [
        {"fill": fill, "fraction": fraction}
        for fill, fraction in itertools.product(("blur", "black"), (0.1, 0.5))
    ]
    rows = [
        row(i, *(measured({"auc": 0.1 + i / 1e4}, under=under) for under in conditions))
        for i in range(40)
    ]
    for pinned, n in (({}, 4), ({"fill": "blur"}, 2), ({"fraction": 0.5}, 2), (conditions[2], 1)):
        asked = {"metric": "auc", "at_most": 0.3, "under": pinned}
        result = results_of(plan(asked), CellFacts(), rows)
        assert [one.under for one in result.limits] == [
            under for under in conditions if pinned.items() <= under.items()
        ]
        assert len(result.limits) == n
        assert result.verdict.outcome is Outcome.PASS
    assert [one.under for one in result.estimates] == conditions


# --- no evidence is no pass


def test_no_rows_are_invalid():
    result = results_of(plan({"metric": "auc", "at_most": 1.0}), CellFacts(), [])
    assert (result.verdict.outcome, result.verdict.reason) == (
        Outcome.INVALID, "no row was measured")  # fmt: skip
    assert (result.n_pairs, result.estimates, result.limits) == (0, [], [])
    assert results_of(plan(), CellFacts(), []).verdict.outcome is Outcome.INVALID


@pytest.mark.parametrize("outcome", [Outcome.INVALID, Outcome.UNSUPPORTED])
def test_a_refusal_is_the_verdict_whatever_the_rows_say(outcome):
    refusal = VerdictEntry(outcome=outcome, reason="the model was not trained")
    facts = CellFacts(refusal=refusal, seconds=2.0, remarks=["odd"])
    result = results_of(plan({"metric": "auc", "at_most": 1.0}), facts, many())
    assert result.verdict == result.refusal == refusal
    assert (result.n_pairs, result.estimates, result.limits, result.mean_map) == (0, [], [], None)
    assert (result.seconds, result.remarks) == (2.0, ["odd"])
    assert result.asked[0].at_most == 1.0


def test_a_measured_cell_can_be_refused_afterwards():
    result = results_of(plan({"metric": "auc", "at_most": 1.0}), CellFacts(forwards=9), many())
    assert result.verdict.outcome is Outcome.PASS
    again = refused(result, "teardown failed")
    assert again.verdict == VerdictEntry(outcome="invalid", reason="teardown failed")
    assert (again.estimates, again.limits, again.forwards) == ([], [], 9)
    assert again.asked == result.asked


def test_without_a_critical_limit_nothing_is_passed():
    limit = {"metric": "auc", "at_most": 1.0}
    for severities, outcome in (
        ([], Outcome.INCONCLUSIVE),
        (["info"], Outcome.INFORMATION),
        (["info", "warning"], Outcome.INCONCLUSIVE),
    ):
        asked = [{**limit, "severity": severity} for severity in severities]
        result = results_of(plan(*asked), CellFacts(), many())
        assert result.verdict.outcome is outcome
        said = (
            "no limit decides: information only" if severities == ["info"] else "no critical limit"
        )
        assert result.verdict.reason == said


def test_what_is_for_information_still_needs_maps_and_no_fit_networks():
    asked = {"metric": "auc", "at_most": 1.0, "severity": "info"}
    collapsed = CellFacts(networks=[Network(name="one", spread=0.0, redrawn_share=1.0)])
    found = results_of(plan(asked), collapsed, many()).verdict
    assert found.outcome is Outcome.INFORMATION
    assert "the re-drawn network is collapsed" in found.reason
    # Where nothing was asked, not even information, it is as unfit as under a limit.
    assert results_of(plan(), collapsed, many()).verdict.outcome is Outcome.INVALID
    broken = [row.model_copy(update={"state": RowState.NAN_MAP}) for row in many()]
    assert results_of(plan(asked), CellFacts(), broken).verdict.outcome is Outcome.FAIL


@pytest.mark.parametrize(
    "silent",
    [
        {"metric": "gain", "at_least": -1.0},
        {"metric": "auc", "at_most": 1.0, "under": BLACK},
        {"metric": "auc", "at_most": 1.0, "under": {"fraction": 0.5}},
        {"metric": "auc", "better_than": "control.edge"},
    ],
)
def test_a_limit_that_no_row_says_anything_of_is_invalid_not_left_out(silent):
    good = {"metric": "auc", "at_most": 1.0}
    result = results_of(plan(good, silent, metrics=(AUC, GAIN)), CellFacts(), many())
    assert [one.verdict.outcome.value for one in result.limits] == ["pass", "invalid"]
    assert result.limits[1].estimate is None
    assert "no row has a value" in result.limits[1].verdict.reason
    assert result.verdict.outcome is Outcome.INVALID


def test_a_null_is_no_value_and_takes_no_part():
    rows = [*many(40), row(40, measured({"auc": None}, state="not_crossed"))]
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), CellFacts(), rows)
    assert ends(result.estimates[0]) == by_hand([0.19, 0.21] * 20)
    assert (result.estimates[0].n_pairs, result.n_pairs) == (40, 41)
    assert result.estimates[0].states == {"ok": 40, "not_crossed": 1}
    nulls = [row(i, measured({"auc": None})) for i in range(40)]
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), CellFacts(), nulls)
    assert (result.estimates[0].value, result.limits[0].estimate) == (None, None)
    assert result.verdict.outcome is Outcome.INVALID


def test_a_null_of_the_control_leaves_the_pair_out_of_the_difference_alone():
    rows = [
        row(i, measured({"auc": 0.1 + i / 100}),
            measured({"auc": None if i == 0 else 0.4}, "control.edge"))
        for i in range(5)
    ]  # fmt: skip
    result = results_of(plan(), CellFacts(), rows)
    assert [one.n_pairs for one in result.estimates] == [5, 4]
    assert ends(result.differences[0]) == by_hand(
        [0.3 - i / 100 for i in range(1, 5)], edges=(-2.0, 2.0)
    )


def test_a_row_that_lacks_a_map_a_metric_or_a_condition_has_no_value_there():
    rows = [
        row(0),
        row(1, measured({"gain": 0.5})),
        row(2, measured({"auc": 0.7}, under=BLACK)),
        row(3, measured({"auc": 0.7}, "control.edge")),
        *(
            row(i, measured({"auc": i / 10}), measured({"auc": 1.0}, "control.edge"))
            for i in range(4, 8)
        ),
    ]
    result = results_of(plan(metrics=(AUC, GAIN)), CellFacts(), rows)
    found = {(one.metric, one.map, one.under["fill"]): one for one in result.estimates}
    assert ends(found["auc", "explainer", "blur"]) == by_hand([0.4, 0.5, 0.6, 0.7])
    assert found["auc", "explainer", "blur"].states == {"ok": 4}
    assert found["auc", "control.edge", "blur"].n_pairs == 5
    assert found["auc", "explainer", "black"].n_pairs == 1
    assert found["gain", "explainer", "blur"].n_pairs == 1
    [difference] = [one for one in result.differences if one.metric == "auc"]
    assert ends(difference) == by_hand([0.6, 0.5, 0.4, 0.3], edges=(-2.0, 2.0))


# --- maps


def test_two_constant_maps_of_forty_fail_and_the_first_is_named():
    rows = many(38) + [
        row(i, measured({"auc": 0.2}, state="degenerate_map"), state="degenerate_map",
            reason=f"every pixel is {i}")
        for i in (39, 38)
    ]  # fmt: skip
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), CellFacts(), rows)
    assert result.verdict.outcome is Outcome.FAIL
    assert result.verdict.reason == (
        "2 of 40 saliency maps are degenerate (constant); at most 1% are allowed; first: every "
        "pixel is 38"
    )
    assert result.states == {"ok": 38, "degenerate_map": 2}
    assert [one.row for one in result.problems] == ["r038", "r039"]
    assert result.limits[0].verdict.outcome is Outcome.PASS


def test_what_limits_cannot_say_for_lack_of_maps_is_a_consequence_of_it():
    rows = [
        row(i, measured({"auc": None}, state="explainer_raised"), state="explainer_raised",
            reason="ValueError: no")
        for i in range(40)
    ]  # fmt: skip
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), CellFacts(), rows)
    assert result.verdict.outcome is Outcome.FAIL
    assert result.verdict.reason.endswith("(explainer_raised 40); at most 1% are allowed; first: "
                                          "ValueError: no")  # fmt: skip
    assert len(result.problems) == SHOWN_PROBLEMS
    assert result.mean_map is None


def test_a_limit_that_failed_is_told_beside_bad_maps():
    rows = [one.model_copy(update={"state": RowState.NAN_MAP}) for one in many()]
    result = results_of(plan({"metric": "auc", "at_most": 0.1}), CellFacts(), rows)
    assert "first: no reason given; auc (blur): 0.2" in result.verdict.reason


def test_the_mean_map_is_that_of_the_thumbnails_there_are():
    maps = [[[value] * 28] * 28 for value in (0.0, 0.5, 1.0)]
    rows = [row(i, measured({"auc": 0.1}), thumbnail=map_) for i, map_ in enumerate(maps)]
    rows.append(row(3, measured({"auc": 0.1})))
    assert results_of(plan(), CellFacts(), rows).mean_map == [[0.5] * 28] * 28
    assert results_of(plan(), CellFacts(), rows[3:]).mean_map is None


def test_diagnostics_are_of_the_first_set_of_maps_and_of_the_rows_that_have_them():
    said = [{"a": 1.0}, {"a": 3.0, "b": None}, {}, {"a": None}]
    rows = [
        row(i, diagnostics={"probe": one, "reference": {"a": 99.0}}) for i, one in enumerate(said)
    ]
    [found] = results_of(plan(), CellFacts(), rows).diagnostics
    assert (found.name, found.mean, found.least, found.largest, found.n_pairs) == (
        "a", 2.0, 1.0, 3.0, 2)  # fmt: skip


# --- re-drawn networks


def network(name="re-drawn network 1", *, spread=0.5, share=1.0):
    return Network(name=name, spread=spread, redrawn_share=share)


@pytest.mark.parametrize(
    ("found", "outcome", "words"),
    [
        (network(), "pass", "auc"),
        (network(spread=1e-4), "pass", "auc"),
        (network(spread=9e-5), "invalid", "collapsed"),
        (network(share=0.5), "pass", "auc"),
        (network(share=0.49), "invalid", "only 49% of the parameters could be re-drawn"),
    ],
)
def test_a_network_that_is_no_random_one_makes_the_cell_invalid(found, outcome, words):
    facts = CellFacts(networks=[network("re-drawn network 0"), found])
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), facts, many())
    assert result.verdict.outcome == outcome
    assert words in result.verdict.reason
    assert len([note for note in result.notes if note.startswith("re-drawn network")]) == 2


def test_a_network_whose_spread_is_no_number_is_never_a_pass():
    facts = CellFacts(networks=[network(spread=math.nan)])
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), facts, many())
    assert result.networks[0].spread is None
    assert result.verdict.outcome is Outcome.INVALID


@pytest.mark.parametrize(("constant", "outcome"), [(8, "pass"), (9, "inconclusive")])
def test_constant_maps_of_a_redrawn_network_are_no_sign_of_change(constant, outcome):
    rows = [
        one.model_copy(update={"constant_under": ["re-drawn network 1"] if i < constant else []})
        for i, one in enumerate(many())
    ]
    facts = CellFacts(networks=[network()], remarks=["by hand"])
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), facts, rows)
    assert result.verdict.outcome == outcome
    assert result.notes[:2] == [
        f"re-drawn network 1: 100.0% of the parameters changed, embedding spread 0.5, {constant} "
        "of 40 maps constant",
        "by hand",
    ]
    assert (f"{constant} of 40 maps of the re-drawn" in result.verdict.reason) == (constant == 9)
    assert result.states == {"ok": 40}


def test_bad_maps_of_the_trained_network_weigh_more_than_a_bad_redrawn_one():
    rows = [one.model_copy(update={"state": RowState.DEGENERATE_MAP}) for one in many()]
    facts = CellFacts(networks=[network(spread=0.0)])
    result = results_of(plan({"metric": "auc", "at_most": 0.3}), facts, rows)
    assert result.verdict.outcome is Outcome.FAIL


# --- curves


def test_a_curve_is_a_mean_with_an_interval_at_every_point():
    points = [[1.0, 0.5, 0.0], [1.0, 0.3, 0.2], [1.0, 0.1, 0.4], [0.4, None, 0.0]]
    rows = [
        row(i, measured({"auc": 0.1}, curves={"deletion": one})) for i, one in enumerate(points)
    ]
    [band] = results_of(plan(), CellFacts(), rows).curves
    assert (band.kind, band.map, band.under) == ("deletion", "explainer", BLUR)
    assert band.fraction == [0.0, 0.5, 1.0]
    assert band.similarity == [1.0, 0.3, 0.2]
    low, high, _ = skew_t(np.array([0.5, 0.3, 0.1]), 0.96)
    assert (band.low[1], band.high[1]) == (drawn(float(low)), drawn(float(high)))
    assert (band.low[0], band.high[0]) == (1.0, 1.0)  # nothing varies at the first point


def test_curves_of_which_nothing_is_known_are_empty():
    rows = [row(i, measured({"auc": 0.1}, curves={"deletion": [None, 1.0]})) for i in range(3)]
    [band] = results_of(plan(), CellFacts(), rows).curves
    assert band.fraction == band.similarity == band.low == band.high == []
    [band] = results_of(
        plan(), CellFacts(), [row(0, measured({"auc": 0.1}, curves={"deletion": [0.5]}))]
    ).curves
    assert (band.fraction, band.similarity) == ([0.0], [0.5])


def test_rows_that_do_not_fit_together_are_refused():
    rows = [row(i, measured({"auc": 0.1}, curves={"deletion": [1.0] * (5 + i)})) for i in range(3)]
    with pytest.raises(StoreError, match=r"expected curves of one length for deletion .* 5 and 7"):
        results_of(plan(), CellFacts(), rows)


# --- order

VALUE = st.one_of(st.none(), st.floats(-1, 1))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(VALUE, VALUE, st.integers(0, 9)), min_size=1, max_size=25),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_changes_no_digit(values, shuffle: random.Random):
    rows = [
        row(i, measured({"auc": own, "gain": other}, curves={"deletion": [own, other]}),
            measured({"auc": other}, "control.edge"), person=person,
            state="ok" if own is not None else "nan_map", reason="" if own else f"pixel {i}",
            diagnostics={"probe": {"d": other}}, thumbnail=[[0.1 * (i % 7)] * 28] * 28)
        for i, (own, other, person) in enumerate(values)
    ]  # fmt: skip
    asked = [
        {"metric": "auc", "at_most": 0.1},
        {"metric": "auc", "better_than": "control.edge", "by": {"relative": 0.1}},
        {"metric": "gain", "at_least": 0.0, "severity": "info"},
    ]
    judged = plan(*asked, metrics=(AUC, GAIN))
    before = results_of(judged, CellFacts(), rows).model_dump_json()
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    assert results_of(judged, CellFacts(), shuffled).model_dump_json() == before
    read = [Row.model_validate_json(one.model_dump_json()) for one in shuffled]
    assert results_of(judged, CellFacts(), read).model_dump_json() == before


def test_people_of_any_number_are_people():
    rows = [row(i, measured({"auc": 0.1 + i / 10}), person=10**30 - i) for i in range(3)]
    [entry] = results_of(plan(), CellFacts(), rows).estimates
    assert ends(entry) == by_hand([0.1, 0.2, 0.3])


# --- the suite


def cell(outcome, check="a"):
    refusal = VerdictEntry(outcome=outcome, reason="")
    return results_of(plan().model_copy(update={"check": check}), CellFacts(refusal=refusal), [])


@pytest.mark.parametrize(
    ("outcomes", "missing", "worst", "reason"),
    [
        (["pass", "pass"], [], "pass", "of 2 cells 2 passed"),
        (["pass", "inconclusive"], [], "inconclusive", "of 2 cells 1 inconclusive, 1 passed"),
        (["inconclusive", "fail", "pass"], [], "fail",
         "of 3 cells 1 failed, 1 inconclusive, 1 passed"),
        (["fail", "invalid"], [], "invalid", "of 2 cells 1 could not be measured, 1 failed"),
        (["pass"], ["y"], "inconclusive", "of 2 cells 1 passed, 1 not run"),
        (["fail"], ["y"], "fail", "of 2 cells 1 failed, 1 not run"),
        (["pass", "unsupported"], [], "pass", "of 2 cells 1 passed, 1 unsupported"),
        (["unsupported"], [], "inconclusive",
         "of 1 cells 1 unsupported; nothing was measured for a"),
        (["pass", "information"], [], "pass", "of 2 cells 1 passed, 1 for information"),
        (["fail", "information"], [], "fail", "of 2 cells 1 failed, 1 for information"),
        (["information"], [], "inconclusive", "of 1 cells 1 for information; no limit decides"),
        ([], ["x", "y"], "inconclusive", "of 2 cells 2 not run"),
        ([], [], "inconclusive", "of 0 cells none was run"),
    ],
)  # fmt: skip
def test_the_worst_cell_is_the_verdict_of_the_suite(outcomes, missing, worst, reason):
    found = overall([cell(one) for one in outcomes], missing)
    assert (found.outcome.value, found.reason) == (worst, reason)


def test_a_check_that_no_model_supports_is_never_a_pass():
    cells = [cell("pass", "a"), cell("unsupported", "a"), cell("unsupported", "b")]
    found = overall(cells, [])
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason.endswith("; nothing was measured for b")
    found = overall([*cells, cell("fail", "c")], ["z"])
    assert found.outcome is Outcome.FAIL
    assert isinstance(cells[0], CellResult)

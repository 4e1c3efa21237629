"""Decisions that no map has a part in enter no estimate; limits that noise meets pass nobody."""

import json
import math
from dataclasses import replace

import pytest

from fxeval.records.judged import MetricEntry
from fxeval.records.reading import read_record
from fxeval.records.schema import CellFacts, Row
from fxeval.results import Estimate, Outcome, Verdict
from fxeval.statistics.decisions import MAX_DECIDED_SHARE, RANDOM_ORDERS, against_random_orders
from fxeval.statistics.limits import BetterThan
from fxeval.statistics.results import rederived, results_of
from fxeval.tests.records.test_records import TEXTS
from fxeval.tests.statistics.test_results import AUC, by_hand, ends, measured, plan, row

FLIP = MetricEntry(
    name="flip", title="Flip", unit="u", better="lower", range=(0.0, 1.0), statistic="mean",
    source="s", meaning="m", is_decision=True,
)  # fmt: skip
AT_MOST = {"metric": "flip", "at_most": 0.3}
OVER_CENTRE = {"metric": "flip", "better_than": "control.centre"}
OVER_BLOBS = {"metric": "flip", "better_than": "control.random_blobs"}
GOOD = {"explainer": 0.1, "random_pixels": 0.6, "random_blobs": 0.5, "centre": 0.25}


def of(i, start, known, spread=0.02):
    """A row; the start decides it for all maps, or a value around each map's own."""
    state = start.get(i, "ok")
    found = []
    for place, (name, value) in enumerate(known.items()):
        own = value + spread * ((i * (place + 2)) % 5 - 2)
        value = {"start_beyond": 0.0, "excluded": math.nan}.get(state, own)
        map_ = name if name == "explainer" else f"control.{name}"
        found.append(measured({"flip": value}, map_, state=state))
    return row(i, *found)


def judged(asked, *, n=60, start=(), metric=FLIP, **known):
    rows = [of(i, dict(start), {**GOOD, **known}) for i in range(n)]
    return results_of(plan(asked, metrics=(metric,)), CellFacts(), rows)


def starts(filled, rejected=0):
    return {i: "start_beyond" if i < filled else "excluded" for i in range(filled + rejected)}


def test_rows_that_the_start_decides_enter_no_estimate_and_are_counted():
    found = judged(OVER_CENTRE, start=starts(8, 4))
    alone = results_of(
        plan(OVER_CENTRE, metrics=(FLIP,)), CellFacts(), [of(i, {}, GOOD) for i in range(12, 60)]
    )
    for one, other in zip(found.estimates, alone.estimates, strict=True):
        assert (one.map, *ends(one)) == (other.map, *ends(other))
        assert one.n_pairs == 48
        assert one.states == {"ok": 48, "start_beyond": 8, "excluded": 4}
    assert [ends(one) for one in found.differences] == [ends(one) for one in alone.differences]
    assert ends(found.limits[0].estimate) == ends(alone.limits[0].estimate)
    assert found.verdict.outcome == alone.verdict.outcome == "pass"
    assert found.notes == [
        "what is passed over a population says nothing about groups rarer than 7.4% of all people"
    ]


def test_rows_that_the_start_decides_leave_the_estimates_of_older_records_too():
    older = FLIP.model_copy(update={"is_decision": False})
    found = judged(AT_MOST, start=starts(12), metric=older, explainer=0.4)
    assert found.estimates[0].n_pairs == 48
    assert found.verdict.outcome == "fail"
    assert judged(AT_MOST, start=starts(13), metric=older).verdict.outcome == "invalid"


@pytest.mark.parametrize("asked", [AT_MOST, OVER_CENTRE])
@pytest.mark.parametrize(
    ("filled", "rejected", "words"),
    [
        (13, 0, "flip (blur): 13 of 60 pairs already match when the whole image is filled; at most "
                "20 % may. This fill says nothing about flip on m: use another fill"),
        (60, 0, "60 of 60 pairs already match"),
        (0, 13, "13 of 60 pairs do not match to begin with; at most 20 % may. These pairs say "
                "nothing about flip on m: use pairs that the model accepts"),
        (7, 6, "7 of 60 pairs already match when the whole image is filled and 6 of 60 pairs do "
               "not match to begin with; together at most 20 % may. This fill says nothing"),
    ],
)  # fmt: skip
def test_a_metric_is_unfit_if_the_start_decides_more_than_a_fifth(asked, filled, rejected, words):
    found = judged(asked, start=starts(filled, rejected))
    assert found.verdict.outcome == "invalid"
    assert words.replace("20 %", f"{MAX_DECIDED_SHARE:.0%}") in found.verdict.reason
    assert found.notes == [found.limits[0].verdict.reason]
    # A fifth of the rows exactly is not more than a fifth.
    assert judged(asked, start=starts(12)).verdict.outcome == "pass"
    assert judged(asked, start=starts(0, 12)).verdict.outcome == "pass"


def test_several_limits_on_an_unfit_metric_give_one_reason():
    rows = [of(i, starts(13), GOOD) for i in range(60)]
    found = results_of(plan(AT_MOST, OVER_CENTRE, metrics=(FLIP,)), CellFacts(), rows)
    assert found.verdict.reason.count("already match") == 1


def test_an_unfit_metric_fails_nobody_either():
    assert judged(AT_MOST, start=starts(13), explainer=0.9).verdict.outcome == "invalid"


def test_without_any_decision_there_is_no_value_and_no_advice_about_fills():
    found = judged(AT_MOST, start=starts(0, 60))
    assert found.verdict.outcome == "invalid"
    assert "no row has a value, as none of 60 pairs matches to begin with" in found.verdict.reason
    assert found.notes == []  # the protocol remarks on it


def test_other_metrics_are_not_judged_by_the_start():
    rows = [
        row(i, measured({"auc": 0.2 + 0.01 * (i % 2)}, state="ok" if i > 20 else "excluded"))
        for i in range(60)
    ]
    found = results_of(plan({"metric": "auc", "at_most": 0.3}, metrics=(AUC,)), CellFacts(), rows)
    assert found.verdict.outcome == "pass"


@pytest.mark.parametrize(
    ("asked", "known", "outcome", "words"),
    [
        (AT_MOST, {}, "pass", ""),
        (AT_MOST, {"random_pixels": 0.15}, "invalid",
         "but random pixels, which know nothing of the face, pass it too with 0.15 ["),
        (AT_MOST, {"random_blobs": 0.15}, "invalid", "random blobs, which know nothing"),
        (AT_MOST, {"random_pixels": 0.3}, "inconclusive",
         "random pixels, which know nothing of the face, do not clearly fail it: 0.3 ["),
        (AT_MOST, {"random_pixels": 0.3, "random_blobs": 0.15}, "invalid", "random blobs"),
        (AT_MOST, {"explainer": 0.7, "random_pixels": 0.15}, "fail", "must be at most 0.3"),
        (OVER_CENTRE, {}, "pass", ""),
        (OVER_CENTRE, {"random_pixels": 0.05}, "invalid", "random pixels, which know nothing"),
        # As good as the centre, so it does not clearly fail: the explainer must beat it as well.
        (OVER_CENTRE, {"random_pixels": 0.25}, "pass", ""),
        (OVER_CENTRE, {"random_pixels": 0.25, "random_blobs": 0.25}, "pass", ""),
        # Sharp pixels anywhere beat blobs on a blurred face: noise passes this limit.
        (OVER_BLOBS, {}, "pass", ""),
        (OVER_BLOBS, {"explainer": 0.2, "random_pixels": 0.2}, "invalid",
         "This limit says nothing about the map: set a limit that they fail, or use another fill"),
    ],
)  # fmt: skip
def test_a_limit_on_a_decision_can_be_passed_only_where_random_orders_fail_it(
    asked, known, outcome, words
):
    found = judged(asked, **({"random_pixels": 0.8} | known))
    assert found.verdict.outcome == outcome
    assert words in found.verdict.reason


@pytest.mark.parametrize(
    ("beaten", "outcome"),
    [((), "inconclusive"), (RANDOM_ORDERS[:1], "inconclusive"), (RANDOM_ORDERS, "pass")],
)
def test_a_random_order_as_good_as_a_control_must_be_beaten_too(beaten, outcome):
    asked = BetterThan("flip", better_than="control.centre")
    open_ = Estimate(0.01, -0.05, 0.07, 0.95, 60, 60, "by hand", spread=0.1)
    good = Verdict(Outcome.PASS, "good")
    random = dict.fromkeys(RANDOM_ORDERS, open_)
    assert against_random_orders(good, asked, {}, random, beaten).outcome == outcome
    passing = {**random, "random_blobs": replace(open_, low=0.005)}
    assert against_random_orders(good, asked, {}, passing, beaten).outcome == "invalid"


def test_the_estimate_beside_a_limit_stays_the_explainers():
    found = judged(AT_MOST, random_pixels=0.15)
    own = [0.1 + 0.02 * ((i * 2) % 5 - 2) for i in range(60)]
    assert ends(found.limits[0].estimate) == by_hand(own)


@pytest.mark.parametrize("missing", ["random_pixels", "random_blobs"])
def test_a_decision_passes_nobody_without_the_random_orders(missing):
    rows = [
        of(i, {}, {name: value for name, value in GOOD.items() if name != missing})
        for i in range(60)
    ]
    found = results_of(plan(AT_MOST, metrics=(FLIP,)), CellFacts(), rows)
    assert found.verdict.outcome == "invalid"
    assert f"needs control.{missing}, which has no value" in found.verdict.reason


def test_a_report_from_the_rows_has_the_same_verdicts():
    rows = [of(i, starts(13), GOOD) for i in range(60)]
    cell = results_of(plan(AT_MOST, metrics=(FLIP,)), CellFacts(), rows)
    record = read_record(json.loads(TEXTS[2])).model_copy(update={"cells": [cell]})
    read = [Row.model_validate_json(one.model_dump_json()) for one in rows]
    assert rederived(record, read).cells == [cell]


VOID = AUC.model_copy(update={"void_if": "the fill changes nothing"})


@pytest.mark.parametrize("void", [12, 13, 60])
def test_a_metric_of_which_more_than_a_fifth_of_the_rows_are_void_is_unfit(void):
    rows = [
        row(i, measured({"auc": 0.2 + 0.01 * (i % 2) if i >= void else None},
                        state="ok" if i >= void else "excluded"))
        for i in range(60)
    ]  # fmt: skip
    found = results_of(plan({"metric": "auc", "at_most": 0.3}, metrics=(VOID,)), CellFacts(), rows)
    assert found.estimates[0].states.get("excluded") == void  # counted, whatever comes of it
    if void == 12:
        assert found.verdict.outcome == "pass"
        assert found.estimates[0].n_pairs == 48
        return
    words = (
        f"auc (blur): {void} of 60 rows have no value on m, as the fill changes nothing; at most"
    )
    assert found.verdict.outcome == "invalid"
    assert found.verdict.reason.startswith(words)
    assert [note for note in found.notes if note.startswith(words)]

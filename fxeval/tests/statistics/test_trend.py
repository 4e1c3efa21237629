"""Trends: gathered from records, split where values can't be compared, worst first."""

import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import StoreError
from fxeval.records.reading import read_record
from fxeval.records.series import Wanted
from fxeval.results import Outcome
from fxeval.statistics.change_points import change_points
from fxeval.statistics.trend import series_of, trends_of, urgency
from fxeval.tests.statistics.many_runs import (
    CPU,
    GPU,
    data_of,
    missing,
    point,
    record_of,
    series,
)

FIRST = "deletion-insertion[mini_resnet-gradcam-rendered]"
BLUR = {"fill": "blur"}
FLAT, UP = [0.4] * 8, [0.4] * 8 + [0.5] * 4


def of_first(found):
    (one,) = (x for x in found if (x.cell, x.metric, x.under) == (FIRST, "deletion_auc", BLUR))
    return one


def finding(values, better="lower", **more):
    (trend,) = trends_of([series(values, better=better, **more)])
    return trend.finding


# series_of


def test_a_series_holds_the_estimate_of_each_run_in_the_order_of_their_start():
    found = of_first(series_of([record_of(2, 0.32), record_of(0, 0.30), record_of(1, 0.31)]))
    assert [one.value for one in found.points] == [0.30, 0.31, 0.32]
    assert [one.run for one in found.points] == ["run-0000", "run-0001", "run-0002"]
    first = found.points[0]
    assert (first.low, first.high) == (pytest.approx(0.28), pytest.approx(0.32))
    assert (first.commit, first.fxeval) == ("0000e2d04c71", "0.1.0")
    assert first.hardware_class.startswith("Linux x86_64")
    assert (found.check, found.kind) == ("deletion-insertion", "faithfulness.deletion_insertion")
    assert (found.model, found.explainer, found.pairs) == ("mini_resnet", "gradcam", "rendered")
    assert (found.better, found.under) == ("lower", {"fill": "blur"})


def test_only_the_explainers_own_estimates_are_series():
    record = record_of(0)
    expected = {
        (cell.id, one.metric, str(one.under))
        for cell in record.cells
        for one in cell.estimates
        if one.map == "explainer"
    }
    found = series_of([record])
    assert {(one.cell, one.metric, str(one.under)) for one in found} == expected
    assert len(found) == len(expected) > 3


def test_a_run_without_the_estimate_has_a_point_without_a_value():
    refused = data_of(1)
    cell = refused["cells"][0]
    cell["verdict"] = {"outcome": "invalid", "reason": "the model is gone"}
    cell |= {"estimates": [], "differences": [], "limits": [], "curves": []}
    found = of_first(series_of([record_of(0), read_record(refused), record_of(2)]))
    values = [one.value for one in found.points]
    assert math.isnan(values[1])
    assert values[::2] == [0.3, 0.3]
    assert found.points[1].outcome is Outcome.INVALID


def test_a_run_without_the_cell_has_no_point():
    less = data_of(1)
    less["cells"] = less["cells"][1:]
    found = of_first(series_of([record_of(0), read_record(less)]))
    assert [one.run for one in found.points] == ["run-0000"]


def test_the_order_of_the_records_does_not_matter():
    records = [record_of(at, 0.3 + at / 100) for at in range(6)]
    expected = series_of(records)
    for seed in range(5):
        assert series_of(random.Random(seed).sample(records, 6)) == expected


def test_the_same_record_counts_once_and_two_that_differ_are_refused():
    one = series_of([record_of(0), record_of(1)])
    assert series_of([record_of(0), record_of(1), record_of(0)]) == one
    with pytest.raises(StoreError, match=r"run run-0000, suite quickstart: expected one record"):
        series_of([record_of(0), record_of(0, 0.7)])


def test_the_words_are_those_of_the_latest_run():
    older, newer = data_of(0), data_of(1)
    for data, title in ((older, "Old"), (newer, "New")):
        next(m for m in data["cells"][0]["metrics"] if m["name"] == "deletion_auc")["title"] = title
    for order in ((older, newer), (newer, older)):
        assert of_first(series_of(map(read_record, order))).title == "New"


@pytest.mark.parametrize(
    ("wanted", "is_kept"),
    [
        (Wanted(suite="quickstart"), lambda one: True),
        (Wanted(suite="another"), lambda one: False),
        (Wanted(check="deletion-insertion"), lambda one: one.check == "deletion-insertion"),
        (Wanted(metric="insertion_auc"), lambda one: one.metric == "insertion_auc"),
        (Wanted(model="mini_resnet"), lambda one: one.model == "mini_resnet"),
        (Wanted(explainer="gradcam"), lambda one: one.explainer == "gradcam"),
        (Wanted(hardware_class="nothing"), lambda one: False),
    ],
)
def test_what_is_not_wanted_is_left_out(wanted, is_kept):
    records = [record_of(at) for at in range(2)]
    everything = series_of(records)
    assert series_of(records, wanted) == [one for one in everything if is_kept(one)]


def test_the_last_runs_of_each_series_are_kept():
    records = [record_of(at) for at in range(5)]
    found = of_first(series_of(records, Wanted(last=2)))
    assert [one.run for one in found.points] == ["run-0003", "run-0004"]


def test_one_class_of_hardware_can_be_asked_for():
    records = [record_of(0), record_of(1, capability="AVX512"), record_of(2)]
    name = of_first(series_of([records[1]])).points[0].hardware_class
    found = of_first(series_of(records, Wanted(hardware_class=name)))
    assert [one.run for one in found.points] == ["run-0001"]


# what moved


@pytest.mark.parametrize(
    ("better", "values", "effect"),
    [
        ("lower", UP, "worse"), ("higher", UP, "better"),
        ("lower", UP[::-1], "better"), ("higher", UP[::-1], "worse"),
    ],
)  # fmt: skip
def test_the_direction_of_the_metric_says_whether_a_step_is_worse(better, values, effect):
    found = finding(values, better)
    assert (found.kind, found.effect, found.is_small) == ("step", effect, False)
    assert found.at == (8 if values is UP else 4)


@given(st.integers(0, 10**6), st.sampled_from(["lower", "higher"]), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_what_only_improves_is_never_called_worse(seed, better, by):
    steps = (
        np.random.default_rng(seed).random(30) * by * (np.random.default_rng(seed).random(30) < 0.2)
    )
    values = np.cumsum(steps) * (1 if better == "higher" else -1)
    (trend,) = trends_of([series([float(value) for value in values], better=better)])
    assert all(one.effect == "better" for one in trend.movements)


def test_a_step_within_the_intervals_is_small():
    assert finding([0.4] * 8 + [0.415] * 4).is_small
    assert not finding([0.4] * 8 + [0.425] * 4).is_small


def test_a_change_of_a_hundredth_of_the_half_width_is_none():
    assert finding([0.4] * 8 + [0.4001] * 4) is None
    assert finding([0.4] * 8 + [0.4003] * 4) is not None


def test_without_intervals_a_step_is_found_all_the_same():
    values = [point(at, v, low=math.nan, high=math.inf) for at, v in enumerate(UP)]
    (trend,) = trends_of([series(values)])
    assert math.isnan(trend.strands[0].half_width)
    assert (trend.finding.kind, trend.finding.is_small) == ("step", False)


def test_values_of_another_class_of_hardware_are_a_break_and_no_step():
    values = [*FLAT, *(point(8 + at, 0.6, hardware_class=GPU) for at in range(8))]
    (trend,) = trends_of([series(values)])
    assert trend.finding is None
    assert [(one.at, one.reason) for one in trend.breaks] == [(8, f"hardware: {GPU}")]
    assert [one.hardware_class for one in trend.strands] == [CPU, GPU]
    assert finding([0.4] * 8 + [0.6] * 8).kind == "step"  # the same values of one class


def test_classes_that_take_turns_are_looked_at_apart():
    values = [point(at, (0.3, 0.6)[at % 2], hardware_class=(CPU, GPU)[at % 2]) for at in range(20)]
    (trend,) = trends_of([series(values)])
    assert trend.finding is None
    assert [len(one.points) for one in trend.strands] == [10, 10]
    moved = [replace(one, value=one.value + (0.1 if at > 11 and at % 2 else 0))
             for at, one in enumerate(values)]  # fmt: skip
    (trend,) = trends_of([series(moved)])
    assert (trend.finding.kind, trend.finding.at, trend.finding.effect) == ("step", 13, "worse")


def test_another_question_is_a_break_and_no_step():
    values = [*FLAT, *(point(8 + at, 0.6, question="r") for at in range(8))]
    (trend,) = trends_of([series(values)])
    assert trend.finding is None
    assert [one.at for one in trend.breaks] == [8]
    assert "another question" in trend.breaks[0].reason


def test_a_run_without_a_question_breaks_nothing():
    values = [*FLAT, point(8, math.nan, question="", outcome=Outcome.INVALID), point(9, 0.4)]
    (trend,) = trends_of([series(values)])
    assert trend.breaks == ()
    assert [len(one.points) for one in trend.strands] == [10]
    assert trend.strands[0].used == (*range(8), 9)


def test_invalid_and_missing_values_stay_points_and_make_no_step():
    wrong = [point(at, 0.9, outcome=Outcome.INVALID) for at in range(8, 12)]
    (trend,) = trends_of([series([*FLAT, *wrong, missing(12)])])
    assert trend.finding is None
    assert trend.strands[0].points == tuple(range(13))
    assert trend.strands[0].used == tuple(range(8))
    undecided = [replace(one, outcome=Outcome.INCONCLUSIVE) for one in wrong]
    assert finding([*FLAT, *undecided]).kind == "step"


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.4], [missing(0)], [missing(0), missing(1)]])
def test_one_point_or_none_is_no_trend(values):
    (trend,) = trends_of([series(values)])
    assert trend.finding is None
    assert len(trend.strands[0].medians) == len(trend.strands[0].used)


def test_a_series_without_points_is_none():
    assert trends_of([series([])]) == []


def test_a_slow_change_is_a_drift_and_told_with_its_corrected_p_value():
    values = [0.4 + at * 0.002 for at in range(20)]
    found = finding(values)
    assert (found.kind, found.effect, found.at) == ("drift", "worse", 0)
    assert found.change == pytest.approx(0.038)
    assert found.adjusted < 0.001
    assert finding(values, "higher").effect == "better"


def test_drifts_are_corrected_for_their_number():
    rng = np.random.default_rng(4)
    flat = [series(list(0.4 + rng.normal(0, 0.01, 20)), cell=f"c{i}") for i in range(200)]
    told = [one for one in trends_of(flat) if any(m.kind == "drift" for m in one.movements)]
    alone = [one for one in flat if any(m.kind == "drift" for m in trends_of([one])[0].movements)]
    assert len(alone) >= 4
    assert len(told) <= 1


def test_a_drift_is_looked_for_since_the_last_step():
    values = [0.4] * 12 + [0.5] * 12
    (trend,) = trends_of([series(values)])
    assert [one.kind for one in trend.movements] == ["step"]
    drifting = [0.4] * 12 + [0.6 - at * 0.003 for at in range(12)]
    (trend,) = trends_of([series(drifting)])
    assert [(one.kind, one.at) for one in trend.movements] == [("step", 12), ("drift", 12)]


def test_last_runs_that_left_the_level_are_told():
    found = finding([*FLAT, 0.5])
    assert (found.kind, found.at, found.effect) == ("departure", 8, "worse")
    assert found.change == pytest.approx(0.1)


def test_the_latest_step_counts():
    back = [0.4] * 6 + [0.6] * 6 + [0.4] * 6
    found = finding(back)
    assert (found.at, found.effect) == (12, "better")


def test_the_worst_come_first_and_of_those_the_latest():
    wanted = {
        "late step": [0.4] * 12 + [0.6] * 4,
        "early step": [0.4] * 4 + [0.6] * 12,
        "left": [0.4] * 15 + [0.6],
        "drift": [0.4 + at * 0.004 for at in range(16)],
        "small step": [0.4] * 12 + [0.41] * 4,
        "better": [0.6] * 12 + [0.4] * 4,
        "flat": [0.4] * 16,
    }
    given = [series(values, cell=name) for name, values in wanted.items()]
    assert [one.series.cell for one in trends_of(given[::-1])] == [*wanted]
    assert urgency(None) == 6


@given(st.integers(0, 10**6), st.floats(-20, 20))
@settings(max_examples=40, deadline=None)
def test_a_shift_of_all_values_moves_nothing(seed, shift):
    rng = np.random.default_rng(seed)
    levels = np.repeat(rng.normal(0, 0.2, 3), 10)
    values = (levels + rng.normal(0, 0.02, 30)).tolist()
    told = [
        [(one.kind, one.at, one.effect) for one in trends_of([series(moved)])[0].movements]
        for moved in (values, [value + shift for value in values])
    ]
    assert told[0] == told[1]


# change points


def test_pelt_finds_the_levels_if_asked():
    pytest.importorskip("ruptures")
    values = [0.4] * 8 + [0.6] * 6 + [0.5] * 6
    (trend,) = trends_of([series([missing(0), *(point(1 + i, v) for i, v in enumerate(values))])],
                         changes=True)  # fmt: skip
    assert trend.strands[0].change_points == (9, 15)
    assert trends_of([series(values)])[0].strands[0].change_points is None
    for values in ([], [0.4], [0.4] * 20):
        found = trends_of([series([missing(0), *values])], changes=True)[0]
        assert found.strands[0].change_points == ()


@pytest.mark.parametrize("seed", range(6))
def test_change_points_are_those_of_the_best_partition(seed):
    pytest.importorskip("ruptures")
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.normal(0, 3, 4), 10) + rng.normal(size=40)
    penalty, cost = 3 * math.log(40), {0: (-3 * math.log(40), [])}
    for end in range(3, 41):  # all partitions, by dynamic programming
        cost[end] = min(
            (cost[start][0] + values[start:end].var() * (end - start) + penalty,
             [*cost[start][1], start])
            for start in cost if end - start >= 3
        )  # fmt: skip
    assert change_points(values, 1.0) == cost[40][1][1:]


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ruptures", None)
    with pytest.raises(StoreError, match=r'pip install "fxeval\[trend\]"'):
        trends_of([series(UP)], changes=True)
    assert trends_of([series(UP)])[0].finding is not None

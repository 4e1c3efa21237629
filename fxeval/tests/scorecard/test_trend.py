"""The views of trends: what moved first, every mark with a word, nothing that can run."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from fxeval.results import Outcome
from fxeval.scorecard.sparkline import BLOCKS, PLAIN, levels, sparkline
from fxeval.scorecard.trend import SIZE, markdown, page, text_lines
from fxeval.scorecard.trend_charts import RUNS, trend_chart
from fxeval.scorecard.trend_words import about, status
from fxeval.statistics.trend import trends_of
from fxeval.tests.statistics.many_runs import CPU, GPU, missing, point, series

UP = [0.4] * 12 + [0.5] * 8
GIVEN = {
    "up": UP,
    "down": UP[::-1],
    "small": [0.4] * 12 + [0.41] * 8,
    "off": [0.4] * 19 + [0.5],
    "drift": [0.4 + at * 0.004 for at in range(20)],
    "flat": [0.4] * 20,
    "short": [0.4] * 3,
    "none": [missing(0)],
}
STATUS = {
    "up": "step (worse)", "down": "step (better)", "small": "small step (worse)",
    "off": "off level (worse)", "drift": "drift (worse)", "flat": "level",
    "short": "too few runs", "none": "no value",
}  # fmt: skip


def given(**more):
    return [
        series(values, cell=f"one[m-{name}-p]", explainer=name, **more)
        for name, values in GIVEN.items()
    ]


@pytest.fixture
def trends():
    return trends_of(given())


def one(values, **more):
    (trend,) = trends_of([series(values, **more)])
    return trend


def rows_of(lines):
    start = next(at for at, line in enumerate(lines) if line.startswith("trend  "))
    return lines[start + 1 : lines.index("", start)]


# words


def test_every_series_has_a_word(trends):
    assert {trend.series.explainer: status(trend) for trend in trends} == STATUS


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["flat", "down"], "nothing got worse in 2 series"),
        (["short"], "nothing can be said of 1 series: too few runs"),
        (["short", "none"], "nothing can be said of 2 series: no value, too few runs"),
        (
            ["flat", "short"],
            "nothing got worse in 1 series; nothing can be said of 1: too few runs",
        ),
    ],
)
def test_too_few_runs_are_no_evidence_that_nothing_got_worse(names, said):
    chosen = [series(GIVEN[name], cell=f"one[m-{name}-p]", explainer=name) for name in names]
    assert about(trends_of(chosen)) == said
    for view in ("\n".join(text_lines(trends_of(chosen), 200)), markdown(trends_of(chosen))):
        assert said.lower() in view.lower()


# terminal


def test_the_terminal_shows_what_got_worse_first_with_its_run_and_change(trends):
    lines = text_lines(trends, 160)
    rows = rows_of(lines)
    assert [row.split("  ")[0] for row in rows] == [
        "step (worse)", "off level (worse)", "drift (worse)", "small step (worse)",
        "step (better)", "level", "no value", "too few runs",
    ]  # fmt: skip
    assert lines[0] == (
        "TREND  small: 4 of 8 series got worse: 1 step, 1 off level, 1 drift, 1 small step"
    )
    assert "8 series over 20 runs, 2026-01-01 to 2026-01-01" in lines[1]
    assert "+0.100" in rows[0]
    assert "0.500 [0.480, 0.520]" in rows[0]
    assert "no value" in rows[-2][20:]
    said = "\n".join(lines)
    assert (
        "one[m-up-p], deletion_auc, fill blur: step for the worse at run run-0012, commit" in said
    )
    assert "+0.100 (0.400 to 0.500)" in said
    assert "small: less than the half-width of the intervals" in said
    assert "gates nothing" in lines[-1]


def test_of_many_series_thirty_are_shown_and_the_rest_is_counted():
    flat = [series([0.4] * 8, cell=f"c{at:03}", explainer=f"e{at:03}") for at in range(50)]
    trends = trends_of([*flat, *given()])
    lines = text_lines(trends, 120)
    assert len(rows_of(lines)) == 31
    assert rows_of(lines)[-1] == "and 28 more: 26 level, 1 no value, 1 too few runs; -v shows all"
    assert len(rows_of(text_lines(trends, 120, most=None))) == 58


@pytest.mark.parametrize("width", [60, 100, 200])
def test_names_give_way_to_figures(width):
    trends = trends_of([series(UP, cell="c" * 200, explainer="x" * 99), *given()])
    rows = rows_of(text_lines(trends, width))
    assert all(len(row) <= max(width, 128) for row in rows)
    assert all("0.500 [0.480, 0.520]" in row for row in rows[:2])


def test_a_terminal_without_unicode_gets_ascii(trends):
    plain = text_lines(trends, 70, is_plain=True, remarks=["left out: naïve"])
    assert all(line.isascii() for line in plain)
    assert any(mark in line for line in plain for mark in ("___***", "_____"))
    assert not all(line.isascii() for line in text_lines(trends, 160))


def test_remarks_and_breaks_are_said_once():
    values = [*[0.4] * 8, *(point(8 + at, 0.6, hardware_class=GPU) for at in range(8))]
    trends = trends_of([series(values, cell=f"c{at}") for at in range(3)])
    lines = text_lines(trends, 120, remarks=["left out: run-7: no record"])
    assert lines.count("! left out: run-7: no record") == 1
    (said,) = [line for line in lines if line.startswith("not compared across")]
    assert said == f"not compared across run run-0008: hardware: {GPU} (3 series)"


# sparklines


def test_a_sparkline_marks_levels_missing_values_and_breaks():
    gpu = [point(at, 0.4, hardware_class=GPU) for at in (6, 7)]
    trend = one([0.2, 0.4, 0.6, missing(3), point(4, 0.9, outcome=Outcome.INVALID), 0.2, *gpu])
    assert sparkline(trend) == "▁▅█??▁|▅▅"
    assert sparkline(trend, is_plain=True) == "_=#??_|=="
    assert sparkline(trend, most=2) == "▄▄"


def test_the_marks_of_a_sparkline_rise():
    assert levels(list(map(float, range(8)))) == BLOCKS
    assert len(PLAIN) == len(BLOCKS)
    assert PLAIN.isascii()
    assert levels([0.4] * 3) == "▄▄▄"
    assert levels([math.nan]) == "?"
    assert levels([]) == ""


# Markdown


def test_markdown_has_a_row_a_series_and_no_markup_of_others(trends):
    evil = series(UP, cell="a|b <b>x</b> @ann `c`", explainer="<i>|@ann", suite="s|<script>")
    text = markdown(trends_of([evil, *given()]), remarks=["left out: <img> @bob"])
    for word in ("<script>", "<i>", "<img>", "<b>", "@ann", "@bob"):
        assert word not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 9
    assert {line.count("|") for line in rows} == {7}
    assert rows[2].startswith("| **step (worse)** |")
    assert "step for the worse at run run-0012" in rows[2]
    assert text.startswith("## Trend: small, s&#124;&lt;script&gt;\n")


def test_markdown_stays_small_and_counts_the_rest():
    many = [series(UP, cell=f"c{at}" * 60, explainer=f"e{at}" * 60) for at in range(400)]
    text = markdown(trends_of(many))
    assert len(text.encode()) <= SIZE
    assert re.search(r"And 3\d\d more: 3\d\d step \(worse\)", text)
    assert len(markdown(trends_of(many), most_bytes=3000).encode()) <= 3000


# page


def test_the_page_runs_nothing_and_loads_nothing(trends):
    text = page(trends)
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=\"(?!#)", text)
    assert "default-src 'none'" in text
    assert " style=" not in text
    assert page(trends) == text


def test_texts_of_others_are_text_on_the_page():
    evil = "<script>alert(1)</script>\x1b[31m\u202e"
    values = [point(at, value, run=f"{at:02}{evil}", commit=evil, hardware_class=evil)
              for at, value in enumerate(UP)]  # fmt: skip
    trends = trends_of([series(values, cell=evil, title=evil, suite=evil, under={evil: evil})])
    for text in (page(trends, remarks=[evil]), "\n".join(text_lines(trends, remarks=[evil]))):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script" not in page(trends, remarks=[evil])


def test_the_page_names_every_run_and_what_moved(trends):
    text = page(trends, remarks=["left out: run-7: no record"])
    assert "4 of 8 series got worse" in text
    assert "Left out: run-7: no record" in text
    assert text.count("<figure") == 8
    first = text[text.index('id="series-1"') : text.index('id="series-2"')]
    assert "Step for the worse at run run-0012, commit 000ce2d04c" in first
    assert all(f"run-{at:04}" in first for at in range(20))
    assert first.count('<tr><th scope="row">') == 20
    assert '<g class="step worse">' in first
    assert "lower is better" in first


def test_a_page_of_many_series_has_thirty_charts_and_a_table_with_a_count():
    many = [series([0.4] * 8, cell=f"c{at:03}") for at in range(320)]
    text = page(trends_of(many))
    assert text.count("<figure") == 30
    assert "And 290 more: 290 level, without a chart here." in text
    assert "And 20 more: 20 level." in text


def test_a_page_without_series_says_so():
    assert "There is no series" in page([])
    assert "no series" in "\n".join(text_lines([]))
    assert "No series" in markdown([])


# charts


@pytest.mark.parametrize(("between", "labels"), [(1, ["hardware", ""]), (12, ["hardware"] * 2)])
def test_the_label_of_a_break_does_not_cover_the_one_before(between, labels):
    there = [point(8 + at, 0.45, hardware_class=GPU) for at in range(between)]
    chart = trend_chart(one([*[0.4] * 8, *there, *[point(20 + at, 0.4) for at in range(4)]]))
    assert [mark.label for mark in chart.breaks] == labels
    assert all("not compared across run" in mark.text for mark in chart.breaks)


def test_the_chart_marks_steps_breaks_and_values_that_are_missing():
    later = [point(16 + at, 0.45, hardware_class=GPU) for at in range(4)]
    trend = one([*[0.4] * 8, *[0.5] * 7, missing(15), *later])
    chart = trend_chart(trend)
    assert [dot.shape for dot in chart.dots] == ["pass"] * 15 + ["missing"] + ["pass"] * 4
    (step,) = chart.steps
    assert chart.dots[7].x < step.x < chart.dots[8].x
    assert (step.effect, step.label) == ("worse", "worse")
    (mark,) = chart.breaks
    assert chart.dots[15].x < mark.x < chart.dots[16].x
    assert mark.label == "hardware"
    assert {dot.strand for dot in chart.dots[16:]} == {1}
    assert len(chart.lines) == 3  # two levels of one strand, and the other strand
    assert "run-0015, commit" in chart.dots[15].text
    assert "no value" in chart.dots[15].text
    assert CPU in chart.dots[0].text


def test_everything_drawn_lies_in_the_chart_and_higher_values_stand_higher():
    trend = one([0.1, 0.9, -3.0, 7.0, 0.5, 0.5, 0.5])
    chart = trend_chart(trend)
    assert all(chart.left <= dot.x <= chart.right for dot in chart.dots)
    assert all(chart.top <= dot.y <= chart.bottom for dot in chart.dots)
    assert chart.dots[3].y < chart.dots[1].y < chart.dots[0].y < chart.dots[2].y


def test_outcomes_are_shapes():
    outcomes = [Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.INVALID]
    values = [point(at, 0.4, outcome=outcome) for at, outcome in enumerate(outcomes)]
    shapes = [dot.shape for dot in trend_chart(one(values)).dots]
    assert shapes == ["pass", "fail", "inconclusive", "unused"]


def test_a_long_series_is_drawn_from_its_last_runs():
    values = [0.4] * 300
    values[5:] = [0.5] * 295
    chart = trend_chart(one(values))
    assert len(chart.dots) == RUNS
    assert chart.steps == ()
    assert chart.description.startswith("300 runs")


def test_words_of_steps_never_lie_on_one_another():
    values = [0.4] * 5 + [0.5] * 5 + [0.4] * 5 + [0.5] * 5 + [0.4] * 5
    chart = trend_chart(one(values))
    assert [step.effect for step in chart.steps] == ["worse", "better"] * 2
    ends = []
    for step in chart.steps:
        room = 12 + 7 * len(step.label) if step.label else 6
        ends.append(
            (step.x - 6, step.x + room) if step.anchor == "start" else (step.x - room, step.x)
        )
    assert all(first[1] <= second[0] + 6 for first, second in pairwise(ends))


def test_a_drift_is_a_line_from_its_start_to_the_last_run():
    chart = trend_chart(one([0.4 + at * 0.004 for at in range(20)]))
    (slope,) = chart.slopes
    assert slope.start[0] == chart.dots[0].x
    assert slope.end[0] == chart.dots[-1].x
    assert slope.start[1] > slope.end[1]


def test_last_runs_off_the_level_are_ringed():
    chart = trend_chart(one([*[0.4] * 8, 0.5]))
    assert [dot.is_away for dot in chart.dots] == [False] * 8 + [True]


def test_without_intervals_there_is_no_band():
    values = [point(at, 0.4, low=math.nan, high=math.nan) for at in range(8)]
    (line,) = trend_chart(one(values)).lines
    assert line.band == ""
    assert line.median
    half = [replace(value, high=math.inf) for value in values]
    assert trend_chart(one(half)).lines[0].band == ""

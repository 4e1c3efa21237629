"""The views of a comparison: they say what it found, whole, safely, and within their bounds."""

import html
import itertools
import re

import pytest

from fxeval.records.changes import Comparison
from fxeval.results import Outcome
from fxeval.scorecard.changes import COMMENT, exit_status, markdown, page, text_lines
from fxeval.scorecard.slopes import SHOWN, WIDTH, slope_charts
from fxeval.statistics.changes import Margins, compared
from fxeval.tests.two_runs import BLACK, BLUR, FAR, cell, metric, refused, run, spread

B = spread(0.4)
NOISE = spread(0.0, by=0.01, seed=1)
BECAME = {
    "better": B + 0.1 + NOISE, "worse": B - 0.1 + NOISE, "undecided": B - 0.02 + NOISE,
    "same": B, "not_worse": B - 0.01 + NOISE,
}  # fmt: skip


def compare(before, after, by=0.02, **more):
    return compared(run(*before, name="before-run"), run(*after, name="after-run", **more),
                    Margins({"": {"absolute": by}}))  # fmt: skip


@pytest.fixture(scope="module")
def every():
    """One comparison with every outcome, and cells of one run alone."""
    before = [cell(B, explainer=name) for name in [*BECAME, "refused", "gone"]]
    after = [cell(values, explainer=name) for name, values in BECAME.items()]
    after += [cell(B, explainer="refused", facts=refused()), cell(B, explainer="new")]
    return compare(before, after)


@pytest.fixture(scope="module")
def many():
    """A comparison of 400 changes in 200 cells, made of the text of one."""
    names = "n" * 60 + "<b>|"
    [one] = compare([cell(B, explainer=names)], [cell(B - 0.1 + NOISE, explainer=names)])
    [change] = one.changes
    changes = [
        change.model_copy(update={
            "cell": f"c[m-{names}{place}-p]", "explainer": f"{names}{place}",
            "reason": "because, @ann, " * 300,
        })
        for place in range(400)
    ]  # fmt: skip
    return [one.model_copy(update={"changes": changes})]


def test_the_status_is_that_of_the_worst(every):
    def of(*outcomes):
        return exit_status([every[0].model_copy(update={"outcome": one}) for one in outcomes])

    assert (of("not_worse"), of("worse"), of("undecided")) == (0, 1, 2)
    assert (of("not_worse", "undecided"), of("undecided", "worse", "not_worse")) == (2, 1)
    assert exit_status([]) == 2


def test_the_terminal_shows_every_outcome_worst_first(every):
    lines = text_lines(every, 120)
    assert lines[0].startswith("WORSE  suite: worse in c[m-worse-p], c[m-refused-p]; of 7 changes")
    assert lines[1].startswith("before  run before-run, commit cccccccccccc, fxeval ")
    head = next(place for place, line in enumerate(lines) if line.startswith("outcome  "))
    words = [line.split("  ")[0] for line in lines[head + 1 : head + 8]]
    assert words == [
        "WORSE", "WORSE", "UNDECIDED", "NOT COMPARED", "NOT WORSE", "BETTER", "SAME",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "! in the earlier run alone: c[m-gone-p]" in text
    assert "! in the later run alone: c[m-new-p]" in text
    assert "cell pass -> invalid" in text
    assert re.search(
        r"WORSE +worse +m \(blur\) +0\.400 +0\.300 +-0\.100 \[-0\.103, -0\.097\]", text
    )


def test_a_narrow_terminal_loses_names_and_no_figure(every):
    figures = re.findall(r"-?\d\.\d+(?: \[[^]]+\])?", "\n".join(text_lines(every, 200)))
    assert re.findall(r"-?\d\.\d+(?: \[[^]]+\])?", "\n".join(text_lines(every, 40))) == figures


def test_the_terminal_shows_thirty_and_a_count(many):
    lines = text_lines(many, 120)
    assert "and 370 more: 370 worse; -v shows all" in lines
    assert len(text_lines(many, 120, is_verbose=True)) > 400


def test_what_informs_is_shown_on_demand_only():
    asked = {**FAR, "severity": "info"}
    found = compare([cell(B, asked)], [cell(B - 0.1 + NOISE, asked)])
    short, long = text_lines(found), text_lines(found, is_verbose=True)
    assert not [line for line in short if "m (blur)" in line]
    assert [line for line in long if line.startswith("(worse)")]
    assert "m (blur)" not in markdown(found)
    assert "For information: 1 change that decides nothing" in page(found)


def test_remarks_name_what_else_changed():
    [one] = compare([cell(B)], [cell(B)])
    later = one.after.model_copy(update={"suite": "6" * 64, "hardware_class": "abacus"})
    text = "\n".join(text_lines([one.model_copy(update={"after": later})]))
    assert "! the suite changed between the runs" in text
    assert "! the runs are of different hardware classes" in text
    assert "\n! " not in "\n".join(text_lines([one]))


def test_rows_that_take_part_are_counted_where_the_lists_differ():
    long = spread(0.4)
    found = compared(run(cell(long), pairs="a"), run(cell(long[:40]), pairs="b"))
    assert "40 rows of both runs, of 60 before and 40 after" in page(found)


def test_markdown_has_one_verdict_and_twenty_lines(every, many):
    text = markdown(every)
    assert text.startswith("## WORSE: suite\n")
    assert text.count("\n## ") == 0
    assert "| **worse** | worse | m (blur) | 0.400 | 0.300 | −0.100 \\[−0.103, −0.097\\] |" in text
    shown = [line for line in markdown(many).splitlines() if line.startswith("| **worse**")]
    assert 0 < len(shown) <= 20


@pytest.mark.parametrize("n_suites", [1, 3, 200])
def test_markdown_fits_a_comment(many, n_suites):
    text = markdown([*many] * n_suites)
    assert len(text.encode()) <= COMMENT
    assert "WORSE" in text
    assert "@ann" not in text
    assert "<b>" not in text


@pytest.mark.parametrize("view", [markdown, page])
def test_nothing_compared_is_said(view):
    assert "nothing was compared" in view([]).lower()
    assert text_lines([])[0].startswith("UNDECIDED")


def test_the_page_says_what_the_comparison_found(every):
    text = page(every)
    for one in every[0].changes:
        assert html.escape(one.cell) in text
    assert text.count("<h1>") == 1
    assert "WORSE" in text
    assert "<script" not in text
    assert re.search(r"default-src 'none'; img-src data:; style-src 'sha256-[\w+/=]{44}'", text)
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert page(every) == text


def test_hostile_names_are_text():
    name = "<script>alert(1)</script>\x1b[31m\u202e"
    found = compare([cell(B, explainer=name)], [cell(B - 0.1 + NOISE, explainer=name)])
    assert "<script>" not in page(found)
    assert "<script>" not in markdown(found)
    for text in (page(found), markdown(found), "\n".join(text_lines(found))):
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_a_comparison_is_read_as_it_was_written(every):
    [one] = every
    assert Comparison.model_validate_json(one.model_dump_json()) == one
    [it] = [it for it in one.changes if it.explainer == "refused"]
    assert (it.verdict_before, it.verdict_after) == (Outcome.PASS, Outcome.INVALID)


# --- slope charts


def two_metrics():
    of = [metric("up"), metric("down", "lower")]
    asked = [{**FAR, "metric": "up"}, {**FAR, "metric": "down"}]

    def one(name, by):
        return cell({"up": {BLUR: B + by, BLACK: B - 0.1}, "down": {BLUR: B}}, *asked, of=of,
                    explainer=name)  # fmt: skip

    return compare([one(name, 0) for name in "xy"], [one("x", -0.1 + NOISE), one("y", 0.1 + NOISE)])


def test_each_metric_has_a_chart_whose_lines_go_the_way_of_the_values():
    [found] = two_metrics()
    up, down = slope_charts(found.changes)
    assert (up.title, down.title) == ("Title of up", "Title of down")
    assert up.direction.startswith("higher is better")
    assert down.direction.startswith("lower is better")
    lines = {one.full_label.split(":")[0] + one.outcome: one for one in up.slopes}
    falls, rises = (lines[f"c[m-{name}-p], fill blur{word}"]
                    for name, word in (("x", "worse"), ("y", "better")))  # fmt: skip
    assert falls.after.y > falls.before.y  # y goes down the page
    assert rises.after.y < rises.before.y
    flat = lines["c[m-x-p], fill blacksame"]
    assert flat.after.y == flat.before.y
    for one in up.slopes:
        for end in (one.before, one.after):
            assert end.high < end.y < end.low  # the interval is around the value


def test_names_in_a_chart_tell_the_lines_apart_and_do_not_touch():
    [found] = two_metrics()
    up, _ = slope_charts(found.changes)
    assert {one.label for one in up.slopes} == {"x · blur", "x · black", "y · blur", "y · black"}
    places = sorted(one.label_y for one in up.slopes)
    assert all(b - a >= 13 for a, b in itertools.pairwise(places))
    assert all(0 < place < up.height for place in places)


def test_a_chart_keeps_its_lines_within_and_counts_the_others(many):
    [chart] = slope_charts(many[0].changes)
    assert len(chart.slopes) == SHOWN
    assert chart.left_out == "and 388 more: 388 worse"
    for one in chart.slopes:
        for end in (one.before, one.after):
            assert 0 <= end.high <= end.low <= chart.height
            assert 0 < end.x < WIDTH


@pytest.mark.parametrize("value", [0.0, 0.5, -1e-9])
def test_values_that_are_all_alike_can_be_drawn(value):
    flat = [value] * 40
    [found] = compare([cell(flat)], [cell(flat)])
    [chart] = slope_charts(found.changes)
    assert chart.slopes[0].before.y == chart.slopes[0].after.y
    assert len(chart.ticks) >= 2


def test_outcomes_differ_in_shape_not_in_colour_alone(every):
    text = page(every)
    marks = {}
    for word in BECAME:
        label = word.replace("_", " ")
        found = re.search(rf'<span class="outcome {word}"><svg[^>]*>\s*(<[^>]+>)', text)
        marks[label] = re.sub(r'"mark[^"]*"', "", found[1])
    assert len(set(marks.values())) == len(marks)

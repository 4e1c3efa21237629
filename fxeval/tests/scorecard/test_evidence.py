"""What verdicts rest on is shown beside them, and what a reader must know is not to be missed."""

import re

import pytest

from fxeval.scorecard import charts, evidence, limit_rows, render, terminal_summary, worst_first
from fxeval.tests.scorecard.test_scorecard import Reader
from fxeval.tests.scorecard.told import EXAMPLE, told_record


@pytest.fixture(scope="module")
def html():
    return render(told_record())


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_what_is_the_same_for_all_limits_is_told_once_and_the_rest_in_a_row_each(read):
    text = read.section("cell-1")
    shared = "effective identities 38.4 of 40 largest share 5.0 % least difference shown 0.021"
    assert text.count(f"{shared} without any one identity the same verdict method skewness") == 1
    assert "Limit About Seeds" in text
    limit = limit_rows.limit_text(EXAMPLE["cells"][0]["limits"][0])
    assert f"{limit} the population, worst condition 3: SD 0.002, worst 0.122" in text
    text = read.section("cell-2")
    assert "about this list, mean over conditions effective identities 9.1 of" in text
    assert "Limit About" not in text
    assert "seeds" not in text  # nothing is known of them there


def test_the_worst_of_slices_is_called_a_slice():
    record = told_record()
    record["cells"][0]["limits"][0] |= {"slice": "look", "judge": "worst"}
    assert "the population, worst slice" in Reader(render(record)).section("cell-1")


def test_every_column_is_explained_once_on_the_page(read):
    for head, meaning in evidence.HEADS.items():
        assert read.section("method").count(meaning[1:]) == 1, head
    assert ("a", "href", "#evidence") in read.attributes


def test_a_result_that_leans_on_one_identity_is_told_on_page_and_terminal(read, html):
    said = (
        "One identity has a part in 23 % of the rows of deletion_auc: such a result leans on one "
        "person; 4 verdicts of 4 would each be another one without some single identity."
    )
    record = told_record()
    assert len(record["cells"][1]["limits"]) == 4
    assert said in read.section("cell-2")
    assert "leans on" not in read.section("cell-1")
    assert "<strong>23.4 %, above 10 %</strong>" in html
    warned = [line for line in terminal_summary(record) if line.startswith("warning  ")]
    assert any(line.endswith(said) for line in warned)


def test_what_would_settle_an_undecided_limit_is_told_and_not_twice(read):
    assert "Would settle it: about 340 more identities" in read.section("cell-3")
    record = told_record()
    line = next(
        one
        for one in terminal_summary(record)
        if one.startswith("INCONCLUSIVE  model-randomisation[")
    )
    assert line.endswith("the interval contains the limit; about 340 more identities")
    limit = record["cells"][2]["limits"][0]
    limit["verdict"]["reason"] += "; about 340 more identities"
    record["cells"][2]["verdict"] = limit["verdict"]
    assert "Would settle it" not in Reader(render(record)).section("cell-3")
    assert "\n".join(terminal_summary(record)).count("about 340 more identities") == 1


def test_whether_the_explainer_repeats_its_maps_is_shown(read):
    text = read.section("cell-1")
    assert (
        "repeats with the same seed, on 4 rows yes depends on its seed yes; judged with 3" in text
    )
    text = read.section("cell-2")
    assert "on 4 rows no: its maps differ; largest change 0.25 of a map's range" in text
    assert "repeats with" not in read.section("cell-3")


def test_the_deviation_over_seeds_stands_beside_the_value(read):
    assert "value [low, high] SD over seeds pairs" in read.section("cell-1")
    assert "SD over seeds" not in read.section("cell-2")


def test_an_older_record_has_no_such_table():
    read = Reader(render(EXAMPLE))
    for index, _ in enumerate(EXAMPLE["cells"], 1):
        assert "What the verdicts rest on" not in read.section(f"cell-{index}")


def test_a_limit_of_two_lines_is_drawn_with_its_good_ground_between():
    [limit] = told_record()["cells"][0]["limits"][:1]
    assert limit_rows.limit_lines(limit) == (-0.02, 0.2)
    rules = [charts.Rule(-0.02, "at least", "higher"), charts.Rule(0.2, "at most", "lower")]
    chart = charts.dot_chart(
        "t", [charts.Row("", limit["estimate"], judged=True)], rules, directions=("", "")
    )
    left, right = (rule.x for rule in chart.limits)
    assert chart.good == (left, right)
    assert left < chart.dots[0].x < right
    alike = [charts.Rule(0.1, "critical", "lower"), charts.Rule(0.2, "warning", "lower")]
    assert charts.dot_chart("t", [], alike, directions=("", "")).good is None


def test_an_interval_without_one_end_is_written_in_words_and_drawn_with_an_arrow(read, html):
    assert re.search(r"−0\.058 \(at most −0\.044\)", read.section("cell-2"))
    assert "no interval" not in read.text
    for gone, kept, edge in (("low", "high", "left"), ("high", "low", "right")):
        estimate = {"value": 0.5, "low": 0.2, "high": 0.8, gone: None}
        chart = charts.dot_chart("t", [charts.Row("", estimate, judged=True)], directions=("", ""))
        dot = chart.dots[0]
        assert dot.arrow == getattr(chart, edge) == getattr(dot, gone)
        assert chart.left < getattr(dot, kept) < chart.right
    closed = {"value": 0.5, "low": 0.2, "high": 0.8}
    assert (
        charts.dot_chart("t", [charts.Row("", closed)], directions=("", "")).dots[0].arrow is None
    )
    assert html.count("l-6 5 6 5") == 1


def test_that_all_cells_must_pass_is_said_once_and_only_of_several(read):
    assert read.section("decided").count("(intersection-union)") == 1
    record = told_record()
    record["cells"] = record["cells"][:1]
    assert "intersection-union" not in Reader(render(record)).section("decided")


def test_what_got_worse_comes_first():
    def entry(cell, adjusted):
        return {"cell": cell, "text": "m not worse than baseline", "under": {"fill": "blur"},
                "adjusted": adjusted, "is_worse": adjusted < 0.025}  # fmt: skip

    tested = [entry("a", 0.4), entry("b", 0.01), entry("c", 1.0)]
    rows = worst_first.regression_rows({"regressions": {"tested": tested}})
    assert [cell for cell, _, _ in rows] == ["b", "a", "c"]
    assert rows[0][1] == "m not worse than baseline, fill blur"
    assert worst_first.regression_rows({"regressions": None}) == []

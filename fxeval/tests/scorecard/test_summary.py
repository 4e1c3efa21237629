"""Where not all cells can be shown: the worst and a count, on the terminal and in Markdown."""

import re

import pytest

from fxeval.scorecard import SHOWN, markdown_summary, terminal_summary
from fxeval.scorecard.summary import SIZE, escaped, summary_of_all
from fxeval.tests.scorecard.test_scorecard import SCHEMA, poison
from fxeval.tests.scorecard.told import EXAMPLE, grid, told_record

GRID = grid()


@pytest.fixture(scope="module")
def lines():
    return terminal_summary(GRID, 160)


@pytest.fixture(scope="module")
def summary():
    return markdown_summary(GRID, page="grid.html")


def table(lines):
    start = next(i for i, line in enumerate(lines) if line.startswith("verdict "))
    return lines[start + 1 : start + 2 + SHOWN]


def test_of_many_cells_the_terminal_shows_the_worst_in_the_suites_order_and_counts_the_rest(lines):
    *shown, rest = table(lines)
    assert [line.split()[0] for line in shown] == ["FAIL"] * SHOWN
    failed = [cell for cell in GRID["cells"] if cell["verdict"]["outcome"] == "fail"][:SHOWN]
    assert [tuple(line.split()[1:4]) for line in shown] == [
        (cell["check"], cell["explainer"], cell["model"]) for cell in failed
    ]
    assert rest == (
        "and 1,770 more: 10 failed, 700 invalid, 60 inconclusive, 1,000 passed; -v shows all"
    )


def test_reasons_and_warnings_of_many_cells_are_counted_too(lines):
    assert len(lines) < 3 * SHOWN + 20
    assert "and 770 more: 10 failed, 700 invalid, 60 inconclusive; -v shows all" in lines
    warned = [line for line in lines if line.startswith("warning  ")]
    assert len(warned) == SHOWN
    assert re.fullmatch(r"and [\d,]+ more; -v shows all", lines[-1])


def test_all_cells_are_shown_if_asked_for_and_no_count():
    found = terminal_summary(grid(20, 10, 10, 80), 160, most=None)
    assert len([line for line in found if re.match(r"[A-Z]+ +ex\d", line)]) == 80  # the table
    assert len([line for line in found if re.match(r"[A-Z]+ +del0\[", line)]) == 40  # reasons
    assert not [line for line in found if line.startswith("and ")]


def test_a_summary_of_many_cells_is_small_and_has_the_verdict_first(summary):
    assert len(summary.encode()) <= SIZE
    assert summary.startswith("## INVALID: Quick start")
    rows = re.findall(r"^\| \*\*fail\*\* \| del", summary, re.M)
    assert len(rows) == SHOWN
    assert "And 1,770 more: 10 failed, 700 invalid, 60 inconclusive, 1,000 passed." in summary
    assert "Cells: 40 fail, 700 invalid, 60 inconclusive, 1,000 pass." in summary
    assert "The whole scorecard: grid.html." in summary


def test_a_summary_says_of_each_missed_limit_value_method_and_what_would_settle_it():
    text = markdown_summary(told_record())
    [row] = [line for line in text.splitlines() if "would settle it" in line]
    assert "0.180 \\[0.110, 0.250\\] | skewness-corrected t over identities, 95 % |" in row
    assert "<br>would settle it: about 340 more identities |" in row
    assert "−0.058 (at most −0.044)" in text
    assert "One identity has a part in 23 % of the rows" in text
    assert "> Rendered faces: this run validates explainers" in text


def test_a_summary_too_large_for_its_place_shows_fewer_cells():
    small = grid(40, 30, 10, 100)
    whole = len(markdown_summary(small).encode())
    for most, left in ((whole - 1, 85), (12_000, 95), (3_000, 99)):
        text = markdown_summary(small, most_bytes=most)
        assert len(text.encode()) <= most
        assert f"\nAnd {left} more: " in text
    several = summary_of_all([(small, "")] * 3)
    assert len(several.encode()) <= SIZE
    assert several.count("## INVALID") == 3


HOSTILE = (
    "\n## Free tickets | b ||\n\n<script>alert(1)</script><img src=x> [x](http://evil.example) "
    "![y](https://evil.example/a.png) @everyone #1 GH-2 www.evil.example `c` ~~d~~ $e$ \\| &#124; "
)


def test_no_text_of_a_record_becomes_markdown_html_a_link_or_a_mention():
    text = markdown_summary(poison(told_record(), SCHEMA, HOSTILE, set()), page=HOSTILE)
    assert text.count("Free tickets") > 50
    assert set(re.findall(r"<[^>]*>", text)) == {"<br>"}
    bare = re.sub(r"\\.|&#124;", "", text.replace("[low, high]", ""))
    assert not re.findall(r"[\[\]`~$]|@\w|#\d|://|www\.|GH-\d", bare)
    heads = re.findall(r"^#+ .*", text, re.M)
    assert len(heads) == 2
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    lines = [line for line in text.splitlines() if line.strip()]
    assert all(re.match(r"## |### |> |\| |\|( --- \|)+$|- |[A-Z\ufffd]", line) for line in lines)


@pytest.mark.parametrize(
    "text",
    ["- item", "+ item", "1. item", "12) item", "= under", "# head", "> quote", "~~~", "***"],
)
def test_no_text_begins_a_block_of_its_own(text):
    assert re.match(r"\\|&gt;|#\u200b|\d+\\", escaped(text))


def test_a_suite_without_cells_has_a_summary():
    record = {**EXAMPLE, "cells": []}
    assert "Cells: none." in markdown_summary(record)


def test_what_got_worse_is_named_and_counted_where_it_is_much():
    record = grid(1, 0, 0, 1)
    entry = {"metric": "m", "under": {}, "text": "m not worse than baseline", "p_value": 0.001}
    tested = [
        {**entry, "cell": f"cell-{i}", "adjusted": 0.002 + i / 1000, "is_worse": i < SHOWN + 4}
        for i in range(SHOWN + 6)
    ]
    record["regressions"] = {"method": "Holm", "level": 0.025, "text": "so", "tested": tested}
    found = [line for line in terminal_summary(record, 160) if line.startswith(("worse", "and 4"))]
    assert found[0] == (
        "worse  cell-0: m not worse than baseline (p 0.002 after Holm's correction)"
    )
    assert len(found) == SHOWN + 1
    assert found[-1] == "and 4 more; -v shows all"
    listed = re.findall(r"^- .*(?:got worse).*", markdown_summary(record), re.M)
    assert listed[0].startswith("- **got worse**: cell-0: m not worse than baseline")
    assert listed[SHOWN:] == ["- and 4 more that got worse"]
    record["regressions"] = None
    assert not [line for line in terminal_summary(record, 160) if line.startswith("worse")]

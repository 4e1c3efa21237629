"""One verdict everywhere: terminal, pytest, JUnit, record, page, Markdown, exit status, report."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.scorecard import SHOWN
from fxeval.tests.reruns import EXPLAINERS, RERUN
from fxeval.tests.world import CONFTEST

ENDINGS = """

def first_channel(m, p, r, g):
    return p[:, 0].clone()


class Chooses(Explain):
    def unsupported(self, model):
        return None if model.name == "tiny" else "it has a sigmoid"


@pytest.fixture
def explainer_quick():
    return Explain(first_channel)


@pytest.fixture
def explainer_chooses():
    return Chooses(first_channel)


@pytest.fixture
def explainer_torn():
    yield Explain(first_channel)
    raise RuntimeError("the lid fell off")


@pytest.fixture
def explainer_killer():
    import os, signal
    return Explain(lambda m, p, r, g: os.kill(os.getpid(), signal.SIGKILL))


@pytest.fixture
def explainer_stops():
    def stop(m, p, r, g):
        raise KeyboardInterrupt
    return Explain(stop)
"""

CHECK = """\
  - id: {id}
    kind: faithfulness.deletion_insertion
    steps: 2
    fills: [mean]
    controls: [random_blobs]
    models: [{models}]
    explainers: [{explainer}]
    pairs: [{{use: memory, n: {n}}}]
    limits: [{{metric: insertion_auc, {limit}}}]
"""
GOOD, BAD = "at_least: -0.9", "at_least: 0.999"


def check(id, *, models="tiny", explainer="quick", n=32, limit=GOOD):
    return CHECK.format(id=id, models=models, explainer=explainer, n=n, limit=limit)


def suite(name, defaults, *checks):
    return f"fxeval: 1\nsuite: {name}\ndefaults: {defaults}\nchecks:\n{''.join(checks)}" + (
        "report: {formats: [html, json, markdown]}\n"
    )


STRICT = "{seed: 7}"
LENIENT = "{seed: 7, on_inconclusive: warn, on_unsupported: skip}"
# check and model -> (verdict, element of JUnit; None = a test that passed)
ENDS = {
    "strict": {
        ("passes", "tiny"): ("pass", None),
        ("fails", "tiny"): ("fail", "failure"),
        ("broken-maps", "tiny"): ("fail", "failure"),
        ("undecided", "tiny"): ("inconclusive", "failure"),
        ("no-model", "absent"): ("invalid", "failure"),
        ("no-conftest", "bug"): ("invalid", "failure"),
        ("not-supported", "sigmoid"): ("invalid", "failure"),
        ("torn-down", "tiny"): ("invalid", "error"),
        ("crashes", "tiny"): ("invalid", "error"),
    },
    "lenient": {
        ("passes", "tiny"): ("pass", None),
        ("undecided", "tiny"): ("inconclusive", None),
        ("chosen", "tiny"): ("pass", None),
        ("chosen", "sigmoid"): ("unsupported", "skipped"),
        ("for-information", "tiny"): ("information", "skipped"),
    },
    "informing": {
        ("for-information", "tiny"): ("information", "skipped"),
        ("more-of-it", "sigmoid"): ("information", "skipped"),
    },
    "stopped": {
        ("passes", "tiny"): ("pass", None),
        ("interrupted", "tiny"): ("invalid", "failure"),
    },
    "looks": {
        ("passes", "tiny"): ("pass", None),
        ("fails", "tiny"): ("fail", "failure"),
        ("undecided", "tiny"): ("inconclusive", "failure"),
    },
    "again": {
        ("passes", "tiny"): ("pass", None),
        ("saved", "tiny"): ("pass", None),
    },
    "again-in-vain": {
        ("saved", "tiny"): ("pass", None),
        ("fails", "tiny"): ("fail", "failure"),
        ("undecided", "tiny"): ("inconclusive", "failure"),
    },
}
SUITES = {
    "strict": suite(
        "strict", STRICT,
        check("passes"),
        check("fails", limit=BAD),
        check("broken-maps", explainer="nan"),
        check("undecided", n=20),
        check("no-model", models="absent"),
        check("no-conftest", models="bug"),
        check("not-supported", models="sigmoid", explainer="chooses"),
        check("torn-down", explainer="torn"),
        check("crashes", explainer="killer"),
    ),
    "lenient": suite(
        "lenient", LENIENT,
        check("passes"),
        check("undecided", n=20),
        check("chosen", models="tiny, sigmoid", explainer="chooses"),
        check("for-information", limit=f"{BAD}, severity: info"),
    ),
    "informing": suite(
        "informing", STRICT,
        check("for-information", limit=f"{BAD}, severity: info"),
        check("more-of-it", limit=f"{GOOD}, severity: info", models="sigmoid"),
    ),
    "stopped": suite(
        "stopped", STRICT, check("passes"), check("interrupted", explainer="stops"),
        check("never-begun"),
    ),
    "looks": suite(
        "looks", "{seed: 7, on_inconclusive: extend, looks: 2}",
        check("passes", n=40), check("fails", n=40, limit=BAD), check("undecided", n=20),
    ),
    "again": suite("again", STRICT, check("passes"), check("saved", explainer="moody")),
    "again-in-vain": suite(
        "again-in-vain", STRICT, check("saved", explainer="moody"), check("fails", limit=BAD),
        check("undecided", n=20),
    ),
}  # fmt: skip
RUNS = {  # suite -> arguments, verdict of the suite, exit status, counts of pytest
    "strict": (("-n", "1"), "invalid", 1, {"passed": 2, "failed": 7, "errors": 1}),
    "lenient": ((), "inconclusive", 0, {"passed": 3, "skipped": 2}),
    "informing": ((), "inconclusive", 1, {"skipped": 2}),
    "stopped": ((), "invalid", 2, {"passed": 1, "failed": 1}),
    "looks": ((), "fail", 1, {"passed": 1, "failed": 2}),
    "again": ((), "pass", 0, {"passed": 2, "rerun": 1}),
    "again-in-vain": ((), "fail", 1, {"passed": 1, "failed": 2, "rerun": 5}),
}
PLUG_INS = {"again": EXPLAINERS + RERUN, "again-in-vain": EXPLAINERS + RERUN}
IN_PROCESS = ("lenient", "looks", "again", "again-in-vain")


def table_of(lines):
    """Return the verdicts by check and model in a table of the terminal."""
    start = next(i for i, line in enumerate(lines) if re.match(r"verdict +check", line))
    heads, found = lines[start].split(), {}
    for line in lines[start + 1 :]:
        cells = re.split(r"  +", line)
        if cells[0] not in {
            "PASS",
            "FAIL",
            "INCONCLUSIVE",
            "INVALID",
            "INFORMATION",
            "UNSUPPORTED",
        }:
            return found
        of = dict(zip(heads, cells, strict=False))
        found[of["check"], of.get("model", "tiny")] = cells[0].lower()
    return found


def page_of(text):
    """Return the suite's verdict and those by check and model, as the page shows them."""
    cells = re.findall(r'<section class="cell".*?</header>', text, re.S)
    found = {}
    for cell in cells:
        name = re.search(r"<h3[^>]*>(\S+) <span", cell)[1]
        model = re.search(r'class="facts">model (\S+)', cell)[1]
        found[name, model] = re.search(r'class="ruling">\s*<span class="verdict (\w+)"', cell)[1]
    return re.search(r'<header class="top (\w+)"', text)[1], found


def markdown_of(text):
    """Return the suite's verdict and those by check and model, as the summary shows them."""
    words = "pass|fail|inconclusive|invalid|information|unsupported"
    rows = re.findall(rf"^\| \*{{0,2}}({words})\*{{0,2}} \| (\S+) \| \S+ \| (\S+) \|", text, re.M)
    head = re.search(r"^## (\w+): ", text, re.M)[1]
    return head.lower(), {(check, model): word for word, check, model in rows}


def junit_of(path):
    """Return the elements and messages by check and model."""
    found = {}
    for case in ET.parse(path).iter("testcase"):
        name, model = re.match(r"([\w-]+)\[([a-z]+)-", case.get("name")).groups()
        for one in case:
            if one.tag in {"failure", "error", "skipped"}:
                found[name, model] = one.tag, one.get("message"), one.text
        found.setdefault((name, model), (None, "", ""))
    return found


@pytest.mark.parametrize("name", SUITES)
def test_every_view_says_the_same_of_every_cell_and_of_the_run(pytester, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "160")
    arguments, verdict, status, counts = RUNS[name]
    pytester.makeconftest(CONFTEST + ENDINGS + PLUG_INS.get(name, ""))
    (pytester.path / "suite.yaml").write_text(SUITES[name])
    # A process that ends, or hears Ctrl-C, must not be this one.
    start = pytester.runpytest_inprocess if name in IN_PROCESS else pytester.runpytest_subprocess
    result = start(
        "suite.yaml", "--fx-threads=1", "--junitxml=junit.xml", "--fx-markdown=all.md",
        "-W", "default", *arguments,
    )  # fmt: skip
    expected = {cell: end[0] for cell, end in ENDS[name].items()}
    (folder,) = pytester.path.glob("reports/*")

    record = json.loads((folder / f"{name}.json").read_text())
    assert {(c["check"], c["model"]): c["verdict"]["outcome"] for c in record["cells"]} == expected
    assert record["verdict"]["outcome"] == verdict

    assert result.ret == status
    ends = result.parseoutcomes()
    assert {word: ends.get(word, 0) for word in counts} == counts
    assert table_of(result.outlines) == expected
    assert any(line.startswith(f"{verdict.upper()}  {name}: ") for line in result.outlines)

    assert page_of((folder / f"{name}.html").read_text()) == (verdict, expected)
    summary = (folder / f"{name}.md").read_text()
    assert markdown_of(summary) == (verdict, expected)
    assert (pytester.path / "all.md").read_text() == summary

    cases = junit_of("junit.xml")
    assert {cell: case[0] for cell, case in cases.items()} == {
        cell: end[1] for cell, end in ENDS[name].items()
    }
    reasons = {(c["check"], c["model"]): c["verdict"]["reason"] for c in record["cells"]}
    for cell, (element, message, text) in cases.items():
        if element in {"failure", "skipped"}:
            assert "\n" not in message
            assert (
                f"suite.yaml:{SUITES[name][: SUITES[name].index(cell[0])].count(chr(10)) + 1}"
                in (message + text)
            )
        if element == "failure" and cell[0] != "no-conftest":
            assert message.startswith(f"{expected[cell]}: ")
            assert reasons[cell].removeprefix("unsupported: ")[:40] in message

    again = CliRunner().invoke(
        main, ["report", str(folder), "--out", "again", "--markdown", "a.md"]
    )
    assert again.exit_code == 0, again.output
    assert table_of(again.output.splitlines()) == expected
    assert f"{verdict.upper()}  {name}: " in again.output
    assert (pytester.path / "a.md").read_text() == summary
    same = (pytester.path / "again" / f"{name}.json").read_text()
    assert same == (folder / f"{name}.json").read_text()


def test_a_run_that_passes_no_verdict_and_fails_no_test_says_why():
    from fxeval.scorecard.worst_first import effect

    def record(*cells, missing=()):
        return {
            "verdict": {"outcome": "inconclusive"}, "run": {"missing": missing},
            "cells": [
                {"check": "a", "on_inconclusive": how, "verdict": {"outcome": outcome}}
                for outcome, how in cells
            ],
        }  # fmt: skip

    assert "only warn" in effect(record(("inconclusive", "warn"), ("pass", "warn")))
    assert "not run" in effect(record(("pass", "fail"), missing=["b[m-e-p]"]))
    assert effect(record(("inconclusive", "fail"))) == ""
    assert effect(record(("inconclusive", "extend"))) == ""  # it fails its test, too
    assert effect(record(("inconclusive", "warn"), ("fail", "warn"))) == ""
    assert "for information" in effect(record(("information", "fail"), ("information", "warn")))
    assert effect(record(("unsupported", "fail"))) == ""  # a check that measured nothing fails


MANY = SHOWN + 3


@pytest.fixture
def many(pytester):
    """Run a suite of more cells than are shown; all fail at once, as their model is absent."""
    pytester.makeconftest(CONFTEST)
    explainers = ", ".join(f"{{use: constant, as: e{i}}}" for i in range(MANY))
    text = suite("many", STRICT, check("no-model", models="absent", explainer=explainers))
    (pytester.path / "suite.yaml").write_text(text)

    def run(*args):
        start = pytester.runpytest_subprocess if "-n" in args else pytester.runpytest_inprocess
        return start("suite.yaml", "--fx-threads=1", *args)

    return run


def sections(result):
    """Return the text between the first failure's head and the table of fxeval, without heads."""
    text = "\n".join(result.outlines)
    failures = text[text.index("= FAILURES =") :]
    failures = failures[: failures.index("fxeval: many")]
    heads = re.findall(r"^_+ \S+ _+$", failures, re.M)
    return heads, [
        line for line in failures.splitlines()[1:] if line and not re.match(r"[_=-]", line)
    ]


@pytest.mark.parametrize("processes", [(), ("-n", "1")])
def test_many_failed_cells_have_a_line_each_and_junit_keeps_the_whole(many, processes):
    result = many("--junitxml=junit.xml", *processes)
    assert result.ret == 1
    result.assert_outcomes(failed=MANY)
    heads, lines = sections(result)
    assert len(heads) == MANY
    assert len(lines) == MANY
    assert all("weights.safetensors: not there" in line for line in lines)
    result.stdout.fnmatch_lines(
        [
            f"and {MANY - SHOWN} more: {MANY - SHOWN} invalid; -v shows all",
            "So many cells failed that each has one line above; the record and the page hold *",
        ]
    )
    cases = list(ET.parse("junit.xml").iter("failure"))
    assert len(cases) == MANY
    for case in cases:
        assert "weights.safetensors: not there" in case.get("message")
        assert "suite.yaml:5:5" in case.text


def test_a_wish_for_detail_leaves_the_sections_whole(many):
    result = many("-v")
    assert "suite.yaml:5:5" in sections(result)[1]
    assert "So many cells" not in result.stdout.str()
    assert "more:" not in result.stdout.str()


def test_few_failed_cells_have_whole_sections_and_the_summary_of_a_step_keeps_its_text(
    many, pytester, monkeypatch
):
    step = pytester.path / "step.md"
    step.write_text("## Built\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    result = many("-x", "--fx-markdown", str(step))
    result.assert_outcomes(failed=1)
    assert "suite.yaml:5:5" in sections(result)[1]
    assert step.read_text().startswith("## Built\n## INVALID: many\n")


def test_short_tracebacks_work_with_many_failed_cells_and_an_old_summary_is_replaced(
    many, pytester
):
    (pytester.path / "all.md").write_text("of an earlier run")
    result = many("--tb=line", "--fx-markdown=all.md")
    assert result.ret == 1
    assert "INTERNALERROR" not in result.stdout.str()
    assert result.stdout.str().count("weights.safetensors: not there") >= 2 * MANY
    assert (pytester.path / "all.md").read_text().startswith("## INVALID: many\n")

"""Cells that plug-ins run again: every view says so, and none reads as a clean pass."""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.results import attempts
from fxeval.run.attempts import NOT_THE_LAST, PROPERTY
from fxeval.tests.reruns import EXPLAINERS, RERUN, WAYS, suite
from fxeval.tests.world import CONFTEST

CELL = "{}[tiny-{}-memory]"
FAILED = CELL.format("never", "steady")
SAVED = CELL.format("moody", "moody")
CLEAN = CELL.format("steady", "steady")
TORN = CELL.format("torn", "lid")
CELLS = {"steady": "steady", "moody": "moody", "never": "steady"}


def start(pytester, way, *args, place="conftest", explainers=CELLS, run="inprocess"):
    """Run a suite whose tests a plug-in runs again; return the run and its folder."""
    conftest = CONFTEST + EXPLAINERS
    if place == "conftest":
        pytester.makeconftest(conftest + way)
    else:  # a plug-in that is loaded before fxeval
        pytester.makeconftest(conftest)
        pytester.makepyfile(again_plugin=way)
        pytester.syspathinsert()
        args = ("-p", "again_plugin", *args)
    (pytester.path / "suite.yaml").write_text(suite(**explainers))
    runs = {"inprocess": pytester.runpytest_inprocess, "apart": pytester.runpytest_subprocess}
    arguments = ("--fx-threads=1", "--junitxml=junit.xml", "-p", "no:rerunfailures", *args)
    result = runs[run]("suite.yaml", *arguments)
    (folder,) = pytester.path.glob("reports/*")
    return result, folder


def record_of(folder):
    return json.loads((folder / "again.json").read_text())


def rows_of(folder):
    lines = [line for path in folder.glob("rows*.jsonl") for line in path.read_text().splitlines()]
    return Counter((one["cell"], one["attempt"]) for one in map(json.loads, lines))


def cases_of(pytester, cell):
    """Return the mark and the failure of each case of a cell in JUnit."""
    cases = [one for one in ET.parse("junit.xml").iter("testcase") if one.get("name") == cell]
    found = []
    for case in cases:
        marks = [one.get("value") for one in case.iter("property") if one.get("name") == PROPERTY]
        failure = case.find("failure")
        found.append((*(marks or [""]), None if failure is None else failure.text))
    return found


@pytest.mark.parametrize("place", ["conftest", "before"])
@pytest.mark.parametrize("way", WAYS)
def test_every_view_says_that_a_cell_was_run_again(pytester, monkeypatch, way, place):
    monkeypatch.setenv("COLUMNS", "160")
    result, folder = start(pytester, WAYS[way], place=place)
    assert result.ret == 1
    record = record_of(folder)
    found = {
        cell["id"]: (cell["verdict"]["outcome"], cell["attempt"], cell["earlier"])
        for cell in record["cells"]
    }
    assert found == {
        CLEAN: ("pass", 1, []), SAVED: ("pass", 2, ["invalid"]), FAILED: ("fail", 3, ["fail"] * 2),
    }  # fmt: skip
    assert rows_of(folder) == {
        (CLEAN, 1): 32, (SAVED, 2): 32, **{(FAILED, number): 32 for number in (1, 2, 3)},
    }  # fmt: skip
    saved, failed = attempts(["invalid"]), attempts(["fail", "fail"])
    reasons = {cell["id"]: cell["verdict"]["reason"] for cell in record["cells"]}
    assert reasons[SAVED].endswith(saved)
    assert "run " not in reasons[CLEAN]
    assert record["verdict"]["outcome"] == "fail"
    assert record["verdict"]["reason"] == "of 3 cells 1 failed, 2 passed (1 when run again)"

    warning = f"2 cells had more than one attempt: {FAILED} ({failed}); {SAVED} ({saved})."
    result.stdout.fnmatch_lines([f"! {warning}".replace("[", "[[]")])
    table = [line for line in result.outlines if line.startswith(("PASS ", "FAIL "))]
    assert {" ".join(line.split()[:2]): "(run " in line for line in table[1:4]} == {
        "FAIL never": True, "PASS steady": False, "PASS moody": True,
    }  # fmt: skip

    page = (folder / "again.html").read_text()
    assert f'<p class="banner" role="note">{warning}' in page
    rulings = re.findall(r'<p class="ruling">.*?</p>', page, re.S)
    assert [re.findall("run .*before: [a-z, ]*", ruling) for ruling in rulings] == [
        [], [saved], [failed],
    ]  # fmt: skip
    assert page.count(f"<small>{saved}</small>") == 1
    summary = (folder / "again.md").read_text()
    assert "2 cells had more than one attempt: " in summary
    assert re.search(r"^\| pass \| moody .*\| \(run 2 times\) ", summary, re.M)
    assert re.search(r"^\| pass \| steady .*\| -?0\.\d+ ", summary, re.M)

    assert cases_of(pytester, CLEAN) == [("", None)]
    assert cases_of(pytester, SAVED)[-1] == (saved, None)
    *others, last = cases_of(pytester, FAILED)
    assert last[0] == failed
    assert last[1].endswith(failed)
    before = [*cases_of(pytester, SAVED)[:-1], *others]
    assert before == [(NOT_THE_LAST, None)] * (0 if way == "inside" else 3)

    again = CliRunner().invoke(main, ["report", str(folder)])
    assert again.exit_code == 0, again.output
    assert f"! {warning}" in again.output


def test_an_attempt_whose_teardown_failed_was_no_pass(pytester):
    result, folder = start(pytester, RERUN, explainers={"torn": "lid"})
    assert result.ret == 0
    (cell,) = record_of(folder)["cells"]
    assert (cell["verdict"]["outcome"], cell["earlier"]) == ("pass", ["invalid"])
    assert record_of(folder)["verdict"]["reason"] == "of 1 cells 1 passed (1 when run again)"
    assert cases_of(pytester, TORN)[-1] == (attempts(["invalid"]), None)


CRASHES = """

def pytest_handlecrashitem(crashitem, report, sched):
    # as pytest-rerunfailures: another worker gets the test
    sched.mark_test_pending(crashitem)
    report.outcome = "rerun"


def pytest_runtest_protocol(item):
    from pathlib import Path

    if item.name.startswith("counted") and Path("seen-counted").exists():
        item.execution_count = 2
"""


def test_a_cell_that_took_its_worker_along_is_no_clean_pass_in_the_next_one(pytester):
    """A plug-in that counts over processes tells the attempts apart; without, there is no pass."""
    cells = {"counted": "mortal", "uncounted": "frail", "steady": "steady"}
    _, folder = start(pytester, CRASHES, "-n", "1", explainers=cells, run="apart")
    counted, uncounted, steady = record_of(folder)["cells"]
    assert (counted["verdict"]["outcome"], counted["attempt"]) == ("pass", 2)
    assert counted["earlier"] == ["invalid"]
    assert counted["verdict"]["reason"].endswith(attempts(["invalid"]))
    assert uncounted["verdict"]["outcome"] == "invalid"
    assert "their rows cannot be told apart" in uncounted["verdict"]["reason"]
    assert (steady["verdict"]["outcome"], steady["attempt"]) == ("pass", 1)
    assert CliRunner().invoke(main, ["report", str(folder)]).exit_code == 0


GROUPED = """

def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group("all"))
"""


def test_a_cell_that_xdist_itself_gives_to_another_worker_after_a_crash_does_not_pass(pytester):
    cells = {"mortal": "mortal", "steady": "steady"}
    args = ("-n", "2", "--dist=loadgroup")
    result, folder = start(pytester, GROUPED, *args, explainers=cells, run="apart")
    mortal, steady = record_of(folder)["cells"]
    assert mortal["verdict"]["outcome"] == "invalid"
    assert steady["verdict"]["outcome"] == "pass"
    assert {cell["nodeid"] for cell in (mortal, steady)} == {
        f"suite.yaml::{cell['id']}" for cell in (mortal, steady)
    }
    assert result.ret == 1


def test_the_plug_in_itself_marks_the_same(pytester):
    pytest.importorskip("pytest_rerunfailures", reason="pytest-rerunfailures is not installed")
    (pytester.path / "suite.yaml").write_text(suite(**CELLS, mortal="mortal"))
    pytester.makeconftest(CONFTEST + EXPLAINERS)
    alone = "-p", "no:flaky", "-p", "no:pytest-retry"  # of several, one runs the tests
    pytester.runpytest_subprocess("suite.yaml", "--fx-threads=1", "--reruns=2", "-n", "1", *alone)
    (folder,) = pytester.path.glob("reports/*")
    found = {cell["check"]: cell["earlier"] for cell in record_of(folder)["cells"]}
    assert found == {
        "steady": [], "moody": ["invalid"], "never": ["fail", "fail"], "mortal": ["invalid"],
    }  # fmt: skip


def test_a_count_of_runs_that_is_no_number_is_not_believed():
    from fxeval.run.session import Session

    session = SimpleNamespace(_verdicts={("here", "a"): ["fail"]})

    def earlier(count):
        return Session.earlier(session, SimpleNamespace(path="here", execution_count=count), "a")

    assert [earlier(count) for count in (None, "9", 1, 2, 4)] == [
        ["fail"], ["fail"], ["fail"], ["fail"], ["invalid", "invalid", "fail"],
    ]  # fmt: skip

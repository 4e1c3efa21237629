"""The file of acknowledged regressions: what it may hold, and that every fault has its place."""

from datetime import date

import pytest

from fxeval.errors import SuiteError
from fxeval.records.acknowledged import (
    FILE,
    Entry,
    acknowledge,
    read_acknowledged,
    states,
)
from fxeval.records.judged import Acknowledgement

TODAY = date(2026, 11, 30)
CELL = "deletion[tiny-quick-memory]"
GOOD = """\
acknowledged: 1
regressions: # of version 2
  - suite: small
    cell: deletion[tiny-quick-memory]
    metric: deletion_auc
    under: {fill: mean, fraction: 0.5}
    reason: >
      it blurs
      more
    until: 2027-01-31
    by: Ann
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def once(text, today=TODAY):
        (tmp_path / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_acknowledged(tmp_path, today)

    once.folder = tmp_path
    return once


def test_an_entry_is_read_with_its_place(read):
    (one,) = read(GOOD).known
    assert (one.suite, one.cell) == ("small", CELL)
    assert one.entry == Acknowledgement(
        metric="deletion_auc", under={"fill": "mean", "fraction": 0.5}, reason="it blurs more",
        until="2027-01-31", by="Ann", where="acknowledged.yaml:3:5",
    )  # fmt: skip


def test_no_path_of_the_machine_stands_in_an_entry(read, tmp_path_factory, monkeypatch):
    read(GOOD)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    (one,) = read_acknowledged(read.folder, TODAY).known
    assert one.entry.where == "acknowledged.yaml:3:5"


def test_no_file_and_an_empty_list_acknowledge_nothing(read):
    assert read_acknowledged(read.folder, TODAY).known == ()
    assert read("acknowledged: 1\nregressions: []\n").known == ()
    assert read("acknowledged: 1\nregressions: []\n").of("small", {}) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("until: 2027-01-31", "until: 2027-02-30", ":10:12: error: 'until': expected a day of the"),
        ("until: 2027-01-31", "until: soon", ":10:12: error: 'until': expected a day as YYYY-"),
        ("until: 2027-01-31", "until: 2027-12-31", ":10:12: error: 'until': expected a day at "
         "most one year after 2026-11-30, got '2027-12-31'"),
        ("    until: 2027-01-31\n", "", ":3:5: error: the key 'until' is missing"),
        ("until", "untill", ":10:5: error: unknown key 'untill'"),
        ("metric: deletion_auc", "metric: 3", ":5:13: error: 'metric' must be text, got 3"),
        ("metric: deletion_auc", "metric:", ":5:12: error: 'metric' has no value"),
        ("reason: >\n      it blurs\n      more", "reason: ' '", ":7:13: error: 'reason': expected "
         "a reason"),
        ("acknowledged: 1", "acknowledged: 2", ":1:15: error: 'acknowledged' must be 1, got 2"),
        ("acknowledged: 1\n", "", ":1:1: error: the key 'acknowledged' is missing"),
        ("by: Ann", "by: Ann\n    by: Bob", ":12:5: error: the key 'by' is already given in line"),
        ("{fill: mean, fraction: 0.5}", "[fill]", ":6:12: error: 'under' must be a mapping"),
        ("suite: small", "suite: &a small", ": error: anchors ('&a') are not allowed"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(read, old, new, said):
    assert old in GOOD
    with pytest.raises(SuiteError) as caught:
        read(GOOD.replace(old, new, 1))
    assert f"{FILE}{said}" in str(caught.value) or said in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"regressions: []", b"{" * 5000, b"\0"])
def test_what_is_no_such_file_is_refused(read, text):
    with pytest.raises(SuiteError, match=r"acknowledged\.yaml:\d+:\d+: error: "):
        read(text)


def test_the_same_regression_twice_is_a_fault(read):
    entry = GOOD.partition("version 2\n")[2]
    with pytest.raises(SuiteError, match="12:5: error: the same regression stands in line 3"):
        read(GOOD + entry)
    read(GOOD + entry.replace("fill: mean", "fill: blur"))


def test_what_names_no_cell_and_no_compared_metric_of_the_suite_is_a_fault(read):
    found = read(GOOD)
    assert [one.cell for one in found.of("small", {CELL: {"deletion_auc"}})] == [CELL]
    assert found.of("another", {}) == []
    with pytest.raises(SuiteError) as caught:
        found.of("small", {"deletion[tiny-quick-people]": {"deletion_auc"}})
    assert f"acknowledged.yaml:4:11: error: suite 'small' has no cell '{CELL}'" in str(caught.value)
    with pytest.raises(SuiteError) as caught:
        read(GOOD).of("small", {CELL: {"insertion_auc"}})
    assert "acknowledged.yaml:5:13: error: no limit of deletion" in str(caught.value)


def test_an_entry_holds_on_its_last_day_and_not_after(read):
    known = read(GOOD).known
    assert [state for _, state in states(known, date(2027, 1, 31), None)] == ["active"]
    assert [state for _, state in states(known, date(2027, 2, 1), None)] == ["expired"]
    assert [state for _, state in states(known, TODAY, [])] == ["unused"]
    assert [state for _, state in states(known, TODAY, known)] == ["active"]


def entry(**given):
    return Entry(
        **{"suite": "small", "cell": CELL, "metric": "insertion_auc", "reason": "a: 'b' \"c\" # d",
           "until": "2027-02-01", **given}
    )  # fmt: skip


def test_an_entry_is_added_and_what_stands_there_stays(read):
    acknowledge(read.folder, entry(), TODAY)
    (one,) = read_acknowledged(read.folder, TODAY).known
    assert (one.entry.reason, one.entry.under) == ("a: 'b' \"c\" # d", {})
    read(GOOD)
    acknowledge(read.folder, entry(under={"fill": "mean", "fraction": 0.5}, by="é"), TODAY)
    text = (read.folder / FILE).read_text(encoding="utf-8")
    assert text.startswith(GOOD)
    first, second = read_acknowledged(read.folder, TODAY).known
    assert first.entry.by == "Ann"
    assert (second.entry.under, second.entry.by) == ({"fill": "mean", "fraction": 0.5}, "é")


@pytest.mark.parametrize("indent", ["", "    "])
def test_an_entry_stands_in_line_with_those_before(read, indent):
    read(f"acknowledged: 1\nregressions:\n{indent}- " + entry().model_dump_json())
    acknowledge(read.folder, entry(metric="deletion_auc"), TODAY)
    assert [one.entry.metric for one in read_acknowledged(read.folder, TODAY).known] == [
        "insertion_auc", "deletion_auc",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("", {"until": "2026-11-29"}, "expected a day that is not past"),
        ("", {"until": "2028-01-01"}, "at most one year after"),
        ("", {"reason": "a\x1b"}, "U\\+001B is not allowed"),
        (GOOD, {"metric": "deletion_auc", "under": {"fill": "mean", "fraction": 0.5}},
         "the same regression stands in line 3"),
        ("regressions: []\nacknowledged: 1\n", {}, "the entry can't be added at its end"),
        ("acknowledged: 1\nregressions: [{}]\n", {}, "the key 'suite' is missing"),
    ],
)  # fmt: skip
def test_an_unfit_entry_is_not_added(read, text, given, said):
    path = read.folder / FILE
    if text:
        path.write_text(text)
    with pytest.raises(SuiteError, match=said):
        acknowledge(read.folder, entry(**given), TODAY)
    assert (path.read_text() if path.exists() else "") == text

"""Rows survive a kill, files are whole or absent, and NaN never reaches JSON."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import StoreError
from fxeval.records.schema import Measured, Record, Row
from fxeval.records.writing import (
    RowFile,
    check_writable,
    dump,
    dumped,
    json_text,
    plain,
    write,
)

RECORD = json.loads((Path(__file__).parents[1] / "records" / "example_v2.json").read_text("utf-8"))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=10),
    st.floats(allow_nan=True, allow_infinity=True),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(max_size=5), inner))
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES))
def test_data_comes_back_equal_but_for_nan(data):
    text = json_text(data)
    assert json.loads(text, parse_constant=pytest.fail) == plain(data)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES))
def test_a_record_comes_back_equal_but_for_nan(parameters):
    cell = {**RECORD["cells"][0], "parameters": plain(parameters)}
    record = Record.model_validate({**RECORD, "cells": [cell]})
    text = dump(record)
    assert json.loads(text, parse_constant=pytest.fail) == dumped(record)
    assert dumped(record)["cells"][0]["parameters"] == plain(parameters)


def test_nan_and_infinity_become_null():
    assert plain([math.nan, math.inf, -math.inf, 1.5]) == [None, None, None, 1.5]
    run = {**RECORD["verification"][0]["thresholds"][0], "value": math.nan, "high": math.inf}
    entry = {**RECORD["verification"][0], "thresholds": [run]}
    record = Record.model_validate({**RECORD, "verification": [entry]})
    [threshold] = dumped(record)["verification"][0]["thresholds"]
    assert threshold["value"] is threshold["high"] is None


def row(name, value=0.5, *, cell="a", reason=""):
    values = Measured(map="explainer", values={"m": value}, states={"m": "ok"})
    return Row(
        cell=cell, row=name, identities=[0], state="ok", reason=reason, measured=[values],
        diagnostics={"probe": {"d": value}},
    )  # fmt: skip


def test_rows_are_appended_one_object_a_line(tmp_path):
    file = RowFile(tmp_path / "deep" / "rows.jsonl")
    file.append([row("1", math.nan)])
    file.append([row("2", cell="b"), row("3", 1e-17, cell="b")])
    lines = (tmp_path / "deep" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == ["1", "2", "3"]
    read = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [line["cell"] for line in read] == ["a", "b", "b"]
    assert [line["measured"][0]["values"]["m"] for line in read] == [None, 0.5, 1e-17]
    assert [line["diagnostics"]["probe"]["d"] for line in read] == [None, 0.5, 1e-17]


def test_text_that_cannot_be_encoded_loses_no_row_and_no_record(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowFile(path).append([row("1", reason="no such file: caf\udce9.png"), row("2", math.nan)])
    first, second = map(json.loads, path.read_text("utf-8").splitlines())
    assert first["reason"] == "no such file: caf?.png"
    assert second["measured"][0]["values"]["m"] is None
    verdict = {"outcome": "fail", "reason": "caf\udce9.png \N{SNOWMAN}"}
    record = Record.model_validate({**RECORD, "verdict": verdict})
    write(tmp_path / "record.json", dump(record))
    assert json.loads((tmp_path / "record.json").read_bytes())["verdict"]["reason"] == (
        "caf?.png \N{SNOWMAN}"
    )


def test_a_killed_process_loses_no_finished_row(tmp_path):
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fxeval.records.writing import RowFile
        from fxeval.tests.records.test_writing import row
        file, n = RowFile(Path(sys.argv[1])), 0
        while True:
            file.append([row(str(n))])
            print(n, flush=True)
            n += 1
        """
    )
    path = tmp_path / "rows.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    acknowledged = [int(process.stdout.readline()) for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    rest = [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    process.wait()
    rows = [int(json.loads(line)["row"]) for line in path.read_text().splitlines()]
    assert rows[: len(acknowledged + rest)] == acknowledged + rest


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "record.json"
    write(path, "old")
    write(path, "new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for attempt in (
        lambda: write(tmp_path / "file" / "record.json", "text"),
        lambda: RowFile(tmp_path / "file" / "rows.jsonl").append([row("1")]),
    ):
        with pytest.raises(StoreError, match="file"):
            attempt()


class _FullDisk:
    """A file on a disk with room for some more bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        part = data[: self._room]
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= len(part)
        return self._file.write(part)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 1, 40, 10_000])
def test_rows_are_whole_even_if_the_disk_takes_them_in_parts(tmp_path, monkeypatch, room):
    file = RowFile(tmp_path / "rows.jsonl")
    file.append([row("first")])
    before = (tmp_path / "rows.jsonl").read_bytes()
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *how, **more: _FullDisk(opened(path, *how, **more), room)
    )
    if room == 10_000:
        file.append([row("second")])
    else:
        with pytest.raises(StoreError, match=r"No space left on device. Make room, or name"):
            file.append([row("second")])
    monkeypatch.undo()
    now = (tmp_path / "rows.jsonl").read_bytes()
    assert now.startswith(before)
    assert [json.loads(line)["row"] for line in now.splitlines()] == (
        ["first", "second"] if room == 10_000 else ["first"]
    )


def test_a_full_disk_leaves_no_temporary_file(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("old")

    def full(path, text, **_):
        path.write_bytes(text.encode()[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match=r"a.json: can't be written: No space left on device"):
        write(tmp_path / "a.json", "new text")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_folder_is_probed_without_a_trace(tmp_path):
    check_writable(tmp_path / "reports" / "deep")
    assert not list(tmp_path.iterdir())
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(StoreError, match=r"reports: no file can be made there: Not a directory"):
        check_writable(tmp_path / "reports" / "deep")
    with pytest.raises(StoreError, match=r"/proc: no file can be made there: "):
        check_writable(Path("/proc/fxeval/reports"))

"""Rows survive a kill, files are whole or absent, and NaN never reaches JSON."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import StoreError
from fxeval.store import RowFile, dump, plain, write

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=10),
    st.floats(allow_nan=True, allow_infinity=True),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(max_size=5), inner))
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES))
def test_a_record_comes_back_equal_but_for_nan(record):
    text = dump(record)
    assert json.loads(text, parse_constant=pytest.fail) == plain(record)


def test_nan_and_infinity_become_null():
    assert plain([math.nan, math.inf, -math.inf, 1.5]) == [None, None, None, 1.5]


def test_rows_are_appended_one_object_a_line(tmp_path):
    file = RowFile(tmp_path / "deep" / "rows.jsonl")
    file.append("a", [{"row": "1", "value": math.nan}])
    file.append("b", [{"row": "2"}, {"row": "3"}])
    lines = (tmp_path / "deep" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == ["1", "2", "3"]
    assert json.loads(lines[0]) == {"cell": "a", "row": "1", "value": None}


def test_a_killed_process_loses_no_finished_row(tmp_path):
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fxeval.store import RowFile
        file, n = RowFile(Path(sys.argv[1])), 0
        while True:
            file.append("cell", [{"row": n}])
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
    rows = [json.loads(line)["row"] for line in path.read_text().splitlines()]
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
        lambda: RowFile(tmp_path / "file" / "rows.jsonl").append("c", [{}]),
    ):
        with pytest.raises(StoreError, match="file"):
            attempt()

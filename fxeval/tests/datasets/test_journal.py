"""Journals with odd content but valid checksums."""

import json
import zlib
from pathlib import Path

import pytest

from fxeval.datasets.preparing.journal import Entry, Journal

POINTS = ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.0))


def entries(path: Path, landmarks: object) -> dict[str, Entry]:
    """The entries that a journal reads if one has these landmarks."""
    value = {"source": "1.jpg", "source_sha256": "a" * 64, "landmarks": landmarks, "file": "1.png",
             "sha256": "b" * 64, "reason": None}  # fmt: skip
    line = json.dumps({**value, "check": zlib.crc32(json.dumps(value).encode())})
    path.write_text(json.dumps({"fxeval_prepare": 1, "parameters": {}}) + f"\n{line}\n")
    with Journal(path, {}) as journal:
        return journal.entries


def test_a_whole_entry_is_kept(tmp_path: Path):
    assert entries(tmp_path / "journal", POINTS)["1.jpg"].landmarks == POINTS


@pytest.mark.parametrize(
    "landmarks",
    [[], False, 0, POINTS[:4], [(float("nan"), 0.0)] * 5, [(10**400, 0)] * 5, [[1]] * 5, "x" * 5],
    ids=["none", "false", "zero", "four", "nan", "huge", "short", "text"],
)
def test_an_entry_without_five_points_is_as_if_it_had_not_been_written(tmp_path: Path, landmarks):
    assert entries(tmp_path / "journal", landmarks) == {}

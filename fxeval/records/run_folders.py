"""Finds the runs in folders."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fxeval.errors import StoreError

_HEAD = 400
"""Bytes at the start of a file in which a record says that it is one."""

_SIDES = re.compile(r"ab-\d{8}T\d{6}Z-[0-9a-f]{6}")
"""Folder of the two sides of ``fxeval ab``: they are versions under test, and no history."""


def runs_below(folders: Sequence[Path]) -> list[Path]:
    """Return all folders of runs in and below folders, each once, sorted.

    A folder of a run holds rows or a record. Hidden folders, links, and the two sides
    of ``fxeval ab`` below a folder are passed by; such a comparison is taken if it is named itself.

    Raises:
        StoreError: If a folder is not there.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise StoreError(f"{folder}: expected a folder that holds runs, got no folder.")
        for place, inner, files in os.walk(folder):
            inner[:] = [name for name in inner if not _is_passed_by(name)]
            if any(_is_of_run(Path(place, name)) for name in files):
                found.add(Path(place).absolute())
    return sorted(found)


def _is_passed_by(name: str) -> bool:
    return name.startswith(".") or _SIDES.fullmatch(name) is not None


def _is_of_run(file: Path) -> bool:
    if file.name.startswith("rows") and file.suffix == ".jsonl":
        return True
    return file.suffix == ".json" and not file.name.startswith(".") and _is_record(file)


def _is_record(file: Path) -> bool:
    """Return whether a file begins like a record, whole or not; one that can't be read may be."""
    try:
        with file.open("rb") as opened:
            return b'"record"' in opened.read(_HEAD)
    except OSError:
        return True

"""Keeps what was measured: rows as they come, the record when the run closes.

Rows are appended with one write each, so that a killed run keeps every finished one. The record and
the scorecard are written beside their place and moved there in one step, so that neither is ever
half a file.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fxeval.errors import StoreError

RECORD_VERSION = 1


def plain(value: Any) -> Any:  # noqa: ANN401  (JSON is what it is)
    """Return JSON-ready data: NaN and infinity become None, mappings and tuples plain.

    >>> plain({"a": (1.0, float("nan"))})
    {'a': [1.0, None]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


class RowFile:
    """Append-only rows of one process, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, cell: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write finished rows of a cell.

        Raises:
            StoreError: If the file can't be written.
        """
        lines = "".join(
            json.dumps({"cell": cell, **plain(row)}, allow_nan=False) + "\n" for row in rows
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(lines.encode())
        except OSError as error:
            raise StoreError(f"{self._path}: rows can't be written: {error}") from error


def write(path: Path, text: str) -> None:
    """Write a file in one step: it is there as a whole or not at all.

    Raises:
        StoreError: If it can't be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: can't be written: {error}") from error


def dump(record: Mapping[str, Any]) -> str:
    """Return a record as JSON text."""
    return json.dumps(plain(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

"""Writes the files of a run: rows as they come, the record when the run ends.

Rows are appended with one write per group, so that a killed run keeps every finished one. The
record and the scorecard are written to a temporary file and moved into place in one step, so that
neither is ever half written.
"""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import PydanticSerializationError

from fxeval.errors import StoreError
from fxeval.records.schema import Record, Row


def plain(value: Any) -> Any:  # noqa: ANN401  (JSON is what it is)
    r"""Return JSON-ready data: NaN and infinity become None, mappings and tuples plain.

    Half of a surrogate pair, which a file name may hold, cannot be encoded and becomes a ``?``.

    >>> plain({"a": (1.0, float("nan"), "\udcff")})
    {'a': [1.0, None, '?']}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {_text(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _text(value)


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


class RowFile:
    """Append-only rows of one process, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, rows: Sequence[Row]) -> None:
        """Write finished rows.

        Raises:
            StoreError: If the file can't be written.
        """
        left = memoryview("".join(_line(row) + "\n" for row in rows).encode())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                start = file.tell()
                try:
                    while left:  # a disk that fills up takes a part, and refuses the rest
                        left = left[file.write(left) :]
                except OSError:
                    file.truncate(start)  # half a line would spoil the rows before it
                    raise
        except OSError as error:
            raise StoreError(
                f"{self._path}: rows can't be written: {error.strerror}. Make room, or name "
                "another folder with --fx-reports."
            ) from error


def _line(row: Row) -> str:
    try:
        return row.model_dump_json()
    except PydanticSerializationError:  # text that can't be encoded
        return json.dumps(plain(row.model_dump(mode="json")), ensure_ascii=False)


def write(path: Path, text: str) -> None:
    """Write a file in one step: it is there completely or not at all.

    Raises:
        StoreError: If it can't be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StoreError(f"{path}: can't be written: {error.strerror}.") from error


def append(path: Path, text: str) -> None:
    """Add text to the end of a file that others write, too.

    Raises:
        StoreError: If it can't be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{path}: can't be written: {error.strerror}.") from error


def check_writable(folder: Path) -> None:
    """Check that files can be made in a folder, or in the nearest folder above it that exists.

    Nothing is left behind, so that a run without results leaves no folder either.

    Raises:
        StoreError: If none can be made; it says why.
    """
    nearest = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise StoreError(f"{nearest}: no file can be made there: {error.strerror}.") from error


def dumped(record: Record) -> dict[str, Any]:
    """Return a record as plain JSON data."""
    data: dict[str, Any] = plain(record.model_dump(mode="json", by_alias=True))
    return data


def dump(record: Record) -> str:
    """Return a record as JSON text."""
    return _indented(dumped(record))


def json_text(data: Mapping[str, Any]) -> str:
    """Return data as indented JSON text."""
    return _indented(plain(data))


def _indented(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

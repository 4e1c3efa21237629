"""Reads records and rows of every version, and says in plain words what is wrong with them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fxeval.errors import StoreError
from fxeval.records.form import Form
from fxeval.records.schema import VERSION, Record, Row
from fxeval.records.version_1 import upgraded
from fxeval.strict.text import printable

SHOWN_FAULTS = 5

Read = TypeVar("Read", bound=Form)


def read_record(data: object) -> Record:
    """Return a record from plain JSON data.

    Raises:
        StoreError: If it is not a record, is damaged, or has an unknown version.
    """
    if isinstance(data, Record):
        return data
    if not isinstance(data, Mapping):
        raise StoreError(f"record: expected a mapping, got {type(data).__name__}.")
    version = data.get("record")
    if version not in (1, VERSION) or isinstance(version, bool):
        raise StoreError(
            f"record: expected format version 1 or {VERSION}, got {version!r:.80}. Read it with "
            "the fxeval that wrote it."
        )
    try:
        today = upgraded(data) if version == 1 else data
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(
            f"record: not a valid record of version 1 ({type(error).__name__}: "
            f"{ascii(str(error))[1:200]}). Was the run cut short?"
        ) from error
    try:
        return _strictly(Record, json.dumps(today))
    except ValidationError as error:
        raise StoreError(f"record: {faults_of(error)}. Was the run cut short?") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"record: not plain JSON: {ascii(str(error))[1:200]}.") from error


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a ``rows*.jsonl`` file; a last line that was cut short is left out.

    Raises:
        StoreError: If the file can't be read or another line is not a row.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StoreError(f"{path.name}: rows can't be read: {error.strerror}.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(_strictly(Row, line))
        except ValidationError as error:
            if number == len(lines):  # without a newline at its end: the run was killed here
                break
            raise StoreError(
                f"{path.name}:{number}: not a valid row: {faults_of(error)}."
            ) from error
    return rows


def load_record(path: Path) -> Record:
    """Return the record in a file.

    Raises:
        StoreError: If the file can't be read or does not hold a record.
    """
    try:
        return read_record(json.loads(path.read_bytes()))
    except OSError as error:
        raise StoreError(f"{path.name}: the record can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path.name}: not valid JSON: {ascii(str(error))[1:200]}.") from error
    except StoreError as error:
        raise StoreError(f"{path.name}: {error}") from error


def _strictly(form: type[Read], text: str | bytes) -> Read:
    """Read JSON text as a form; values of other types, such as "40" for 40, are refused."""
    return form.model_validate_json(text, strict=True)


def faults_of(error: ValidationError) -> str:
    """Name the first few places where data does not match its form, and what is wrong there."""
    found = error.errors(include_url=False)
    told = [
        f"{_place(fault['loc'])}{fault['msg'].removeprefix('Value error, ')[:120]}"
        f"{_got(fault['input'])}"
        for fault in found[:SHOWN_FAULTS]
    ]
    more = f"; and {len(found) - SHOWN_FAULTS} more" if len(found) > SHOWN_FAULTS else ""
    return printable("; ".join(told)) + more


def _place(parts: tuple[int | str, ...]) -> str:
    return ".".join(map(str, parts))[:120] + ": " if parts else ""


def _got(value: object) -> str:
    return f", got {value!r:.40}" if isinstance(value, int | float | str | None) else ""

"""Tells by its first lines which reader a list is for, so that the others can say so."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fxeval.datasets.faults import bare
from fxeval.datasets.text_files import MAX_LINE, read_text
from fxeval.errors import DataContractError

_T = TypeVar("_T")

_LOOKED_AT = 50  # lines
_COLUMNS = {
    frozenset({"img1", "img2", "label"}): "csv",
    frozenset({"anchor", "mate", "nonmate"}): "csv_triplets",
    frozenset({"G", "P", "T"}): "gallery_probe",
}
_FILE = re.compile(r".+\.(jpe?g|png|bmp|webp|tiff?)", re.IGNORECASE)
_NUMBERED = re.compile(r"[^/]+/[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def read_as(reader: str | tuple[str, ...], path: Path, parse: Callable[[str, str], _T]) -> _T:
    """Read and parse a list; if it is refused, name the reader that it seems to be for.

    Args:
        reader: Id of the reader that parses it so, or its ids.
        path: Path of the list.
        parse: Takes the text and the path.

    Raises:
        DataContractError: If it cannot be read or is malformed.
    """
    try:
        return parse(read_text(path), str(path))
    except DataContractError as error:
        refuse_for_another(error, path, reader)
        raise


def refuse_for_another(error: DataContractError, path: Path, reader: str | tuple[str, ...]) -> None:
    """Raise the error about a list again, with advice, if the list seems to be for another reader.

    Args:
        error: What a reader said about the list.
        path: Path of the list.
        reader: Id of that reader, or its ids.
    """
    other = format_of(_beginning(path))
    if other is None or other in ((reader,) if isinstance(reader, str) else reader):
        return
    advice = f"{bare(path)} looks like a list for another reader. Write 'use: {other}'."
    raise DataContractError(f"{error}\n{advice}", public=f"{error.public}; {advice}") from error


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LOOKED_AT * MAX_LINE) if path.is_file() else b""
    except OSError:
        return b""


def format_of(data: bytes) -> str | None:
    r"""Return the id of the reader that a list seems to be for, or None.

    >>> format_of(b"Ann/1.jpg Ann/2.jpg 1\n"), format_of(b"Ann/1 Ann/2 1\n"), format_of(b"?")
    ('arcface_pairs', 'listed', None)
    """
    if data[:1] == b"\x80" or data.startswith((b"(lp", b"((l")):
        return "insightface_bin"
    text = data.decode("utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.split("\n")[:_LOOKED_AT]]
    lines = [line for line in lines if line and not line.startswith("#")][: _LOOKED_AT - 1]
    if not lines:
        return None
    columns = frozenset(name.strip() for name in lines[0].split(","))
    for needed, reader in _COLUMNS.items():
        if needed <= columns:
            return reader
    rows = [[field for field in re.split(r"[\s,;]+", line) if field] for line in lines]
    if len(rows) > 1 and len(rows[0]) <= 2 and all(map(_NUMBER.fullmatch, rows[0])):
        return "lfw" if all(map(_is_lfw, rows[1:])) else None
    for reader, fits in _LINES.items():
        if all(map(fits, rows)):
            return reader
    return None


def _is_lfw(row: list[str]) -> bool:
    numbers = row[1:] if len(row) == 3 else row[1::2]
    return len(row) in (3, 4) and all(map(_NUMBER.fullmatch, numbers))


def _is_pair(row: list[str], image: re.Pattern[str], labels: tuple[str, ...]) -> bool:
    is_long = len(row) >= 3
    return is_long and all(map(image.fullmatch, row[:2])) and row[2].lower() in labels


_LINES: dict[str, Callable[[list[str]], bool]] = {
    "calfw": lambda row: len(row) == 2 and _is_file(row[0]) and bool(_NUMBER.fullmatch(row[1])),
    "arcface_pairs": lambda row: (
        len(row) == 3 and _is_pair(row, _FILE, ("0", "1", "true", "false"))
    ),
    "patch_lfw": lambda row: len(row) == 3 and _is_pair(row, _FILE, ("1", "-1")),
    "listed": lambda row: _is_pair(row, _NUMBERED, ("0", "1")),
    "listed_triplets": lambda row: len(row) >= 3 and all(map(_NUMBERED.fullmatch, row[:3])),
}


def _is_file(text: str) -> bool:
    return _FILE.fullmatch(text) is not None

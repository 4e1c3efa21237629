"""A run as it was stored: the records in its folder, and their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fxeval.errors import StoreError
from fxeval.records.reading import load_record, read_rows
from fxeval.records.schema import CellResult, Record, Row

EXPECTED = "expected the folder of one run (<suite>.json and rows*.jsonl) or a record in it"


@dataclass(frozen=True)
class StoredRun:
    """The records of a run, and the rows that they rest on.

    Attributes:
        folder: Where it lies.
        records: By the name of their file without its suffix; one of each suite.
        rows: All rows, in the order of the files.
    """

    folder: Path
    records: Mapping[str, Record]
    rows: Sequence[Row]

    def by_cell(self, suite: str) -> dict[tuple[str, int], list[Row]]:
        """Return the rows of a suite by the id of their cell and its attempt."""
        found: dict[tuple[str, int], list[Row]] = {}
        for row in self.rows:
            if not row.is_of(suite):
                continue
            found.setdefault((row.cell, row.attempt), []).append(row)
        return found

    def rows_of(self, suite: str, cell: CellResult) -> list[Row]:
        """Return the rows that a cell of a suite was judged by."""
        return self.by_cell(suite).get((cell.id, cell.attempt), [])


def read_run(path: Path, *, needs_rows: bool = True) -> StoredRun:
    """Return the run in a folder, or that of one record alone.

    Args:
        path: The folder of a run, or a record in it.
        needs_rows: Whether records without rows beside them are refused.

    Raises:
        StoreError: If there is no record, no row though they are needed, or a file is damaged.
    """
    if not path.exists():
        raise StoreError(f"{EXPECTED}, got a path where nothing is.")
    folder = path.parent if path.is_file() else path
    files = [path] if path.is_file() else record_files(folder)
    if not files:
        runs = sorted(one.parent.name for one in folder.glob("*/rows*.jsonl"))
        advice = f" It holds runs; name one of them, such as {folder / runs[-1]}." if runs else ""
        raise StoreError(f"{EXPECTED}, got a folder without a record.{advice}")
    records = {file.stem: load_record(file) for file in files}
    row_files = sorted(folder.glob("rows*.jsonl"))
    if needs_rows and not row_files:
        raise StoreError(f"{EXPECTED}, got a record without rows*.jsonl beside it.")
    rows = [row for file in row_files for row in read_rows(file)]
    return StoredRun(folder, records, rows)


def record_files(folder: Path) -> list[Path]:
    """Return the files of the records in the folder of a run."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))

"""The index over many runs: filled from their records, and asked without reading them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from sqlalchemy import Connection, delete, insert, select, update

from fxeval.errors import StoreError
from fxeval.records.run_folders import runs_below
from fxeval.records.series import Series, Wanted
from fxeval.store.database import DEFAULT, Database
from fxeval.store.entries import RecordEntries, RunEntries, digest_of, plain_text, run_entries
from fxeval.store.queries import IndexedRun, indexed_runs, series_in
from fxeval.store.tables import ARTEFACT, METADATA, RUN
from fxeval.strict.text import printable, suggestion

Taken: TypeAlias = Literal["added", "unchanged", "replaced"]

ROWS_AT_ONCE = 500
"""Rows that one statement inserts."""

_TRUTH = ("record", "rows")


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found.

    Attributes:
        added: Ids of the runs that the index now holds.
        left_out: A line for each run that it does not hold, with the reason.
    """

    added: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """A run of which the index and the records differ.

    Attributes:
        run: Its id.
        text: What differs.
    """

    run: str
    text: str


class Store:
    """An index over runs. It holds nothing that their records don't, and can be made again.

    Args:
        url: Its address, ``sqlite:///FILE`` or ``postgresql+pg8000://USER@HOST/DATABASE``.

    Raises:
        StoreError: If the address is wrong or the driver is absent. All methods raise it, too, if
            the database fails.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Store(f"sqlite:///{folder}/index.sqlite").rebuild([Path(folder)])
        Rebuilt(added=(), left_out=())
    """

    def __init__(self, url: str = DEFAULT) -> None:
        self._database = Database(url)

    @property
    def shown(self) -> str:
        """The address without a password."""
        return self._database.shown

    def add(self, run_folder: Path) -> str:
        """Add a run, or replace it if its files have changed; return its id.

        Args:
            run_folder: The folder of the run, or a record in it.

        Raises:
            StoreError: If it is no run, or a record is damaged.
        """
        return self.take(run_folder)[0]

    def take(self, run_folder: Path) -> tuple[str, Taken]:
        """Add a run as :meth:`add` does; return its id and what was done.

        Raises:
            StoreError: Likewise.
        """
        found = run_entries(run_folder)
        with self._database.writing() as connection:
            return found.id, self._put(connection, found)

    def rebuild(self, folders: Sequence[Path]) -> Rebuilt:
        """Make the index again from all runs in and below folders; others leave it.

        Each run is written in a transaction of its own: a rebuild that is cut short is repeated.

        Raises:
            StoreError: If a folder is not there.
        """
        left_out: list[str] = []
        written: dict[str, RunEntries] = {}
        with self._database.writing(afresh=True):
            pass
        for path in runs_below(folders):
            try:
                found = run_entries(path)
            except StoreError as error:
                left_out.append(str(error))
                continue
            first = written.get(found.id)
            if first is None:
                with self._database.writing() as connection:
                    self._put(connection, found, anew=True)
                written[found.id] = found
            elif first.digests != found.digests:
                left_out.append(f"{path}: run {found.id}: {first.folder} holds other files of it.")
        with self._database.writing() as connection:
            known = set(connection.execute(select(RUN.c.id)).scalars())
            for id in sorted(known - written.keys()):
                connection.execute(delete(RUN).where(RUN.c.id == id))
            connection.exec_driver_sql("ANALYZE")  # plans follow from how many rows there are
        return Rebuilt(tuple(sorted(written)), tuple(left_out))

    def remove(self, run_id: str) -> None:
        """Remove a run from the index; its files stay.

        Raises:
            StoreError: If the index has no such run.
        """
        with self._database.reading():  # no index is made for this
            pass
        with self._database.writing() as connection:
            self._folder(connection, run_id)
            connection.execute(delete(RUN).where(RUN.c.id == plain_text(run_id)))

    def runs(self, wanted: Wanted | None = None) -> list[IndexedRun]:
        """Return the runs that have a cell that is wanted, in the order of their start."""
        with self._database.reading() as connection:
            return indexed_runs(connection, wanted or Wanted())

    def series(self, wanted: Wanted | None = None) -> list[Series]:
        """Return what is wanted over all runs; no record is read.

        Example: ``Store().series(Wanted(metric="deletion_auc", last=50))``.
        """
        wanted = wanted or Wanted()
        with self._database.reading() as connection:
            return series_in(connection, wanted)

    def path_of(self, run_id: str) -> Path:
        """Return the folder of a run.

        Raises:
            StoreError: If the index has no such run, or its folder is gone.
        """
        with self._database.reading() as connection:
            folder = self._folder(connection, run_id)
        if not folder.is_dir():
            raise StoreError(
                f"run {run_id}: expected its files in {folder}, got nothing there. Restore them, "
                "or add the run again from where it is: fxeval store add RUN."
            )
        return folder

    def check(self) -> list[Finding]:
        """Compare the index with the files of its runs; return what is missing or has changed."""
        statement = (
            select(RUN.c.id, RUN.c.folder, ARTEFACT.c.path, ARTEFACT.c.digest)
            .join(ARTEFACT, ARTEFACT.c.run == RUN.c.key)
            .where(ARTEFACT.c.kind.in_(_TRUTH))
            .order_by(RUN.c.started, RUN.c.id, ARTEFACT.c.path)
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        found: dict[tuple[str, str], str] = {}
        for id, folder, name, digest in rows:
            said = _difference(self._place(folder), name, digest)
            if said:
                found[id, said] = said
        return [Finding(id, said) for id, said in found]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads, for statements on ``fxeval.store.tables``."""
        with self._database.reading() as connection:
            yield connection

    def _put(self, connection: Connection, found: RunEntries, *, anew: bool = False) -> Taken:
        """Write a run in the open transaction."""
        folder = self._stored(found.folder)
        known = connection.execute(select(RUN.c.folder).where(RUN.c.id == found.id)).scalars().all()
        if known and not anew and self._digests(connection, found.id) == found.digests:
            if not self._place(known[0]).is_dir():  # moved
                moved = update(RUN).where(RUN.c.id == found.id).values(folder=folder)
                connection.execute(moved)
            return "unchanged"
        connection.execute(delete(RUN).where(RUN.c.id == found.id))
        for entries in found.records.values():
            _insert(connection, entries, folder)
        return "replaced" if known else "added"

    @staticmethod
    def _digests(connection: Connection, id: str) -> dict[str, str]:
        statement = (
            select(ARTEFACT.c.path, ARTEFACT.c.digest)
            .join(RUN, ARTEFACT.c.run == RUN.c.key)
            .where(RUN.c.id == id)
        )
        return {row.path: row.digest for row in connection.execute(statement)}

    def _folder(self, connection: Connection, run_id: str) -> Path:
        statement = select(RUN.c.folder).where(RUN.c.id == plain_text(run_id))
        found = connection.execute(statement).scalars().first()
        if found is None:
            ids = connection.execute(select(RUN.c.id).distinct()).scalars().all()
            near = suggestion(run_id, ids) or "fxeval store list shows all of them."
            raise StoreError(
                f"{self.shown}: expected the id of a run, got '{printable(run_id)[:100]}': {near}"
            )
        return self._place(found)

    def _stored(self, folder: Path) -> str:
        """Return a folder as it is stored: from the index if it lies beside or below it."""
        if self._database.file is not None:
            beside = self._database.file.absolute().parent
            if folder.is_relative_to(beside):
                return os.path.relpath(folder, beside)
        return str(folder)

    def _place(self, folder: str) -> Path:
        """Return where a stored folder is."""
        file = self._database.file
        return Path(folder) if file is None else file.absolute().parent / folder


def _insert(connection: Connection, entries: RecordEntries, folder: str) -> None:
    """Insert one record."""
    done = connection.execute(insert(RUN).values(**entries.run, folder=folder))
    key = done.inserted_primary_key
    assert key is not None  # of a table with an integer key
    for name, rows in entries.tables.items():
        table = METADATA.tables[name]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = [{"run": key[0], **row} for row in rows[start : start + ROWS_AT_ONCE]]
            connection.execute(insert(table), some)


def _difference(folder: Path, name: str, digest: str) -> str:
    """Return how a file differs from what the index knows of it; empty if it does not."""
    if not folder.is_dir():
        return f"{folder} is missing"
    file = folder / name
    try:
        return "" if digest_of(file) == digest else f"{file} has changed"
    except FileNotFoundError:
        return f"{file} is missing"
    except OSError as error:
        return f"{file} can't be read: {error.strerror}"

"""The connection to a database: its address, its transactions, and errors in plain words."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from fxeval.errors import StoreError
from fxeval.store.tables import METADATA, STORE, VERSION

DEFAULT = "sqlite:///reports/store.sqlite"
"""The index that commands use if none is named."""

PATIENCE = 60
"""Seconds to wait for another process that writes."""

_LOCK = 4_081_985
"""Number of the lock that writers of one PostgreSQL database take in turn."""

_SQLITE, _POSTGRESQL = "sqlite", "postgresql+pg8000"
_ENCRYPTED = ("sslmode", "verify-full")
"""The option of an address that asks for TLS, with a server whose certificate is checked."""

_EXPECTED = (
    f"expected the address of an index, sqlite:///FILE or {_POSTGRESQL}://USER@HOST/DATABASE"
)


class Database:
    """An index in SQLite or PostgreSQL; each transaction opens a connection of its own.

    Args:
        address: ``sqlite:///FILE`` or ``postgresql+pg8000://USER:PASSWORD@HOST:PORT/DATABASE``.

    Attributes:
        shown: The address without password and options, for messages.
        file: The file of an index in SQLite; None for PostgreSQL.

    Raises:
        StoreError: If it is no such address, or the driver is not installed.

    Example:
        >>> Database("postgresql+pg8000://ann:secret@db.example/fx").shown
        'postgresql+pg8000://ann:***@db.example/fx'
    """

    def __init__(self, address: str) -> None:
        url = _url(address)
        self.shown = _shown(url)
        self.file = Path(str(url.database)) if url.drivername == _SQLITE else None
        self._password = url.password
        self._engine = _engine(url, self.shown)
        self._is_ready = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads.

        Raises:
            StoreError: If there is no index, it has another version, or the database fails.
        """
        if self.file is not None and not self.file.exists():
            raise StoreError(self._absent())
        with self._transaction(writes=False) as connection:
            if not self._is_ready:
                found = self._version(connection)
                if found is None:
                    raise StoreError(self._absent())
                self._check(found)
                self._is_ready = True
            yield connection

    @contextmanager
    def writing(self, *, afresh: bool = False) -> Iterator[Connection]:
        """Open a transaction that writes: all of it happens or nothing; writers take turns.

        Tables are made if there are none.

        Args:
            afresh: Whether an index of another version is emptied.

        Raises:
            StoreError: If the index has another version, or the database fails.
        """
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{self.shown}: can't be made: {error.strerror}.") from error
        with self._transaction(writes=True) as connection:
            if not self._is_ready or afresh:
                self._make(connection, afresh=afresh)
            yield connection
        self._is_ready = True

    def _make(self, connection: Connection, *, afresh: bool) -> None:
        found = self._version(connection)
        if found is not None and found != VERSION and afresh:
            METADATA.drop_all(connection)
            found = None
        if found is None:
            strange = sorted(set(inspect(connection).get_table_names()) & METADATA.tables.keys())
            if strange:
                raise StoreError(
                    f"{self.shown}: expected an index of fxeval or an empty database, got a table "
                    f"'{strange[0]}' of something else. Name a database of its own."
                )
            METADATA.create_all(connection)
            connection.execute(insert(STORE).values(version=VERSION))
        else:
            self._check(found)

    @staticmethod
    def _version(connection: Connection) -> int | None:
        if not inspect(connection).has_table(STORE.name):
            return None
        found: int | None = connection.execute(select(STORE.c.version)).scalar()
        return 0 if found is None else found

    def _check(self, found: int) -> None:
        if found != VERSION:
            raise StoreError(
                f"{self.shown}: expected an index of version {VERSION}, got version {found}. Make "
                "it again from the records: fxeval store rebuild FOLDER."
            )

    def _absent(self) -> str:
        return f"{self.shown}: no index is there. Make one from records: fxeval store add RUN."

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        try:
            with (
                self._engine.connect().execution_options(writes=writes) as connection,
                connection.begin(),
            ):
                if writes and self.file is None:
                    connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}s'"))
                    connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _LOCK})
                yield connection
        except (SQLAlchemyError, OSError, OverflowError) as error:
            raise StoreError(f"{self.shown}: {self._said(error)}") from error

    def _said(self, error: BaseException) -> str:
        """Return what the database says in one line, without a password."""
        cause: Any = getattr(error, "orig", None) or error
        told = cause.args[0] if cause.args else cause
        if isinstance(told, dict):  # PostgreSQL's fields: M is the message
            told = told.get("M", told)
        line = " ".join(str(told).split())
        if self._password:
            line = line.replace(str(self._password), "***")
        if "locked" in line or "lock timeout" in line:
            line += f" for {PATIENCE} s by another process that writes; try again later"
        elif "not a database" in line:
            line += "; remove it, and make the index again: fxeval store rebuild FOLDER"
        return f"the database says: {line[:400]}."


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError, TypeError) as error:
        raise StoreError(f"{_EXPECTED}, got something else.") from error
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername=_POSTGRESQL)
    if url.drivername not in (_SQLITE, _POSTGRESQL):
        raise StoreError(f"{_EXPECTED}, got '{url.drivername:.40}://'.")
    if url.drivername == _SQLITE and url.database in (None, "", ":memory:"):
        raise StoreError(f"{_EXPECTED}, got one without a file.")
    if url.drivername == _SQLITE and (url.query or url.host):
        raise StoreError(f"{_EXPECTED}, got one with a host or options. A path begins after ///.")
    if url.drivername == _POSTGRESQL and not url.database:
        raise StoreError(f"{_EXPECTED}, got one without a database.")
    strange = [name for name, value in url.query.items() if (name, value) != _ENCRYPTED]
    if strange:
        option = "=".join(_ENCRYPTED)
        raise StoreError(
            f"{_EXPECTED}, expected no option but {option}, got one named '{strange[0]:.40}'."
        )
    return url


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _engine(url: URL, shown: str) -> Engine:
    is_file = url.drivername == _SQLITE
    arguments: dict[str, Any] = {"timeout": PATIENCE if is_file else 2 * PATIENCE}
    if url.query:
        arguments["ssl_context"] = ssl.create_default_context()
    try:
        engine = create_engine(url.set(query={}), poolclass=NullPool, connect_args=arguments)
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(f'{shown}: needs pg8000: pip install "fxeval[store]".') from error
    if is_file:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401  (sqlite3's own)
    connection.isolation_level = None  # transactions begin as _begin_sqlite says
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """Take the lock of a writer at the start: one who reads first may never get it."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

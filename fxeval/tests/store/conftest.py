"""A real PostgreSQL server for the tests of the store, and an address in each database."""

import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

PASSWORD = f"pw-{secrets.token_hex(8)}"
START_SECONDS = 60.0
NUMBERS = itertools.count(1)


def binaries() -> Path | None:
    """The folder of Debian's newest PostgreSQL server, or None."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    return found[-1].parent if found else None


def needed(found: Path | None) -> Path:
    """The folder of the binaries; absent ones are a skip here and a failure in CI."""
    if found is None:
        reason = "PostgreSQL's server is absent: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def owner() -> pwd.struct_passwd:
    """The user that runs the server, which refuses to run as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.fail("expected a user other than root (postgres or nobody) for the server, got none")


def as_owner() -> dict[str, object]:
    """Arguments of a process that make it the owner's."""
    if os.geteuid() != 0:
        return {}
    user = owner()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Server:
    """A running server."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.port = free_port()
        self._log = folder / "log"
        secret = folder / "password"
        secret.write_text(PASSWORD)
        for path in (folder, secret):
            if os.geteuid() == 0:
                os.chown(path, owner().pw_uid, owner().pw_gid)
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", "fx", "-A", "scram-sha-256",
             "--pwfile", secret, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **as_owner(),
        )  # fmt: skip
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [binaries / "postgres", "-D", folder / "data", "-p", str(self.port),
                 "-h", "127.0.0.1", "-k", "", "-F"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder, **as_owner(),
            )  # fmt: skip
        self._wait()

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql+pg8000://fx:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        engine = create_engine(self.url(database), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))

    def database(self) -> str:
        """The address of a new database."""
        name = f"db{next(NUMBERS)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.execute("SELECT 1")
            except SQLAlchemyError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(self._log.read_text("utf-8", "replace")) from None
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # ends connections and stops
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server on a loopback port."""
    found = needed(binaries())
    folder = Path(tempfile.mkdtemp(prefix="fxeval-postgresql-"))
    started = None
    try:
        started = Server(folder, found)
        yield started
    finally:
        if started is not None:
            started.stop()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def new_url(kind, tmp_path, request) -> Callable[[], str]:
    """Makes addresses of empty databases, in each kind of database."""
    if kind == "postgresql":
        return request.getfixturevalue("server").database
    return lambda: f"sqlite:///{tmp_path}/index-{next(NUMBERS)}.sqlite"


@pytest.fixture
def url(new_url) -> str:
    return new_url()

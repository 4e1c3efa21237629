"""Baselines: named pointers to earlier runs, one for each hardware class, kept in git.

A baseline is a small JSON file. It names a run for each hardware class, where the files of that run
lie, and their digests, so that a run that was exchanged or damaged is never compared with.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from fxeval.errors import StoreError
from fxeval.records.form import Count, Form
from fxeval.records.reading import faults_of
from fxeval.records.writing import json_text, write

FOLDER = "baselines"
"""Usual name of the folder that holds the baselines."""

RUNS = "runs"
"""Folder of the copied runs, inside that of the baselines."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a baseline, the folder of a run and a file of it may be called."""

MOST_BYTES = 1_000_000
"""Largest file of a baseline that is read."""


def _plain_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(
            "expected a name of letters, digits, '.', '_' and '-' that starts with a letter or a "
            "digit"
        )
    return text


def _day(text: str) -> str:
    date.fromisoformat(text)  # its ValueError says what is wrong
    return text


FileName = Annotated[str, AfterValidator(_plain_name)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_day)]
"""A day as YYYY-MM-DD."""


class KeptFile(Form):
    """A file of a run, and what tells that it is still the same.

    Attributes:
        sha256: Digest of its bytes, in hexadecimal digits.
    """

    file: FileName
    n_bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeptSuite(Form):
    """A suite of the run.

    Attributes:
        suite: Its name.
        digest: Of what the suite asks for.
        record: Its record.
    """

    suite: str
    digest: str
    record: KeptFile


class Pointer(Form):
    """The run of one hardware class.

    Attributes:
        run: Its id.
        folder: Where its files lie, relative to the file of the baseline.
        commit: Of the code; null outside of git.
        set_on: Day on which the baseline was moved here, in UTC.
        reason: Why, in the words of who moved it; may be empty.
        suites: The suites of the run.
        rows: The files of its rows.
    """

    run: FileName
    folder: str
    fxeval: str
    commit: str | None
    started: str
    set_on: Day
    reason: str
    suites: Annotated[list[KeptSuite], Field(min_length=1)]
    rows: Annotated[list[KeptFile], Field(min_length=1)]

    def files(self) -> list[KeptFile]:
        """Return all files of the run that the baseline rests on."""
        return [*(one.record for one in self.suites), *self.rows]


class Baseline(Form):
    """A named baseline, as its file holds it.

    Attributes:
        name: Its name.
        pointers: The runs, by hardware class (``fxeval.records.hardware``).

    Example:
        >>> Baseline(name="main", pointers={}).pointers
        {}
    """

    baseline: Literal[1] = 1
    name: FileName
    pointers: dict[str, Pointer]


def path_of(folder: Path, name: str) -> Path:
    """Return the file of a baseline.

    Args:
        folder: That of the baselines.
        name: Of the baseline.

    Raises:
        StoreError: If this cannot be a name.
    """
    if not NAME.fullmatch(name):
        raise StoreError(
            f"baseline {name!r:.80}: expected a name of letters, digits, '.', '_' and '-' that "
            "starts with a letter or a digit."
        )
    return folder / f"{name}.json"


def names_in(folder: Path) -> list[str]:
    """Return the names of the baselines in a folder; none if there is no such folder."""
    return sorted(path.stem for path in folder.glob("*.json") if NAME.fullmatch(path.stem))


def read_baseline(folder: Path, name: str) -> Baseline:
    """Return a baseline.

    Raises:
        StoreError: If there is none of that name, or its file is damaged.
    """
    path = path_of(folder, name)
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        known = ", ".join(names_in(folder)) or "none"
        raise StoreError(
            f"{path}: expected a baseline, got no file. Known in {folder}: {known}. Set it with: "
            f"fxeval baseline set {name} RUN"
        ) from None
    except OSError as error:
        raise StoreError(f"{path}: the baseline can't be read: {error.strerror}.") from error
    if len(raw) > MOST_BYTES:
        raise StoreError(f"{path}: expected a baseline of at most {MOST_BYTES} bytes, got more.")
    try:
        found = Baseline.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise StoreError(
            f"{path}: not a valid baseline: {faults_of(error)}. Restore it from git, or set it "
            "again."
        ) from error
    if found.name != name:
        raise StoreError(
            f"{path}: expected the baseline {name!r}, got that of {found.name!r}. A baseline is "
            "renamed by setting it under the new name."
        )
    return found


def write_baseline(folder: Path, baseline: Baseline) -> Path:
    """Write the file of a baseline in one step, and return its path.

    Whoever reads a baseline to change it holds :func:`locked` from reading to writing.

    Raises:
        StoreError: If it can't be written.
    """
    path = path_of(folder, baseline.name)
    write(path, json_text(baseline.model_dump(mode="json")))
    return path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change what is in the folder of the baselines; others wait.

    Raises:
        StoreError: If there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{folder}: no folder of baselines: {error.strerror}.") from error
    try:
        with contextlib.suppress(OSError):  # some network drives have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which also frees the lock


def pointer_of(baseline: Baseline, hardware_class: str) -> Pointer:
    """Return the pointer of a hardware class.

    Raises:
        StoreError: If there is none; it names the classes that there are.
    """
    found = baseline.pointers.get(hardware_class)
    if found is None:
        known = "; ".join(sorted(baseline.pointers)) or "none"
        raise StoreError(
            f"baseline {baseline.name} has no run of the hardware class '{hardware_class}', only "
            f"of: {known}"
        )
    return found


def checked_folder(folder: Path, pointer: Pointer) -> Path:
    """Return where the run of a pointer lies, if all its files are still the same.

    Args:
        folder: That of the baselines.
        pointer: The pointer.

    Raises:
        StoreError: If a file is absent, is another one, or lies outside of the folder that holds
            the baselines.
    """
    where = folder / pointer.folder
    around = folder.absolute().parent.resolve()
    _check_inside(where, around, pointer.folder)
    for kept in pointer.files():
        path = where / kept.file
        _check_inside(path, around, f"{pointer.folder}/{kept.file}")
        if not path.is_file():
            raise StoreError(f"{pointer.folder}/{kept.file}: expected a file, got nothing there")
        if (path.stat().st_size, digest_of(path, kept.n_bytes)) != (kept.n_bytes, kept.sha256):
            raise StoreError(
                f"{pointer.folder}/{kept.file}: damaged: its digest is not the one that the "
                "baseline names"
            )
    known = {kept.file for kept in pointer.files()}
    more = [path.name for path in sorted(where.glob("*")) if _counts(path) - known]
    if more:
        raise StoreError(f"{pointer.folder}: it holds {more[0]}, which the baseline does not name")
    return where


def _counts(path: Path) -> set[str]:
    """Return the name of a file that would be read as a record or as rows; else nothing."""
    is_rows = path.name.startswith("rows") and path.suffix == ".jsonl"
    is_record = path.suffix == ".json" and not path.name.startswith(".")
    return {path.name} if is_rows or is_record else set()


def _check_inside(path: Path, around: Path, shown: str) -> None:
    try:
        is_inside = path.resolve().is_relative_to(around)
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL in the name
        is_inside = False
    if not is_inside:
        raise StoreError(
            f"{shown:.200}: expected a place in the folder that holds the baselines, got one "
            "outside of it"
        )


def digest_of(path: Path, most: int) -> str:
    """Return the SHA-256 of a file's first bytes.

    Raises:
        StoreError: If it can't be read.
    """
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while most > 0 and (part := file.read(min(most, 1 << 20))):
                found.update(part)
                most -= len(part)
    except OSError as error:
        raise StoreError(f"{path.name}: can't be read: {error.strerror}.") from error
    return found.hexdigest()


def kept(path: Path) -> KeptFile:
    """Return what a baseline keeps of a file.

    Raises:
        StoreError: If it can't be read, or its name is unfit.
    """
    if not NAME.fullmatch(path.name):
        raise StoreError(
            f"{path.name}: expected a file name of letters, digits, '.', '_' and '-'. Rename it."
        )
    n_bytes = path.stat().st_size
    return KeptFile(file=path.name, n_bytes=n_bytes, sha256=digest_of(path, n_bytes))


def days_between(earlier: str, later: str) -> int:
    """Return the whole days from one day, or moment, to another one, written as ISO 8601.

    >>> days_between("2026-11-20", "2026-11-30T10:00:00Z")
    10
    """
    return (date.fromisoformat(later[:10]) - date.fromisoformat(earlier[:10])).days


def named_in(folder: Path, baselines: Mapping[str, Baseline]) -> set[Path]:
    """Return the folders of all runs that baselines name."""
    return {
        (folder / pointer.folder).resolve()
        for baseline in baselines.values()
        for pointer in baseline.pointers.values()
    }

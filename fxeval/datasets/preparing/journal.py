"""The journal of a long preparation, which lets an interrupted run continue."""

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fxeval.datasets.faces.alignment import Points, points_of
from fxeval.datasets.faults import of_folder
from fxeval.errors import StoreError
from fxeval.strict.text import brief, printable

BATCH = 64
"""Greatest number of entries lost in a power failure."""


@dataclass(frozen=True)
class Entry:
    """The result for one image.

    Attributes:
        source: Path relative to the source folder.
        source_sha256: SHA-256 of that file, as hex.
        landmarks: Five points in pixels of that image; None after a failure.
        file: File written, relative to the target folder; None if nothing was written.
        sha256: SHA-256 of the file written.
        reason: Reason why the image can't be used; None if it can.
    """

    source: str
    source_sha256: str
    landmarks: Points | None = None
    file: str | None = None
    sha256: str | None = None
    reason: str | None = None


class Journal:
    """Appends entries to a file, one JSON object per line; one process at a time may use it.

    A line that is truncated or damaged is ignored. Use it as a context manager.

    Attributes:
        entries: Last entry of each source.
        outputs: SHA-256 of each file ever written.
    """

    def __init__(self, path: Path, parameters: Mapping[str, Any]) -> None:
        """Open or create a journal.

        Args:
            path: Path of the file.
            parameters: Everything that the entries depend on; JSON-serialisable.

        Raises:
            DataContractError: If another process uses it, or it was created with other parameters.
            StoreError: If it can't be read or written.
        """
        self.entries: dict[str, Entry] = {}
        self.outputs: dict[str, str] = {}
        self._path, self._waiting = path, []  # type: Path, list[Entry]
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Through JSON, so that tuples compare equal to the lists that were read.
            self._read(json.loads(json.dumps(parameters)))
        except BaseException as error:
            self._file.close()
            if isinstance(error, BlockingIOError):
                raise of_folder(
                    path.parent, "is being prepared by another run", then="Wait until it ends."
                ) from error
            if isinstance(error, OSError):
                raise _unwritable(path, error) from error
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        except StoreError:
            if error is None:
                raise
        finally:
            self._file.close()

    def add(self, entry: Entry) -> None:
        """Add an entry; entries are written to disk in batches of ``BATCH``.

        Raises:
            StoreError: If the file can't be written.
        """
        self._keep(entry)
        self._waiting.append(entry)
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write all entries to disk.

        Raises:
            StoreError: If the file can't be written.
        """
        waiting, self._waiting = self._waiting, []
        if waiting:
            values = [asdict(entry) for entry in waiting]
            self._append([json.dumps({**value, "check": _check(value)}) for value in values])

    def _append(self, lines: list[str]) -> None:
        try:
            data = "".join(f"{line}\n" for line in lines).encode()
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _keep(self, entry: Entry) -> None:
        self.entries[entry.source] = entry
        if entry.file and entry.sha256:
            self.outputs[entry.file] = entry.sha256

    def _read(self, parameters: Mapping[str, Any]) -> None:
        with self._path.open("rb") as lines:
            first, line = lines.readline(), b"\n"
            if not first.endswith(b"\n"):  # new, or cut off in its first line
                self._file.truncate(0)
                self._append([json.dumps({"fxeval_prepare": 1, "parameters": parameters})])
                return
            begun = _object(first).get("parameters")
            if begun != parameters:
                raise of_folder(
                    self._path.parent,
                    "was begun with other settings",
                    f" ({_difference(begun, parameters)})",
                    "Use the same settings, or an empty folder.",
                )
            for line in lines:
                entry = _entry(_object(line))
                if entry is not None:
                    self._keep(entry)
        if not line.endswith(b"\n"):  # end a truncated line, or the next entry would be lost too
            self._append([""])


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _check(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value).encode())


def _entry(value: dict[str, Any]) -> Entry | None:
    """Return the entry; None if it is incomplete, so that the image is processed again."""
    if value.pop("check", None) != _check(value):
        return None
    texts = {key: value.get(key) for key in ("file", "sha256", "reason")}
    source, digest = value.get("source"), value.get("source_sha256")
    if not isinstance(source, str) or not isinstance(digest, str):
        return None
    if not all(isinstance(text, str | None) for text in texts.values()):
        return None
    try:
        points = value.get("landmarks")
        landmarks = None if points is None else points_of(points)
    except (TypeError, ValueError, OverflowError):
        return None
    if (landmarks is None) == (texts["reason"] is None):
        return None
    return Entry(source, digest, landmarks, **texts)


def _difference(begun: object, wanted: Mapping[str, Any]) -> str:
    """Return the names and values of the parameters that differ, as text."""
    if not isinstance(begun, dict):
        return "they can't be read"
    old, new = _flat(begun), _flat(wanted)
    differing = [
        f"{key}: {printable(brief(str(old.get(key))))}, now {printable(brief(str(new.get(key))))}"
        for key in [*new, *(key for key in old if key not in new)]
        if old.get(key) != new.get(key)
    ]
    return "; ".join(differing[:4])


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return flat


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: can't be written ({error.strerror}). Free disk space or correct the permissions, "
        "then run again: it continues where it stopped."
    )

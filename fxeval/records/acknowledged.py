"""Acknowledged regressions: a file beside the baselines, written by people or by command.

Each entry names a metric of a cell that got worse since the baseline, says why this is accepted,
and until which day.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from fxeval.errors import SuiteError
from fxeval.records.baselines import locked
from fxeval.records.judged import Acknowledgement
from fxeval.records.writing import write
from fxeval.redaction import without_paths
from fxeval.strict.document import Document, Kind
from fxeval.strict.forms import Strict, matching
from fxeval.strict.forms import read as read_form
from fxeval.strict.text import hint
from fxeval.strict.yaml_file import parsed, read_bytes

FILE = "acknowledged.yaml"
KIND = Kind("a file of acknowledged regressions", "acknowledged: 1", SuiteError)
MOST_DAYS = 366
"""Longest time for which a regression can be acknowledged."""


def _day(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a day of the calendar") from None
    return text


class Entry(Strict):
    """One acknowledged regression, as its file holds it."""

    suite: str
    cell: str
    metric: str
    under: dict[str, str | float] = {}
    reason: Annotated[str, matching(r"(?s).*\S.*", "expected a reason")]
    until: Annotated[
        str, matching(r"\d{4}-\d{2}-\d{2}", "expected a day as YYYY-MM-DD"), AfterValidator(_day)
    ]
    by: str = ""


class Entries(Strict):
    """The whole file."""

    acknowledged: Literal[1]
    regressions: list[Entry]


@dataclass(frozen=True)
class Known:
    """An acknowledged regression, and the cell that it is about.

    Attributes:
        suite: Name of the suite.
        cell: Id of the cell.
        entry: The acknowledgement.
    """

    suite: str
    cell: str
    entry: Acknowledgement

    def is_active(self, today: date) -> bool:
        """Say whether it still holds on a day; on its last one it does."""
        return today <= date.fromisoformat(self.entry.until)


@dataclass(frozen=True)
class Acknowledged:
    """The acknowledged regressions of a folder of baselines.

    Attributes:
        known: All of them.
        document: The file with its places, for messages; None if there is no file.
    """

    known: tuple[Known, ...] = ()
    document: Document | None = None

    def of(self, suite: str, compared: Mapping[str, Collection[str]]) -> list[Known]:
        """Return those of a suite.

        Args:
            suite: Its name.
            compared: The metrics that limits compare with the baseline, by the id of each cell of
                the suite.

        Raises:
            SuiteError: If one names no such cell, or no such metric.
        """
        if self.document is None:
            return []
        own = [(number, one) for number, one in enumerate(self.known) if one.suite == suite]
        for number, one in own:
            at = ("regressions", number)
            if one.cell not in compared:
                text = f"suite '{suite}' has no cell '{one.cell}'"
                self.document.fault(
                    self.document.value((*at, "cell")), text, hint(one.cell, compared)
                )
            elif one.entry.metric not in compared[one.cell]:
                text = (
                    f"no limit of {one.cell} on the metric '{one.entry.metric}' compares with "
                    "'baseline'"
                )
                self.document.fault(
                    self.document.value((*at, "metric")),
                    text,
                    hint(one.entry.metric, compared[one.cell]),
                )
        self.document.raise_faults()
        return [one for _, one in own]


def read_acknowledged(folder: Path, today: date) -> Acknowledged:
    """Return what is acknowledged in a folder of baselines; nothing if there is no such file.

    Args:
        folder: That of the baselines.
        today: Day on which the run started.

    Raises:
        SuiteError: If the file has faults; all of them, with their places.
    """
    path = folder / FILE
    if not path.exists():
        return Acknowledged()
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise SuiteError(f"{path}:1:1: the file cannot be read: {error.strerror}") from error
    return _read(raw, path, today)


def _read(raw: bytes, path: Path, today: date) -> Acknowledged:
    document = parsed(raw, path, KIND)
    read_form(document, Entries, (), document.data)
    document.raise_faults()
    entries = Entries.model_validate_json(json.dumps(document.data), strict=True).regressions
    known, seen = [], dict[str, int]()
    for number, one in enumerate(entries):
        loc = ("regressions", number)
        entry = Acknowledgement(
            metric=one.metric, under=one.under, reason=" ".join(one.reason.split()),
            until=one.until, by=one.by, where=without_paths(document.where(loc)),
        )  # fmt: skip
        known.append(Known(one.suite, one.cell, entry))
        if (date.fromisoformat(one.until) - today).days > MOST_DAYS:
            text = f"'until': expected a day at most one year after {today}, got '{one.until}'"
            document.fault(document.value((*loc, "until")), text)
        what = json.dumps([one.suite, one.cell, one.metric, one.under], sort_keys=True)
        if what in seen:
            line = document.value(("regressions", seen[what])).line
            document.fault(document.value(loc), f"the same regression stands in line {line}")
        seen.setdefault(what, number)
    document.raise_faults()
    return Acknowledged(tuple(known), document)


def acknowledge(folder: Path, entry: Entry, today: date) -> Path:
    """Add an entry to the file; what stands there stays as it is, comments among it.

    Args:
        folder: That of the baselines; made if it is not there, and so is the file.
        entry: The entry.
        today: The day.

    Returns:
        The file.

    Raises:
        SuiteError: If the entry is unfit, or the file has faults or is written in another style.
        StoreError: If the file can't be written.
    """
    path = folder / FILE
    if date.fromisoformat(entry.until) < today:
        raise SuiteError(f"--until {entry.until}: expected a day that is not past, got one.")
    with locked(folder):
        before = read_acknowledged(folder, today)
        text = path.read_text(encoding="utf-8") if path.exists() else _HEAD
        if text == _HEAD or (not before.known and before.document is not None):
            text = text.replace("regressions: []", "regressions:")
        added = text.rstrip("\n") + "\n" + _written(entry, _indent(before))
        try:
            after = _read(added.encode(), path, today)
        except SuiteError as error:
            raise SuiteError(f"{path}: the entry can't be added at its end:\n{error}") from None
        if len(after.known) != len(before.known) + 1:
            raise SuiteError(
                f"{path}: the entry can't be added at its end: 'regressions' must be the last key."
            )
        write(path, added)
    return path


_HEAD = "# Regressions that are known and accepted until a day.\nacknowledged: 1\nregressions: []\n"


def _indent(before: Acknowledged) -> int:
    """Return the column before the dash of the entries, as the file has it."""
    if not before.known or before.document is None:
        return 2
    return max(0, before.document.value(("regressions", 0)).column - 3)


def _written(entry: Entry, indent: int) -> str:
    """Return an entry as YAML; text is quoted as in JSON, which YAML reads alike."""
    data = entry.model_dump(exclude_defaults=True)
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()]
    space = " " * indent
    return f"{space}- " + f"\n{space}  ".join(lines) + "\n"


def states(
    known: Sequence[Known], today: date, failed: Collection[Known] | None
) -> list[tuple[Known, str]]:
    """Return each acknowledgement with its state: ``active``, ``expired`` or ``unused``.

    Args:
        known: The acknowledgements.
        today: The day.
        failed: Those whose regression a run shows; None = there is no run to say that.
    """
    found = []
    for one in known:
        state = "active" if one.is_active(today) else "expired"
        if state == "active" and failed is not None and one not in failed:
            state = "unused"
        found.append((one, state))
    return found

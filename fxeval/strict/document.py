"""A file as plain values, the line and column of each, and the faults found in it so far."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

from fxeval.errors import FxevalError, SuiteError

MAX_SHOWN_FAULTS = 20

Loc: TypeAlias = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in the file; line and column count from 1, the column in characters.

    The file is 0 for that of the document, and 1 for the one that it extends.
    """

    line: int
    column: int
    file: int = 0


class Kind(NamedTuple):
    """A kind of file, for messages.

    Attributes:
        noun: Its name with the article: ``a suite``.
        first: The line it starts with: ``fxeval: 1``.
        error: The class of errors that is raised.
        has_numbers: Whether a whole number may be a key; its text is then the key.
    """

    noun: str
    first: str
    error: type[FxevalError]
    has_numbers: bool = False


SUITE = Kind("a suite", "fxeval: 1", SuiteError)


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong, where, and what may have been meant."""

    mark: Mark
    text: str
    help: str = ""


class Document:
    """A file as plain values with places, and the faults found in it so far.

    Attributes:
        kind: Kind of the file.
        data: The values: dict, list, str, int, float, bool, None.
        lines: The source.
        keys: Place of each key, by its path through the values.
        values: Place of each value.
        base: The file that this one extends; None if it extends none.
        note: Why this file is read, for messages, if nobody named it.
        folder: Folder at which its relative paths start; None = that of the file itself.
        shown: What messages call it.
    """

    def __init__(self, path: Path, kind: Kind = SUITE) -> None:
        self.kind = kind
        self.data: Any = None
        self.lines: list[str] = []
        self.keys: dict[Loc, Mark] = {}
        self.values: dict[Loc, Mark] = {}
        self.base: Document | None = None
        self.note = ""
        self.folder: Path | None = None
        self.shown = _relative(path)
        self._faults: set[Fault] = set()
        self._unreadable: set[Mark] = set()

    def key(self, loc: Loc) -> Mark:
        """Return the place of the key at ``loc``, or of the nearest thing around it."""
        return self.keys.get(loc) or self.value(loc)

    def value(self, loc: Loc) -> Mark:
        """Return the place of the value at ``loc``, or of the nearest thing around it."""
        while loc and loc not in self.values:
            loc = loc[:-1]
        return self.values.get(loc, Mark(1, 1))

    def where(self, loc: Loc) -> str:
        """Return ``file:line:column`` of the value at ``loc``."""
        return self._named(self.value(loc))

    def extend(self, base: "Document") -> None:
        """Take over another file and the faults found in it; the caller merges data and places."""
        self.base = base
        self._faults |= {replace(fault, mark=fault.mark._replace(file=1)) for fault in base._faults}
        self._unreadable |= {mark._replace(file=1) for mark in base._unreadable}

    def fault(self, mark: Mark, text: str, help: str = "") -> None:
        """Note a fault, unless the value there could not be read in the first place."""
        if mark not in self._unreadable:
            self._faults.add(Fault(mark, text, help))

    def unreadable(self, mark: Mark, text: str, help: str = "") -> None:
        """Note a fault that leaves no value; later faults about that value are dropped."""
        self.fault(mark, text, help)
        self._unreadable.add(mark)

    def fatal(self, mark: Mark, text: str, help: str = "") -> NoReturn:
        """Note a fault after which reading makes no sense, and raise all of them."""
        self._faults.add(Fault(mark, text, help))
        raise self.kind.error(self._message())

    def raise_faults(self) -> None:
        """Raise one error with every fault, by line, if there is any."""
        if self._faults:
            raise self.kind.error(self._message())

    def _message(self) -> str:
        faults = sorted(self._faults, key=lambda fault: (fault.mark.file, fault))
        shown = [self._page(fault) for fault in faults[:MAX_SHOWN_FAULTS]]
        if len(faults) > MAX_SHOWN_FAULTS:
            shown.append(f"{self.shown}: and {len(faults) - MAX_SHOWN_FAULTS} more errors")
        return "\n".join(shown)

    def of(self, mark: Mark) -> "Document":
        """Return the file in which a place lies."""
        return self.base if mark.file and self.base is not None else self

    def _named(self, mark: Mark) -> str:
        return f"{self.of(mark).shown}:{mark.line}:{mark.column}"

    def _page(self, fault: Fault) -> str:
        (line, column, _), file = fault.mark, self.of(fault.mark)
        page = [f"{self._named(fault.mark)}: error: {fault.text}"]
        if line <= len(file.lines):
            start = 0 if column <= 100 else column - 60  # a long line is cut around the place
            part = file.lines[line - 1][start : start + 120]
            source = "".join(char if char.isprintable() else " " for char in part).rstrip()
            page += [f"{line:>8} | {source}", f"{'':8} | {' ' * (column - 1 - start)}^"]
        if fault.help:
            page.append(f"{'':8} = help: {fault.help}")
        if file.note:
            page.append(f"{'':8} = note: {file.note}")
        return "\n".join(page)


def _relative(path: Path) -> str:
    """Return the path relative to the current folder if it lies inside, else as given."""
    try:
        return str(path.relative_to(Path.cwd())) if path.is_absolute() else str(path)
    except (ValueError, OSError):
        return str(path)

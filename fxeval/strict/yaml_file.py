"""Strict YAML: one mapping of plain values, and the line and column of each.

A subset of YAML 1.2 that means the same to every reader: core-schema scalars (``1e-3`` is a number;
``no``, ``on`` and ``12:30`` are text), no anchors, aliases, merge keys, tags or directives, no key
twice, one document, UTF-8. PyYAML alone follows YAML 1.1 and lets the last of two equal keys win.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import yaml

from fxeval.errors import FxevalError, SuiteError
from fxeval.strict.text import UNFIT, brief, describe

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_SHOWN_FAULTS = 20

Loc: TypeAlias = tuple[str | int, ...]

_NULL = re.compile(r"(null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(true|True|TRUE)\Z")
_FALSE = re.compile(r"(false|False|FALSE)\Z")
_INTEGER = re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
_MAX_DIGITS = 100
_UNFIT = re.compile(f"[{UNFIT}]")

# The fixed beginnings of PyYAML's messages, and the words that replace them.
_SYNTAX = {
    "found character '\\t'": "a tab cannot start a value or indent a line; use spaces",
    "mapping values are not allowed": "a ':' cannot stand here; quote the text if it belongs to it",
    "expected <block end>": "this does not line up with the lines above; check the indentation",
    "expected ',' or ']'": "expected ',' or ']': a list that starts with '[' is not closed",
    "expected ',' or '}'": "expected ',' or '}': a mapping that starts with '{' is not closed",
    "found unexpected end of stream": "the file ends inside a quoted text",
    "expected the node content": "a value is missing here",
    "could not find expected ':'": "expected ':' and a value after the key above",
}


class Mark(NamedTuple):
    """A place in the file; line and column count from 1, the column in characters."""

    line: int
    column: int


class Kind(NamedTuple):
    """A kind of file, for messages.

    Attributes:
        noun: Its name with the article: ``a suite``.
        first: The line it starts with: ``fxeval: 1``.
        error: The class of errors that is raised.
    """

    noun: str
    first: str
    error: type[FxevalError]


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
    """

    def __init__(self, path: Path, kind: Kind = SUITE) -> None:
        self.kind = kind
        self.data: Any = None
        self.lines: list[str] = []
        self.keys: dict[Loc, Mark] = {}
        self.values: dict[Loc, Mark] = {}
        self._shown = _relative(path)
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
        line, column = self.value(loc)
        return f"{self._shown}:{line}:{column}"

    def fault(self, mark: Mark, text: str, help: str = "") -> None:
        """Note a fault, unless the value there could not be read in the first place."""
        if mark not in self._unreadable:
            self._faults.add(Fault(mark, text, help))

    def unreadable(self, mark: Mark, text: str) -> None:
        """Note a fault that leaves no value; later faults about that value are dropped."""
        self.fault(mark, text)
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
        faults = sorted(self._faults)
        shown = [self._page(fault) for fault in faults[:MAX_SHOWN_FAULTS]]
        if len(faults) > MAX_SHOWN_FAULTS:
            shown.append(f"{self._shown}: and {len(faults) - MAX_SHOWN_FAULTS} more errors")
        return "\n".join(shown)

    def _page(self, fault: Fault) -> str:
        line, column = fault.mark
        page = [f"{self._shown}:{line}:{column}: error: {fault.text}"]
        if line <= len(self.lines):
            start = 0 if column <= 100 else column - 60  # a long line is cut around the place
            part = self.lines[line - 1][start : start + 120]
            source = "".join(char if char.isprintable() else " " for char in part).rstrip()
            page += [f"{line:>8} | {source}", f"{'':8} | {' ' * (column - 1 - start)}^"]
        if fault.help:
            page.append(f"{'':8} = help: {fault.help}")
        return "\n".join(page)


class _Builder:
    """Makes plain values from PyYAML's events; nothing of YAML 1.1's meaning is used."""

    def __init__(self, document: Document) -> None:
        self.place = Mark(1, 1)  # of the last event
        self._document = document
        self._n_values = 0

    def build(self, events: Iterator[Any]) -> None:
        """Read the one document of a stream."""
        self._events = events
        self._next()  # stream start
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            kind = self._document.kind
            self._document.fatal(
                Mark(1, 1), f"the file is empty; {kind.noun} starts with '{kind.first}'"
            )
        if start.version or start.tags:
            self._document.fault(self.place, "directives ('%') are not allowed")
        self._document.data = self._value((), self._next())
        self._next()  # document end
        if not isinstance(self._next(), yaml.StreamEndEvent):
            text = f"a second document starts here; {self._document.kind.noun} is one document"
            self._document.fault(self.place, text)

    def _next(self) -> Any:  # noqa: ANN401  what PyYAML's events have in common is untyped
        event = next(self._events)
        self.place = _mark(event.start_mark)
        return event

    def _value(self, loc: Loc, event: Any) -> object:  # noqa: ANN401
        mark, fault = self.place, self._document.fault
        self._document.values.setdefault(loc, mark)
        self._n_values += 1
        if self._n_values > MAX_VALUES:
            self._document.fatal(mark, f"the file has more than {MAX_VALUES} values; split it")
        if isinstance(event, yaml.AliasEvent):
            text = f"aliases ('*{brief(str(event.anchor))}') are not allowed; write the value out"
            self._document.unreadable(mark, text)
            return None
        if event.anchor is not None:
            fault(mark, f"anchors ('&{brief(str(event.anchor))}') are not allowed")
        if event.tag is not None:
            self._document.unreadable(mark, f"tags ('{brief(str(event.tag))}') are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event.value, event.style is None, mark)
        if len(loc) >= MAX_DEPTH:
            self._document.fatal(mark, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(loc)
        return self._mapping(loc)

    def _sequence(self, loc: Loc) -> list[object]:
        items: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value((*loc, len(items)), event))
        return items

    def _mapping(self, loc: Loc) -> dict[str, object]:
        mapping: dict[str, object] = {}
        keys, fault = self._document.keys, self._document.fault
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            mark = self.place
            # Keys, and values of refused keys, get paths of their own, so that no real value is
            # reported at their place.
            key = self._value((*loc, "", "key"), event)
            if key == "<<" and event.style is None:
                fault(mark, "merge keys ('<<') are not allowed; write the keys out")
            elif not isinstance(key, str):
                fault(mark, "a key must be text; quote it if it looks like a value")
            elif key in mapping:
                line = keys[(*loc, key)].line
                fault(mark, f"the key '{brief(key)}' is already given in line {line}")
            else:
                keys[(*loc, key)] = mark
                mapping[key] = self._value((*loc, key), self._next())
                continue
            self._value((*loc, "", "ignored"), self._next())
        return mapping

    def _scalar(self, text: str, is_plain: bool, mark: Mark) -> object:
        reason = ""
        if (unfit := _UNFIT.search(text)) or "\r" in text:  # an escape can write any character
            char = unfit.group() if unfit else "\r"
            reason = f"the character U+{ord(char):04X} is not allowed"
        elif not is_plain:
            return text
        elif _INTEGER.match(text) and len(text) > _MAX_DIGITS:
            reason = f"a number of {len(text)} digits is not allowed"
        elif _NOT_FINITE.match(text) or (_FLOAT.match(text) and not math.isfinite(float(text))):
            reason = f"expected a finite number, got {brief(text)}"
        if reason:
            self._document.unreadable(mark, reason)
            return None
        return _resolve(text)


def read(path: Path, kind: Kind = SUITE, shown: Path | None = None) -> Document:
    """Read a file.

    Args:
        path: Path of the file.
        kind: Kind of the file.
        shown: What messages call it; None = the path, relative to the current folder if it lies
            inside.

    Returns:
        A document whose ``data`` is a mapping; faults that leave it readable are noted in it.

    Raises:
        FxevalError: The kind's own, if the file cannot be read as strict YAML; the message holds
            every fault.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        Document(shown or path, kind).fatal(Mark(1, 1), f"the file cannot be read: {reason}")
    return parsed(raw, shown or path, kind)


def parsed(raw: bytes, path: Path, kind: Kind = SUITE) -> Document:
    """Read bytes as a file would be read.

    Args:
        raw: UTF-8 text in strict YAML.
        path: What messages call it.
        kind: What it is meant to be.

    Returns:
        As :func:`read`.

    Raises:
        FxevalError: As :func:`read`.
    """
    document = Document(path, kind)
    if len(raw) > MAX_BYTES:
        document.fatal(
            Mark(1, 1), f"the file has more than {MAX_BYTES} bytes; {kind.noun} is small"
        )
    _parse(_decode(raw, document), document)
    if not isinstance(document.data, dict):
        document.fatal(
            document.value(()),
            f"expected {kind.noun}, a mapping that starts with '{kind.first}', got "
            f"{describe(document.data)}",
        )
    return document


def _resolve(text: str) -> str | int | float | bool | None:
    """Return what a plain scalar means in the core schema of YAML 1.2 (chapter 10.3.2)."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return bool(_TRUE.match(text))
    if _INTEGER.match(text):
        return int(text, 0 if text[:2] in {"0o", "0x"} else 10)
    return float(text) if _FLOAT.match(text) else text


def _decode(raw: bytes, document: Document) -> str:
    """Return the text of the file, every character of it fit for a terminal."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        document.fatal(_end(before), "the file is not UTF-8 text")
    document.lines = _split(text)
    if unfit := _UNFIT.search(text):
        reason = f"the character U+{ord(unfit.group()):04X} is not allowed"
        document.fatal(_end(text[: unfit.start()]), reason)
    return text


def _parse(text: str, document: Document) -> None:
    """Fill the document from the text of its file."""
    builder = _Builder(document)
    try:
        builder.build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        at = builder.place if error.problem_mark is None else _mark(error.problem_mark)
        document.fatal(at, _syntax(error.problem or "unreadable"))
    except (ValueError, OverflowError):  # the escape "\U00110000" is beyond Unicode
        document.fatal(builder.place, "after this place, an escape does not stand for a character")


def _syntax(problem: str) -> str:
    for start, ours in _SYNTAX.items():
        if problem.startswith(start):
            return ours
    return f"this is not valid YAML: {problem}"


def _end(text: str) -> Mark:
    """Return the place just after a text."""
    lines = _split(text)
    return Mark(len(lines), len(lines[-1]) + 1)


def _split(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _mark(mark: yaml.Mark) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _relative(path: Path) -> str:
    """Return the path relative to the current folder if it lies inside, else as given."""
    try:
        return str(path.relative_to(Path.cwd())) if path.is_absolute() else str(path)
    except (ValueError, OSError):
        return str(path)

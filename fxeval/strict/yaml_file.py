"""Strict YAML: one mapping of plain values, and the line and column of each.

A subset of YAML 1.2 that means the same to every reader: core-schema scalars (``1e-3`` is a number;
``no``, ``on`` and ``12:30`` are text), no anchors, aliases, merge keys, tags or directives, no key
twice, one document, UTF-8. PyYAML alone follows YAML 1.1 and lets the last of two equal keys win.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fxeval.strict.document import SUITE, Document, Kind, Loc, Mark
from fxeval.strict.text import UNFIT, brief, describe

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 20_000

__all__ = ["SUITE", "Document", "Kind", "Loc", "Mark", "parsed", "read", "read_bytes"]

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
            if type(key) is int and self._document.kind.has_numbers:
                key = str(key)
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
        raw = read_bytes(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        Document(shown or path, kind).fatal(Mark(1, 1), f"the file cannot be read: {reason}")
    return parsed(raw, shown or path, kind)


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, and no more of it than shows that it is too large."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def parsed(raw: bytes, path: Path, kind: Kind = SUITE, note: str = "") -> Document:
    """Read bytes as a file would be read.

    Args:
        raw: UTF-8 text in strict YAML.
        path: What messages call it.
        kind: What it is meant to be.
        note: Why it is read, for messages, if nobody named it.

    Returns:
        As :func:`read`.

    Raises:
        FxevalError: As :func:`read`.
    """
    document = Document(path, kind)
    document.note = note
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

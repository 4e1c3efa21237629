"""Reads the few pickles that hold data only, and runs nothing.

A pickle is a program for a small stack machine, and the usual reader lets it import and call
whatever it names. This one is a machine of its own that can import nothing: it knows lists, tuples,
bytes, text, whole numbers, truth values and flat arrays of them, and a handful of names that stand
for how Python 2, Python 3 and NumPy write bytes and arrays. All else is refused by its name. Byte
strings are not copied out of the file, and every instruction takes a bounded step, so that memory
and time are bounded by the file's size.

Instructions: CPython ``Lib/pickletools.py`` (protocols 0 to 5). States of arrays and types: NumPy
``ndarray.__reduce__`` and ``dtype.__reduce__``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pickle import HIGHEST_PROTOCOL
from pickletools import opcodes
from typing import NoReturn

from fxeval.datasets.faults import of_list
from fxeval.strict.text import brief

MAX_STEPS = 3_000_000
"""Most instructions read; an image takes between 2 (bytes) and 30 (an array)."""

_NAMES = {one.code: one.name for one in opcodes}
_MAX_LINE = 200
_MAX_INTEGER_BYTES = 8
_MAX_STRING_LINE = 4 << 20
_SMALL = 256  # bytes; below, a copy is smaller than a view


@dataclass(eq=False)
class PlainArray:
    """An array of one axis of any length (others of length 1), not made into one.

    Attributes:
        kind: ``u1`` (bytes) or ``b1`` (truth values).
        data: One byte for each entry, which arrays may share; None until the pickle has filled it.
    """

    kind: str
    data: bytes | memoryview | None = None


@dataclass(frozen=True, eq=False)
class _Name:
    """Something that a pickle wants to import, and here is a word."""

    text: str


@dataclass(eq=False)
class _Type:
    """A type of arrays."""

    kind: str


class _Mark:
    """Where a list or tuple starts on the stack."""


_MARK = _Mark()


_NUMPY = ("numpy.core.", "numpy._core.")
_KNOWN = {
    **{f"{home}multiarray._reconstruct": "array" for home in _NUMPY},
    **{f"{home}multiarray.scalar": "scalar" for home in _NUMPY},
    **{f"{home}numeric._frombuffer": "frombuffer" for home in _NUMPY},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
}
"""Names that a pickle may use. None of them is ever imported."""

_FIXED: Mapping[int, Callable[[], object]] = {
    ord("N"): lambda: None,
    ord("]"): list,
    ord(")"): tuple,
    0x88: lambda: True,
    0x89: lambda: False,
    ord("("): lambda: _MARK,
}
_INTEGERS = {ord("K"): (1, False), ord("M"): (2, False), ord("J"): (4, True)}
_LONGS = {0x8A: 1, 0x8B: 4}
_BYTES = {ord("U"): 1, ord("T"): 4, ord("C"): 1, ord("B"): 4, 0x8E: 8, 0x96: 8}
_TEXTS = {ord("X"): 4, 0x8C: 1, 0x8D: 8}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_GETS = {ord("h"): 1, ord("j"): 4}
_PUTS = {ord("q"): 1, ord("r"): 4}
_ESCAPED = re.compile(rb"(?:[^\\]|\\(?:[\\'\"nrt]|x[0-9a-fA-F]{2}))*+")


def load(data: bytes, where: str) -> object:
    """Read a pickle of plain data.

    Args:
        data: Of any protocol; what follows the pickle's end is not looked at.
        where: The file's path, for messages.

    Returns:
        Lists, tuples, bytes or memoryviews (byte strings), text, int, bool, None and
        :class:`PlainArray`; they may share and contain each other, so never walk down unasked.

    Raises:
        DataContractError: If it is cut or damaged, or asks for anything else.

    >>> import pickle
    >>> load(pickle.dumps([7, (True, None)]), "numbers.pkl")
    [7, (True, None)]
    """
    return _Machine(data, where).run()


class _Machine:
    """Runs the instructions of one pickle."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.view, self.where = data, memoryview(data), where
        self.at = 0
        self.start = 0
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.credit = len(data)  # bytes that may yet be made, and are no part of the file

    def run(self) -> object:
        for _ in range(MAX_STEPS):
            self.start = self.at
            code = self._byte()
            if code == ord("."):
                return self._pop()
            self._step(code)
        said = f"expected a pickle of at most {MAX_STEPS} instructions, it has more"
        raise of_list(self.where, said)

    def _step(self, code: int) -> None:
        if code in _FIXED:
            self.stack.append(_FIXED[code]())
        elif code in _BYTES:
            self._push_bytes(self._take(self._size(_BYTES[code])))
        elif code in _PUTS:
            self.memo[self._size(_PUTS[code])] = self._top()
        elif code in _GETS:
            self.stack.append(self._remembered(self._size(_GETS[code])))
        elif code in _INTEGERS:
            size, signed = _INTEGERS[code]
            self.stack.append(int.from_bytes(self._take(size), "little", signed=signed))
        elif code in _LONGS:
            self.stack.append(self._long(self._size(_LONGS[code])))
        elif code in _TEXTS:
            self._text(bytes(self._take(self._size(_TEXTS[code]))), "utf-8")
        elif code in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[code])]
            self.stack.append(tuple(reversed(items)))
        elif chr(code) in _MORE:
            _MORE[chr(code)](self)
        else:
            self._refuse_code(code)

    # Reading

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            self._damaged(f"{size} more bytes expected, {len(self.data) - self.at} are there")
        self.at += size
        return self.view[self.at - size : self.at]

    def _size(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _line(self, most: int = _MAX_LINE) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + most + 1)
        if end < 0:
            self._damaged(f"a line of at most {most} bytes expected")
        line = bytes(self.view[self.at : end])
        self.at = end + 1
        return line

    def _number(self, line: bytes) -> int:
        if not re.fullmatch(rb"-?[0-9]{1,19}", line):
            self._damaged("a whole number expected")
        return int(line)

    def _long(self, size: int) -> int:
        if size > _MAX_INTEGER_BYTES:
            self._damaged(f"a number of at most {_MAX_INTEGER_BYTES} bytes expected, got {size}")
        return int.from_bytes(self._take(size), "little", signed=True)

    def _push_bytes(self, view: memoryview) -> None:
        self.stack.append(bytes(view) if len(view) < _SMALL else view)

    def _text(self, raw: bytes, encoding: str) -> None:
        try:
            text = raw.decode(encoding)
            text.encode("latin-1")  # other letters would only make the text larger than the file
        except UnicodeError:
            self._damaged("text of Latin letters expected")
        self.stack.append(text)

    # The stack

    def _top(self) -> object:
        if not self.stack:
            self._damaged("it takes more from its stack than it has put there")
        return self.stack[-1]

    def _pop(self) -> object:
        top = self._top()
        if top is _MARK:
            self._damaged("it takes more from its stack than it has put there")
        return self.stack.pop()

    def _since_mark(self) -> list[object]:
        place = len(self.stack) - 1
        while place >= 0 and self.stack[place] is not _MARK:
            place -= 1
        if place < 0:
            self._damaged("a list or tuple ends that never started")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _remembered(self, key: int) -> object:
        if key not in self.memo:
            self._damaged("it recalls what it never noted")
        return self.memo[key]

    # Instructions

    def _int(self) -> None:
        line = self._line()
        flags = {b"00": False, b"01": True}  # truth values of protocols 0 and 1
        number = line.removesuffix(b"L")
        self.stack.append(flags[line] if line in flags else self._number(number))

    def _string(self) -> None:
        line = self._line(_MAX_STRING_LINE)
        inside = line[1:-1]
        is_quoted = len(line) >= 2 and line[:1] == line[-1:] and line[:1] in (b"'", b'"')
        if not (is_quoted and inside.isascii() and _ESCAPED.fullmatch(inside)):
            self._damaged("a quoted string expected")
        self._encoded(inside.decode("unicode_escape"))

    def _unicode(self) -> None:
        self._text(self._line(_MAX_STRING_LINE), "raw_unicode_escape")

    def _encoded(self, text: str) -> None:
        self.credit -= len(text)  # a text noted once could be encoded a million times
        if self.credit < 0:
            self._damaged("it makes more bytes than it has")
        self.stack.append(text.encode("latin-1"))

    def _extend(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, list):
            self._damaged("a list to append to expected")
        target.extend(items)

    def _get(self) -> None:
        self.stack.append(self._remembered(self._number(self._line())))

    def _put(self) -> None:
        self.memo[self._number(self._line())] = self._top()

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self._top()

    def _protocol(self) -> None:
        if (number := self._byte()) > HIGHEST_PROTOCOL:
            self._damaged(f"a protocol of at most {HIGHEST_PROTOCOL} expected, got {number}")

    def _frame(self) -> None:
        self._take(8)  # a size, only of use to who reads in portions

    def _global(self) -> None:
        self._name(self._dotted())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            self._damaged("a name expected")
        self._name(f"{module}.{name}")

    def _dotted(self) -> str:
        module, name = (self._line().decode("latin-1") for _ in range(2))
        return f"{module}.{name}"

    def _name(self, text: str) -> None:
        if text not in _KNOWN:
            self._refuse(_shown(text))
        self.stack.append(_Name(_KNOWN[text]))

    def _reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        if not (isinstance(name, _Name) and isinstance(arguments, tuple)):
            self._refuse("a call of what cannot be called")
        match name.text, arguments:
            case "array", (_Name("ndarray"), tuple(), code) if _word(code) == "b":
                self.stack.append(PlainArray(""))
            case "dtype", (code, *_):
                self.stack.append(_Type(self._kind(code)))
            case "scalar", (_Type(kind), bytes() as value) if len(value) == 1:
                self.stack.append(value[0] if kind == "u1" else value[0] != 0)
            case "frombuffer", (bytes() | memoryview() as value, _Type(kind), shape, _):
                self.stack.append(self._array(PlainArray(""), kind, shape, value))
            case "encode", (str(text), code) if _word(code) == "latin1":
                self._encoded(text)
            case _:
                self._refuse(f"a call of '{name.text}' with other arguments")

    def _build(self) -> None:
        state, built = self._pop(), self._top()
        match built, state:
            case _Type(), (int(), order, None, None, None, *_) if _word(order) in {"|", "<", "="}:
                return
            case PlainArray(data=None), (
                int(), shape, _Type(kind), _, bytes() | memoryview() as value,
            ):  # fmt: skip
                self._array(built, kind, shape, value)
            case _:
                self._refuse("a state of what has none, or another one")

    def _kind(self, code: object) -> str:
        kind = _word(code)
        if kind.lstrip("|") not in {"u1", "b1"}:
            self._refuse(f"an array of {_shown(kind or type(code).__name__)}")
        return kind.lstrip("|")

    def _array(
        self, array: PlainArray, kind: str, shape: object, value: bytes | memoryview
    ) -> PlainArray:
        """Fill an array, whose order then is that of its bytes."""
        if not (isinstance(shape, tuple) and all(type(size) is int for size in shape)):
            self._damaged("the shape of an array expected")
        if len(shape) > 3 or sum(size != 1 for size in shape) > 1 or prod(shape) != len(value):
            self._refuse(f"an array {_shown(str(shape[:4]))} of {len(value)} bytes; flat ones are")
        array.kind, array.data = kind, value
        return array

    # Refusals

    def _damaged(self, what: str) -> NoReturn:
        said = f"is cut or damaged at byte {self.start}"
        raise of_list(self.where, said, f" ({what})", "Fetch it again.")

    def _refuse(self, what: str) -> NoReturn:
        raise of_list(
            self.where,
            "expected a pickle of lists, bytes, truth values and uint8 arrays, got more at byte "
            f"{self.start}",
            f": it asks for {what}",
            "It could run code, and nothing of it was run. Don't open it; ask for plain data.",
        )

    def _refuse_code(self, code: int) -> NoReturn:
        name = _NAMES.get(chr(code))
        if name is None:
            self._damaged(f"no instruction has the number {code}")
        if name == "INST":  # an import and a call in one
            self._refuse(_shown(self._dotted()))
        self._refuse(f"the instruction {name}")


_MORE: Mapping[str, Callable[[_Machine], None]] = {
    "I": _Machine._int,
    "L": _Machine._int,
    "S": _Machine._string,
    "V": _Machine._unicode,
    "R": _Machine._reduce,
    "a": lambda machine: machine._extend([machine._pop()]),
    "b": _Machine._build,
    "c": _Machine._global,
    "e": lambda machine: machine._extend(machine._since_mark()),
    "g": _Machine._get,
    "l": lambda machine: machine.stack.append(machine._since_mark()),
    "p": _Machine._put,
    "t": lambda machine: machine.stack.append(tuple(machine._since_mark())),
    "\x80": _Machine._protocol,
    "\x93": _Machine._stack_global,
    "\x94": _Machine._memoize,
    "\x95": _Machine._frame,
}


def _word(value: object) -> str:
    """Return a short text, which Python 2 writes as bytes; "" if it is something else."""
    if isinstance(value, bytes) and len(value) <= _MAX_LINE:
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _shown(text: str) -> str:
    return f"'{brief(ascii(text)[1:-1])}'"

"""Reads pickles of (images, labels) that hold data only, and runs nothing of them.

A pickle is a program that may import and call whatever it names. Here ``find_class`` gives
stand-ins for the names with which Python 2, Python 3 and NumPy write bytes and arrays, and refuses
all others ("Restricting Globals" in Python's documentation of ``pickle``); nothing is imported. A
program that names nothing can still ask for any memory and time, so it runs in a process of its
own with bounds, which answers in JSON and bytes.

States of arrays and types: NumPy ``ndarray.__reduce__`` and ``dtype.__reduce__``.
"""

import gc
import json
import pickle
import sys
from math import prod
from typing import IO, Any, NamedTuple

from fxeval.datasets.faults import of_list
from fxeval.strict.sandbox import SandboxError, answer_of, bound, ended
from fxeval.strict.text import brief, printable

MEMORY_TIMES = 3
"""Times the file's size, beside 256 MiB, that reading it may take: bytes, and text made bytes."""

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


class Content(NamedTuple):
    """What a pickle holds.

    Attributes:
        images: Encoded images, the first of them; a text stands for what is no bytes: its type.
        labels: Truth values, the first of them; a text likewise.
        n_images: How many there are.
        n_labels: How many there are.
    """

    images: list[bytes | str]
    labels: list[bool | str]
    n_images: int
    n_labels: int


def load(data: bytes, where: str, most: int) -> Content:
    """Read a pickle of (list of images, list of labels).

    Args:
        data: Of any protocol; what follows the pickle's end is not looked at.
        where: The file's path, for messages.
        most: Images and labels returned.

    Raises:
        DataContractError: If it is cut or damaged, or asks for anything else.
    """
    try:
        with answer_of(__name__, str(len(data)), str(most), given=data) as answer:
            return received(answer, where)
    except SandboxError as error:
        said = "cannot be read in the memory and time that a file of its size needs"
        raise of_list(where, said, f" (reading it {error})", _HELP) from error
    except OSError as error:
        said = "cannot be read in a process of its own"
        raise of_list(where, said, f" ({error.strerror})") from error


def received(answer: IO[bytes], where: str) -> Content:
    """Return what :func:`send` wrote.

    Raises:
        DataContractError: If that is a fault.
        SandboxError: If it is nothing that :func:`send` writes.
    """
    try:
        head = json.loads(answer.readline())
        if fault := head.get("fault"):
            raise of_list(where, *fault)
        blobs = [answer.read(size) for size in head["sizes"]]
        images = [one if isinstance(one, str) else blobs[one] for one in head["images"]]
        return Content(images, head["labels"], *head["counts"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise SandboxError(ended("silence")) from error


def send(file: IO[bytes], answer: IO[bytes], most: int) -> None:
    """Read a pickle and write what it holds, or its fault: a line of JSON, then all bytes."""
    blobs: list[bytes | bytearray] = []
    try:
        head = _described(unpickled(file), blobs, most)
    except _RefusedError as error:
        head = {"fault": error.args}
    answer.write(json.dumps(head).encode() + b"\n")
    for blob in blobs:
        answer.write(blob)


def unpickled(file: IO[bytes]) -> object:
    """Return what a pickle of plain data holds; in this process, without bounds.

    Raises:
        _RefusedError: With the words of the fault.
    """
    try:
        return _Unpickler(file, encoding="bytes").load()
    except _RefusedError:
        raise
    except MemoryError as error:
        said = "expected a pickle that takes memory as its size does, got one that takes more"
        raise _RefusedError(said, "", _HELP) from error
    except Exception as error:  # pickle raises a dozen kinds
        shown = printable(brief(f"{type(error).__name__}: {error}"))
        raise _RefusedError("is cut or damaged", f" ({shown})", "Fetch it again.") from error


_HELP = "Is it a .bin of a verification set?"


class _RefusedError(Exception):
    """The last three arguments of ``of_list``."""


def _refusal(what: str) -> _RefusedError:
    return _RefusedError(
        "expected a pickle of lists, bytes, truth values and uint8 arrays, got more",
        f": it asks for {what}",
        "It could run code, and nothing of it was run. Don't open it; ask for plain data.",
    )


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  (pickle's own type)
        text = f"{module}.{name}"
        if text not in _KNOWN:
            raise _refusal(_shown(text))
        return _Name(_KNOWN[text])

    def persistent_load(self, pid: object) -> Any:  # noqa: ANN401
        raise _refusal("an object outside the file")


# Stand-ins. A pickle can call them and set their state, and reach nothing else of them.


class _Name:
    """A name that a pickle may use."""

    __slots__ = ("text",)
    __match_args__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, *arguments: object) -> object:
        match self.text, arguments:
            case "array", (_Name("ndarray"), tuple(), code) if _word(code) == "b":
                return _Array()
            case "dtype", (code, *_):
                return _Type(code)
            case "scalar", (_Type(kind), bytes() as value) if len(value) == 1:
                return value[0] if kind == "u1" else value[0] != 0
            case "frombuffer", (bytes() | bytearray() as value, _Type() as type_, shape, _):
                return _Array().filled(type_, shape, value)
            case "encode", (str(text), code) if _word(code) == "latin1":
                return text.encode("latin-1")
        raise _refusal(f"a call of '{self.text}' with other arguments")

    def __setstate__(self, state: object) -> None:
        raise _refusal(f"a state of '{self.text}'")


class _Type:
    """A type of arrays: ``u1`` (bytes) or ``b1`` (truth values)."""

    __slots__ = ("kind",)
    __match_args__ = ("kind",)

    def __init__(self, code: object) -> None:
        self.kind = _word(code).lstrip("|")
        if self.kind not in {"u1", "b1"}:
            raise _refusal(f"an array of {_shown(_word(code) or type(code).__name__)}")

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), order, None, None, None, *_) if _word(order) in {"|", "<", "="}:
                return
        raise _refusal("another state of a type of arrays")


class _Array:
    """An array of one axis of any length (others of length 1), as its bytes."""

    __slots__ = ("data", "kind")

    def __init__(self) -> None:
        self.data: bytes | bytearray | None = None
        self.kind = ""

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), shape, _Type() as type_, _, bytes() as value) if self.data is None:
                self.filled(type_, shape, value)
            case _:
                raise _refusal("another state of an array")

    def filled(self, type_: _Type, shape: object, value: bytes | bytearray) -> "_Array":
        sizes = shape if isinstance(shape, tuple) else ("?",)
        is_flat = all(type(size) is int for size in sizes) and sum(n != 1 for n in sizes) <= 1
        if not is_flat or len(sizes) > 3 or prod(sizes) != len(value):
            shown = _shown(str(sizes[:4]))
            raise _refusal(f"an array {shown} of {len(value)} bytes; flat ones are read")
        self.kind, self.data = type_.kind, value
        return self


def _word(value: object) -> str:
    """Return a short text, which Python 2 writes as bytes; "" if it is something else."""
    if isinstance(value, bytes) and len(value) <= 200:
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _shown(text: str) -> str:
    return f"'{brief(ascii(text)[1:-1])}'"


def _described(content: object, blobs: list[bytes | bytearray], most: int) -> dict[str, Any]:
    """Return what is sent of the images and labels; the bytes of images are put in ``blobs``."""
    images, labels = _parts(content)
    rows: dict[int, int] = {}  # a pickle may name one image a million times
    entries: list[int | str] = []
    for image in images[:most]:
        data = image.data if isinstance(image, _Array) else image
        if not isinstance(data, bytes | bytearray):
            entries.append(type(data).__name__)
            continue
        entries.append(rows.setdefault(id(data), len(blobs)))
        if entries[-1] == len(blobs):
            blobs.append(data)
    return {
        "counts": (len(images), len(labels)),
        "images": entries,
        "labels": [x if isinstance(x, bool) else type(x).__name__ for x in labels[:most]],
        "sizes": [len(blob) for blob in blobs],
    }


def _parts(content: object) -> tuple[Any, Any]:
    if isinstance(content, tuple | list) and len(content) == 2:
        images, labels = content
        if isinstance(labels, _Array) and labels.kind == "b1" and labels.data is not None:
            labels = [entry != 0 for entry in labels.data]
        if isinstance(images, tuple | list) and isinstance(labels, tuple | list):
            return images, labels
    raise _RefusedError(
        "expected a pickle of (list of encoded images, list of truth values), got something else",
        "",
        _HELP,
    )


def _main() -> None:
    """Run as that process: a pickle on standard input, its content on standard output."""
    size, most = map(int, sys.argv[1:])
    memory = MEMORY_TIMES * size + (256 << 20)
    bound(memory=memory, output=size + (16 << 20), seconds=20 + (size >> 23))
    gc.disable()  # it would walk all lists again and again as they grow
    send(sys.stdin.buffer, sys.stdout.buffer, most)


if __name__ == "__main__":
    _main()

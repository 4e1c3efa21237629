"""Calls of a service: which errors pass, what was answered, and how well answers repeat."""

import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from torch import Tensor

from fxeval.contracts import Embeddings, Images, SimilarityKind
from fxeval.functional.similarity import similarity

LONGEST_WAIT = 60.0
"""Seconds that are waited at most before a call is repeated, whatever the service asks for."""

_PASSING = {408, 425, 429}  # of HTTP, besides all from 500
_PASSING_NAMES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"}  # of gRPC
_STATUS = ("status", "status_code", "http_status", "code")
_IN_WORDS = re.compile(r"\b(?:408|425|429|50\d)\b")
_OF_FILES = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_BUGS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError,
    NameError, NotImplementedError, SyntaxError, TypeError, ValueError,
)  # fmt: skip

ANSWERS_BYTES = 64 << 20  # of answers that are kept
_AGAIN_EVERY = 8  # calls between two questions about one image; later an eighth of all calls
_ANCHORS = 4  # embeddings with which that image is compared


def passes(error: BaseException) -> bool:
    """Say whether an error of a call is likely to pass: an overload, a lost connection, a timeout.

    The HTTP status decides where the error, its ``response`` or its cause has one (408, 425, 429
    and all from 500 pass), else the type of the error.

    >>> passes(ConnectionResetError()), passes(ValueError("no face found"))
    (True, False)
    """
    if not isinstance(error, Exception) or isinstance(error, _OF_FILES):
        return False
    status = _status(error)
    if isinstance(status, int):
        return status in _PASSING or status >= 500
    if status is not None:
        return status in _PASSING_NAMES
    names = [kind.__name__.lower() for kind in type(error).__mro__]
    if isinstance(error, OSError) or any(
        "timeout" in name or "connect" in name or name == "transporterror" for name in names
    ):
        return True
    if isinstance(error, _BUGS):
        return False
    if error.__cause__ is not None:
        return passes(error.__cause__)
    return _IN_WORDS.search(str(error)[:500]) is not None


def asked_to_wait(error: BaseException) -> float:
    """Return the seconds that the service asks to wait (``Retry-After``), at most a minute; or 0.

    Both forms of the header are read: seconds, and a date.
    """
    for holder in (error, getattr(error, "response", None)):
        headers = getattr(holder, "headers", None)
        if headers is None or not hasattr(headers, "get"):
            continue
        text = str(headers.get("Retry-After") or headers.get("retry-after") or "").strip()
        try:
            seconds = float(text) if text[:1].isdigit() else _until(text)
        except ValueError:
            continue
        if seconds > 0:
            return min(seconds, LONGEST_WAIT)
    return 0.0


def _until(date: str) -> float:
    when = parsedate_to_datetime(date)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - datetime.now(UTC)).total_seconds()


def _status(error: BaseException) -> int | str | None:
    """Return the HTTP status of an error as a number, or gRPC's as a name; None without one."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # of botocore
        response = response.get("ResponseMetadata")
        response = response if isinstance(response, Mapping) else {}
        return _as_status(response.get("HTTPStatusCode"))
    for holder in (error, response):
        for name in _STATUS:
            value = getattr(holder, name, None)
            if callable(value):
                try:
                    value = value()
                except Exception:  # it is no such method
                    continue
            found = _as_status(value)
            if found is not None:
                return found
    return None


def _as_status(value: object) -> int | str | None:
    if isinstance(value, int) and 100 <= value <= 599:
        return int(value)
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and name.isupper() else None


@dataclass
class Calls:
    """The calls of one function in this process.

    Attributes:
        made: Calls that were answered.
        repeated: Calls that were made again, by the type of the error, since the last notes.
        asked_again: How often the same image was asked for again.
        noise: Largest difference of its similarities between two of these answers.
    """

    made: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    asked_again: int = 0
    noise: float = 0.0
    _answers: "OrderedDict[bytes, Embeddings]" = field(default_factory=OrderedDict)
    _bytes: int = 0
    _image: Tensor | None = None
    _anchors: Tensor | None = None
    _first: Tensor | None = None
    _next: int = _AGAIN_EVERY

    def answered(self, key: bytes) -> Embeddings | None:
        """Return what was answered before, or None."""
        return self._answers.get(key)

    def keep(self, key: bytes, images: Images, found: Embeddings) -> None:
        """Count a call, and keep its answer for when it is asked for again."""
        self.made += 1
        if self._image is None and len(images):
            self._image, self._anchors = images[:1].clone(), found[:_ANCHORS]
        if key not in self._answers:
            self._bytes += found.nbytes
        self._answers[key] = found
        while self._bytes > ANSWERS_BYTES and len(self._answers) > 1:
            self._bytes -= self._answers.popitem(last=False)[1].nbytes

    def due(self) -> Images | None:
        """Return the image that is to be asked for again, or None if it is not time yet."""
        if self._image is None or self.made < self._next:
            return None
        self._next = self.made + max(_AGAIN_EVERY, self.made // 8)
        return self._image.clone()

    def compare(self, kind: SimilarityKind, found: Embeddings) -> None:
        """Take an answer about that image, and note how far it is from the first."""
        if self._first is None or self._anchors is None:
            self._first = found
            return
        anchors = self._anchors
        now, then = (
            similarity(kind, one.expand(len(anchors), -1), anchors) for one in (found, self._first)
        )
        self.asked_again += 1
        self.noise = max(self.noise, float((now - then).abs().max()))

    def take_notes(self) -> Iterator[str]:
        """Yield what a report must say about the calls; repeats are counted from anew."""
        repeated, self.repeated = self.repeated, Counter()
        if repeated:
            kinds = ", ".join(f"{name} {number}" for name, number in sorted(repeated.items()))
            number = sum(repeated.values())
            calls = "1 call was" if number == 1 else f"{number} calls were"
            yield f"{calls} repeated after an error that passes ({kinds})"
        if self.noise > 0:
            yield (
                f"the same image, asked for again {self.asked_again} times during the run: its "
                f"similarities differ by up to {self.noise:.2g} from the first answer"
            )

"""Checks of single words and lists in a suite file, for pydantic."""

import re

REFUSED_MARKS = frozenset(
    {"filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail"}
)
"""Marks of pytest that need arguments or would change a verdict."""
NAME = "^[A-Za-z][A-Za-z0-9_-]{0,79}$"
"""Pattern of the name of a suite, a check or a subject."""
DEVICE = "^(auto|cpu|cuda(:[0-9]{1,3})?)$"
"""Pattern of the name of a device."""
MOST_LOOKS = 10
"""Most planned looks at a cell that is extended."""
LOOKS = ({"type": "integer", "minimum": 2, "maximum": MOST_LOOKS}, {"const": "open"})
"""What a JSON Schema says of looks."""


def name(text: str) -> str:
    """Return the name of a suite, a check or a subject.

    Raises:
        ValueError: If it is none; the message says what was expected.
    """
    if not re.fullmatch(NAME[1:-1], text):
        raise ValueError("expected a letter, then letters, digits, '-' and '_', 80 at most")
    return text


def device(text: str) -> str:
    """Return the name of a device.

    Raises:
        ValueError: If it is none; the message says what was expected.
    """
    if not re.fullmatch(DEVICE[1:-1], text):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return text


def mark(text: str) -> str:
    """Return the name of a mark.

    Raises:
        ValueError: If it is none; the message says what was expected.
    """
    if name(text) in REFUSED_MARKS or "-" in text:
        raise ValueError("expected the plain name of a pytest mark that does not change verdicts")
    return text


def check_id(text: str) -> str:
    """Return the id of a check.

    Raises:
        ValueError: If it is none; the message says what was expected.
    """
    if re.match(r"(setup|teardown|setUp|tearDown|pytest)", text):
        raise ValueError("expected a name that has no special meaning for pytest")
    return text


def pinned(value: object) -> object:
    """Return a value on an axis of conditions: text or a float.

    Raises:
        ValueError: If it is none; the message says what was expected.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected text or a number")
    return value if isinstance(value, str) else float(value)


def looks(value: object) -> object:
    """Return how often a cell is looked at: a number, or ``open``.

    Raises:
        ValueError: If it is none; the message says what was expected.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value != "open" and not (is_number and 2 <= value <= MOST_LOOKS):  # type: ignore[operator]
        raise ValueError(f"expected 2 to {MOST_LOOKS} looks, or open")
    return value

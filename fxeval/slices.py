"""Slices: the groups of rows that the words of one column of the data make.

A column is one of a list's own (a value for each pair) or an attribute of the images (a value for
each image). A value becomes a word, and every metric has a value among the rows of each word. The
names of columns and the words are the user's and stand in records, so no column may name people.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from fxeval.errors import DataContractError
from fxeval.strict.text import brief, printable

AttributeValue: TypeAlias = str | float | bool | None
"""Printable text of at most 255 characters, a finite number, true or false; None = not known."""

UNKNOWN = "unknown"
"""Word of the rows whose value is not known."""
MIXED = "mixed"
"""Word of the rows in which both images are perturbed, and whose words differ."""
MAX_NUMBERS = 12
"""Most different numbers of a column that are words as they are; more of them need edges."""
MAX_WORDS = 30
"""Most different words of a column."""
LONGEST_NAME = 64
"""Most characters in the name of a column."""
LONGEST_WORD = 255


@dataclass(frozen=True)
class Slice:
    """A column by whose words the results of a check are told apart.

    Attributes:
        column: Name of the column.
        edges: Ascending numbers that part the numbers of the column: n edges make n + 1 words, and
            an edge belongs to the word above it. () = every value is a word.
    """

    column: str
    edges: tuple[float, ...] = ()

    def words(self) -> tuple[str, ...]:
        """Return the words that the edges make, from the lowest; () without edges.

        >>> Slice("yaw", (-15, 15)).words()
        ('below -15', '-15 to 15', '15 or more')
        """
        ends = [in_words(edge) for edge in self.edges]
        if not ends:
            return ()
        between = [f"{low} to {high}" for low, high in pairwise(ends)]
        return (f"below {ends[0]}", *between, f"{ends[-1]} or more")

    def word_of(self, value: AttributeValue) -> str:
        """Return the word of one value.

        >>> Slice("yaw", (-15, 15)).word_of(15.0), Slice("glasses").word_of(True)
        ('15 or more', 'true')
        """
        if value is None or value == "":
            return UNKNOWN
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return value
        if not self.edges:
            return in_words(value)
        return self.words()[sum(value >= edge for edge in self.edges)]

    def ordered(self, words: Iterable[str]) -> list[str]:
        """Return words in the order of the edges, of their numbers, or of the alphabet.

        The words of rows without a value of their own come last.

        >>> Slice("age").ordered(["unknown", "100", "20"])
        ['20', '100', 'unknown']
        """
        place = {word: number for number, word in enumerate(self.words())}

        def key(word: str) -> tuple[int, float, str]:
            if word in (UNKNOWN, MIXED):
                return 3, 0.0, word
            if word in place:
                return 0, place[word], word
            number = number_of(word)
            return (2, 0.0, word) if number is None else (1, number, word)

        return sorted(words, key=key)


def check_values(slice_: Slice, values: Sequence[AttributeValue], n_people: int) -> str:
    """Return why the values of a column make no slices of a list; "" if they do.

    The answer quotes no value: what is refused here may name people.

    Args:
        slice_: The column.
        values: All its values, over the whole list.
        n_people: Number of people on the list.
    """
    known = [one for one in values if one is not None and one != ""]
    is_text = [isinstance(one, str | bool) for one in known]
    if not known:
        return "has no value"
    if slice_.edges and any(is_text):
        return f"has edges, and {sum(is_text)} of its {len(known)} values are no numbers"
    words = {slice_.word_of(one) for one in known}
    if slice_.edges:
        return ""
    if not any(is_text) and len(words) > MAX_NUMBERS:
        return (
            f"holds {len(words)} different numbers, more than {MAX_NUMBERS}; expected edges, such "
            "as {column: NAME, edges: [-15, 15]}"
        )
    if len(words) > MAX_WORDS:
        return f"holds {len(words)} different words; expected at most {MAX_WORDS}"
    if len(words) > 1 and len(words) >= n_people:
        return (
            f"holds as many words as the list has people, or more ({len(words)} words, {n_people} "
            "people); words stand in records, and none may name a person"
        )
    return ""


def check_columns(
    owner: str, given: object, n: int
) -> dict[str, tuple[AttributeValue, ...]]:  # fmt: skip
    """Return columns of attributes as tuples of plain values.

    Args:
        owner: Whose they are, for messages.
        given: Name to n values; numbers of numpy and tensors are taken as numbers, NaN as None.
        n: Number of values in each column.

    Raises:
        DataContractError: If they are something else.
    """
    if not isinstance(given, Mapping):
        raise _fault(owner, "expected attributes by name", f", got {type(given).__name__}")
    found = {}
    for number, (name, column) in enumerate(given.items(), start=1):
        if fault := name_fault(name):
            said = f"attribute {number}: expected a name {fault}"
            raise _fault(owner, said, f", got {printable(brief(repr(name)))}")
        plain: Any = column.tolist() if hasattr(column, "tolist") else column
        if isinstance(plain, str) or not isinstance(plain, Sequence) or len(plain) != n:
            size = f"{len(plain)} values" if isinstance(plain, list | tuple) else type(plain)
            raise _fault(
                owner, f"attribute {number}: expected {n} values", f", got {size} for '{name}'"
            )
        found[str(name)] = tuple(_plain(owner, number, name, value) for value in plain)
    return found


def name_fault(name: object) -> str:
    """Say what the name of a column must be; "" if it is.

    >>> name_fault("glasses"), name_fault(" x")
    ('', 'of 1 to 64 printable characters, without spaces around it')
    """
    is_fit = (
        isinstance(name, str)
        and name.isprintable()
        and name == name.strip()
        and 0 < len(name) <= LONGEST_NAME
    )
    return "" if is_fit else (
        f"of 1 to {LONGEST_NAME} printable characters, without spaces around it"
    )  # fmt: skip


def in_words(value: float) -> str:
    """Write a number as a word.

    >>> in_words(15.0), in_words(-0.0), in_words(0.1)
    ('15', '0', '0.1')
    """
    return f"{value + 0.0:.12g}"


def number_of(text: str) -> float | None:
    """Return the finite number that a text writes in the usual form; None if it writes none.

    >>> number_of("-1.5"), number_of("nan"), number_of("1_0")
    (-1.5, None, None)
    """
    if not text or set(text) - set("+-.0123456789eE"):
        return None
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _plain(owner: str, number: int, name: str, value: object) -> AttributeValue:
    plain: object = value.item() if hasattr(value, "item") else value
    if plain is None or isinstance(plain, bool):
        return plain
    if isinstance(plain, int | float) and abs(plain) <= sys.float_info.max:
        return float(plain)
    if isinstance(plain, float) and math.isnan(plain):
        return None
    if isinstance(plain, str) and plain.isprintable() and len(plain) <= LONGEST_WORD:
        return plain.strip()
    raise _fault(
        owner,
        f"attribute {number}: expected printable text of at most {LONGEST_WORD} characters, finite "
        "numbers, true, false or None",
        f", got {printable(brief(repr(plain)))} for '{name}'",
    )


def _fault(owner: str, said: str, private: str) -> DataContractError:
    return DataContractError(f"{owner}: {said}{private}.", public=f"{owner}: {said}.")

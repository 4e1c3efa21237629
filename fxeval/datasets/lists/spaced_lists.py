"""Lists of images ``identity/number`` and labels, separated by spaces or tabs."""

import re
from dataclasses import dataclass

from fxeval.datasets.faults import each, of_list
from fxeval.datasets.lists.formats import read_as
from fxeval.datasets.lists.pair_lines import PairLine, check_distinct, check_labels
from fxeval.datasets.lists.pair_lists import PairList
from fxeval.datasets.lists.tables import check_triplets
from fxeval.datasets.text_files import lines_of
from fxeval.strict.text import brief


@dataclass(frozen=True)
class ListedPairs(PairList):
    """Pairs as lines ``Ann/0001 Ann/0002 1``: two images, then 1 (mated) or 0, then notes.

    An image is named by identity and number; lines that start with ``#`` are comments.
    """

    def lines(self) -> list[PairLine]:
        """Parse the list; see :func:`parse_listed_pairs`."""
        return read_as("listed", self.path, parse_listed_pairs)


@dataclass(frozen=True)
class ListedTriplets(PairList):
    """Triplets as lines ``Ann/0001 Ann/0002 Bob/0001``: anchor, mate, nonmate; then notes."""

    def lines(self) -> list[PairLine]:
        """Parse the list; see :func:`parse_listed_triplets`."""
        return read_as("listed_triplets", self.path, parse_listed_triplets)


def parse_listed_pairs(text: str, where: str) -> list[PairLine]:
    r"""Parse a list of pairs.

    Args:
        text: The file's text.
        where: Its path, for messages.

    Returns:
        The pairs in the order of the list.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.

    >>> [line.is_mated for line in parse_listed_pairs("Ann/1 Ann/2 1\nAnn/1 Bob/1 0", "x")]
    [True, False]
    """

    def parse(row: tuple[list[str], str]) -> tuple[PairLine, bool]:
        fields, place = row
        if fields[2] not in ("0", "1"):
            raise of_list(
                place,
                "expected 'identity/number identity/number 1' (mated) or 0",
                f", got the label '{brief(fields[2])}'",
            )
        return _line(fields[:2], place), fields[2] == "1"

    found = each(_fields(text, where), parse)
    lines = [line for line, _ in found]
    check_distinct(lines)
    check_labels(lines, [label for _, label in found])
    return lines


def parse_listed_triplets(text: str, where: str) -> list[PairLine]:
    """Parse a list of triplets; see :func:`parse_listed_pairs`."""
    lines = each(_fields(text, where), lambda row: _line(row[0][:3], row[1]))
    check_distinct(lines)
    check_triplets(lines)
    return lines


def _fields(text: str, where: str) -> list[tuple[list[str], str]]:
    """Return the columns and the place of each line; all have the same number, at least three."""
    rows = [
        (line.split(), f"{where}:{number}")
        for number, line in enumerate(lines_of(text, where), start=1)
        if not line.startswith("#")
    ]
    if not rows:
        raise of_list(where, "expected at least one line, got none")
    n_columns = max(3, len(rows[0][0]))

    def check(row: tuple[list[str], str]) -> None:
        if len(row[0]) != n_columns:
            raise of_list(
                row[1],
                f"expected {n_columns} columns, as in the first line, got {len(row[0])}",
                f": '{brief(' '.join(row[0]))}'",
            )

    each(rows, check)
    return rows


_IMAGE = re.compile(r"(?P<identity>[^/]+)/(?P<number>[0-9]{1,9})", re.ASCII)


def _line(fields: list[str], where: str) -> PairLine:
    images = []
    for field in fields:
        named = _IMAGE.fullmatch(field)
        if not named:
            raise of_list(
                where, "expected an image as 'identity/number'", f", got '{brief(field)}'"
            )
        images.append((named["identity"], int(named["number"])))
    return PairLine(tuple(images), tuple(identity for identity, _ in images), where)

"""Pair lists over flat folders: CALFW and CPLFW, and Patch-LFW."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fxeval.datasets.faults import each, of_list
from fxeval.datasets.lists.formats import read_as
from fxeval.datasets.lists.pair_lines import (
    PairLine,
    check_distinct,
    check_labels,
    image_path,
    inferred,
)
from fxeval.datasets.lists.pair_lists import PairList
from fxeval.datasets.lists.tables import identities_of
from fxeval.datasets.text_files import lines_of
from fxeval.strict.text import brief

N_FOLDS = 10
"""Folds of the protocol."""


@dataclass(frozen=True)
class FlatPairs(PairList):
    """The pair list of CALFW or CPLFW over its folder of images.

    Identities come from file names: ``Ann_0001.jpg`` and ``Ann_1.jpg`` are images of Ann.

    Attributes:
        n_folds: Folds of the verification protocol.
    """

    n_folds: int = N_FOLDS

    def lines(self) -> list[PairLine]:
        """Parse the list; see :func:`parse_flat`."""

        def parse(text: str, where: str) -> list[PairLine]:
            return parse_flat(text, where, self.n_folds)

        return read_as(("calfw", "cplfw"), self.path, parse)


@dataclass(frozen=True)
class PatchPairs(PairList):
    """A Patch-LFW list over its folder of images.

    The list does not name identities. They come from a table or, without one, from the mated pairs:
    images linked by mated pairs are treated as one person. That gives too many identities, because
    an image in no mated pair is treated as a person of its own.

    Attributes:
        identities_file: CSV with ``img`` and ``identity``; a relative path starts at the root; None
            = identities follow from the mated pairs.
    """

    identities_file: Path | None = None

    def lines(self) -> list[PairLine]:
        """Parse the list; see :func:`parse_patch`."""
        known = identities_of(self.root, self.identities_file)

        def parse(text: str, where: str) -> list[PairLine]:
            return parse_patch(text, where, known)

        return read_as("patch_lfw", self.path, parse)


_NAME = re.compile(r"(?P<identity>.+)_[0-9]+\.[A-Za-z]+")


def parse_flat(text: str, where: str, n_folds: int = N_FOLDS) -> list[PairLine]:
    r"""Parse a list in the format of CALFW and CPLFW.

    There is no header. A pair is two lines ``file label``, both with the same label: 0 if it is
    nonmated, otherwise mated (CALFW writes the number of a fold). All mated pairs come first, then
    as many nonmated ones. Format: ``test_protocol/lfw/pairs_parser.py`` of JDAI-CV/FaceX-Zoo.

    Args:
        text: The file's text.
        where: Its path, for messages.
        n_folds: Number of folds to make.

    Returns:
        The pairs fold by fold; each fold has some mated pairs, then as many nonmated ones.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.

    >>> text = "Ann_1.jpg 1\nAnn_2.jpg 1\nAnn_1.jpg 0\nBob_1.jpg 0"
    >>> [(line.is_mated, line.fold) for line in parse_flat(text, "x", 1)]
    [(True, 0), (False, 0)]
    """
    numbered = list(enumerate(lines_of(text, where), start=1))
    entries = each(numbered, lambda line: _entry(line[1], f"{where}:{line[0]}"))
    if n_folds < 1 or len(entries) % (4 * n_folds):
        raise of_list(
            where,
            "expected two lines per pair, and as many mated as nonmated pairs in each of "
            f"{n_folds} folds, got {len(entries)} lines",
            then="The list is truncated or 'n_folds' is wrong.",
        )
    pairs = list(zip(entries[::2], entries[1::2], strict=True))
    half = len(pairs) // 2

    def parse(row: int) -> PairLine:
        (one, label), (two, label_again) = pairs[row]
        place = f"{where}:{2 * row + 1}"
        if label != label_again:
            raise of_list(
                place,
                f"expected the same label on both lines of a pair, got {label} and {label_again}",
                then="A line is missing or a label is wrong.",
            )
        if bool(label) != (row < half):
            kind = "a mated pair (label from 1)" if row < half else "a nonmated pair (label 0)"
            raise of_list(
                place,
                f"expected {kind}, got label {label}",
                then=f"The first {half} pairs must be mated, all others nonmated.",
            )
        people = _identity(one, place), _identity(two, place)
        return PairLine((one, two), people, place, row % half * n_folds // half)

    lines = each(range(len(pairs)), parse)
    check_labels(lines, [row < half for row in range(len(lines))])
    each(lines, lambda line: check_distinct([line]))
    return sorted(lines, key=lambda line: line.fold or 0)  # stable: mated pairs stay in front


def _entry(line: str, where: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2 or not re.fullmatch("[0-9]{1,3}", fields[1], re.ASCII):
        raise of_list(
            where, "expected 'file label' with a label of 0, 1, 2, ...", f", got '{brief(line)}'"
        )
    return image_path(fields[0], where), int(fields[1])


def _identity(file: str, where: str) -> str:
    named = _NAME.fullmatch(file.rpartition("/")[2])
    if not named:
        raise of_list(
            where,
            "expected a file named by identity and number, such as 'Ann_0001.jpg'",
            f", got '{brief(file)}'",
        )
    return named["identity"]


def parse_patch(
    text: str, where: str, identities: Mapping[str, str] | None = None
) -> list[PairLine]:
    r"""Parse a list of lines ``00001.jpg 00002.jpg 1``, label 1 (mated) or -1 (nonmated).

    Format: ``utils_os.py`` of marcohuber/xSSAB.

    Args:
        text: The file's text.
        where: Its path, for messages.
        identities: Person in each image; None = see :func:`inferred`.

    Returns:
        The pairs in the order of the file.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.

    >>> [line.is_mated for line in parse_patch("1.jpg 2.jpg 1\n3.jpg 1.jpg -1", "x")]
    [True, False]
    """

    def parse(numbered: tuple[int, str]) -> tuple[str, str, bool, str]:
        number, line = numbered
        place, fields = f"{where}:{number}", line.split()
        if len(fields) != 3 or fields[2] not in ("1", "-1"):
            raise of_list(
                place,
                "expected 'file file 1' (mated) or 'file file -1' (nonmated)",
                f", got '{brief(line)}'",
            )
        one, two = (image_path(field, place) for field in fields[:2])
        return one, two, fields[2] == "1", place

    pairs = each(enumerate(lines_of(text, where), start=1), parse)
    return inferred(pairs, identities)

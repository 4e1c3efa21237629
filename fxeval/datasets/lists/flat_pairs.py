"""Pair lists over flat folders: CALFW and CPLFW, and Patch-LFW."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fxeval.datasets.faults import of_list
from fxeval.datasets.lists.pair_lines import (
    PairLine,
    check_distinct,
    check_labels,
    image_path,
    inferred,
)
from fxeval.datasets.lists.pair_lists import PairList
from fxeval.datasets.lists.tables import identities_of
from fxeval.datasets.text_files import lines_of, read_text
from fxeval.strict.text import brief

N_FOLDS = 10
"""Folds of the protocol."""


@dataclass(frozen=True)
class FlatPairs(PairList):
    """The pair list of CALFW or CPLFW over its folder of images.

    Identities come from the files' names, ``Ann_0001.jpg`` or ``Ann_1.jpg`` being an image of Ann.

    Attributes:
        n_folds: Folds of the verification protocol.
    """

    n_folds: int = N_FOLDS

    def lines(self) -> list[PairLine]:
        """Parse the list; see :func:`parse_flat`."""
        return parse_flat(read_text(self.path), str(self.path), self.n_folds)


@dataclass(frozen=True)
class PatchPairs(PairList):
    """A Patch-LFW list over its folder of images.

    The list does not say who is in an image. Either a table does, or images that the list calls
    mated, directly or through others, are taken to be of one identity, and all others of different
    ones. Identities are then too many: an image that is in no mated pair stands alone.

    Attributes:
        identities_file: CSV with ``img`` and ``identity``; a relative path starts at the root; None
            = identities follow from the mated pairs.
    """

    identities_file: Path | None = None

    def lines(self) -> list[PairLine]:
        """Parse the list; see :func:`parse_patch`."""
        known = identities_of(self.root, self.identities_file)
        return parse_patch(read_text(self.path), str(self.path), known)


_NAME = re.compile(r"(?P<identity>.+)_[0-9]+\.[A-Za-z]+")


def parse_flat(text: str, where: str, n_folds: int = N_FOLDS) -> list[PairLine]:
    r"""Parse a list in the format of CALFW and CPLFW.

    No header; lines ``file label``, two lines a pair, the label on both: 0 nonmated, else mated
    (CALFW writes the number of a fold). All mated pairs come first, then as many nonmated ones.
    Format: ``test_protocol/lfw/pairs_parser.py`` of JDAI-CV/FaceX-Zoo.

    Args:
        text: The file's text.
        where: Its path, for messages.
        n_folds: Folds to make.

    Returns:
        The pairs fold by fold: each has the same number of mated pairs, then of nonmated ones.

    Raises:
        DataContractError: With ``file:line``, expected and found.

    >>> text = "Ann_1.jpg 1\nAnn_2.jpg 1\nAnn_1.jpg 0\nBob_1.jpg 0"
    >>> [(line.is_mated, line.fold) for line in parse_flat(text, "x", 1)]
    [(True, 0), (False, 0)]
    """
    entries = [_entry(line, f"{where}:{n}") for n, line in enumerate(lines_of(text, where), 1)]
    if n_folds < 1 or len(entries) % (4 * n_folds):
        raise of_list(
            where,
            f"expected two lines a pair and in each of {n_folds} folds as many mated as nonmated "
            f"pairs, got {len(entries)} lines",
            then="The list is cut or 'n_folds' wrong.",
        )
    pairs = list(zip(entries[::2], entries[1::2], strict=True))
    half = len(pairs) // 2
    lines = []
    for row, ((one, label), (two, label_again)) in enumerate(pairs):
        place = f"{where}:{2 * row + 1}"
        if label != label_again:
            raise of_list(
                place,
                f"expected the same label on both lines of a pair, got {label} and {label_again}",
                then="A line is missing or its label wrong.",
            )
        if bool(label) != (row < half):
            kind = "a mated pair (label 1 or more)" if row < half else "a nonmated pair (label 0)"
            raise of_list(
                place,
                f"expected {kind}, got label {label}",
                then=f"The first {half} pairs are mated, all others nonmated.",
            )
        lines.append(
            PairLine(
                (one, two), (_identity(one, place), _identity(two, place)), place,
                row % half * n_folds // half,
            )
        )  # fmt: skip
    check_labels(lines, [row < half for row in range(len(lines))])
    for line in lines:
        check_distinct([line])
    return sorted(lines, key=lambda line: line.fold or 0)  # stable: mated ones stay in front


def _entry(line: str, where: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2 or not re.fullmatch("[0-9]{1,3}", fields[1], re.ASCII):
        raise of_list(
            where, "expected 'file label' with a label of 0, 1, 2 ...", f", got '{brief(line)}'"
        )
    return image_path(fields[0], where), int(fields[1])


def _identity(file: str, where: str) -> str:
    named = _NAME.fullmatch(file.rpartition("/")[2])
    if not named:
        raise of_list(
            where,
            "expected a file such as 'Ann_0001.jpg', an identity and a number",
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
        identities: Who is in each image; None = see :func:`inferred`.

    Returns:
        The pairs in the order of the file.

    Raises:
        DataContractError: With ``file:line``, expected and found.

    >>> [line.is_mated for line in parse_patch("1.jpg 2.jpg 1\n3.jpg 1.jpg -1", "x")]
    [True, False]
    """
    pairs = []
    for number, line in enumerate(lines_of(text, where), start=1):
        place, fields = f"{where}:{number}", line.split()
        if len(fields) != 3 or fields[2] not in ("1", "-1"):
            raise of_list(
                place,
                "expected 'file file 1' (mated) or 'file file -1' (nonmated)",
                f", got '{brief(line)}'",
            )
        one, two = (image_path(field, place) for field in fields[:2])
        pairs.append((one, two, fields[2] == "1", place))
    return inferred(pairs, identities)

"""Pairs, triplets and identities as comma-separated tables over a folder of faces.

The tables are UTF-8 with one row per line and no empty lines. The first line holds the column names
exactly as given here, in any order. Images are paths relative to the folder. A cell that starts
like a formula is plain text. Tables of pairs may have further columns, by which a check may tell
its results apart (``slices``); their cells may be empty.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fxeval.contracts import DataCard, Exclusion, IdentityListing
from fxeval.datasets.faces.face_folder import ImageKey
from fxeval.datasets.faces.manifests import digest_of
from fxeval.datasets.faults import bare, each, of_list
from fxeval.datasets.lists.absent_images import absence, reason_of
from fxeval.datasets.lists.formats import read_as
from fxeval.datasets.lists.further_columns import MAX_COLUMNS, check_further
from fxeval.datasets.lists.pair_lines import (
    PairLine,
    check_distinct,
    check_labels,
    image_path,
    inferred,
)
from fxeval.datasets.lists.pair_lists import ImageList, PairList, by_turns
from fxeval.datasets.text_files import lines_of, read_text
from fxeval.redaction import PublicReason
from fxeval.seeding import seed_of
from fxeval.strict.text import brief

_SAME = PublicReason("another file holds the same image")
_LABELS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class CsvPairs(PairList):
    """A table of pairs: ``img1,img2,label,id1,id2`` and, if it has folds, ``fold``.

    ``label`` is 1 or true (mated), 0 or false; folds are numbers, counted up from the smallest.
    """

    def lines(self) -> list[PairLine]:
        """Parse the table; see :func:`parse_csv_pairs`."""
        return read_as("csv", self.path, parse_csv_pairs)


@dataclass(frozen=True)
class CsvTriplets(PairList):
    """A table of triplets: ``anchor,mate,nonmate,anchor_id,mate_id,nonmate_id``.

    The anchor is the probe, the mate its reference, the nonmate the contrast.
    """

    def lines(self) -> list[PairLine]:
        """Parse the table; see :func:`parse_csv_triplets`."""
        return read_as("csv_triplets", self.path, parse_csv_triplets)


@dataclass(frozen=True)
class GalleryProbePairs(PairList):
    """A protocol table of FAME: ``G,P,T``, that is gallery image, probe image, 1 (mated) or 0.

    Format: ``fame/data/pairs.py`` of AIML-IfI/fame, whose crops are in HDF5 files; here they are
    images at the paths in the table. The table does not name identities. They come from another
    table or, without one, from the mated pairs (``pair_lines.inferred``).

    Attributes:
        identities_file: CSV with ``img`` and ``identity``; a relative path starts at the root; None
            = identities follow from the mated pairs.
    """

    identities_file: Path | None = None

    def lines(self) -> list[PairLine]:
        """Parse the table; see :func:`parse_gallery_probe`."""
        known = identities_of(self.root, self.identities_file)

        def parse(text: str, where: str) -> list[PairLine]:
            return parse_gallery_probe(text, where, known)

        return read_as("gallery_probe", self.path, parse)


@dataclass(frozen=True)
class CsvIdentities(ImageList):
    """A table of images: ``img,identity`` and, if it has parts, ``split``.

    Implements ``IdentitySource``.

    Attributes:
        shared_identities: Whether an identity may be in several splits.
    """

    shared_identities: bool = False

    def identities(self) -> IdentityListing:
        """Return all images, or those of the subset, in the order of the table.

        If two files have the same content, the second is excluded.

        Raises:
            DataContractError: With ``file:line``, if a row is wrong or its image is missing.
        """
        text, where = read_text(self.path), str(self.path)
        rows = parse_identities(text, where, self.shared_identities)
        kept: dict[str, IdentityRow] = {}
        excluded: list[Exclusion] = []
        missing: dict[ImageKey, str] = {}
        for row in rows:
            face = self.folder.find(row.image)
            if face is None:
                missing[row.image] = row.where
                reason = reason_of(self.folder, [row.image], "the image")
                excluded.append(Exclusion(digest_of(row.image), reason))
            elif kept.setdefault(face.id, row) is not row:
                if kept[face.id].identity != row.identity:
                    raise of_list(
                        row.where,
                        "expected one identity for images of the same content, got another in "
                        f"{bare(kept[face.id].where)}",
                        then="Correct one of the two.",
                    )
                excluded.append(Exclusion(face.id, _SAME))
        if missing and (self.on_missing == "error" or not kept):
            counted = f"{len(missing)} of {len(rows)} images are not in the folder"
            raise absence(missing, self.folder, f"{bare(where)}: {counted}")
        self.check_size(len(kept))
        ids = self._chosen(kept)
        return IdentityListing(
            image=tuple(ids),
            identity=tuple(digest_of(kept[image_id].identity) for image_id in ids),
            split=tuple(kept[image_id].split for image_id in ids) if rows[0].split else (),
            excluded=tuple(excluded),
        )

    def card(self) -> DataCard:
        """Describe the folder or, without manifest, the images in it that the table names."""
        return self.folder.card(set(self.identities().image))

    def _chosen(self, kept: "Mapping[str, IdentityRow]") -> list[str]:
        ids = list(kept)
        if self.subset is None:
            return ids
        order = sorted(range(len(ids)), key=lambda row: seed_of(self.seed, "subset", ids[row]))
        turns = by_turns(order, [kept[ids[row]].identity for row in order])
        return [ids[row] for row in sorted(turns[: self.subset])]


class IdentityRow(NamedTuple):
    """One row of a table of images; ``split`` is "" if the table has none."""

    image: str
    identity: str
    split: str
    where: str


def parse_csv_pairs(text: str, where: str) -> list[PairLine]:
    """Parse a table of pairs.

    Args:
        text: The file's text.
        where: Its path, for messages.

    Returns:
        The pairs in the order of the table.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.
    """
    rows = _rows(text, where, ("img1", "img2", "label", "id1", "id2"), ("fold",), more=True)
    labels = each(rows, lambda row: _label(row[0]["label"], row[1]))
    folds: list[int] | list[None] = [None] * len(rows)
    if "fold" in rows[0][0]:
        given = each(rows, lambda row: _fold(row[0]["fold"], row[1]))
        number = {fold: index for index, fold in enumerate(sorted(set(given)))}
        folds = [number[fold] for fold in given]
    lines = [
        replace(line, fold=fold)
        for line, fold in zip(
            _lines(rows, ("img1", "img2"), ("id1", "id2"), ("label", "fold")), folds, strict=True
        )
    ]
    check_distinct(lines)
    check_labels(lines, labels)
    return lines


def _lines(
    rows: list[tuple[dict[str, str], str]],
    images: tuple[str, ...],
    people: tuple[str, ...],
    others: tuple[str, ...] = (),
) -> list[PairLine]:
    def line(row: tuple[dict[str, str], str]) -> PairLine:
        cells, place = row
        files = tuple(image_path(cells[name], place) for name in images)
        known = {*images, *people, *others}
        more = {name: cell for name, cell in cells.items() if name not in known}
        return PairLine(files, tuple(cells[name] for name in people), place, attributes=more)

    return each(rows, line)


def parse_csv_triplets(text: str, where: str) -> list[PairLine]:
    """Parse a table of triplets; see :func:`parse_csv_pairs`."""
    kinds = ("anchor", "mate", "nonmate")
    people = tuple(f"{kind}_id" for kind in kinds)
    lines = _lines(_rows(text, where, (*kinds, *people), more=True), kinds, people)
    check_distinct(lines)
    check_triplets(lines)
    return lines


def check_triplets(lines: list[PairLine]) -> None:
    """Compare the identities within each triplet.

    Raises:
        DataContractError: With ``file:line``, if anchor and mate differ or the nonmate is a mate.
    """
    check_labels(lines, [True] * len(lines))

    def check(line: PairLine) -> None:
        if line.identities[2] == line.identities[0]:
            raise of_list(
                line.where,
                "expected a nonmate of another identity",
                f", got '{brief(line.identities[2])}', the identity of the anchor",
                "Give an image of another person.",
            )

    each(lines, check)


def parse_gallery_probe(
    text: str, where: str, identities: Mapping[str, str] | None = None
) -> list[PairLine]:
    """Parse a ``G,P,T`` table: the probe is explained, the gallery image is its reference.

    Args:
        text: The file's text.
        where: Its path, for messages.
        identities: Person in each image; None = see ``pair_lines.inferred``.

    Returns:
        The pairs in the order of the table.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.
    """

    def parse(row: tuple[dict[str, str], str]) -> tuple[str, str, bool, str]:
        cells, place = row
        one, two = (image_path(cells[name], place) for name in "PG")
        return one, two, _label(cells["T"], place), place

    return inferred(each(_rows(text, where, ("G", "P", "T")), parse), identities)


def parse_identities(text: str, where: str, shared_identities: bool = True) -> list[IdentityRow]:
    """Parse a table of images.

    Args:
        text: The file's text.
        where: Its path, for messages.
        shared_identities: Whether an identity may be in several splits.

    Returns:
        The rows in the order of the table.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.
    """
    images: dict[str, str] = {}
    splits: dict[str, IdentityRow] = {}

    def parse(given: tuple[dict[str, str], str]) -> IdentityRow:
        cells, place = given
        row = IdentityRow(
            image_path(cells["img"], place), cells["identity"], cells.get("split", ""), place
        )
        if (first := images.setdefault(row.image, place)) != place:
            raise of_list(
                place, f"repeats the image in {bare(first)}", f" ('{brief(row.image)}')",
                "Remove one of the two rows.",
            )  # fmt: skip
        other = splits.setdefault(row.identity, row)
        if other.split != row.split and not shared_identities:
            raise of_list(
                place,
                f"expected each identity in one split, got two (here and in {bare(other.where)})",
                f": '{brief(row.identity)}' in '{brief(row.split)}' and '{brief(other.split)}'",
                "Move its images, or set 'shared_identities: true'.",
            )
        return row

    return each(_rows(text, where, ("img", "identity"), ("split",)), parse)


def identities_of(root: Path, file: Path | None) -> dict[str, str] | None:
    """Return the person in each image; None without a table. See :func:`parse_identities`."""
    if file is None:
        return None
    path = root / file
    return {row.image: row.identity for row in parse_identities(read_text(path), str(path))}


def _label(cell: str, where: str) -> bool:
    if cell.lower() not in _LABELS:
        raise of_list(
            where, "expected a label of 1 or true (mated), 0 or false", f", got '{brief(cell)}'"
        )
    return _LABELS[cell.lower()]


def _fold(cell: str, where: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", cell, re.ASCII):
        raise of_list(where, "expected the number of a fold", f", got '{brief(cell)}'")
    return int(cell)


def _rows(
    text: str,
    where: str,
    needed: tuple[str, ...],
    optional: tuple[str, ...] = (),
    *,
    more: bool = False,
) -> list[tuple[dict[str, str], str]]:
    """Return the cells by column and the place of each row; there is at least one row.

    With ``more``, the table may have further columns, with cells that may be empty.
    """
    header, *lines = lines_of(text, where)
    columns = _cells(header, f"{where}:1")
    further = [name for name in columns if name not in (*needed, *optional)]
    missing = [name for name in needed if name not in columns]
    unknown = [] if more and not missing else further
    if unknown or missing or len(set(columns)) < len(columns):
        known = f"{','.join(needed)}{''.join(f'[,{name}]' for name in optional)}"
        faults = [
            f"{word} {', '.join(repr(brief(name)) for name in names[:MAX_COLUMNS])}"
            for word, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise of_list(
            f"{where}:1",
            f"expected the columns {known}, each once, separated by commas",
            f", got '{brief(header)}' ({'; '.join(faults) or 'a repeated column'})",
        )
    check_further(further, (*needed, *optional), f"{where}:1")
    if not lines:
        raise of_list(where, "expected at least one row after the header, got none")

    def parse(numbered: tuple[int, str]) -> tuple[dict[str, str], str]:
        place, line = f"{where}:{numbered[0]}", numbered[1]
        cells = _cells(line, place)
        is_fit = len(cells) == len(columns) and all(
            cell == cell.strip() and (cell or name in further)
            for name, cell in zip(columns, cells, strict=True)
        )
        if not is_fit:
            raise of_list(
                place,
                f"expected {len(columns)} cells ({','.join(columns)}), none of them empty or with "
                "spaces around it",
                f", got '{brief(line)}'",
            )
        return dict(zip(columns, cells, strict=True)), place

    return each(enumerate(lines, start=2), parse)


def _cells(line: str, where: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise of_list(where, "expected comma-separated cells", f" ({error})") from error

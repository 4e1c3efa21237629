"""Gives the rows of a cell their words in the columns that its check has slices of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from fxeval.contracts import PairListing, Pairs, PairSource
from fxeval.engine.row_kinds import Table
from fxeval.errors import DataContractError
from fxeval.hooks.attributes import check_attributes
from fxeval.metrics.protocol import Rows
from fxeval.metrics.questions import Likeness
from fxeval.slices import MIXED, AttributeValue, Slice, check_values
from fxeval.strict.text import suggestion

Perturbed = Literal["probe", "reference", "both"]
_OF_PAIRS = (
    "mated pairs",
    "compared pairs",
    "nearby pairs",
    "pairs",
    "nonmated pairs",
    "held-out pairs",
    "held-out mated pairs",
    "patched pairs",
    "occluded pairs",
    "triplets",
    "twins",
)


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a whole list and of its images.

    Attributes:
        source: The list's source.
        listing: The whole list.
    """

    source: PairSource
    listing: PairListing

    @property
    def set_aside(self) -> Counter[str]:
        """How many rows of the list are never explained, by the reason."""
        return Counter(reason for reason in self.listing.set_aside if reason)

    @cached_property
    def of_images(self) -> Mapping[str, Mapping[str, AttributeValue]]:
        """Attributes of all images by name, then by the image's id."""
        columns = self.listing.probe, self.listing.reference, self.listing.contrast
        ids = list(dict.fromkeys(image for column in columns for image in column))
        found = check_attributes(self.source, ids)
        return {name: dict(zip(ids, values, strict=True)) for name, values in found.items()}

    def check(self, slice_: Slice) -> None:
        """Refuse a column that does not exist, or makes no slices.

        Raises:
            DataContractError: Naming the column, and the columns that exist.
        """
        column, of_pairs = slice_.column, self.listing.attributes
        about = f"pairs '{self.source.name}'"
        if column not in of_pairs and column not in self.of_images:
            known = sorted({*of_pairs, *self.of_images})
            said = (
                f"{about}: neither the list nor its images have the column '{column}' of 'slices'"
            )
            there = f"there are: {', '.join(known)}." if known else "they have none."
            raise DataContractError(f"{said}; {suggestion(column, known) or there}", public=said)
        values = of_pairs.get(column) or [*self.of_images[column].values()]
        people = {*self.listing.probe_identity, *self.listing.reference_identity}
        if fault := check_values(slice_, values, len(people)):
            said = f"{about}: the column '{column}' of 'slices' {fault}"
            raise DataContractError(f"{said}.", public=said)


@dataclass(frozen=True, eq=False)
class Listed(Columns):
    """A list, and what of it a cell measures.

    Attributes:
        pairs: The loaded pairs.
        chosen: What of the list is loaded: the rows of ``pairs``.
    """

    pairs: Pairs
    chosen: PairListing


def with_words(table: Table, listed: Listed, slices: Sequence[Slice], parameters: object) -> Table:
    """Return the rows of a cell with their words; as they are if its check has no slices.

    Args:
        table: The rows.
        listed: Their list.
        slices: The columns.
        parameters: Of the check; its ``side``, if it has one, says which image it perturbs.

    Raises:
        DataContractError: If a column does not exist, or makes no slices.
    """
    if not slices:
        return table
    # A pair of maps is of both of its images.
    other: Perturbed = "both" if table.rows.kind == "map pairs" else "probe"
    return sliced(table, listed, slices, getattr(parameters, "side", other))


def sliced(table: Table, listed: Listed, slices: Sequence[Slice], side: Perturbed) -> Table:
    """Return the rows of a cell with their words.

    A pair has the word of the list's own column, if there is one of that name; else the word is
    that of the image that is perturbed. If both are, and their words differ, it is ``mixed``.

    Args:
        table: The rows.
        listed: Their list.
        slices: The columns.
        side: Which image of a pair the check perturbs.

    Raises:
        DataContractError: If a column does not exist, or makes no slices.
    """
    columns = {one.column: _words(table, listed, one, side) for one in slices}
    own = tuple(
        dict(zip(columns, words, strict=True)) for words in zip(*columns.values(), strict=True)
    )
    versions = {side: replace(rows, slices=own) for side, rows in table.versions.items()}
    return replace(table, rows=replace(table.rows, slices=own), versions=versions)


def _words(table: Table, listed: Listed, slice_: Slice, side: Perturbed) -> list[str]:
    listed.check(slice_)
    column = slice_.column
    if column in listed.listing.attributes:
        places = _pairs_of(table.rows, listed, column)
        values = listed.chosen.attributes[column]
        return [slice_.word_of(values[pair]) for pair in places]
    rows = [table.rows]
    other = table.versions.get("reference")
    if other is not None and side != table.rows.side:
        rows = [other] if side != "both" else [table.rows, other]
    found = [
        [slice_.word_of(listed.of_images[column][listed.pairs.image_ids[image]])
         for image in some.image.tolist()]
        for some in rows
    ]  # fmt: skip
    return [words[0] if len({*words}) == 1 else MIXED for words in zip(*found, strict=True)]


def _pairs_of(rows: Rows, listed: Listed, column: str) -> list[int]:
    """Return the loaded pair behind each row.

    Raises:
        DataContractError: If some row is no pair of the list.
    """
    if len(rows) == len(listed.pairs) and rows.kind in _OF_PAIRS:
        return list(range(len(rows)))
    pairs = listed.pairs
    place = {
        frozenset(pair): number
        for number, pair in enumerate(
            zip(pairs.probe.tolist(), pairs.reference.tolist(), strict=True)
        )
    }
    asked: list[frozenset[int]] = []
    if isinstance(rows.question, Likeness):
        others = rows.question.reference[:, 0].tolist()
        asked = [frozenset(pair) for pair in zip(rows.image.tolist(), others, strict=True)]
    is_made = column not in listed.chosen.attributes
    if is_made or len(asked) != len(rows) or any(pair not in place for pair in asked):
        said = (
            f"pairs '{listed.source.name}': the column '{column}' of 'slices' is one of pairs, and "
            f"rows of this kind ({rows.kind}) are no pairs of the list; use an attribute of the "
            "images"
        )
        raise DataContractError(f"{said}.", public=said)
    return [place[pair] for pair in asked]

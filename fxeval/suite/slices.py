"""The columns of the data by which a check tells its results apart, as a suite writes them."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag

from fxeval.slices import LONGEST_NAME, Slice, name_fault
from fxeval.strict.forms import Strict, branch

MAX_EDGES = 11
"""Most edges of a column."""


def _column(text: str) -> str:
    if fault := name_fault(text):
        raise ValueError(f"expected the name of a column {fault}")
    return text


def _ascending(edges: list[float]) -> list[float]:
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError("expected edges in ascending order, each once")
    return edges


_Column = Annotated[
    str,
    AfterValidator(_column),
    Field(json_schema_extra={"minLength": 1, "maxLength": LONGEST_NAME}),
]
_Edge = Annotated[float, Field(allow_inf_nan=False)]


class Parted(Strict):
    """A column of numbers, and where they are parted.

    Attributes:
        column: Name of the column.
        edges: Ascending numbers: [-15, 15] makes the slices "below -15", "-15 to 15" (with -15) and
            "15 or more".
    """

    column: _Column
    edges: Annotated[
        list[_Edge], Field(min_length=1, max_length=MAX_EDGES), AfterValidator(_ascending)
    ]


def _name_or_edges(entry: object) -> str:
    return branch("name" if isinstance(entry, str) else "edges")


ASlice = Annotated[
    Annotated[_Column, Tag(branch("name"))] | Annotated[Parted, Tag(branch("edges"))],
    Discriminator(_name_or_edges),
]


def column_of(entry: object) -> str | None:
    """Return the column that an entry of ``slices`` names; None if it could not be read."""
    found = entry.get("column") if isinstance(entry, dict) else entry
    return found if isinstance(found, str) else None


def slice_of(entry: str | Parted) -> Slice:
    """Return the column and its edges."""
    if isinstance(entry, str):
        return Slice(entry)
    return Slice(entry.column, tuple(entry.edges))

"""The looks of a cell that is measured further while it is undecided (``on_inconclusive: extend``).

Order and looks are fixed before anything is measured: by the suite's seed, the content of the rows
and their number.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from fxeval.records.form import Count, Form

Looking: TypeAlias = int | Literal["open"]
"""Number of planned looks, or any number of them."""

At: TypeAlias = Annotated[int, Field(ge=1)]


class Looks(Form):
    """The plan of the looks, and where the cell stopped.

    Attributes:
        kind: planned: each look has a level of its own, which keeps the promise over all of them;
            open: the interval holds at every look at once.
        units: What looks are shares of: identities, or rows, where a row belongs to two.
        identities: Number of identities by each look, together with those before; the last number
            is that of all.
        rows: Number of rows by each look, likewise.
        left_out: Number of looks with too few identities to pass anything; they are not listed.
        used: Number of looks that were taken.
        seed: Seed of the order.
        confidence: Of the intervals at the last look that was taken.
    """

    kind: Literal["planned", "open"]
    units: Literal["identities", "rows"]
    identities: Annotated[list[At], Field(min_length=1)]
    rows: Annotated[list[At], Field(min_length=1)]
    left_out: Count = 0
    used: At
    seed: Count
    confidence: float

    @model_validator(mode="after")
    def _is_a_plan(self) -> Self:
        if len(self.identities) != len(self.rows) or self.used > len(self.rows):
            raise ValueError(
                f"expected as many numbers of identities as of rows, and no more looks used, got "
                f"{len(self.identities)}, {len(self.rows)} and {self.used}"
            )
        counted = self.rows if self.units == "rows" else self.identities
        if any(a >= b for a, b in pairwise(counted)):
            raise ValueError(f"expected rising numbers of {self.units}, got {counted}")
        return self

    @property
    def times(self) -> tuple[float, ...]:
        """Share of all units by each look."""
        counted = self.rows if self.units == "rows" else self.identities
        return tuple(one / counted[-1] for one in counted)

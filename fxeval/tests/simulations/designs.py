"""Who is on the list: the number of identities, their rows, and how alike rows of one are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fxeval.tests.simulations.laws import FloatArray, Population

IntArray = NDArray[np.int64]

Sizes = Literal["one row", "1 to 20 rows", "rows as in LFW"]


@dataclass(frozen=True)
class Design:
    """A list of identities.

    Attributes:
        identities: Their number.
        sizes: How many rows each has.
        icc: Correlation of two rows of one identity.
    """

    identities: int
    sizes: Sizes = "one row"
    icc: float = 0.0

    def __str__(self) -> str:
        return f"{self.identities} identities, {self.sizes}, ICC {self.icc:g}"

    def draw_sizes(self, rng: Generator, runs: int) -> IntArray:
        """Return the number of rows of each identity, (runs, G)."""
        shape = (runs, self.identities)
        if self.sizes == "one row":
            return np.ones(shape, np.int64)
        if self.sizes == "1 to 20 rows":
            return rng.integers(1, 21, shape)
        chance = 1.0 / np.arange(1, 51) ** 2  # as in LFW, most people have one photograph
        return rng.choice(np.arange(1, 51), shape, p=chance / chance.sum())


@dataclass(frozen=True)
class Rows:
    """The rows of many runs, one behind the other.

    Attributes:
        values: (R,).
        sizes: (runs, G) number of rows of each identity, in the order of the values.
    """

    values: FloatArray
    sizes: IntArray

    def means(self) -> FloatArray:
        """Return the mean of each identity's rows, (runs, G)."""
        ends = np.cumsum(self.sizes)
        sums = np.add.reduceat(self.values, ends - self.sizes.ravel())
        return sums.reshape(self.sizes.shape) / self.sizes

    def runs(self) -> Iterator[tuple[FloatArray, IntArray]]:
        """Return values and identities of the rows of each run."""
        ends = np.cumsum(self.sizes.sum(axis=1))
        for sizes, values in zip(self.sizes, np.split(self.values, ends[:-1]), strict=True):
            yield values, np.repeat(np.arange(len(sizes)), sizes)


def draw_rows(
    population: Population,
    design: Design,
    rng: Generator,
    runs: int,
    sizes: IntArray | None = None,
) -> Rows:
    """Draw the rows of many runs.

    Each row repeats a value that belongs to its identity with chance sqrt(ICC), and is drawn anew
    otherwise. So every row follows the law exactly, and two rows of an identity correlate by ICC,
    whatever the law.

    Args:
        population: The law.
        design: The list.
        rng: Source of randomness.
        runs: Number of lists.
        sizes: (runs, G) number of rows of each identity; None = drawn.
    """
    sizes = design.draw_sizes(rng, runs) if sizes is None else sizes
    values = population.draw(rng, int(sizes.sum()))
    if design.icc:
        own = np.repeat(population.draw(rng, sizes.size), sizes.ravel())
        values = np.where(rng.random(len(values)) < design.icc**0.5, own, values)
    return Rows(values, sizes)


def all_designs(identities: int) -> tuple[Design, ...]:
    """Return every design with this many identities."""
    several: tuple[Sizes, ...] = ("1 to 20 rows", "rows as in LFW")
    clustered = [Design(identities, sizes, icc) for sizes in several for icc in (0.0, 0.1, 0.3)]
    return (Design(identities), *clustered)

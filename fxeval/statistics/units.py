"""The rows of a sample by identity: the unit of every interval."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fxeval.results import Estimate
from fxeval.statistics.crossed import crossed

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROUNDING = 1e-6
"""How far beyond an edge a value counts as on it, as a share of the edge or 1: float32."""


@dataclass(frozen=True, eq=False)
class Units:
    """Values, and the identities that they belong to.

    Attributes:
        values: (N,) finite, none beyond the edges.
        owners: (N, 1), or (N, 2) if some row belongs to two identities; numbered from 0.
        n_identities: G.
        bounds: Least and largest possible value.
    """

    values: FloatArray
    owners: IntArray
    n_identities: int
    bounds: tuple[float, float]

    @property
    def is_crossed(self) -> bool:
        """Whether some row belongs to two identities."""
        return bool(self.owners.shape[1] > 1)

    @property
    def is_binary(self) -> bool:
        """Whether every value is 0 or 1, and none could be less: no difference is taken for one."""
        return self.bounds[0] >= 0.0 and bool(np.isin(self.values, (0.0, 1.0)).all())

    @property
    def is_paired(self) -> bool:
        """Whether every value is the difference of two that are 0 or 1."""
        return self.bounds == (-1.0, 1.0) and bool(np.isin(self.values, (-1.0, 0.0, 1.0)).all())

    @property
    def edges(self) -> tuple[float, float]:
        """Least and largest possible value of an identity; a pseudo-value has no edges."""
        return (-math.inf, math.inf) if self.is_crossed else self.bounds

    @property
    def about(self) -> str:
        """What to say before a method."""
        return "one pseudo-value for each of two identities of a row: " if self.is_crossed else ""

    def two(self) -> tuple[IntArray, IntArray]:
        """Return both identities of each row."""
        return self.owners[:, 0], self.owners[:, -1]

    @cached_property
    def _means(self) -> FloatArray:
        if self.is_crossed:
            return crossed(self.values, *self.two())
        group = self.owners[:, 0]
        means: FloatArray = np.bincount(group, weights=self.values) / np.bincount(group)
        return np.clip(means, *self.bounds)

    def means(self) -> FloatArray:
        """Return (G,) mean values of the identities, or their pseudo-values."""
        return self._means

    def mean(self) -> float:
        """Return the mean over identities; over rows if some belong to two."""
        averaged = self.values if self.is_crossed else self._means
        # Rounding would carry the mean of equal values beyond all of them.
        return float(np.clip(averaged.mean(), averaged.min(), averaged.max()))

    def medians(self) -> FloatArray:
        """Return (G,) median values of the identities that come first in the rows."""
        group = self.owners[:, 0]
        ordered = self.values[np.lexsort((self.values, group))]
        sizes = np.bincount(group)
        sizes = sizes[sizes > 0]
        ends = np.cumsum(sizes)
        first = ends - sizes
        found: FloatArray = ordered[first + (sizes - 1) // 2] + ordered[first + sizes // 2]
        return found / 2.0

    def estimated(self, **found: Any) -> Estimate:  # noqa: ANN401
        """Return an estimate with what these rows say of their identities."""
        first, second = self.two()
        rows = np.bincount(first, minlength=self.n_identities)
        if self.is_crossed:
            rows = rows + np.bincount(second[second != first], minlength=self.n_identities)
        return Estimate(
            n_pairs=len(self.values),
            n_identities=self.n_identities,
            effective_identities=float(rows.sum() ** 2 / (rows**2).sum()),
            largest_share=float(rows.max() / len(self.values)),
            **found,
        )


def check_finite(about: str, values: FloatArray) -> None:
    """Refuse values of which some are NaN or infinite.

    Raises:
        ValueError: If one is.
    """
    n = int((~np.isfinite(values)).sum())
    if n:
        raise ValueError(
            f"{about}: expected finite values, got {n} of {len(values)} NaN or infinite. Leave out "
            "the rows without a value first."
        )


def units_of(values: FloatArray, identities: IntArray, bounds: tuple[float, float]) -> Units:
    """Check rows and number their identities.

    Args:
        values: (N,).
        identities: (N,), or (N, 2).
        bounds: Least and largest possible value, infinite where there is none.

    Raises:
        ValueError: If there is no row, a value is not finite or beyond the edges, or the shapes
            differ.
    """
    rows = identities[:, None] if identities.ndim == 1 else identities
    if (
        values.ndim != 1
        or rows.shape not in ((len(values), 1), (len(values), 2))
        or not len(values)
    ):
        raise ValueError(
            f"estimate: expected values and identities of one length >= 1, got {values.shape} and "
            f"{identities.shape}."
        )
    check_finite("estimate", values)
    low, high = bounds
    least, largest = float(values.min()), float(values.max())
    for value, edge, beyond in ((least, low, low - least), (largest, high, largest - high)):
        if beyond > ROUNDING * max(1.0, abs(edge)):
            raise ValueError(
                f"estimate: expected values from {low:g} to {high:g}, got {value:.9g}. Correct the "
                "range that the metric declares."
            )
    if least < low or largest > high:
        values = np.clip(values, low, high)
    if (rows == rows[:, :1]).all():
        rows = rows[:, :1]
    names, number = np.unique(rows, return_inverse=True)
    owners: IntArray = number.reshape(rows.shape).astype(np.int64)
    return Units(np.asarray(values, dtype=np.float64), owners, len(names), bounds)

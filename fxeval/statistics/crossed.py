"""C: comparisons that belong to two identities, counted as one pseudo-value per identity."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fxeval.statistics.distributions import (
    beta_cdf,
    beta_quantile,
    normal_quantile,
    t_quantile,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_HALVINGS = 60
_SMALLEST = 2.0**-52  # a smaller p-value cannot be told from 0, nor its level from 1
_NO_EVIDENCE = 0.49  # a p-value from which on its size does not matter


def crossed(values: FloatArray, first: IntArray, second: IntArray) -> FloatArray:
    """Return one pseudo-value per identity, whose mean is that of the comparisons.

    Identity i has mean + G T_i / n, where T_i sums the deviations of its n_i comparisons (one with
    itself counts once). The standard error of the mean of these values is that of the comparisons,
    with each one's own variance counted twice: positive by construction. It is never less than
    that of independent comparisons, to which alternating signs could push it.

    Args:
        values: (..., n) finite.
        first: (n,) one identity of each comparison.
        second: (n,) the other one.

    Returns:
        (..., G) pseudo-values in the order of the identities; all equal where nothing varies from
        identity to identity.
    """
    shape, n = values.shape[:-1], values.shape[-1]
    rows = values.reshape(-1, n)
    names, both = np.unique(np.concatenate([first, second]), return_inverse=True)
    i, j, G = both[:n], both[n:], len(names)
    mean = rows.mean(axis=1, keepdims=True)
    d = rows - mean
    total = _sums(d, i, G) + _sums(np.where(i == j, 0.0, d), j, G)
    z = G * (total - total.mean(axis=1, keepdims=True)) / n
    if n > 1:
        error = z.std(axis=1, ddof=1) / math.sqrt(G)
        floor = rows.std(axis=1, ddof=1) / math.sqrt(n)
        stretch = np.divide(floor, error, out=np.ones_like(error), where=error > 0.0)
        z *= np.maximum(stretch, 1.0)[:, None]
    found: FloatArray = (mean + z).reshape(*shape, G)
    return found


def crossed_rate(
    values: FloatArray, first: IntArray, second: IntArray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the bounds of a rate of comparisons, and how many independent ones they are worth.

    The bounds are Clopper and Pearson's for the effective number, which is what the variance over
    identities leaves of the comparisons, less the price of estimating it from G identities.

    Args:
        values: (n,) 0 or 1.
        first: (n,) one identity of each comparison.
        second: (n,) the other one.
        confidence: Two-sided.

    Returns:
        low, high and the effective number, 1 to n.
    """
    worth = Worth.of(values, first, second)
    return *worth.bounds(confidence), worth.number(confidence)


def crossed_rate_tails(
    values: FloatArray, first: IntArray, second: IntArray, line: float
) -> tuple[float, float]:
    """Return the p-values that belong to :func:`crossed_rate`.

    Returns:
        above: at most alpha / 2 exactly where the interval lies at or above the line; and below.
    """
    worth = Worth.of(values, first, second)
    # The effective number depends on the level.
    return (
        _least(lambda tail: worth.above(line, 1.0 - 2.0 * tail) <= tail),
        _least(lambda tail: worth.below(line, 1.0 - 2.0 * tail) <= tail),
    )


def crossed_difference(
    values: FloatArray, first: IntArray, second: IntArray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the bounds of the difference of two rates of the same comparisons.

    It is the rate of comparisons that only the first hits, less that of those that only the second
    hits: each has its bounds at half of the error (Bonferroni).

    Args:
        values: (n,) 1, 0 or -1: the first hits alone, both or neither, the second alone.
        first: (n,) one identity of each comparison.
        second: (n,) the other one.
        confidence: Two-sided.

    Returns:
        low, high and the lesser effective number, 1 to n.
    """
    return _difference(_gained_and_lost(values, first, second), confidence)


def crossed_difference_tails(
    values: FloatArray, first: IntArray, second: IntArray, line: float
) -> tuple[float, float]:
    """Return the p-values that belong to :func:`crossed_difference`."""
    both = _gained_and_lost(values, first, second)
    return (
        _least(lambda tail: _difference(both, 1.0 - 2.0 * tail)[0] >= line),
        _least(lambda tail: _difference(both, 1.0 - 2.0 * tail)[1] <= line),
    )


def _gained_and_lost(
    values: FloatArray, first: IntArray, second: IntArray
) -> tuple["Worth", "Worth"]:
    gained, lost = ((values == sign).astype(np.float64) for sign in (1.0, -1.0))
    return Worth.of(gained, first, second), Worth.of(lost, first, second)


def _difference(both: tuple["Worth", "Worth"], confidence: float) -> tuple[float, float, float]:
    each = 1.0 - (1.0 - confidence) / 2.0
    (low, high), (least, most) = (one.bounds(each) for one in both)
    return low - most, high - least, min(one.number(each) for one in both)


def _least(holds: Callable[[float], bool]) -> float:
    """Return the least p-value at which a one-sided statement holds; 1 if there is none."""
    low, high = 0.0, _NO_EVIDENCE
    if not holds(high):
        return 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if middle <= _SMALLEST:
            break
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


class Worth:
    """A rate of comparisons, and as many independent ones as they are worth.

    Args:
        rate: Share of hits.
        n: Number of comparisons.
        pseudo_values: (G,) one per identity (:func:`crossed`).
    """

    def __init__(self, rate: float, n: int, pseudo_values: FloatArray) -> None:
        self.rate, self._n, self._G = rate, n, len(pseudo_values)
        independent = rate * (1.0 - rate) / (n - 1) if n > 1 else 0.0
        spread = float(pseudo_values.var(ddof=1)) / self._G if self._G > 1 else 0.0
        self._variance = max(spread, independent)

    @classmethod
    def of(cls, values: FloatArray, first: IntArray, second: IntArray) -> "Worth":
        """Return that of values of 0 or 1 (:func:`crossed_rate`)."""
        return cls(float(values.mean()), len(values), crossed(values, first, second))

    def bounds(self, confidence: float) -> tuple[float, float]:
        """Return Clopper and Pearson's bounds for the effective number."""
        number, tail = self.number(confidence), (1.0 - confidence) / 2.0
        hits, misses = self.rate * number, (1.0 - self.rate) * number
        low = 0.0 if self.rate == 0.0 else beta_quantile(tail, hits, misses + 1.0)
        return low, 1.0 if self.rate == 1.0 else 1.0 - beta_quantile(tail, misses, hits + 1.0)

    def number(self, confidence: float) -> float:
        """Return the effective number; half of the identities where nothing varies."""
        if self._variance == 0.0 or self._G < 2:
            number = float(self._G // 2)
        else:
            price = normal_quantile(confidence) / t_quantile(confidence, self._G - 1)
            number = self.rate * (1.0 - self.rate) / self._variance * price**2
        return min(max(number, 1.0), float(self._n))

    def above(self, line: float, confidence: float) -> float:
        """Return the probability of so many hits or more if the rate were the line."""
        number = self.number(confidence)
        hits = self.rate * number
        return 1.0 if self.rate == 0.0 else beta_cdf(line, hits, number - hits + 1.0)

    def below(self, line: float, confidence: float) -> float:
        """Return the probability of so few hits or fewer if the rate were the line."""
        number = self.number(confidence)
        hits = self.rate * number
        return 1.0 if self.rate == 1.0 else beta_cdf(1.0 - line, number - hits, hits + 1.0)


def _sums(values: FloatArray, group: IntArray, n_groups: int) -> FloatArray:
    """Return (B, n_groups) sums of the (B, n) values of each group."""
    rows = np.arange(len(values))[:, None] * n_groups
    size = len(values) * n_groups
    sums = np.bincount((rows + group).ravel(), values.ravel(), size).astype(np.float64)
    return sums.reshape(len(values), n_groups)

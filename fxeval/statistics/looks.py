"""Planned looks: a cell is judged early, at levels that keep the promise over all looks together.

Whoever looks five times at a 95 % interval and stops at the first that decides errs far more often
than in 5 % of the runs. Here the error is spent: by look k no more than alpha(t) of it, where t is
the share of the identities that were measured by then. Early looks spend next to nothing, so that
the last one is hardly stricter than the only look of a fixed design.

The levels are those of a Brownian motion, the limit of means that grow by independent identities.
They are found by integrating its density from look to look, without draws. Both sides are spent
alike, each with half of what the interval leaves out.

Source:
    Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials", Biometrika 70 (the
    spending of O'Brien and Fleming's type). Armitage, McPherson and Rowe 1969, "Repeated
    significance tests on accumulating data", Journal of the Royal Statistical Society A 132 (the
    recursion).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fxeval.statistics.verdict import MIN_IDENTITIES

FloatArray = NDArray[np.float64]

_NODES = 160  # of the quadrature between two looks
_FARTHEST = 40.0  # standard deviations beyond which no probability is left in float64
_LOWEST = 9.0  # standard deviations below which no path matters


@dataclass(frozen=True)
class Spending:
    """How the error of one side is spent over looks.

    Attributes:
        times: Share of all identities that is measured at each look, ascending, the last 1.
        spent: One-sided error that is spent by each look, together with those before.
        lines: z-values beyond which a look decides, one for each.
    """

    times: tuple[float, ...]
    spent: tuple[float, ...]
    lines: tuple[float, ...]

    def level(self, look: int) -> float:
        """Return the two-sided error of the interval at a look, counted from 1."""
        return 2.0 * upper_tail(self.lines[look - 1])

    def overall(self, p: float, look: int) -> float:
        """Return the one-sided p-value over all looks so far, from that of a look's rows alone.

        It is the probability to decide at an earlier look, or to find at this one values as far
        out: at most the error of a side exactly where the look decides.

        Args:
            p: One-sided p-value of the rows up to the look, 0 to 1.
            look: Counted from 1.
        """
        if look == 1 or p >= 1.0:
            return p
        crossing = _crossing(self.times[:look], self.lines[: look - 1])
        return min(1.0, self.spent[look - 2] + crossing(normal_line(p)))


def spending(confidence: float, times: Sequence[float]) -> Spending:
    """Return how planned looks spend what an interval leaves out.

    Args:
        confidence: Two-sided, promised over all looks together, in (0, 1).
        times: Share of all identities that is measured at each look, ascending, the last 1.

    Raises:
        ValueError: If the times are not such shares.

    Example:
        >>> found = spending(0.95, (0.2, 0.4, 0.6, 0.8, 1.0))
        >>> [round(z, 3) for z in found.lines]
        [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    shares = tuple(float(one) for one in times)
    rising = all(a < b for a, b in zip((0.0, *shares), shares, strict=False))
    if not shares or not rising or shares[-1] != 1.0:
        raise ValueError(f"spending: expected rising shares up to 1, got {shares}.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"spending: expected a confidence in (0, 1), got {confidence}.")
    return _spending(round((1.0 - confidence) / 2.0, 15), shares)


def confidence_at(confidence: float, times: Sequence[float], look: int) -> float:
    """Return the confidence of the intervals at a look, counted from 1.

    >>> round(confidence_at(0.95, (0.5, 1.0), 1), 4), confidence_at(0.95, (1.0,), 1)
    (0.9969, 0.95)
    """
    if len(times) == 1:
        return confidence  # a single look is a fixed design, to the last digit
    return 1.0 - spending(confidence, times).level(look)


def planned(n: int, looks: int, identities_at: Callable[[int], int]) -> tuple[list[int], int]:
    """Return after how many units each look comes, and how many looks were left out.

    Looks come at equal steps. One before the last with fewer than 30 identities could pass nothing,
    and is left out.

    Args:
        n: Number of units in all: identities, or rows that belong to two.
        looks: Number of looks, >= 1.
        identities_at: Returns the number of identities among the first units.
    """
    steps = sorted({-(-n * k // looks) for k in range(1, looks + 1)})
    kept = [one for one in steps if one == n or identities_at(one) >= MIN_IDENTITIES]
    return kept, looks - len(kept)


def upper_tail(z: float) -> float:
    """Return P(Z > z) of the standard normal distribution, to full relative precision."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def normal_line(tail: float) -> float:
    """Return the z with P(Z > z) = tail.

    >>> round(normal_line(0.025), 6), normal_line(1.0)
    (1.959964, -inf)
    """
    if tail >= 1.0:
        return -math.inf
    return _root(upper_tail, tail)


@lru_cache(maxsize=256)
def _spending(side: float, times: tuple[float, ...]) -> Spending:
    reach = normal_line(side / 2.0)
    spent = tuple(2.0 * upper_tail(reach / math.sqrt(t)) for t in times)
    lines: tuple[float, ...] = ()
    for k in range(len(times)):
        crossing = _crossing(times[: k + 1], lines)
        lines += (_root(crossing, spent[k] - (spent[k - 1] if k else 0.0)),)
    return Spending(times, spent, lines)


def _crossing(times: tuple[float, ...], lines: tuple[float, ...]) -> Callable[[float], float]:
    """Return the probability to lie above a z at the last time, and above no line before.

    Args:
        times: One more than there are lines.
        lines: z-values of the looks before the last.
    """
    if not lines:
        return upper_tail
    places, weights = _density(times, lines)
    step = math.sqrt(times[-1] - times[-2])
    last = math.sqrt(times[-1])

    def above(z: float) -> float:
        return float(weights @ _upper_tails((z * last - places) / step))

    return above


@lru_cache(maxsize=1024)
def _density(times: tuple[float, ...], lines: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """Return where paths that crossed no line are at the last of the looks before, as a quadrature.

    Returns:
        (n,) places, and (n,) the probability of each.
    """
    nodes, sizes = np.polynomial.legendre.leggauss(_NODES)
    places, weights = np.zeros(1), np.ones(1)
    before = 0.0
    for t, line in zip(times, lines, strict=False):
        low, high = -_LOWEST * math.sqrt(t), line * math.sqrt(t)
        now = (high + low) / 2.0 + (high - low) / 2.0 * nodes
        step = math.sqrt(t - before)
        moves = np.exp(-0.5 * ((now[:, None] - places) / step) ** 2)
        density = (moves @ weights) / (step * math.sqrt(2.0 * math.pi))
        places, weights, before = now, density * sizes * (high - low) / 2.0, t
    return places, weights


def _upper_tails(z: FloatArray) -> FloatArray:
    return np.array([upper_tail(one) for one in z.tolist()])


def _root(falling: Callable[[float], float], wanted: float) -> float:
    """Return the z at which a falling probability is no more than what is wanted."""
    low, high = -_FARTHEST, _FARTHEST
    while low < (middle := (low + high) / 2.0) < high and high - low > 1e-13:
        low, high = (low, middle) if falling(middle) <= wanted else (middle, high)
    return high

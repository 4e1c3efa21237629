"""The ratio of two means over the same rows, and Fieller's interval of it.

A ratio r is possible where the mean of (numerator - r * denominator) may be 0. So its interval is
the set of all r for which the interval of that mean (``fxeval.statistics.intervals``) contains 0:
whatever is promised of the mean is promised of the ratio. It is bounded only where the denominator
is clearly not 0; elsewhere there is nothing to compare with, and no interval.

Source:
    Fieller, "Some Problems in Interval Estimation", Journal of the Royal Statistical Society B 16,
    1954.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fxeval.results import ValueKind
from fxeval.statistics.crossed import crossed
from fxeval.statistics.intervals import (
    chosen,
    interval,
    interval_tails,
    spread_of,
    used_level,
)
from fxeval.statistics.skew_t import CONSTANT
from fxeval.statistics.units import Units

FloatArray = NDArray[np.float64]

_ANGLES = 12
_TURNS, _CLOSE = 60, 1e-10
_FAR = (1e3, 1e6)  # in standard errors; what reaches so far reaches to infinity


@dataclass(frozen=True)
class Denominator:
    """What is known of a ratio's denominator before it is seen.

    Attributes:
        title: Its name in words.
        kind: How its values are distributed.
        low: Least possible value of a row; -inf = none.
        high: Largest possible value; inf = none.
        least: Mean below which there is nothing to compare with.
    """

    title: str = "the denominator"
    kind: ValueKind = "heavy"
    low: float = -math.inf
    high: float = math.inf
    least: float = 0.0


UNKNOWN = Denominator()


class Ratio:
    """The mean of some values over the mean of others of the same rows.

    Args:
        numerators: Rows by identity.
        denominators: The same rows.
        kind: How (numerator - r * denominator) is distributed.
        denominator: What is known of the denominators.

    Attributes:
        value: The ratio; NaN where the denominator's mean is less than its least, or not positive.
        spread: Standard deviation over identities of what the ratio is a mean of, to first order.
    """

    def __init__(
        self, numerators: Units, denominators: Units, kind: ValueKind, denominator: Denominator
    ) -> None:
        self._numerators, self._denominators = numerators, denominators
        self._of = denominator
        self._below = denominators.mean()
        self._is_weak = not (self._below > 0.0 and self._below >= denominator.least)
        self.value = math.nan if self._is_weak else numerators.mean() / self._below
        self.spread = math.nan
        # Equal decisions may be chance; equal numbers of another kind are one and the same.
        self._is_one = kind != "rate" and bool((numerators.values == denominators.values).all())
        self._kind = _kind(numerators, kind)
        if not self._is_weak:
            rest, _ = self._rest(np.ones(1), np.array([self.value]))
            self.spread = float(spread_of(rest[0])) / self._below
            self._kind = _chosen_kind(rest[0], self._kind)
            self._step = self._natural_step()

    def interval(self, confidence: float) -> tuple[float, float, str]:
        """Return the ends and the method in words; NaN and the reason where there is no interval.

        Where the set of all possible ratios has gaps, the interval spans them. A ratio of values
        that are all equal, and no rate, is 1 whatever the rows.
        """
        nothing = self._nothing(confidence)
        if nothing:
            return math.nan, math.nan, nothing
        if self._is_one:
            return 1.0, 1.0, "every numerator equals its denominator: no interval"
        ends = [self._end(side, confidence) for side in (-1.0, 1.0)]
        rest, edges = self._rest(np.ones(1), np.array([self.value]))
        method = interval(rest, self._kind, *edges, confidence).method(0)
        if not all(math.isfinite(end) for end in ends):
            return math.nan, math.nan, f"no interval: no bound of the ratio ({method})"
        said = (
            "Fieller's interval: the ratios at which the mean of (numerator - ratio * denominator) "
            f"may be 0 by {self._numerators.about}{method}"
        )
        return min(ends), max(ends), said

    def tails(self, line: float) -> tuple[float, float]:
        """Return the p-values that belong to :meth:`interval`, whatever its confidence.

        Returns:
            above: at most alpha / 2 exactly where the interval lies at or above the line; and
            below. Both are 1 where the denominator is too small.
        """
        if self._is_weak:
            return 1.0, 1.0
        if self._is_one:
            return float(line > 1.0), float(line < 1.0)
        at = (line - self.value) / self._step
        places = np.concatenate([-_grid()[::-1], [0.0], _grid(), [at]])
        above, below = self._tails(places)
        means, ends = self._own()
        kind = _kind(self._denominators, self._of.kind)
        floor = float(interval_tails(means, kind, *ends, 0.0)[0])
        return (
            max(floor, float(above[places <= at].max())),
            max(floor, float(below[places >= at].max())),
        )

    def at(self, line: float) -> tuple[FloatArray, ValueKind, tuple[float, float]]:
        """Return what must have a positive mean where the ratio is above a line.

        Returns:
            (N,) values of the rows, numerator - line * denominator; their kind; and their edges.
        """
        low, high = _edges(self._numerators, self._denominators, np.ones(1), np.array([line]))
        values = _less(self._numerators.values, line * self._denominators.values)
        return np.clip(values, low[0], high[0]), self._kind, (float(low[0]), float(high[0]))

    def _nothing(self, confidence: float) -> str:
        """Return why there is nothing to compare with; "" if there is."""
        means, ends = self._own()
        low, high = _ends(
            means.tobytes(), _kind(self._denominators, self._of.kind), ends, confidence
        )
        if not self._is_weak and low > 0.0:
            return ""
        shown = f"{self._below:.3g} without an interval"
        if not math.isnan(low):
            shown = f"{self._below:.3g} [{low:.3g}, {high:.3g}]"
        if self._is_weak and self._of.least > 0.0:
            shown += f", at least {self._of.least:g} needed"
        return f"{self._of.title} is too near 0 ({shown}), so there is nothing to compare with"

    def _own(self) -> tuple[FloatArray, tuple[float, float]]:
        return self._denominators.means(), self._denominators.edges

    def _natural_step(self) -> float:
        """Return the standard error of the ratio, or another length where nothing varies."""
        root = math.sqrt(self._numerators.n_identities)
        if self.spread > 0.0:
            return self.spread / root
        low, high = self._numerators.bounds
        around = max(abs(self.value), (high - low) / self._below if high - low < math.inf else 0.0)
        return (around or 1.0) / root

    def _weights(self, places: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return how much numerator and denominator count at (K,) places, in steps from the value.

        They are scaled so that the places may go to infinity.
        """
        length = np.hypot(1.0, places)
        return 1.0 / length, (self.value + self._step * places) / length

    def _rest(
        self, above: FloatArray, below: FloatArray
    ) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
        """Return (K, G) means of above * numerator - below * denominator, and their edges."""
        one, two = self._numerators, self._denominators
        if one.is_crossed:
            rows = _less(above[:, None] * one.values, below[:, None] * two.values)
            none = np.full(len(above), math.inf)
            return crossed(rows, *one.two()), (-none, none)
        low, high = _edges(one, two, above, below)
        means = _less(above[:, None] * one.means(), below[:, None] * two.means())
        return np.clip(means, low[:, None], high[:, None]), (low, high)

    def _tails(self, places: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (K,) p-values of the ratio lying above and below each place."""
        rest, edges = self._rest(*self._weights(places))
        return interval_tails(rest, self._kind, *edges, 0.0)

    def _end(self, side: float, confidence: float) -> float:
        """Return the last possible ratio on one side; infinite if there is none."""
        tail = (1.0 - confidence) / 2.0
        which = int(side > 0.0)

        def excess(places: FloatArray) -> FloatArray:
            found: FloatArray = np.log(np.maximum(self._tails(side * places)[which], 1e-300) / tail)
            return found

        places = np.concatenate([[0.0], _grid()])
        found = excess(places)
        last = int(np.flatnonzero(found > 0.0)[-1]) if (found > 0.0).any() else 0
        if last == len(places) - 1:
            return side * math.inf
        angles = np.arctan(places[last : last + 2])

        def at(angle: float) -> float:
            return float(excess(np.array([math.tan(angle)]))[0])

        angle = _root(at, (angles[0], angles[1]), (found[last], found[last + 1]))
        return self.value + side * self._step * math.tan(angle)


@lru_cache(maxsize=1024)
def _ends(
    means: bytes, kind: ValueKind, edges: tuple[float, float], confidence: float
) -> tuple[float, float]:
    """Return the interval of a denominator, which all maps of a condition are divided by."""
    found = interval(np.frombuffer(means), kind, *edges, confidence)
    return float(found.low), float(found.high)


def _root(
    of: Callable[[float], float], ends: tuple[float, float], values: tuple[float, float]
) -> float:
    """Return where a function falls to 0, by Ridders' method; where it jumps, by halving.

    Source:
        Ridders, "A new algorithm for computing a single root of a real continuous function", IEEE
        Transactions on Circuits and Systems 26, 1979.
    """
    (inner, outer), (high, low) = ends, values
    for _ in range(_TURNS):
        if outer - inner <= _CLOSE:
            break
        middle = (inner + outer) / 2.0
        value = of(middle)
        bent = math.sqrt(value * value - min(high * low, 0.0))
        guess = middle + (middle - inner) * value / bent if bent else middle
        for place, found in ((middle, value), (guess, of(guess))):
            if abs(found) <= _CLOSE:
                return place
            if not inner < place < outer:
                continue
            if found > 0.0:
                inner, high = place, found
            else:
                outer, low = place, found
    return outer


def _less(one: FloatArray, two: FloatArray) -> FloatArray:
    """Return the difference, 0 where only rounding is left: equal values count as equal."""
    rest = one - two
    return np.where(np.abs(rest) <= CONSTANT * (np.abs(one) + np.abs(two)), 0.0, rest)


def _grid() -> FloatArray:
    """Return how many steps from the value the possible ratios are looked for, on one side."""
    angles = np.arange(1, _ANGLES) * (math.pi / 2.0 / _ANGLES)
    return np.concatenate([np.tan(angles), _FAR])


def _kind(unit: Units, kind: ValueKind) -> ValueKind:
    """Return the kind of what is compared; pseudo-values have no edges, which a rate needs."""
    return "heavy" if unit.is_crossed and kind == "rate" else kind


def _chosen_kind(rest: FloatArray, kind: ValueKind) -> ValueKind:
    """Return the kind as which all ratios are judged: what the values at the estimate allow.

    Beside the estimate, a sample of few informative values looks like many.
    """
    level, _, _ = chosen(rest, kind)
    if math.isnan(level):
        return "rate"
    return "heavy" if level >= used_level(0.95, "heavy") - 1e-12 else kind


def _edges(
    one: Units, two: Units, above: FloatArray, below: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return (K,) least and largest possible above * numerator - below * denominator."""

    def times(factor: FloatArray, edge: float) -> FloatArray:
        return np.array([some * edge if some else 0.0 for some in factor.tolist()])

    ends = np.stack([times(below, edge) for edge in two.bounds])
    return (
        times(above, one.bounds[0]) - ends.max(axis=0),
        times(above, one.bounds[1]) - ends.min(axis=0),
    )

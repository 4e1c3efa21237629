"""What a verdict rests on: how small a difference shows, what would settle it, one identity.

All of it is about intervals that must lie in a region (low, high), which may lack one end.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fxeval.results import Estimate
from fxeval.statistics.distributions import normal_quantile
from fxeval.statistics.estimate import Law, Sample, estimate, median_rank, ratio_of
from fxeval.statistics.intervals import (
    MIN_INFORMATIVE,
    chosen,
    clears,
)
from fxeval.statistics.skew_t import reaches
from fxeval.statistics.units import Units, units_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Region = tuple[float, float]

POWER = 0.8
"""Probability with which a detectable difference shows."""

MOST_IDENTITIES = 100_000
"""Most identities that anyone is told to find."""

_MIDDLE = 100
_LARGEST_CROSSED = 1_000_000  # rows times identities, for which each identity can be left out


def detectable(found: Estimate, law: Law, region: Region) -> float:
    """Return the smallest distance of the truth from the region's end that such a sample shows.

    With the probability ``POWER`` the interval of another sample of as many identities, as spread
    as these, lies within the region if the truth lies so far within it.

    Args:
        found: The estimate.
        law: Of its values.
        region: Where the interval must lie; of two ends the farther counts.

    Returns:
        The distance; NaN where the interval has no end on the side that decides.
    """
    sides = zip(region, _reaches(found), strict=True)
    needed = [reach + _chance(found, law, reach) for end, reach in sides if math.isfinite(end)]
    return max(needed) if needed and all(math.isfinite(one) for one in needed) else math.nan


def settles(sample: Sample, law: Law, found: Estimate, region: Region, floor: int = 0) -> str:
    """Say how many more identities would settle an inconclusive verdict.

    They would do so with the probability ``POWER`` if the truth were the estimate, and as spread.

    Args:
        sample: Rows with a value.
        law: Of their values.
        found: The estimate.
        region: Where the interval must lie.
        floor: Fewest identities with which the verdict can be passed.

    Returns:
        Such as ``about 340 more identities``, or why no number of them would help; "" if these are
        enough.
    """
    wanted = _wanted(found, region)
    if not all(math.isfinite(_reaches(found)[side]) for _, side in wanted):
        return _settles_without_interval(sample, law, found, floor)
    if not all(distance > 0.0 for distance, _ in wanted):
        return "no number of identities settles it: the value lies on the limit"
    model = _model(sample, law, found)
    least = max(found.n_identities, floor)

    def suffices(n: int) -> bool:
        return all(model(n, side) <= distance for distance, side in wanted)

    if not suffices(MOST_IDENTITIES):
        return (
            f"more than {MOST_IDENTITIES:,} identities would be needed: the value lies too near "
            "the limit"
        )
    low, high = least - 1, MOST_IDENTITIES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return _more(high - found.n_identities)


def hangs_on_one(sample: Sample, law: Law, region: Region, confidence: float) -> bool | None:
    """Return whether the interval says something else without some single identity.

    It says that it lies within the region, wholly beyond it, or neither.

    Args:
        sample: Rows with a value.
        law: Of their values.
        region: Where the interval must lie.
        confidence: Two-sided.

    Returns:
        None where it is not known: for figures of a list, for one identity, and for rows of two
        identities if they are too many.
    """
    if law.statistic == "ratio":
        return _ratio_hangs(sample, law, region, confidence)
    if law.statistic not in ("mean", "median"):
        return None
    unit = units_of(sample.values, sample.identities, (law.low, law.high))
    if unit.n_identities < 2:
        return None
    if unit.is_crossed:
        return _crossed_hangs(unit, law, region, confidence)
    if law.statistic == "median":
        return _median_hangs(unit, region, confidence)
    return _mean_hangs(unit.means(), law, region, confidence)


def _ratio_hangs(sample: Sample, law: Law, region: Region, confidence: float) -> bool | None:
    """Answer for a ratio: it lies above a line where another mean lies above 0."""
    ends = [end for end in region if math.isfinite(end)]
    ratio = ratio_of(sample, law)
    if len(ends) != 1 or math.isnan(ratio.value):
        return None
    values, kind, edges = ratio.at(ends[0])
    rest = Sample(values, sample.identities)
    about_0 = (0.0, math.inf) if math.isfinite(region[0]) else (-math.inf, 0.0)
    return hangs_on_one(rest, Law("mean", kind, *edges), about_0, confidence)


def _reaches(found: Estimate) -> tuple[float, float]:
    return found.value - found.low, found.high - found.value


def _chance(found: Estimate, law: Law, reach: float) -> float:
    """Return how far the value of another sample lies off with the probability 1 - ``POWER``."""
    power = normal_quantile(2.0 * POWER - 1.0)
    if law.statistic == "median" or math.isnan(found.spread):
        return power * reach / normal_quantile(found.confidence)
    return power * found.spread / math.sqrt(found.n_identities)


def _wanted(found: Estimate, region: Region) -> list[tuple[float, int]]:
    """Return how short the interval must be on which side, 0 = left, to lie in or beyond it."""
    low, high = region
    if found.value < low:
        return [(low - found.value, 1)]
    if found.value > high:
        return [(found.value - high, 0)]
    sides = ((found.value - low, 0), (high - found.value, 1))
    return [(distance, side) for distance, side in sides if math.isfinite(distance)]


def _model(sample: Sample, law: Law, found: Estimate) -> Callable[[int, int], float]:
    """Return what must be short: the reach of n identities on a side, and what chance adds."""
    G = found.n_identities
    shape = _shape(sample, law, found)

    def needed(n: int, side: int) -> float:
        reach, now = _reaches(found)[side], shape(G, side)
        shorter = shape(n, side) / now if now else 1.0
        return reach * shorter + _chance(found, law, reach) * math.sqrt(G / n)

    return needed


def _shape(sample: Sample, law: Law, found: Estimate) -> Callable[[int, int], float]:
    """Return how the reach of n identities on a side goes, up to a factor."""

    def root(n: int, side: int) -> float:
        del side
        return 1.0 / math.sqrt(n)

    if law.statistic != "mean":
        return root
    unit = units_of(sample.values, sample.identities, (law.low, law.high))
    if unit.is_crossed and law.kind == "rate":
        return root
    y = unit.means()
    level, skewness, _ = chosen(y, law.kind, found.confidence)
    if not math.isnan(level):
        return lambda n, side: float(reaches(n, np.array(skewness), level)[side]) / math.sqrt(n)
    edges = unit.edges
    return lambda n, side: _race_reach(y, edges[side], n, found.confidence)


def _race_reach(y: FloatArray, edge: float, n: int, confidence: float) -> float:
    """Return about how far Gaffke's bound reaches with n identities like these, by moments."""
    mean, total = float(y.mean()), n + 1
    d, far = y - mean, abs(edge - mean)
    sign = math.copysign(1.0, edge - mean)
    shift = far / total
    squares = (n * float((d * d).mean()) + far**2) / total - shift**2
    cubes = (n * (sign * float((d**3).mean())) + far**3) / total
    cubes -= 3 * shift * (squares + shift**2) - 2 * shift**3
    if squares <= 0.0:
        return 0.0
    skewness = 2.0 * cubes / squares**1.5 * math.sqrt(total + 1) / (total + 2)
    z = normal_quantile(confidence)
    reach = z + skewness * (z * z - 1.0) / 6.0
    return float(shift + math.sqrt(squares / (total + 1)) * reach)


def _settles_without_interval(sample: Sample, law: Law, found: Estimate, floor: int) -> str:
    G, needed = found.n_identities, floor
    if law.statistic == "mean":
        unit = units_of(sample.values, sample.identities, (law.low, law.high))
        informative = chosen(unit.means(), law.kind)[2]
        if not informative and G > 2:
            return "no number of identities like these settles it: all have the same value"
        if informative < MIN_INFORMATIVE and G > 2:
            needed = max(needed, math.ceil(MIN_INFORMATIVE / informative * G))
    elif law.statistic == "median":
        needed = max(needed, next(n for n in range(1, 200) if median_rank(found.confidence, n)[0]))
    return _more(needed - G) if needed > G else "not known: there is no interval"


def _more(n: int) -> str:
    """Write a number of identities, rounded up to two digits.

    >>> _more(337)
    'about 340 more identities'
    """
    if n <= 0:
        return ""
    unit = 10 ** max(0, len(str(n)) - 2)
    n = -(-n // unit) * unit
    return f"about {n:,} more {'identity' if n == 1 else 'identities'}"


def _says(y: FloatArray, law: Law, region: Region, confidence: float) -> NDArray[np.int64]:
    """Return 1 where the interval of a row of y lies in the region, -1 where beyond, or 0."""
    edges, found = (law.low, law.high), []
    for line in region:
        if math.isfinite(line):
            found.append(clears(y, law.kind, edges, line, confidence))
        else:  # everything lies on the inner side of an end that is not there
            inner, outer = np.ones(len(y), dtype=bool), np.zeros(len(y), dtype=bool)
            found.append((inner, outer) if line < 0 else (outer, inner))
    (above_low, below_low), (above_high, below_high) = found
    within = above_low & below_high
    return np.where(within, 1, np.where(below_low | above_high, -1, 0))


def _says_estimate(low: float, high: float, region: Region) -> int:
    """Return 1 if an interval lies in the region, -1 if beyond, or 0."""
    if low >= region[0] and high <= region[1]:
        return 1
    return -1 if high < region[0] or low > region[1] else 0


def _mean_hangs(y: FloatArray, law: Law, region: Region, confidence: float) -> bool:
    """Return whether the interval of (G,) values says something else without some one of them."""
    _, places = np.unique(y, return_index=True)  # equal values leave equal samples

    def says(some: IntArray) -> NDArray[np.int64]:
        kept = np.arange(len(y) - 1)
        return _says(y[kept + (kept >= some[:, None])], law, region, confidence)

    whole = _says(y[None], law, region, confidence)[0]
    if not math.isnan(chosen(y, law.kind, confidence)[0]):
        n = len(places)
        if n > 3 * _MIDDLE:  # in the middle, neighbours have the same influence
            middle = np.linspace(_MIDDLE, n - _MIDDLE - 1, _MIDDLE).astype(np.int64)
            places = np.concatenate([places[:_MIDDLE], places[middle], places[-_MIDDLE:]])
        return bool((says(places) != whole).any())
    # Without the largest value, Gaffke's bounds lie lowest, and without the smallest one highest.
    if (says(np.unique([*places[:2], *places[-2:]])) != whole).any():
        return True
    if whole or not all(math.isfinite(end) for end in region):
        return False
    # Both ends may be cleared without one between: the last that the lower end is cleared without.
    first, last = 0, len(places)
    while last - first > 1:
        centre = (first + last) // 2
        one = np.delete(y, places[centre])[None]
        above, _ = clears(one, law.kind, (law.low, law.high), region[0], confidence)
        first, last = (centre, last) if above[0] else (first, centre)
    return bool(says(places[first : first + 1])[0] != whole)


def _median_hangs(unit: Units, region: Region, confidence: float) -> bool:
    medians = np.sort(unit.medians())

    def says(some: FloatArray) -> int:
        rank, _ = median_rank(confidence, len(some))
        return _says_estimate(some[rank - 1], some[-rank], region) if rank else 0

    middle = np.delete(medians, len(medians) // 2)
    return any(says(some) != says(medians) for some in (medians[1:], middle, medians[:-1]))


def _crossed_hangs(unit: Units, law: Law, region: Region, confidence: float) -> bool | None:
    if len(unit.values) * unit.n_identities > _LARGEST_CROSSED:
        return None

    def says(kept: NDArray[np.bool_]) -> int:
        if not kept.any():
            return 0
        some = estimate(Sample(unit.values[kept], unit.owners[kept]), law, confidence)
        return _says_estimate(some.low, some.high, region)

    whole = says(np.ones(len(unit.values), dtype=bool))
    return any(
        says((unit.owners != identity).all(axis=1)) != whole
        for identity in range(unit.n_identities)
    )

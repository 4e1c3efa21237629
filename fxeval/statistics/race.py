"""B: bounds of the mean of bounded values, whatever their distribution (Gaffke 2005).

Add one imaginary identity at the edge, weigh all by D, uniform on the simplex, and take the
quantile of the weighted mean. D is a row of exponentials E over their sum, so that
P(sum of D x <= t) = P(sum of (x - t) E <= 0) is a race: the next of those above t and the next of
those below t run until one is used up, and as exponentials forget, the next a above goes first
with the probability b / (a + b) of the next b below. The probability that those above run out
first is a sum of positive products: exact, without draws, in time proportional to n^2.

Two-point values give Clopper and Pearson's bounds, and differences of -1, 0 and 1 the exact sign
test. That the bounds hold for every distribution is Gaffke's conjecture: unproved, and without a
known counterexample.

Source:
    Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
    nonnegative variable", Mathematical Methods of Statistics 14. Learned-Miller and Thomas 2019,
    "A new confidence interval for the mean of a bounded random variable", arXiv:1905.06208.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.statistics.distributions import normal_quantile

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-13
"""How far a bound may lie from the exact one, on the safe side, as a share of the values' range."""

_AT_ONCE = 20_000  # numbers in one array of a race: fits the processor's cache
_HOPELESS = -700.0  # logarithm that stands for a probability of 0
_TINY = np.finfo(np.float64).tiny
_EVALUATIONS = 200  # bisection alone would need fewer than 60


def race(x: ArrayLike, t: ArrayLike) -> FloatArray:
    """Return P(sum of D x <= t) with D uniform on the simplex.

    Args:
        x: (..., n) finite.
        t: (...) finite.

    Returns:
        (...) probabilities.
    """
    values, line = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)
    return _by_rows(values, line, 0)


def race_lost(x: ArrayLike, t: ArrayLike) -> FloatArray:
    """Return P(sum of D x > t), to full relative precision where it is small.

    Args:
        x: (..., n) finite.
        t: (...) finite.
    """
    values, line = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)
    return _by_rows(values, line, 1)


def gaffke(
    y: ArrayLike,
    low_edge: ArrayLike = -np.inf,
    high_edge: ArrayLike = np.inf,
    confidence: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    """Return the bounds of the mean of values between two edges.

    Args:
        y: (..., n) one value per identity, none beyond the edges.
        low_edge: (...) least possible value; -inf = none.
        high_edge: (...) largest possible value; inf = none.
        confidence: Two-sided.

    Returns:
        low (...) and high (...), infinite on a side without an edge. Neither is narrower than the
        race allows, and none is wider by more than ``TOLERANCE`` of the range.
    """
    values = np.asarray(y, dtype=np.float64)
    shape, n = values.shape[:-1], values.shape[-1]
    rows = values.reshape(-1, n)
    edges = [np.broadcast_to(e, shape).ravel() for e in (low_edge, high_edge)]
    both = np.concatenate([-rows, rows])
    edge = np.concatenate([-edges[0], edges[1]]).astype(np.float64)
    known = np.isfinite(edge)
    found = np.full(len(both), np.inf)
    found[known] = _highest(both[known], edge[known], (1.0 - confidence) / 2.0)
    low, high = -found[: len(rows)], found[len(rows) :]
    return low.reshape(shape), high.reshape(shape)


def gaffke_tails(
    y: ArrayLike, low_edge: ArrayLike, high_edge: ArrayLike, line: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return the p-values that belong to :func:`gaffke`, without solving for the bounds.

    Args:
        y: (..., n) one value per identity, none beyond the edges.
        low_edge: (...) least possible value; -inf = none.
        high_edge: (...) largest possible value; inf = none.
        line: (...) the mean in question.

    Returns:
        (...) above: at most alpha / 2 exactly where the interval lies at or above the line; and
        (...) below. 1 on a side without an edge.
    """
    values = np.asarray(y, dtype=np.float64)
    shape, n = values.shape[:-1], values.shape[-1]
    rows = values.reshape(-1, n)
    found = []
    for sign, edge in ((-1.0, low_edge), (1.0, high_edge)):
        ends, lines = (sign * np.broadcast_to(e, shape).ravel() for e in (edge, line))
        tail = np.ones(len(rows))
        known = np.isfinite(ends)
        x = np.column_stack([sign * rows[known], ends[known]])
        tail[known] = race_lost(x, lines[known])
        found.append(tail.reshape(shape))
    return found[0], found[1]


def _highest(y: FloatArray, edge: FloatArray, tail: float) -> FloatArray:
    """Return the least t with P(sum of D x > t) <= tail for x = (y, edge), from above.

    The logarithm of the probability is nearly straight in log(edge - t), so that secants converge
    in about seven races. A bracket that closes too slowly is halved.
    """
    x = np.sort(np.column_stack([y, edge]), axis=1)
    scale = _power_of_two(x)
    x /= scale[:, None]
    low, high, end = x[:, 0].copy(), x[:, -1].copy(), x[:, -1]
    tolerance = np.maximum(TOLERANCE * (high - low), 4 * np.finfo(np.float64).eps)
    at, slope = _first(x, tail)
    place_before, excess_before, width = (np.full(len(x), np.inf) for _ in range(3))
    for evaluation in range(_EVALUATIONS):
        rows = np.flatnonzero(high - low > 2 * tolerance)
        if not len(rows):
            break
        if evaluation % 4 == 3:
            slow = rows[high[rows] - low[rows] > width[rows] / 2]
            at[slow] = (low[slow] + high[slow]) / 2
            width[rows] = high[rows] - low[rows]
        t = np.clip(at[rows], low[rows] + tolerance[rows], high[rows] - tolerance[rows])
        lost = race_lost(x[rows], t)
        safe = lost <= tail
        high[rows], low[rows] = np.where(safe, t, high[rows]), np.where(safe, low[rows], t)
        place = np.log(end[rows] - t)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.maximum(np.log(lost / tail), _HOPELESS)
            secant = (excess - excess_before[rows]) / (place - place_before[rows])
        slope[rows] = np.where((secant > 0.0) & np.isfinite(secant), secant, slope[rows])
        place_before[rows], excess_before[rows] = place, excess
        step = -(end[rows] - t) * np.expm1(np.minimum(-excess / slope[rows], -_HOPELESS))
        # A step too short to matter goes across the root, so that the bracket closes.
        least = np.where(safe, -tolerance[rows], tolerance[rows])
        at[rows] = t + np.where(np.abs(step) < tolerance[rows], least, step)
    found: FloatArray = high * scale
    return found


def _first(x: FloatArray, tail: float) -> tuple[FloatArray, FloatArray]:
    """Return where to look first, by three moments, and the slope of the logarithm there."""
    n, end = x.shape[1], x[:, -1]
    mean = x.mean(axis=1)
    d = x - mean[:, None]
    deviation = np.sqrt(np.maximum((d * d).mean(axis=1), _TINY))
    skewness = 2.0 * ((d / deviation[:, None]) ** 3).mean(axis=1) * np.sqrt(n + 1.0) / (n + 2)
    deviation /= np.sqrt(n + 1.0)
    z = normal_quantile(1.0 - 2.0 * tail)
    reach = deviation * (z + skewness * (z * z - 1.0) / 6.0)
    left = np.maximum(end - mean - reach, (end - mean) / 32)
    density = np.exp(-z * z / 2.0) / np.sqrt(2.0 * np.pi)
    return end - left, density / tail * left / deviation


def _by_rows(values: FloatArray, line: FloatArray, which: int) -> FloatArray:
    shape, n = values.shape[:-1], values.shape[-1]
    rows = np.sort(values.reshape(-1, n), axis=1)
    lines = np.broadcast_to(line, shape).reshape(-1)
    found = np.empty(len(rows))
    size = max(1, 2 * _AT_ONCE // n)
    for start in range(0, len(rows), size):
        some = slice(start, start + size)
        found[some] = _raced(rows[some], lines[some])[which]
    return found.reshape(shape)


def _raced(x: FloatArray, t: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return P(sum of D x <= t) and P(sum of D x > t); x (B, n) ascending, t (B,)."""
    scale = _power_of_two(np.column_stack([x, t]))
    x, t = (x / scale[:, None]).T, t / scale
    # Few racers above and many below take less time than the other way round.
    turned = (x > t).sum(axis=0) > (x < t).sum(axis=0)
    x, t = np.where(turned, -x[::-1], x), np.where(turned, -t, t)
    n_above, n_below = (int(one.sum(axis=0).max()) for one in (x > t, x < t))
    # Races of fewer are filled up with those that go first: a of 0 before any b, b of almost 0
    # before any a but 0.
    a = np.maximum(x - t, 0.0)[len(x) - n_above :]
    b = np.maximum(t - x, _TINY)[:n_below]  # backwards: the last of these goes first
    mass = np.zeros((n_above + 1, len(t)))  # mass[i]: i of a and k - i of b are used up
    mass[0] = 1.0
    for k in range(n_above + n_below - 1):
        first, last = max(0, k - n_below + 1), min(n_above, k + 1)
        ours, theirs = a[first:last], b[n_below - 1 - k + first : n_below - 1 - k + last]
        total = ours + theirs
        moved = mass[first:last] * (theirs / total)
        mass[first:last] *= ours / total
        mass[first + 1 : last + 1] += moved
    won, lost = mass[n_above], mass[:n_above].sum(axis=0)
    return np.where(turned, lost, won), np.where(turned, won, lost)


def _power_of_two(x: FloatArray) -> FloatArray:
    """Return (B,) powers of two near the largest of each row: to divide by them is exact."""
    _, exponent = np.frexp(np.abs(x).max(axis=1))
    found: FloatArray = np.ldexp(1.0, np.clip(exponent, -1000, 1000))
    return found

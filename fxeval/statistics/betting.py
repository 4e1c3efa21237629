"""A betting confidence sequence: intervals of a bounded mean that hold at every look at once.

Bet against the claim that the mean is m: a fair game, so that the capital of whoever bets is more
than 1 / alpha at any time with a probability of at most alpha (Ville). One capital bets that the
mean is higher, another that it is lower, and each may leave out half of the error. What the capital
has not ruled out is the interval. It holds for every distribution between the edges, whatever the
number of looks, and whoever stops whenever they like.

Bets depend on the values before alone, so the order of the identities must not be chosen by what
they say: it is that of ``fxeval.statistics.extended``.

Source:
    Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting",
    Journal of the Royal Statistical Society B 86, section 4 (predictable plug-in bets; hedged).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

BETTING = "betting confidence sequence"
"""Its name in a method."""

MOST = 0.75
"""Largest share of the capital that one value may lose. Half favours skewed values; three quarters,
differences of which most are far smaller than their edges allow."""

_TOLERANCE = 1e-12  # of a bound, as a share of the range, on the safe side


def betting_interval(
    y: ArrayLike, low_edge: float, high_edge: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a mean after all values so far.

    Args:
        y: (G,) one value per identity in the planned order, none beyond the edges.
        low_edge: Least possible value, finite.
        high_edge: Largest possible value, finite, above the least.
        confidence: Two-sided, promised for all looks together.

    Returns:
        low and high; the edges where nothing is ruled out.

    Raises:
        ValueError: If there is no value, one is not finite or beyond the edges, or an edge is not
            finite.

    Example:
        >>> low, high = betting_interval([0.4, 0.6] * 100, 0.0, 1.0)
        >>> round(low, 2), round(high, 2)
        (0.48, 0.52)
    """
    x = _scaled(y, low_edge, high_edge)
    side = math.log(2.0 / (1.0 - confidence))
    low = _lowest(x, side, confidence)
    high = 1.0 - _lowest(1.0 - x, side, confidence)
    # A mean that drifts may rule out itself; whoever gives a value does not.
    mean = float(x.mean())
    low, high = min(low, mean), max(high, mean)
    span = high_edge - low_edge
    return low_edge + span * low, low_edge + span * high


def betting_tails(
    y: ArrayLike, low_edge: float, high_edge: float, line: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the p-values that belong to :func:`betting_interval`: one over the capital.

    Args:
        y: (G,) one value per identity in the planned order, none beyond the edges.
        low_edge: Least possible value, finite.
        high_edge: Largest possible value, finite, above the least.
        line: The mean in question.
        confidence: For which the bets are sized; the p-values hold whatever it is.

    Returns:
        The first is at most alpha / 2 where the interval lies above the line, and the second where
        it lies below.
    """
    x = _scaled(y, low_edge, high_edge)
    m = (line - low_edge) / (high_edge - low_edge)
    above = log_capital(x, m, confidence)[-1] if m >= 0.0 else math.inf
    below = log_capital(1.0 - x, 1.0 - m, confidence)[-1] if m <= 1.0 else math.inf
    return math.exp(-max(above, 0.0)), math.exp(-max(below, 0.0))


def log_capital(x: FloatArray, m: float, confidence: float) -> FloatArray:
    """Return the logarithm of the capital, after each value, of who bets that the mean is above m.

    Args:
        x: (G,) values in [0, 1] in their order.
        m: The mean in question, >= 0.
        confidence: For which the bets are sized.

    Returns:
        (G,); it falls with m, as each bet does.
    """
    stakes = bets(x, confidence)
    if m > 0.0:
        stakes = np.minimum(stakes, MOST / m)
    found: FloatArray = np.cumsum(np.log1p(stakes * (x - m)))
    return found


def bets(x: FloatArray, confidence: float) -> FloatArray:
    """Return the bet on each of (G,) values in [0, 1], which depends on those before it alone.

    The mean and the variance so far are begun with one value of 1/2 that lies 1/2 off.
    """
    t = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (t + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (t + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    found: FloatArray = np.sqrt(2.0 * math.log(2.0 / (1.0 - confidence)) / before / t
                                / np.log1p(t))  # fmt: skip
    return found


def _lowest(x: FloatArray, side: float, confidence: float) -> float:
    """Return the largest m that the capital rules out, from below; 0 if it rules out none."""
    low, high = 0.0, 1.0
    if log_capital(x, low, confidence)[-1] < side:
        return 0.0
    while high - low > _TOLERANCE:
        middle = (low + high) / 2.0
        is_out = log_capital(x, middle, confidence)[-1] >= side
        low, high = (middle, high) if is_out else (low, middle)
    return low


def _scaled(y: ArrayLike, low: float, high: float) -> FloatArray:
    values = np.asarray(y, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"betting: expected (G,) finite values, G >= 1, got {values.shape}.")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"betting: expected finite edges, low < high, got [{low}, {high}].")
    if values.min() < low or values.max() > high:
        raise ValueError(
            f"betting: expected values in [{low:g}, {high:g}], got {values.min():.9g} to "
            f"{values.max():.9g}."
        )
    scaled: FloatArray = np.clip((values - low) / (high - low), 0.0, 1.0)
    return scaled

"""S: bounds of the mean of values without known edges, by a t corrected for skewness.

Student's t passes falsely where a sample hides its skewness. Here each side is corrected, by Hall's
cubic transformation, for a skewness one standard error worse than the sample's, and neither is
narrower than t.

Source:
    Hall 1992, "On the removal of skewness by transformation", Journal of the Royal Statistical
    Society B 54.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.statistics.distributions import t_quantile, t_tail

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

CONSTANT = 1e-12
"""Standard deviation, as a share of the largest value or 1, that counts as none: rounding."""


def skew_t(y: ArrayLike, confidence: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return S, at exactly this level.

    Args:
        y: (..., G) one value per identity.
        confidence: Two-sided.

    Returns:
        low, high and sample skewness, each (...). NaN, NaN and 0 with fewer than 3 identities or
        where nothing but rounding varies.
    """
    moments = Moments(np.asarray(y, dtype=np.float64))
    return *moments.bounds(confidence), moments.skewness


def skew_t_tails(y: ArrayLike, line: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the p-values that belong to :func:`skew_t`.

    Args:
        y: (..., G) one value per identity.
        line: (...) the mean in question.

    Returns:
        (...) above: at most alpha / 2 exactly where the interval lies at or above the line; and
        (...) below. 1 where there is no interval.
    """
    return Moments(np.asarray(y, dtype=np.float64)).tails(np.asarray(line, dtype=np.float64))


def spread_of(y: ArrayLike) -> FloatArray:
    """Return the standard deviation (...) of (..., G) values; 0 where only rounding varies."""
    return Moments(np.asarray(y, dtype=np.float64)).spread


def reaches(n: int, skewness: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Return how many standard errors S reaches to the left and to the right.

    Args:
        n: Number of identities, >= 3.
        skewness: (...) of the sample.
        confidence: Two-sided.
    """
    q, root = t_quantile(confidence, n - 1), math.sqrt(n)

    def reach(worse: FloatArray) -> FloatArray:
        """Hall's cubic, inverted, on the side to which the skewness is positive."""
        cube = 1.0 - worse * (q / root + worse / (6 * n))
        return np.maximum(q, 3 * root / worse * (1.0 - np.cbrt(cube)))

    left, right = _worse(n, skewness)
    return reach(left), reach(right)


def _worse(n: int, skewness: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the skewness to the left and to the right, one standard error worse than seen."""
    error = 1.0
    if n >= 3:
        error = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    return np.maximum(-skewness, 0.0) + error, np.maximum(skewness, 0.0) + error


class Moments:
    """Mean, standard error and skewness of values along the last axis."""

    def __init__(self, y: FloatArray) -> None:
        n = y.shape[-1]
        self.n = n
        largest = np.abs(y).max(axis=-1)
        _, exponent = np.frexp(largest)
        scale = np.ldexp(1.0, np.clip(exponent, -1000, 1000))  # so that no sum or cube overflows
        y = np.ascontiguousarray(y / scale[..., None])
        mean = y.mean(axis=-1)
        d = y - mean[..., None]
        reach = np.abs(d).max(axis=-1)
        d /= np.where(reach > 0.0, reach, 1.0)[..., None]
        variance = (d * d).mean(axis=-1)
        deviation = np.sqrt(variance) * reach * scale
        differ = deviation > CONSTANT * np.maximum(1.0, largest)
        unbiased = math.sqrt(n / (n - 1)) if n > 1 else math.nan
        self.spread: FloatArray = np.where(differ, deviation, 0.0) * unbiased
        self.varies: BoolArray = differ & (n >= 3)
        self.mean: FloatArray = mean * scale
        self.error: FloatArray = np.where(self.varies, self.spread / math.sqrt(n), math.nan)
        third = (d * d * d).mean(axis=-1) / np.where(self.varies, variance, 1.0) ** 1.5
        third *= math.sqrt(n * (n - 1)) / max(n - 2, 1)
        self.skewness: FloatArray = np.where(self.varies, third, 0.0)

    def at(self, some: BoolArray) -> "Moments":
        """Return those of some rows."""
        found: Moments = object.__new__(Moments)
        found.n = self.n
        found.mean, found.error = self.mean[some], self.error[some]
        found.skewness, found.varies = self.skewness[some], self.varies[some]
        return found

    def bounds(self, confidence: float) -> tuple[FloatArray, FloatArray]:
        """Return S; NaN where nothing varies."""
        if self.n < 3:
            return self.error.copy(), self.error.copy()
        left, right = reaches(self.n, self.skewness, confidence)
        return self.mean - self.error * left, self.mean + self.error * right

    def tails(self, line: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the p-values above and below a line that belong to the bounds."""
        root = math.sqrt(self.n)

        def tail(away: FloatArray, skewness: FloatArray) -> FloatArray:
            cubic = root / skewness * (1.0 - (1.0 - skewness * away / (3 * root)) ** 3)
            reach = np.minimum(away, cubic - skewness / (6 * root))
            found = np.ones(reach.shape)
            for index in np.ndindex(reach.shape):
                if reach[index] > 0.0:  # not where it is NaN
                    found[index] = t_tail(float(reach[index]), self.n - 1) / 2.0
            return found

        left, right = _worse(self.n, self.skewness)
        with np.errstate(over="ignore", invalid="ignore"):
            away = (line - self.mean) / self.error
            return tail(-away, left), tail(away, right)

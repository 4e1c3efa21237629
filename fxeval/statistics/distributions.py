"""Quantiles and tails of Student's t and of the beta distribution, without scipy."""

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

_STEPS = 1000  # of the continued fraction, which takes about as many as the root of a + b


@lru_cache(maxsize=4096)
def t_quantile(confidence: float, freedom: int) -> float:
    """Return the t with P(|T| <= t) = confidence, T of Student's t distribution.

    For whole degrees of freedom the probability is a finite sum of positive terms in
    theta = atan(t / sqrt(freedom)), so it loses no digits; theta is found by bisection.

    Args:
        confidence: In (0, 1).
        freedom: Degrees of freedom, >= 1.

    Source:
        Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    below, above = 0.0, math.pi / 2.0
    # Ends when no float lies between the two.
    while below < (middle := (below + above) / 2.0) < above:
        if _t_probability(middle, freedom) < confidence:
            below = middle
        else:
            above = middle
    return math.sqrt(freedom) * math.tan(below)


def t_tail(t: float, freedom: int) -> float:
    """Return P(|T| > t), to full relative precision; 1 for a t below 0.

    Args:
        t: May be infinite.
        freedom: Degrees of freedom, >= 1.
    """
    if not t > 0.0:
        return 1.0
    return beta_cdf(1.0 / (1.0 + t / freedom * t), freedom / 2.0, 0.5)


@lru_cache(maxsize=64)
def normal_quantile(confidence: float) -> float:
    """Return the z with P(|Z| <= z) = confidence, Z standard normal."""
    return -NormalDist().inv_cdf((1.0 - confidence) / 2.0)


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return P(X <= x) for the beta distribution.

    Args:
        x: Any number.
        a: > 0.
        b: > 0.

    Source:
        The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8),
        evaluated forwards (Lentz 1976).
    """
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_cdf(1.0 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1.0 / (1.0 + term * d), 1.0 + term / c
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return front * fraction


@lru_cache(maxsize=4096)
def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the largest x that bisection finds with P(X <= x) below a probability.

    Args:
        probability: In (0, 1).
        a: > 0.
        b: > 0.
    """
    below, above = 0.0, 1.0
    while below < (middle := (below + above) / 2.0) < above:
        if beta_cdf(middle, a, b) < probability:
            below = middle
        else:
            above = middle
    return below


def _t_probability(theta: float, freedom: int) -> float:
    """Return P(|T| <= sqrt(freedom) * tan(theta))."""
    sine, cosine = math.sin(theta), math.cos(theta)
    is_odd = freedom % 2
    j = np.arange(1, (freedom - is_odd) // 2)
    ratios = (2 * j - 1 + is_odd) / (2 * j + is_odd) * cosine**2
    series = 1.0 + float(np.cumprod(ratios).sum())
    if not is_odd:
        return sine * series
    return (theta + (sine * cosine * series if freedom > 1 else 0.0)) * 2.0 / math.pi

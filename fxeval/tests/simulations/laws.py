"""Populations whose mean and median are known: the law of one row's value."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fxeval.results import ValueKind

FloatArray = NDArray[np.float64]
NORMAL = NormalDist()


@dataclass(frozen=True)
class Population:
    """The law of the value of one row.

    Attributes:
        name: In words.
        kind: As which its values are declared.
        draw: Draws n independent values, (n,).
        mean: True mean.
        sd: Standard deviation, the unit of distances.
        low: Least value that is declared possible.
        high: Largest value that is declared possible.
        median: True median; NaN where it is not used.
    """

    name: str
    kind: ValueKind
    draw: Callable[[Generator, int], FloatArray]
    mean: float
    sd: float
    low: float = -math.inf
    high: float = math.inf
    median: float = math.nan


def normal() -> Population:
    return Population("normal", "light", lambda rng, n: rng.normal(size=n), 0.0, 1.0, median=0.0)


def exponential() -> Population:
    def draw(rng: Generator, n: int) -> FloatArray:
        return rng.exponential(size=n)

    return Population("exponential", "light", draw, 1.0, 1.0, median=math.log(2.0))


def beta(a: float, b: float, kind: ValueKind) -> Population:
    mean, total = a / (a + b), a + b
    sd = math.sqrt(mean * (1.0 - mean) / (total + 1.0))
    return Population(
        f"beta({a:g}, {b:g})", kind, lambda rng, n: rng.beta(a, b, n), mean, sd, 0.0, 1.0
    )


def lognormal(s: float) -> Population:
    mean, square = math.exp(s**2 / 2.0), math.exp(s**2)
    sd = mean * math.sqrt(square - 1.0)

    def draw(rng: Generator, n: int) -> FloatArray:
        return rng.lognormal(0.0, s, n)

    return Population(f"lognormal, s = {s:g}", "heavy", draw, mean, sd, median=1.0)


def rate(share: float, kind: ValueKind = "rate") -> Population:
    def draw(rng: Generator, n: int) -> FloatArray:
        return (rng.random(n) < share).astype(np.float64)

    sd = math.sqrt(share * (1.0 - share))
    return Population(f"rate {share:g}", kind, draw, share, sd, 0.0, 1.0)


def mixture(
    name: str, share: float, at: float, centre: float, spread: float, kind: ValueKind
) -> Population:
    """Values around a centre, but for a rare share that lies at one place.

    Args:
        name: In words.
        share: Of the values that lie there.
        at: That place.
        centre: Of the others, uniform on centre +- spread * sqrt(3).
        spread: Their standard deviation.
        kind: As which they are declared.
    """

    def draw(rng: Generator, n: int) -> FloatArray:
        usual = rng.uniform(centre - spread * 3**0.5, centre + spread * 3**0.5, n)
        return np.where(rng.random(n) < share, at, usual)

    mean = share * at + (1.0 - share) * centre
    variance = share * at**2 + (1.0 - share) * (centre**2 + spread**2) - mean**2
    return Population(name, kind, draw, mean, math.sqrt(variance), 0.0, 1.0)


def jumps(kind: ValueKind = "rate") -> Population:
    return mixture("2 % of jumps", 0.02, 1.0, 0.1, 0.02, kind)


def rare_group(kind: ValueKind) -> Population:
    return mixture("2 % of people at 0", 0.02, 0.0, 0.5, 0.05, kind)


def paired_difference(one: Population, common: float, factor: float) -> Population:
    """The difference of two values of a pair: v of the explainer, c of the control.

    Args:
        one: The law of v, and of c / factor.
        common: Chance that c is v times the factor, so that the two resemble each other.
        factor: c is the factor times a value of the law: above 1 if the explainer is better.
    """

    def draw(rng: Generator, n: int) -> FloatArray:
        v, other = one.draw(rng, n), one.draw(rng, n)
        return factor * np.where(rng.random(n) < common, v, other) - v

    mean = (factor - 1.0) * one.mean
    square = one.sd**2 + one.mean**2
    product = common * square + (1.0 - common) * one.mean**2
    variance = (factor**2 + 1.0) * square - 2.0 * factor * product - mean**2
    low, high = factor * one.low - one.high, factor * one.high - one.low
    return Population(
        f"difference of {one.name}", one.kind, draw, mean, math.sqrt(variance), low, high
    )


def paired_outcomes(better: float, worse: float) -> Population:
    """Differences of yes and no: 1 with chance ``better``, -1 with chance ``worse``, else 0."""

    def draw(rng: Generator, n: int) -> FloatArray:
        u = rng.random(n)
        return (u < better).astype(np.float64) - (u > 1.0 - worse)

    mean = better - worse
    sd = math.sqrt(better + worse - mean**2)
    name = f"paired outcomes, {better:.0%} better, {worse:.0%} worse"
    return Population(name, "rate", draw, mean, sd, -1.0, 1.0)


LIGHT = (normal(), exponential(), beta(3, 9, "light"))
HEAVY = (lognormal(1.0), lognormal(1.5))
RATE_LIKE = (beta(1.96, 0.04, "rate"), jumps(), beta(3, 9, "rate"))
RATES = tuple(rate(share) for share in (0.01, 0.05, 0.2, 0.5, 0.95))
DIFFERENCES = (
    paired_difference(beta(3, 9, "light"), 0.5, 1.0),
    paired_difference(lognormal(1.0), 0.5, 1.5),
    paired_difference(beta(1.96, 0.04, "rate"), 0.5, 1.0),
)
OUTCOMES = (
    paired_outcomes(0.05, 0.05),
    paired_outcomes(0.1, 0.02),
    paired_outcomes(0.2, 0.2),
)
IMPOSSIBLE = (rare_group("light"), rare_group("heavy"), lognormal(2.0))
"""What no rule that looks at the sample can be protected from, short of knowing the edges."""

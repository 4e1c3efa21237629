"""Ratios of two means at the boundary: the line is the true ratio, so every verdict is an error."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator

from fxeval.results import ValueKind
from fxeval.seeding import generator_of
from fxeval.statistics.distributions import t_quantile
from fxeval.statistics.estimate import Denominator, Law, Sample, tails
from fxeval.tests.simulations.crossed import draw_pairs
from fxeval.tests.simulations.designs import Design, IntArray
from fxeval.tests.simulations.laws import FloatArray
from fxeval.tests.simulations.run import TAIL
from fxeval.tests.simulations.tally import Tally, tally

Columns = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class RatioPopulation:
    """The law of a row's numerator and denominator.

    Attributes:
        name: In words.
        kind: As which the values are declared.
        draw: Draws n independent rows, numerators and denominators, (n,) each.
        numerator: True mean.
        denominator: True mean.
        edge: Values lie within +- this.
    """

    name: str
    kind: ValueKind
    draw: Callable[[Generator, int], Columns]
    numerator: float
    denominator: float
    edge: float = math.inf

    @property
    def ratio(self) -> float:
        """The true ratio."""
        return self.numerator / self.denominator

    @property
    def law(self) -> Law:
        """What is declared of it."""
        below = Denominator("", self.kind, -self.edge, self.edge, 0.02)
        return Law("ratio", self.kind, -self.edge, self.edge, below)


def decisions(own: float, kept: float, other: float) -> RatioPopulation:
    """Pairs that the model's own map makes it reject, and those that another's makes it reject.

    Args:
        own: Share that the own map makes it reject.
        kept: Chance that the other map does so, too, of these.
        other: Chance that it does so of the rest.
    """

    def draw(rng: Generator, n: int) -> Columns:
        below = rng.random(n) < own
        above = rng.random(n) < np.where(below, kept, other)
        return above.astype(np.float64), below.astype(np.float64)

    numerator = own * kept + (1.0 - own) * other
    name = f"decisions, {own:.0%} by the own map, ratio {numerator / own:.2f}"
    return RatioPopulation(name, "rate", draw, numerator, own, 1.0)


def normal() -> RatioPopulation:
    def draw(rng: Generator, n: int) -> Columns:
        below = rng.normal(1.0, 1.0, n)
        return 0.6 * below + rng.normal(0.2, 0.5, n), below

    return RatioPopulation("normal", "light", draw, 0.8, 1.0)


def drops() -> RatioPopulation:
    """Falls of the cosine, of which a map from elsewhere reaches a part."""

    def draw(rng: Generator, n: int) -> Columns:
        below = rng.beta(2.0, 8.0, n)
        return below * rng.beta(3.0, 2.0, n), below

    return RatioPopulation("beta(2, 8), a part of it", "light", draw, 0.12, 0.2, 2.0)


def lognormal() -> RatioPopulation:
    def draw(rng: Generator, n: int) -> Columns:
        below, more = rng.lognormal(0.0, 1.0, (2, n))
        return 0.5 * below + 0.3 * more, below

    mean = math.exp(0.5)
    return RatioPopulation("lognormal, s = 1", "heavy", draw, 0.8 * mean, mean)


POPULATIONS = (
    decisions(0.6, 0.8, 0.1),
    decisions(0.3, 0.5, 0.05),
    decisions(0.1, 0.5, 0.05),
    decisions(0.95, 0.95, 0.5),
    normal(),
    drops(),
    lognormal(),
)


RATIO_RUNS = 1000
RATIO_PROMISE = 0.030
"""Largest share of false passes on one side: the largest that is promised of a mean."""

RATIO_IDENTITIES = (30, 100)
RATIO_DESIGNS = tuple(
    Design(G, sizes, icc)
    for G in RATIO_IDENTITIES
    for sizes, icc in (("one row", 0.0), ("rows as in LFW", 0.3))
)


@cache
def simulate_ratio(population: RatioPopulation, design: Design, runs: int) -> tuple[Tally, Tally]:
    """Judge many lists by the true ratio.

    Returns:
        Of the intervals that decide, and of the delta method: Student's t interval of the ratio's
        first-order expansion over identities.
    """
    rng = generator_of("simulations", "ratio", population.name, str(design))
    sizes = design.draw_sizes(rng, runs)
    ours, delta = [], []
    for own in sizes:
        people = np.repeat(np.arange(len(own)), own)
        columns = _rows(population, rng, people, design.icc)
        sample = Sample(columns[0], people, None, columns[1])
        ours.append([p <= TAIL for p in tails(sample, population.law, population.ratio)])
        delta.append(_delta(columns, people, population.ratio))
    return tuple(tally(*np.array(found).T) for found in (ours, delta))


def crossed_ratio(population: RatioPopulation, identities: int, runs: int) -> Tally:
    """Likewise with rows of two people, whose common effect is that of either's own row."""
    rng = generator_of("simulations", "crossed ratio", population.name, identities)
    found = []
    for _ in range(runs):
        people = np.stack(draw_pairs(rng, identities, 5 * identities), axis=1)
        own = population.draw(rng, identities)
        fresh = population.draw(rng, len(people))
        chosen = rng.random(len(people))
        columns = [
            np.where(
                chosen < 0.2, one[people[:, 0]], np.where(chosen < 0.4, one[people[:, 1]], new)
            )
            for one, new in zip(own, fresh, strict=True)
        ]
        sample = Sample(columns[0], people, None, columns[1])
        found.append([p <= TAIL for p in tails(sample, population.law, population.ratio)])
    return tally(*np.array(found).T)


def _rows(population: RatioPopulation, rng: Generator, people: IntArray, icc: float) -> Columns:
    """Draw rows; each repeats the identity's own with chance sqrt(ICC)."""
    fresh = population.draw(rng, len(people))
    own = population.draw(rng, int(people.max()) + 1)
    repeats = rng.random(len(people)) < icc**0.5
    one, two = (np.where(repeats, kept[people], new) for kept, new in zip(own, fresh, strict=True))
    return one, two


def _delta(columns: Columns, people: IntArray, line: float) -> tuple[bool, bool]:
    above, below = (np.bincount(people, one) / np.bincount(people) for one in columns)
    if not below.mean() > 0.0:
        return False, False
    ratio = above.mean() / below.mean()
    error = np.std(above - ratio * below, ddof=1) / below.mean() / len(above) ** 0.5
    half = t_quantile(0.95, len(above) - 1) * error
    return bool(ratio - half > line), bool(ratio + half < line)

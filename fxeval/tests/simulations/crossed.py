"""Lists on which every row has two identities: values of pairs, and scores of a verification list.

The identity effects are those of both people of a pair, so rows that share one are alike.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fxeval.results import Statistic, ValueKind
from fxeval.tests.simulations.designs import IntArray
from fxeval.tests.simulations.laws import NORMAL, FloatArray

Effect = Callable[[Generator, tuple[int, int]], FloatArray]
"""Draws identity effects of mean 0 and variance 1, (runs, G)."""


def normal_effect(rng: Generator, shape: tuple[int, int]) -> FloatArray:
    return rng.normal(size=shape)


def exponential_effect(rng: Generator, shape: tuple[int, int]) -> FloatArray:
    return rng.exponential(size=shape) - 1.0


def lognormal_effect(rng: Generator, shape: tuple[int, int]) -> FloatArray:
    mean = math.exp(0.5)
    return (rng.lognormal(size=shape) - mean) / (mean * math.sqrt(math.e - 1.0))


@dataclass(frozen=True)
class CrossedPopulation:
    """Values of pairs of different people: the effects of both, and the pair's own.

    Attributes:
        name: In words.
        kind: As which the values are declared.
        effect: Law of the identity effects.
        share: Of the variance, for each of the two people.
        above: The value is whether the sum exceeds this; NaN = the sum itself. Needs normal
            effects, so that the truth is known.
    """

    name: str
    kind: ValueKind
    effect: Effect
    share: float = 0.1
    above: float = math.nan

    @property
    def mean(self) -> float:
        """The true mean."""
        return 0.0 if math.isnan(self.above) else 1.0 - NORMAL.cdf(self.above)

    @property
    def edges(self) -> tuple[float, float]:
        """Least and largest value that is declared possible."""
        return (-math.inf, math.inf) if math.isnan(self.above) else (0.0, 1.0)

    def draw(
        self, rng: Generator, runs: int, identities: int, first: IntArray, second: IntArray
    ) -> FloatArray:
        """Return the values of the pairs, (runs, N)."""
        effects = self.share**0.5 * self.effect(rng, (runs, identities))
        own = rng.normal(0.0, (1.0 - 2.0 * self.share) ** 0.5, (runs, len(first)))
        total = effects[:, first] + effects[:, second] + own
        return total if math.isnan(self.above) else (total > self.above).astype(np.float64)


def crossed_rate(share: float) -> CrossedPopulation:
    above = NORMAL.inv_cdf(1.0 - share)
    return CrossedPopulation(f"crossed, rate {share:g}", "rate", normal_effect, above=above)


CROSSED_NORMAL = CrossedPopulation("crossed, normal effects", "light", normal_effect)
CROSSED_EXPONENTIAL = CrossedPopulation("crossed, exponential effects", "light", exponential_effect)
CROSSED_LOGNORMAL = CrossedPopulation(
    "crossed, lognormal effects", "heavy", lognormal_effect, share=0.2
)
CROSSED_RATES = tuple(crossed_rate(share) for share in (0.2, 0.05, 0.01))


def draw_pairs(rng: Generator, identities: int, n: int) -> tuple[IntArray, IntArray]:
    """Return n different pairs of different people; everybody is in one at least."""
    first, second = np.triu_indices(identities, 1)
    ring = np.flatnonzero((second - first == 1) | (second - first == identities - 1))
    others = np.setdiff1d(np.arange(len(first)), ring)
    chosen = np.concatenate((ring, rng.choice(others, n - identities, replace=False)))
    return first[chosen].astype(np.int64), second[chosen].astype(np.int64)


@dataclass(frozen=True)
class ScoreList:
    """A verification list with normal scores; mated ones are higher by a distance.

    Mated and nonmated scores have variance 1, a fifth of which is due to the people.

    Attributes:
        identities: Their number.
        mated: Number of mated rows of each.
        nonmated: Number of nonmated rows in all.
        distance: Between the means.
    """

    identities: int
    mated: int
    nonmated: int
    distance: float

    def truth(self, statistic: Statistic) -> float:
        """Return the figure of the population."""
        if statistic == "auc":
            return NORMAL.cdf(self.distance / 2.0**0.5)
        if statistic == "eer":
            return NORMAL.cdf(-self.distance / 2.0)
        fmr = float(statistic.removeprefix("tmr_at_fmr_"))
        return NORMAL.cdf(self.distance - NORMAL.inv_cdf(1.0 - fmr))

    def is_mated(self) -> NDArray[np.bool_]:
        """Return which rows are mated, (N,)."""
        n_mated = self.identities * self.mated
        return np.arange(n_mated + self.nonmated) < n_mated

    def draw(self, rng: Generator, runs: int) -> Iterator[tuple[FloatArray, IntArray]]:
        """Draw the similarities (N,) and the identities (N, 2) of each run."""
        people = np.repeat(np.arange(self.identities), self.mated)
        for _ in range(runs):
            pairs = draw_pairs(rng, self.identities, self.nonmated)
            identities = np.concatenate((np.stack((people, people), 1), np.stack(pairs, 1)))
            effect = 0.1**0.5 * rng.normal(size=self.identities)
            own = 0.8**0.5 * rng.normal(size=len(identities))
            mated = self.distance + 2.0**0.5 * effect[people]
            nonmated = effect[pairs[0]] + effect[pairs[1]]
            yield np.concatenate((mated, nonmated)) + own, identities

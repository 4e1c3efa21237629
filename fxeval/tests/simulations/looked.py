"""Cells that are extended while they are undecided, at the boundary: the line is the truth.

python -m fxeval.tests.simulations looks
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fxeval.seeding import generator_of
from fxeval.statistics.betting import betting_tails
from fxeval.statistics.extended import OPEN_STEP
from fxeval.statistics.intervals import clears, crossed
from fxeval.statistics.looks import confidence_at, planned
from fxeval.statistics.verdict import MIN_IDENTITIES
from fxeval.tests.simulations.crossed import CrossedPopulation, draw_pairs
from fxeval.tests.simulations.laws import (
    FloatArray,
    Population,
    beta,
    exponential,
    lognormal,
    normal,
    paired_outcomes,
    rate,
)
from fxeval.tests.simulations.naive import Misses
from fxeval.tests.simulations.tally import Tally, tally

CONFIDENCE = 0.95
LOOKS = 5
PEOPLE = (60, 150, 400)
POPULATIONS: dict[str, tuple[Population, ...]] = {
    "light": (normal(), exponential(), beta(3, 9, "light")),
    "heavy": (lognormal(1.0), lognormal(1.5)),
    "rate": (rate(0.05), rate(0.2), rate(0.95), beta(1.96, 0.04, "rate")),
    "paired outcomes": (paired_outcomes(0.1, 0.02), paired_outcomes(0.2, 0.2)),
}
_LISTS = 20  # different lists of pairs in one simulation

EDGED = (beta(3, 9, "light"), rate(0.05), rate(0.2), beta(1.96, 0.04, "rate"))
"""Populations that can be bet on."""


@dataclass(frozen=True)
class Stopped:
    """Where many cells stopped, and what they said there.

    Attributes:
        above: (runs,) whether the interval lay above the line where the cell stopped.
        below: (runs,) whether below.
        share: (runs,) of the people who were measured.
    """

    above: np.ndarray
    below: np.ndarray
    share: FloatArray

    def tally(self) -> Tally:
        """Count what was decided."""
        return tally(self.above, self.below)


def by_plan(y: FloatArray, population: Population, line: float, looks: int = LOOKS) -> Stopped:
    """Stop each run at the first of the planned looks that decides; one look = a fixed design."""
    steps, _ = planned(y.shape[1], looks, lambda n: n)
    times = [n / y.shape[1] for n in steps]
    found = [
        _clears(y[:, :n], population, line, confidence_at(CONFIDENCE, times, k))
        for k, n in enumerate(steps, start=1)
    ]
    return _stopped(found, steps)


def by_peeking(y: FloatArray, population: Population, line: float, each: int = 10) -> Stopped:
    """Stop each run at the first of many plain intervals that decides: the control."""
    steps = [*range(MIN_IDENTITIES, y.shape[1] + 1, each)]
    return _stopped([_clears(y[:, :n], population, line, CONFIDENCE) for n in steps], steps)


def by_betting(y: FloatArray, population: Population, line: float) -> Stopped:
    """Stop each run where its capital is large enough, after every group of people."""
    steps = [*range(MIN_IDENTITIES, y.shape[1], OPEN_STEP), y.shape[1]]
    side = (1.0 - CONFIDENCE) / 2.0
    found = []
    for n in steps:
        tails = [betting_tails(one[:n], population.low, population.high, line) for one in y]
        above, below = np.array(tails).T
        found.append((above <= side, below <= side))
    return _stopped(found, steps)


def crossed_by_plan(
    population: CrossedPopulation, people: int, rows_each: int, runs: int, looks: int = LOOKS
) -> Stopped:
    """Stop lists of rows of two people, which are drawn one by one, at planned looks."""
    rng = generator_of("simulations", "looks", population.name, people, rows_each)
    found = []
    for _ in range(_LISTS):
        first, second = draw_pairs(rng, people, people * rows_each // 2)
        values = population.draw(rng, runs // _LISTS, people, first, second)
        steps, _ = planned(
            len(first), looks, lambda n, of=(first, second): len(np.unique([x[:n] for x in of]))
        )
        verdicts = []
        for k, n in enumerate(steps, start=1):
            level = confidence_at(CONFIDENCE, [one / len(first) for one in steps], k)
            z = crossed(values[:, :n], first[:n], second[:n])
            edges = (-math.inf, math.inf)
            verdicts.append(clears(z, population.kind, edges, population.mean, level))
        found.append(_stopped(verdicts, steps))
    return Stopped(
        *(np.concatenate([getattr(one, name) for one in found])
          for name in ("above", "below", "share"))
    )  # fmt: skip


def drawn(population: Population, people: int, runs: int, purpose: str) -> FloatArray:
    """Return the values of all people of each run, (runs, G), in the order of the looks."""
    rng = generator_of("simulations", "looks", purpose, population.name, population.kind, people)
    return population.draw(rng, runs * people).reshape(runs, people)


@dataclass(frozen=True)
class Compared:
    """Planned looks beside a fixed design, on the same values.

    Attributes:
        looks: At the boundary.
        fixed: Likewise, all people judged once.
        passes: How often a limit passes that the truth keeps by 3.5 standard errors of all people,
            with looks and fixed.
        shares: Mean share of the people who are measured, on the line, 3.5 and 7 errors off.
    """

    looks: Tally
    fixed: Tally
    passes: tuple[float, float]
    shares: tuple[float, float, float]


def compared(population: Population, people: int, runs: int) -> Compared:
    """Judge many lists with looks and without."""
    return _compared(drawn(population, people, runs, "planned"), population, by_plan)


def bet_on(population: Population, people: int, runs: int) -> Compared:
    """Judge many lists by betting and by a fixed design."""
    return _compared(drawn(population, people, runs, "open"), population, by_betting)


def _compared(y: np.ndarray, population: Population, judge: Callable[..., Stopped]) -> Compared:
    lines = _lines(population, y.shape[-1])
    found = [judge(y, population, line) for line in lines]
    fixed = [by_plan(y, population, line, 1) for line in lines[:2]]
    return Compared(
        found[0].tally(),
        fixed[0].tally(),
        (_passes(found[1], lines), _passes(fixed[1], lines)),
        (_mean(found[0]), _mean(found[1]), _mean(found[2])),
    )


def _lines(population: Population, people: int) -> tuple[float, float, float]:
    """Return the truth, and lines that it keeps, on the side where both lie between the edges."""
    error = population.sd / math.sqrt(people)
    sign = -1.0 if population.mean - 7.0 * error > population.low else 1.0
    near, clear = (population.mean + sign * far * error for far in (3.5, 7.0))
    return population.mean, near, clear


def _passes(one: Stopped, lines: Sequence[float]) -> float:
    return float((one.above if lines[1] < lines[0] else one.below).mean())


def _mean(one: Stopped) -> float:
    return float(one.share.mean())


def _clears(y: FloatArray, population: Population, line: float, confidence: float) -> Misses:
    return clears(y, population.kind, (population.low, population.high), line, confidence)


def _stopped(found: Sequence[Misses], steps: Sequence[int]) -> Stopped:
    above, below = (np.stack(side) for side in zip(*found, strict=True))
    ends = above | below
    at = np.where(ends.any(axis=0), ends.argmax(axis=0), len(steps) - 1)
    runs = np.arange(above.shape[1])
    return Stopped(above[at, runs], below[at, runs], np.array(steps)[at] / steps[-1])

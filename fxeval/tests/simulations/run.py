"""Runs simulations at the boundary: the line is the truth, so every verdict on it is an error."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fxeval.seeding import generator_of
from fxeval.statistics.intervals import interval, interval_tails
from fxeval.tests.simulations.designs import Design, Rows, draw_rows
from fxeval.tests.simulations.laws import FloatArray, Population
from fxeval.tests.simulations.naive import Misses, t_half_width, t_over_identities
from fxeval.tests.simulations.tally import Tally, tally

TAIL = 0.025
"""What each side of a 95 % interval may leave out."""

_ROWS_AT_ONCE = 2_000_000
_FOR_WIDTHS = 100


@dataclass(frozen=True)
class Simulated:
    """A population under a design.

    Attributes:
        population: The law of the rows.
        design: The list.
        ours: Of the intervals that decide.
        t: Of Student's t over identities, on the same rows.
        width: Median width of the interval as a share of that of Student's t; infinite where one
            side is open.
    """

    population: Population
    design: Design
    ours: Tally
    t: Tally
    width: float


def decided(y: FloatArray, population: Population, line: float) -> Misses:
    """Return whether each interval lies above the line, and whether below it.

    Args:
        y: (runs, G) the identities' means.
        population: Its kind and edges.
        line: The number in question.
    """
    above, below = interval_tails(y, population.kind, population.low, population.high, line)
    return above <= TAIL, below <= TAIL


def simulate(population: Population, design: Design, runs: int) -> Simulated:
    """Judge many lists by the truth."""
    ours, t, width = [], [], np.nan
    for y in identity_means(population, design, runs):
        ours.append(decided(y, population, population.mean))
        t.append(t_over_identities(y, population.mean))
        if np.isnan(width):
            width = _width(y[:_FOR_WIDTHS], population)
    return Simulated(population, design, _joined(ours), _joined(t), width)


def power(population: Population, design: Design, runs: int, distance: float) -> float:
    """Return how often "at least" passes a mean that lies above the limit by so many SDs."""
    line = population.mean - distance * population.sd
    found = [
        decided(y, population, line)[0] for y in identity_means(population, design, runs, "power")
    ]
    return float(np.concatenate(found).mean())


def identity_means(
    population: Population, design: Design, runs: int, purpose: str = "coverage"
) -> Iterator[FloatArray]:
    """Yield the identities' means of all runs, some at a time, (B, G)."""
    for rows in rows_of(population, design, runs, purpose):
        yield rows.means()


def rows_of(population: Population, design: Design, runs: int, purpose: str) -> Iterator[Rows]:
    """Yield the rows of all runs, some at a time."""
    rng = generator_of("simulations", purpose, population.name, population.kind, str(design))
    per_run = {"one row": 1, "1 to 20 rows": 11, "rows as in LFW": 3}[design.sizes]
    at_once = max(1, _ROWS_AT_ONCE // (per_run * design.identities))
    for start in range(0, runs, at_once):
        yield draw_rows(population, design, rng, min(at_once, runs - start))


def _joined(found: Sequence[Misses]) -> Tally:
    above, below = (np.concatenate(side) for side in zip(*found, strict=True))
    return tally(above, below)


def _width(y: FloatArray, population: Population) -> float:
    found = interval(y, population.kind, population.low, population.high)
    half = t_half_width(y)
    width = np.nan_to_num(found.high - found.low, nan=np.inf)
    return float(np.median(width[half > 0.0] / (2.0 * half[half > 0.0])))

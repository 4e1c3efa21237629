"""What is expected of each method, and the populations on which it is held to that."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from fxeval.results import Statistic
from fxeval.tests.simulations.crossed import (
    CROSSED_EXPONENTIAL,
    CROSSED_LOGNORMAL,
    CROSSED_NORMAL,
    CROSSED_RATES,
    CrossedPopulation,
    ScoreList,
)
from fxeval.tests.simulations.designs import all_designs
from fxeval.tests.simulations.laws import (
    DIFFERENCES,
    HEAVY,
    LIGHT,
    OUTCOMES,
    RATE_LIKE,
    RATES,
    Population,
    rate,
)
from fxeval.tests.simulations.run import Simulated, simulate
from fxeval.tests.simulations.run_crossed import simulate_crossed, simulate_figure
from fxeval.tests.simulations.tally import Tally

IDENTITIES = (30, 50, 100)
RUNS, CROSSED_RUNS, FIGURE_RUNS, BOOTSTRAP_RUNS = 8000, 1000, 1000, 200

Promise = Mapping[int, float]
"""Largest share of false passes on one side, by number of identities."""

AS_LIGHT: Promise = {30: 0.025, 50: 0.030, 100: 0.029}
AS_HEAVY: Promise = {30: 0.024, 50: 0.023, 100: 0.024}
AS_RATE: Promise = {30: 0.022, 50: 0.020, 100: 0.022}
AS_BOUNDED: Promise = {30: 0.015, 50: 0.016, 100: 0.019}


@dataclass(frozen=True)
class Method:
    """A method with the populations that it is for.

    Attributes:
        name: The method and the kind of value.
        populations: Those that it is tried on.
        promise: What its design measured on laws of the same kind.
        coverage: Least coverage promised.
        many_rows: Whether it is for identities with many rows only.
    """

    name: str
    populations: tuple[Population, ...]
    promise: Promise
    coverage: float
    many_rows: bool = False

    def simulate(self, identities: int, runs: int) -> list[Simulated]:
        """Simulate all populations under all designs of so many identities."""
        return [
            simulate(population, design, runs)
            for population in self.populations
            for design in all_designs(identities)
            if not self.many_rows or design.sizes == "1 to 20 rows"
        ]


METHODS = (
    Method("S, light", LIGHT, AS_LIGHT, 0.956),
    Method("S, heavy", HEAVY, AS_HEAVY, 0.976),
    Method("B, mass at an edge", RATE_LIKE, AS_BOUNDED, 0.977),
    Method("B, rates", RATES, AS_RATE, 0.956),
    Method(
        "S, rates of 1 to 20 rows declared light",
        tuple(rate(one, "light") for one in (0.05, 0.2, 0.5)),
        {30: 0.023, 50: 0.025, 100: 0.024}, 0.95, many_rows=True,
    ),
    Method("S, light differences", DIFFERENCES[:1], AS_LIGHT, 0.956),
    Method("S, heavy differences", DIFFERENCES[1:2], AS_HEAVY, 0.976),
    Method("B, differences with mass at 0", DIFFERENCES[2:], AS_BOUNDED, 0.977),
    Method("B, paired outcomes", OUTCOMES[:2], {30: 0.007, 50: 0.014, 100: 0.018}, 0.956),
    Method("B, paired outcomes that differ often", OUTCOMES[2:], AS_RATE, 0.956),
)  # fmt: skip


@cache
def simulated(method: int, identities: int, runs: int = RUNS) -> tuple[Simulated, ...]:
    """Return what one of ``METHODS`` came to; simulated once in a process."""
    return tuple(METHODS[method].simulate(identities, runs))


@dataclass(frozen=True)
class CrossedMethod:
    """A method for rows of two identities each.

    Attributes:
        population: The law.
        promise: Largest share of false passes on one side.
        coverage: Least coverage promised.
    """

    population: CrossedPopulation
    promise: float
    coverage: float = 0.95


CROSSED = (
    CrossedMethod(CROSSED_NORMAL, 0.020),
    CrossedMethod(CROSSED_EXPONENTIAL, 0.027),
    CrossedMethod(CROSSED_LOGNORMAL, 0.018),
    *(CrossedMethod(one, 0.019, 0.969) for one in CROSSED_RATES),
)
ROWS_EACH = (5, 20)


@cache
def simulated_crossed(
    method: int, identities: int, rows_each: int, runs: int = CROSSED_RUNS
) -> tuple[Tally, Tally]:
    """Return what one of ``CROSSED`` came to, and Student's t over rows."""
    return simulate_crossed(CROSSED[method].population, identities, rows_each, runs)


@dataclass(frozen=True)
class FigureMethod:
    """A figure of a verification list.

    Attributes:
        statistic: The figure.
        scores: The lists.
        promise: Largest share of false passes on one side.
        runs: Number of lists.
    """

    statistic: Statistic
    scores: tuple[ScoreList, ...]
    promise: float
    runs: int = FIGURE_RUNS


FIGURES = (
    FigureMethod(
        "auc",
        tuple(
            ScoreList(G, mated, 5 * G, distance)
            for G in IDENTITIES
            for mated, distance in ((1, 2.0), (3, 2.0), (2, 4.0))
        ),
        0.030,
    ),
    FigureMethod(
        "eer",
        (
            ScoreList(30, 4, 150, 2.0), ScoreList(50, 2, 250, 2.0), ScoreList(100, 1, 500, 2.0),
            ScoreList(100, 2, 500, 3.0), ScoreList(150, 1, 600, 3.0),
        ),
        0.028, 2 * BOOTSTRAP_RUNS,
    ),
    FigureMethod(
        "tmr_at_fmr_1e-1",
        (ScoreList(30, 2, 60, 2.0), ScoreList(50, 2, 60, 2.0), ScoreList(100, 2, 100, 2.0)),
        0.025, BOOTSTRAP_RUNS,
    ),
)  # fmt: skip


@cache
def simulated_figure(method: int, scores: ScoreList) -> Tally:
    """Return what one of ``FIGURES`` came to on one kind of list."""
    return simulate_figure(FIGURES[method].statistic, scores, FIGURES[method].runs)

"""Runs simulations of lists on which rows share people: pairs of two, and verification scores."""

import numpy as np

from fxeval.results import Statistic
from fxeval.seeding import generator_of
from fxeval.statistics.distributions import t_quantile
from fxeval.statistics.intervals import crossed, crossed_rate, interval_tails
from fxeval.statistics.list_intervals import difference_evidence, list_evidence
from fxeval.tests.simulations.crossed import CrossedPopulation, ScoreList, draw_pairs
from fxeval.tests.simulations.laws import FloatArray
from fxeval.tests.simulations.naive import Misses
from fxeval.tests.simulations.run import TAIL
from fxeval.tests.simulations.tally import Tally, tally

_LISTS = 20  # different lists of pairs in one simulation


def simulate_crossed(
    population: CrossedPopulation, identities: int, rows_each: int, runs: int
) -> tuple[Tally, Tally]:
    """Judge the mean of pairs of two people by the truth.

    Args:
        population: The law.
        identities: G.
        rows_each: Rows that each of them has a part in, on average.
        runs: Number of lists.

    Returns:
        Of the intervals that decide, and of Student's t over the rows.
    """
    rng = generator_of("simulations", population.name, identities, rows_each)
    ours, naive = [], []
    for _ in range(_LISTS):
        first, second = draw_pairs(rng, identities, identities * rows_each // 2)
        values = population.draw(rng, runs // _LISTS, identities, first, second)
        if population.kind == "rate":
            bounds = np.array([crossed_rate(one, first, second)[:2] for one in values])
            ours.append((bounds[:, 0] > population.mean, bounds[:, 1] < population.mean))
        else:
            z = crossed(values, first, second)
            above, below = interval_tails(z, population.kind, -np.inf, np.inf, population.mean)
            ours.append((above <= TAIL, below <= TAIL))
        naive.append(_t_over_pairs(values, population.mean))
    return tuple(tally(*map(np.concatenate, zip(*one, strict=True))) for one in (ours, naive))


def simulate_figure(statistic: Statistic, scores: ScoreList, runs: int) -> Tally:
    """Judge a figure of a verification list by the figure of the population."""
    rng, truth = generator_of("simulations", statistic, repr(scores)), scores.truth(statistic)
    is_mated, bounds = scores.is_mated(), []
    for similarities, identities in scores.draw(rng, runs):
        evidence = list_evidence(statistic, similarities, is_mated, identities)
        bounds.append(evidence.interval(0.95))
    low, high = np.array(bounds).T
    return tally(low > truth, high < truth)


def simulate_difference(statistic: Statistic, scores: ScoreList, runs: int) -> Tally:
    """Judge the difference of a figure of two columns of equal truth: it is 0.

    Each row's two scores share half of its variance.
    """
    rng = generator_of("simulations", "difference", statistic, repr(scores))
    is_mated, bounds = scores.is_mated(), []
    shift = scores.distance * is_mated
    for similarities, identities in scores.draw(rng, runs):
        columns = tuple(
            shift + (similarities - shift + rng.normal(size=len(shift))) / 2.0**0.5 for _ in "ab"
        )
        evidence = difference_evidence(statistic, columns, is_mated, identities)
        bounds.append(evidence.interval(0.95))
    low, high = np.array(bounds).T
    return tally(low > 0.0, high < 0.0)


def _t_over_pairs(values: FloatArray, line: float) -> Misses:
    n = values.shape[1]
    half = t_quantile(0.95, n - 1) * values.std(axis=1, ddof=1) / n**0.5
    return values.mean(axis=1) - half > line, values.mean(axis=1) + half < line

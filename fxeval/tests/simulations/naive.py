"""Intervals that look reasonable and do not hold: the controls that must fail a simulation."""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fxeval.statistics.distributions import t_quantile
from fxeval.tests.simulations.designs import Rows
from fxeval.tests.simulations.laws import FloatArray

BoolArray = NDArray[np.bool_]
Misses = tuple[BoolArray, BoolArray]
"""For each run, whether the whole interval lies above the line, and whether below it."""


def t_over_identities(y: FloatArray, line: float, confidence: float = 0.95) -> Misses:
    """Student's t of the identities' means, (runs, G)."""
    half = t_half_width(y, confidence)
    return y.mean(axis=-1) - half > line, y.mean(axis=-1) + half < line


def t_half_width(y: FloatArray, confidence: float = 0.95) -> FloatArray:
    """Return half the width of Student's t interval of the identities' means, (runs,)."""
    n = y.shape[-1]
    return t_quantile(confidence, n - 1) * y.std(axis=-1, ddof=1) / math.sqrt(n)


def t_over_rows(rows: Rows, line: float) -> Misses:
    """Student's t of all rows, as if no two were of one identity."""
    n, starts = rows.sizes.sum(axis=1), _starts(rows)
    mean = np.add.reduceat(rows.values, starts) / n
    square = np.add.reduceat((rows.values - np.repeat(mean, n)) ** 2, starts)
    quantile = np.array([t_quantile(0.95, int(one) - 1) for one in n])
    half = quantile * np.sqrt(square / (n - 1) / n)
    return mean - half > line, mean + half < line


def bootstrap_over_rows(rows: Rows, line: float, rng: Generator, resamples: int = 500) -> Misses:
    """Percentile bootstrap of all rows, as if no two were of one identity."""
    bounds = []
    for values, _ in rows.runs():
        drawn = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
        bounds.append(np.quantile(drawn, [0.025, 0.975]))
    low, high = np.array(bounds).T
    return low > line, high < line


def _starts(rows: Rows) -> NDArray[np.int64]:
    ends = np.cumsum(rows.sizes.sum(axis=1))
    return np.concatenate(([0], ends[:-1]))

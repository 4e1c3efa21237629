"""How often the rules of a trend take noise for a move, and a step for a step."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fxeval.statistics.steps import departure_of, drift_of, steps_of

FloatArray = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], FloatArray]


def _followed(draw: np.random.Generator, n: int) -> FloatArray:
    values = draw.normal(size=n)
    for at in range(1, n):
        values[at] += 0.3 * values[at - 1]
    return values


NOISES: Mapping[str, Noise] = {
    "normal": lambda draw, n: draw.normal(size=n),
    "t with 3 degrees of freedom": lambda draw, n: draw.standard_t(3, size=n),
    "uniform": lambda draw, n: draw.random(n),
    "exponential": lambda draw, n: draw.exponential(size=n),
    "two values, equally often": lambda draw, n: (draw.random(n) < 0.5) * 1.0,
    "two levels 10 s apart, equally often": lambda draw, n: (
        (draw.random(n) < 0.5) * 10.0 + draw.normal(size=n)
    ),
    "normal, each run correlated 0.3 with the last": _followed,
    "random walk": lambda draw, n: np.cumsum(draw.normal(size=n)),
}


def mistaken(noise: Noise, n: int, series: int) -> tuple[float, float, float]:
    """Return the share of series of n runs with a step, off the level at the end, with a drift."""
    draw = np.random.default_rng(5)
    found = [_moves(noise(draw, n)) for _ in range(series)]
    steps, departures, drifts = np.mean(found, axis=0)
    return float(steps), float(departures), float(drifts)


def stepped(by: float, series: int) -> tuple[float, float]:
    """Return how often a step in the middle of 50 runs of normal noise is found, and at its run.

    Args:
        by: Size of the step, in standard deviations of the noise.
        series: Number of series.

    Returns:
        The share of the series with a step, and of these the share at the very run.
    """
    draw = np.random.default_rng(6)
    n_found = n_exact = 0
    for _ in range(series):
        values = draw.normal(size=50)
        values[25:] += by
        places = [one.at for one in steps_of(values)]
        n_found += bool(places)
        n_exact += 25 in places
    return n_found / series, n_exact / max(n_found, 1)


def _moves(values: FloatArray) -> tuple[bool, bool, bool]:
    drift = drift_of(values)
    is_drift = drift is not None and drift.p_value <= 0.05
    return bool(steps_of(values)), departure_of(values) > 0, is_drift

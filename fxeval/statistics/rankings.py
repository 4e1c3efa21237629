"""How far two rankings agree: Kendall's tau-b, in many resamples at once, and what chance gives.

R resamples, E explainers, P = E (E - 1) / 2 pairs of them.

Source:
    Kendall 1945, "The Treatment of Ties in Ranking Problems", Biometrika 33 (tau-b).
"""

import numpy as np
from numpy.typing import NDArray

from fxeval.seeding import generator_of
from fxeval.statistics.units import ROUNDING

FloatArray = NDArray[np.float64]

ORDERS = 9999
"""Random orders of the explainers that an agreement is compared with."""


def orders_of_pairs(values: FloatArray) -> FloatArray:
    """Return which of each pair of explainers is better.

    Args:
        values: (R, E) finite; larger = better.

    Returns:
        (R, P) 1, -1, or 0 where both are equal: nearer than ``ROUNDING``, as a share of the largest
        value of the line, as values come from float32.
    """
    one, two = np.triu_indices(values.shape[1], 1)
    gaps = values[:, one] - values[:, two]
    least = ROUNDING * np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    return np.where(np.abs(gaps) <= least, 0.0, np.sign(gaps))


def tau_b(values: FloatArray, others: FloatArray) -> FloatArray:
    """Return Kendall's tau-b of two rankings, line by line.

    >>> tau_b(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1.0, 2.0, 4.0, 3.0]])).round(4).tolist()
    [0.6667]

    Args:
        values: (R, E).
        others: (R, E), or (1, E) for one ranking that all are compared with.

    Returns:
        (R,) from -1, reversed, to 1, the same; NaN where a line holds one value only.
    """
    first, second = orders_of_pairs(values), orders_of_pairs(others)
    told = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: FloatArray = (first * second).sum(axis=1) / told
    return found


def chance_of(pairs_of_rankings: list[tuple[list[str], FloatArray, FloatArray]]) -> float:
    """Return how often a random order of the explainers agrees as strongly with the truth.

    One order is drawn for all models, as the explainers are the same. It is a yardstick: related
    explainers are not exchangeable, and few of them agree by chance often.

    Args:
        pairs_of_rankings: For each model its explainers, and (E,) of both rankings.

    Returns:
        Share of the orders, the observed one among them, whose mean tau-b is as large or larger; as
        low or lower if the observed one is negative. NaN where no model has a tau-b.
    """
    known = [one for one in pairs_of_rankings if np.isfinite(tau_b(one[1][None], one[2][None]))[0]]
    if not known:
        return float("nan")
    names = sorted({name for explainers, _, _ in known for name in explainers})
    keys = generator_of("agreement", "orders", *names).random((ORDERS, len(names)))
    drawn, observed = np.zeros(ORDERS), 0.0
    for explainers, values, truth in known:
        columns = [names.index(name) for name in explainers]
        shuffled = values[np.argsort(keys[:, columns], axis=1)]
        drawn += tau_b(shuffled, truth[None]) / len(known)
        observed += float(tau_b(values[None], truth[None])[0]) / len(known)
    side = 1.0 if observed >= 0.0 else -1.0
    as_strong = (side * drawn >= side * observed - ROUNDING).sum()
    return float((1 + as_strong) / (1 + ORDERS))

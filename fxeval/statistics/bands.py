"""Mean curves with the interval of every point, which are drawn and decide nothing."""

from collections.abc import Mapping
from itertools import groupby

import numpy as np

from fxeval.errors import StoreError
from fxeval.records.judged import Band
from fxeval.records.schema import Measured
from fxeval.statistics.intervals import skew_t, used_level
from fxeval.statistics.table import FloatArray, IntArray, Key, Table


def bands_of(table: Table) -> list[Band]:
    """Return the mean of each curve with the interval of every point.

    A row's curve is the mean of those of its seeds. Intervals are those of values of the kind
    ``light``; a point that does not vary has no width.

    Raises:
        StoreError: If curves of one kind have other numbers of points.
    """
    found = [
        (kind, map_, under, *_points(table, kind, map_, by_seed))
        for (map_, under), by_seed in table.measured.items()
        for kind in dict.fromkeys(
            kind for rows in by_seed.values() for one in rows.values() for kind in one.curves
        )
    ]
    drawn_: list[Band] = []
    # All curves of the same people are one batch.
    for _, group in groupby(found, key=lambda one: one[4].tobytes()):
        some = [*group]
        ends = _intervals(np.concatenate([one[3] for one in some], axis=1), some[0][4], table)
        start = 0
        for kind, map_, under, points, _ in some:
            n = points.shape[1] if len(points) else 0
            value, low, high = (one[start : start + n] for one in ends)
            start += points.shape[1]
            drawn_.append(_band(kind, map_, under, (value, low, high)))
    return drawn_


def _points(
    table: Table, kind: str, map_: str, by_seed: Mapping[int, Mapping[int, Measured]]
) -> tuple[FloatArray, IntArray]:
    """Return the curves of the rows that have a whole one, (n, points), and their identities."""
    curves: dict[int, list[list[float | None]]] = {}
    for rows in by_seed.values():
        for place, one in rows.items():
            if kind in one.curves:
                curves.setdefault(place, []).append(one.curves[kind])
    lengths = sorted({len(curve) for some in curves.values() for curve in some})
    if len(lengths) > 1:
        raise StoreError(
            f"rows: expected curves of one length for {kind} of {map_}, got {lengths[0]} and "
            f"{lengths[-1]} points. Are these rows of one run?"
        )
    if all(len(some) == 1 for some in curves.values()):
        points = np.array([some[0] for some in curves.values()], dtype=np.float64)
    else:
        means = [np.array(some, dtype=np.float64).mean(axis=0) for some in curves.values()]
        points = np.array(means)
    present = np.isfinite(points).all(axis=1)
    people = table.identities[[*curves]][present]
    return points[present], people if people.ndim == 1 else people[:, 0]


def _intervals(
    points: FloatArray, people: IntArray, table: Table
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean, low and high of each point over the people's mean curves."""
    if not len(points):
        nothing = np.empty(0)
        return nothing, nothing, nothing
    _, group = np.unique(people, return_inverse=True)
    members = np.zeros((int(group.max()) + 1, len(points)))
    members[group, np.arange(len(points))] = 1.0
    means = (members @ points) / members.sum(axis=1, keepdims=True)
    value = means.mean(axis=0)
    low, high, _ = skew_t(means.T, used_level(table.confidence, "light"))
    still = np.isnan(low) & (np.ptp(means, axis=0) <= 1e-12) & (len(means) > 1)
    return value, np.where(still, value, low), np.where(still, value, high)


def _band(
    kind: str, map_: str, under: Key, ends: tuple[FloatArray, FloatArray, FloatArray]
) -> Band:
    value, low, high = ([*map(drawn, some.tolist())] for some in ends)
    return Band(
        kind=kind,
        map=map_,
        under=dict(under),
        fraction=[drawn(i / max(1, len(value) - 1)) for i in range(len(value))],
        similarity=[*value],
        low=[*low],
        high=[*high],
    )


def drawn(value: float) -> float:
    """Shorten a number that is only drawn; what is judged keeps all its digits.

    >>> drawn(0.123456789)
    0.12346
    """
    return float(f"{value:.5g}")

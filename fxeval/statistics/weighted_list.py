"""Figures of weighted rows, for many weightings at once, and the vertex bootstrap.

Every figure equals that of a list in which each row is repeated as often as its weight says; whole
weights give the figures of that list to the last bit.

Rows of one person resemble each other, and a nonmated row belongs to two people at once. So the
identities are resampled with replacement, not the rows: in a resample that holds identity i w_i
times, a mated row of i counts w_i times, and a nonmated row of i and j counts w_i * w_j times.

R weightings, N rows, T distinct values, G identities.
"""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fxeval.seeding import generator_of
from fxeval.statistics.list_figures import RATE_OF, allowed_false_matches

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_Number = TypeVar("_Number", bound=np.generic)

MAX_CELLS = 2_000_000
"""Most numbers in one intermediate array."""
RESAMPLES = 1000
_CONFIDENCE = 0.95


class WeightedList:
    """The rows of a list in the order of their values.

    Args:
        values: (N,) finite, in float64.
        is_mated: (N,) bool.
    """

    def __init__(self, values: FloatArray, is_mated: BoolArray) -> None:
        self._is_mated = is_mated
        self._values, place = np.unique(values, return_inverse=True)
        self._at_value = Columns(place.astype(np.int64), len(self._values))

    def figures(
        self, weights: FloatArray, rates: Mapping[str, float], *, is_all: bool = True
    ) -> dict[str, FloatArray]:
        """Return the figures and thresholds of the rows under R weightings.

        Args:
            weights: (R, N), whole numbers >= 0.
            rates: False match rates by name, fractions in (0, 1).
            is_all: Whether ``auc`` and ``tau_acc``, which take half of the time, are wanted.

        Returns:
            (R,) each: ``auc``, ``eer``, ``tau_acc``, ``tau_eer``, and ``tmr_at_fmr_`` and
            ``tau_fmr_`` of each rate; NaN where a weighting leaves no mated or no nonmated row.
        """
        mated = self._at_value.sums(np.where(self._is_mated, weights, 0.0))
        nonmated = self._at_value.sums(np.where(self._is_mated, 0.0, weights))
        n_mated, n_nonmated = mated.sum(1), nonmated.sum(1)
        # Threshold k accepts the similarities from the k-th on, for k from 0 to T.
        misses = _led_by_zero(mated.cumsum(1))
        alarms = n_nonmated[:, None] - _led_by_zero(nonmated.cumsum(1))
        gap = np.abs(alarms * n_mated[:, None] - misses * n_nonmated[:, None])
        present = mated + nonmated > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            at_eer = _last_least(np.where(present, gap[:, :-1], np.inf))
            eer = _at(alarms, at_eer) / n_nonmated + _at(misses, at_eer) / n_mated
            found = {"eer": eer / 2, "tau_eer": self._values[at_eer]}
            if is_all:
                below = nonmated.cumsum(1) - nonmated / 2
                found["auc"] = (mated * below).sum(1) / (n_mated * n_nonmated)
                fewest = _last_least(_least_first(misses + alarms, gap))
                found["tau_acc"] = self._between(fewest, present)
            for name, rate in rates.items():
                allowed = allowed_false_matches(rate, n_nonmated)
                # The threshold lies just above the last similarity with too many false matches.
                last = np.maximum((alarms > allowed[:, None]).sum(1) - 1, 0)
                found[f"tmr_at_fmr_{name}"] = 1 - _at(misses, last + 1) / n_mated
                found[f"tau_fmr_{name}"] = np.nextafter(self._values[last], np.inf)
        usable = (n_mated > 0) & (n_nonmated > 0)
        return {name: np.where(usable, value, np.nan) for name, value in found.items()}

    def _between(self, chosen: IntArray, present: NDArray[np.bool_]) -> FloatArray:
        """Return the threshold halfway between the present similarities around the k-th."""
        after = next_present(present)
        upper = _at(after, chosen)
        before = present.shape[1] - 1 - next_present(present[:, ::-1])
        lower = _at(before, present.shape[1] - chosen)
        ends = np.concatenate(([-np.inf], self._values, [np.inf]))
        middle = middle_of(ends[lower + 1], ends[upper + 1])
        return np.where(lower < 0, -np.inf, middle)


def resampled(n_identities: int, resamples: int, at_once: int) -> Iterator[FloatArray]:
    """Yield (R, G) weights, how often each identity is drawn, in parts of at most ``at_once``."""
    generator = generator_of("verification", "identities", n_identities)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(n_identities, size=(rows, n_identities), dtype=np.int64)
        drawn += n_identities * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_identities)
        yield counts.reshape(rows, n_identities).astype(np.float64)


def row_weights(
    weights: FloatArray, first: IntArray, second: IntArray, is_mated: BoolArray
) -> FloatArray:
    """Return (R, N) weights of rows from (R, G) weights of identities."""
    return weights[:, first] * np.where(is_mated | (first == second), 1.0, weights[:, second])


def drawn_figure(
    name: str, values: FloatArray, is_mated: BoolArray, identities: IntArray, resamples: int
) -> FloatArray:
    """Return (R,) a figure of the list in resamples of its identities.

    Args:
        name: One of ``list_figures.LIST_FIGURES``.
        values: (N,) finite.
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.
        resamples: R; their draws depend only on the number of identities.
    """
    columns = identities.reshape(len(identities), -1)
    two = np.stack([columns[:, 0], columns[:, -1]])
    return _drawn(
        name,
        resamples,
        values.astype(np.float64).tobytes(),
        is_mated.astype(bool).tobytes(),
        two.astype(np.int64).tobytes(),
    )


@lru_cache(maxsize=64)
def _drawn(name: str, resamples: int, values: bytes, is_mated: bytes, two: bytes) -> FloatArray:
    """Return the resamples of a list; an interval and its p-values ask for the same ones."""
    mated, numbers = np.frombuffer(is_mated, bool), np.frombuffer(values, np.float64)
    people, group = np.unique(np.frombuffer(two, np.int64), return_inverse=True)
    first, second = group.reshape(2, -1)
    rows = WeightedList(numbers, mated)
    rates = {name.removeprefix("tmr_at_fmr_"): RATE_OF[name]} if name in RATE_OF else {}
    parts = [
        rows.figures(row_weights(weights, first, second, mated), rates, is_all=False)[name]
        for weights in resampled(len(people), resamples, max(1, MAX_CELLS // len(numbers)))
    ]
    found = np.concatenate(parts)
    found.flags.writeable = False
    return found


def percentiles(
    value: float, drawn: FloatArray, confidence: float = _CONFIDENCE
) -> tuple[float, float]:
    """Return the percentile interval, widened to the value where it misses it.

    Resamples without mated or without nonmated rows have no value (NaN); if they are more than one
    in twenty, there is no interval.
    """
    known = drawn[~np.isnan(drawn)]
    if len(known) < _CONFIDENCE * len(drawn) or not len(known):
        return math.nan, math.nan
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    # Without interpolation, as thresholds may be infinite.
    low, high = np.quantile(known, ends, method="inverted_cdf")
    return min(float(low), value), max(float(high), value)


class Columns:
    """Sums the columns that belong to the same place."""

    def __init__(self, place: IntArray, n_places: int) -> None:
        self._order = np.argsort(place, kind="stable")
        self._places, self._starts = np.unique(place[self._order], return_index=True)
        self._n_places = n_places

    def sums(self, columns: FloatArray) -> FloatArray:
        """Return (R, places) sums of (R, N) columns."""
        found: FloatArray = np.zeros((len(columns), self._n_places))
        # reduceat would return a single column for an empty place, so those are left out.
        found[:, self._places] = np.add.reduceat(columns[:, self._order], self._starts, axis=1)
        return found


def _led_by_zero(rows: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros((len(rows), 1)), rows], axis=1)


def _at(rows: NDArray[_Number], places: IntArray) -> NDArray[_Number]:
    found: NDArray[_Number] = np.take_along_axis(rows, places[:, None], 1)[:, 0]
    return found


def _least_first(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the second criterion where the first is least, elsewhere infinity."""
    return np.where(first == first.min(1, keepdims=True), second, np.inf)


def _last_least(rows: FloatArray) -> IntArray:
    last: IntArray = rows.shape[1] - 1 - rows[:, ::-1].argmin(1)
    return last


def next_present(present: NDArray[np.bool_]) -> IntArray:
    """Return (..., n + 1): the least present index that is at least k; n if there is none."""
    n = present.shape[-1]
    index = np.where(present, np.arange(n), n)
    ahead = np.minimum.accumulate(index[..., ::-1], axis=-1)[..., ::-1]
    end = np.full((*ahead.shape[:-1], 1), n)
    return np.concatenate([ahead, end], axis=-1)


def middle_of(low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the middle of two neighbours, or the upper one if no number lies between."""
    with np.errstate(invalid="ignore"):
        middle = low + (high - low) / 2
    return np.where(middle > low, middle, high)

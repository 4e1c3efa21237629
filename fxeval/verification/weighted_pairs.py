"""Verification figures of weighted pairs, for many weightings at once.

Every figure equals that of a list in which each pair is repeated as often as its weight says; whole
weights give the figures of that list to the last bit. All figures follow from the weights of mated
and of nonmated pairs at each distinct similarity.

R weightings, N pairs, T distinct similarities, F folds.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fxeval.contracts import SimilarityKind

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_Number = TypeVar("_Number", bound=np.generic)

MAX_CELLS = 2_000_000
"""Most numbers in one intermediate array."""


class WeightedPairs:
    """Pairs in the order of their similarity.

    Args:
        kind: Kind of the similarities.
        similarities: (N,) finite, in float64.
        is_mated: (N,) bool.
        fold: (N,) int64, 0 to F - 1, no fold empty, F at least 2.

    Attributes:
        cells: Numbers that one weighting takes in the largest intermediate array.
    """

    def __init__(
        self,
        kind: SimilarityKind,
        similarities: FloatArray,
        is_mated: NDArray[np.bool_],
        fold: IntArray,
    ) -> None:
        self._is_mated = is_mated
        self._values, place = np.unique(similarities, return_inverse=True)
        self._at_value = _Columns(place.astype(np.int64), len(self._values))
        distances = 2 - 2 * similarities if kind == "cosine" else -similarities
        # A pair is accepted by candidate t if its bin is at most t.
        self._candidates: FloatArray | None = None
        self._distances: FloatArray = np.unique(distances)
        if kind == "cosine":
            self._candidates = np.arange(0, 4, 0.01)
            bins = np.searchsorted(self._candidates, distances, "right")
            self._n_bins = len(self._candidates) + 1
        else:
            bins = np.searchsorted(self._distances, distances, "right")
            self._n_bins = len(self._distances) + 1
        self._n_folds = int(fold.max()) + 1
        self._at_bin = _Columns(fold * self._n_bins + bins, self._n_folds * self._n_bins)
        self.cells = max(self._n_folds * self._n_bins, len(similarities))

    def statistics(self, weights: FloatArray, rates: Mapping[str, float]) -> dict[str, FloatArray]:
        """Return the figures of the pairs under R weightings.

        Args:
            weights: (R, N), whole numbers >= 0.
            rates: False match rates by name, fractions in (0, 1).

        Returns:
            (R,) each; NaN where a weighting leaves no mated or no nonmated pair.
        """
        mean, std = self._fold_accuracy(weights)
        mated = self._at_value.sums(np.where(self._is_mated, weights, 0.0))
        nonmated = self._at_value.sums(np.where(self._is_mated, 0.0, weights))
        n_mated, n_nonmated = mated.sum(1), nonmated.sum(1)
        # Threshold k accepts the similarities from the k-th on, for k from 0 to T.
        misses = _led_by_zero(mated.cumsum(1))
        alarms = n_nonmated[:, None] - _led_by_zero(nonmated.cumsum(1))
        gap = np.abs(alarms * n_mated[:, None] - misses * n_nonmated[:, None])
        present = mated + nonmated > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            below = nonmated.cumsum(1) - nonmated / 2
            auc = (mated * below).sum(1) / (n_mated * n_nonmated)
            at_eer = _last_least(np.where(present, gap[:, :-1], np.inf))
            eer = _at(alarms, at_eer) / n_nonmated + _at(misses, at_eer) / n_mated
            found = {
                "verification_accuracy": mean,
                "accuracy_std": std,
                "verification_auc": auc,
                "verification_eer": eer / 2,
                "tau_acc": self._between(_last_least(_least_first(misses + alarms, gap)), present),
                "tau_eer": self._values[at_eer],
            }
            for name, rate in rates.items():
                # rate * n may be rounded to just below a whole number.
                allowed = np.floor(rate * n_nonmated + 1e-9)
                # The threshold lies just above the last similarity with too many false matches.
                last = np.maximum((alarms > allowed[:, None]).sum(1) - 1, 0)
                found[f"tmr_at_fmr_{name}"] = 1 - _at(misses, last + 1) / n_mated
                found[f"tau_fmr_{name}"] = np.nextafter(self._values[last], np.inf)
        usable = (n_mated > 0) & (n_nonmated > 0)
        return {name: np.where(usable, value, np.nan) for name, value in found.items()}

    def _fold_accuracy(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation over the folds that hold any weight."""
        shape = (len(weights), self._n_folds, self._n_bins)
        # Mated minus nonmated pairs up to a bin: their accuracy there, but for a constant.
        signs = np.where(self._is_mated, 1.0, -1.0)
        gains = self._at_bin.sums(weights * signs).reshape(shape).cumsum(2)
        right = gains.sum(1, keepdims=True) - gains  # of the other folds
        n_candidates = self._n_bins if self._candidates is None else self._n_bins - 1
        chosen = right[:, :, :n_candidates].argmax(2)
        totals = self._at_bin.sums(weights).reshape(shape)
        if self._candidates is None:
            chosen = self._midway(chosen, totals.sum(1, keepdims=True) - totals)
        size = totals.sum(2)
        # Right are the accepted mated and the rejected nonmated pairs: add all nonmated ones.
        correct = np.take_along_axis(gains, chosen[:, :, None], 2)[:, :, 0]
        correct += (size - gains[:, :, -1]) / 2
        filled = size > 0
        accuracy = np.where(filled, correct / np.where(filled, size, 1.0), 0.0)
        n = np.maximum(filled.sum(1), 1)
        mean = accuracy.sum(1) / n
        spread = np.where(filled, (accuracy - mean[:, None]) ** 2, 0.0)
        return mean, np.sqrt(spread.sum(1) / n)

    def _midway(self, chosen: IntArray, rest: FloatArray) -> IntArray:
        """Return the bins below the midpoints between distances of the other folds."""
        after = _next_present(rest > 0)
        upper = np.take_along_axis(after, np.minimum(chosen + 1, self._n_bins)[:, :, None], 2)
        upper = upper[:, :, 0]
        ends = np.concatenate(([-np.inf], self._distances, [np.inf]))
        middle = _middle(ends[chosen], ends[np.minimum(upper, len(ends) - 1)])
        # A candidate that accepts nothing has the threshold -inf, not a midpoint.
        middle = np.where(chosen == 0, -np.inf, middle)
        below: IntArray = np.searchsorted(self._distances, middle, "left").astype(np.int64)
        return below

    def _between(self, chosen: IntArray, present: NDArray[np.bool_]) -> FloatArray:
        """Return the threshold halfway between the present similarities around the k-th."""
        after = _next_present(present)
        upper = _at(after, chosen)
        before = present.shape[1] - 1 - _next_present(present[:, ::-1])
        lower = _at(before, present.shape[1] - chosen)
        ends = np.concatenate(([-np.inf], self._values, [np.inf]))
        middle = _middle(ends[lower + 1], ends[upper + 1])
        return np.where(lower < 0, -np.inf, middle)


class _Columns:
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


def _next_present(present: NDArray[np.bool_]) -> IntArray:
    """Return (..., n + 1): the least present index that is at least k; n if there is none."""
    n = present.shape[-1]
    index = np.where(present, np.arange(n), n)
    ahead = np.minimum.accumulate(index[..., ::-1], axis=-1)[..., ::-1]
    end = np.full((*ahead.shape[:-1], 1), n)
    return np.concatenate([ahead, end], axis=-1)


def _middle(low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the middle of two neighbours, or the upper one if no number lies between."""
    with np.errstate(invalid="ignore"):
        middle = low + (high - low) / 2
    return np.where(middle > low, middle, high)

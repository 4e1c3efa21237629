"""Verification figures of weighted pairs, for many weightings at once.

Every figure equals that of a list in which each pair is repeated as often as its weight says. The
accuracy over folds is computed here, all other figures in ``fxeval.statistics.weighted_list``.

R weightings, N pairs, F folds.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fxeval.contracts import SimilarityKind
from fxeval.statistics.weighted_list import Columns, WeightedList, middle_of, next_present

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
        self._list = WeightedList(similarities, is_mated)
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
        self._at_bin = Columns(fold * self._n_bins + bins, self._n_folds * self._n_bins)
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
        found = self._list.figures(weights, rates)
        figures = {f"verification_{name}": found.pop(name) for name in ("auc", "eer")}
        usable = ~np.isnan(figures["verification_auc"])
        return {
            "verification_accuracy": np.where(usable, mean, np.nan),
            "accuracy_std": np.where(usable, std, np.nan),
            **figures,
            **found,
        }

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
        after = next_present(rest > 0)
        upper = np.take_along_axis(after, np.minimum(chosen + 1, self._n_bins)[:, :, None], 2)
        upper = upper[:, :, 0]
        ends = np.concatenate(([-np.inf], self._distances, [np.inf]))
        middle = middle_of(ends[chosen], ends[np.minimum(upper, len(ends) - 1)])
        # A candidate that accepts nothing has the threshold -inf, not a midpoint.
        middle = np.where(chosen == 0, -np.inf, middle)
        below: IntArray = np.searchsorted(self._distances, middle, "left").astype(np.int64)
        return below

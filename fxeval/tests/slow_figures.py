"""Verification figures from their definitions, one list and one threshold at a time.

The reference for ``fxeval.verification``, which values many resamples of a list at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.contracts import SimilarityKind
from fxeval.errors import EvidenceError


@dataclass(frozen=True)
class FoldAccuracy:
    """Verification accuracy over folds.

    Attributes:
        mean: Mean of the folds' accuracies.
        std: Their standard deviation (ddof 0).
        accuracies: One per fold, fractions of its pairs decided rightly.
        distances: The threshold chosen for each fold, on the *distance*.
    """

    mean: float
    std: float
    accuracies: tuple[float, ...]
    distances: tuple[float, ...]


def k_fold_accuracy(
    kind: SimilarityKind,
    similarities: ArrayLike,
    is_mated: ArrayLike,
    *,
    n_folds: int = 10,
    folds: ArrayLike | None = None,
) -> FoldAccuracy:
    """Measure the LFW protocol: each fold decided by the threshold best on all others.

    Folds are contiguous parts of the list, in its order, if none are given; a pair is accepted if
    its distance is below the threshold; the first of several best thresholds is taken. For
    ``cosine`` the distance is 2 - 2·cos and the candidates are 0.00, 0.01 ... 3.99 (insightface
    ``eval/verification.py``).
    For ``neg_l2``, which has no fixed range, they are the midpoints between the distinct distances
    of the other folds, and both infinities.

    Args:
        kind: What the similarities are.
        similarities: (N,).
        is_mated: (N,) bool.
        n_folds: At least 2 and at most N; of no effect if folds are given.
        folds: (N,) the fold of each pair, at least 2 different ones; taken in ascending order.

    Raises:
        EvidenceError: If a class of pairs is missing or a similarity is not finite.
    """
    values, mated = _checked(similarities, is_mated)
    parts = _folds(len(values), n_folds, folds)
    distances = 2 - 2 * values if kind == "cosine" else -values
    accuracies, chosen = [], []
    for fold in parts:
        rest = np.ones(len(values), bool)
        rest[fold] = False
        candidates = np.arange(0, 4, 0.01) if kind == "cosine" else _midpoints(distances[rest])
        right = _below(distances[rest & mated], candidates)
        right = right - _below(distances[rest & ~mated], candidates)
        threshold = candidates[np.argmax(right)]
        accuracies.append(float(((distances[fold] < threshold) == mated[fold]).mean()))
        chosen.append(float(threshold))
    return FoldAccuracy(
        float(np.mean(accuracies)), float(np.std(accuracies)), tuple(accuracies), tuple(chosen)
    )


def _folds(n: int, n_folds: int, folds: ArrayLike | None) -> list[NDArray[np.int64]]:
    if folds is not None:
        column = np.asarray(folds)
        if column.shape != (n,):
            raise ValueError(f"a fold for each of {n} pairs expected, got {column.shape}")
        parts = [np.flatnonzero(column == fold) for fold in np.unique(column)]
    else:
        parts = np.array_split(np.arange(n), n_folds) if 2 <= n_folds <= n else []
    if len(parts) < 2:
        raise ValueError(f"2 to {n} folds expected, got {len(parts) or n_folds}")
    return parts


def tau_acc(similarities: ArrayLike, is_mated: ArrayLike) -> float:
    """Return the operating threshold of highest accuracy over all pairs.

    Candidates are the midpoints between distinct similarities, and both infinities. Of equally
    accurate ones the smallest ``|FMR - FNMR|`` wins, then the largest threshold.

    >>> tau_acc([0.9, 0.6, 0.5, 0.1], [True, True, False, False])
    0.55
    """
    values, mated = _checked(similarities, is_mated)
    candidates = _midpoints(values)[::-1]
    false_nonmatches = _below(values[mated], candidates)
    n_mated, n_nonmated = int(mated.sum()), int((~mated).sum())
    false_matches = n_nonmated - _below(values[~mated], candidates)
    # Counts, not rates: ties must be exact. lexsort is stable and its last key leads.
    gap = np.abs(false_matches * n_mated - false_nonmatches * n_nonmated)
    return float(candidates[np.lexsort((gap, false_matches + false_nonmatches))[0]])


def tau_eer(similarities: ArrayLike, is_mated: ArrayLike) -> float:
    """Return the observed similarity at which FMR and FNMR are closest; the largest of several.

    >>> tau_eer([0.9, 0.6, 0.5, 0.1], [True, True, False, False])
    0.6
    """
    values, mated = _checked(similarities, is_mated)
    candidates = np.unique(values)[::-1]
    false_nonmatches = _below(values[mated], candidates)
    n_mated, n_nonmated = int(mated.sum()), int((~mated).sum())
    false_matches = n_nonmated - _below(values[~mated], candidates)
    gap = np.abs(false_matches * n_mated - false_nonmatches * n_nonmated)
    return float(candidates[np.argmin(gap)])


def tau_fmr(similarities: ArrayLike, is_mated: ArrayLike, fmr: float) -> float:
    """Return the smallest operating threshold whose false match rate is at most ``fmr``.

    Args:
        similarities: (N,).
        is_mated: (N,) bool.
        fmr: False match rate, a fraction in [0, 1].

    >>> tau_fmr([0.9, 0.5, 0.1], [True, False, False], 0.5) > 0.1
    True
    """
    if not 0 <= fmr <= 1:
        raise ValueError(f"a false match rate in [0, 1] expected, got {fmr}")
    values, mated = _checked(similarities, is_mated)
    descending = np.sort(values[~mated])[::-1]
    accepted = int(np.floor(fmr * len(descending) + 1e-9))
    if accepted >= len(descending):
        return float("-inf")
    return float(np.nextafter(descending[accepted], np.inf))


def auc(similarities: ArrayLike, is_mated: ArrayLike) -> float:
    """Return the chance that a mated pair is more similar than a nonmated one; a tie counts half.

    >>> auc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.875
    """
    values, mated = _checked(similarities, is_mated)
    nonmated = np.sort(values[~mated])
    wins = np.searchsorted(nonmated, values[mated], "left")
    wins_or_ties = np.searchsorted(nonmated, values[mated], "right")
    return float((wins + wins_or_ties).mean() / (2 * len(nonmated)))


def _checked(
    similarities: ArrayLike, is_mated: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, mated = np.asarray(similarities, np.float64), np.asarray(is_mated, bool)
    if values.ndim != 1 or values.shape != mated.shape:
        raise ValueError(f"two (N,) columns expected, got {values.shape} and {mated.shape}")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise EvidenceError(
            f"similarities: {bad} of {len(values)} are NaN or infinite. Check the model's weights."
        )
    if mated.all() or not mated.any():
        raise EvidenceError(
            f"similarities: mated and nonmated pairs expected, got {int(mated.sum())} mated of "
            f"{len(mated)}. Add pairs of the other kind."
        )
    return values, mated


def _midpoints(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what separates the distinct values, ascending, from -inf to +inf."""
    distinct = np.unique(values)
    low, high = distinct[:-1], distinct[1:]
    middle = low + (high - low) / 2
    # Between neighbouring floats there is none; the upper one separates as well.
    middle = np.where(middle > low, middle, high)
    return np.concatenate(([-np.inf], middle, [np.inf]))


def _below(values: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count, for each limit, the values strictly below it."""
    return np.searchsorted(np.sort(values), limits, "left").astype(np.int64)

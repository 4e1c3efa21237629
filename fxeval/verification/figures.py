"""How well a model verifies: accuracy, error rates and thresholds, each with its interval.

Pairs of one person resemble each other, and a nonmated pair belongs to two people at once, so no
interval is over pairs. The AUC has the jackknife over identities
(``fxeval.statistics.list_intervals``); accuracy, TMR and thresholds have the percentiles of
resampled identities (``fxeval.statistics.weighted_list``), all evaluated at once from weights; the
EER has the wider of both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fxeval.contracts import SimilarityKind
from fxeval.errors import EvidenceError
from fxeval.statistics.crossed import crossed_rate
from fxeval.statistics.disjoint_rows import disjoint_rows
from fxeval.statistics.list_intervals import (
    Drawn,
    ListEvidence,
    Trials,
    figure_evidence,
    rate_evidence,
    why_no_value,
)
from fxeval.statistics.weighted_list import (
    MAX_CELLS,
    RESAMPLES,
    percentiles,
    resampled,
    row_weights,
)
from fxeval.verification.weighted_pairs import WeightedPairs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CONFIDENCE = 0.95
MIN_IDENTITIES = 30
"""Fewest identities with which figures are given."""
CONTIGUOUS_FOLDS = 10


@dataclass(frozen=True)
class Quantity:
    """A figure that claims and demands may name.

    Attributes:
        title: Its name in words.
        better: Which direction is better.
    """

    title: str
    better: Literal["lower", "higher"]


RATES: Mapping[str, float] = {"1e-2": 1e-2, "1e-3": 1e-3, "1e-4": 1e-4}
"""False match rates at which the true match rate is measured."""

QUANTITIES: Mapping[str, Quantity] = {
    "verification_accuracy": Quantity("verification accuracy", "higher"),
    "verification_auc": Quantity("area under the ROC curve", "higher"),
    "verification_eer": Quantity("equal error rate", "lower"),
    **{
        f"tmr_at_fmr_{rate}": Quantity(f"true match rate at a false match rate of {rate}", "higher")
        for rate in RATES
    },
}

THRESHOLDS: tuple[str, ...] = ("tau_acc", "tau_eer", *(f"tau_fmr_{rate}" for rate in RATES))
"""Operating thresholds that are measured; ``vendor`` is the model's own."""


@dataclass(frozen=True, eq=False)
class ComparedPairs:
    """Clean similarities of all pairs of a list, in its order.

    Attributes:
        kind: Kind of the similarities.
        similarities: (N,) float64, native, larger = more alike.
        is_mated: (N,) bool.
        probe_identity: (N,) int64.
        reference_identity: (N,) int64, in the same numbering.
        fold: (N,) int64; None for folds of contiguous pairs (:func:`folds_of`).
    """

    kind: SimilarityKind
    similarities: FloatArray
    is_mated: NDArray[np.bool_]
    probe_identity: IntArray
    reference_identity: IntArray
    fold: IntArray | None = None

    @property
    def identities(self) -> IntArray:
        """(N, 2) the two identities of each pair."""
        return np.stack([self.probe_identity, self.reference_identity], axis=1)


@dataclass(frozen=True)
class Figure:
    """A value with its two-sided 95 % interval; NaN where there is none, -inf if no low end is."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Threshold:
    """An operating threshold and what it does on the list.

    Attributes:
        similarity: Native similarity from which a pair is a match; no interval if it was given.
        fmr: Achieved false match rate, with the interval of crossed pairs.
        fnmr: Achieved false nonmatch rate, likewise; a mated pair belongs to one person.
    """

    similarity: Figure
    fmr: Figure
    fnmr: Figure


@dataclass(frozen=True)
class Verified:
    """How well a model verifies one pair list.

    Attributes:
        figures: The measured figures, by the names of :data:`QUANTITIES`.
        missing: The reasons why the other figures could not be measured.
        why_open: The reasons why figures have no interval, or no lower end.
        thresholds: By the names of :data:`THRESHOLDS`, and ``vendor`` if the model has one.
        accuracy_std: Standard deviation (ddof 0) of the accuracy over the folds.
        n_folds: Number of folds.
        n_mated: Number of mated pairs.
        n_nonmated: Number of nonmated pairs.
        n_identities: Number of identities in the pairs.
        n_disjoint: Number of comparisons of a mated with a nonmated pair that share nobody.
        protocol: The method in words.
    """

    figures: Mapping[str, Figure]
    missing: Mapping[str, str]
    why_open: Mapping[str, str]
    thresholds: Mapping[str, Threshold]
    accuracy_std: float
    n_folds: int
    n_mated: int
    n_nonmated: int
    n_identities: int
    n_disjoint: int
    protocol: str


def why_unmeasurable(n_mated: int, n_nonmated: int, n_identities: int) -> str | None:
    """Return why a list cannot be measured; None if it can.

    >>> why_unmeasurable(40, 0, 40)
    'the list has no nonmated pairs'
    """
    if not n_mated or not n_nonmated:
        return f"the list has no {'nonmated' if n_mated else 'mated'} pairs"
    if n_identities < MIN_IDENTITIES:
        return f"{n_identities} identities, at least {MIN_IDENTITIES} needed"
    return None


def measure(
    compared: ComparedPairs, vendor: float | None = None, *, resamples: int = RESAMPLES
) -> Verified:
    """Measure how well similarities tell mated from nonmated pairs.

    The accuracy is that of LFW's protocol (each fold decided by the threshold best on all others;
    Huang et al. 2007), over the list's own folds if it names at least two; the equal error rate is
    the mean of FMR and FNMR at ``tau_eer``. A true match rate at a false match rate of x needs 1/x
    nonmated pairs. A figure that is 1 or 0 in every resample gets the interval of as many trials as
    there are pairs that share nobody: no error so far does not show that there is none.

    Args:
        compared: Similarities of all pairs.
        vendor: The model's own operating threshold.
        resamples: Number of resamples; their draws depend only on the number of identities.

    Raises:
        EvidenceError: If one kind of pairs is missing, identities are too few, or a similarity is
            not finite.
    """
    n_mated, n = int(compared.is_mated.sum()), len(compared.is_mated)
    people = len(np.unique(compared.identities))
    _check(compared.similarities, compared.is_mated, people)
    fold, own = folds_of(compared.fold, compared.is_mated)
    pairs = WeightedPairs(compared.kind, compared.similarities, compared.is_mated, fold)
    point, drawn = _resampled(compared, pairs, resamples)
    known = {
        name: _evidence(name, float(point[name][0]), drawn[name], compared)
        for name in QUANTITIES
        if name in point
    }
    thresholds = {
        name: Figure(float(point[name][0]), *percentiles(float(point[name][0]), drawn[name]))
        for name in THRESHOLDS
        if name in point
    }
    if vendor is not None:
        thresholds["vendor"] = Figure(vendor, math.nan, math.nan)
    return Verified(
        figures={name: Figure(one.value, *one.interval(CONFIDENCE)) for name, one in known.items()},
        missing={
            name: why_no_value(name, n_mated, n - n_mated)
            for name in QUANTITIES
            if name not in known
        },
        why_open={name: one.why_open for name, one in known.items() if one.why_open},
        thresholds={name: _achieved(compared, one) for name, one in thresholds.items()},
        accuracy_std=float(point["accuracy_std"][0]),
        n_folds=len(np.unique(fold)),
        n_mated=n_mated,
        n_nonmated=n - n_mated,
        n_identities=people,
        n_disjoint=disjoint_rows(compared.is_mated, compared.identities).comparisons,
        protocol=_protocol(compared.kind, len(np.unique(fold)), own, resamples),
    )


def _resampled(
    compared: ComparedPairs, pairs: WeightedPairs, resamples: int
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return all figures and thresholds, (1,) each of the list and (R,) each of its resamples."""
    n, is_mated = len(compared.is_mated), compared.is_mated
    rates = {name: rate for name, rate in RATES.items() if (~is_mated).sum() * rate >= 1 - 1e-9}
    people, group = np.unique(compared.identities, return_inverse=True)
    first, second = group.reshape(-1, 2).T
    parts = [
        pairs.statistics(row_weights(weights, first, second, is_mated), rates)
        for weights in resampled(len(people), resamples, max(1, MAX_CELLS // pairs.cells))
    ]
    point = pairs.statistics(np.ones((1, n)), rates)
    return point, {name: np.concatenate([part[name] for part in parts]) for name in point}


def point_figures(
    kind: SimilarityKind,
    similarities: FloatArray,
    is_mated: NDArray[np.bool_],
    fold: IntArray | None = None,
) -> Mapping[str, float]:
    """Return figures and thresholds of a list, of any number of identities, without intervals.

    Args:
        kind: What the similarities are.
        similarities: (N,) float64, native, larger = more alike.
        is_mated: (N,) bool.
        fold: (N,) int64, or None for ten of contiguous pairs (:func:`folds_of`).

    Returns:
        By the names of :data:`QUANTITIES` and :data:`THRESHOLDS`, and ``accuracy_std``; rates only
        if there are enough nonmated pairs.

    Raises:
        EvidenceError: If a class of pairs is missing, or a similarity is not finite.

    >>> found = point_figures("cosine", np.array([0.9, 0.6, 0.5, 0.1]), np.arange(4) < 2)
    >>> found["verification_auc"], found["tau_acc"], found["tau_eer"]
    (1.0, 0.55, 0.6)
    """
    n_mated, n = int(is_mated.sum()), len(is_mated)
    _check(similarities, is_mated, MIN_IDENTITIES)
    pairs = WeightedPairs(kind, similarities, is_mated, folds_of(fold, is_mated)[0])
    rates = {name: rate for name, rate in RATES.items() if (n - n_mated) * rate >= 1 - 1e-9}
    found = pairs.statistics(np.ones((1, n)), rates)
    return {name: float(value[0]) for name, value in found.items()}


def _check(similarities: FloatArray, is_mated: NDArray[np.bool_], n_identities: int) -> None:
    """Refuse a list of which nothing can be said."""
    n_mated = int(is_mated.sum())
    reason = why_unmeasurable(n_mated, len(is_mated) - n_mated, n_identities)
    if not np.isfinite(similarities).all():
        reason = "similarities are NaN or infinite: check the model's weights"
    if reason is not None:
        raise EvidenceError(f"verification: {reason}.")


def folds_of(fold: IntArray | None, is_mated: NDArray[np.bool_]) -> tuple[IntArray, bool]:
    """Return the fold of each pair, and whether it is the list's own.

    A list that names no folds, or a single one, gets at most ten: contiguous parts of its mated
    pairs joined with contiguous parts of its nonmated pairs. If every tenth of the list holds as
    many mated as nonmated pairs, as in LFW, these are the contiguous tenths of LFW's protocol. If
    all mated pairs come first, contiguous tenths of the list would hold one kind each, and a model
    that knows nothing would have an accuracy of 0.
    """
    if fold is not None and len(np.unique(fold)) > 1:
        return np.unique(fold, return_inverse=True)[1].astype(np.int64), True
    fewest = min(int(is_mated.sum()), int((~is_mated).sum()))
    n_folds = max(2, min(CONTIGUOUS_FOLDS, fewest))  # so that both kinds are in each fold
    found = np.zeros(len(is_mated), np.int64)
    for kind in (is_mated, ~is_mated):
        for number, rows in enumerate(np.array_split(np.flatnonzero(kind), n_folds)):
            found[rows] = number
    return found, False


def _evidence(name: str, value: float, drawn: FloatArray, compared: ComparedPairs) -> ListEvidence:
    """Return what the list says about one of its figures.

    The specification of intervals has no better one for an accuracy over folds than the resamples;
    ``docs/method.md`` says how often it is wrong.
    """
    is_mated, people = compared.is_mated, compared.identities
    if name in ("verification_auc", "verification_eer"):
        short = name.removeprefix("verification_")
        return figure_evidence(short, compared.similarities, is_mated, people, drawn)
    if name != "verification_accuracy":
        return rate_evidence(name, value, drawn, is_mated, people)
    if value in (0.0, 1.0) and (drawn[~np.isnan(drawn)] == value).all():
        found = disjoint_rows(is_mated, people)
        return Trials(value, trials=min(found.mated, found.nonmated))
    return Drawn(value, "", drawn)


def rate_of(hits: NDArray[np.bool_], first: IntArray, second: IntArray) -> Figure:
    """Return a share of pairs with its 95 % interval, for pairs that share people.

    Args:
        hits: (N,), at least one pair.
        first: (N,) one identity of each pair.
        second: (N,) the other one; the same for mated pairs.
    """
    share = float(hits.mean())
    if share in (0.0, 1.0) and (first == second).all():  # as many trials as people
        return Figure(share, *Trials(share, trials=len(np.unique(first))).interval(CONFIDENCE))
    return Figure(share, *crossed_rate(hits.astype(np.float64), first, second, CONFIDENCE)[:2])


def false_nonmatches(compared: ComparedPairs, threshold: float) -> Figure:
    """Return the false nonmatch rate at a threshold."""
    mated = compared.is_mated
    people = compared.probe_identity[mated]
    return rate_of(compared.similarities[mated] < threshold, people, people)


def _achieved(compared: ComparedPairs, similarity: Figure) -> Threshold:
    apart = ~compared.is_mated
    fmr = rate_of(
        compared.similarities[apart] >= similarity.value,
        compared.probe_identity[apart],
        compared.reference_identity[apart],
    )
    return Threshold(similarity, fmr, false_nonmatches(compared, similarity.value))


def _protocol(kind: SimilarityKind, n_folds: int, own: bool, resamples: int) -> str:
    candidates = (
        "distances 2 - 2 cos, first best of 0.00, 0.01 ... 3.99, accepted if below (insightface's "
        "variant)"
        if kind == "cosine"
        else "Euclidean distances, first best of all midpoints, accepted if below"
    )
    folds = "folds of the list" if own else "folds of contiguous mated and nonmated pairs"
    return (
        f"{n_folds} {folds}, each decided by the threshold best on the others: {candidates}; "
        "95 % intervals: AUC by the jackknife over identities on the logit with t at 96 %, others "
        f"by percentiles of {resamples:,} resamples of the identities (vertex bootstrap), EER by "
        "the wider of both"
    )

"""Similarity of a pair while pixels of one image are removed (deletion) or restored (insertion)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Fill, Perturbations, RowState
from fxeval.metrics.evidence import Evidence
from fxeval.ranking import step_counts
from fxeval.similarity import similarity

FloatArray = NDArray[np.float64]
Crossing = tuple[float, RowState]


@dataclass(frozen=True, eq=False)
class Perturbed:
    """B images to perturb, each under its own ranking, and what they are compared with.

    Attributes:
        image: (B,) int64, rows of ``Pairs.images``.
        other: (B,) int64, rows of ``Pairs.images``, never perturbed.
        ranks: (B, H*W) int32, 0 = most salient.
        fill: The fill.
    """

    image: Tensor
    other: Tensor
    ranks: Tensor
    fill: Fill


@dataclass(frozen=True, eq=False)
class Curves:
    """Similarity along deletion (index 0) and insertion (index 1).

    Attributes:
        counts: (K + 1,) pixels removed or restored, 0 to H*W.
        cosine: (B, 2, K + 1) unclipped cosine; areas are taken from it.
        native: (B, 2, K + 1) the model's native similarity; decisions are taken from it.
    """

    counts: NDArray[np.int64]
    cosine: FloatArray
    native: FloatArray

    @property
    def fraction(self) -> FloatArray:
        """(K + 1,) fraction of pixels, 0 to 1."""
        fraction: FloatArray = self.counts / self.counts[-1]
        return fraction


def trace(subject: Perturbed, steps: int, evidence: Evidence) -> Curves:
    """Follow deletion and insertion in ``steps`` equal steps, both end points included."""
    b, n = subject.ranks.shape
    counts = torch.tensor(step_counts(n, steps))
    zeros, ends = torch.zeros_like(counts), torch.full_like(counts, n)
    first = torch.cat([zeros, counts])  # deletion removes [0, k), insertion leaves [k, n) removed
    last = torch.cat([counts, ends])
    row = torch.arange(b).repeat_interleave(len(first))
    shape = (b, 2, steps + 1)
    cosine, native = _similarities(subject, row, first.repeat(b), last.repeat(b), evidence)
    return Curves(counts.numpy(), cosine.reshape(shape), native.reshape(shape))


def area(fraction: FloatArray, curve: FloatArray) -> FloatArray:
    """Integrate curves over the fraction of pixels by the trapezoidal rule.

    Args:
        fraction: (K + 1,) from 0 to 1.
        curve: (..., K + 1) similarity.

    Returns:
        (...) mean similarity.

    >>> area(np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.5, 0.0])).item()
    0.5
    """
    return np.asarray(np.trapezoid(curve, fraction, axis=-1), dtype=np.float64)


def crossings(
    subject: Perturbed, found: Curves, crossing_step: int | None, evidence: Evidence
) -> list[tuple[Crossing, Crossing]]:
    """Find the fraction at which the decision flips, for deletion and insertion of each row.

    The first point of the curve beyond the operating threshold is taken (match = native similarity
    >= threshold); with ``crossing_step``, the interval before it is scanned at that resolution. An
    earlier excursion between two points of the curve can be missed, as the similarity need not be
    monotone (Lu and Ebrahimi 2023, sec. 3, scan every pixel: ``crossing_step=1, steps=n``).

    Returns:
        Per row, (fraction to nonmatch, fraction to match), each with its state: ``not_crossed``
        counts 1.0; ``start_beyond`` (the filled image alone is a match) counts 0.0; ``excluded``
        (the pair is no match to begin with, or the model has no threshold) has no value.
    """
    threshold, n = evidence.operating_threshold, int(found.counts[-1])
    if threshold is None:
        return [((np.nan, RowState.EXCLUDED), (np.nan, RowState.EXCLUDED))] * len(found.native)
    beyond = np.stack([found.native[:, 0] < threshold, found.native[:, 1] >= threshold], axis=1)
    index = np.where(beyond.any(-1), beyond.argmax(-1), -1)  # (B, 2)
    count = found.counts[index]
    if crossing_step is not None:
        _refine(subject, found.counts, (index, count), crossing_step, evidence)
    rows: list[tuple[Crossing, Crossing]] = []
    for row, accepted in enumerate(found.native[:, 0, 0] >= threshold):
        if accepted:
            one, two = (_state(int(index[row, way]), int(count[row, way]), n) for way in (0, 1))
        else:
            one = two = (np.nan, RowState.EXCLUDED)
        rows.append((one, two))
    return rows


def _state(index: int, count: int, n: int) -> Crossing:
    if index < 0:
        return 1.0, RowState.NOT_CROSSED
    return (0.0, RowState.START_BEYOND) if index == 0 else (count / n, RowState.OK)


def _refine(
    subject: Perturbed,
    counts: NDArray[np.int64],
    coarse: tuple[NDArray[np.int64], NDArray[np.int64]],
    crossing_step: int,
    evidence: Evidence,
) -> None:
    """Replace coarse crossing counts, in place, by earlier ones inside their interval."""
    index, count = coarse
    n = subject.ranks.shape[1]
    wanted = [
        (row, way, k)
        for row, way in np.argwhere(index > 0)
        for k in range(int(counts[index[row, way] - 1]), int(count[row, way]), crossing_step)[1:]
    ]
    if not wanted:
        return
    row, way, k = torch.tensor(np.array(wanted)).unbind(1)
    deletes = way == 0
    first = torch.where(deletes, torch.zeros_like(k), k)
    last = torch.where(deletes, k, torch.full_like(k, n))
    _, native = _similarities(subject, row, first, last, evidence)
    assert evidence.operating_threshold is not None
    threshold = evidence.operating_threshold
    beyond = np.where(deletes.numpy(), native < threshold, native >= threshold)
    for position in np.flatnonzero(beyond)[::-1]:  # the earliest is written last
        r, w, earlier = wanted[position]
        count[r, w] = earlier


def _similarities(
    subject: Perturbed, row: Tensor, first: Tensor, last: Tensor, evidence: Evidence
) -> tuple[FloatArray, FloatArray]:
    """Return cosine and native similarity, (R,), with the pixels ranked [first, last) gone."""
    embeddings = evidence.embed(
        Perturbations(subject.image[row], subject.ranks, row, first, last, subject.fill)
    )
    others = evidence.clean()[subject.other[row]]
    cosine = similarity("cosine", embeddings, others)
    if evidence.similarity == "cosine":
        native = cosine
    else:
        native = similarity(evidence.similarity, embeddings, others)
    return cosine.double().numpy(), native.double().numpy()

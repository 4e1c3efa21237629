"""Answers about a row while pixels of its image are removed (deletion) or restored (insertion)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.functional.ranking import step_counts
from fxeval.metrics.orders import Order
from fxeval.metrics.protocol import Evidence, FloatArray, Subject
from fxeval.results import RowState

Crossing = tuple[float, RowState]


@dataclass(frozen=True, eq=False)
class Removal:
    """Rows of one subject whose pixels are removed in one order under one fill."""

    evidence: Evidence
    on: Subject
    order: Order
    fill: str

    def ask(self, row: Tensor, first: Tensor, last: Tensor) -> tuple[FloatArray, FloatArray]:
        """Return (R,) answers and margins with the pixels ranked [first, last) removed.

        Args:
            row: (R,) positions in ``order.kept``.
            first: (R,).
            last: (R,).
        """
        rows, question = self.evidence.rows, self.evidence.rows.question
        embeddings = self.on.embed(self.order.removed(rows.image, row, first, last, self.fill))
        asked = torch.from_numpy(self.order.kept)[row]
        answer = question.answer(self.on, asked, embeddings)
        margin = question.margin(self.on, asked, embeddings)
        return answer.double().numpy(), margin.double().numpy()


@dataclass(frozen=True, eq=False)
class Curves:
    """Answers along deletion (index 0) and insertion (index 1), one curve for each order.

    Attributes:
        counts: (K + 1,) pixels removed or restored, 0 to H*W.
        answer: (B, 2, K + 1); areas are taken from it.
        margin: (B, 2, K + 1); decisions are taken from it, NaN = no decision.
    """

    counts: NDArray[np.int64]
    answer: FloatArray
    margin: FloatArray

    @property
    def fraction(self) -> FloatArray:
        """(K + 1,) fraction of pixels, 0 to 1."""
        fraction: FloatArray = self.counts / self.counts[-1]
        return fraction


def trace(removal: Removal, steps: int) -> Curves:
    """Follow deletion and insertion in ``steps`` equal steps, both end points included."""
    b, n = removal.order.ranks.shape
    counts = torch.tensor(step_counts(n, steps))
    zeros, ends = torch.zeros_like(counts), torch.full_like(counts, n)
    first = torch.cat([zeros, counts])  # deletion removes [0, k), insertion leaves [k, n) removed
    last = torch.cat([counts, ends])
    row = torch.arange(b).repeat_interleave(len(first))
    answer, margin = removal.ask(row, first.repeat(b), last.repeat(b))
    shape = (b, 2, steps + 1)
    return Curves(counts.numpy(), answer.reshape(shape), margin.reshape(shape))


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
    removal: Removal, found: Curves, crossing_step: int | None
) -> list[tuple[Crossing, Crossing]]:
    """Find the fraction at which the decision flips, for deletion and insertion in each order.

    The first point of the curve at which the margin is negative is taken (for insertion: at which
    it no longer is); with ``crossing_step``, the interval before it is scanned at that resolution.
    An earlier excursion between two points of the curve can be missed, as the answer need not be
    monotone (Lu and Ebrahimi 2023, sec. 3, scan every pixel: ``crossing_step=1, steps=n``).

    Returns:
        Per entry of ``order.kept``, (fraction to nonmatch, fraction to match), each with its state:
        ``not_crossed`` counts 1.0, also where the filled image is a match: an order can flip the
        decision before everything is filled, so the row still tells maps apart.
        ``start_beyond`` (the filled image alone is a match) keeps the published 0.0, which enters
        no estimate; ``excluded`` (no match to begin with, or no decision) has no value.
    """
    if np.isnan(found.margin).all():
        return [((np.nan, RowState.EXCLUDED), (np.nan, RowState.EXCLUDED))] * len(found.margin)
    n = int(found.counts[-1])
    # Deletion has crossed where the pair no longer matches, insertion where it matches again.
    beyond = np.stack([found.margin[:, 0] < 0, found.margin[:, 1] >= 0], axis=1)
    index = np.where(beyond.any(-1), beyond.argmax(-1), -1)  # (B, 2)
    count = found.counts[index]
    if crossing_step is not None:
        _refine(removal, found.counts, (index, count), crossing_step)
    rows: list[tuple[Crossing, Crossing]] = []
    for row, accepted in enumerate(found.margin[:, 0, 0] >= 0):
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
    removal: Removal,
    counts: NDArray[np.int64],
    coarse: tuple[NDArray[np.int64], NDArray[np.int64]],
    crossing_step: int,
) -> None:
    """Replace coarse crossing counts, in place, by earlier ones inside their interval."""
    index, count = coarse
    n = removal.order.ranks.shape[1]
    wanted = [  # [1:]: the point before the crossing is known to be on the other side
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
    _, margin = removal.ask(row, first, last)
    beyond = np.where(deletes.numpy(), margin < 0, margin >= 0)
    for position in np.flatnonzero(beyond)[::-1]:  # the earliest is written last
        r, w, earlier = wanted[position]
        count[r, w] = earlier

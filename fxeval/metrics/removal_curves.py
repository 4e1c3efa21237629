"""Answers about a row while pixels of its image are removed (deletion) or restored (insertion)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.functional.ranking import step_counts
from fxeval.metrics.clean_cloud import Cloud
from fxeval.metrics.orders import Order
from fxeval.metrics.protocol import Evidence, FloatArray, Subject


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
        return self.answered(row, self.embedded(row, first, last))

    def embedded(self, row: Tensor, first: Tensor, last: Tensor) -> Embeddings:
        """Return (R, D) embeddings of the images without these pixels; arguments as of ``ask``."""
        images = self.evidence.rows.image
        return self.on.embed(self.order.removed(images, row, first, last, self.fill))

    def answered(self, row: Tensor, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """Return (R,) answers and margins of embeddings, (R, D)."""
        question, asked = self.evidence.rows.question, torch.from_numpy(self.order.kept)[row]
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
        outside: (B, K + 1) whether the image is outside the cloud of clean ones along deletion, 0
            or 1; NaN = no cloud was asked for, or there is none.
    """

    counts: NDArray[np.int64]
    answer: FloatArray
    margin: FloatArray
    outside: FloatArray | None = None

    @property
    def fraction(self) -> FloatArray:
        """(K + 1,) fraction of pixels, 0 to 1."""
        fraction: FloatArray = self.counts / self.counts[-1]
        return fraction


def trace(removal: Removal, steps: int, cloud: Cloud | None = None) -> Curves:
    """Follow deletion and insertion in ``steps`` equal steps, both end points included."""
    b, n = removal.order.ranks.shape
    counts = torch.tensor(step_counts(n, steps))
    zeros, ends = torch.zeros_like(counts), torch.full_like(counts, n)
    first = torch.cat([zeros, counts])  # deletion removes [0, k), insertion leaves [k, n) removed
    last = torch.cat([counts, ends])
    row = torch.arange(b).repeat_interleave(len(first))
    embeddings = removal.embedded(row, first.repeat(b), last.repeat(b))
    answer, margin = removal.answered(row, embeddings)
    shape = (b, 2, steps + 1)
    outside = None
    if cloud is not None:
        deletes = torch.arange(2 * len(counts)).repeat(b) < len(counts)
        outside = cloud.outside(embeddings[deletes]).reshape(b, steps + 1)
    return Curves(counts.numpy(), answer.reshape(shape), margin.reshape(shape), outside)


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

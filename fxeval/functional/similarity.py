"""Similarity of embeddings.

Larger is always more alike, and a pair is a match if its similarity is >= the operating threshold.
"""

import math

import torch
from torch import Tensor

from fxeval.contracts import Embeddings, SimilarityKind


def similarity(kind: SimilarityKind, probes: Embeddings, references: Embeddings) -> Tensor:
    """Return the similarity of each probe with its reference, in float64.

    Args:
        kind: ``cosine`` (in [-1, 1] up to rounding: not clipped) or ``neg_l2`` (minus the
            Euclidean distance of the raw embeddings, at most 0).
        probes: (N, D).
        references: (N, D).

    Returns:
        (N,) float64, larger = more alike, differentiable.

    >>> similarity("cosine", torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([0.6000], dtype=torch.float64)
    >>> similarity("neg_l2", torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([-5.], dtype=torch.float64)
    """
    if probes.ndim != 2 or probes.shape != references.shape:
        raise ValueError(
            f"similarity: expected two (N, D) sets of embeddings, got {tuple(probes.shape)} and "
            f"{tuple(references.shape)}"
        )
    a, b = probes.double(), references.double()
    if kind == "cosine":
        return (_unit(a) * _unit(b)).sum(dim=1)
    if kind == "neg_l2":
        return -_length(a - b)[:, 0]
    raise ValueError(f"similarity: expected 'cosine' or 'neg_l2', got {kind!r}")


def threshold_fault(kind: SimilarityKind, threshold: object) -> str:
    """Return what is wrong with an operating threshold, and what to write; "" for a possible one.

    Args:
        kind: Native similarity in which it is meant.
        threshold: The threshold; None = there is none, which is no fault.

    >>> threshold_fault("cosine", 0.4), threshold_fault("neg_l2", -1.1)
    ('', '')
    >>> threshold_fault("neg_l2", 1.1)
    'expected 0 or less (minus a distance) for neg_l2, got 1.1: write -1.1'
    """
    if threshold is None:
        return ""
    meant = "-1 to 1" if kind == "cosine" else "0 or less (minus a distance)"
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        return f"expected a number for {kind}, {meant}, got {type(threshold).__name__}"
    expected = f"expected {meant} for {kind}, got {threshold:g}"
    if not math.isfinite(threshold):
        return f"{expected}: write null (None) for a model without a threshold"
    if kind == "neg_l2":
        return f"{expected}: write {-threshold:g}" if threshold > 0 else ""
    if -1 <= threshold <= 1:
        return ""
    if 2 < threshold <= 100:
        return f"{expected}: for a similarity in percent write {threshold / 100:g}"
    if 1 < threshold <= 2:
        return f"{expected}: for a cosine distance d write 1 - d, {1 - threshold:g}"
    return expected


def _unit(embeddings: Tensor) -> Tensor:
    return embeddings / _length(embeddings).clamp_min(1e-12)


def _length(vectors: Tensor) -> Tensor:
    """Return (N, 1) Euclidean lengths of (N, D) vectors."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return length

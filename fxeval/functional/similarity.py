"""Similarity of embeddings.

Larger is always more alike, and a pair is a match if its similarity is >= the operating threshold.
"""

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


def _unit(embeddings: Tensor) -> Tensor:
    return embeddings / _length(embeddings).clamp_min(1e-12)


def _length(vectors: Tensor) -> Tensor:
    """Return (N, 1) Euclidean lengths of (N, D) vectors."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return length

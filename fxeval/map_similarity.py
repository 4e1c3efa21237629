"""How alike two saliency maps are."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.errors import ExplainerContractError

FloatArray = NDArray[np.float64]


def spearman(a: Tensor, b: Tensor) -> FloatArray:
    """Return Spearman's rank correlation of each row of ``a`` with the same row of ``b``.

    Pearson's correlation of average ranks. Centred and doubled, average ranks are whole numbers, so
    the sums are exact in float64 up to 2**18 pixels: equal maps give exactly 1.

    Args:
        a: (N, n) real, finite, one flattened map a row.
        b: (N, n), likewise.

    Returns:
        (N,) float64 in [-1, 1]; NaN where one of the rows is constant and so has no order.

    Raises:
        ExplainerContractError: If a value is NaN or infinite.
        ValueError: If the shapes differ or are not (N, n).

    Source:
        algorithms.md 4.1.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(
            f"spearman: two (N, n) tensors expected, got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    result = np.full(len(a), np.nan)
    for row, (one, other) in enumerate(zip(_finite(a), _finite(b), strict=True)):
        x, y = _centred_ranks(one), _centred_ranks(other)
        spread = np.sqrt((x @ x) * (y @ y))
        if spread > 0.0:
            result[row] = min(1.0, max(-1.0, (x @ y) / spread))
    return result


def _finite(maps: Tensor) -> FloatArray:
    broken = ~torch.isfinite(maps).all(1)
    if bool(broken.any()):
        raise ExplainerContractError(
            f"spearman: finite maps expected, got NaN or infinity in {int(broken.sum())} of "
            f"{len(maps)}, first in map {int(broken.nonzero()[0])}. Leave it out with state "
            "'nan_map'."
        )
    values: FloatArray = maps.detach().to("cpu", torch.float64).numpy()
    return values


def _centred_ranks(values: FloatArray) -> FloatArray:
    """Return 2 * (average rank - mean rank) of each of (n,) values, whole numbers."""
    order = np.argsort(values)
    ordered = values[order]
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(values)])
    size = np.diff(start, append=len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(2 * start + size - len(values), size)
    return ranks

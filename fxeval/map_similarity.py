"""How alike two saliency maps are."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.errors import ExplainerContractError

FloatArray = NDArray[np.float64]


def spearman(a: Tensor, b: Tensor) -> FloatArray:
    """Return Spearman's rank correlation of each row of ``a`` with the same row of ``b``.

    Pearson's correlation of average ranks. Centred and doubled, average ranks are integers, so the
    sums are exact in float64 up to 2**18 pixels: equal maps give exactly 1.

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
    x, y = _centred_ranks(a), _centred_ranks(b)
    covariance = np.einsum("ij,ij->i", x, y)
    spread = np.sqrt(np.einsum("ij,ij->i", x, x) * np.einsum("ij,ij->i", y, y))
    result = np.full(len(x), np.nan)
    np.divide(covariance, spread, out=result, where=spread > 0.0)
    np.clip(result, -1.0, 1.0, out=result)
    return result


def _centred_ranks(maps: Tensor) -> FloatArray:
    """Return 2 * (average rank - mean rank) of each value in its row, (N, n), whole numbers."""
    if not bool(torch.isfinite(maps).all()):
        row = int((~torch.isfinite(maps)).any(1).nonzero()[0])
        raise ExplainerContractError(
            f"spearman: finite maps expected, got NaN or infinity in map {row} of {len(maps)}. "
            "Leave it out with state 'nan_map'."
        )
    values = maps.detach().to("cpu", torch.float64).numpy()
    if not values.size:
        return np.zeros(values.shape)
    n = values.shape[1]
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    opens_tie = np.ones(values.shape, dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=opens_tie[:, 1:])
    # Every row opens a tie of its own, so the ties of all rows can be counted in one go.
    start = np.flatnonzero(opens_tie)
    size = np.diff(start, append=values.size)
    doubled = 2 * (start % n) + size - n
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, np.repeat(doubled, size).reshape(values.shape), axis=1)
    return ranks

"""Similarity of two saliency maps, and the scale on which maps may be averaged."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Maps
from fxeval.errors import ExplainerContractError
from fxeval.functional.ranking import flat

FloatArray = NDArray[np.float64]

SAME = 1e-6
"""Difference of a pixel from which maps, scaled to 0..1, are two."""

ROWS = 16  # maps that are compared together: most pairs of sets differ in the first


def spearman(a: Tensor, b: Tensor) -> FloatArray:
    """Return Spearman's rank correlation of each row of ``a`` with the same row of ``b``.

    Pearson's correlation of average ranks. Centred and doubled, average ranks are whole numbers, so
    the sums are exact in float64 up to 2**18 pixels: equal maps give exactly 1.

    Args:
        a: (N, n) real, finite, one flattened map a row.
        b: (N, n), like ``a``.

    Returns:
        (N,) float64 in [-1, 1]; NaN where one of the rows is constant and so has no order.

    Raises:
        ExplainerContractError: If a value is NaN or infinite.
        ValueError: If the shapes differ or are not (N, n).
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(
            f"spearman: expected two (N, n) tensors, got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    result = np.full(len(a), np.nan)
    for row, (one, other) in enumerate(zip(_finite(a), _finite(b), strict=True)):
        x, y = _centred_ranks(one), _centred_ranks(other)
        spread = np.sqrt((x @ x) * (y @ y))
        if spread > 0.0:
            # Rounding of the root may push the quotient just beyond 1.
            result[row] = min(1.0, max(-1.0, (x @ y) / spread))
    return result


def norm01(maps: Maps) -> tuple[Tensor, Tensor]:
    """Scale each map to [0, 1]: (m - min) / (max - min), with nothing added to the denominator.

    A map is unusable if a pixel is NaN or infinite, or if it has no order
    (:func:`fxeval.functional.ranking.flat`).

    >>> norm01(torch.tensor([[[1.0, 2.0, 5.0]], [[3.0, 3.0, 3.0]]]))
    (tensor([[[0.0000, 0.2500, 1.0000]],
    <BLANKLINE>
            [[0.0000, 0.0000, 0.0000]]], dtype=torch.float64), tensor([ True, False]))

    Args:
        maps: (N, H, W) real.

    Returns:
        (N, H, W) float64 in [0, 1], zero where unusable, and (N,) bool, True for usable maps.
    """
    wide = maps.double()
    usable = torch.isfinite(wide).flatten(1).all(dim=1)
    wide = torch.where(usable[:, None, None], wide, 0.0)
    low, high = wide.amin(dim=(1, 2)), wide.amax(dim=(1, 2))
    usable &= ~torch.from_numpy(flat(low.cpu().numpy(), high.cpu().numpy())).to(usable.device)
    spread = torch.where(usable, high - low, 1.0)
    scaled = (wide - low[:, None, None]) / spread[:, None, None]
    return torch.where(usable[:, None, None], scaled, 0.0), usable


def same_maps(one: Maps, other: Maps) -> bool:
    """Say whether maps are the same but for their scale: no pixel of the scaled ones differs.

    >>> same_maps(torch.tensor([[[0.0, 1.0, 4.0]]]), torch.tensor([[[2.0, 4.0, 10.0]]]))
    True

    Args:
        one: (N, H, W) real; maps that cannot be scaled count as zeros.
        other: (N, H, W).
    """
    for a, b in zip(torch.split(one, ROWS), torch.split(other, ROWS), strict=True):
        (scaled, _), (others, _) = norm01(a), norm01(b)
        if bool(((scaled - others).abs() >= SAME).any()):
            return False
    return True


def _finite(maps: Tensor) -> FloatArray:
    broken = ~torch.isfinite(maps).all(1)
    if bool(broken.any()):
        raise ExplainerContractError(
            f"spearman: expected finite maps, got NaN or infinity in {int(broken.sum())} of "
            f"{len(maps)}, first in map {int(broken.nonzero()[0])}. Leave it out with state "
            "'nan_map'."
        )
    values: FloatArray = maps.detach().to("cpu", torch.float64).numpy()
    return values


def _centred_ranks(values: FloatArray) -> FloatArray:
    """Return 2 * (average rank - mean rank) of each of (n,) values, whole numbers."""
    order = np.argsort(values)
    ordered = values[order]
    # Values that tie share ranks start + 1 to start + size, on average start + (size + 1) / 2;
    # doubled, and less the doubled mean rank n + 1, that is 2 start + size - n.
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(values)])
    size = np.diff(start, append=len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(2 * start + size - len(values), size)
    return ranks

"""Similarity of two saliency maps, and the scale on which maps may be averaged.

Two faces' maps are alike before any weight is read: all faces of a list are aligned to the same
crop. What a map says of *its* face is what is left of it when the mean map of other people is
subtracted (:func:`residuals`).
"""

from collections.abc import Sequence
from functools import lru_cache

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

POOLED = 28
"""Rows and columns of the maps that are compared as residuals."""

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
        result[row] = correlated(centred_ranks(one), centred_ranks(other))
    return result


def rank_vectors(values: Tensor) -> FloatArray:
    """Return the centred average ranks of each row, scaled to length 1; zeros for a constant row.

    The product of two such vectors is Spearman's rank correlation, 0 where a row has no order.

    >>> rank_vectors(torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]])).round(3).tolist()
    [[0.707, -0.707, 0.0], [0.0, 0.0, 0.0]]

    Args:
        values: (N, n) real, finite.

    Raises:
        ExplainerContractError: If a value is NaN or infinite.
    """
    centred = np.stack([centred_ranks(one) for one in _finite(values)])
    lengths = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    vectors: FloatArray = centred / np.where(lengths > 0.0, lengths, 1.0)
    return vectors


def centred_ranks(values: FloatArray) -> FloatArray:
    """Return 2 * (average rank - mean rank) of each of (n,) finite values, whole numbers.

    >>> centred_ranks(np.array([5.0, 1.0, 5.0]))
    array([ 1., -2.,  1.])
    """
    order = np.argsort(values)
    ordered = values[order]
    # Values that tie share ranks start + 1 to start + size, on average start + (size + 1) / 2;
    # doubled, and less the doubled mean rank n + 1, that is 2 start + size - n.
    start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(values)])
    size = np.diff(start, append=len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(2 * start + size - len(values), size)
    return ranks


def correlated(x: FloatArray, y: FloatArray) -> float:
    """Return the correlation of two (n,) vectors of centred ranks; NaN if one is of equal ranks."""
    spread = np.sqrt((x @ x) * (y @ y))
    # Rounding of the root may push the quotient just beyond 1.
    return min(1.0, max(-1.0, float((x @ y) / spread))) if spread > 0.0 else float("nan")


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


def pooled(maps: Maps) -> tuple[Tensor, Tensor]:
    """Pool each map to 28 x 28 by area and scale it to [0, 1].

    A pixel on the border of two cells counts to each by its area, so maps of every size are pooled,
    also those with fewer rows than cells. Values are rounded to 9 decimals: cells of a plateau,
    which differ by the rounding of their sums alone, must tie.

    Args:
        maps: (N, H, W) real.

    Returns:
        (N, 28, 28) float64 in [0, 1] on the CPU, zero where unusable, and (N,) bool, True for
        usable maps: finite, and not constant once pooled.

    Source:
        OpenCV's ``INTER_AREA``, with exact weights.
    """
    wide = maps.detach().to("cpu", torch.float64)
    finite = torch.isfinite(wide).flatten(1).all(dim=1)
    wide = torch.where(finite[:, None, None], wide, 0.0)
    height, width = maps.shape[1:]
    down, across = (
        torch.from_numpy(cell_areas(length, POOLED) * (POOLED / length))
        for length in (height, width)
    )
    scaled, has_order = norm01(down @ wide @ across.T)
    return torch.round(scaled, decimals=9), finite & has_order


def residuals(pooled_maps: Tensor, identities: Sequence[int], usable: Tensor) -> Tensor:
    """Return each map minus the mean of the maps of other identities.

    The mean is over all usable maps of other identities in the same list, so the list must be the
    whole cell under one condition. Unusable maps stay out of it. Values are rounded to 1e-7: what
    is left of equal maps is rounding, and must be a constant map, which has no order.

    >>> maps = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.5]]], dtype=torch.float64)
    >>> residuals(maps, [0, 1, 1], torch.tensor([True, True, True]))
    tensor([[[-1.0000,  0.7500]],
    <BLANKLINE>
            [[ 1.0000, -1.0000]],
    <BLANKLINE>
            [[ 1.0000, -0.5000]]], dtype=torch.float64)

    Args:
        pooled_maps: (N, h, w) float64 in [0, 1], as :func:`pooled` returns them.
        identities: N numbers; maps with the same number are of the same person.
        usable: (N,) bool.

    Returns:
        (N, h, w) float64 in [-1, 1]; zero for unusable maps, and where no other identity has a
        usable map: a residual of zeros has no order, and counts as a similarity of 0.

    Raises:
        ValueError: If the lengths differ.
    """
    if not len(pooled_maps) == len(identities) == len(usable):
        raise ValueError(
            "residuals: expected one identity and one flag for each map, got "
            f"{len(pooled_maps)} maps, {len(identities)} identities and {len(usable)} flags."
        )
    means, others = means_of_others(pooled_maps, identities, usable)
    present = usable & (others > 0)
    found = torch.where(present[:, None, None], pooled_maps.double() - means, 0.0)
    return torch.round(found, decimals=7) + 0.0  # no -0


def means_of_others(
    maps: Tensor, identities: Sequence[int], usable: Tensor
) -> tuple[Tensor, Tensor]:
    """Return for each map the mean of the usable maps of other identities, and their number.

    Args:
        maps: (N, h, w) real.
        identities: N numbers; maps with the same number are of the same person.
        usable: (N,) bool.

    Returns:
        (N, h, w) float64, zeros where no other identity has a usable map, and (N,) float64.
    """
    kept = torch.where(usable[:, None, None], maps.double(), 0.0)
    _, of = np.unique(np.asarray(identities, dtype=np.int64), return_inverse=True)
    group = torch.from_numpy(of.reshape(-1))
    people = int(group.max()) + 1 if len(group) else 0
    sums = torch.zeros(people, *kept.shape[1:], dtype=torch.float64).index_add_(0, group, kept)
    counts = torch.zeros(people, dtype=torch.float64).index_add_(0, group, usable.double())
    others = counts.sum() - counts
    means = (sums.sum(0) - sums) / others.clamp_min(1.0)[:, None, None]
    return means[group], others[group]


@lru_cache(maxsize=16)
def cell_areas(length: int, cells: int) -> FloatArray:
    """Return (cells, length): how much of each pixel's length, 0 to 1, lies in each cell.

    >>> cell_areas(3, 2)
    array([[1. , 0.5, 0. ],
           [0. , 0.5, 1. ]])
    """
    ends = np.arange(cells + 1) * (length / cells)
    pixels = np.arange(length)
    overlap = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    areas: FloatArray = np.maximum(overlap, 0.0)
    return areas


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

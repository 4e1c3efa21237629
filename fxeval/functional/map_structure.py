"""Are two saliency maps alike in structure: windows, edges, orders, and most salient pixels?

Every similarity is of whole maps, each scaled to 0..1 by its own range, in two dimensions and with
a fixed range: none depends on other maps of a batch. A map that is compared with many others, such
as that of a trained network with those of its re-drawn copies, is described once.

N maps, H x W pixels.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fxeval.contracts import Maps
from fxeval.errors import ExplainerContractError
from fxeval.functional.map_similarity import centred_ranks, correlated, norm01
from fxeval.functional.ranking import count, ranks

FloatArray = NDArray[np.float64]

RADIUS = 5
"""Half the width of the window of :func:`ssim`; smaller maps have none."""

_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # of values that range over 1

CELLS = 7
"""Cells of :func:`hog` along the height of a map: 16 pixels each in a crop 112 high."""

ORIENTATIONS = 9
_BLOCK = 3
_EPS = 1e-5
_CLIP = 0.2

Similarity = Literal["rank_correlation", "ssim", "hog_correlation", "top_overlap"]

SIMILARITIES: tuple[Similarity, ...] = (
    "rank_correlation",
    "ssim",
    "hog_correlation",
    "top_overlap",
)
"""What :func:`compared` gives, in this order."""

TOP = 0.05
"""Fraction of the most salient pixels."""

LEAST_SIDE = 2 * RADIUS + 1
"""Shortest side of a map that has a structure: one window."""


def ssim(one: Maps, other: Maps) -> FloatArray:
    """Return the mean structural similarity of each map with another.

    Gaussian windows of 11 x 11 pixels with a standard deviation of 1.5, population covariances,
    K1 = 0.01, K2 = 0.03, a range of 1, and the mean over all pixels at least 5 from the border,
    where the window is whole. Published figures are often made without a fixed range, or along a
    flattened map: both give other numbers.

    Args:
        one: (N, H, W) finite, H and W >= 11; scaled to 0..1 here.
        other: (N, H, W).

    Returns:
        (N,) in [-1, 1], 1 for equal maps; NaN where one of the maps is constant.

    Raises:
        ExplainerContractError: If a map holds NaN or infinity.
        ValueError: If the shapes differ or a side is shorter than 11.

    Source:
        Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
        structural similarity", 2004; settings of Adebayo et al. 2018.
    """
    (a, has_a), (b, has_b) = _scaled(one, other)
    found = _ssim(_windows(a), _windows(b))
    return np.where(has_a & has_b, found, np.nan)


def hog_similarity(one: Maps, other: Maps) -> FloatArray:
    """Return Spearman's correlation between the oriented edges (:func:`hog`) of two maps.

    Args:
        one: (N, H, W) finite, H and W >= 11; scaled to 0..1 here.
        other: (N, H, W).

    Returns:
        (N,) in [-1, 1]; NaN where one of the maps is constant.

    Raises:
        ExplainerContractError: If a map holds NaN or infinity.
        ValueError: If the shapes differ or a side is shorter than 11.

    Source:
        Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, sec. 4.
    """
    (a, has_a), (b, has_b) = _scaled(one, other)
    found = np.array(
        [
            correlated(centred_ranks(x), centred_ranks(y))
            for x, y in zip(hog(a), hog(b), strict=True)
        ],
        dtype=np.float64,
    )
    return np.where(has_a & has_b, found, np.nan)


def hog(values: FloatArray) -> FloatArray:
    """Return histograms of oriented gradients.

    Unsigned orientations in 9 bins of 20 degrees, without interpolation, cells of H // 7 pixels (16
    in a crop of 112), blocks of 3 x 3 cells, each of unit length with its values clipped at 0.2
    (L2-Hys). Pixels beyond the last whole cell are in none.

    Args:
        values: (N, H, W), W >= 3 * (H // 7) > 0.

    Returns:
        (N, n) values in [0, 1]; n = 2025 for a crop of 112 x 112.

    Source:
        Dalal and Triggs, "Histograms of oriented gradients for human detection", 2005; as in
        scikit-image.
    """
    down, across = np.zeros_like(values), np.zeros_like(values)
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    across[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    magnitude = np.hypot(across, down)
    angle = np.rad2deg(np.arctan2(down, across)) % 180.0
    side = max(1, values.shape[1] // CELLS)
    rows, columns = values.shape[1] // side, values.shape[2] // side
    if min(rows, columns) < _BLOCK:
        raise ValueError(
            f"hog: expected maps of at least {_BLOCK} x {_BLOCK} cells of {side} pixels, got "
            f"{tuple(values.shape[1:])}."
        )
    cells = _histograms(magnitude, angle, side, (rows, columns))
    windows = np.lib.stride_tricks.sliding_window_view(cells, (_BLOCK, _BLOCK), axis=(1, 2))
    blocks = np.moveaxis(windows, 3, 5).reshape(len(values), -1, _BLOCK * _BLOCK * ORIENTATIONS)
    clipped = np.minimum(_unit(blocks), _CLIP)
    found: FloatArray = _unit(clipped).reshape(len(values), -1)
    return found


def _histograms(
    magnitude: FloatArray, angle: FloatArray, side: int, shape: tuple[int, int]
) -> FloatArray:
    """Return (N, rows, columns, 9): the mean gradient of each orientation in each cell.

    Sums are rounded to float32 pixel by pixel, as in scikit-image: what is equal but for the
    rounding of float64 ties, as it must where ranks are compared.
    """
    rows, columns = shape
    width = 180.0 / ORIENTATIONS
    # An angle that is rounded to 180 is in no bin, as in scikit-image.
    turn = np.floor_divide(angle, width).astype(np.int64)

    def pixels(of: NDArray[Any]) -> NDArray[Any]:
        whole = of[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side)
        return np.ascontiguousarray(whole.transpose(2, 4, 0, 1, 3)).reshape(side * side, -1)

    strength, bins = pixels(magnitude), pixels(turn)
    totals = np.zeros((strength.shape[1], ORIENTATIONS + 1), dtype=np.float32)
    place = np.arange(len(totals))
    for values, bin_ in zip(strength, bins, strict=True):
        totals[place, bin_] = (totals[place, bin_] + values).astype(np.float32)
    found = totals[:, :ORIENTATIONS] / np.float32(side * side)
    return found.reshape(-1, rows, columns, ORIENTATIONS).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Described:
    """Maps, described once for any number of comparisons with other maps of the same size.

    What was not asked for is None; so are ``windows`` and ``edges`` below 11 pixels.

    Attributes:
        order: (N, H * W) doubled centred average ranks.
        windows: Each map's windowed means and variances.
        edges: (N, n) centred ranks of the oriented edges.
        top: (N, H * W) bool, the most salient pixels.

    Example:
        >>> maps = torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(0))
        >>> trained = describe(maps, [1, 2], of=("rank_correlation", "ssim"))
        >>> {name: float(of[0]) for name, of in compared(trained, trained).items()}
        {'rank_correlation': 1.0, 'ssim': 1.0}
    """

    order: FloatArray | None
    windows: "_Windows | None"
    edges: FloatArray | None
    top: NDArray[np.bool_] | None


def describe(
    maps: Maps,
    seeds: Sequence[int] | None,
    *,
    fraction: float = TOP,
    of: Collection[Similarity] = SIMILARITIES,
) -> Described:
    """Describe maps for comparisons; a constant map is taken for its seeded random order.

    Args:
        maps: (N, H, W) finite.
        seeds: One for each map, for the order of ties; None as in
            :func:`fxeval.functional.ranking.ranks`.
        fraction: That of the most salient pixels, exactly ``count(fraction, H * W)``.
        of: The similarities that are wanted.

    Raises:
        ExplainerContractError: If a map holds NaN or infinity.
    """
    n_pixels = maps.shape[1] * maps.shape[2]
    wide = maps.detach().to("cpu", torch.float64).clone()
    scaled, has_order = norm01(wide)
    flat = (~has_order).nonzero()[:, 0].tolist()
    places = None
    if flat or "top_overlap" in of:  # maps that are not finite are among the flat ones
        places = ranks(maps, seeds)
        # Rank 0 is the most salient pixel, so minus the rank is a map with that order.
        for one, scale in ((wide, 1.0), (scaled, max(1.0, n_pixels - 1.0))):
            order = (n_pixels - 1 - places[flat].double()) / scale
            one[flat] = order.reshape(-1, *maps.shape[1:])
    has_structure = min(maps.shape[1:]) >= LEAST_SIDE
    values: FloatArray = scaled.numpy()
    return Described(
        order=_ranked(wide.flatten(1).numpy()) if "rank_correlation" in of else None,
        windows=_windows(values) if "ssim" in of and has_structure else None,
        edges=_ranked(hog(values)) if "hog_correlation" in of and has_structure else None,
        top=(places < count(fraction, n_pixels)).numpy()
        if places is not None and "top_overlap" in of
        else None,
    )


def compared(one: Described, other: Described) -> dict[Similarity, FloatArray]:
    """Return the similarities of each map with another, (N,) each, that both are described for.

    ``rank_correlation``, ``ssim`` and ``hog_correlation`` in [-1, 1], and ``top_overlap``, of the
    most salient pixels of both the share that is common to both, in [0, 1]. Equal maps have 1 in
    all.
    """
    found: dict[Similarity, FloatArray] = {}
    if one.order is not None and other.order is not None:
        found["rank_correlation"] = _correlations(one.order, other.order)
    if one.windows is not None and other.windows is not None:
        found["ssim"] = _ssim(one.windows, other.windows)
    if one.edges is not None and other.edges is not None:
        found["hog_correlation"] = _correlations(one.edges, other.edges)
    if one.top is not None and other.top is not None:
        found["top_overlap"] = (one.top & other.top).sum(1) / (one.top | other.top).sum(1)
    return found


@dataclass(frozen=True, eq=False)
class _Windows:
    values: FloatArray
    mean: FloatArray
    variance: FloatArray

    def __len__(self) -> int:
        return len(self.values)


def _scaled(one: Maps, other: Maps) -> list[tuple[FloatArray, NDArray[np.bool_]]]:
    if one.shape != other.shape or one.ndim != 3 or min(one.shape[1:]) < LEAST_SIDE:
        raise ValueError(
            f"expected two (N, H, W) tensors of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, got "
            f"{tuple(one.shape)} and {tuple(other.shape)}."
        )
    found = []
    for maps in (one, other):
        if not bool(torch.isfinite(maps).all()):
            raise ExplainerContractError(
                "expected finite maps, got NaN or infinity. Leave such maps out with state "
                "'nan_map'."
            )
        scaled, has_order = norm01(maps.detach().cpu())
        found.append((scaled.numpy(), has_order.numpy()))
    return found


def _ranked(values: FloatArray) -> FloatArray:
    """Return (N, n) centred ranks."""
    found = np.empty(values.shape)
    for row, one in enumerate(values):
        found[row] = centred_ranks(one)
    return found


def _correlations(one: FloatArray, other: FloatArray) -> FloatArray:
    return np.array([correlated(x, y) for x, y in zip(one, other, strict=True)], dtype=np.float64)


def _windows(values: FloatArray) -> _Windows:
    mean = _blurred(values)
    return _Windows(values, mean, _blurred(values * values) - mean * mean)


def _ssim(a: _Windows, b: _Windows) -> FloatArray:
    together = a.mean * b.mean
    covariance = _blurred(a.values * b.values) - together
    found = ((2.0 * together + _C1) * (2.0 * covariance + _C2)) / (
        (a.mean * a.mean + b.mean * b.mean + _C1) * (a.variance + b.variance + _C2)
    )
    # Of equal maps, the quotient may be one rounding beyond 1.
    mean: FloatArray = found.mean((1, 2)).clip(-1.0, 1.0)
    return mean


def _blurred(values: FloatArray) -> FloatArray:
    """Return (N, H - 10, W - 10) means under each whole window."""
    down, across = _kernel(values.shape[1]), _kernel(values.shape[2])
    blurred: FloatArray = down @ values @ across.T
    return blurred


@lru_cache(maxsize=8)
def _kernel(length: int) -> FloatArray:
    """Return (length - 10, length): the weights of the pixels in the window around each place."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    found = np.zeros((length - 2 * RADIUS, length))
    for place in range(len(found)):
        found[place, place : place + 2 * RADIUS + 1] = weights
    return found


def _unit(blocks: FloatArray) -> FloatArray:
    found: FloatArray = blocks / np.sqrt((blocks * blocks).sum(-1, keepdims=True) + _EPS**2)
    return found

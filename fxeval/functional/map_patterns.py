"""Are two saliency maps alike as patterns, and which regions do they rest on?

A pattern is a map as a distribution over its pixels: it sums to 1. That of a fraction below 1 is
the map's most salient pixels, each with an equal share; that of 1 is the whole map, scaled from 0.
Maps of any two faces have much in common: two unrelated whole maps can have a Bhattacharyya
coefficient of 0.6, and those of noise one of 0.9. A coefficient or a distance says nothing without
those of maps that have nothing to do with each other.

N maps, H x W pixels.
"""

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Maps
from fxeval.errors import ExplainerContractError
from fxeval.functional.map_similarity import cell_areas, norm01
from fxeval.functional.ranking import count, ranks

FloatArray: TypeAlias = NDArray[np.float64]

CELLS = 14
"""Rows and columns of the grid on which patterns are moved (:func:`emd_2d`)."""

HEIGHT = 112
"""Height of the crop in whose pixels distances are given."""

LEAST_MEAN = 1e-3
"""Mean of shares below which they have no coefficient of variation."""


def patterns(maps: Maps, fraction: float, seeds: Sequence[int] | None) -> Tensor:
    """Return maps as patterns: distributions over the pixels.

    A map without an order (:func:`fxeval.functional.ranking.flat`) is taken for its seeded random
    order, so two constant maps are as much alike as noise, and not the same.

    Args:
        maps: (N, H, W) finite, larger = more salient.
        fraction: Below 1, that of the most salient pixels, exactly ``count(fraction, H * W)``,
            which get equal shares; at 1, the whole map scaled to 0..1 and divided by its sum.
        seeds: One for each map, for the order of ties; None as in
            :func:`fxeval.functional.ranking.ranks`.

    Returns:
        (N, H, W) float64, at least 0, each with the sum 1.

    Raises:
        ExplainerContractError: If a map holds NaN or infinity.

    >>> patterns(torch.tensor([[[0.0, 1.0, 3.0, 2.0]]]), 0.5, [1])
    tensor([[[0.0000, 0.0000, 0.5000, 0.5000]]], dtype=torch.float64)
    >>> patterns(torch.tensor([[[0.0, 1.0, 4.0, 3.0]]]), 1.0, [1])
    tensor([[[0.0000, 0.1250, 0.5000, 0.3750]]], dtype=torch.float64)
    """
    n_pixels = maps.shape[1] * maps.shape[2]
    if fraction < 1.0:
        k = count(fraction, n_pixels)
        return (ranks(maps, seeds) < k).double().reshape(maps.shape) / k
    if not bool(torch.isfinite(maps).all()):
        raise ExplainerContractError(
            "patterns: expected finite maps, got NaN or infinity. Leave such maps out with state "
            "'nan_map'."
        )
    scaled, has_order = norm01(maps)
    flat = (~has_order).nonzero()[:, 0].tolist()
    if flat:
        order = ranks(maps[flat], None if seeds is None else [seeds[row] for row in flat])
        scaled[flat] = (n_pixels - order.double()).reshape(-1, *maps.shape[1:])
    return scaled / scaled.sum((1, 2), keepdim=True)


def bhattacharyya(one: Tensor, other: Tensor) -> FloatArray:
    """Return the Bhattacharyya coefficient of each pattern with another one.

    The sum over the pixels of the roots of the products: 1 for the same pattern, 0 for patterns
    that share no pixel. Of the most salient pixels it is the share that both have in common.

    Args:
        one: (N, H, W) patterns.
        other: (N, H, W).

    Returns:
        (N,) in [0, 1], rounded to 9 decimals: coefficients that differ by the rounding of sums
        alone, such as those of equal patterns, must tie.

    Source:
        Bhattacharyya, "On a measure of divergence between two statistical populations", 1943.
    """
    p, q = _pair(one, other)
    found: FloatArray = np.sqrt(p * q).sum((1, 2)).clip(0.0, 1.0).round(9)
    return found


def intersection_over_union(one: Tensor, other: Tensor) -> FloatArray:
    """Return, of the pixels that either pattern has, the share that both have.

    Args:
        one: (N, H, W) patterns of the most salient pixels.
        other: (N, H, W).

    Returns:
        (N,) in [0, 1].
    """
    p, q = (pattern > 0.0 for pattern in _pair(one, other))
    found: FloatArray = (p & q).sum((1, 2)) / (p | q).sum((1, 2))
    return found


def emd_2d(one: Tensor, other: Tensor) -> FloatArray:
    """Return the earth mover's distance: how far the mean share must be moved over the image.

    The image is divided into 14 x 14 cells of H / 14 by W / 14 pixels; a pixel on a border counts
    to each side by its area. The ground distance is that between the centres of cells. Distances
    are in pixels of a crop 112 high, whatever the crop, so those of several models can be compared:
    pixels of this crop times 112 / H.

    What both patterns have in a cell stays there, which costs nothing where the ground distance is
    a metric. Only the rest is handed to OpenCV, which computes in float32: for whole maps, that is
    several times faster, and a hundred times more precise.

    Args:
        one: (N, H, W) patterns.
        other: (N, H, W).

    Returns:
        (N,), 0 or more, rounded to 4 decimals.

    Source:
        Rubner, Tomasi, Guibas, "The earth mover's distance as a metric for image retrieval", 2000.
    """
    p, q = _pair(one, other)
    height, width = p.shape[1:]
    down, across = cell_areas(height, CELLS), cell_areas(width, CELLS)
    difference = down @ (p - q) @ across.T
    found = [_moved(one, width / height) for one in difference]
    return np.array(found, dtype=np.float64).round(4)


def emd_marg(one: Tensor, other: Tensor) -> FloatArray:
    """Return how far the mean share must be moved down, and how far across, each on its own.

    Args:
        one: (N, H, W) patterns.
        other: (N, H, W).

    Returns:
        (N, 2) distances of the sums over rows and over columns, in pixels of this crop.
    """
    p, q = _pair(one, other)
    return np.stack([_along(p.sum(axis), q.sum(axis)) for axis in (2, 1)], axis=1)


def emd_flat(one: Tensor, other: Tensor) -> FloatArray:
    """Return how far the mean share must be moved along the pixels in C order, as one line.

    It takes the next row for the end of a row. Some published distances seem to be made so.

    Args:
        one: (N, H, W) patterns.
        other: (N, H, W).

    Returns:
        (N,) distances in places of the line.
    """
    p, q = _pair(one, other)
    return _along(p.reshape(len(p), -1), q.reshape(len(q), -1))


def w1_values(one: Maps, other: Maps) -> FloatArray:
    """Return the distance between the distributions of the values of two maps, scaled to 0..1.

    It does not see where the values are: a map and the same map turned over have a distance of 0.

    Args:
        one: (N, H, W) maps.
        other: (N, H, W).

    Returns:
        (N,) in [0, 1]; NaN where one of the maps is constant or not finite.
    """
    ordered, usable = [], torch.ones(len(one), dtype=torch.bool)
    for maps in (one, other):
        scaled, has_order = norm01(maps)
        usable &= has_order.cpu()
        ordered.append(scaled.flatten(1).sort(dim=1).values.cpu().numpy())
    distances = np.abs(ordered[0] - ordered[1]).mean(1)
    return np.where(usable.numpy(), distances, np.nan)


def region_shares(pattern: Tensor, labels: Tensor, regions: Sequence[Sequence[int]]) -> FloatArray:
    """Return the share of each pattern that lies in each region.

    Args:
        pattern: (N, H, W) patterns.
        labels: (N, H, W) int64, the part that each pixel shows; -1 = none.
        regions: The labels of each of R regions.

    Returns:
        (N, R) in [0, 1].
    """
    n_labels = 1 + max((label for region in regions for label in region), default=0)
    places = torch.where((labels >= 0) & (labels < n_labels), labels, -1).flatten(1) + 1
    sums = torch.zeros((len(pattern), n_labels + 1), dtype=torch.float64)
    sums.scatter_add_(1, places.cpu(), pattern.double().flatten(1).cpu())
    found = [sums[:, [label + 1 for label in region]].sum(1) for region in regions]
    shares: FloatArray = np.stack([one.numpy() for one in found], axis=1)
    return np.clip(shares, 0.0, 1.0)


def area_shares(labels: Tensor, regions: Sequence[Sequence[int]]) -> FloatArray:
    """Return the share of the pixels of each image that lie in each region, (N, R).

    Args:
        labels: (N, H, W) int64.
        regions: The labels of each of R regions.
    """
    even = torch.full(labels.shape, 1.0 / labels[0:1].numel(), dtype=torch.float64)
    return region_shares(even, labels, regions)


def variation(shares: FloatArray) -> FloatArray:
    """Return the coefficient of variation of shares: standard deviation over mean.

    Args:
        shares: (E, ...) shares of E images; NaN = not known.

    Returns:
        (...) with ``ddof`` 1; NaN where fewer than two are known or their mean is below 0.001.

    >>> variation(np.array([[0.1, 0.0], [0.3, 0.001]])).round(4).tolist()
    [0.7071, nan]
    """
    known = np.isfinite(shares)
    n = known.sum(0)
    mean = np.where(known, shares, 0.0).sum(0) / np.maximum(n, 1)
    squares = np.where(known, (shares - mean) ** 2, 0.0).sum(0)
    has_value = (n > 1) & (mean >= LEAST_MEAN)
    spread = np.sqrt(squares / np.maximum(n - 1, 1))
    found: FloatArray = np.where(has_value, spread / np.where(has_value, mean, 1.0), np.nan)
    return found


def _pair(one: Tensor, other: Tensor) -> tuple[FloatArray, FloatArray]:
    if one.shape != other.shape or one.ndim != 3:
        raise ValueError(
            f"patterns: expected two (N, H, W) tensors, got {tuple(one.shape)} and "
            f"{tuple(other.shape)}."
        )
    p, q = (pattern.detach().to("cpu", torch.float64).numpy() for pattern in (one, other))
    return p, q


def _along(p: FloatArray, q: FloatArray) -> FloatArray:
    """Return the distances of distributions along a line, (N,), from two (N, n)."""
    distances: FloatArray = np.abs((p - q).cumsum(axis=1)).sum(axis=1)
    return distances


def _moved(difference: FloatArray, aspect: float) -> float:
    """Return the cost of moving what is positive in (14, 14) to where it is negative."""
    given, taken = np.maximum(difference, 0.0), np.maximum(-difference, 0.0)
    amount = (given.sum() + taken.sum()) / 2.0
    # Patterns sum to 1: smaller differences are rounding, and nothing is left to be moved.
    if amount <= 1e-12:
        return 0.0
    signatures = []
    for part in (given, taken):
        rows, columns = np.nonzero(part)
        weights = part[rows, columns] / part.sum()
        signatures.append(np.stack([weights, rows, columns * aspect], axis=1).astype(np.float32))
    cost, _, _ = cv2.EMD(signatures[0], signatures[1], cv2.DIST_L2)
    return float(cost * amount * HEIGHT / CELLS)

"""Moves saliency maps from one crop to another, so that models with different crops compare.

Two crops are connected by a similarity transform between their templates. Where one template is
not a scaled copy of the other, the true transform differs from face to face: from ``arcface112``
to ``dlib150`` it was off by 0.33 pixels (of 150) on average over 4,274 real faces (95 %: 0.68).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Crop, Maps
from fxeval.datasets.faces.alignment import similarity_transform
from fxeval.errors import ExplainerContractError

DLIB_CHIP = Crop(
    "dlib150",
    (150, 150),
    ((110.957, 46.350), (89.606, 47.897), (37.058, 46.373), (58.409, 47.906), (74.011, 87.780)),
)
"""The crop ``dlib150`` for faces whose five points come from dlib's own predictor.

The points are in that predictor's order: outer and inner corner of the eye at the image's right,
outer and inner corner of the eye at its left, base of the nose (``get_face_chip_details`` with
size 150 and padding 0.25).
"""


class MovedMaps(NamedTuple):
    """Maps in another crop.

    Attributes:
        maps: (N, H, W), same dtype and device as the given maps; 0 where not covered.
        covered: (H, W) bool, whether the centre of a pixel lies in the source crop.
    """

    maps: Maps
    covered: Tensor


def move_maps(maps: Maps, source: Crop, target: Crop) -> MovedMaps:
    """Move maps to another crop.

    If the target is at least as fine as the source, interpolation is bilinear, with half-pixel
    centres and border pixels extended to the border. If it is coarser, each target pixel gets the
    exact mean over its area in the source, also under rotation. A constant map stays constant.

    Args:
        maps: (N, h, w) in the source crop.
        source: The crop of the given maps.
        target: The crop of the returned maps.

    Raises:
        ExplainerContractError: If the maps do not have the size of the source crop.
    """
    if maps.ndim != 3 or tuple(maps.shape[1:]) != source.size:
        raise ExplainerContractError(
            f"maps: expected (N, {source.size[0]}, {source.size[1]}) in crop '{source.name}', got "
            f"{tuple(maps.shape)}. Resize them to the crop they were made in."
        )
    if (source.size, source.template) == (target.size, target.template):
        return MovedMaps(maps, torch.ones(target.size, dtype=torch.bool, device=maps.device))
    taps = _taps(source, target)
    place, weight = taps.place.to(maps.device), taps.weight.to(maps.device)
    # One map at a time, because gathering needs the memory of one map per tap.
    moved = [(one.reshape(-1).double()[place] * weight).sum(dim=1) for one in maps]
    stacked = torch.stack(moved) if moved else maps.new_zeros((0, len(place)))
    return MovedMaps(stacked.to(maps.dtype).reshape(-1, *target.size), taps.covered.to(maps.device))


def between(source: Crop, target: Crop) -> NDArray[np.float64]:
    """Return the (2, 3) similarity transform between two crops; swapping them gives its inverse.

    The rotation is that of least squares, but the scale is the ratio of the templates' spreads:
    where the templates differ in shape, least squares gives too small a scale in both directions.
    """
    there, back = (
        similarity_transform(one.template, two.template)
        for one, two in ((source, target), (target, source))
    )
    # Dividing by the geometric mean of both scales cancels the shrinkage of least squares.
    turn = there[:, :2] / np.sqrt(np.hypot(*there[:, 0]) * np.hypot(*back[:, 0]))
    middle, its_place = (np.mean(crop.template, axis=0) for crop in (source, target))
    return np.column_stack([turn, its_place - turn @ middle])


class _Taps(NamedTuple):
    """The source pixels that each target pixel is a weighted sum of.

    Attributes:
        place: (H*W, T) int64, index of each source pixel in the flattened map.
        weight: (H*W, T) float64, sums to 1, or to 0 where not covered.
        covered: (H, W) bool.
    """

    place: Tensor
    weight: Tensor
    covered: Tensor


@lru_cache(maxsize=16)
def _taps(source: Crop, target: Crop) -> _Taps:
    height, width = target.size
    matrix = between(target, source)
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    centres = np.stack([xs.ravel(), ys.ravel()], axis=1) @ matrix[:, :2].T + matrix[:, 2]
    limit = np.array(source.size[::-1])
    # A millionth of a pixel is rounding error: templates have only four decimals.
    covered = np.all((centres >= -0.5 - 1e-6) & (centres <= limit - 0.5 + 1e-6), axis=1)
    is_finer = float(np.hypot(*matrix[:, 0])) <= 1 + 1e-6
    place, weight = (_bilinear if is_finer else _area)(centres, matrix[:, :2], limit)
    total = weight.sum(axis=1, keepdims=True)
    weight = np.where(covered[:, None], weight / np.where(total > 0, total, 1), 0.0)
    return _Taps(
        torch.from_numpy(place),
        torch.from_numpy(weight),
        torch.from_numpy(covered.reshape(target.size)),
    )


_Points = NDArray[np.float64]
_TapArrays = tuple[NDArray[np.int64], NDArray[np.float64]]


def _bilinear(centres: _Points, _axes: _Points, limit: NDArray[np.int64]) -> _TapArrays:
    """Return the four neighbours of each centre and their weights."""
    points = np.clip(centres, 0, limit - 1)
    corner = np.minimum(np.floor(points).astype(np.int64), np.maximum(limit - 2, 0))
    right, down = (points - corner).T
    places, weights = [], []
    for dy, in_y in ((0, 1 - down), (1, down)):
        for dx, in_x in ((0, 1 - right), (1, right)):
            x, y = np.minimum(corner + np.array([dx, dy]), limit - 1).T
            places.append(y * limit[0] + x)
            weights.append(in_x * in_y)
    return np.stack(places, axis=1), np.stack(weights, axis=1)


def _area(centres: _Points, axes: _Points, limit: NDArray[np.int64]) -> _TapArrays:
    """Return the pixels under each target pixel, a rotated square, and the areas they share."""
    square = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) @ axes.T
    reach = np.abs(square).max(axis=0)
    first = np.floor(centres - reach + 0.5).astype(np.int64)
    n_x, n_y = (np.ceil(2 * reach).astype(np.int64) + 1).tolist()
    # The area shared with cell (i, j) is the second difference of the areas above left of corners.
    edges_x = first[:, :1] + np.arange(n_x + 1) - 0.5 - centres[:, :1]
    edges_y = first[:, 1:] + np.arange(n_y + 1) - 0.5 - centres[:, 1:]
    below = _area_up_to(square, edges_x[:, None, :], edges_y[:, :, None])
    shared = np.diff(np.diff(below, axis=1), axis=2)
    x = first[:, 0, None, None] + np.arange(n_x)[None, None, :]
    y = first[:, 1, None, None] + np.arange(n_y)[None, :, None]
    is_inside = (x >= 0) & (x < limit[0]) & (y >= 0) & (y < limit[1])
    place = np.where(is_inside, y * limit[0] + x, 0)
    weight = np.where(is_inside, np.maximum(shared, 0), 0.0)
    return place.reshape(len(place), -1), weight.reshape(len(weight), -1)


def _area_up_to(polygon: _Points, x: _Points, y: _Points) -> _Points:
    """Return the area of a convex polygon left of x and above y (y points down).

    At each X the polygon covers ``min(lower edge, y) - min(upper edge, y)`` of a vertical line. Its
    integral over X is a signed sum over the edges of the integrals of min(edge, y).
    """
    area = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if abs(x1 - x0) < 1e-12:  # a vertical edge covers no X
            continue
        sign = 1.0 if x1 > x0 else -1.0
        (left, at_left), (right, at_right) = sorted([(x0, y0), (x1, y1)])
        slope = (at_right - at_left) / (right - left)
        length = np.clip(x, left, right) - left
        above_0, above_1 = y - at_left, y - at_left - slope * length
        # The mean of max(y - line, 0) first; min(line, y) = y - max(y - line, 0). For a flat line
        # the closed form is 0 / 0.
        gap = above_0 - above_1
        is_flat = np.abs(gap) < 1e-12
        ramp = np.maximum(above_0, 0) ** 2 - np.maximum(above_1, 0) ** 2
        mean_above = np.where(
            is_flat, np.maximum(above_0, 0), ramp / (2 * np.where(is_flat, 1, gap))
        )
        area -= sign * length * (y - mean_above)
    return area

"""Taking pixels away: what they are replaced with, and the replacing itself.

Everything here happens on images in [0, 1], before any model's own normalisation.
"""

import math
from functools import lru_cache
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import Fill, Images


def fill_images(images: Images, fill: Fill) -> Images:
    """Return what each image is replaced with where its pixels are removed.

    ``blur`` is a Gaussian of sigma = 5 * H / 112 pixels in both directions, kernel cut at
    ceil(3 * sigma) and normalised, border reflected about the outermost pixel (reflect-101);
    ``mean`` the image's own mean per channel; ``black`` is 0.

    Args:
        images: (N, 3, H, W) floating in [0, 1], on any device.
        fill: One of ``fxeval.contracts.Fill``.

    Returns:
        (N, 3, H, W), same dtype and device.

    Raises:
        ValueError: If the fill is unknown or the images are not (N, 3, H, W) floating.

    Source:
        The fxeval design; the blurred fill follows Petsiuk et al., "RISE", BMVC 2018, 4.1.
    """
    _check_images("fill_images", images)
    if fill == "blur":
        return _blurred(images)
    if fill == "mean":
        mean = images.mean((2, 3), keepdim=True, dtype=torch.float64).to(images.dtype)
        return mean.expand_as(images).contiguous()
    if fill == "black":
        return torch.zeros_like(images)
    raise ValueError(f"fill_images: one of {get_args(Fill)} expected, got {fill!r}.")


def remove(images: Images, fillers: Images, ranks: Tensor, first: Tensor, last: Tensor) -> Images:
    """Replace the pixels whose rank lies in [first, last) with the filler's.

    Deletion of the k most salient pixels is [0, k), their insertion into the filler [k, n),
    retention likewise. Every row has its own image, order and counts, so one batch can mix pairs,
    steps and maps. Pixels are copied bit for bit.

    Args:
        images: (B, 3, H, W) floating, finite.
        fillers: (B, 3, H, W), same dtype and device.
        ranks: (B, H * W) integer, from :func:`fxeval.functional.ranking.ranks`, on the same device.
        first: (B,) integer, first rank to remove, on the same device.
        last: (B,) integer, the rank after the last one to remove, on the same device.

    Returns:
        (B, 3, H, W), a new tensor.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    _check_images("remove", images)
    rows, _, height, width = images.shape
    if fillers.shape != images.shape or fillers.dtype != images.dtype:
        raise ValueError(
            f"remove: fillers like the images expected, {tuple(images.shape)} {images.dtype}, got "
            f"{tuple(fillers.shape)} {fillers.dtype}."
        )
    if ranks.shape != (rows, height * width) or first.shape != (rows,) or last.shape != (rows,):
        raise ValueError(
            f"remove: ranks ({rows}, {height * width}), first and last ({rows},) expected, got "
            f"{tuple(ranks.shape)}, {tuple(first.shape)} and {tuple(last.shape)}."
        )
    if any(part.dtype.is_floating_point for part in (ranks, first, last)):
        raise ValueError("remove: ranks, first and last must be integers.")
    # Bounds of another integer type would make every comparison promote all ranks.
    low, high = first.to(ranks.dtype)[:, None], last.to(ranks.dtype)[:, None]
    removed = (ranks >= low).logical_and_(ranks < high)
    weight = removed.view(rows, 1, height, width).to(images.dtype)
    # lerp returns its end points exactly at weights 0 and 1, and on a CPU it takes a quarter of the
    # time of torch.where, whose loop branches on every pixel of an order without pattern.
    return torch.lerp(images, fillers, weight)


def _blurred(images: Images) -> Images:
    """Blur as two matrix products: the border is in the matrices, so any size is exact."""
    height, width = images.shape[2:]
    sigma = 5.0 * height / 112.0
    down, across = (
        torch.from_numpy(_blur_matrix(size, sigma)).to(images.device, images.dtype)
        for size in (height, width)
    )
    return (down @ images @ across.T).clamp_(0.0, 1.0)


@lru_cache(maxsize=8)
def _blur_matrix(size: int, sigma: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the (size, size) matrix of a one-dimensional Gaussian blur with reflect-101 border."""
    radius = math.ceil(3.0 * sigma)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2.0 * sigma**2))
    kernel /= kernel.sum()
    period = max(1, 2 * (size - 1))
    source = np.abs(np.arange(size)[:, None] + offsets) % period
    source = np.minimum(source, period - source) if size > 1 else np.zeros_like(source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], source), kernel)
    return matrix


def _check_images(where: str, images: Images) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.dtype.is_floating_point:
        raise ValueError(
            f"{where}: images (N, 3, H, W) floating expected, got {tuple(images.shape)} "
            f"{images.dtype}."
        )

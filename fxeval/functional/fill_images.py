"""Images without information, of which the shipped fills are made.

Everything here happens on images in [0, 1], before any model's own normalisation.
"""

import hashlib
import math
from functools import lru_cache
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import Fill, Images
from fxeval.seeding import generator_of


def fill_images(images: Images, fill: Fill) -> Images:
    """Return the images that take the place of removed pixels.

    ``blur`` is a Gaussian of sigma = 5 * H / 112 pixels in both directions, kernel cut at
    ceil(3 * sigma) and normalised, border reflected about the outermost pixel (reflect-101);
    ``mean`` the image's own mean per channel; ``black`` is 0 and ``white`` 1. ``random`` is uniform
    in {0, 1/255, ..., 1} for each pixel and channel, drawn from the content of the image in 8 bits:
    the same image has the same noise on every device, in every batch and under every map.

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
    if fill == "white":
        return torch.ones_like(images)
    if fill == "random":
        return torch.stack([_noise(image) for image in images]) if len(images) else images.clone()
    raise ValueError(f"fill_images: expected one of {get_args(Fill)}, got {fill!r}.")


def content_seed(image: Tensor) -> int:
    """Return the seed that belongs to the content of a (3, H, W) image in 8 bits."""
    content = (image.detach() * 255.0).round().to("cpu", torch.uint8).contiguous().numpy()
    return int.from_bytes(hashlib.sha256(content.tobytes()).digest()[:8])


def _noise(image: Tensor) -> Tensor:
    """Return (3, H, W) noise that depends on the content of the image alone."""
    levels = generator_of("random_fill", content_seed(image)).integers(0, 256, tuple(image.shape))
    return torch.from_numpy(levels).to(image.device, image.dtype).div_(255.0)


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
            f"{where}: expected floating images (N, 3, H, W), got {tuple(images.shape)} "
            f"{images.dtype}."
        )

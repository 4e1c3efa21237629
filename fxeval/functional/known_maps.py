"""Maps of known worth, where it is known which pixels of an image make the difference.

Two images differ in some pixels and nowhere else: whatever tells them apart lies there.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fxeval.contracts import Images, Maps
from fxeval.functional.controls import blur_matrix, inverse, random_pixels

BLUR = 0.1
"""Sigma of the blurred oracle as a share of the height: that of random blobs."""


def change(images: Images, others: Images) -> Maps:
    """Return how far each pixel differs between two images, (N, H, W) float32 in grey levels.

    The absolute differences of the three channels are added: 0 to 765.

    Args:
        images: (N, 3, H, W) in [0, 1].
        others: (N, 3, H, W) in [0, 1].
    """
    return ((images - others).abs() * 255).round().sum(dim=1)


def oracle(changes: Maps, row_seeds: Sequence[int]) -> Maps:
    """Return maps that rank pixels by their change, the largest first; ties are drawn by the seed.

    Pixels that did not change come last, in a random order. No two pixels tie, so that a map needs
    one order.

    Args:
        changes: (N, H, W) whole numbers, >= 0.
        row_seeds: N seeds.

    Example:
        >>> oracle(torch.tensor([[[0.0, 9.0], [0.0, 2.0]]]), [1]).flatten().argsort()[2:]
        tensor([3, 1])
    """
    return changes.float() + 0.5 * random_pixels(row_seeds, _size(changes))


def blurred_oracle(changes: Maps, row_seeds: Sequence[int]) -> Maps:
    """Return the oracle blurred by a Gaussian with sigma = H / 10: it points near the pixels.

    The Gaussian is cut at ceil(3 sigma); the border is reflected without repeating the edge.
    """
    size = _size(changes)
    rows, columns = (blur_matrix(length, BLUR * size[0]) for length in size)
    # One product per row: a batched one may round differently with the size of the batch.
    found = [rows @ one.double() @ columns.T for one in oracle(changes, row_seeds)]
    return torch.stack(found).float() if found else torch.empty((0, *size))


def inverse_oracle(changes: Maps, row_seeds: Sequence[int]) -> Maps:
    """Return the oracle turned over: pixels that did not change come first."""
    return inverse(oracle(changes, row_seeds))


def share_inside(maps: Maps, inside: Tensor) -> Tensor:
    """Return the share of each map's energy that lies in some pixels, (N,) float64 in [0, 1].

    A map's energy is its value less its smallest one. A constant map has the same everywhere.

    Args:
        maps: (N, H, W), finite.
        inside: (N, H, W) bool.

    Source:
        The energy-based pointing game of Wang et al., CVPRW 2020 (Score-CAM), sec. 4.3.

    Example:
        >>> share_inside(torch.tensor([[[1.0, 4.0]]]), torch.tensor([[[False, True]]])).tolist()
        [1.0]
    """
    values, chosen = maps.double().flatten(1), inside.flatten(1)
    energy = values - values.amin(dim=1, keepdim=True)
    # Scaled first: the sum of a map may leave the range of its numbers.
    top = energy.amax(dim=1, keepdim=True)
    energy = torch.where(top > 0, energy / torch.where(top > 0, top, 1.0), 1.0)
    shares = [
        math.fsum(one[where].tolist()) / math.fsum(one.tolist())
        for one, where in zip(energy, chosen, strict=True)
    ]
    return torch.tensor(shares, dtype=torch.float64)


def _size(maps: Maps) -> tuple[int, int]:
    return int(maps.shape[1]), int(maps.shape[2])

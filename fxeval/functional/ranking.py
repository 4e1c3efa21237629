"""The order in which the pixels of a saliency map are removed, and how many make a fraction.

A map is first quantised, so that rounding noise of another device or batch size does not change the
order. Ties are then ordered by a seeded hash: a stable sort would remove them in raster order,
which is a spatial bias (a ReLU leaves an eighth of a Grad-CAM map at exactly 0). A constant map is
one big tie, so it ranks like a random map; it never selects everything.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Maps
from fxeval.errors import ExplainerContractError

FloatArray: TypeAlias = NDArray[np.float64]

LEVELS = 100_000  # quantisation steps between a map's smallest and largest value
MAX_PIXELS = 1 << 20

# One uint64 sorts a pixel: 17 bits of level, 27 bits of hash, 20 bits of pixel index. Sorting such
# keys and reading the index back is several times faster than an argsort over two keys.
_INDEX_BITS, _HASH_BITS = 20, 27
_INDEX_MASK = np.uint64((1 << _INDEX_BITS) - 1)


def ranks(maps: Maps, seeds: Sequence[int] | None) -> Tensor:
    """Rank the pixels of each map from most to least salient.

    Pixels are ordered by (quantised value descending, hash ascending, index ascending). The value
    is quantised to ``rint((m - min) / (max - min) * 1e5)`` in float64; a constant map
    (:func:`flat`) is 0 everywhere. The hash of pixel i is the upper 27 bits of the (i+1)-th output
    of SplitMix64 started at the map's seed.

    Args:
        maps: (N, H, W), floating, finite, H * W <= 2**20; larger = more salient.
        seeds: One seed per map, or None to order ties by pixel index (golden tests only: it
            favours the top of the image).

    Returns:
        (N, H * W) int32 on the CPU: the rank of each pixel in C order, 0 = most salient.

    Raises:
        ExplainerContractError: If a map holds NaN or infinity.
        ValueError: If shapes or the number of seeds do not fit.

    Source:
        SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA
        2014.
    """
    levels = _levels(maps)
    n = levels.shape[1]
    keys = (LEVELS - levels).astype(np.uint64) << np.uint64(_HASH_BITS + _INDEX_BITS)
    keys |= np.arange(n, dtype=np.uint64)
    if seeds is not None:
        if len(seeds) != len(keys):
            raise ValueError(f"ranks: expected one seed per map, got {len(seeds)} for {len(keys)}.")
        for key, seed in zip(keys, seeds, strict=True):
            key |= (_splitmix64(seed, n) >> np.uint64(64 - _HASH_BITS)) << np.uint64(_INDEX_BITS)
    keys.sort(axis=1)
    keys &= _INDEX_MASK  # what is left is each row's pixel indices, in order of removal
    result = np.empty(keys.shape, dtype=np.int32)
    rank = np.broadcast_to(np.arange(n, dtype=np.int32), keys.shape)
    np.put_along_axis(result, keys.view(np.int64), rank, axis=1)
    return torch.from_numpy(result)


def flat(low: FloatArray, high: FloatArray) -> NDArray[np.bool_]:
    """Say which maps have no order: ``max - min <= 1e-12 * max(|min|, |max|)``.

    The rule is relative to the map's own magnitude, so that a map times a constant, however small
    or large, has an order exactly if the map has one.

    >>> low, high = np.array([0.0, 1.0, 1e-30, 0.0]), np.array([1e-30, 1.0 + 1e-9, 1e-30, 0.0])
    >>> flat(low, high)
    array([False, False,  True,  True])

    Args:
        low: (...) smallest value of each map, finite.
        high: (...) largest value of each map.
    """
    with np.errstate(under="ignore", over="ignore"):
        return np.asarray(high - low <= 1e-12 * np.maximum(np.abs(low), np.abs(high)))


def tie_share(map_: Tensor) -> float:
    """Return the share, 0 to 1, of a map's (H, W) pixels whose quantised value is not unique."""
    levels = _levels(map_[None])[0]
    occurrences = np.bincount(levels, minlength=LEVELS + 1)
    return float(occurrences[occurrences > 1].sum() / levels.size)


def count(fraction: float, n: int) -> int:
    """Return the exact number of pixels that a fraction of n pixels stands for.

    ``max(1, floor(fraction * n + 0.5))``, and 0 for a fraction of 0.

    >>> [count(0.01, n) for n in (112 * 112, 150 * 150, 160 * 160, 112 * 96)]
    [125, 225, 256, 108]

    Raises:
        ValueError: If the fraction is outside [0, 1] or n < 1.
    """
    if not 0.0 <= fraction <= 1.0 or n < 1:
        raise ValueError(f"count: expected a fraction in [0, 1] of n >= 1, got {fraction} of {n}.")
    return 0 if fraction == 0.0 else max(1, math.floor(fraction * n + 0.5))


def step_counts(n: int, steps: int) -> list[int]:
    """Return how many of n pixels are removed after 0, 1, ... ``steps`` steps.

    ``k_i = round(i * n / steps)`` in integer arithmetic; halves round up, as in :func:`count`.

    >>> step_counts(10, 4)
    [0, 3, 5, 8, 10]

    Raises:
        ValueError: Unless 1 <= steps <= n (more steps than pixels would repeat counts).
    """
    if not 1 <= steps <= n:
        raise ValueError(f"step_counts: expected 1 <= steps <= {n} pixels, got {steps}.")
    return [(2 * i * n + steps) // (2 * steps) for i in range(steps + 1)]


def _levels(maps: Maps) -> NDArray[np.int64]:
    """Quantise (N, H, W) maps to integers 0 .. LEVELS, (N, H * W); constant maps to 0."""
    if maps.ndim != 3 or not maps.dtype.is_floating_point:
        raise ValueError(
            f"saliency maps: expected (N, H, W) floating, got {tuple(maps.shape)} {maps.dtype}."
        )
    if not 1 <= maps[0:1].numel() <= MAX_PIXELS and len(maps):
        raise ValueError(
            f"saliency maps: expected 1 to {MAX_PIXELS} pixels, got {tuple(maps.shape[1:])}."
        )
    values = maps.detach().to("cpu", torch.float64).flatten(1).numpy()
    if not values.size:
        return values.astype(np.int64)
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        span = high - low
    if not np.isfinite(span).all():
        row = int(np.flatnonzero(~np.isfinite(span))[0])
        raise ExplainerContractError(
            f"saliency map {row} of {len(values)}: expected finite values, got "
            f"{int((~np.isfinite(values[row])).sum())} NaN or infinite pixels. A map without an "
            "order has no ranks: leave it out with state 'nan_map'."
        )
    constant = flat(low, high)
    scaled = (values - low) / np.where(constant, 1.0, span)
    return np.where(constant, 0, np.rint(scaled * LEVELS)).astype(np.int64)


def _splitmix64(seed: int, n: int) -> NDArray[np.uint64]:
    """Return the first n outputs of the SplitMix64 generator started at ``seed`` (mod 2**64)."""
    state = np.arange(1, n + 1, dtype=np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

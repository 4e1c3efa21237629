"""The order in which the pixels of a saliency map are removed, and how many make a fraction.

Two pixels tie if their values are equal to the precision of float32, relative to the values' own
size and not to the map's range: a map may hold one huge value, or span many orders of magnitude,
and still order all its pixels. Ties are ordered by a seeded hash: a stable sort would remove them
in raster order, which is a spatial bias (a ReLU leaves an eighth of a Grad-CAM map at exactly 0).
A constant map is one big tie, so it ranks like a random map; it never selects everything.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Maps
from fxeval.errors import ExplainerContractError

FloatArray: TypeAlias = NDArray[np.float64]

MAX_PIXELS = 1 << 20

MOST_ORDERS = 8
"""Orders of a map of which nearly all pixels tie."""

SIGNIFICANT_BITS = 24  # of a float32
_DROPPED = np.int64(53 - SIGNIFICANT_BITS)  # bits of a float64 beyond these
_MAGNITUDE = np.int64((1 << 63) - 1)
_HIGHEST = np.int64(1 << 35)  # above every magnitude without the dropped bits

# One uint64 sorts a pixel: 36 bits of level and 20 of index; a tied one: up to 19 bits of group, up
# to 27 of hash and up to 20 of index. Sorting such keys and reading the index back is several times
# faster than an argsort over several keys.
_INDEX_BITS, _HASH_BITS = 20, 27


def ranks(maps: Maps, seeds: Sequence[int] | None) -> Tensor:
    """Rank the pixels of each map from most to least salient.

    Pixels are ordered by (value descending, hash ascending, index ascending). Values are compared
    as float64 numbers rounded to 24 significant bits, halves away from 0: float32 numbers as they
    are. All values of a constant map (:func:`flat`) are equal. The hash of pixel i is the upper 27
    bits (25 above 2**19 pixels) of the (i+1)-th output of SplitMix64 started at the map's seed.

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
    if seeds is not None and len(seeds) != len(levels):
        raise ValueError(f"ranks: expected one seed per map, got {len(seeds)} for {len(levels)}.")
    result = np.empty(levels.shape, dtype=np.int32)
    for row, level in enumerate(levels):
        order = _by_value(level)
        _number(result[row], order if seeds is None else _untied(level, order, seeds[row]))
    return torch.from_numpy(result)


def several_ranks(
    maps: Maps, seed_of: Callable[[int, int], int]
) -> tuple[NDArray[np.int64], Tensor]:
    """Rank each map as often as its ties need (:func:`orders_needed`), sorting it once.

    Args:
        maps: (N, H, W), as for :func:`ranks`.
        seed_of: From a map and the number of its order, both from 0, to a seed.

    Returns:
        (N,) numbers of orders, and (B, H * W) what :func:`ranks` gives for all of them, those of a
        map one after the other.
    """
    levels = _levels(maps)
    times = np.ones(len(levels), dtype=np.int64)
    found: list[NDArray[np.int32]] = []
    for row, level in enumerate(levels):
        order = _by_value(level)
        times[row] = _orders_needed(_sizes(level[order]))
        for turn in range(int(times[row])):
            found.append(np.empty(len(level), dtype=np.int32))
            _number(found[-1], _untied(level, order, seed_of(row, turn)))
    return times, torch.from_numpy(np.stack(found) if found else levels.astype(np.int32))


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


def tied_shares(maps: Maps) -> FloatArray:
    """Return, for each map, the share of pixels whose value another pixel has too.

    Args:
        maps: (N, H, W), as for :func:`ranks`.

    Returns:
        (N,) shares from 0 to 1; 1 for a constant map.
    """
    sizes = [_sizes(np.sort(level)) for level in _levels(maps)]
    return np.array([one[one > 1].sum() / one.sum() for one in sizes], dtype=np.float64)


def orders_needed(maps: Maps) -> NDArray[np.int64]:
    """Return, for each map, how many orders of its ties a figure should be the mean of.

    ``ceil(8 p)``, at least 1, with p the chance that two different pixels tie. What one order adds
    by chance to a pair's area under a curve has a standard deviation of at most about
    ``0.012 sqrt(p)`` (``docs/method.md``), so that of the mean stays below 0.005 for all maps.
    Many small groups of ties count little: their order hardly matters. A constant map needs one
    order: any is as good.

    Args:
        maps: (N, H, W), as for :func:`ranks`.

    Returns:
        (N,) numbers from 1 to ``MOST_ORDERS``; 1 wherever fewer than a third of the pixels tie.
    """
    needed = [_orders_needed(_sizes(np.sort(level))) for level in _levels(maps)]
    return np.array(needed, dtype=np.int64)


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


def counts_at_percentile(maps: Maps, fraction: float) -> NDArray[np.int64]:
    """Return how many pixels of each map are at or above its percentile ``100 (1 - fraction)``.

    They are the first in every order of the map. Published figures are often made so, but this is
    no fraction of the pixels: all that tie with the percentile are among them, the whole map if it
    is constant or if its lowest value is the percentile. fxeval only demonstrates it.

    >>> sparse = torch.zeros(1, 112, 112)
    >>> sparse[0, 0, :64] = torch.arange(64) + 1.0
    >>> counts_at_percentile(sparse, 0.01).item(), count(0.01, 112 * 112)
    (12544, 125)

    Args:
        maps: (N, H, W), finite.
        fraction: In [0, 1].

    Returns:
        (N,) numbers of pixels, 1 to H * W.
    """
    values = maps.detach().to("cpu", torch.float64).flatten(1).numpy()
    bounds = np.percentile(values, 100.0 * (1.0 - fraction), axis=1, keepdims=True)
    return np.asarray((values >= bounds).sum(axis=1), dtype=np.int64)


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
    """Return (N, H * W) whole numbers that rise as values fall, and are equal where values tie."""
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
    # The bits of a float's magnitude, read as a whole number, rise with it. Half a step is added
    # before the last bits go; a carry into the exponent is right.
    magnitude = np.where(flat(low, high), 0.0, values).view(np.int64) & _MAGNITUDE
    magnitude += np.int64(1) << (_DROPPED - np.int64(1))
    magnitude >>= _DROPPED
    np.negative(magnitude, out=magnitude, where=values > 0)
    magnitude += _HIGHEST
    return magnitude


def _by_value(level: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pixels of one map in order of removal, ties by index, from their (n,) levels."""
    lowest = level == level.max()  # often a plateau, of zeros: it needs no sorting by value
    pixels = np.flatnonzero(~lowest)
    keys = (level[pixels] << np.int64(_INDEX_BITS)) | pixels
    keys.sort()
    keys &= np.int64((1 << _INDEX_BITS) - 1)
    return np.concatenate([keys, np.flatnonzero(lowest)])


def _untied(level: NDArray[np.int64], order: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the pixels of one map in order of removal, ties by hash."""
    ordered = level[order]
    same = ordered[1:] == ordered[:-1]
    place = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
    if not len(place):
        return order
    order = order.copy()
    order[place] = _shuffled(order[place].astype(np.uint64), ordered[place], seed, len(level))
    return order


def _number(ranks_: NDArray[np.int32], order: NDArray[np.int64]) -> None:
    """Write the rank of each pixel of one map."""
    ranks_[order] = np.arange(len(order), dtype=np.int32)


def _shuffled(
    pixels: NDArray[np.uint64], levels: NDArray[np.int64], seed: int, n: int
) -> NDArray[np.int64]:
    """Return tied pixels of n, in groups of ascending level, with each group ordered by hash."""
    bits = (n - 1).bit_length()  # of an index; a group has two pixels or more, so one bit less
    hash_bits = min(_HASH_BITS, 65 - 2 * bits)
    keys = np.zeros(len(pixels), dtype=np.uint64)
    np.cumsum(levels[1:] != levels[:-1], out=keys[1:])  # the number of the group
    keys <<= np.uint64(hash_bits)
    keys |= _splitmix64(seed, pixels) >> np.uint64(64 - hash_bits)
    keys <<= np.uint64(bits)
    keys |= pixels
    keys.sort()
    return (keys & np.uint64((1 << bits) - 1)).view(np.int64)


def _sizes(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of pixels of each distinct value, from (n,) sorted levels."""
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    return np.diff(last, prepend=-1)


def _orders_needed(sizes: NDArray[np.int64]) -> int:
    """Return the number of orders of a map, from those of the pixels of each distinct value."""
    if len(sizes) <= 1:
        return 1
    # In whole numbers, so that the quotient is rounded up alike on every machine.
    n = int(sizes.sum())
    tied, all_ = int((sizes * (sizes - 1)).sum()), n * (n - 1)
    return max(1, -(-MOST_ORDERS * tied // all_))


def _splitmix64(seed: int, place: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return outputs of the SplitMix64 generator started at ``seed`` (mod 2**64), 0 = its first."""
    state = place + np.uint64(1)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

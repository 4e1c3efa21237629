"""Readings: which dimensions of a layer's output are the places of the image, and which is not.

A convolution gives (N, C, h, w). Transformers hand on (N, h, w, C), or one row (N, T, D) for each
token, and their attention matrices have the form of a map without being one.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fxeval.errors import ExplainerContractError

Order = Literal["channels_first", "channels_last", "tokens"]

MOST_IN_FRONT = 8  # class, distillation and register tokens
_DECLARED = re.compile(r"(channels_first|channels_last|tokens)|tokens ([1-9]\d*) ?x ?([1-9]\d*)")
_LEAST_KEPT = 0.55  # share of an image's side that convolutions without padding leave
_SLACK = 1.25  # of the stride that sides imply: padding makes maps larger


@dataclass(frozen=True)
class Reading:
    """How one layer's output is read as a map.

    Attributes:
        order: ``channels_first`` for (N, C, h, w), ``channels_last`` for (N, h, w, C), ``tokens``
            for (N, T, D), whose last h * w tokens are the places, row by row.
        height: In places.
        width: In places.
        in_front: Tokens that are no place, such as a class token; they come first.
    """

    order: Order
    height: int
    width: int
    in_front: int = 0

    def places(self, output: Tensor) -> Tensor:
        """Return the output as (N, C, h, w)."""
        if self.order == "channels_first":
            return output
        if self.order == "channels_last":
            return output.permute(0, 3, 1, 2)
        rows = output[:, self.in_front :].transpose(1, 2)
        return rows.reshape(*rows.shape[:2], self.height, self.width)

    def written(self, places: Tensor, output: Tensor) -> Tensor:
        """Return the output with other (N, C, h, w) places; tokens in front stay."""
        if self.order == "channels_first":
            return places
        if self.order == "channels_last":
            return places.permute(0, 2, 3, 1)
        return torch.cat([output[:, : self.in_front], places.flatten(2).transpose(1, 2)], dim=1)

    def channels(self, shape: tuple[int, ...]) -> int:
        """Return the number of channels of an output of this shape."""
        return shape[1] if self.order == "channels_first" else shape[-1]

    def spoken(self) -> str:
        """Say the reading in the words of a suite, with the size.

        >>> Reading("tokens", 6, 6, 1).spoken()
        'tokens, 1 + 6 x 6'
        """
        front = f"{self.in_front} + " if self.in_front else ""
        return f"{self.order}, {front}{self.height} x {self.width}"


def fits(height: int, width: int, size: tuple[int, int]) -> bool:
    """Say whether a map can be one of a whole image, by its proportions.

    Strides divide both sides by the same number and round; convolutions without padding take the
    same number of pixels from both. So there is a stride s with H - s h = W - s w, up to s.

    >>> fits(7, 6, (112, 96)), fits(3, 2, (39, 31)), fits(8, 24, (64, 64))
    (True, True, False)

    Args:
        height: Of the map.
        width: Of the map.
        size: (H, W) of the image.
    """
    if size[0] < size[1]:
        return fits(width, height, (size[1], size[0]))
    longer, more = size[0] - size[1], height - width
    if longer == 0:
        return abs(more) <= 1
    if more < 0:
        return False
    most = max(size[0] / height, size[1] / width)
    least, largest = longer / (more + 1), longer / (more - 1) if more > 1 else math.inf
    return least <= most * _SLACK and largest >= most * _LEAST_KEPT


def token_readings(
    tokens: int, size: tuple[int, int], grids: Collection[tuple[int, int]] = ()
) -> tuple[Reading, ...]:
    """Return how a number of tokens can be read as places of an image; several if it is ambiguous.

    >>> [one.spoken() for one in token_readings(37, (48, 48))]
    ['tokens, 1 + 6 x 6']

    Args:
        tokens: T of (N, T, D), at most 8 of which are no places.
        size: (H, W) of the image.
        grids: (h, w) of maps that the network has elsewhere; one of them is preferred.
    """
    known = [
        Reading("tokens", *grid, tokens - math.prod(grid))
        for grid in grids
        if 0 <= tokens - math.prod(grid) <= MOST_IN_FRONT and min(grid) > 1
    ]
    if known:
        return (min(known, key=lambda one: one.in_front),)
    possible = [
        Reading("tokens", height, places // height, tokens - places)
        for places in range(tokens, max(3, tokens - MOST_IN_FRONT - 1), -1)
        for height in range(2, places // 2 + 1)
        if places % height == 0 and fits(height, places // height, size)
    ]

    def distortion(one: Reading) -> float:
        return abs(math.log(one.height * size[1] / (one.width * size[0])))

    least = min(map(distortion, possible), default=0.0)
    return tuple(one for one in possible if distortion(one) <= least + 1e-9)


def check_reading(reading: object, layer: object, explainer: str) -> None:
    """Refuse what is no reading, or one without a layer to read.

    >>> check_reading("tokens 6x6", "blocks.2.norm1", "gradcam")

    Raises:
        ExplainerContractError: Naming the explainer, the expected form and the value.
    """
    if reading is None:
        return
    if not isinstance(reading, str) or not _DECLARED.fullmatch(reading):
        raise ExplainerContractError(
            f"{explainer}: reading must be channels_first, channels_last, tokens, or tokens with "
            f"their grid, such as 'tokens 6x6', got {reading!r}."
        )
    if layer is None:
        raise ExplainerContractError(
            f"{explainer}: reading: {reading} says how a layer is read. Name the layer, too."
        )


def declared(
    reading: str, shape: tuple[int, ...], size: tuple[int, int], known: tuple[Reading, ...] = ()
) -> Reading | str:
    """Return a declared reading of an output, or why it cannot be read like this.

    Args:
        reading: Without faults (:func:`check_reading`).
        shape: Of the output.
        size: (H, W) of the image.
        known: Readings of tokens that are possible here; () = by their number alone.
    """
    found = _DECLARED.fullmatch(reading)
    assert found is not None
    order = found[1] or "tokens"
    image = f"an image of {size[0]} x {size[1]}"
    form = {"channels_first": "(N, C, h, w)", "channels_last": "(N, h, w, C)"}
    if order != "tokens":
        if len(shape) != 4:
            return f"gives {of(shape)}, and {order} reads {form[order]}"
        first = order == "channels_first"
        height, width = (shape[2], shape[3]) if first else (shape[1], shape[2])
        if not fits(height, width, size):
            return (
                f"gives {of(shape)}; read {order}, its map is {height} x {width}, which has not "
                f"the proportions of {image}"
            )
        return Reading("channels_first" if first else "channels_last", height, width)
    if len(shape) != 3:
        return f"gives {of(shape)}, and tokens reads (N, T, D)"
    if found[2]:
        height, width = int(found[2]), int(found[3])
        in_front = shape[1] - height * width
        if in_front < 0 or not fits(height, width, size):
            return f"gives {shape[1]} tokens, which cannot be {height} x {width} places of {image}"
        return Reading("tokens", height, width, in_front)
    options = known or token_readings(shape[1], size)
    if len(options) != 1:
        either = " or ".join(one.spoken().removeprefix("tokens, ") for one in options) or "none"
        return (
            f"gives {shape[1]} tokens, whose grid over {image} is not clear (possible: {either}). "
            "Say the grid, such as 'reading: tokens 6x6'"
        )
    return options[0]


def of(shape: tuple[int, ...]) -> str:
    """Write the shape of one image's output.

    >>> of((1, 4, 37, 37))
    '4 x 37 x 37'
    """
    return " x ".join(map(str, shape[1:])) or "one number"

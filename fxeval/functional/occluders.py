"""Objects in front of a face: where they lie, by five landmarks, and what colour they are.

All lengths are in units of the distance of the eyes, along the line through the eyes and at a right
angle to it, or are combinations of landmarks. So an object moves, turns and grows with the face.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

OccluderName = Literal["sunglasses", "mask", "striped_mask"]

LENS = (0.40, 0.27)
"""Half the width and half the height of a lens."""

LENS_DROP = 0.06
"""How far the middle of a lens lies below the eye."""

ROUNDNESS = 4.0
"""Exponent of a lens, |x / a|^4 + |y / b|^4 <= 1: between an ellipse (2) and a rectangle."""

BRIDGE = 0.10
"""Height of the bridge between the lenses."""

STRIPE = 0.12
"""Width of a stripe."""

VERSION = 1
"""Of the shapes and colours; a change of any must raise it, as images are named by it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The places of all pixels as seen from each face.

    Attributes:
        across: (N, H, W), along the eyes from the middle between them, in distances of the eyes.
        down: (N, H, W), at a right angle to that, towards the chin.
        points: (N, 5, 2), the landmarks in the same units.
    """

    across: Tensor
    down: Tensor
    points: Tensor


@dataclass(frozen=True)
class Occluder:
    """An object.

    Attributes:
        covers: From N frames to (N, H, W) bool.
        colours: RGB, 0 to 255, of each stripe in turn; one colour = plain.
    """

    covers: Callable[[Frame], Tensor]
    colours: tuple[tuple[int, int, int], ...]


def frames(landmarks: Tensor, size: tuple[int, int]) -> Frame:
    """Return where all pixels lie as seen from each face.

    Args:
        landmarks: (N, 5, 2) float64: eyes at the image's left and right, nose tip, mouth corners at
            the image's left and right; x and y in pixels, (0, 0) in the middle of the first pixel.
        size: (H, W).

    Returns:
        The frames; NaN, which no object covers, where both eyes are one point.
    """
    eyes = landmarks[:, :2]
    origin, along = eyes.mean(dim=1), eyes[:, 1] - eyes[:, 0]
    # x, y -> across, down: turned, and divided by the distance.
    turned = torch.stack([along, torch.stack([-along[:, 1], along[:, 0]], dim=1)], dim=1)
    turned = turned / (along**2).sum(dim=1)[:, None, None]
    points = torch.einsum("nij,npj->npi", turned, landmarks - origin[:, None])
    y, x = (torch.arange(length, dtype=torch.float64) for length in size)
    dx = x[None, None, :] - origin[:, 0, None, None]
    dy = y[None, :, None] - origin[:, 1, None, None]
    (a, b), (c, d) = turned.permute(1, 2, 0)[..., None, None].unbind(0)
    return Frame(a * dx + b * dy, c * dx + d * dy, points)


def sunglasses(of: Frame) -> Tensor:
    """Return two rounded lenses and the bridge between them, (N, H, W) bool.

    >>> face = torch.tensor([[[30.0, 30], [70, 30], [50, 55], [35, 75], [65, 75]]]).double()
    >>> sunglasses(frames(face, (100, 100)))[0, 32, [5, 30, 50, 70, 95]].tolist()
    [False, True, True, True, False]
    """
    width, height = LENS
    down = of.down - LENS_DROP
    away = (of.across.abs() - 0.5) / width  # from the middle of the nearer lens
    lenses = away.abs() ** ROUNDNESS + (down / height).abs() ** ROUNDNESS <= 1
    return lenses | ((of.across.abs() <= 0.5) & (down.abs() <= BRIDGE / 2))


def mask(of: Frame) -> Tensor:
    """Return a surgical mask, (N, H, W) bool: from nose and cheeks to below the chin.

    >>> face = torch.tensor([[[30.0, 30], [70, 30], [50, 55], [35, 75], [65, 75]]]).double()
    >>> mask(frames(face, (100, 100)))[0, [30, 50, 60, 80, 99], 50].tolist()
    [False, True, True, True, True]
    """
    corners = mask_corners(of.points)
    after = corners.roll(-1, dims=1)
    inside = torch.ones_like(of.across, dtype=torch.bool)
    for place in range(corners.shape[1]):  # convex: inside of every edge
        (x, y), (x2, y2) = (
            some[:, place].T[..., None, None].unbind(0) for some in (corners, after)
        )
        inside &= (x2 - x) * (of.down - y) - (y2 - y) * (of.across - x) >= 0
    return inside


def mask_corners(points: Tensor) -> Tensor:
    """Return the corners of a mask in the units of a frame, clockwise, (N, 7, 2).

    Args:
        points: (N, 5, 2) landmarks in the same units.
    """
    nose, mouth = points[:, 2], points[:, 3:].mean(dim=1)
    sides = [share * mouth + mouth.new_tensor([x, y]) for share, x, y in _SIDES]
    return torch.stack([BRIDGE_OF_NOSE * nose, *sides], dim=1)


BRIDGE_OF_NOSE = 0.45
"""Where a mask begins, as a share of the way from the middle between the eyes to the nose tip."""

# Share of the way from the middle between the eyes to that of the mouth, and what is added.
_SIDES = (
    (0.50, 1.05, -0.05), (1.05, 0.92, 0.0), (1.60, 0.45, 0.0),
    (1.60, -0.45, 0.0), (1.05, -0.92, 0.0), (0.50, -1.05, -0.05),
)  # fmt: skip

OCCLUDERS: Mapping[OccluderName, Occluder] = MappingProxyType(
    {
        "sunglasses": Occluder(sunglasses, ((20, 20, 22),)),
        "mask": Occluder(mask, ((188, 206, 216),)),
        "striped_mask": Occluder(mask, ((236, 236, 232), (40, 62, 108))),
    }
)


def drawn(name: OccluderName, landmarks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Draw an object in front of each face.

    Args:
        name: One of ``OCCLUDERS``.
        landmarks: (N, 5, 2), as in :func:`frames`.
        size: (H, W).

    Returns:
        (N, 3, H, W) uint8, its colours, and (N, H, W) bool, where it is.
    """
    occluder, of = OCCLUDERS[name], frames(landmarks, size)
    covered = occluder.covers(of)
    stripe = torch.nan_to_num(of.down / STRIPE).floor().long() % len(occluder.colours)
    colours = torch.tensor(occluder.colours, dtype=torch.uint8)
    return colours[stripe].permute(0, 3, 1, 2).contiguous(), covered

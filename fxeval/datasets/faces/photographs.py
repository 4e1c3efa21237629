"""Faces cut out of photographs, which may be too large to be decoded as a whole.

Landmarks are in pixels of the photograph at its full size, turned upright.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import align, similarity_transform
from fxeval.datasets.faces.image_headers import Header
from fxeval.datasets.faces.images import (
    MAX_DECODED_WHOLE,
    MAX_PIXELS,
    REDUCED,
    checked_header,
    decode_image,
)


def overview(data: bytes, where: str) -> tuple[NDArray[np.uint8], int]:
    """Decode a photograph as a whole, at the finest scale within ``MAX_PIXELS``.

    Args:
        data: The file's bytes.
        where: The file's path, for messages.

    Returns:
        (H, W, 3) uint8 RGB, and the pixels of the photograph for one of its pixels.

    Raises:
        DataContractError: As for :func:`fxeval.datasets.faces.images.decode_image`.
    """
    scale = _finest(checked_header(data, where), MAX_PIXELS)
    return decode_image(data, where, scale=scale), scale


def cut_face(
    data: bytes, where: str, landmarks: ArrayLike, crop: Crop, *, upright: bool = True
) -> NDArray[np.uint8]:
    """Cut a face out of a photograph.

    Up to ``MAX_PIXELS`` the photograph is decoded at its full size. A larger one is decoded at the
    coarsest scale that still gives every pixel of the crop a pixel of its own, or at the finest one
    within ``MAX_DECODED_WHOLE``.

    Args:
        data: The file's bytes.
        where: The file's path, for messages.
        landmarks: (5, 2) positions in pixels of the photograph.
        crop: Size and template.
        upright: Whether the landmarks are of the photograph turned upright, or as it is stored.

    Returns:
        (H, W, 3) uint8 RGB of the crop's size.

    Raises:
        DataContractError: As for :func:`fxeval.datasets.faces.images.decode_image`.
    """
    header = checked_header(data, where)
    scale = 1
    if header.height * header.width > MAX_PIXELS:
        fine_enough = [one for one in REDUCED if one * enlargement(landmarks, crop) <= 1]
        scale = max(_finest(header, MAX_DECODED_WHOLE), *fine_enough, 1)
    most = MAX_DECODED_WHOLE
    pixels = decode_image(data, where, scale=scale, upright=upright, most=most)
    return align(pixels, to_scale(landmarks, scale) if scale > 1 else landmarks, crop)


def enlargement(landmarks: ArrayLike, crop: Crop) -> float:
    """Return the pixels of the crop for one pixel of the photograph, along each side.

    >>> from fxeval.datasets.faces.alignment import ARCFACE_112
    >>> enlargement([(x / 2, y / 2) for x, y in ARCFACE_112.template], ARCFACE_112)
    2.0
    """
    matrix = similarity_transform(landmarks, crop.template)
    return round(float(np.hypot(*matrix[:, 0])), 6)


def to_scale(points: ArrayLike, scale: float) -> NDArray[np.float64]:
    """Return points of an image at another scale; pixels are squares, so that corners stay corners.

    >>> to_scale([(0.5, 1.5)], 2), to_scale([(0.0, 0.5)], 0.5)
    (array([[0. , 0.5]]), array([[0.5, 1.5]]))
    """
    return (np.asarray(points, np.float64) + 0.5) / scale - 0.5


def _finest(header: Header, most: int) -> int:
    """Return the finest scale at which a photograph has at most so many pixels."""
    pixels = header.height * header.width
    return next((one for one in REDUCED if pixels <= one**2 * most), max(REDUCED))

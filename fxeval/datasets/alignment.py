"""Face crops: an image file read safely, and a face moved to where a model expects it.

Landmarks are five (x, y) points in pixels: eye at the image's left, eye at the image's right, nose
tip, mouth corner at the image's left, mouth corner at the image's right.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.contracts import Crop
from fxeval.errors import DataContractError

MAX_PIXELS = 16_000_000
"""Largest image read; a PNG of some kilobytes can otherwise ask for gigabytes."""

ARCFACE_112 = Crop(
    "arcface112",
    (112, 112),
    (
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ),
)
"""The crop of ArcFace and most networks since (insightface, ``face_align.py``)."""

DLIB_150 = Crop(
    "dlib150",
    (150, 150),
    ((44.08, 43.99), (101.34, 45.34), (71.99, 75.01), (47.25, 100.67), (94.97, 101.71)),
)
"""The 150-pixel chip of dlib (padding 0.25): median place of the five landmarks in such chips."""


def similarity_transform(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation, scale and shift that best move source points onto target points.

    Least squares, never a reflection (Umeyama, PAMI 1991, for two dimensions). With points as
    complex numbers the transform is w = a·z + b, and both are closed forms.

    Args:
        source: (P, 2) points (x, y), P >= 2, not all equal.
        target: (P, 2) points (x, y).

    Returns:
        (2, 3) matrix M with ``target ~ M[:, :2] @ source + M[:, 2]``.

    Raises:
        DataContractError: If the points are not finite (P, 2) or all source points coincide.

    >>> similarity_transform([(0, 0), (1, 0)], [(5, 5), (5, 7)])
    array([[ 0., -2.,  5.],
           [ 2.,  0.,  5.]])
    """
    points, targets = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if points.ndim != 2 or points.shape != targets.shape or points.shape[1] != 2:
        raise DataContractError(
            f"landmarks: two (P, 2) sets of points expected, got {points.shape} and "
            f"{targets.shape}. Give the five (x, y) points of each face."
        )
    if not (np.isfinite(points).all() and np.isfinite(targets).all()):
        raise DataContractError("landmarks: finite pixel positions expected, got NaN or infinity.")
    z, w = points @ (1, 1j), targets @ (1, 1j)
    z_centre, w_centre = z.mean(), w.mean()
    spread = float((np.abs(z - z_centre) ** 2).sum())
    if spread < 1e-12:
        raise DataContractError(
            f"landmarks: {len(points)} distinct points expected, got one point "
            f"({points[0, 0]:g}, {points[0, 1]:g}) {len(points)} times. Detect the face again."
        )
    a = (np.conj(z - z_centre) * (w - w_centre)).sum() / spread
    b = w_centre - a * z_centre
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(image: NDArray[np.uint8], landmarks: ArrayLike, crop: Crop) -> NDArray[np.uint8]:
    """Cut a face out so that its landmarks lie on the crop's template.

    Bilinear, black where the image does not reach. An image that is already aligned (its size is
    the crop's and its landmarks are the template) comes back untouched.

    Args:
        image: (h, w, 3) uint8 RGB.
        landmarks: (5, 2) pixels of the image.
        crop: Size and template.

    Returns:
        (H, W, 3) uint8 RGB of the crop's size.
    """
    height, width = crop.size
    if image.shape[:2] == crop.size and np.array_equal(landmarks, crop.template):
        return image
    matrix = similarity_transform(landmarks, crop.template)
    face = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(face, np.uint8)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a JPEG or PNG file as it is stored (an orientation tag is not applied).

    Returns:
        (H, W, 3) uint8 RGB; grey images get three equal channels.

    Raises:
        DataContractError: If the file is missing, no JPEG or PNG, truncated, damaged, or larger
            than ``MAX_PIXELS`` (known from its header, before anything is decoded).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataContractError(f"{path}: cannot be read ({error.strerror}).") from error
    size = _size_in_header(data)
    if size is None:
        raise DataContractError(f"{path}: a whole JPEG or PNG expected, got neither. Replace it.")
    if size[0] * size[1] > MAX_PIXELS:
        raise DataContractError(
            f"{path}: at most {MAX_PIXELS} pixels expected, its header says {size[0]} x {size[1]}. "
            "Scale it down."
        )
    # Decoders fill what is missing of a truncated picture with grey, so the end is asked for.
    end = b"IEND" if data.startswith(_PNG) else b"\xff\xd9"
    if end not in data[-1024:]:
        raise DataContractError(
            f"{path}: is truncated (no end marker in its last kilobyte). Replace it."
        )
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != size:
        raise DataContractError(f"{path}: cannot be decoded. Replace it.")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"


def _size_in_header(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of a JPEG or PNG, or None if the bytes are neither."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        return height, width
    at = len(_JPEG) if data.startswith(_JPEG) else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (at + 5, at + 7))
            return height, width
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None

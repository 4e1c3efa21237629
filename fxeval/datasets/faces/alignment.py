"""Face crops: reads image files safely and moves a face to where a model expects it.

Landmarks are five (x, y) points in pixels: eye at the image's left, eye at the image's right, nose
tip, mouth corner at the image's left, mouth corner at the image's right.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.contracts import Crop
from fxeval.datasets.faults import of_all, of_image
from fxeval.errors import DataContractError
from fxeval.strict.text import brief, hint

MAX_PIXELS = 16_000_000
"""Largest image read; without a limit a PNG of a few kilobytes can ask for gigabytes."""

MAX_BYTES = 64 << 20
"""Largest image file read."""

MAX_SCANS = 64
"""Most scans of a JPEG; without a limit a file of a few megabytes can take hours to decode."""


class ImageTooLargeError(DataContractError):
    """An image file has too many bytes, pixels or scans; nothing of it was decoded."""


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
"""The 150-pixel chip of dlib (padding 0.25), with the median landmarks of such chips."""


def arcface_crop(size: int) -> Crop:
    """Return the square ArcFace crop of the given size (insightface, ``face_align.py``).

    Multiples of 112 show the same part of the face as the 112 crop; multiples of 128 show 8/112
    more on the left, 8/112 more on the right and 16/112 more below.

    Raises:
        DataContractError: If the size is a multiple of neither.

    >>> arcface_crop(128).template[0]
    (46.2946, 51.6963)
    """
    if size < 112 or (size % 112 and size % 128):
        raise of_all(f"ArcFace crop: expected a size that is a multiple of 112 or 128, got {size}")
    unit, shift = (112, 0) if size % 112 == 0 else (128, 8)
    template = tuple(((x + shift) * size / unit, y * size / unit) for x, y in ARCFACE_112.template)
    return Crop(f"arcface{size}", (size, size), template)


def _scaled(crop: Crop, name: str, size: int) -> Crop:
    """Return a square crop scaled as images are, about the corner and not the first pixel."""
    ratio = size / crop.size[0]
    moved = tuple(((x + 0.5) * ratio - 0.5, (y + 0.5) * ratio - 0.5) for x, y in crop.template)
    return Crop(name, (size, size), moved)


ARCFACE_112X96 = Crop(
    "arcface112x96", (112, 96), tuple((x - 8, y) for x, y in ARCFACE_112.template)
)
"""The narrow crop of SphereFace and of older MobileFaceNets."""

FACENET_160 = _scaled(ARCFACE_112, "facenet160", 160)
"""The 112 crop at the size of FaceNet, whose own crops follow no landmarks."""

OPENVINO_128 = Crop(
    "openvino128",
    (128, 128),
    (
        (40.3928, 59.0815),
        (87.3757, 59.0815),
        (64.0336, 81.9847),
        (44.7324, 105.5606),
        (83.6399, 105.5606),
    ),
)
"""The crop of ``face-reidentification-retail-0095`` (documentation in Open Model Zoo)."""

HSE_224 = Crop(
    "hse224",
    (224, 224),
    (
        (83.6714, 105.1141),
        (140.0509, 104.8022),
        (112.0403, 137.1786),
        (88.8789, 170.1848),
        (135.5678, 169.9266),
    ),
)
"""The ArcFace crop zoomed out by 0.8, for networks of VGGFace2 that see more than a face."""

CROPS: Mapping[str, Crop] = MappingProxyType(
    {
        crop.name: crop
        for crop in (ARCFACE_112, ARCFACE_112X96, FACENET_160, DLIB_150, OPENVINO_128, HSE_224)
    }
)
"""All named crops."""


def crop_named(name: str, parameter: str) -> Crop:
    """Return a named crop.

    Args:
        name: Name of the crop.
        parameter: Parameter that holds the name, for the message.

    Raises:
        DataContractError: If there is no such crop.
    """
    if name not in CROPS:
        raise of_all(f"'{parameter}': unknown crop", f" '{brief(name)}'", then=hint(name, CROPS))
    return CROPS[name]


def similarity_transform(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation, scale and shift that best move source points onto target points.

    The fit is least squares and never a reflection (Umeyama, TPAMI 1991, in two dimensions). With
    points as complex numbers the transform is w = a·z + b, and a and b have closed forms.

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
        raise of_all(
            f"landmarks: expected two arrays (P, 2) of points, got {points.shape} and "
            f"{targets.shape}",
            then="Give the five (x, y) points of each face.",
        )
    if not (np.isfinite(points).all() and np.isfinite(targets).all()):
        raise of_all("landmarks: expected finite pixel positions, got NaN or infinity")
    z, w = points @ (1, 1j), targets @ (1, 1j)
    z_centre, w_centre = z.mean(), w.mean()
    spread = float((np.abs(z - z_centre) ** 2).sum())
    if spread < 1e-12:
        raise of_all(
            f"landmarks: expected {len(points)} distinct points, got one {len(points)} times",
            f": ({points[0, 0]:g}, {points[0, 1]:g})",
            "Detect the face again.",
        )
    a = (np.conj(z - z_centre) * (w - w_centre)).sum() / spread
    b = w_centre - a * z_centre
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(image: NDArray[np.uint8], landmarks: ArrayLike, crop: Crop) -> NDArray[np.uint8]:
    """Cut a face out so that its landmarks lie on the crop's template.

    Interpolation is bilinear; the crop is black where the image does not reach. An image that is
    already aligned (its size is the crop's and its landmarks are the template) is returned as is.

    Args:
        image: (h, w, 3) uint8 RGB.
        landmarks: (5, 2) positions in pixels of the image.
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
    """Read a JPEG or PNG file; see :func:`image_bytes` and :func:`decode_image`."""
    return decode_image(image_bytes(path), str(path))


def image_bytes(path: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        DataContractError: If it is missing, not a regular file, or larger than ``MAX_BYTES``.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise of_image(path, "expected an image file, got a folder or a special file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise of_image(path, f"cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        said = f"expected at most {MAX_BYTES} bytes, got more"
        raise of_image(path, said, "Save it smaller.", ImageTooLargeError)
    return data


def decode_image(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG as it is stored (an orientation tag is not applied).

    Args:
        data: The file's bytes.
        where: The file's path, for messages.

    Returns:
        (H, W, 3) uint8 RGB; grey images get three equal channels.

    Raises:
        DataContractError: If it is not a JPEG or PNG, is truncated or damaged, or has more than
            ``MAX_PIXELS`` (known from its header, before anything is decoded).
    """
    size = _size_in_header(data)
    if size is None:
        raise of_image(where, "expected a whole JPEG or PNG, got neither", "Replace it.")
    if size[0] * size[1] > MAX_PIXELS:
        said = f"expected at most {MAX_PIXELS} pixels, got {size[0]} x {size[1]} in its header"
        raise of_image(where, said, "Scale it down.", ImageTooLargeError)
    is_png = data.startswith(_PNG)
    # Decoders fill the missing part of a truncated image with grey and report no error, so the
    # end marker must be there.
    if (b"IEND" if is_png else b"\xff\xd9") not in data[-1024:]:
        raise of_image(where, "is truncated (no end marker in its last kilobyte)", "Replace it.")
    if not is_png and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        said = f"expected at most {MAX_SCANS} scans, got {scans}"
        raise of_image(where, said, "Save it again.", ImageTooLargeError)
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != size:
        raise of_image(where, "cannot be decoded", "Replace it.")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"


def _size_in_header(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of a JPEG or PNG, or None if the bytes are neither."""
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        return height, width
    # A JPEG is a chain of segments, each a marker and a length; the frame segment holds the size.
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

"""Face crops: moves a face to where a model expects it.

Landmarks are five (x, y) points in pixels: eye at the image's left, eye at the image's right, nose
tip, mouth corner at the image's left, mouth corner at the image's right.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.contracts import Crop
from fxeval.datasets.faults import of_all
from fxeval.strict.text import brief, either, printable, suggestion

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


Points: TypeAlias = tuple[tuple[float, float], ...]

CropName: TypeAlias = str | dict[str, Any]
"""How a crop is named: one of ``CROPS``, ``arcface`` and a size, or its name, size and template."""

MAX_SIDE = 4096
"""Longest side of a crop."""

CROP_FORMS = (
    f"{', '.join(CROPS)}, 'arcface' and a size that is a multiple of 112 or 128, or a mapping of "
    "'name', 'size' (height, width) and 'template' (five points x, y in pixels)"
)
"""All ways to name a crop, for messages."""

_ROUNDED = 0.1  # pixels by which a template may differ from the known one of its name


def crop_from(value: object, parameter: str) -> Crop:
    """Return the crop that a parameter, a card or a manifest names.

    Args:
        value: A name, a mapping with ``name``, ``size`` and ``template``, or a crop.
        parameter: What holds the value, for messages.

    Raises:
        DataContractError: If there is no such crop, or the mapping is malformed, or it gives a
            known name to another crop.

    >>> crop_from("arcface224", "crop").size
    (224, 224)
    """
    if isinstance(value, Crop):
        return value
    if isinstance(value, str):
        known = _known(value)
        if known is None:
            near = suggestion(value, CROPS).capitalize()
            raise of_all(
                f"'{parameter}': unknown crop",
                f" '{printable(brief(value))}'",
                near or f"Expected {CROP_FORMS}.",
            )
        return known
    crop = _described(value)
    if crop is None:
        raise of_all(f"'{parameter}': expected {CROP_FORMS}", f", got {brief(repr(value))}")
    known = _known(crop.name)
    if known is None:
        return crop
    if (
        known.size == crop.size
        and np.abs(np.subtract(known.template, crop.template)).max() < _ROUNDED
    ):
        return known
    raise of_all(
        f"'{parameter}': the crop {known.name} has another size or template",
        then="Give yours another name.",
    )


def crops_of(size: tuple[int, int]) -> str:
    """Return the names of known crops of a size (height, width), for messages; "" if none.

    >>> crops_of((224, 224))
    'hse224 or arcface224'
    """
    names = [name for name, crop in CROPS.items() if crop.size == tuple(size)]
    if size[0] == size[1] and (known := _known(f"arcface{size[0]}")) and known.name not in names:
        names.append(known.name)
    return either(names) if names else ""


def size_fault(crop: Crop, height: int, width: int) -> tuple[str, str]:
    """Return what is wrong with an aligned image of another size than its crop's, and advice."""
    (high, wide), known = crop.size, crops_of((height, width))
    said = f"expected {wide} x {high} pixels (crop {crop.name}), got {width} x {height}"
    named = f"Name the crop that the images have ({known}), or align" if known else "Align"
    return said, f"{named} the images again."


def points_of(value: Any) -> Points:  # noqa: ANN401  (as YAML or JSON gave it)
    """Return five points.

    Raises:
        TypeError, ValueError, OverflowError: If the value is not five pairs of finite numbers.
    """
    points = tuple((float(x), float(y)) for x, y in value)
    if len(points) != 5 or not np.isfinite(points).all():
        raise ValueError("five finite points")
    return points


def _known(name: str) -> Crop | None:
    sized = re.fullmatch(r"arcface([1-9][0-9]{2,3})", name)
    size = int(sized[1]) if sized else 0
    if 0 < size <= MAX_SIDE and not (size % 112 and size % 128):
        return CROPS.get(name) or arcface_crop(size)
    return CROPS.get(name)


def _described(value: object) -> Crop | None:
    """Return the crop that a mapping describes; None if it describes none."""
    if not isinstance(value, Mapping) or set(value) != {"name", "size", "template"}:
        return None
    try:
        height, width = value["size"]
        crop = Crop(value["name"], (height, width), points_of(value["template"]))
        sound = type(height) is type(width) is int and 0 < min(crop.size) <= max(crop.size)
        # A template in fractions of the side, or of one point, would cut out a single pixel.
        spread = np.ptp(np.array(crop.template), axis=0).max()
    except (TypeError, ValueError, OverflowError):
        return None
    is_name = isinstance(crop.name, str) and crop.name.isprintable() and 0 < len(crop.name) <= 255
    return crop if sound and is_name and max(crop.size) <= MAX_SIDE and spread > 2 else None


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


def moved(points: ArrayLike, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (P, 2) points as a (2, 3) matrix moves them.

    >>> moved([(1, 2)], np.array([[2.0, 0, 5], [0, 2, 5]]))
    array([[7., 9.]])
    """
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def landmarks_in(crop: Crop, landmarks: ArrayLike) -> NDArray[np.float64]:
    """Return where the (5, 2) landmarks of an image lie after :func:`align`, in pixels of the crop.

    They lie near the crop's template, and on it where the face has its proportions.
    """
    if np.array_equal(landmarks, crop.template):
        return np.asarray(crop.template)
    return moved(landmarks, similarity_transform(landmarks, crop.template))


def align(
    image: NDArray[np.uint8],
    landmarks: ArrayLike,
    crop: Crop,
    interpolation: int = cv2.INTER_LINEAR,
) -> NDArray[np.uint8]:
    """Cut a face out so that its landmarks lie on the crop's template.

    The crop is black where the image does not reach. An image that is already aligned (its size is
    the crop's and its landmarks are the template) is returned as is.

    Args:
        image: (h, w, 3) uint8 RGB, or (h, w) uint8 labels.
        landmarks: (5, 2) positions in pixels of the image.
        crop: Size and template.
        interpolation: A constant of OpenCV: bilinear for pictures, nearest for labels.

    Returns:
        (H, W, 3) or (H, W) uint8 of the crop's size.
    """
    height, width = crop.size
    if image.shape[:2] == crop.size and np.array_equal(landmarks, crop.template):
        return image
    matrix = similarity_transform(landmarks, crop.template)
    face = cv2.warpAffine(
        image, matrix, (width, height), flags=interpolation, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(face, np.uint8)

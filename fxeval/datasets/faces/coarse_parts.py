"""Six rough parts of the face, drawn around five landmarks.

All lengths are in eye distances. With u from the eye at the image's left to the other one and v at
right angles to it, towards the mouth:

* an eye is an ellipse around its landmark, 0.25 along u and 0.10 along v;
* a brow is an ellipse around the point 0.27 above its eye, 0.38 along u and 0.13 along v;
* the nose is the polygon from 0.10 left and right of the middle between the eyes to 0.33 left and
  right of the tip and 0.25 left and right of the point 0.15 below it;
* the mouth, with its lips, is an ellipse around the point 0.08 below the middle of its corners, as
  long as their distance and 0.04 more, 0.18 along v to either side.

The figures are rounded medians over 150 real faces, measured with the dense network
(``face_mesh.py``). A face that is turned away has a short eye distance: its parts come out too
small.
"""

import numpy as np
from numpy.typing import NDArray

from fxeval.datasets.faces.face_mesh import inside

NAMES = ("left_eye", "right_eye", "left_brow", "right_brow", "nose", "mouth_region")
"""Names of the labels; left is the head's own, at the image's right."""

EYE, BROW = (0.25, 0.10), (0.38, 0.13)
BROW_ABOVE = 0.27
ROOT, WINGS, BASE = 0.10, 0.33, 0.25
BELOW_TIP, BELOW_CORNERS = 0.15, 0.08
MOUTH_LONGER, MOUTH_HIGH = 0.02, 0.18


def labels_of(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return which part each pixel shows, -1 for none of the six.

    Args:
        points: (5, 2) landmarks in pixels of the crop: eye at the image's left, eye at its right,
            nose tip, mouth corner at its left, at its right. The eyes differ.
        size: (H, W) of the crop.

    Returns:
        (H, W) labels, indices into ``NAMES``; a pixel belongs to a part if its centre does.
    """
    at_left, at_right, tip, corner, other = points
    along = at_right - at_left
    down = np.array([-along[1], along[0]])
    between, lips = (at_left + at_right) / 2, (corner + other) / 2
    nose = [between - ROOT * along, between + ROOT * along]
    nose += [tip + WINGS * along, tip + BELOW_TIP * down + BASE * along]
    nose += [tip + BELOW_TIP * down - BASE * along, tip - WINGS * along]
    mouth = (other - corner) / 2 + MOUTH_LONGER * along
    shapes = {
        "nose": inside(np.array(nose), size),
        "mouth_region": _ellipse(lips + BELOW_CORNERS * down, mouth, MOUTH_HIGH * down, size),
    }
    for side, eye in (("right", at_left), ("left", at_right)):
        brow = eye - BROW_ABOVE * down
        shapes[f"{side}_brow"] = _ellipse(brow, BROW[0] * along, BROW[1] * down, size)
        shapes[f"{side}_eye"] = _ellipse(eye, EYE[0] * along, EYE[1] * down, size)
    labels = np.full(size, -1)
    for name, is_inside in shapes.items():
        labels[is_inside] = NAMES.index(name)
    return labels


def _ellipse(
    centre: NDArray[np.float64], along: NDArray[np.float64], across: NDArray[np.float64],
    size: tuple[int, int],
) -> NDArray[np.bool_]:  # fmt: skip
    """Return the pixels inside the ellipse that two half axes span; none if they span no area."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    x, y = x - centre[0], y - centre[1]
    area = along[0] * across[1] - along[1] * across[0]
    if abs(area) < 1e-9:
        return np.zeros(size, bool)
    first, second = (x * across[1] - y * across[0]), (y * along[0] - x * along[1])
    return np.asarray(first**2 + second**2 <= area**2)

"""Objects lie where the face is: areas, loops over pixels, and faces that move, turn and grow."""

import math

import numpy as np
import pytest
import torch

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import ARCFACE_112, CROPS
from fxeval.functional.occluders import (
    BRIDGE,
    BRIDGE_OF_NOSE,
    LENS,
    LENS_DROP,
    OCCLUDERS,
    ROUNDNESS,
    drawn,
)
from fxeval.tests.subjects import CROP

each = pytest.mark.parametrize("name", OCCLUDERS)


def face(crop: Crop = ARCFACE_112) -> torch.Tensor:
    return torch.tensor(crop.template, dtype=torch.float64)[None]


def where(name, landmarks, size=(112, 112)):
    return drawn(name, landmarks, size)[1]


def turned_back(x, y, face):
    """A pixel as seen from a face: along the eyes and down, in distances of the eyes."""
    (ax, ay), (bx, by) = face[:2]
    ux, uy = bx - ax, by - ay
    square = ux * ux + uy * uy
    dx, dy = x - (ax + bx) / 2, y - (ay + by) / 2
    return (dx * ux + dy * uy) / square, (dy * ux - dx * uy) / square


def is_on_sunglasses(x, y, face):
    across, down = turned_back(x, y, face)
    down -= LENS_DROP
    on_bridge = -0.5 <= across <= 0.5 and -BRIDGE / 2 <= down <= BRIDGE / 2
    lenses = [(abs((across - middle) / LENS[0]), abs(down / LENS[1])) for middle in (-0.5, 0.5)]
    return on_bridge or any(a**ROUNDNESS + b**ROUNDNESS <= 1 for a, b in lenses)


def mask_outline(face):
    """The corners of a mask in pixels, by hand."""
    (ax, ay), (bx, by), nose, left, right = face
    u, o = (bx - ax, by - ay), ((ax + bx) / 2, (ay + by) / 2)
    v = (-u[1], u[0])
    m = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
    corners = [tuple(o[i] + BRIDGE_OF_NOSE * (nose[i] - o[i]) for i in (0, 1))]
    right_side = [(0.5, 1.05, -0.05), (1.05, 0.92, 0.0), (1.6, 0.45, 0.0)]
    left_side = [(share, -x, y) for share, x, y in reversed(right_side)]
    for share, x, y in right_side + left_side:
        corners.append(tuple(o[i] + share * (m[i] - o[i]) + x * u[i] + y * v[i] for i in (0, 1)))
    return corners


def is_on_mask(x, y, face):
    """By the number of edges that a ray to the right crosses."""
    corners, is_inside = mask_outline(face), False
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            is_inside = not is_inside
    return is_inside


@pytest.mark.parametrize(
    ("name", "is_on"), [("sunglasses", is_on_sunglasses), ("mask", is_on_mask)]
)
def test_loops_over_the_pixels_agree(name, is_on):
    crooked = face() + torch.tensor([[3.0, 4], [1, -6], [5, 0], [0, 3], [2, -5]]).double()
    for landmarks in (face(), crooked):
        found = where(name, landmarks)[0].numpy()
        one = landmarks[0].tolist()
        expected = [[is_on(x, y, one) for x in range(112)] for y in range(112)]
        np.testing.assert_array_equal(found, expected)


def shoelace(corners):
    turned = corners[1:] + corners[:1]
    both = zip(corners, turned, strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in both)) / 2


def test_their_areas_are_those_of_the_proportions():
    large = face() * 8 + 200
    square = float((large[0, 1] - large[0, 0]).square().sum())
    lens = 4 * math.prod(LENS) * math.gamma(1 + 1 / ROUNDNESS) ** 2 / math.gamma(1 + 2 / ROUNDNESS)
    assert lens == pytest.approx(0.4005, abs=1e-4)
    bridge = (1 - 2 * LENS[0]) * BRIDGE
    found = where("sunglasses", large, (1400, 1400)).sum() / square
    assert float(found) == pytest.approx(2 * lens + bridge, rel=2e-3)
    outline = shoelace(mask_outline(large[0].tolist())) / square
    assert outline == pytest.approx(2.5, abs=0.1)
    found = where("mask", large, (1400, 1400)).sum() / square
    assert float(found) == pytest.approx(outline, rel=2e-3)


@each
def test_an_object_moves_with_the_face(name):
    moved = where(name, face() + torch.tensor([-7.0, -11.0]).double())
    assert torch.equal(moved[:, :-11, :-7], where(name, face())[:, 11:, 7:])


@each
def test_an_object_turns_with_the_face(name):
    x, y = face().unbind(-1)
    turned = torch.stack([111 - y, x], dim=-1)  # a quarter to the right
    assert torch.equal(where(name, turned)[0], where(name, face())[0].rot90(-1))


@each
def test_an_object_grows_with_the_face(name):
    grown = where(name, face() * 3 + 1, (336, 336))
    assert torch.equal(grown[:, 1::3, 1::3], where(name, face()))


@each
def test_a_mirrored_face_has_a_mirrored_object(name):
    landmarks = face()[:, [1, 0, 2, 4, 3]]
    mirrored = torch.stack([111 - landmarks[..., 0], landmarks[..., 1]], dim=-1)
    assert torch.equal(where(name, mirrored), where(name, face()).flip(2))


def test_sunglasses_hide_the_eyes_and_a_mask_nose_and_mouth_in_every_crop():
    for crop in CROPS.values():
        points = face(crop)[0].round().long()
        glasses, mask = (where(name, face(crop), crop.size)[0] for name in ("sunglasses", "mask"))
        for number, (x, y) in enumerate(points.tolist()):
            assert bool(glasses[y, x]) == (number < 2)
            assert bool(mask[y, x]) == (number >= 2)


@each
def test_it_is_the_same_for_each_face_alone(name):
    faces = face() + torch.arange(5)[:, None, None] * torch.tensor([[1.5, -0.7]]).double()
    together = drawn(name, faces, (112, 112))
    for row in range(5):
        alone = drawn(name, faces[row : row + 1], (112, 112))
        for one, all_ in zip(alone, together, strict=True):
            assert torch.equal(one[0], all_[row])


@each
def test_a_face_without_a_place_wears_nothing(name):
    nowhere = face().clone()
    nowhere[:, 1] = nowhere[:, 0]  # both eyes are one point
    assert not where(name, nowhere).any()
    assert not where(name, face() + 1000).any()
    assert where(name, face(CROP), CROP.size).any()  # of 16 x 16 pixels
    assert where(name, face() / 100, (2, 2)).shape == (1, 2, 2)


@each
def test_its_colours_are_those_of_its_stripes(name):
    pixels, covered = drawn(name, face(), (112, 112))
    assert pixels.dtype == torch.uint8
    found = {tuple(colour) for colour in pixels[0].permute(1, 2, 0)[covered[0]].tolist()}
    assert found == set(OCCLUDERS[name].colours)
    if len(OCCLUDERS[name].colours) > 1:  # about as much of each
        shares = [(pixels[0, 0][covered[0]] == one[0]).double().mean()
                  for one in OCCLUDERS[name].colours]  # fmt: skip
        assert all(0.4 < share < 0.6 for share in shares)

"""Six rough parts around five landmarks."""

import math

import numpy as np
import pytest
import torch

from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.coarse_parts import NAMES, labels_of
from fxeval.datasets.faces.part_labels import PART_NAMES, groups_of
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.fixtures.pairs import PACK

D = 40.0
UPRIGHT = np.array([(40.0, 50.0), (80.0, 50.0), (60.0, 72.0), (44.0, 90.0), (76.0, 90.0)])
"""Eyes 40 pixels apart, in a crop of 121 x 121 pixels."""
SIZE = (121, 121)


def area(labels: np.ndarray, name: str) -> int:
    return int((labels == NAMES.index(name)).sum())


@pytest.mark.parametrize(
    ("name", "along", "across"),
    [("left_eye", 0.25 * D, 0.10 * D), ("right_brow", 0.38 * D, 0.13 * D),
     ("mouth_region", 16 + 0.02 * D, 0.18 * D)],
)  # fmt: skip
def test_ellipses_have_the_area_of_their_half_axes(name, along, across):
    found = area(labels_of(UPRIGHT, SIZE), name)
    assert found == pytest.approx(math.pi * along * across, rel=0.06)


def test_the_nose_has_the_area_of_its_polygon():
    # Two trapezoids: 8 to 26.4 wide over 22 pixels, then 26.4 to 20 wide over 6.
    expected = (8 + 26.4) / 2 * 22 + (26.4 + 20) / 2 * 6
    assert area(labels_of(UPRIGHT, SIZE), "nose") == pytest.approx(expected, rel=0.06)


def test_parts_lie_where_they_should():
    labels = labels_of(UPRIGHT, SIZE)
    places = {"right_eye": (50, 40), "left_eye": (50, 80), "right_brow": (40, 40),
              "left_brow": (40, 80), "nose": (72, 60), "mouth_region": (93, 60)}  # fmt: skip
    assert {name: NAMES[labels[place]] for name, place in places.items()} == {n: n for n in places}
    assert labels[100, 10] == labels[10, 60] == -1


def test_parts_turn_with_the_face():
    points = UPRIGHT + np.array([0.013, 0.007])  # so that no centre of a pixel lies on an edge
    turned = np.stack([120 - points[:, 1], points[:, 0]], axis=1)  # a quarter turn, clockwise
    assert np.array_equal(labels_of(turned, SIZE), np.rot90(labels_of(points, SIZE), -1))


def test_parts_grow_with_the_eye_distance():
    small = labels_of(UPRIGHT / 2, SIZE)
    for name in NAMES:
        assert 4 * area(small, name) == pytest.approx(area(labels_of(UPRIGHT, SIZE), name), rel=0.2)


def test_a_mirrored_face_has_mirrored_parts():
    mirrored = UPRIGHT.copy()
    mirrored[:, 0] = 120 - mirrored[:, 0]
    mirrored = mirrored[[1, 0, 2, 4, 3]]
    other = {"right_eye": "left_eye", "right_brow": "left_brow"}
    other |= {two: one for one, two in other.items()}
    swapped = [NAMES.index(other.get(name, name)) for name in NAMES]
    expected = np.append(swapped, -1)[labels_of(UPRIGHT, SIZE)][:, ::-1]
    found = labels_of(mirrored, SIZE)
    assert (found != expected).mean() < 0.002  # centres on an edge fall to one side


def test_a_mouth_without_width_is_no_part_and_no_error():
    points = UPRIGHT.copy()
    points[4] = points[3] - (2 * 0.02 * D, 0)
    assert area(labels_of(points, SIZE), "mouth_region") == 0


def test_coarse_parts_catch_the_true_ones_far_above_chance():
    listing = FacePack(PACK).listing()
    ids = list(dict.fromkeys(listing.probe))[:60]
    truth = FacePack(PACK).labels(ids, ARCFACE_112)
    coarse = FacePack(PACK, regions="coarse").labels(ids, ARCFACE_112)
    assert coarse.source == "five landmarks (coarse)"
    true_groups, found_groups = groups_of(PART_NAMES), groups_of(NAMES)
    # Brows of rendered faces lie where they like.
    for group, floor in (("eyes", 0.8), ("brows", 0.3), ("nose", 0.6), ("mouth", 0.6)):
        there = torch.isin(truth.labels, torch.tensor(true_groups[group]))
        here = torch.isin(coarse.labels, torch.tensor(found_groups[group]))
        caught = (here & there).flatten(1).sum(1) / there.flatten(1).sum(1)
        chance = here.flatten(1).float().mean(1)  # what a shape anywhere would catch
        assert float(caught.median()) > floor, group
        assert float((caught / chance).median()) > 8, group
    assert [*found_groups] == ["eyes", "brows", "nose", "mouth"]

"""The cloud of clean embeddings against loops, and images that leave it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fxeval.functional.ranking import ranks
from fxeval.metrics.clean_cloud import cloud_of
from fxeval.metrics.removal_curves import trace
from fxeval.tests.evidence import evidence_of, removal
from fxeval.tests.subjects import CountingModel, make_pairs


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


@pytest.mark.parametrize("n", [2, 7, 40])
def test_distances_and_radius_are_those_of_plain_loops(n):
    generator = torch.Generator().manual_seed(n)
    clean, others = (torch.randn(m, 5, generator=generator).double() for m in (n, 9))
    clean *= torch.rand(n, 1, generator=generator) + 0.1  # lengths do not count
    rows = clean.tolist()
    nearest = [
        min(1 - cosine(a, b) for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)
    ]
    ordered = sorted(nearest)
    place = 0.99 * (n - 1)
    low = min(int(place), n - 2)
    radius = ordered[low] + (place - low) * (ordered[low + 1] - ordered[low])
    cloud = cloud_of(clean)
    assert cloud.radius == pytest.approx(radius, abs=1e-9)
    expected = [min(1 - cosine(a, b) for b in rows) for a in others.tolist()]
    assert cloud.nearest(others) == pytest.approx(expected, abs=1e-9)
    assert cloud.outside(others).tolist() == [float(d > radius) for d in expected]


def test_no_clean_image_is_outside_and_copies_of_one_image_are_a_cloud_too():
    clean = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    assert not cloud_of(clean).outside(clean).any()
    same = clean[:1].expand(6, -1)
    assert not cloud_of(same).outside(same * 3).any()
    assert cloud_of(same).outside(-same).all()


def test_one_image_alone_is_no_cloud():
    assert np.isnan(cloud_of(torch.ones(1, 4)).outside(torch.ones(3, 4))).all()


def test_the_parts_that_are_compared_at_once_do_not_matter(monkeypatch):
    clean = torch.randn(25, 6, generator=torch.Generator().manual_seed(2))
    whole = cloud_of(clean)
    monkeypatch.setattr("fxeval.metrics.clean_cloud._AT_ONCE", 4)
    parts = cloud_of(clean)
    assert parts.radius == pytest.approx(whole.radius, abs=1e-12)
    assert parts.nearest(-clean) == pytest.approx(whole.nearest(-clean), abs=1e-12)


def test_the_curve_starts_inside_and_says_which_images_are_outside():
    pairs = make_pairs(12)
    given = evidence_of(pairs, CountingModel(Brightness()))
    order = ranks(torch.rand(12, 16, 16, generator=torch.Generator().manual_seed(4)), None)
    cloud = cloud_of(given.subject.clean())
    found = trace(removal(given, order, "black"), 8, cloud)
    assert found.outside.shape == (12, 9)
    assert not found.outside[:, 0].any()
    assert found.outside[:, -1].all()  # a black image is like no random one
    for row, line in enumerate(found.outside):  # the darker, the farther from all clean images
        assert (np.diff(line) >= 0).all()
        assert 0 < line.sum() < 9
        whole = trace(removal(given, order, "black"), 256, cloud).outside[row]
        assert line.tolist() == whole[::32].tolist()
    assert trace(removal(given, order, "black"), 8).outside is None


class Brightness(nn.Module):
    """The embedding turns as the image gets darker."""

    def forward(self, images):
        bright = images.mean(dim=(1, 2, 3))
        return torch.stack([bright, torch.full_like(bright, 0.5)], dim=1)

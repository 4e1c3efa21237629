"""Versions of pairs whose maps are compared: noise, half a pixel, another person."""

import numpy as np
import pytest
import torch

from fxeval.engine.compared_rows import compared_pairs, shifted
from fxeval.errors import EvidenceError
from fxeval.tests.subjects import make_pairs

N = 12


@pytest.fixture
def table():
    return compared_pairs(make_pairs(N), 5)


def test_noise_is_of_whole_numbers_from_minus_2_to_2_on_both_pictures(table):
    plain, noisy = table.rows, table.versions["noisy"]
    images = table.faces.images.long()
    for ours, theirs in ((plain.source, noisy.source), (plain.against, noisy.against)):
        change = images[theirs[:, 0]] - images[ours[:, 0]]
        inner = (images[ours[:, 0]] >= 2) & (images[ours[:, 0]] <= 253)
        assert set(change[inner].tolist()) == {-2, -1, 0, 1, 2}
        share = np.bincount(change[inner] + 2) / int(inner.sum())
        # One draw of 5 in some thousand: five standard deviations.
        assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.16 / int(inner.sum()))
        assert int(change.abs().max()) == 2


def test_the_shift_is_bilinear_and_repeats_the_edge():
    image = torch.tensor([[[[0, 100, 200], [40, 80, 120]]]], dtype=torch.uint8)
    # Each pixel: the mean of itself, its left, its upper and its upper left neighbour.
    assert shifted(image).tolist() == [[[[0, 50, 150], [20, 55, 125]]]]
    flat = torch.full((2, 3, 5, 4), 77, dtype=torch.uint8)
    assert torch.equal(shifted(flat), flat)


def test_only_the_probe_is_shifted(table):
    other = table.versions["shifted"]
    pixels = table.faces.images
    assert torch.equal(other.against, table.rows.against)
    assert torch.equal(pixels[other.source[:, 0]], shifted(pixels[table.rows.source[:, 0]]))


def test_a_nonmate_takes_the_mates_place_and_they_swap_for_contrasts(table):
    plain, swapped, who = table.rows, table.versions["impostor"], table.faces.identity
    assert torch.equal(swapped.source, plain.source)
    assert torch.equal(swapped.against[:, 0], plain.contrast)
    assert torch.equal(swapped.contrast, plain.against[:, 0])
    assert (who[swapped.against[:, 0]] != who[plain.source[:, 0]]).all()
    assert set(swapped.against[:, 0].tolist()) <= set(plain.against[:, 0].tolist())
    for name in ("noisy", "shifted"):
        assert torch.equal(table.versions[name].contrast, plain.contrast)


def test_all_versions_share_rows_and_draws(table):
    for one in table.versions.values():
        assert one.id == table.rows.id
        assert one.draws == ""
        assert torch.equal(one.identities, table.rows.identities)


def test_what_is_made_depends_on_the_content_of_a_row_and_the_seed_alone(table):
    def pixels(made, name, row):
        rows = made.versions[name]
        return made.faces.images[rows.source[row, 0]], made.faces.image_digests[rows.source[row, 0]]

    again, other = compared_pairs(make_pairs(N), 5), compared_pairs(make_pairs(N), 6)
    for name in ("noisy", "shifted"):
        for row in range(N):
            ours, theirs = pixels(table, name, row), pixels(again, name, row)
            assert torch.equal(ours[0], theirs[0])
            assert ours[1] == theirs[1]
    ours, theirs = pixels(table, "noisy", 0), pixels(other, "noisy", 0)
    assert not torch.equal(ours[0], theirs[0])
    assert ours[1] != theirs[1]


def test_pairs_of_one_person_have_no_nonmate():
    pairs = make_pairs(1)
    with pytest.raises(EvidenceError, match="no other identity"):
        compared_pairs(pairs, 5)

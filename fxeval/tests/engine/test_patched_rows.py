"""Patches of another face: where they lie, whose face they show, what they leave as it was."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fxeval.contracts import PairListing
from fxeval.engine.choosing import Asked, chosen
from fxeval.engine.patched_rows import covered, patched_pairs, places_of
from fxeval.errors import DataContractError
from fxeval.tests.subjects import CROP, make_pairs
from fxeval.tests.toy_world import People

ASKED = SimpleNamespace(patches=6, patch_size=28)  # 4 pixels of 16


def pairs(n=6, **more):
    """Return mated pairs of n people, then as many nonmated ones of the same images."""
    mated = make_pairs(n, **more)
    turned = mated.reference.roll(-1)
    people = mated.probe_identity
    return replace(
        mated,
        probe=torch.cat([mated.probe, mated.probe]),
        reference=torch.cat([mated.reference, turned]),
        is_mated=torch.arange(2 * n) < n,
        probe_identity=torch.cat([people, people]),
        reference_identity=torch.cat([people, people.roll(-1)]),
    )


def test_the_places_are_those_of_the_published_patches():
    """Columns first, from 0 to 95, then the rows behind the patches, from 16 to 111."""
    drawn = np.random.RandomState(3)
    found = places_of(drawn.randint, 27, 16, (112, 112))
    again = np.random.RandomState(3)
    assert found.columns.tolist() == [again.randint(0, 96) for _ in range(27)]
    assert found.rows.tolist() == [again.randint(16, 112) for _ in range(27)]
    assert found.columns[:6].tolist() == [24, 3, 56, 72, 0, 21]
    assert found.rows[:6].tolist() == [106, 85, 45, 40, 78, 23]
    second = places_of(drawn.randint, 27, 16, (112, 112))  # of the next pair
    assert second.columns[:6].tolist() == [46, 33, 1, 85, 74, 91]
    mask = covered(found, 16, (112, 112))
    assert int(mask.sum()) == 5150
    for column, row in zip(found.columns.tolist(), found.rows.tolist(), strict=True):
        assert mask[row - 16 : row, column : column + 16].all()
    assert not mask[-1].any()
    assert not mask[:, -1].any()


def test_no_patch_leaves_the_crop_whatever_its_shape():
    draws = np.random.default_rng(0)
    for _ in range(200):
        found = places_of(draws.integers, 27, 5, (24, 11))
        assert found.columns.min() >= 0
        assert found.columns.max() + 5 < 11
        assert found.rows.min() >= 5
        assert found.rows.max() < 24


def test_the_probe_has_the_references_pixels_if_the_two_are_different_people():
    given = pairs()
    table = patched_pairs(given, 5, ASKED)
    patched = table.versions["patched"]
    assert patched.id == table.rows.id
    assert patched.donor.tolist() == table.rows.image.tolist() == given.probe.tolist()
    images = table.faces.images
    for row, mated in enumerate(given.is_mated.tolist()):
        mask = patched.altered[row]
        assert 16 <= int(mask.sum()) < 256
        made, clean = images[patched.image[row]], images[given.probe[row]]
        assert torch.equal(made[:, ~mask], clean[:, ~mask])
        shown = [
            image
            for image in range(len(given.images))
            if torch.equal(made[:, mask], images[image][:, mask])
        ]
        assert len(shown) == 1
        if mated:
            people = given.faces().identity
            assert people[shown[0]] != given.probe_identity[row]
        else:
            assert shown == [given.reference[row]]


def test_rows_keep_their_patches_when_the_list_is_turned_over_and_change_with_the_seed():
    given = pairs()
    turned = torch.arange(len(given)).flip(0)
    other = replace(
        given,
        **{
            name: getattr(given, name)[turned]
            for name in ("probe", "reference", "is_mated", "probe_identity", "reference_identity")
        },
    )

    def made(of, seed):
        table = patched_pairs(of, seed, ASKED)
        rows = table.versions["patched"]
        return {
            row: (table.faces.image_digests[image], table.faces.images[image].tolist())
            for row, image in zip(rows.id, rows.image.tolist(), strict=True)
        }

    first = made(given, 5)
    assert made(other, 5) == first
    assert all(first[row] != found for row, found in made(given, 6).items())


def test_patches_larger_than_the_crop_are_refused():
    with pytest.raises(DataContractError, match=r"16 x 16 pixels, got sides of 16\. Lower patch_"):
        patched_pairs(pairs(), 5, SimpleNamespace(patches=1, patch_size=112))


def test_a_list_of_one_person_has_nobody_to_take_patches_from():
    one = make_pairs(1, crop=CROP)
    with pytest.raises(DataContractError, match="at least 2 people"):
        patched_pairs(one, 5, ASKED)


def test_nonmates_of_triplets_are_the_nonmated_pairs_of_a_list_without_others():
    listing = People(3).listing()
    again = listing.take([*range(len(listing)), 0])  # a pair that comes again, with another nonmate
    again = replace(
        again,
        contrast=(*listing.contrast, "2-0"),
        contrast_identity=(*listing.contrast_identity, "2"),
    )
    again = replace(again, set_aside=(*[""] * 5, "a wrong label", ""))
    found, remarks = chosen(again, "patched pairs", None, Asked(None, 5, "people"))
    assert remarks == []
    assert sum(found.is_mated) == 5
    assert len(found) == 10
    assert len({*zip(found.probe, found.reference, strict=True)}) == 10
    few, _ = chosen(again, "patched pairs", None, Asked(2, 5, "people"))
    assert (len(few), sum(few.is_mated)) == (4, 2)


def test_a_list_without_nonmated_pairs_has_mated_ones_alone():
    listing = People(3).listing()
    bare = PairListing(
        listing.probe,
        listing.reference,
        listing.is_mated,
        listing.probe_identity,
        listing.reference_identity,
    )
    found, _ = chosen(bare, "patched pairs", None, Asked(None, 5, "people"))
    assert all(found.is_mated)

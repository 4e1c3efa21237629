"""Searches: who is enrolled, who is not, and which images are probes."""

from types import SimpleNamespace

import pytest

from fxeval.contracts import PairListing
from fxeval.engine.choosing import Asked, chosen, way_of
from fxeval.engine.search_rows import searches
from fxeval.engine.selection import chosen_rows, load_pairs, whole_rows
from fxeval.errors import DataContractError
from fxeval.tests.planted_people import Planted
from fxeval.tests.toy_world import SMALL


def loaded(world, n=None):
    listing = world.listing()
    return load_pairs(world, listing.take(whole_rows(listing, n, 5, "planted")), SMALL)


def asked(**given):
    return SimpleNamespace(**{"gallery_images": 1, "probes_each": None, "unenrolled": 0.0, **given})


def parts(table):
    """Return enrolled, unenrolled and probes, by the sources' own ids of their images."""
    question = table.rows.question
    return tuple(
        one.tolist()
        for one in (question.people.image, question.people.unenrolled, table.rows.image)
    )


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("most", [None, 1])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_nobody_is_probe_and_gallery_and_stranger(each, most, share):
    pairs = loaded(Planted(n=10))
    table = searches(pairs, 5, asked(gallery_images=each, probes_each=most, unenrolled=share))
    people = pairs.faces().identity
    enrolled, unenrolled, probes = parts(table)
    assert not set(enrolled) & set(unenrolled) | set(probes) & {*enrolled, *unenrolled}
    known, unknown = ({*people[some].tolist()} for some in (enrolled, unenrolled))
    assert not known & unknown
    assert len(known | unknown) == 10
    assert len(unknown) == int(share * 10 + 0.5)
    assert len(unenrolled) == 4 * len(unknown)
    assert len(enrolled) == each * len(known)
    assert len(probes) == len(known) * min(4 - each, most or 4)
    assert {*people[probes].tolist()} == known
    digests = pairs.image_digests
    for row, probe in enumerate(probes):
        mate, against = int(people[probe]), int(table.rows.against[row, 0])
        assert people[against] == mate
        number = int(table.rows.question.mate[row])
        own = [one for one, who in zip(enrolled, table.rows.question.people.person, strict=True)
               if who == number]  # fmt: skip
        assert {*people[own].tolist()} == {mate}
        assert against == min(own, key=lambda one: digests[one])
        assert max(digests[one] for one in own) < digests[probe]
    assert table.rows.enrolled.tolist() == enrolled


def test_another_seed_leaves_other_people_out():
    pairs = loaded(Planted(n=20))
    one, other = (parts(searches(pairs, seed, asked(unenrolled=0.5)))[1] for seed in (1, 2))
    assert len(one) == len(other)
    assert one != other


def test_too_few_people_are_refused():
    with pytest.raises(DataContractError, match="at least 2 people to enrol, with more than 4"):
        searches(loaded(Planted(n=5)), 5, asked(gallery_images=4))


def test_nonmated_pairs_are_chosen_as_asked_and_no_probe_person_comes_twice_first():
    listing = Planted(n=12).listing()
    found, remarks = chosen(listing, "nonmated pairs", None, Asked(12, 5, "planted"))
    assert len(found) == 12
    assert not any(found.is_mated)
    assert remarks == []
    assert len({*found.probe_identity}) == 12
    every, _ = chosen(listing, "nonmated pairs", None, Asked(None, 5, "planted"))
    assert len(every) == 24
    with pytest.raises(DataContractError, match=r"at least 25 nonmated pairs, the list holds 24"):
        chosen(listing, "nonmated pairs", None, Asked(25, 5, "planted", "s.yaml:3:4"))
    assert way_of("nonmated pairs") != way_of("mated pairs")


def test_the_nonmated_pairs_of_triplets_are_probes_with_their_nonmates():
    listing = PairListing(
        ("a0", "b0"), ("a1", "b1"), (True, True), ("a", "b"), ("a", "b"),
        contrast=("b0", "c0"), contrast_identity=("b", "c"),
    )  # fmt: skip
    found, _ = chosen(listing, "nonmated pairs", None, Asked(None, 5, "triplets"))
    pairs = {*zip(found.probe, found.reference, strict=True)}
    assert pairs == {("a0", "b0"), ("b0", "c0")}
    assert found.contrast == ()
    assert {*found.reference_identity} == {"b", "c"}
    assert len(chosen_rows(listing, None, 5, "triplets")) == 2

"""Pairs drawn from images with identities."""

import hashlib
import json
import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import Exclusion, IdentityListing
from fxeval.datasets.lists import drawing
from fxeval.datasets.lists.drawing import (
    drawn_pairs,
    every_mated,
    some_between,
    some_mated,
    some_nonmated,
)
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.errors import DataContractError

SIZES = st.lists(st.integers(1, 6), min_size=2, max_size=9)
SEEDS = st.integers(0, 99)


def listing_of(sizes, order=None, **columns) -> IdentityListing:
    images = [(f"{who:03}-{k:03}", f"p{who:03}") for who, n in enumerate(sizes) for k in range(n)]
    images = images if order is None else [images[row] for row in order]
    return IdentityListing(tuple(i for i, _ in images), tuple(p for _, p in images), **columns)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def mated_in(sizes) -> int:
    return sum(size * (size - 1) // 2 for size in sizes)


def nonmated_in(sizes) -> int:
    return sum(one * two for one, two in combinations(sizes, 2))


def pairs_of(listing) -> list[frozenset]:
    return [frozenset(pair) for pair in zip(listing.probe, listing.reference, strict=True)]


def one_by_one(sizes, wanted: int, draws: np.random.Generator) -> list[tuple[int, int]]:
    """Nonmated pairs drawn one at a time, as for the first packs."""
    who = np.repeat(np.arange(len(sizes)), sizes)
    drawn: dict[tuple[int, int], None] = {}
    while len(drawn) < min(wanted, nonmated_in(sizes)):
        one, two = sorted(map(int, draws.integers(len(who), size=2)))
        if who[one] != who[two]:
            drawn[one, two] = None
    return list(drawn)


@settings(deadline=None)
@given(SIZES, st.integers(0, 60), SEEDS)
def test_nonmated_pairs_are_those_of_one_draw_after_the_other(sizes, wanted, seed):
    expected = one_by_one(sizes, wanted, generator(seed))
    assert some_nonmated(sizes, wanted, generator(seed)) == expected


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=5),
    wanted=st.integers(0, 60),
    seed=st.integers(0, 9),
)
def test_pairs_between_two_lists_are_of_different_people_and_every_one_can_come(
    sizes, wanted, seed
):
    firsts, seconds = [one for one, _ in sizes], [two for _, two in sizes]
    of_first, of_second = (
        [who for who, size in enumerate(part) for _ in range(size)] for part in (firsts, seconds)
    )
    possible = {
        (i, j) for i, one in enumerate(of_first) for j, two in enumerate(of_second) if one != two
    }
    drawn = some_between(firsts, seconds, wanted, generator(seed))
    assert len(drawn) == len({*drawn}) == min(wanted, len(possible))
    assert {*drawn} <= possible
    assert {*some_between(firsts, seconds, 1000, generator(seed))} == possible
    assert drawn == some_between(firsts, seconds, wanted, generator(seed))


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "32d26fb3051b2dca3db1a7ac46d3d97fb71c74260d9f386839f5c54eca14f691"),
        (1, "3ff1494ad47a5d29b3f3d7bdfa33bb37ccab1b1307253eeab26c2b34aba0e2a7"),
        (7, "d45ddcb8b5a7e9e7ca536cb2a1ddb914c912483958ee6d9872fce44a5a90e355"),
    ],
)
def test_the_pairs_of_forty_people_with_six_images_stay_what_they_were(tmp_path, seed, digest):
    write_manifest(tmp_path, (6,) * 40, 90_000, "jpg")
    assert _digest(FacePack(tmp_path, seed=seed).listing()) == digest


@pytest.mark.parametrize(
    ("counts", "digest"),
    [
        ((4, 2, 1), "c9fc251505ad95562c95d512ae8baad4c32f6e0534ee2feabcfacaccbc726a72"),
        ((5, 5, 5, 5, 5), "88f759c4858bd93a6806f8c485aff7f3b1115f4ae039c4abba0da638225d7cb1"),
        ((30, 2, 2), "24d296b2b8538b528db6be7528af71a0d5a1b887817bcef5eba8aeaf65475561"),
    ],
)
def test_the_pairs_of_any_pack_stay_what_they_were(tmp_path: Path, counts, digest):
    write_manifest(tmp_path, counts, 0, "png")
    assert _digest(FacePack(tmp_path, seed=3).listing()) == digest


def write_manifest(folder: Path, counts, first: int, suffix: str) -> None:
    images = [
        {"file": f"{i}_{k}.{suffix}", "sha256": "0" * 64, "identity": i, "number": k}
        for i, count in enumerate(counts, first)
        for k in range(count)
    ]
    (folder / "manifest.json").write_text(json.dumps({"crop": "arcface112", "images": images}))


def _digest(listing) -> str:
    columns = (listing.probe, listing.reference, listing.is_mated)
    columns += (listing.probe_identity, listing.reference_identity)
    return hashlib.sha256(repr(columns).encode()).hexdigest()


@given(SIZES)
def test_every_mated_pair_comes_once_and_first_one_of_each_identity(sizes):
    who = np.repeat(np.arange(len(sizes)), sizes)
    rows = every_mated(sizes)
    assert len(rows) == len(set(rows)) == mated_in(sizes)
    assert all(one < two and who[one] == who[two] for one, two in rows)
    several = [person for person, size in enumerate(sizes) if size > 1]
    assert [who[one] for one, _ in rows[: len(several)]] == several


@settings(deadline=None)
@given(SIZES, st.data(), SEEDS)
def test_some_mated_pairs_are_shared_out_evenly_among_identities(sizes, data, seed):
    wanted = data.draw(st.integers(0, mated_in(sizes)))
    who = np.repeat(np.arange(len(sizes)), sizes)
    rows = some_mated(sizes, wanted, generator(seed))
    assert len(rows) == len(set(rows)) == wanted
    assert all(one < two and who[one] == who[two] for one, two in rows)
    for first in range(wanted + 1):  # every start of the list is balanced, not only the whole list
        got = np.bincount([who[one] for one, _ in rows[:first]], minlength=len(sizes))
        for person, size in enumerate(sizes):
            assert got[person] >= min(got.max() - 1, size * (size - 1) // 2)


def test_every_mated_pair_is_as_likely_as_another_of_its_identity():
    draws = generator(5)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(3000):
        for pair in some_mated([4, 1], 2, draws):
            counts[pair] = counts.get(pair, 0) + 1
    assert set(counts) == set(combinations(range(4), 2))
    assert all(abs(count - 1000) < 130 for count in counts.values())  # five standard deviations


def test_every_nonmated_pair_is_as_likely_as_another():
    draws = generator(6)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(2000):
        for pair in some_nonmated([3, 1, 2], 3, draws):
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == nonmated_in([3, 1, 2]) == 11
    assert all(abs(count - 6000 / 11) < 100 for count in counts.values())


def test_one_identity_with_nearly_all_images_does_not_take_forever():
    rows = some_nonmated([9_999, 1], 10**6, generator())
    assert len(rows) == len(set(rows)) == 9_999
    assert {two for _, two in rows} == {9_999}
    assert some_nonmated([5], 7, generator()) == []
    assert some_nonmated([], 7, generator()) == []


@settings(deadline=None)
@given(SIZES, SEEDS, st.data())
def test_labels_are_right_and_no_pair_is_drawn_twice_or_of_one_image(sizes, seed, data):
    mated, nonmated = mated_in(sizes), nonmated_in(sizes)
    asked = [data.draw(st.none() | st.integers(0, most)) for most in (mated, nonmated)]
    if (asked[0] is None and not mated) or not nonmated:
        return
    listing = drawn_pairs(listing_of(sizes), seed, mated=asked[0], nonmated=asked[1])
    pairs = pairs_of(listing)
    assert len(set(pairs)) == len(pairs)
    assert all(len(pair) == 2 for pair in pairs)
    for row in range(len(listing)):
        assert listing.probe[row][:3] == listing.probe_identity[row][1:]
        assert listing.reference[row][:3] == listing.reference_identity[row][1:]
    n_mated = mated if asked[0] is None else asked[0]
    assert sum(listing.is_mated) == n_mated
    assert len(listing) - n_mated == (min(n_mated, nonmated) if asked[1] is None else asked[1])
    assert list(listing.is_mated) == sorted(listing.is_mated, reverse=True)
    assert listing.fold == ()


@settings(deadline=None)
@given(SEEDS, st.permutations(range(17)), st.sampled_from([None, 4]), st.sampled_from([None, 2]))
def test_the_order_of_the_images_does_not_matter(seed, order, mated, folds):
    sizes = [4, 1, 3, 2, 5, 2]
    expected = drawn_pairs(listing_of(sizes), seed, mated=mated, folds=folds)
    assert drawn_pairs(listing_of(sizes, order), seed, mated=mated, folds=folds) == expected


@pytest.mark.parametrize("folds", [None, 3])
def test_other_seeds_draw_other_pairs(folds):
    people = listing_of([5] * 12)
    listings = [drawn_pairs(people, seed, mated=30, folds=folds) for seed in range(20)]
    for kind in (True, False):
        sets = {
            frozenset(
                pair
                for pair, is_mated in zip(pairs_of(one), one.is_mated, strict=True)
                if is_mated is kind
            )
            for one in listings
        }
        assert len(sets) == 20


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=6, max_size=14),
    st.integers(2, 4), SEEDS, st.none() | st.integers(0, 14),
)  # fmt: skip
def test_no_identity_is_in_two_folds_and_every_fold_gets_its_share(sizes, folds, seed, mated):
    try:
        listing = drawn_pairs(listing_of(sizes), seed, mated=mated, folds=folds)
    except DataContractError as error:
        assert "in fold" in str(error)  # noqa: PT017
        return
    homes: dict[str, set[int]] = {}
    for row, fold in enumerate(listing.fold):
        for person in (listing.probe_identity[row], listing.reference_identity[row]):
            homes.setdefault(person, set()).add(fold)
    assert all(len(home) == 1 for home in homes.values())
    assert len(set(pairs_of(listing))) == len(listing)
    same = np.bincount([f for f, m in zip(listing.fold, listing.is_mated, strict=True) if m],
                       minlength=folds)  # fmt: skip
    if mated is None:
        assert same.sum() == sum(
            mated_in([sizes[int(person[1:])] for person in homes if fold in homes[person]])
            for fold in range(folds)
        )
        assert same.min() > 0
    else:
        assert same.sum() == mated
        assert np.ptp(same) <= 1
    assert list(listing.is_mated) == sorted(listing.is_mated, reverse=True)


def test_folds_take_turns_and_the_list_starts_with_one_pair_of_each_identity():
    listing = drawn_pairs(listing_of([4] * 20), 3, mated=50, nonmated=30, folds=10)
    assert listing.fold == tuple(range(10)) * 8
    assert len(set(listing.probe_identity[:20])) == 20


def test_which_identities_a_cut_round_reaches_is_drawn():
    reached = {frozenset(some_mated([2] * 10, 3, generator(seed))) for seed in range(20)}
    assert len(reached) > 10


def test_identities_with_mated_pairs_are_dealt_out_before_the_others():
    for seed in range(10):
        listing = drawn_pairs(listing_of([2, 1, 1, 2, 1, 1, 2, 1, 1]), seed, folds=3)
        assert sorted(listing.fold[:3]) == [0, 1, 2]


def test_folds_are_drawn_apart():
    listing = drawn_pairs(listing_of([9] * 8), 0, mated=16, nonmated=40, folds=2)
    places = [
        [(one[-3:], two[-3:])
         for one, two, at in zip(listing.probe, listing.reference, listing.fold, strict=True)
         if at == fold]
        for fold in (0, 1)
    ]  # fmt: skip
    assert places[0][:8] != places[1][:8]
    assert places[0][8:] != places[1][8:]


def test_what_was_excluded_stays_in_the_listing():
    gone = (Exclusion("ab12", "is truncated"),)
    assert drawn_pairs(listing_of([2, 2], excluded=gone), 0).excluded == gone


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([1, 1], {}, "expected some mated pairs, got 0"),
        ([3], {}, "expected some nonmated pairs, got 0"),
        ([], {}, "expected some mated pairs"),
        ([3, 2], {"mated": 5}, "expected 5 mated pairs, got 4"),
        ([3, 2], {"nonmated": 7}, "expected 7 nonmated pairs, got 6"),
        ([3, 2], {"mated": -1}, "expected 'mated' of at least 0, got -1"),
        ([3, 2], {"nonmated": -1}, "expected 'nonmated' of at least 0"),
        ([3, 2], {"folds": 1}, "expected 'folds' of at least 2, got 1"),
        ([2, 2, 1, 1, 1, 1], {"folds": 3}, "expected some mated pairs in fold 2 of 3"),
        ([2, 2, 2], {"folds": 2}, "expected some nonmated pairs in fold 1 of 2"),
        ([2000, 2], {}, "expected at most 1000000, got 2003001"),
    ],
)  # fmt: skip
def test_pairs_that_do_not_exist_are_not_promised(sizes, options, message):
    with pytest.raises(DataContractError, match=message):
        drawn_pairs(listing_of(sizes), 0, **options)


def test_too_many_pairs_are_refused_before_they_are_made():
    people = listing_of([2000, 2])
    tracemalloc.start()
    with pytest.raises(DataContractError, match="expected at most 1000000"):
        drawn_pairs(people, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_the_pairs_of_all_folds_together_are_counted(monkeypatch):
    monkeypatch.setattr(drawing, "MAX_PAIRS", 30)
    drawn_pairs(listing_of([2] * 10), 0, folds=2)
    with pytest.raises(DataContractError, match="expected at most 30"):
        drawn_pairs(listing_of([4] * 6), 0, folds=3)


def test_few_pairs_of_many_images_need_little_memory():
    people = listing_of([100] * 500)
    tracemalloc.start()
    listing = drawn_pairs(people, 0, mated=1000, folds=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(listing) == 2000
    assert peak < 40 << 20  # all 2,475,000 mated pairs take more than 200 MiB


def test_pairs_of_real_identities_keep_to_their_folds(data_root: Path):
    images = json.loads((data_root / "faces_manifest.json").read_text())["images"]
    people = IdentityListing(
        tuple(image["sha256"] for image in images), tuple(image["identity"] for image in images)
    )
    listing = drawn_pairs(people, 0, mated=3000, nonmated=3000, folds=10)
    assert len(set(listing.probe_identity[:600])) == 600
    assert [listing.fold.count(fold) for fold in range(10)] == [600] * 10
    found = dict(zip(people.image, people.identity, strict=True))
    assert all(
        (found[one] == found[two]) is mated
        for one, two, mated in zip(listing.probe, listing.reference, listing.is_mated, strict=True)
    )

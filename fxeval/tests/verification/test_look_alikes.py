"""Who is taken for whom, against all comparisons written out; what is refused, what is said."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from fxeval.contracts import PairListing
from fxeval.engine.choosing import Asked
from fxeval.errors import EvidenceError
from fxeval.tests.verification.test_cross_pairs import people
from fxeval.verification import cross_pairs as crossing
from fxeval.verification import look_alikes as choosing
from fxeval.verification.cross_pairs import cross_pairs
from fxeval.verification.look_alikes import Matching, false_matches, look_alikes

IDS = [f"{who}-{image}" for who in range(30) for image in range(3)]
CONTENT = {one: hashlib.sha256(one.encode()).hexdigest() for one in IDS}


def found_in(order, kind="cosine", doubtful=frozenset()):
    """Return the look-alikes of a list whose images come in some order."""
    embeddings, who = people(30)
    crossed = cross_pairs(kind, embeddings[order], who[order])
    return look_alikes(crossed, [IDS[one] for one in order], CONTENT, doubtful)


def every_comparison(kind="cosine", ids=frozenset(IDS)):
    """Yield all comparisons of different people: two images in the order of their digests."""
    embeddings, who = people(30)
    for one in range(90):
        for two in range(one + 1, 90):
            if who[one] == who[two] or not {IDS[one], IDS[two]} <= ids:
                continue
            a, b = embeddings[one], embeddings[two]
            value = (
                a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
                if kind == "cosine"
                else -np.linalg.norm(a - b)
            )
            first, second = sorted((IDS[one], IDS[two]), key=CONTENT.__getitem__)
            yield first, second, value


def written_out(kind="cosine", doubtful=frozenset()):
    """Choose by loops over all comparisons, one after the other."""
    every = list(every_comparison(kind, frozenset(IDS) - doubtful))
    every.sort(key=lambda one: one[2], reverse=True)
    used, chosen = set(), []
    for one, two, value in every:
        for probe, reference in ((one, two), (two, one)):
            if probe.split("-")[0] not in used:
                used.add(probe.split("-")[0])
                chosen.append((probe, reference, value))
                break
    return chosen


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("chunk", [3, 4096])
def test_they_are_those_of_all_comparisons_written_out(kind, chunk, monkeypatch):
    monkeypatch.setattr(choosing, "_CHUNK", chunk)
    monkeypatch.setattr(crossing, "_ROWS", 16)
    found, expected = found_in(np.arange(90), kind), written_out(kind)
    assert len(expected) == 30
    assert list(zip(found.probe, found.reference, strict=True)) == [one[:2] for one in expected]
    assert np.allclose(found.similarity, [one[2] for one in expected], rtol=0, atol=1e-7)
    assert found.n == 30 * 29 // 2 * 9


def test_they_do_not_depend_on_the_order_of_the_list():
    first = found_in(np.arange(90))
    for seed in range(3):
        turned = found_in(np.random.default_rng(seed).permutation(90))
        assert (turned.probe, turned.reference) == (first.probe, first.reference)


def test_images_of_rows_set_aside_are_nobodys_look_alikes():
    first = found_in(np.arange(90))
    doubtful = frozenset({first.probe[0], first.reference[1]})
    found = found_in(np.arange(90), doubtful=doubtful)
    assert not doubtful & {*found.probe, *found.reference}
    assert list(zip(found.probe, found.reference, strict=True)) == [
        one[:2] for one in written_out(doubtful=doubtful)
    ]


def test_of_equal_similarities_the_content_decides():
    embeddings = np.eye(4)[[0, 1, 0, 1, 0, 1]].astype(float)
    who = np.array([0, 0, 1, 1, 2, 2])  # three people of two equal pictures each
    ids = IDS[:6]
    crossed = cross_pairs("cosine", embeddings, who)
    found = look_alikes(crossed, ids, CONTENT)
    turned = cross_pairs("cosine", embeddings[::-1], who[::-1])
    assert look_alikes(turned, ids[::-1], CONTENT).probe == found.probe
    best = min(
        sorted((CONTENT[ids[one]], CONTENT[ids[two]]))
        for one in range(6)
        for two in range(6)
        if who[one] != who[two] and (embeddings[one] == embeddings[two]).all()
    )
    assert [CONTENT[found.probe[0]], CONTENT[found.reference[0]]] == best


@pytest.mark.parametrize("seed", range(4))
def test_the_last_digits_of_a_similarity_decide_nothing(seed):
    """Three people look the same: similarities of 1, as several threads would round them."""
    crossed = cross_pairs("cosine", np.ones((6, 4)), np.array([0, 0, 1, 1, 2, 2]))
    first = look_alikes(crossed, IDS[:6], CONTENT)
    noise = np.random.default_rng(seed).normal(0.0, 1e-15, len(crossed.similarities))
    found = look_alikes(
        replace(crossed, similarities=crossed.similarities + noise), IDS[:6], CONTENT
    )
    assert (found.probe, found.reference) == (first.probe, first.reference)


def test_a_long_list_keeps_the_people_who_are_most_alike(monkeypatch):
    every = found_in(np.arange(90))
    monkeypatch.setattr(choosing, "MOST_PEOPLE", 7)
    monkeypatch.setattr(choosing, "MOST_COUNTED", 5)
    found = found_in(np.arange(90))
    assert found.probe == every.probe[:7]
    assert found.accepted(-1.0) == "at least 5"
    assert every.accepted(2.0) == "0"
    assert every.accepted(float(every.most_similar[2])) == "3"


LISTING = PairListing(
    probe=tuple(IDS[0::3]),
    reference=tuple(IDS[1::3]),
    is_mated=(True,) * 30,
    probe_identity=tuple(one.split("-")[0] for one in IDS[0::3]),
    reference_identity=tuple(one.split("-")[0] for one in IDS[1::3]),
)


def of_two(threshold=-1.0, **more):
    """Return a matching of the images that the listing has."""
    embeddings, who = people(30)
    kept = [one for one in range(90) if one % 3 < 2]
    crossed = cross_pairs("cosine", embeddings[kept], who[kept])
    alike = look_alikes(crossed, [IDS[one] for one in kept], CONTENT)
    return Matching("key", "net", **{"alike": alike, "reason": "", "threshold": threshold, **more})


def test_the_most_similar_accepted_ones_are_taken_with_another_image_of_the_person():
    matching = of_two(0.5)
    rows, remarks = false_matches(LISTING, matching, Asked(5, 0, "list"))
    assert rows.probe == matching.alike.probe[:5]
    assert rows.reference == matching.alike.reference[:5]
    assert not any(rows.is_mated)
    assert len({*rows.probe_identity}) == 5
    for probe, (other,) in zip(rows.probe, rows.sources, strict=True):
        assert other != probe
        assert other.split("-")[0] == probe.split("-")[0]
    two = frozenset(one for one in IDS if not one.endswith("-2"))
    accepted = sum(value >= 0.5 for *_, value in every_comparison(ids=two))
    assert remarks == [
        f"{accepted} of 1,740 comparisons of different people are false matches at the operating "
        "threshold 0.5; these are the model's 5 most similar ones with each person once as the "
        "probe"
    ]


def test_fewer_than_asked_for_are_taken_and_it_says_so():
    threshold = float(of_two().alike.similarity[3])
    rows, remarks = false_matches(LISTING, of_two(threshold), Asked(40, 0, "list"))
    assert len(rows) == 4
    assert "; 40 were asked for, and no more people are taken for somebody else" in remarks[0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"threshold": 0.999}, "accepts none of 1,740 comparisons of different people at its"),
        ({"threshold": None}, "the model makes none: it declares no operating threshold."),
        ({"threshold": None, "no_decision": "0 % rejected"}, "makes none: 0 % rejected."),
        ({"alike": None, "reason": "the list has one identity"}, "not known: the list has one id"),
    ],
)
def test_where_there_is_no_false_match_it_is_refused_with_the_reason(more, said):
    with pytest.raises(EvidenceError, match="model 'net' on pairs 'list'") as error:
        false_matches(LISTING, of_two(**more), Asked(5, 0, "list"))
    assert said in str(error.value)


def test_images_of_rows_set_aside_give_nobody_their_pixels():
    probe = of_two().alike.probe[0]
    row = next(row for row in range(30) if probe in (LISTING.probe[row], LISTING.reference[row]))
    aside = tuple("a wrong label" if one == row else "" for one in range(30))
    doubtful = PairListing(**{**vars(LISTING), "set_aside": aside})
    rows, _ = false_matches(doubtful, of_two(), Asked(1, 0, "list"))
    assert rows.sources == ()

"""Ranks and thresholds of searches in a gallery, against plain loops."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fxeval.metrics.enrolled import Enrolled, leads_of, ranks_of, searches_needed
from fxeval.metrics.questions import Rank


def subject(embeddings, kind="cosine"):
    class Subject(SimpleNamespace):
        __hash__ = object.__hash__

    return Subject(similarity=kind, clean=lambda: embeddings)


def plain(kind, one, other):
    if kind == "cosine":
        return float(one @ other / np.sqrt(one @ one) / np.sqrt(other @ other))
    return -float(np.sqrt(((one - other) ** 2).sum()))


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_ranks_and_leads_are_those_of_a_plain_loop(kind):
    images = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    person = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4])
    people = Enrolled(torch.arange(8), person)
    rows, mate = torch.arange(22), torch.arange(22) % 5
    question, on = Rank(mate, people), subject(images, kind)
    probes = images[8:]
    answer, margin = (ask(on, rows, probes) for ask in (question.answer, question.margin))
    score = question.score(on, rows, probes)
    for row, probe in enumerate(probes.double().numpy()):
        best = [
            max(plain(kind, probe, images[one].double().numpy()) for one in range(8)
                if person[one] == who)
            for who in range(5)
        ]  # fmt: skip
        own = best[row % 5]
        others = [value for who, value in enumerate(best) if who != row % 5]
        assert answer[row].item() == 1 / (1 + sum(value >= own for value in others))
        assert margin[row].item() == pytest.approx(own - max(others), abs=1e-9)
        assert score[row].item() == pytest.approx(own, abs=1e-9)
    some = torch.tensor([3, 7])
    assert question.take(some).answer(on, torch.tensor([1]), probes[7:8]) == answer[7]


def test_a_tie_is_no_rank_1():
    similar = torch.tensor([[0.5, 0.5, 0.1]], dtype=torch.float64)
    assert ranks_of(similar, torch.tensor([0])).item() == 2
    assert leads_of(similar, torch.tensor([0])).item() < 0
    assert ranks_of(similar, torch.tensor([2])).item() == 3


def test_a_search_does_not_depend_on_those_beside_it():
    images = torch.randn(40, 64, generator=torch.Generator().manual_seed(2))
    people, on = Enrolled(torch.arange(9), torch.arange(9)), subject(images)
    together = people.similarities(on, images[9:])
    for row in range(31):
        assert torch.equal(people.similarities(on, images[9 + row][None])[0], together[row])
    assert people.similarities(on, images[:0]).shape == (0, 9)


@given(
    st.integers(0, 10_000), st.sampled_from([0.5, 0.25, 0.2, 0.1]), st.integers(0, 30),
    st.booleans(),
)  # fmt: skip
def test_a_threshold_keeps_its_rate_and_a_lower_one_would_not(seed, fpir, more, is_coarse):
    needed = searches_needed(fpir)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4 + needed + more, 3, generator=generator)
    if is_coarse:  # many ties
        images = images.round()
        images[:, 0] += 5
    people = Enrolled(torch.arange(4), torch.arange(4), torch.arange(4, len(images)))
    on = subject(images)
    threshold = people.threshold(on, fpir)
    best = sorted(
        max(plain("cosine", a, b) for b in images[:4].double().numpy())
        for a in images[4:].double().numpy()
    )
    returned = sum(one >= threshold for one in best)
    allowed = int(fpir * len(best) + 1e-9)
    assert returned <= allowed
    highest_refused = best[-1 - allowed]
    assert highest_refused < threshold <= highest_refused + 2**-38


def test_too_few_searches_set_no_threshold():
    images = torch.randn(103, 4, generator=torch.Generator().manual_seed(3))
    for n, has_one in ((99, False), (100, True)):
        people = Enrolled(torch.arange(3), torch.arange(3), torch.arange(3, 3 + n))
        assert (people.threshold(subject(images), 0.1) is not None) is has_one
    assert Enrolled(torch.arange(3), torch.arange(3)).threshold(subject(images), 0.5) is None

"""Where the decision flips: coarse, refined and exact, and what each of them asks for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import RowState
from fxeval.functional.ranking import ranks, step_counts
from fxeval.metrics.removal_curves import Curves, trace
from fxeval.metrics.threshold_crossings import crossings, flips
from fxeval.tests.evidence import evidence_of, removal
from fxeval.tests.metrics.test_removal_curves import GOLDEN_MAP, Pixels, pairs_of
from fxeval.tests.subjects import ConvNet, CountingModel, Crop, make_pairs


class Known:
    """A removal whose margins are known at every count of pixels: (B, 2, n + 1)."""

    def __init__(self, margin):
        self.margin, self.asked = np.asarray(margin, dtype=float), []
        n = self.margin.shape[2] - 1
        self.order = SimpleNamespace(ranks=torch.zeros(len(self.margin), n))

    def ask(self, row, first, last):
        n = self.order.ranks.shape[1]
        way = (first > 0).long()  # insertion of k leaves [k, n)
        k = torch.where(way == 1, first, last)
        assert bool(((way == 0) | (last == n)).all())
        self.asked += zip(row.tolist(), way.tolist(), k.tolist(), strict=True)
        return None, self.margin[row.numpy(), way.numpy(), k.numpy()]

    def curves(self, steps):
        counts = np.array(step_counts(self.margin.shape[2] - 1, steps))
        return Curves(counts, self.margin[:, :, counts], self.margin[:, :, counts])

    def found(self, steps, crossing_step):
        return crossings(self, self.curves(steps), crossing_step)


def by_hand(margin):
    """A plain loop over all counts of one order: the first that flips, in each direction."""
    n = len(margin[0]) - 1
    if margin[0][0] < 0:
        return [(np.nan, RowState.EXCLUDED)] * 2
    answers = []
    for way, is_beyond in enumerate((lambda one: one < 0, lambda one: one >= 0)):
        answer = (1.0, RowState.NOT_CROSSED)
        for k in range(n + 1):
            if is_beyond(margin[way][k]):
                answer = (k / n, RowState.OK if k else RowState.START_BEYOND)
                break
        answers.append(answer)
    return answers


def assert_same(found, expected):
    for (value, state), (other, other_state) in zip(found, expected, strict=True):
        assert state is other_state
        assert value == other or (np.isnan(value) and np.isnan(other))


margins = st.integers(2, 90).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-1, 1), min_size=n + 1, max_size=n + 1)] * 2)
)


def joined(deletion, insertion):
    """Both curves meet at their ends: the clean image and the filled one."""
    insertion = [deletion[-1], *insertion[1:-1], deletion[0]]
    return [deletion, insertion]


@settings(deadline=None, max_examples=80)
@given(st.lists(margins, min_size=1, max_size=3).filter(lambda a: len({len(b[0]) for b in a}) == 1),
       st.integers(1, 8))  # fmt: skip
def test_an_exact_scan_finds_what_a_plain_loop_over_all_pixels_finds(rows, steps):
    known = Known([joined(*one) for one in rows])
    steps = min(steps, known.margin.shape[2] - 1)
    found = known.found(steps, "exact")
    assert len(set(known.asked)) == len(known.asked)  # nothing is asked for twice
    for one, margin in zip(found, known.margin.tolist(), strict=True):
        assert_same(one, by_hand(margin))


def wavy(n=300, dip=70):
    """Deletion dips below the threshold at one count, and falls for good much later."""
    deletion = np.linspace(1.0, -0.2, n + 1)
    deletion[dip] = -0.1
    return joined(deletion.tolist(), np.linspace(-0.2, 1.0, n + 1).tolist())


def test_only_an_exact_scan_finds_a_dip_between_two_steps():
    known = Known([wavy()])
    exact, refined, rough = (known.found(4, step)[0][0] for step in ("exact", 1, None))
    assert exact == (70 / 300, RowState.OK)
    assert refined == (251 / 300, RowState.OK)
    assert rough == (300 / 300, RowState.OK)


def test_a_scan_stops_soon_after_the_first_flip_and_skips_what_is_known():
    known = Known([wavy(), wavy(dip=300)])
    known.found(4, "exact")
    counts = {}
    for row, way, k in known.asked:
        counts.setdefault((row, way), []).append(k)
    assert 70 in counts[0, 0]
    assert max(counts[0, 0]) <= 70 + 64
    assert max(counts[1, 0]) <= 251 + 64
    assert not {0, 75, 150, 225, 300} & {k for found in counts.values() for k in found}


def test_no_pass_is_spent_on_pairs_that_the_start_decides():
    rejected = joined([-0.5] * 101, [-0.5] * 101)
    filled = joined([0.5] * 101, [0.5] * 101)
    known = Known([rejected, filled])
    found = known.found(5, "exact")
    assert [state for _, state in found[0]] == [RowState.EXCLUDED] * 2
    assert [state for _, state in found[1]] == [RowState.NOT_CROSSED, RowState.START_BEYOND]
    assert {(row, way) for row, way, _ in known.asked} == {(1, 0)}


@pytest.mark.parametrize("steps", [1, 3, 4, 16])
def test_the_golden_image_crosses_after_five_pixels_whatever_the_steps(steps):
    image = (torch.arange(16) * 17).reshape(4, 4)
    model = CountingModel(Pixels(), crop=Crop("golden", (4, 4), ((0.0, 0.0),) * 5))
    pairs = pairs_of(image, torch.full((4, 4), 255))
    removed = removal(evidence_of(pairs, model, threshold=0.7), ranks(GOLDEN_MAP[None], None),
                      "black")  # fmt: skip
    assert ranks(GOLDEN_MAP[None], None)[0].argsort().tolist() == [
        15, 8, 9, 10, 11, 3, 4, 2, 5, 1, 6, 0, 7, 12, 13, 14,
    ]  # fmt: skip
    ((deletion, _),) = crossings(removed, trace(removed, steps), "exact")
    assert deletion == (5 / 16, RowState.OK)


def test_an_exact_scan_of_a_network_is_the_finest_curve():
    pairs = make_pairs(6)
    given_ = evidence_of(pairs, CountingModel(ConvNet().eval()))
    order = ranks(torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(5)), None)
    free = trace(removal(given_, order, "mean"), 256).answer
    threshold = float(np.median(free[:, 0]))  # no answer is equal to it
    removed = removal(
        evidence_of(pairs, CountingModel(ConvNet().eval()), threshold=threshold), order, "mean"
    )
    found = crossings(removed, trace(removed, 4), "exact")
    for one, margin in zip(found, (free - threshold).tolist(), strict=True):
        assert_same(one, by_hand(margin))


def test_flips_are_counted_of_the_curve_that_turns_most():
    once = joined([0.5, 0.4, -0.1, -0.2], [0, -0.1, 0.2, 0])
    thrice = joined([0.5, -0.4, 0.1, -0.2], [0, -0.1, 0.2, 0])
    never = joined([0.5, 0.4, 0.1, 0.2], [0, 0.1, 0.2, 0])
    assert flips(Known([once, thrice, never]).curves(3)).tolist() == [1, 3, 0]
    margin = np.full((1, 2, 4), np.nan)
    assert np.isnan(flips(Curves(np.arange(4), margin, margin))).all()

"""Deletion and insertion, by known answers, golden numbers and an independent slow reference."""

import hashlib
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fxeval.contracts import Crop, Pairs, RowState
from fxeval.engine.forward_pool import ForwardPool
from fxeval.functional.fill_images import fill_images
from fxeval.functional.ranking import ranks, step_counts
from fxeval.metrics import removal_curves, threshold_crossings
from fxeval.metrics.removal_curves import Curves, area
from fxeval.tests import evidence
from fxeval.tests.rounding import allowance, assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

GOLDEN_MAP = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [5, 5, 5, 5], [0, 0, 0, 9]]).float()
GOLDEN_SCORES = [0.851943, 0.823941, 0.78636, 0.74587, 0.702731, 0.657495]
GREY = allowance(5)  # what rounding changes in grey values: one division and the mean of three


class Pixels(nn.Module):
    """The embedding is the grey image itself."""

    def forward(self, images):
        return images.mean(dim=1).flatten(1)


def pairs_of(*images):
    """Pairs (0, 1), (2, 3), ... of given (H, W) uint8 grey images."""
    stack = torch.stack(images).to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()
    rows = torch.arange(0, len(images), 2)
    return Pairs(
        "given", stack,
        tuple(hashlib.sha256(i.numpy().tobytes()).hexdigest() for i in stack),
        rows, rows + 1, torch.ones(len(rows), dtype=torch.bool), rows, rows,
    )  # fmt: skip


def evidence_of(model, pairs, *, threshold=None, batch_size=64):
    pool = ForwardPool(batch_size=batch_size)
    return evidence.evidence_of(pairs, model, threshold=threshold, pool=pool)


def trace(order, fill, steps, given):
    return removal_curves.trace(evidence.removal(given, order, fill), steps)


def crossings(order, fill, found, crossing_step, given):
    return threshold_crossings.crossings(evidence.removal(given, order, fill), found, crossing_step)


def golden(fill, threshold):
    image = (torch.arange(16) * 17).reshape(4, 4)
    pairs = pairs_of(image, torch.full((4, 4), 255))
    crop = Crop("golden", (4, 4), ((0.0, 0.0),) * 5)
    given = evidence_of(CountingModel(Pixels(), crop=crop), pairs, threshold=threshold)
    order = ranks(GOLDEN_MAP[None], None)
    found = trace(order, fill, 16, given)
    return found, crossings(order, fill, found, None, given)


def test_the_golden_deletion_curve_area_and_crossing():
    found, ((deletion, _),) = golden("black", 0.7)
    assert found.answer[0, 0, :6] == pytest.approx(GOLDEN_SCORES, abs=5e-7 + GREY)
    assert found.answer[0, 0, -1] == 0.0
    assert area(found.fraction, found.answer)[0, 0] == pytest.approx(0.5652107801, abs=5e-11 + GREY)
    assert deletion == (5 / 16, RowState.OK)


def test_with_the_mean_as_fill_the_golden_deletion_rises_and_never_crosses():
    found, ((deletion, insertion),) = golden("mean", 0.7)
    assert found.answer[0, 0, 0] == pytest.approx(0.851943, abs=5e-7 + GREY)
    assert found.answer[0, 0, -1] == pytest.approx(1.0, abs=GREY)
    assert deletion == (1.0, RowState.NOT_CROSSED)
    assert insertion == (0.0, RowState.START_BEYOND)


def slow_curves(net, pairs, row, order, fill, steps):
    """A loop over steps and pixels, one image at a time, in float64 with its network."""
    probe = pairs.images[pairs.probe[row]].double() / 255
    with torch.inference_mode():
        other = net(pairs.images[pairs.reference[row]][None].double() / 255)[0]
    filler = fill_images(probe[None], fill)[0]
    n = order.numel()
    found = []
    for start, end in ((probe, filler), (filler, probe)):
        line = []
        for count in step_counts(n, steps):
            image = start.clone().flatten(1)
            for pixel in range(n):
                if order[pixel] < count:
                    image[:, pixel] = end.flatten(1)[:, pixel]
            with torch.inference_mode():
                embedding = net(image.reshape(1, *probe.shape))[0]
            line.append(float(embedding @ other / embedding.norm() / other.norm()))
        found.append(line)
    return np.array(found)


@pytest.mark.parametrize("fill", ["blur", "mean", "black"])
def test_curves_equal_those_of_a_plain_loop(fill):
    pairs, net = make_pairs(3), ConvNet().eval()
    maps = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))
    maps[1] = (maps[1] > 0.7).float()  # many ties
    maps[2] = 0.25  # constant
    order = ranks(maps, [1, 2, 3])
    given = evidence_of(CountingModel(net), pairs)
    found = trace(order, fill, 7, given)
    exact = deepcopy(net).double()
    condition = condition_of(exact, pairs.images / 255, module=exact)
    terms = terms_of(net) + 14  # the blur has a kernel of 7 pixels, down and across
    for row in range(3):
        expected = slow_curves(exact, pairs, row, order[row], fill, 7)
        # Cosines are sums of products that may be as large together as 1.
        assert_rounded(found.answer[row], expected, terms=terms, condition=condition, scale=1)


def test_both_end_points_are_the_clean_and_the_filled_image():
    pairs, net = make_pairs(2), ConvNet().eval()
    given = evidence_of(CountingModel(net), pairs)
    order = ranks(torch.rand(2, 16, 16), None)
    found = trace(order, "blur", 5, given)
    deletion, insertion = found.answer[:, 0], found.answer[:, 1]
    np.testing.assert_array_equal(deletion[:, 0], insertion[:, -1])
    np.testing.assert_array_equal(deletion[:, -1], insertion[:, 0])


def test_forward_passes_are_two_k_minus_one_a_pair_and_shared_end_points():
    pairs, steps = make_pairs(5), 9
    model = CountingModel(ConvNet().eval())
    given = evidence_of(model, pairs, batch_size=1)  # no batch is filled up
    order = ranks(torch.rand(5, 16, 16), None)
    trace(order, "blur", steps, given)
    assert sum(model.batches) == 5 * 2 * (steps - 1) + len(pairs.images) + 5


def flips(native, threshold, *, crossing_step=None, counts=(0, 4, 8, 12, 16)):
    counts = np.array(counts)
    native = np.array(native, dtype=float)[None]
    margin = np.full_like(native, np.nan) if threshold is None else native - threshold
    given = evidence_of(CountingModel(ConvNet().eval()), make_pairs(1), threshold=threshold)
    order = ranks(torch.rand(1, 4, 4), None)
    (pair,) = crossings(order, "mean", Curves(counts, native, margin), crossing_step, given)
    return pair


UP, DOWN = [0.0, 0.2, 0.6, 0.8, 0.9], [0.9, 0.8, 0.6, 0.2, 0.0]


def test_the_first_point_beyond_the_threshold_counts():
    assert flips([DOWN, UP], 0.5) == ((12 / 16, RowState.OK), (8 / 16, RowState.OK))


def test_a_similarity_equal_to_the_threshold_is_a_match():
    assert flips([DOWN, UP], 0.6) == ((12 / 16, RowState.OK), (8 / 16, RowState.OK))


def test_a_later_return_does_not_undo_the_first_crossing():
    wavy = [0.9, 0.4, 0.9, 0.4, 0.0]
    assert flips([wavy, UP], 0.5)[0] == (4 / 16, RowState.OK)


def test_a_pair_that_is_no_match_has_no_fraction():
    low = [0.3, 0.2, 0.1, 0.1, 0.0]
    for value, state in flips([low, low[::-1]], 0.5):
        assert np.isnan(value)
        assert state is RowState.EXCLUDED


def test_a_model_without_threshold_has_no_fractions():
    for value, state in flips([DOWN, UP], None):
        assert np.isnan(value)
        assert state is RowState.EXCLUDED


def test_refinement_finds_the_exact_pixel_of_a_full_scan():
    pairs, net = make_pairs(4), ConvNet().eval()
    order = ranks(torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(5)), None)
    free = trace(order, "mean", 256, evidence_of(CountingModel(net), pairs)).answer
    threshold = float((free[:, 0, 0].min() + free[:, 0, -1].max()) / 2)
    threshold = min(threshold, float(free[:, 0, 0].min()))
    given = evidence_of(CountingModel(net), pairs, threshold=threshold)
    exact = crossings(order, "mean", trace(order, "mean", 256, given), None, given)
    coarse = trace(order, "mean", 4, given)
    refined = crossings(order, "mean", coarse, 1, given)
    rough = crossings(order, "mean", coarse, None, given)
    for row in range(4):
        for way in range(2):
            # a coarse curve may miss an earlier excursion; inside the interval it found it is exact
            assert exact[row][way][0] <= refined[row][way][0] <= rough[row][way][0]
            value, beyond = refined[row][way][0], free[row, way]
            if refined[row][way][1] is RowState.OK:
                at = round(value * 256)
                crossed = beyond < threshold if way == 0 else beyond >= threshold
                assert crossed[at]
                previous = [c for c in step_counts(256, 4) if c < at][-1]
                assert not crossed[previous + 1 : at].any()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20))
def test_an_area_lies_between_the_extremes_of_its_curve(curve):
    fraction = np.linspace(0, 1, len(curve))
    found = area(fraction, np.array(curve))
    assert min(curve) - 1e-12 <= found <= max(curve) + 1e-12


def test_on_an_additive_model_the_true_order_deletes_best_and_its_inverse_worst():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(1, 256, (6, 6), generator=generator)
    pairs = pairs_of(image, image)
    given = evidence_of(CountingModel(Pixels()), pairs)
    truth = image.float()[None]

    def deletion(map_):
        order = ranks(map_, None)
        found = trace(order, "black", 36, given)
        return area(found.fraction, found.answer)[0, 0]

    others = [deletion(torch.rand(1, 6, 6, generator=generator)) for _ in range(20)]
    assert deletion(truth) < min(others)
    assert deletion(-truth) > max(others)

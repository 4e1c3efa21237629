"""Maps of known worth against slow references, by hand and by Hypothesis."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fxeval.functional.known_maps import (
    blurred_oracle,
    change,
    inverse_oracle,
    oracle,
    share_inside,
)
from fxeval.functional.ranking import ranks
from fxeval.tests.rounding import assert_rounded


def test_the_change_is_the_sum_of_the_grey_levels_of_all_channels():
    images = torch.zeros(1, 3, 2, 2)
    others = images.clone()
    others[0, :, 0, 1] = torch.tensor([3.0, 0.0, 252.0]) / 255
    others[0, 2, 1, 0] = 6 / 255
    assert change(images, others).tolist() == [[[0.0, 255.0], [6.0, 0.0]]]
    assert torch.equal(change(images, others), change(others, images))


def test_the_oracle_ranks_by_the_change_and_draws_the_rest():
    changes = torch.tensor([[[0.0, 7.0, 7.0], [2.0, 0.0, 9.0]]])
    orders = {
        tuple(ranks(oracle(changes, [seed]), [0])[0].argsort().tolist()) for seed in range(30)
    }
    assert {order[0] for order in orders} == {5}
    assert {frozenset(order[1:3]) for order in orders} == {frozenset({1, 2})}
    assert {order[3] for order in orders} == {3}
    assert {order[1] for order in orders} == {1, 2}  # ties are drawn
    assert {order[4] for order in orders} == {0, 4}
    turned = ranks(inverse_oracle(changes, [4]), [0])
    assert torch.equal(turned, 5 - ranks(oracle(changes, [4]), [0]))


def test_no_two_pixels_of_the_oracle_tie():
    changes = torch.zeros(2, 112, 112)
    changes[:, 40:50, 20:90] = 30.0
    for one in oracle(changes, [1, 2]):
        assert len(torch.unique(one)) > 0.995 * one.numel()


def test_the_blurred_oracle_is_the_plain_convolution_of_the_oracle():
    changes = torch.zeros(1, 20, 14)
    changes[0, 3:9, 2:8] = 40.0
    sharp = oracle(changes, [5])[0].double()
    radius = 6  # three sigmas of 2
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / 8.0)
    weights /= weights.sum()
    padded = np.pad(sharp.numpy(), radius, mode="reflect")
    expected = np.zeros((20, 14))
    for y in range(20):
        for x in range(14):
            window = padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            expected[y, x] = weights @ window @ weights
    found = blurred_oracle(changes, [5])[0]
    assert_rounded(found, torch.from_numpy(expected), terms=13, scale=float(sharp.max()))


def test_maps_do_not_depend_on_the_others():
    changes = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (3, 12, 12))).float()
    for make in (oracle, blurred_oracle, inverse_oracle):
        together = make(changes, [1, 2, 3])
        for row in range(3):
            assert torch.equal(make(changes[row : row + 1], [row + 1])[0], together[row])
        assert make(changes[:0], []).shape == (0, 12, 12)


def test_the_energy_is_that_above_the_smallest_value():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 1.0]], [[-5.0, -5.0], [-5.0, -5.0]]])
    inside = torch.tensor([[[False, True], [False, False]]] * 2)
    assert share_inside(maps, inside).tolist() == pytest.approx([2 / 3, 1 / 4], abs=1e-15)


@given(st.integers(0, 2**32), st.integers(-60, 60), st.integers(-8, 8))
def test_the_share_of_the_energy_is_the_same_for_a_scaled_and_shifted_map(seed, power, shift):
    """Powers of two and whole numbers: every operation is exact."""
    draws = np.random.default_rng(seed)
    maps = torch.from_numpy(draws.integers(0, 100, (2, 5, 4))).double()
    inside = torch.from_numpy(draws.random((2, 5, 4)) < 0.3)
    found = share_inside(maps, inside)
    assert torch.equal(share_inside((maps + shift) * 2.0**power, inside), found)
    assert bool(((found >= 0) & (found <= 1)).all())


def test_huge_maps_have_a_share_of_energy():
    maps = torch.tensor([[[-3e38, 3e38, 3e38]]])
    inside = torch.tensor([[[True, True, False]]])
    assert share_inside(maps, inside).item() == 0.5

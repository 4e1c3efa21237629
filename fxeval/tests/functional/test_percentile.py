"""A selection by percentile is no fraction of the pixels; exactly k pixels are."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from fxeval.functional.ranking import count, counts_at_percentile, ranks

SIZE = (112, 112)
N = 112 * 112


def upsampled(side: int, mode: str, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).random((1, 1, side, side)).astype(np.float32)
    more = {} if mode == "nearest" else {"align_corners": False}
    return interpolate(torch.from_numpy(values), SIZE, mode=mode, **more)[0]


def sparse(pixels: int) -> torch.Tensor:
    found = torch.zeros(1, N)
    found[0, :pixels] = torch.arange(pixels) + 1.0
    return found.view(1, *SIZE)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_map_has_all_of_its_pixels_at_its_percentile(value):
    assert counts_at_percentile(torch.full((1, *SIZE), value), 0.01).tolist() == [N]


def test_so_has_a_map_of_which_fewer_pixels_than_the_fraction_differ_from_zero():
    assert counts_at_percentile(sparse(64), 0.01).tolist() == [N]  # 0.51 % of the pixels
    assert counts_at_percentile(sparse(126), 0.01).tolist() == [126]
    assert pytest.approx(0.0051, abs=5e-5) == 64 / N


@pytest.mark.parametrize(("side", "low", "high"), [(7, 0.0204, 0.0205), (3, 0.109, 0.113)])
def test_copies_of_a_coarse_cell_are_selected_whole(side, low, high):
    for seed in range(6):
        [found] = counts_at_percentile(upsampled(side, "nearest", seed), 0.01)
        assert low <= found / N <= high


def test_a_bilinear_map_of_3_by_3_can_have_three_times_as_many():
    found = [counts_at_percentile(upsampled(3, "bilinear", seed), 0.01)[0] / N for seed in range(9)]
    assert min(found) >= 0.01
    assert 0.028 < max(found) < 0.033


def test_without_ties_it_is_the_fraction():
    distinct = torch.from_numpy(np.random.default_rng(0).permutation(N).astype(np.float32))
    for fraction in (0.005, 0.01, 0.02, 0.05, 0.1):
        [found] = counts_at_percentile(distinct.view(1, *SIZE), fraction)
        assert abs(found - count(fraction, N)) <= 1


def test_the_pixels_at_the_percentile_are_the_first_of_every_order():
    maps = torch.cat(
        [upsampled(7, "nearest", 1), upsampled(3, "bilinear", 2), sparse(64), sparse(126)]
    )
    numbers = counts_at_percentile(maps, 0.01)
    for map_, rank, k in zip(maps, ranks(maps, [3, 4, 5, 6]), numbers, strict=True):
        bound = np.percentile(map_.double().numpy(), 99)
        assert set(np.flatnonzero(map_.flatten().numpy() >= bound)) == set(
            np.flatnonzero(rank.numpy() < k)
        )


def test_exactly_k_pixels_are_removed_whatever_the_map():
    maps = torch.cat([torch.zeros(1, *SIZE), sparse(64), upsampled(3, "nearest", 0)])
    for fraction, k in ((0.005, 63), (0.01, 125), (0.02, 251), (0.05, 627), (0.1, 1254)):
        assert count(fraction, N) == k
        assert (ranks(maps, [1, 2, 3]) < k).sum(dim=1).tolist() == [k] * 3
    sizes = {(112, 112): 125, (150, 150): 225, (160, 160): 256, (112, 96): 108}
    assert {size: count(0.01, size[0] * size[1]) for size in sizes} == sizes

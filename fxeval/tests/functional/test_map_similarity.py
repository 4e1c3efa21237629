import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.errors import ExplainerContractError
from fxeval.functional.map_similarity import norm01, pooled, residuals, spearman
from fxeval.tests.rounding import FLOAT64, assert_rounded


def _golden_maps() -> torch.Tensor:
    y, x = np.mgrid[0:112, 0:112].astype(np.float64)
    bumps = [np.exp(-((y - 60) ** 2 + (x - x0) ** 2) / 450) for x0 in (56, 66)]
    wave = np.sin(2 * np.pi * x / 28) * np.cos(2 * np.pi * y / 16)
    maps = [(m - m.min()) / (m.max() - m.min()) for m in (*bumps, wave)]
    return torch.from_numpy(np.stack(maps).reshape(3, -1))


def test_the_golden_correlations_of_the_specification_are_met():
    a, b, c = _golden_maps()
    found = spearman(torch.stack([a, a, a]), torch.stack([b, c, a]))
    assert found == pytest.approx([0.91068340, -0.00012713, 1.0], abs=5e-9)
    assert found[2] == 1.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=40))
def test_scipy_agrees_on_rows_full_of_ties(pairs):
    x, y = np.array(pairs, dtype=np.float64).T
    found = spearman(torch.from_numpy(np.stack([x, y])), torch.from_numpy(np.stack([y, x])))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(found).all()
    else:
        assert found == pytest.approx([stats.spearmanr(x, y).statistic] * 2, abs=1e-12)


def test_equal_maps_give_exactly_one_and_their_negatives_minus_one():
    maps = torch.rand(4, 12544, generator=torch.Generator().manual_seed(0))
    assert spearman(maps, maps**3).tolist() == [1.0] * 4
    assert spearman(maps, -maps).tolist() == [-1.0] * 4


def test_a_map_without_an_order_has_no_correlation():
    flat, ordered = torch.full((1, 9), 2.0), torch.arange(9.0)[None]
    assert np.isnan(spearman(flat, ordered)).all()
    assert np.isnan(spearman(ordered, flat)).all()
    assert np.isnan(spearman(flat, flat)).all()
    assert np.isnan(spearman(torch.ones(1, 1), torch.ones(1, 1))).all()
    assert spearman(torch.zeros(0, 9), torch.zeros(0, 9)).shape == (0,)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused_rather_than_ranked(bad):
    maps = torch.arange(18.0).view(2, 9)
    broken = maps.clone()
    broken[1, 3] = bad
    for pair in ((maps, broken), (broken, maps)):
        with pytest.raises(ExplainerContractError, match="first in map 1"):
            spearman(*pair)


@pytest.mark.parametrize("shapes", [((2, 9), (2, 8)), ((9,), (9,)), ((1, 3, 3), (1, 3, 3))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="two"):
        spearman(*(torch.zeros(shape) for shape in shapes))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4),
    st.sampled_from([1e-3, 1.0, 64.0]),
    st.integers(-8, 8),
)
def test_the_unit_scale_is_reached_at_both_ends_and_forgets_scale_and_offset(values, scale, offset):
    map_ = torch.tensor(values, dtype=torch.float64).view(1, 2, 2)
    scaled, usable = norm01(map_)
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        assert not usable[0]
        assert not scaled.any()
        return
    assert usable[0]
    assert scaled.flatten().tolist() == [(value - low) / (high - low) for value in values]
    if high - low > 1e-3:
        moved, _ = norm01(map_ * scale + offset)
        # Scaled and shifted, it was rounded by its largest value, of which the spread is left.
        condition = (max(abs(low), abs(high)) * scale + abs(offset)) / ((high - low) * scale)
        assert_rounded(moved, scaled, terms=4, condition=condition, unit=FLOAT64)


def test_a_tiny_map_is_scaled_and_a_constant_or_broken_one_is_not():
    nan, inf = float("nan"), float("inf")
    maps = torch.tensor([[0.0, 1e-9], [7.0, 7.0], [0.0, 0.0], [nan, 1.0], [inf, 1.0], [-inf, 1.0]])
    scaled, usable = norm01(maps[:, None])
    assert usable.tolist() == [True, False, False, False, False, False]
    assert scaled[:, 0].tolist() == [[0.0, 1.0]] + [[0.0, 0.0]] * 5
    assert len(norm01(maps[:0, None])[0]) == 0


def test_the_residuals_of_three_small_maps_are_those_made_by_hand():
    maps = torch.tensor(
        [[[0.0, 1.0], [0.5, 0.25]], [[1.0, 0.0], [0.5, 0.75]], [[0.0, 0.5], [1.0, 0.0]]],
        dtype=torch.float64,
    )
    everyone = torch.ones(3, dtype=torch.bool)
    three = residuals(maps, [7, 8, 9], everyone)
    assert three.tolist() == [
        [[-0.5, 0.75], [-0.25, -0.125]],
        [[1.0, -0.75], [-0.25, 0.625]],
        [[-0.5, 0.0], [0.5, -0.5]],
    ]
    # The first and the last are of one person: only the map between them is of somebody else.
    two = residuals(maps, [7, 8, 7], everyone)
    assert two.tolist() == [
        [[-1.0, 1.0], [0.0, -0.5]],
        [[1.0, -0.75], [-0.25, 0.625]],
        [[-1.0, 0.5], [0.5, -0.75]],
    ]
    # A map that is left out is in nobody's mean.
    without = residuals(maps, [7, 8, 9], torch.tensor([True, True, False]))
    assert without[0].tolist() == [[-1.0, 1.0], [0.0, -0.5]]
    assert not without[2].any()


def test_equal_maps_and_maps_of_one_person_leave_nothing_that_has_an_order():
    generator = torch.Generator().manual_seed(3)
    one = torch.rand(1, 112, 112, generator=generator)
    small, usable = pooled(one.expand(7, -1, -1))
    left = residuals(small, list(range(7)), usable)
    assert not left.any()
    assert np.isnan(spearman(left.flatten(1), left.flatten(1))).all()
    several, usable = pooled(torch.rand(3, 112, 112, generator=generator))
    assert not residuals(several, [4, 4, 4], usable).any()
    assert residuals(several, [4, 4, 5], usable).flatten(1).any(1).all()
    assert residuals(several[:0], [], usable[:0]).shape == (0, 28, 28)
    with pytest.raises(ValueError, match="2 identities"):
        residuals(several, [4, 5], usable)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.integers(0, 2**31),
)
def test_a_plain_loop_gives_the_same_residuals(identities, seed):
    generator = torch.Generator().manual_seed(seed)
    n = len(identities)
    small, usable = (
        torch.rand(n, 5, 6, generator=generator).double(),
        torch.rand(n, generator=generator) > 0.2,
    )
    found = residuals(small, identities, usable).numpy()
    for i in range(n):
        others = [
            small[j].numpy() for j in range(n) if identities[j] != identities[i] and usable[j]
        ]
        expected = np.zeros((5, 6))
        if usable[i] and others:
            expected = small[i].numpy() - sum(others) / len(others)
        assert np.abs(found[i] - expected).max() <= 0.5e-7 + 1e-12


@pytest.mark.parametrize("size", [(112, 112), (56, 84), (100, 150), (160, 160), (5, 28)])
def test_pooling_gives_the_mean_of_each_cell_by_area(size):
    height, width = size
    maps = torch.rand(2, height, width, generator=torch.Generator().manual_seed(1)).double()
    small, usable = pooled(maps)
    assert usable.all()
    assert small.flatten(1).amin(1).tolist() == [0.0, 0.0]
    assert small.flatten(1).amax(1).tolist() == [1.0, 1.0]
    # Each pixel as 28 x 28 equal parts, so that every cell has whole ones.
    fine = maps.repeat_interleave(28, 1).repeat_interleave(28, 2)
    plain = fine.reshape(2, 28, height, 28, width).mean((2, 4))
    expected, _ = norm01(plain)
    assert (small - expected).abs().max() <= 1e-9


def test_a_map_without_an_order_or_with_broken_pixels_is_unusable_once_pooled():
    maps = torch.rand(5, 112, 112, generator=torch.Generator().manual_seed(2))
    maps[1], maps[2, 3, 4], maps[3, 0, 0] = 0.3, float("nan"), float("inf")
    checks = torch.arange(112)[:, None] + torch.arange(112)
    maps[4] = (checks % 2).float()  # equal in every cell of four by four
    small, usable = pooled(maps)
    assert usable.tolist() == [True, False, False, False, False]
    assert not small[1:].any()


def test_a_plateau_stays_a_plateau_whatever_the_size():
    for size in (112, 150):
        maps = torch.full((1, size, size), 0.1)
        maps[:, :10, :10] = 0.7
        small, _ = pooled(maps)
        assert len(small.unique()) <= 4
        assert (small == 0.0).sum() >= 700

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.errors import ExplainerContractError
from fxeval.functional.map_similarity import norm01, spearman
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

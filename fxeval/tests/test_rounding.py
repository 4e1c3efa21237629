"""The bound of numerical tests: wide enough for any processor, narrow enough to see an error."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fxeval.tests.rounding import (
    FLOAT32,
    FLOAT64,
    allowance,
    assert_rounded,
    condition_of,
    terms_of,
)


def drawn(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(64, n))


@pytest.mark.parametrize("n", [1, 10, 1000, 20000])
def test_sums_in_any_order_stay_within_the_bound(n):
    """One after the other in float32 rounds most; whatever a processor does lies between."""
    values = drawn(n, n).astype(np.float32)
    exact = values.astype(np.float64).sum(axis=1)
    condition = float(np.abs(values).sum(axis=1).max() / np.abs(exact).max())
    one_by_one = np.zeros(64, np.float32)
    for column in values.T:
        one_by_one += column
    turned = np.zeros(64, np.float32)
    for column in values.T[::-1]:
        turned += column
    for found in (one_by_one, turned, values.sum(axis=1)):
        error = np.abs(found - exact).max() / np.abs(exact).max()
        assert error <= allowance(n, condition)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]), st.integers(0, 63))
def test_a_planted_thousandth_of_the_largest_value_is_always_seen(seed, scale, place):
    exact = scale * drawn(1, seed)[:, 0]
    assert_rounded(exact.astype(np.float32), exact, terms=1000)
    with pytest.raises(AssertionError, match="rounding may change"):
        assert_rounded(1.001 * exact, exact, terms=1000)
    wrong = exact.copy()
    wrong[place] += 1e-3 * np.abs(exact).max()
    with pytest.raises(AssertionError, match=f"at the {place}th value"):
        assert_rounded(wrong, exact, terms=1000)


def test_a_bound_that_could_hide_a_thousandth_is_refused():
    with pytest.raises(ValueError, match="Compare in float64"):
        assert_rounded([1.0], [1.0], terms=100, condition=100)
    with pytest.raises(ValueError, match="Compare in float64"):
        assert_rounded([1.0], [1.0], terms=100, scale=100)
    assert_rounded([1.0], [1.0], terms=100, condition=100, unit=FLOAT64)


def test_what_is_not_finite_must_be_equal_and_shapes_too():
    assert_rounded([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], terms=1)
    with pytest.raises(AssertionError):
        assert_rounded([np.nan, 1.0], [1.0, np.nan], terms=1)
    with pytest.raises(AssertionError):
        assert_rounded([1.0, np.nan], [1.0, 2.0], terms=1)
    with pytest.raises(AssertionError, match=r"expected shape \(1,\), got \(2,\)"):
        assert_rounded([1.0, 1.0], [1.0], terms=1)
    with pytest.raises(AssertionError):
        assert_rounded([1e-9], [0.0], terms=1)  # nothing was summed: nothing is rounded


def test_the_condition_is_that_of_a_cancelling_difference():
    one = torch.full((3,), 2.0, dtype=torch.float64)
    assert condition_of(lambda x: x * 3, one) == pytest.approx(1, abs=0.3)
    assert condition_of(lambda x: x - 1.99, one) == pytest.approx(200, rel=0.3)
    assert condition_of(lambda x: 0 * x + 7, one) == 1  # never less


def test_weights_are_shaken_too_and_come_back():
    net = nn.Linear(1, 1).double()
    with torch.no_grad():
        net.weight.fill_(2), net.bias.fill_(-1.99)
    before = [one.clone() for one in net.parameters()]
    one = torch.ones(1, 1, dtype=torch.float64)
    alone = condition_of(lambda x: net(x), one)
    together = condition_of(lambda x: net(x), one, module=net)
    assert 50 < alone < together < 700
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_terms_are_the_products_behind_one_output():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 5))
    assert terms_of(net) == 27 + 100
    assert terms_of(net, passes=2) == 254


def test_how_much_of_the_bound_was_used_is_noted_if_asked(tmp_path, monkeypatch):
    path = tmp_path / "shares.jsonl"
    monkeypatch.setenv("FXEVAL_ROUNDING_LOG", str(path))
    assert_rounded([1 + FLOAT32], [1.0], terms=1)
    found = json.loads(path.read_text())
    assert found["test"].endswith("::test_how_much_of_the_bound_was_used_is_noted_if_asked")
    assert found["error"] == pytest.approx(FLOAT32)
    assert found["allowed"] == pytest.approx(6 * FLOAT32)

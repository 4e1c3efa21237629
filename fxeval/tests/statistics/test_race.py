"""Gaffke's bound against scipy, a plain recursion, bisection, and draws from the simplex."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.statistics.race import TOLERANCE, gaffke, gaffke_tails, race, race_lost

TAIL = 0.025


def recursion(x, t):
    """The race, one state at a time."""
    above, below = [one - t for one in x if one > t], [t - one for one in x if one < t]
    known = {}

    def won(i, j):
        if i == len(above) or j == len(below):
            return float(i == len(above))
        if (i, j) not in known:
            first = below[j] / (above[i] + below[j])
            known[i, j] = first * won(i + 1, j) + (1 - first) * won(i, j + 1)
        return known[i, j]

    return won(0, 0)


def bisected(y, edge, tail=TAIL):
    x, low, high = [*y, edge], min(y), edge
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if recursion(x, middle) >= 1 - tail else (middle, high)
    return high


VALUES = st.lists(st.integers(0, 12).map(lambda k: k / 12), min_size=1, max_size=14)


@settings(deadline=None, max_examples=60)
@given(VALUES, st.floats(-0.1, 1.1))
def test_the_race_is_the_plain_recursion(x, t):
    assert race(x, t) == pytest.approx(recursion(x, t), abs=1e-14)
    assert race_lost(x, t) == pytest.approx(1 - recursion(x, t), abs=1e-14)


@pytest.mark.parametrize("t", [0.05, 0.2, 0.35, 0.6])
def test_the_race_is_what_draws_from_the_simplex_give(t):
    rng = np.random.default_rng(0)
    x = np.array([0.0, 0.0, 0.1, 0.2, 0.2, 0.5, 0.9, 1.0])
    drawn = rng.dirichlet(np.ones(len(x)), 200_000) @ x
    expected = (drawn <= t).mean()
    error = math.sqrt(expected * (1 - expected) / len(drawn))
    assert race(x, t) == pytest.approx(expected, abs=5 * error + 1e-9)


def test_small_probabilities_keep_their_digits():
    # One value far below: P(D_1 < 1e-3 ...) = P(Beta(1, 9) > 0.999).
    x = np.array([0.0, *[1.0] * 9])
    assert race(x, 1e-3) == pytest.approx((1e-3) ** 9, rel=1e-12)
    assert race_lost(1 - x, 1 - 1e-3) == pytest.approx((1e-3) ** 9, rel=1e-9)


def test_races_of_many_rows_are_those_of_each_row():
    rng = np.random.default_rng(1)
    x = rng.random((40, 25)) ** rng.integers(1, 9, (40, 1))
    x[:10] = x[:10].round(1)
    t = x.mean(axis=1) * rng.random(40) * 2
    one_by_one = [float(race(one, line)) for one, line in zip(x, t, strict=True)]
    assert race(x, t).tolist() == one_by_one
    cube = race(x.reshape(4, 10, 25), t.reshape(4, 10))
    assert cube.ravel().tolist() == one_by_one


@pytest.mark.parametrize("n", [1, 2, 5, 30, 100, 400])
def test_of_zeros_and_ones_the_bounds_are_clopper_and_pearsons(n):
    hits = np.unique([0, 1, n // 10, n // 3, n // 2, n - 1, n])
    y = (np.arange(n) < hits[:, None]).astype(float)
    low, high = gaffke(y, 0.0, 1.0)
    for k, a, b in zip(hits, low, high, strict=True):
        exact = stats.binomtest(int(k), n).proportion_ci(0.95, "exact")
        assert (a, b) == pytest.approx((exact.low, exact.high), abs=1e-11)


@pytest.mark.parametrize(("better", "worse"), [(7, 1), (9, 1), (5, 0), (0, 4), (12, 12), (40, 3)])
def test_of_paired_outcomes_the_p_values_are_mcnemars(better, worse):
    y = np.repeat([1.0, -1.0, 0.0], [better, worse, 20])
    above, below = gaffke_tails(y, -1.0, 1.0, 0.0)
    n = better + worse
    assert above == pytest.approx(stats.binomtest(better, n, alternative="greater").pvalue)
    assert below == pytest.approx(stats.binomtest(better, n, alternative="less").pvalue)


@pytest.mark.parametrize("n", [1, 2, 30, 500])
def test_values_that_are_all_equal_have_the_bounds_in_closed_form(n):
    low, high = gaffke(np.full(n, 0.2), -1.0, 3.0)
    share = 1 - 0.025 ** (1 / n)
    assert (low, high) == pytest.approx((0.2 - 1.2 * share, 0.2 + 2.8 * share), abs=1e-11)
    assert gaffke(np.full(n, 3.0), -1.0, 3.0)[1] == 3.0


@settings(deadline=None, max_examples=40)
@given(VALUES, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_bound_is_that_of_bisection_on_the_safe_side(y, confidence):
    low, high = gaffke(y, 0.0, 1.5, confidence)
    tail = (1 - confidence) / 2
    assert high == pytest.approx(bisected(y, 1.5, tail), abs=1e-12)
    assert -low == pytest.approx(bisected([-one for one in y], 0.0, tail), abs=1e-12)
    x, reach = [*y, 1.5], 1.5 - min(y)
    assert race_lost(x, high) <= tail
    assert race_lost(x, high - 3 * TOLERANCE * reach) >= tail * (1 - 1e-9)
    above, below = gaffke_tails(y, 0.0, 1.5, high)
    assert below <= tail
    assert gaffke_tails(y, 0.0, 1.5, low)[0] <= tail
    assert above >= tail


@settings(deadline=None, max_examples=30)
@given(VALUES, st.integers(0, 13), st.floats(0, 1))
def test_no_bound_falls_when_a_value_rises(y, place, to):
    place %= len(y)
    raised = [*y]
    raised[place] = max(y[place], to)
    for before, after in zip(gaffke(y, 0.0, 1.0), gaffke(raised, 0.0, 1.0), strict=True):
        assert after >= before - 1e-12


@settings(deadline=None, max_examples=30)
@given(VALUES, st.floats(-50, 50), st.floats(0.01, 100))
def test_bounds_move_with_the_values_and_their_edges(y, shift, scale):
    y = np.array(y)
    low, high = gaffke(y, 0.0, 1.0)
    moved = gaffke(shift + scale * y, shift, shift + scale)
    assert moved == pytest.approx((shift + scale * low, shift + scale * high), abs=1e-10 * 150)
    turned = gaffke(-y, -1.0, 0.0)
    assert turned == pytest.approx((-high, -low), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(VALUES, st.floats(0, 5))
def test_a_farther_edge_gives_a_wider_bound(y, beyond):
    near, far = gaffke(y, 0.0, 1.0), gaffke(y, -beyond, 1.0 + beyond)
    assert far[0] <= near[0] + 1e-12
    assert far[1] >= near[1] - 1e-12


@pytest.mark.parametrize("scale", [1e300, 1.0, 1e-300, 5e-310])
def test_huge_and_tiny_values_have_bounds(scale):
    y = np.array([0.0, 0.25, 0.5, 0.5, 1.0])
    found = np.array(gaffke(y * scale, -scale, scale)) / scale
    assert found == pytest.approx(np.array(gaffke(y, -1.0, 1.0)), rel=1e-6)
    found = np.array(gaffke_tails(y * scale, -scale, scale, 0.5 * scale))
    assert found == pytest.approx(np.array(gaffke_tails(y, -1.0, 1.0, 0.5)), rel=1e-6)


def test_a_far_edge_and_a_narrow_sample_far_from_zero_have_bounds():
    y = 1e6 + np.arange(20) / 1e3
    low, high = gaffke(y, 1e6, 1e6 + 1)
    assert 1e6 < low < y.mean() < high < 1e6 + 1
    assert low - 1e6 == pytest.approx(float(gaffke(y - 1e6, 0.0, 1.0)[0]), abs=1e-8)
    far = gaffke(np.arange(20) / 20, 0.0, 1e12)
    assert far[0] > 0.2
    assert far[1] == pytest.approx(1e12 * (1 - 0.025 ** (1 / 20)), rel=1e-3)


def test_a_side_without_an_edge_has_no_bound():
    y = np.array([[0.1, 0.2], [0.3, 0.4]])
    low, high = gaffke(y, [-math.inf, 0.0], [1.0, math.inf])
    assert low.tolist() == [-math.inf, gaffke(y[1], 0.0, 1.0)[0]]
    assert high.tolist() == [gaffke(y[0], 0.0, 1.0)[1], math.inf]
    above, below = gaffke_tails(y, [-math.inf, 0.0], [1.0, math.inf], 0.1)
    assert (above[0], below[1]) == (1.0, 1.0)
    assert 0.0 < above[1] < 1.0


def test_the_solver_needs_few_races(monkeypatch):
    from fxeval.statistics import race as module

    calls = []

    def counted(x, t):
        calls.append(len(x))
        return race_lost(x, t)

    monkeypatch.setattr(module, "race_lost", counted)
    rng = np.random.default_rng(2)
    for y in (rng.random((50, 60)), rng.beta(1.96, 0.04, (50, 60)), rng.random((50, 60)) < 0.02):
        calls.clear()
        gaffke(y, 0.0, 1.0)
        assert len(calls) <= 14  # bisection to the same width takes 43

"""The betting confidence sequence: fair games, a slow reference, stopping whenever one likes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.seeding import generator_of
from fxeval.statistics.betting import bets, betting_interval, betting_tails, log_capital

VALUES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=25)


def slow_capitals(x, m, confidence):
    """Return both capitals after each value, by the definition, value by value."""
    alpha, up, down, found = 1.0 - confidence, 1.0, 1.0, []
    total, squares = 0.5, 0.25
    for t, value in enumerate(x, start=1):
        variance = squares / t
        bet = math.sqrt(2.0 * math.log(2.0 / alpha) / (variance * t * math.log(t + 1.0)))
        up *= 1.0 + min(bet, 0.75 / m if m else math.inf) * (value - m)
        down *= 1.0 - min(bet, 0.75 / (1.0 - m) if m < 1.0 else math.inf) * (value - m)
        total += value
        squares += (value - total / (t + 1)) ** 2
        found.append((up, down))
    return found


@settings(deadline=None)
@given(VALUES, st.sampled_from([0.0, 0.2, 0.5, 0.99, 1.0]))
def test_capitals_are_those_of_the_definition(x, m):
    for t, (up, down) in enumerate(slow_capitals(x, m, 0.95), start=1):
        some = np.array(x[:t])
        assert math.exp(log_capital(some, m, 0.95)[-1]) == pytest.approx(up, rel=1e-9)
        assert math.exp(log_capital(1 - some, 1 - m, 0.95)[-1]) == pytest.approx(down, rel=1e-9)
        assert betting_tails(some, 0.0, 1.0, m)[0] == pytest.approx(min(1.0, 1 / up), rel=1e-9)


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_an_interval_is_what_a_grid_of_martingales_leaves(share):
    x = (generator_of("grid", str(share)).random(90) < share).astype(float)
    grid = np.linspace(0.0, 1.0, 2001)
    left = [m for m in grid if max(slow_capitals(x, m, 0.9)[-1]) < 2 / 0.1]
    low, high = betting_interval(x, 0.0, 1.0, 0.9)
    assert (low, high) == pytest.approx((left[0], left[-1]), abs=1 / 2000)
    assert 0.0 <= low < x.mean() < high <= 1.0
    assert high - low < 0.5


@settings(deadline=None)
@given(VALUES, st.floats(0.01, 0.99), st.floats(0.001, 0.5))
def test_capital_falls_with_the_mean_that_it_bets_against(x, m, more):
    some = np.array(x)
    first, second = (log_capital(some, one, 0.95)[-1] for one in (m, min(1.0, m + more)))
    assert second <= first + 1e-12


@settings(deadline=None)
@given(VALUES, st.integers(1, 24), st.floats(0.0, 1.0))
def test_no_bet_knows_the_value_that_it_is_on(x, at, other):
    some = np.array(x)
    changed = some.copy()
    changed[at:] = other
    assert (bets(some, 0.95)[: at + 1] == bets(changed, 0.95)[: at + 1]).all()
    start, end = log_capital(some, 0.4, 0.95)[:at], log_capital(changed, 0.4, 0.95)[:at]
    assert (start == end).all()


@settings(deadline=None)
@given(VALUES, st.floats(-5.0, 5.0), st.floats(0.1, 9.0))
def test_edges_only_move_and_stretch_an_interval(x, edge, span):
    low, high = betting_interval(x, 0.0, 1.0)
    moved = np.clip(edge + span * np.array(x), edge, edge + span)
    found = betting_interval(moved, edge, edge + span)
    assert found == pytest.approx((edge + span * low, edge + span * high), abs=1e-6 * span)
    assert low <= np.mean(x) <= high


def capitals_of_runs(x, m):
    """Return (runs, G) logarithms of the capital that bets on a mean above m."""
    return np.stack([log_capital(one, m, 0.95) for one in x])


def two_point(rng, shape):
    return (rng.random(shape) < 0.05).astype(float), 0.05


def skewed(rng, shape):
    return rng.beta(0.1, 1.9, shape), 0.05


def light(rng, shape):
    return rng.beta(3.0, 9.0, shape), 0.25


def mostly_alike(rng, shape):
    return np.where(rng.random(shape) < 0.02, 1.0, 0.1 + 0.02 * rng.random(shape)), 0.1278


@pytest.mark.parametrize("law", [two_point, skewed, light, mostly_alike], ids=lambda f: f.__name__)
def test_who_stops_whenever_they_like_is_wrong_no_more_often_than_promised(law):
    runs, most = 1200, 400
    x, mean = law(generator_of("stops", law.__name__), (runs, most))
    assert abs(x.mean() - mean) < 4 * x.std() / x.size**0.5  # the line is the truth
    for values, m in ((x, mean), (1.0 - x, 1.0 - mean)):
        wrong = (capitals_of_runs(values, m) >= math.log(2 / 0.05)).any(axis=1).mean()
        assert wrong <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / runs)


def test_a_plain_interval_is_wrong_far_more_often_when_one_stops_at_will():
    x, mean = light(generator_of("stops plainly"), (600, 400))
    n = np.arange(1, 401)
    means = x.cumsum(axis=1) / n
    errors = np.sqrt(((x**2).cumsum(axis=1) / n - means**2).clip(1e-12) / n)
    wrong = (means - 1.96 * errors > mean)[:, 29:].any(axis=1).mean()
    assert wrong > 0.1


def test_a_capital_is_fair_on_average():
    """The mean capital of a fair game is its start: by enumeration, not by draws."""
    total = 0.0
    for number in range(2**10):
        x = np.array([number >> k & 1 for k in range(10)], dtype=float)
        chance = 0.3 ** x.sum() * 0.7 ** (10 - x.sum())
        total += chance * math.exp(log_capital(x, 0.3, 0.95)[-1])
    assert total == pytest.approx(1.0, rel=1e-9)


def test_a_clear_mean_is_soon_told_from_a_line():
    x = light(generator_of("clear"), 400)[0]
    low, high = betting_interval(x[:100], 0.0, 1.0)
    assert 0.1 < low < 0.25 < high < 0.45
    assert betting_interval(x, 0.0, 1.0)[0] > 0.19


@pytest.mark.parametrize(
    ("y", "low", "high", "said"),
    [
        ([], 0.0, 1.0, "expected .G,. finite values"),
        ([0.5, math.nan], 0.0, 1.0, "expected .G,. finite values"),
        ([0.5], 0.0, math.inf, "expected finite edges"),
        ([0.5], 1.0, 1.0, "expected finite edges"),
        ([0.5, 1.5], 0.0, 1.0, "expected values in"),
    ],
)
def test_what_is_no_bounded_sample_is_refused(y, low, high, said):
    with pytest.raises(ValueError, match=said):
        betting_interval(y, low, high)


def test_lines_beyond_the_edges_are_ruled_out():
    assert betting_tails([0.5] * 40, 0.0, 1.0, -0.1)[0] == 0.0
    assert betting_tails([0.5] * 40, 0.0, 1.0, 1.1)[1] == 0.0
    assert betting_tails([0.5] * 40, 0.0, 1.0, 0.5) == (1.0, 1.0)

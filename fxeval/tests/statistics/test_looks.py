"""Levels of planned looks: published boundaries, simulated paths, what no plan may do."""

import math

import numpy as np
import pytest
from scipy import stats

from fxeval.seeding import generator_of
from fxeval.statistics.looks import (
    confidence_at,
    normal_line,
    planned,
    spending,
    upper_tail,
)

FIVE = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_five_looks_have_the_published_boundaries():
    found = spending(0.95, FIVE)
    assert found.lines == pytest.approx((4.8769, 3.3569, 2.6803, 2.2898, 2.0310), abs=2e-4)
    assert found.spent[-1] == pytest.approx(0.025, abs=1e-12)


def test_two_looks_agree_with_the_bivariate_normal_distribution():
    first, last = spending(0.95, (0.5, 1.0)).lines
    law = stats.multivariate_normal([0.0, 0.0], [[1.0, math.sqrt(0.5)], [math.sqrt(0.5), 1.0]])
    assert 1.0 - law.cdf([first, last]) == pytest.approx(0.025, abs=1e-6)
    reach = stats.norm.isf(0.0125)
    assert stats.norm.sf(first) == pytest.approx(2 * stats.norm.sf(reach / math.sqrt(0.5)))


@pytest.mark.parametrize("times", [FIVE, (0.31, 0.5, 0.93, 1.0), (0.1, 1.0)])
def test_simulated_paths_cross_as_often_as_the_error_that_is_spent(times):
    found, runs = spending(0.9, times), 200_000
    rng = generator_of("paths of looks", str(times))
    steps = np.sqrt(np.diff((0.0, *times))) * rng.normal(size=(runs, len(times)))
    z = steps.cumsum(axis=1) / np.sqrt(times)
    crossed = np.maximum.accumulate(z > found.lines, axis=1).mean(axis=0)
    error = np.sqrt(np.array(found.spent) / runs)
    assert (np.abs(crossed - found.spent) < 4 * error + 1e-9).all()
    assert crossed[-1] > 0.045  # not merely below: the whole error of a side is used


def test_looking_without_a_plan_errs_more_often():
    rng = generator_of("paths without a plan")
    z = rng.normal(size=(20_000, 5)).cumsum(axis=1) / np.sqrt(np.arange(1, 6))
    assert (z > 1.96).any(axis=1).mean() > 0.06


def test_one_look_is_a_fixed_design():
    assert spending(0.95, (1.0,)).level(1) == pytest.approx(0.05, rel=1e-9)
    assert confidence_at(0.95, (1.0,), 1) == 0.95


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("looks", [2, 3, 5, 10])
def test_levels_rise_and_p_values_agree_with_them(looks, confidence):
    found = spending(confidence, [k / looks for k in range(1, looks + 1)])
    levels = [found.level(k) for k in range(1, looks + 1)]
    assert levels == sorted(levels)
    assert 0.0 < levels[0] < levels[-1] < 1.0 - confidence
    for k in range(1, looks + 1):
        side = levels[k - 1] / 2
        assert found.overall(side, k) == pytest.approx(found.spent[k - 1], rel=1e-6)
        assert found.overall(side * 0.99, k) < found.spent[k - 1] < found.overall(side * 1.01, k)
        for share in (0.0, 1e-9, 0.2, 0.7, 1.0):
            assert found.overall(share, k) >= share - 1e-12
    assert found.overall(1.0, looks) == 1.0


def test_p_values_over_looks_are_those_of_simulated_paths():
    """Under the null hypothesis, the p-value at which a path stops is at most u with chance u."""
    found, runs = spending(0.95, FIVE), 2_000
    rng = generator_of("p-values of looks")
    z = rng.normal(size=(runs, 5)).cumsum(axis=1) / np.sqrt(np.arange(1, 6))
    stopped = np.where((z > found.lines).any(axis=1), (z > found.lines).argmax(axis=1), 4)
    p = np.array([found.overall(upper_tail(z[i, k]), k + 1) for i, k in enumerate(stopped)])
    for u in (0.01, 0.025, 0.1, 0.5):
        assert abs((p <= u).mean() - u) < 4 * math.sqrt(u * (1 - u) / runs), u


@pytest.mark.parametrize("z", [-8.0, -1.0, 0.0, 1.96, 5.0, 12.0, 30.0])
def test_tails_of_the_normal_distribution(z):
    assert upper_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-12)
    if z > -5.0:  # beyond, 1 - p has no digits left
        assert normal_line(upper_tail(z)) == pytest.approx(z, abs=1e-9)


@pytest.mark.parametrize(
    "times", [(), (0.5,), (0.5, 0.5, 1.0), (0.6, 0.5, 1.0), (0.0, 1.0), (0.5, 1.1)]
)
def test_times_that_are_no_shares_are_refused(times):
    with pytest.raises(ValueError, match="expected rising shares up to 1, got"):
        spending(0.95, times)


def test_a_confidence_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"expected a confidence in \(0, 1\), got 1.0"):
        spending(1.0, (0.5, 1.0))


def test_looks_come_at_equal_steps_and_never_with_too_few_people():
    assert planned(150, 5, lambda n: n) == ([30, 60, 90, 120, 150], 0)
    assert planned(100, 5, lambda n: n) == ([40, 60, 80, 100], 1)
    assert planned(29, 5, lambda n: n) == ([29], 4)  # the last look comes whatever it says
    assert planned(100, 4, lambda n: 30 if n >= 50 else 29) == ([50, 75, 100], 1)
    assert planned(3, 10, lambda n: 99) == ([1, 2, 3], 7)

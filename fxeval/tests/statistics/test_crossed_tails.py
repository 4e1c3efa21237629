"""Rates of comparisons of two people: p-values too small to be told from 0, differences of two."""

import numpy as np
import pytest

from fxeval.statistics.crossed import crossed_difference, crossed_rate, crossed_rate_tails
from fxeval.statistics.estimate import Law, Sample, estimate, tails


def test_a_rate_far_from_the_line_has_the_smallest_p_value_that_can_be_told():
    """Nearly all of ten thousand comparisons of a thousand people hit, far above the line."""
    first = np.repeat(np.arange(1000), 10)
    second = (first + 1 + np.tile(np.arange(10), 1000)) % 1000
    values = np.ones(len(first))
    values[::500] = 0.0
    above, below = crossed_rate_tails(values, first, second, 0.1)
    assert 0.0 < above < 1e-15
    assert below == 1.0


PAIRS = np.array([(a, b) for a in range(12) for b in range(a)])
DIFFERENCE = Law("mean", "rate", -1.0, 1.0)


def outcomes(seed, n=66, gained=0.3, lost=0.1):
    drawn = np.random.default_rng(seed).random(n)
    return np.where(drawn < gained, 1.0, np.where(drawn > 1.0 - lost, -1.0, 0.0))


def test_a_difference_is_what_is_gained_less_what_is_lost():
    values = outcomes(0)
    low, high, number = crossed_difference(values, *PAIRS.T)
    gained = crossed_rate((values == 1.0).astype(float), *PAIRS.T, 0.975)
    lost = crossed_rate((values == -1.0).astype(float), *PAIRS.T, 0.975)
    assert (low, high) == (gained[0] - lost[1], gained[1] - lost[0])
    assert number == min(gained[2], lost[2])
    turned = crossed_difference(-values, *PAIRS.T)
    assert turned[:2] == (-high, -low)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("line", [-0.2, 0.0, 0.1])
def test_its_p_values_say_what_the_interval_says(seed, line):
    sample = Sample(outcomes(seed), PAIRS)
    for side, p in enumerate(tails(sample, DIFFERENCE, line)):
        if p == 1.0:
            continue
        for error, clears in ((2.002 * p, True), (1.998 * p, False)):
            found = estimate(sample, DIFFERENCE, 1.0 - error)
            assert (found.low >= line if side == 0 else found.high <= line) == clears


def test_three_gains_without_a_loss_are_no_evidence():
    """McNemar's exact test says 1/8; a rate of gains alone would pass."""
    pairs = np.arange(60).reshape(30, 2)
    values = np.zeros(30)
    values[:3] = 1.0
    found = estimate(Sample(values, pairs), DIFFERENCE, 0.95)
    assert found.low < 0.0 < found.value
    assert tails(Sample(values, pairs), DIFFERENCE, 0.0)[0] > 0.1


def test_three_gains_beyond_a_relative_margin_are_no_rate_of_their_own():
    """The other map has no hit, so its margin is 0 here; it could have had some."""
    pairs = np.arange(60).reshape(30, 2)
    values = np.zeros(30)
    values[:3] = 1.0
    beyond = Law("mean", "rate", -1.5, 1.0)
    found = estimate(Sample(values, pairs), beyond, 0.95)
    assert np.isnan([found.low, found.high]).all()
    assert "no interval" in found.method
    assert tails(Sample(values, pairs), beyond, 0.0) == (1.0, 1.0)


def test_two_equal_maps_pass_as_seldom_as_promised():
    """400 lists of 40 people, each compared with two others; people lose or gain together."""
    passed = 0
    for seed in range(400):
        drawn = np.random.default_rng([8, seed])
        effect = drawn.normal(0.0, 1.0, 40)
        first = np.repeat(np.arange(40), 2)
        second = (first + np.tile([1, 2], 40)) % 40
        leaning = effect[first] + effect[second] + drawn.normal(0.0, 1.0, 80)
        values = np.where(leaning > 1.5, 1.0, np.where(leaning < -1.5, -1.0, 0.0))
        passed += crossed_difference(values, first, second)[0] > 0.0
    assert passed <= 0.025 * 400

"""Steps and drift: known answers, slow references, and how often noise is taken for a step."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.statistics.false_discovery import adjusted
from fxeval.statistics.steps import (
    Drift,
    departure_of,
    drift_of,
    noise_of,
    rolling_median,
    steps_of,
)


def places(values, least=0.0):
    return [one.at for one in steps_of(np.asarray(values, dtype=float), least)]


def noisy(n=50, seed=0, by=1.0):
    return np.random.default_rng(seed).normal(scale=by, size=n)


# rolling median and noise


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 30])
def test_the_rolling_median_is_that_of_the_values_at_most_two_places_away(n):
    values = noisy(n)
    slow = [np.median([values[j] for j in range(n) if abs(i - j) <= 2]) for i in range(n)]
    assert rolling_median(values).tolist() == slow


def test_noise_is_the_standard_deviation_of_normal_values_with_and_without_steps():
    found = [noise_of(noisy(400, seed, by=0.5)) for seed in range(40)]
    assert 0.47 < np.mean(found) < 0.55
    stepped = noisy(400, by=0.5) + np.repeat([0.0, 9.0, 2.0, 5.0], 100)
    assert noise_of(stepped) == pytest.approx(noise_of(noisy(400, by=0.5)), rel=0.05)


def test_noise_of_values_that_repeat_is_zero_and_of_a_few_odd_ones_is_not():
    assert noise_of(np.array([0.4] * 9 + [0.2] * 9)) == 0
    assert noise_of(np.array([0.4, 0.4, 0.4, 0.5] * 6)) > 0.01
    assert noise_of(np.array([])) == 0


# steps


def test_a_clean_step_is_found_at_its_run_with_its_two_levels():
    (step,) = steps_of(np.array([0.41] * 20 + [0.43] * 7))
    assert (step.at, step.before, step.after) == (20, 0.41, 0.43)
    assert step.change == pytest.approx(0.02)
    assert step.needed < 1e-6


def test_several_steps_are_found_each_at_its_run():
    assert places([1.0] * 8 + [2.0] * 3 + [3.0] * 9 + [1.0] * 4) == [8, 11, 20]


@pytest.mark.parametrize("size", [6.0, -6.0, 9.0])
def test_a_step_in_noise_is_found_in_either_direction(size):
    found = 0
    for seed in range(60):
        values = noisy(50, seed)
        values[25:] += size
        found += any(abs(at - 25) <= 1 for at in places(values))
    assert found >= 54


def test_the_change_that_is_needed_is_about_three_standard_deviations_for_whole_windows():
    values = noisy(60) + np.repeat([0.0, 20.0], 30)
    (step,) = steps_of(values)
    assert step.needed == pytest.approx(4 * math.sqrt(2 * 0.2868) * noise_of(values), rel=1e-6)


def test_fewer_than_three_runs_on_a_side_are_no_step():
    assert places([1.0] * 9 + [2.0] * 2) == []
    assert places([1.0] * 9 + [2.0] * 3) == [9]
    assert places([1.0, 1.0] + [2.0] * 9) == []
    assert places([1.0, 1.0, 2.0, 2.0, 2.0]) == []
    assert places([]) == []


def test_odd_runs_are_no_step():
    values = [0.5] * 30
    values[7], values[19], values[20] = 0.9, 0.1, 0.1
    assert places(values) == []


def test_values_that_repeat_are_no_step_and_rounding_is_none():
    assert places([0.3] * 40) == []
    rounded = 0.3 + np.repeat([0.0, 1e-9, 2e-9], 10)
    assert places(rounded) == []


def test_a_change_that_does_not_matter_is_no_step():
    values = [0.3] * 9 + [0.301] * 9
    assert places(values, least=0.002) == []
    assert places(values, least=0.0005) == [9]


def test_runs_that_mix_are_no_step_however_far_their_medians_are_apart():
    rng = np.random.default_rng(3)
    coins = [places((rng.random(50) < 0.2).astype(float)) for _ in range(300)]
    assert sum(map(bool, coins)) <= 9


@pytest.mark.parametrize(
    ("draw", "n", "most"),
    [
        ("normal", 50, 4), ("normal", 10, 12), ("t3", 50, 5), ("laplace", 50, 5),
        ("uniform", 50, 8), ("uniform", 6, 18), ("exponential", 50, 8), ("coin", 50, 20),
    ],
)  # fmt: skip
def test_noise_is_rarely_taken_for_a_step(draw, n, most):
    """Of 400 series; expected are at most about half of ``most`` (docs/trend.md)."""
    rng = np.random.default_rng(11)
    draws = {
        "normal": rng.normal, "laplace": rng.laplace, "exponential": rng.exponential,
        "t3": lambda size: rng.standard_t(3, size=size),
        "uniform": lambda size: rng.random(size),
        "coin": lambda size: (rng.random(size) < 0.5).astype(float),
    }  # fmt: skip
    assert sum(bool(places(draws[draw](size=n))) for _ in range(400)) <= most


@given(
    st.integers(0, 10**6), st.floats(-50, 50), st.floats(0.5, 20),
    st.lists(st.floats(-10, 10), min_size=1, max_size=4),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_adding_a_number_or_another_unit_moves_no_step(seed, shift, scale, levels):
    values = noisy(12 * len(levels), seed, by=0.3) + np.repeat(levels, 12)
    found = places(values)
    assert places(values + shift) == found
    assert places(values * scale) == found
    assert places(-values) == found


@pytest.mark.parametrize(("by", "most"), [(0.0, 0), (0.01, 0), (0.05, 3), (0.1, 12)])
def test_a_drift_has_no_step_and_no_departure(by, most):
    values = [np.arange(40) * 0.1 + noisy(40, seed, by=by) for seed in range(50)]
    assert sum(bool(places(one)) for one in values) <= most
    assert sum(departure_of(one) > 0 for one in values) <= most


def test_a_drift_that_begins_is_no_step():
    assert places([0.0] * 15 + [0.1 * at for at in range(1, 15)]) == []


def test_a_step_within_a_drift_is_found():
    assert places(np.arange(40) * 0.01 + np.repeat([0.0, 1.0], 20)) == [20]
    assert places(np.arange(40) * -0.01 + np.repeat([0.0, 1.0], 20)) == [20]


def test_a_step_is_found_again_when_runs_follow():
    values = [0.4] * 12 + [0.45] * 3
    assert all(12 in places(values + [0.45] * more) for more in range(10))


# departures


def test_one_or_two_last_runs_that_left_the_level_are_told_and_three_are_a_step():
    level = [0.4] * 8
    assert departure_of(np.array(level)) == 0
    assert departure_of(np.array([*level, 0.45])) == 1
    assert departure_of(np.array([*level, 0.45, 0.46])) == 2
    assert departure_of(np.array([*level, 0.45, 0.45, 0.45])) == 0
    assert departure_of(np.array([*level, 0.45, 0.4])) == 0
    assert departure_of(np.array([*level, 0.4001]), least=0.001) == 0
    assert departure_of(np.array([0.4] * 4 + [0.9])) == 0


def test_a_run_no_farther_off_than_one_before_it_is_no_departure():
    before = [0.4] * 40 + [0.9, 0.4, 0.4]
    assert departure_of(np.array([*before, 0.85])) == 0
    assert departure_of(np.array([*before, 0.95])) == 1


def test_noise_rarely_looks_like_a_departure():
    assert sum(departure_of(noisy(30, seed)) > 0 for seed in range(400)) <= 6


# drift


def test_the_drift_is_the_median_slope_and_its_p_value_that_of_mann_and_kendall():
    values = noisy(40, 5) + np.arange(40) * 0.05
    drift = drift_of(values)
    assert isinstance(drift, Drift)
    slope = stats.theilslopes(values).slope
    assert drift.change == pytest.approx(39 * slope)
    n = len(values)
    score = sum(np.sign(values[j] - values[i]) for i in range(n) for j in range(i + 1, n))
    z = (abs(score) - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    assert drift.p_value == pytest.approx(2 * stats.norm.sf(z))


def test_ties_are_counted_in_the_variance():
    values = np.round(noisy(30, 2) + np.arange(30) * 0.03)
    n = len(values)
    score = sum(np.sign(values[j] - values[i]) for i in range(n) for j in range(i + 1, n))
    ties = np.unique(values, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    expected = 2 * stats.norm.sf((abs(score) - 1) / math.sqrt(variance))
    assert drift_of(values).p_value == pytest.approx(expected)


def test_a_drift_needs_ten_runs_and_looks_at_the_last_two_hundred():
    assert drift_of(np.arange(9.0)) is None
    assert drift_of(np.arange(10.0)).p_value < 0.001
    assert drift_of(np.arange(12.0), start=3) is None
    long = np.concatenate([np.zeros(50), np.arange(200.0)])
    assert drift_of(long).start == 50
    assert drift_of(np.zeros(20)).p_value == 1


def test_noise_drifts_as_often_as_it_should():
    told = sum(drift_of(noisy(30, seed)).p_value <= 0.05 for seed in range(600))
    assert 15 <= told <= 45


# Benjamini and Hochberg


@given(st.lists(st.floats(0, 1), max_size=30))
def test_the_correction_is_that_of_benjamini_and_hochberg(p_values):
    expected = stats.false_discovery_control(p_values).tolist() if p_values else []
    assert adjusted(p_values) == pytest.approx(expected)

"""Trends: noise is seldom taken for a move, and a clear step is found."""

import pytest

from fxeval.tests.simulations.moved import NOISES, mistaken, stepped


@pytest.mark.parametrize("name", ["normal", "t with 3 degrees of freedom", "exponential"])
def test_independent_noise_is_seldom_taken_for_a_move(name):
    step, departure, drift = mistaken(NOISES[name], 50, 300)
    assert step <= 0.02
    assert departure <= 0.03
    assert drift <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_a_walk_is_the_control_that_is_taken_for_steps():
    assert mistaken(NOISES["random walk"], 50, 100)[0] > 0.5


def test_a_clear_step_is_found_where_it_is():
    found, exact = stepped(6.0, 200)
    assert found >= 0.9
    assert exact >= 0.95

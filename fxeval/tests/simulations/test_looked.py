"""Planned and open looks keep the promise of a fixed design; looks without a plan break it."""

import numpy as np
import pytest

from fxeval.tests.simulations.crossed import CROSSED_EXPONENTIAL, CROSSED_NORMAL
from fxeval.tests.simulations.laws import beta, exponential, lognormal, normal, rate
from fxeval.tests.simulations.looked import (
    EDGED,
    PEOPLE,
    POPULATIONS,
    bet_on,
    by_peeking,
    by_plan,
    compared,
    crossed_by_plan,
    drawn,
)

EVERY = [one for several in POPULATIONS.values() for one in several]


def named(population):
    return f"{population.name}, {population.kind}"


@pytest.mark.parametrize(
    "population", [normal(), exponential(), lognormal(1.0), rate(0.2)], ids=named
)
def test_planned_looks_keep_their_promise_and_most_of_the_power(population):
    found = compared(population, 150, 400)
    assert not found.looks.exceeds(0.03), found
    assert not found.looks.undercovers(0.95), found
    passes, fixed = found.passes
    assert passes > fixed - 0.04, found
    on, near, clear = found.shares
    assert clear < 0.6 < near < on <= 1.0, found


@pytest.mark.parametrize("population", [beta(3, 9, "light"), rate(0.05)], ids=named)
def test_open_looks_keep_their_promise(population):
    found = bet_on(population, 150, 200)
    assert not found.looks.exceeds(0.025), found
    assert found.shares[2] < 1.0


@pytest.mark.parametrize("population", [CROSSED_NORMAL, CROSSED_EXPONENTIAL], ids=named)
def test_looks_at_rows_of_two_people_keep_their_promise(population):
    found = crossed_by_plan(population, 60, 20, 400)
    assert not found.tally().exceeds(0.03), found.tally()
    assert found.share.max() == 1.0


def test_looking_without_a_plan_breaks_the_promise():
    y = drawn(normal(), 400, 500, "peek")
    assert by_peeking(y, normal(), 0.0).tally().false_pass > 0.1
    assert not by_plan(y, normal(), 0.0).tally().exceeds(0.03)


def test_a_cell_stops_at_the_first_look_that_decides_and_says_what_that_says():
    y = np.tile(np.linspace(-1.0, 1.0, 150), (2, 1))
    y[1, 30:] += 9.0  # by the second look, far above; both runs lie below the line at the first
    found = by_plan(y, normal(), -0.5)
    assert found.share.tolist() == [0.2, 0.2]
    assert found.below.tolist() == [True, True]
    assert by_plan(y, normal(), -0.5, 1).above.tolist() == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("population", EVERY, ids=named)
def test_planned_looks_keep_their_promise_for_every_law(population, people):
    found = compared(population, people, 2000)
    assert not found.looks.exceeds(0.03), found


@pytest.mark.slow
@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("population", EDGED, ids=named)
def test_open_looks_keep_their_promise_for_every_law_with_edges(population, people):
    assert not bet_on(population, people, 500).looks.exceeds(0.025)

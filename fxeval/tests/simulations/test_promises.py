"""Verdicts hold: at the boundary no limit passes falsely more often than promised.

Minutes; ``test_some_promises.py`` tries a few of the same settings in seconds.
"""

import pytest

from fxeval.tests.simulations.designs import Design
from fxeval.tests.simulations.forms import FORMS, simulate_form
from fxeval.tests.simulations.laws import IMPOSSIBLE, beta, lognormal, normal, rare_group, rate
from fxeval.tests.simulations.methods import (
    CROSSED,
    FIGURES,
    IDENTITIES,
    METHODS,
    ROWS_EACH,
    RUNS,
    simulated,
    simulated_crossed,
    simulated_figure,
)
from fxeval.tests.simulations.ratios import POPULATIONS as RATIOS
from fxeval.tests.simulations.ratios import (
    RATIO_DESIGNS,
    RATIO_PROMISE,
    RATIO_RUNS,
    crossed_ratio,
    simulate_ratio,
)
from fxeval.tests.simulations.run import power, simulate
from fxeval.tests.simulations.table import FORM_DESIGN, FORM_RUNS, naive_tallies
from fxeval.tests.simulations.tally import worst

pytestmark = pytest.mark.slow

FLIPS = 0.01
"""Largest share of pairs of lists of one truth of which one may pass and the other fail."""


@pytest.mark.parametrize("identities", IDENTITIES)
@pytest.mark.parametrize("number", range(len(METHODS)), ids=[one.name for one in METHODS])
def test_means_and_rates_keep_their_promise(number, identities):
    method, found = METHODS[number], simulated(number, identities)
    failed = [
        f"{one.population.name}, {one.design}: {one.ours}"
        for one in found
        if one.ours.exceeds(method.promise[identities])
        or one.ours.undercovers(method.coverage)
        or one.ours.flips > FLIPS * one.ours.pairs
    ]
    assert failed == []


@pytest.mark.parametrize("number", [0, 1, 2, 3, 8], ids=lambda number: METHODS[number].name)
def test_students_t_breaks_the_promise_that_ours_keeps(number):
    t = worst([one.t for one in simulated(number, 30)])
    assert t.exceeds(METHODS[number].promise[30])


@pytest.mark.parametrize("rows_each", ROWS_EACH)
@pytest.mark.parametrize("identities", IDENTITIES)
@pytest.mark.parametrize(
    "number", range(len(CROSSED)), ids=[one.population.name for one in CROSSED]
)
def test_pairs_of_two_people_keep_their_promise(number, identities, rows_each):
    method = CROSSED[number]
    ours, t = simulated_crossed(number, identities, rows_each)
    assert not ours.exceeds(method.promise), ours
    assert not ours.undercovers(method.coverage), ours
    assert ours.flips <= FLIPS * ours.pairs
    assert t.exceeds(method.promise), t


@pytest.mark.parametrize(
    ("number", "scores"),
    [(number, scores) for number, figure in enumerate(FIGURES) for scores in figure.scores],
    ids=str,
)
def test_verification_figures_keep_their_promise(number, scores):
    ours = simulated_figure(number, scores)
    assert not ours.exceeds(FIGURES[number].promise), ours
    assert not ours.undercovers(0.95), ours
    assert ours.flips <= FLIPS * ours.pairs


@pytest.mark.parametrize("design", RATIO_DESIGNS, ids=str)
@pytest.mark.parametrize("population", RATIOS, ids=lambda one: one.name)
def test_ratios_keep_their_promise(population, design):
    ours, _ = simulate_ratio(population, design, RATIO_RUNS)
    assert not ours.exceeds(RATIO_PROMISE), ours
    assert not ours.undercovers(0.95), ours
    assert ours.flips <= FLIPS * ours.pairs


@pytest.mark.parametrize("identities", [30, 100])
@pytest.mark.parametrize("population", [RATIOS[0], RATIOS[2], RATIOS[4], RATIOS[6]],
                         ids=lambda one: one.name)  # fmt: skip
def test_ratios_of_pairs_of_two_people_keep_their_promise(population, identities):
    ours = crossed_ratio(population, identities, RATIO_RUNS)
    assert not ours.exceeds(RATIO_PROMISE), ours
    assert not ours.undercovers(0.95), ours


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_form_of_a_limit_keeps_its_promise_from_rows_to_verdict(form):
    found = simulate_form(form, FORM_DESIGN, FORM_RUNS)
    assert not found.exceeds(0.03), found
    assert found.flips <= FLIPS * found.pairs
    assert found.above + found.below > 0, "a limit that never decides proves nothing"


@pytest.mark.parametrize(
    ("population", "least"),
    [
        (normal(), (0.10, 0.60, 0.99)),
        (beta(3, 9, "light"), (0.10, 0.50, 0.99)),
        (lognormal(1.0), (0.05, 0.50, 0.95)),
        (rate(0.2), (0.10, 0.60, 0.99)),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_limits_that_the_truth_keeps_by_far_pass(population, least):
    found = [power(population, Design(50), 2000, distance) for distance in (0.25, 0.5, 1.0)]
    assert all(share > bound for share, bound in zip(found, least, strict=True)), found


@pytest.mark.parametrize("population", IMPOSSIBLE, ids=lambda one: f"{one.name}, {one.kind}")
def test_what_no_sample_shows_passes_falsely(population):
    found = [simulate(population, Design(G), RUNS).ours for G in IDENTITIES]
    assert worst(found).exceeds(0.025), found


@pytest.mark.parametrize("identities", IDENTITIES)
def test_known_edges_hold_even_for_people_whom_the_sample_does_not_show(identities):
    assert simulate(rare_group("rate"), Design(identities), RUNS).ours.false_pass < 0.01


def test_methods_that_forget_who_is_on_a_row_fail_the_same_simulation():
    found = naive_tallies()
    assert not found.pop("the interval that decides").exceeds(0.025)
    found.pop("Student's t over identities")
    assert {name: one.false_pass > 0.1 for name, one in found.items()} == {
        "Student's t over rows": True,
        "bootstrap of the rows": True,
    }

"""A few settings of ``test_promises.py``, in seconds."""

import numpy as np
import pytest
from scipy import stats

from fxeval.seeding import generator_of
from fxeval.statistics.estimate import Law, Sample, tails
from fxeval.tests.simulations.crossed import CROSSED_NORMAL, ScoreList
from fxeval.tests.simulations.designs import Design, draw_rows
from fxeval.tests.simulations.forms import FORMS, simulate_form
from fxeval.tests.simulations.kinds import kinds_of_cell
from fxeval.tests.simulations.laws import (
    DIFFERENCES,
    HEAVY,
    LIGHT,
    OUTCOMES,
    RATE_LIKE,
    RATES,
    jumps,
    rare_group,
)
from fxeval.tests.simulations.naive import bootstrap_over_rows, t_over_rows
from fxeval.tests.simulations.ratios import POPULATIONS as RATIOS
from fxeval.tests.simulations.ratios import simulate_ratio
from fxeval.tests.simulations.run import TAIL, decided, rows_of, simulate
from fxeval.tests.simulations.run_crossed import simulate_crossed, simulate_figure
from fxeval.tests.simulations.tally import Tally, tally
from fxeval.tests.statistics.judged_cells import cell

POPULATIONS = (
    *LIGHT,
    *HEAVY,
    *RATE_LIKE,
    *RATES,
    *DIFFERENCES,
    *OUTCOMES,
    jumps(),
    rare_group("light"),
)


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda one: f"{one.name}, {one.kind}")
def test_a_population_has_the_mean_and_the_spread_it_says(population):
    drawn = population.draw(generator_of("simulations", population.name), 400_000)
    assert abs(drawn.mean() - population.mean) < 5 * drawn.std() / len(drawn) ** 0.5
    assert population.low <= drawn.min() <= drawn.max() <= population.high
    if population.name != "lognormal, s = 1.5":  # the spread of which no sample shows
        assert drawn.std() == pytest.approx(population.sd, rel=0.03)


@pytest.mark.parametrize("icc", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("population", [LIGHT[0], RATES[2]], ids=lambda one: one.name)
def test_rows_of_one_person_are_as_alike_as_designed(population, icc):
    design = Design(30, "1 to 20 rows", icc)
    sizes = np.full((2000, 30), 2)
    drawn = draw_rows(population, design, generator_of("alike"), 2000, sizes)
    first, second = drawn.values.reshape(-1, 2).T
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(icc, abs=0.02)
    assert drawn.means().shape == (2000, 30)
    assert (drawn.means().ravel() == (first + second) / 2).all()


@pytest.mark.parametrize("population", [LIGHT[1], HEAVY[0], RATE_LIKE[0], RATES[1], OUTCOMES[1]],
                         ids=lambda one: one.name)  # fmt: skip
def test_intervals_keep_their_promise(population):
    ours = simulate(population, Design(30, "rows as in LFW", 0.3), 1000).ours
    assert not ours.exceeds(0.03), ours
    assert not ours.undercovers(0.95), ours


@pytest.mark.parametrize("form", FORMS[:6], ids=lambda form: form.name)
def test_verdicts_keep_their_promise(form):
    found = simulate_form(form, Design(30, "rows as in LFW", 0.1), 300)
    assert not found.exceeds(0.03), found


def test_pairs_and_figures_keep_their_promise():
    assert not simulate_crossed(CROSSED_NORMAL, 30, 20, 500)[0].exceeds(0.03)
    assert not simulate_figure("auc", ScoreList(30, 2, 150, 2.0), 200).exceeds(0.03)
    assert not simulate_figure("eer", ScoreList(30, 4, 150, 2.0), 60).exceeds(0.03)


@pytest.mark.parametrize("population", RATIOS, ids=lambda one: one.name)
def test_a_population_of_ratios_has_the_means_it_says(population):
    above, below = population.draw(generator_of("simulations", population.name), 400_000)
    for drawn, mean in ((above, population.numerator), (below, population.denominator)):
        assert abs(drawn.mean() - mean) < 5 * drawn.std() / len(drawn) ** 0.5
        assert np.abs(drawn).max() <= population.edge


@pytest.mark.parametrize("population", [RATIOS[2], RATIOS[5]], ids=lambda one: one.name)
def test_ratios_keep_their_promise_that_the_delta_method_breaks(population):
    ours, delta = simulate_ratio(population, Design(30), 300)
    assert not ours.exceeds(0.03), ours
    assert not ours.undercovers(0.95), ours
    assert delta.exceeds(0.025), delta


def test_too_short_lists_pass_no_limit_from_below():
    short = ScoreList(30, 2, 40, 2.0)  # 4 false matches at 0.1, and 60 mated rows
    assert simulate_figure("tmr_at_fmr_1e-1", short, 5).above == 0
    eer = simulate_figure("eer", short, 50)
    assert eer.above + eer.below == 0


def test_methods_that_forget_who_is_on_a_row_fail():
    rows = next(rows_of(LIGHT[0], Design(50, "1 to 20 rows", 0.3), 200, "forget"))
    rng = generator_of("forget")
    assert not tally(*decided(rows.means(), LIGHT[0], 0.0)).exceeds(0.03)
    assert tally(*t_over_rows(rows, 0.0)).exceeds(0.03)
    assert tally(*bootstrap_over_rows(rows, 0.0, rng, 200)).exceeds(0.03)


def test_many_lists_at_once_are_decided_as_each_alone():
    population = RATES[2]
    rows = draw_rows(population, Design(30, "rows as in LFW", 0.3), generator_of("alone"), 40)
    law = Law("mean", "rate", 0.0, 1.0)
    line = 0.05
    alone = [tails(Sample(values, people), law, line) for values, people in rows.runs()]
    above, below = decided(rows.means(), population, line)
    assert [one[0] <= TAIL for one in alone] == above.tolist()
    assert [one[1] <= TAIL for one in alone] == below.tolist()
    assert 0 < above.sum() < 40


def test_a_tally_counts_errors_and_flips():
    above = np.array([True, False, False, False, False, True])
    below = np.array([False, True, False, True, False, False])
    found = tally(above, below)
    assert found == Tally(runs=6, above=2, below=2, flips=1, pairs=3)
    assert found.false_pass == 1 / 3
    assert found.coverage == pytest.approx(1 / 3)
    assert found.exceeds(0.01)
    assert found.undercovers(0.99)
    assert not Tally(1000, 25, 25, 0, 500).exceeds(0.025)


def test_the_kind_of_a_metric_is_read_off_rows():
    values = np.where(np.arange(40) < 10, 1.0, -0.5 + np.exp(np.linspace(-4, 0, 40)))
    kept = []
    result = cell([], {"explainer": values}, rows=lambda rows: kept.extend(rows) or rows)
    [(_, map_, metric, _, n, skewness, edge)] = kinds_of_cell(result, kept)
    assert (map_, metric, n, edge) == ("explainer", "m", 40, 0.25)
    assert skewness == pytest.approx(stats.skew(values, bias=False))

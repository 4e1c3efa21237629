"""Whether anything got worse: Holm's correction against a reference, and in a record."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.records.schema import CellFacts
from fxeval.statistics.holm import adjusted, regressions_of
from fxeval.tests.statistics.judged_cells import STEADY, cell, spread

P_VALUES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6)


def closed(p_values):
    """Adjusted p-values by the closure of Bonferroni's test: over all families with a hypothesis.

    A hypothesis is rejected if every set of hypotheses that contains it is; Holm's procedure is a
    short cut for it.
    """
    n = len(p_values)
    return [
        max(
            min(1.0, size * min(p_values[at] for at in some))
            for size in range(1, n + 1)
            for some in combinations(range(n), size)
            if place in some
        )
        for place in range(n)
    ]


@settings(deadline=None)
@given(P_VALUES)
def test_adjusted_p_values_are_those_of_the_closed_test(p_values):
    assert adjusted(p_values) == pytest.approx(closed(p_values), abs=1e-15)


@given(P_VALUES, st.randoms())
def test_adjusted_p_values_do_not_depend_on_the_order(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    found = adjusted([p_values[at] for at in order])
    assert found == [adjusted(p_values)[at] for at in order]


def test_by_hand():
    # 4 * .005 = .02; 3 * .011 = .033; 2 * .02 = .04; 1 * .04 = .04
    assert adjusted([0.01 + 0.001, 0.04, 0.005, 0.02]) == pytest.approx([0.033, 0.04, 0.02, 0.04])
    assert adjusted([0.5, 0.9]) == [1.0, 1.0]


def compared(gains, **more):
    """A cell per gain over the baseline, of 40 people."""
    own = spread(0.3)
    asked = {"not_worse_than": "baseline", "within": {"absolute": 0.01}, **more}
    return [
        cell([asked], {"explainer": own, "baseline": own + gain + spread(0.0, by=0.03)[::-1]},
             facts=CellFacts(repeatability=STEADY))
        for gain in gains
    ]  # fmt: skip


def test_a_chance_failure_of_many_is_no_regression_and_a_large_one_is():
    # The second is worse by so little that its own interval just excludes the margin.
    chance, large = compared([-0.0167]), compared([-0.05])
    assert chance[0].limits[0].verdict.outcome == "fail"
    alone = regressions_of(chance)
    assert [one.is_worse for one in alone.tested] == [True]
    many = regressions_of([*compared(np.zeros(19)), *chance])
    assert (len(many.tested), many.method, many.level) == (20, "Holm, one-sided", 0.025)
    assert not any(one.is_worse for one in many.tested)
    assert many.text.startswith("0 of 20 comparisons with an earlier run got worse (Holm, 0.025")
    assert "intersection-union test, which needs no correction" in many.text
    found = regressions_of([*compared(np.zeros(19)), *large])
    assert [one.is_worse for one in found.tested] == [False] * 19 + [True]
    assert found.tested[-1].p_value == large[0].limits[0].p_opposite
    assert found.tested[-1].adjusted == pytest.approx(20 * found.tested[-1].p_value)


def test_what_is_not_compared_with_an_earlier_run_is_no_part_of_the_family():
    assert regressions_of([]) is None
    assert regressions_of([cell([{"at_most": 0.1}], {"explainer": spread(0.3)})]) is None
    without = cell(
        [{"not_worse_than": "baseline", "within": {"absolute": 0.01}}], {"explainer": spread(0.3)}
    )
    assert regressions_of([without]) is None
    assert regressions_of(compared([-0.1], over="list")) is None

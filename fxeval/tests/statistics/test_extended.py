"""What looks say: tables of cells with looks, p-values over looks, forms that are no plan."""

import numpy as np
import pytest
from pydantic import ValidationError

from fxeval.records.looks import Looks
from fxeval.records.schema import CellFacts
from fxeval.seeding import seed_of
from fxeval.statistics.betting import betting_interval
from fxeval.statistics.extended import plan_of_looks, with_looks
from fxeval.statistics.looks import spending
from fxeval.tests.statistics.judged_cells import STEADY, cell, metric

VALUES = np.random.default_rng(5).normal(0.2, 0.25, 60).clip(-1, 1)


def looks(**changes):
    given = {
        "kind": "planned", "units": "identities", "identities": [30, 60], "rows": [30, 60],
        "left_out": 0, "used": 2, "seed": 7, "confidence": 0.95, **changes,
    }  # fmt: skip
    return Looks(**given)


def judged(after, values=VALUES, line=0.15, **more):
    facts = CellFacts(repeatability=STEADY, looks_taken=after)
    return cell([{"at_least": line}], {"explainer": values}, facts=facts, **more)


def test_each_look_has_its_level_and_one_look_that_of_a_fixed_design():
    levels = spending(0.95, (0.5, 1.0))
    last = judged(looks()).limits[0].estimate
    assert last.confidence == 1.0 - levels.level(2)
    first = judged(looks(used=1), VALUES[:30]).limits[0].estimate
    assert first.confidence == 1.0 - levels.level(1) > last.confidence
    alone = judged(looks(identities=[60], rows=[60], used=1, left_out=1)).limits[0]
    assert alone == judged(None).limits[0]


def test_p_values_over_looks_are_larger_than_those_of_the_rows():
    once, twice = (judged(one, line=0.12).limits[0] for one in (None, looks()))
    levels = spending(0.95, (0.5, 1.0))
    assert twice.p_value == levels.overall(once.p_value, 2) > once.p_value > 0.0
    assert twice.p_opposite == levels.overall(once.p_opposite, 2)
    plan = judged(looks())
    for unchanged in (None, looks(kind="open"), looks(identities=[60], rows=[60], used=1)):
        assert with_looks(plan.limits, plan, unchanged) == plan.limits


def test_the_p_value_and_the_interval_agree_on_every_line():
    for line in np.linspace(0.1, 0.3, 41):
        (limit,) = judged(looks(), line=float(line)).limits
        assert (limit.p_value <= 0.025) == (limit.estimate.low >= line), line
        assert (limit.p_opposite <= 0.025) == (limit.estimate.high <= line), line


def test_open_looks_bet_in_the_order_of_the_plan_whatever_the_order_of_the_rows():
    taken = looks(kind="open")
    found = judged(taken).limits[0].estimate
    rows = []
    judged(taken, rows=lambda made: rows.extend(made) or made)
    plan = plan_of_looks("open", 7, [row.row for row in rows], [row.identities for row in rows])
    first = [rows[at] for at in plan.rows[0]]
    assert len(first) == 30
    again = judged(taken, rows=lambda made: made[::-1]).limits[0].estimate
    assert again == found
    value = {row.row: row.measured[0].values["m"] for row in rows}
    order = sorted(value, key=lambda name: seed_of(7, "looks", name))
    low, high = betting_interval([value[name] for name in order], -1.0, 1.0)
    assert (found.low, found.high) == (low, high)
    assert found.method == "betting confidence sequence on [-1, 1] over 60 identities"
    other = judged(looks(kind="open", seed=8)).limits[0].estimate
    assert (other.low, other.high) != (low, high)


@pytest.mark.parametrize(
    "of", [metric(range=(-1.0, None)), metric(statistic="median")], ids=["no edge", "median"]
)
def test_nobody_bets_on_values_without_edges_or_on_medians(of):
    (limit,) = judged(looks(kind="open"), of=of).limits
    assert (limit.estimate.low, limit.estimate.high) == (None, None)
    assert limit.estimate.method.startswith("no interval: only means of values between two edges")
    assert limit.verdict.outcome.value == "inconclusive"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"used": 3}, "no more looks used"),
        ({"used": 0}, "used"),
        ({"rows": [60]}, "as many numbers of identities as of rows"),
        ({"identities": [60, 60]}, "rising numbers of identities"),
        ({"units": "rows", "rows": [60, 30]}, "rising numbers of rows"),
        ({"identities": [], "rows": []}, "identities"),
        ({"kind": "planless"}, "kind"),
    ],
)
def test_looks_that_are_no_plan_are_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        looks(**changes)

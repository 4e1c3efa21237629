"""Cells that are extended while they are undecided: what is measured, judged and told."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fxeval.contracts import ExplainerTraits
from fxeval.metrics.deletion_insertion import Parameters
from fxeval.records.schema import CellFacts, CellPlan
from fxeval.records.stored_run import read_run
from fxeval.results import Outcome
from fxeval.run.evaluation import evaluate
from fxeval.run.measure import measure_cell, measure_rows
from fxeval.run.workshop import Subjects, Workshop
from fxeval.scorecard.looks import looked_at
from fxeval.scorecard.page import render
from fxeval.scorecard.summary import markdown_summary
from fxeval.scorecard.terminal import terminal_summary
from fxeval.statistics.extended import plan_of_looks, taken
from fxeval.statistics.limits import AtLeast
from fxeval.statistics.looks import spending
from fxeval.statistics.results import rederived, results_of
from fxeval.tests.toy_world import Occlusion, People, Ramp, cell_of, model

KIND = "faithfulness.deletion_insertion"
CLEAR = AtLeast("deletion_auc", at_least=0.5)  # all values are above 0.9


def run(limits, looks, *, n=60, explainer=None, seeds=1, **parameters):
    """Measure a cell of 2 n rows; return its result and its rows as they were written."""
    rows = []
    workshop = Workshop(batch_size=16, emit=rows.extend, progress=lambda *_: None)
    given = Parameters(**{"steps": 4, "fills": ("black",), "controls": (), **parameters})
    cell = replace(cell_of(KIND, given, limits), looks=looks, on_inconclusive="extend", seeds=seeds)
    subjects = Subjects(model(), explainer or Ramp(), People(n), {}, {})
    return measure_cell(cell, subjects, workshop), rows


def content(rows):
    return {row.row: row.model_dump_json() for row in rows}


def open_limit(n=60):
    """Return a limit on the very mean of all rows, which no interval can clear."""
    whole, _ = run([CLEAR], None, n=n)
    value = next(one.value for one in whole.estimates if one.metric == "deletion_auc")
    return AtLeast("deletion_auc", at_least=value)


def test_a_clear_cell_stops_early_and_its_rows_are_those_of_the_whole():
    fixed, all_rows = run([CLEAR], None)
    early, rows = run([CLEAR], 3)
    assert (fixed.verdict.outcome, early.verdict.outcome) == (Outcome.PASS, Outcome.PASS)
    assert (fixed.n_identities, early.n_identities, early.n_pairs) == (60, 40, 80)
    assert fixed.looks_taken is None
    looks = early.looks_taken
    assert (looks.identities, looks.rows, looks.used, looks.left_out) == ([40, 60], [80, 120], 1, 1)
    whole = content(all_rows)
    assert content(rows) == {name: whole[name] for name in content(rows)}


def test_a_cell_that_stays_open_is_measured_whole_and_stays_inconclusive():
    limit = open_limit()
    fixed, all_rows = run([limit], None)
    late, rows = run([limit], 3)
    assert late.verdict.outcome is fixed.verdict.outcome is Outcome.INCONCLUSIVE
    assert late.looks_taken.used == 2
    assert content(rows) == content(all_rows)
    wide, narrow = (one.limits[0].estimate for one in (late, fixed))
    assert (wide.value, wide.confidence) == (narrow.value, late.looks_taken.confidence)
    assert wide.low < narrow.low < narrow.high < wide.high


class Bright:
    """The brightness of the image: no two maps have one order."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return probes.mean(1)


@pytest.mark.parametrize("control", ["mean_map", "shuffled_identity"])
def test_controls_of_other_rows_take_them_from_all_rows_of_the_plan(control):
    """What a row says must not depend on the look at which its cell stopped."""
    _, all_rows = run([CLEAR], None, controls=(control,), explainer=Bright())
    early, rows = run([CLEAR], 3, controls=(control,), explainer=Bright())
    assert early.looks_taken.used == 1
    whole = content(all_rows)
    assert content(rows) == {name: whole[name] for name in content(rows)}


def test_forward_passes_and_maps_of_later_looks_are_saved():
    fixed, _ = run([CLEAR], None, explainer=Occlusion())
    early, _ = run([CLEAR], 3, explainer=Occlusion())
    whole, _ = run([open_limit()], 3, explainer=Ramp())
    made = {one.side: one.n_maps for one in early.explaining}
    assert (made["probe"], "probe, look 2" in made) == (80, False)
    again = {one.side: one.n_maps for one in whole.explaining}
    assert (again["probe"], again["probe, look 2"]) == (80, 40)
    assert sum(side.endswith("again") for side in again) == 1  # repeated at the first look alone
    # 80 of 120 rows; the images of all rows are embedded either way, and a few maps are repeated.
    per_row = (fixed.forwards - early.forwards) / 40
    assert per_row > 16  # its map alone takes 16 images with a part hidden
    assert early.forwards < 0.75 * fixed.forwards


@pytest.mark.parametrize("looks", [3, "open"])
def test_results_follow_from_rows_and_facts_alone(looks):
    result, rows = run([open_limit()], looks)
    plan = CellPlan(**{name: getattr(result, name) for name in CellPlan.model_fields})
    facts = CellFacts(**{name: getattr(result, name) for name in CellFacts.model_fields})
    again = results_of(plan, facts, rows[::-1])
    assert again.model_dump_json() == result.model_dump_json()


def test_a_stored_level_is_not_believed():
    """The level follows from the plan: a record whose facts say another is judged as planned."""
    result, rows = run([CLEAR], 3)
    plan = CellPlan(**{name: getattr(result, name) for name in CellPlan.model_fields})
    facts = CellFacts(**{name: getattr(result, name) for name in CellFacts.model_fields})
    lower = facts.looks_taken.model_copy(update={"confidence": 0.5})
    again = results_of(plan, facts.model_copy(update={"looks_taken": lower}), rows)
    assert again.limits == result.limits


def test_p_values_agree_with_the_look_that_decides():
    result, _ = run([CLEAR], 3)
    (limit,) = result.limits
    assert 0.0 <= limit.p_value <= 0.025
    spent = spending(0.95, result.looks_taken.times)
    assert result.looks_taken.confidence == 1.0 - spent.level(1)
    near = AtLeast("deletion_auc", at_least=0.9953)
    (left,), (once,) = (run([near], looks)[0].limits for looks in (3, None))
    assert (left.p_value, left.p_opposite) == (
        spent.overall(once.p_value, 2),
        spent.overall(once.p_opposite, 2),
    )
    assert once.p_value < left.p_value < 0.1


def test_open_looks_stop_where_the_capital_is_large_enough():
    result, rows = run([AtLeast("insertion_auc", at_least=-0.9)], "open")
    assert result.verdict.outcome is Outcome.PASS
    looks = result.looks_taken
    assert (looks.kind, looks.identities, looks.used) == ("open", [30, 46, 60], 1)
    assert (looks.confidence, result.n_identities, len(rows)) == (0.95, 30, 60)
    (limit,) = result.limits
    assert limit.estimate.method == "betting confidence sequence on [-1, 1] over 30 identities"
    assert limit.estimate.low > -0.9
    assert (limit.p_value, limit.settles, limit.hangs_on_one) == (None, "", None)


def test_open_looks_go_on_while_it_is_open():
    result, _ = run([open_limit()], "open")
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert result.looks_taken.used == 3
    assert result.verdict.reason.endswith("the interval contains the limit")


class Drawn:
    """Depends on its seed."""

    traits = ExplainerTraits()

    def explain(self, model, probes, references, *, contrast=None, generator):
        drawn = generator.random(tuple(probes.shape[-2:]), dtype=np.float32)
        return probes.mean(1) * probes.new_tensor(drawn)


def test_an_explainer_that_draws_is_measured_at_all_seeds_of_every_look():
    _, all_rows = run([CLEAR], None, explainer=Drawn(), seeds=3)
    early, rows = run([CLEAR], 3, explainer=Drawn(), seeds=3)
    assert (early.looks_taken.used, early.limits[0].seeds.values != []) == (1, True)
    whole = content(all_rows)
    assert content(rows) == {name: whole[name] for name in content(rows)}
    assert {one.seed for row in rows for one in row.measured} == {0, 1, 2}


def test_rows_of_a_self_check_are_measured_at_once():
    rows = []
    workshop = Workshop(batch_size=16, emit=rows.extend, progress=lambda *_: None)
    given = Parameters(steps=4, fills=("black",), controls=())
    cell = replace(cell_of(KIND, given), looks=3)
    found = measure_rows(cell, Subjects(model(), Ramp(), People(60), {}, {}), workshop)
    assert len(found) == len(rows) == 120
    _, in_order = run([CLEAR], None)
    assert [row.row for row in found] == [row.row for row in in_order]


def ids(n, each=2):
    return [f"{who:03d}-{row}" for who in range(n) for row in range(each)]


def people(n, each=2):
    return [[who] for who in range(n) for _ in range(each)]


def test_who_comes_first_is_decided_by_the_seed_and_the_content_alone():
    plan = plan_of_looks(5, 7, ids(150), people(150))
    assert plan.looks.identities == [30, 60, 90, 120, 150]
    assert plan.looks.rows == [60, 120, 180, 240, 300]
    named = [{ids(150)[row] for row in rows} for rows in plan.rows]
    assert all(len({name[:3] for name in of}) == 30 for of in named)  # all rows of a person
    order = np.random.default_rng(1).permutation(300)
    shuffled, whose = [ids(150)[k] for k in order], [[900 - people(150)[k][0]] for k in order]
    again = plan_of_looks(5, 7, shuffled, whose)
    assert [{shuffled[row] for row in rows} for rows in again.rows] == named
    assert again.looks == plan.looks
    other = plan_of_looks(5, 8, ids(150), people(150))
    assert len({*other.rows[0]} & {*plan.rows[0]}) < 40  # of 60; 12 are expected
    assert sorted(row for rows in plan.rows for row in rows) == [*range(300)]


def test_rows_of_two_people_are_drawn_one_by_one():
    whose = [[a, b] for a in range(40) for b in range(40) if a != b]
    names = [f"{a}-{b}" for a, b in whose]
    plan = plan_of_looks(4, 7, names, whose)
    assert (plan.looks.units, plan.looks.rows) == ("rows", [390, 780, 1170, 1560])
    assert plan.looks.identities == [40, 40, 40, 40]
    few = plan_of_looks(2, 7, names[:20], whose[:20])  # 21 people at most: one look
    assert (few.looks.rows, few.looks.left_out) == ([20], 1)


def test_open_looks_come_after_thirty_people_and_then_in_steps():
    plan = plan_of_looks("open", 7, ids(100), people(100))
    assert plan.looks.identities == [30, 46, 62, 78, 94, 100]
    assert taken(plan.looks, 4, 0.9).confidence == 0.9
    assert plan_of_looks("open", 7, ids(12), people(12)).looks.identities == [12]


def test_a_reader_is_told_of_the_look_and_reports_are_the_same_again(tmp_path):
    record = evaluate(
        model(), Ramp(), People(60), steps=4, fills=["black"], on_inconclusive="extend", looks=3,
        limits=[{"metric": "deletion_auc", "at_least": 0.5}], controls=["random_pixels"],
        reports=tmp_path,
    )  # fmt: skip
    (cell,) = record.cells
    assert (cell.looks, cell.on_inconclusive, cell.looks_taken.used) == (3, "extend", 1)
    said = "look 1 of 2 (1 left out: too few identities), 40 of 60 identities, decided at 98.8 %"
    plain = json.loads(record.model_dump_json())
    assert looked_at(plain["cells"][0]) == said
    assert f"looks  {cell.id}: {said}" in terminal_summary(plain)
    assert said in markdown_summary(plain)
    assert said in render(plain)
    assert "measures further" in render(plain)
    stored = read_run(next(path for path in tmp_path.iterdir() if path.is_dir()))
    (kept,) = stored.records.values()
    again = rederived(kept, stored.rows)
    assert again.cells[0].model_dump_json() == kept.cells[0].model_dump_json()
    assert math.isclose(again.cells[0].looks_taken.confidence, 0.988, abs_tol=1e-3)


@dataclass(frozen=True)
class Faulty:
    """Gives no finite map of so many of the first pairs in the order of the looks."""

    names: frozenset

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = Ramp().explain(model, probes, references, generator=generator)
        for row, probe in enumerate(probes):
            if float(probe.double().sum()) in self.names:
                maps[row] = math.nan
        return maps


def faulty(n_bad):
    """Return an explainer without a finite map of some rows of the first look."""
    sums = []

    class Noting(Ramp):
        def explain(self, model, probes, references, **more):
            sums.extend(float(probe.double().sum()) for probe in probes)
            return super().explain(model, probes, references, **more)

    run([CLEAR], 3, explainer=Noting())
    return Faulty(frozenset(sums[:n_bad]))


def test_one_bad_map_of_an_early_look_ends_no_cell():
    """1 of the 80 rows is more than 1 %, and 1 of all 120 is not."""
    late, rows = run([CLEAR], 3, explainer=faulty(1))
    assert (late.looks_taken.used, len(rows)) == (2, 120)
    assert late.verdict.outcome is Outcome.PASS
    plan = CellPlan(**{name: getattr(late, name) for name in CellPlan.model_fields})
    facts = CellFacts(**{name: getattr(late, name) for name in CellFacts.model_fields})
    first = facts.model_copy(update={"looks_taken": taken(facts.looks_taken, 1, 0.95)})
    early = results_of(plan, first, rows[:80])
    assert early.verdict.outcome is Outcome.INCONCLUSIVE
    assert "1 of 80 rows have no usable saliency map" in early.verdict.reason


def test_bad_maps_that_no_later_row_can_make_up_for_end_the_cell():
    early, rows = run([CLEAR], 3, explainer=faulty(2))
    assert early.verdict.outcome is Outcome.FAIL
    assert (early.looks_taken.used, len(rows)) == (1, 80)

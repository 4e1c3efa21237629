"""Values of an earlier run: paired with the rows, or not compared, with the reason."""

import json
import shutil
from dataclasses import replace

import pytest

from fxeval.errors import StoreError
from fxeval.metrics.deletion_insertion import METRICS
from fxeval.records.earlier import OF_A_MODEL, EarlierRun, Question
from fxeval.records.reading import load_record, read_rows
from fxeval.records.schema import CellPlan
from fxeval.records.stored_run import StoredRun, read_run
from fxeval.records.writing import RowFile
from fxeval.run.evaluation import evaluate
from fxeval.statistics.changes import compared
from fxeval.statistics.results import rederived
from fxeval.tests.toy_world import Occlusion, People, model

EXAMPLE = "example_v1.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with one cell of eight rows."""
    reports = tmp_path_factory.mktemp("reports")
    evaluate(model(), Occlusion(side=8), People(4), steps=2, fills=["mean"], reports=reports,
             controls=["centre"], device="cpu")  # fmt: skip
    (folder,) = reports.iterdir()
    return folder


def question_of(run, **changes):
    """The question of that cell, as another run would ask it."""
    record = load_record(run / "evaluate.json")
    (cell,) = record.cells
    plan = CellPlan(**{key: getattr(cell, key) for key in CellPlan.model_fields})
    model, pairs = record.subjects.models[cell.model], record.subjects.pairs[cell.pairs]
    asked = Question(
        suite="evaluate",
        seed=0,
        plan=plan,
        model={key: getattr(model, key) for key in OF_A_MODEL},
        pairs={"digest": pairs.digest, "n_pairs": pairs.n_pairs},
        operating_threshold=record.verification[0].operating_threshold.value,
    )
    parts = {key: changes.pop(key) for key in list(changes) if hasattr(plan, key)}
    return replace(asked, plan=plan.model_copy(update=parts), **changes)


@pytest.mark.parametrize("of", ["", "evaluate.json"])
def test_the_explainers_values_come_under_the_name_of_the_run(run, of):
    found = EarlierRun.read("baseline", run / of).paired(question_of(run))
    rows = read_rows(run / "rows.jsonl")
    assert found.values.keys() == {row.row for row in rows}
    for row in rows:
        (own,) = [one for one in row.measured if one.map == "explainer"]
        (earlier,) = found.values[row.row]
        assert earlier.map == "baseline"
        assert (earlier.values, earlier.states, earlier.under, earlier.seed) == (
            own.values, own.states, own.under, 0,
        )  # fmt: skip
        assert found.added(row).measured == [*row.measured, earlier]
    assert found.remark.startswith(f"baseline: run {run.name} of fxeval ")
    assert found.remark.endswith(", 8 rows")


def test_a_row_that_the_earlier_run_lacks_stays_as_it_is(run):
    found = EarlierRun.read("base", run).paired(question_of(run))
    row = read_rows(run / "rows.jsonl")[0].model_copy(update={"row": "another"})
    assert found.added(row) == row


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"suite": "other"}, "it is of the suite evaluate, this is other"),
        ({"seed": 7}, "its suite has the seed 0, this one 7"),
        ({"explainer": "rise"}, "it has no cell faithfulness.deletion_insertion of model a, "
         "explainer rise and pairs people"),
        ({"kind": "sanity.model_randomisation"}, "it has no cell sanity.model_randomisation"),
        ({"parameters": {"steps": 3}}, "its check has other parameters: steps was 2, is 3"),
        ({"model": dict.fromkeys(OF_A_MODEL)}, "model a is another: digest was 0a0000000000"),
        ({"pairs": {"digest": "0" * 64, "n_pairs": 9}}, "n_pairs was 8, is 9"),
    ],
)  # fmt: skip
def test_another_question_has_no_values_and_says_why(run, changes, reason):
    asked = question_of(run, **{k: v for k, v in changes.items() if k not in ("model", "pairs")})
    asked = replace(asked, **{k: v for k, v in changes.items() if k in ("model", "pairs")})
    found = EarlierRun.read("baseline", run).paired(asked)
    assert not found.values
    assert found.remark.startswith("baseline: no values")
    assert reason in found.remark


def test_decisions_at_another_threshold_are_not_compared_and_the_rest_is(run):
    found = EarlierRun.read("baseline", run).paired(question_of(run, operating_threshold=0.5))
    kept = {name for one in found.values.values() for name in one[0].values}
    assert kept == {metric.name for metric in METRICS if not metric.is_decision}
    assert "no values of deletion_fraction_to_nonmatch, insertion_fraction_to_match: its " in (
        found.remark
    )


def test_a_cell_that_was_not_measured_has_no_values(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "rows.jsonl").write_text("")
    found = EarlierRun.read("baseline", tmp_path / "run").paired(question_of(run))
    assert "its cell has no values: it has no rows" in found.remark


def test_a_further_model_that_is_another_is_not_blamed_on_the_explainer(run):
    record = load_record(run / "evaluate.json")
    (own,) = record.subjects.models.values()
    judge = {key: getattr(own, key) for key in OF_A_MODEL}
    earlier = EarlierRun.read("baseline", run)
    assert earlier.paired(replace(question_of(run), further={own.name: judge})).values
    unknown = earlier.paired(replace(question_of(run), further={"judge": judge}))
    assert "it does not describe model judge" in unknown.remark
    subjects = record.subjects.model_copy(
        update={"models": {**record.subjects.models, "judge": own}}
    )
    (cell,) = record.cells
    whole = record.model_copy(
        update={
            "subjects": subjects,
            "cells": [cell.model_copy(update={"further": {"evaluators": ["judge"]}})],
        }
    )
    stored = StoredRun(run, {"evaluate": whole}, read_rows(run / "rows.jsonl"))
    (asking,) = whole.cells
    question = Question.of(whole, asking)
    assert EarlierRun("base", stored).paired(question).values
    moved = replace(question, further={"judge": {**question.further["judge"], "digest": "0" * 64}})
    found = EarlierRun("base", stored).paired(moved)
    assert not found.values
    assert "model judge is another: digest was 0a0000000000" in found.remark


@pytest.mark.parametrize("n_kept", [7, 16])
def test_rows_that_are_lost_or_of_two_suites_are_not_paired(run, tmp_path, n_kept):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join((lines * 2)[:n_kept]))
    found = EarlierRun.read("baseline", tmp_path / "run").paired(question_of(run))
    assert found.values == {}
    assert f"has {n_kept} rows where its record counts 8: rows are lost, or a" in found.remark


def test_rows_of_another_suite_with_a_cell_of_that_name_are_not_taken(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "rows.jsonl"
    rows = read_rows(path)
    assert {row.suite for row in rows} == {"evaluate"}
    own = EarlierRun.read("baseline", tmp_path / "run").paired(question_of(run))
    others = [
        row.model_copy(update={"suite": "another", "measured": row.measured[:1]}) for row in rows
    ]
    RowFile(path).append(others)
    stored = read_run(tmp_path / "run")
    found = EarlierRun("baseline", stored).paired(question_of(run))
    assert (found.values, found.remark) == (own.values, own.remark)
    (record,) = stored.records.values()
    assert stored.rows_of("evaluate", record.cells[0]) == rows
    assert rederived(record, stored.rows).cells == record.cells
    (comparison,) = compared(stored, stored)  # which refuses rows that are too many
    assert comparison.suite == "evaluate"


def nothing(folder):
    folder.rmdir()


def no_record(folder):
    (folder / "rows.jsonl").write_text("")


def runs(folder):
    (folder / "20260101T000000Z-abc").mkdir()
    (folder / "20260101T000000Z-abc" / "rows.jsonl").write_text("")


def no_rows(folder):
    (folder / "evaluate.json").write_text(Files.record)


def torn_record(folder):
    (folder / "evaluate.json").write_text(Files.record[:200])
    (folder / "rows.jsonl").write_text("")


def other_json(folder):
    (folder / "package.json").write_text(json.dumps({"name": "x"}))
    (folder / "rows.jsonl").write_text("")


def torn_rows(folder):
    (folder / "evaluate.json").write_text(Files.record)
    (folder / "rows.jsonl").write_text('{"cell": 3}\n{}\n')


class Files:
    record = ""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "expected the folder of one run (<suite>.json and rows*.jsonl) or a record in "
         "it, got a path where nothing is"),
        (no_record, "got a folder without a record."),
        (runs, "It holds runs; name one of them, such as"),
        (no_rows, "got a record without rows*.jsonl beside it"),
        (torn_record, "evaluate.json: not valid JSON"),
        (other_json, "package.json: record: expected format version"),
        (torn_rows, "rows.jsonl:1: not a valid row"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_refused_with_what_was_expected(run, tmp_path, make, said):
    Files.record = (run / "evaluate.json").read_text()
    folder = tmp_path / "run"
    folder.mkdir()
    make(folder)
    with pytest.raises(StoreError) as caught:
        EarlierRun.read("baseline", folder)
    assert str(caught.value).startswith(f"--fx-baseline {folder}: ")
    assert said in str(caught.value)

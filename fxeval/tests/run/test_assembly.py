"""Results of all processes become one record a suite; a missing cell is never a pass."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fxeval.errors import StoreError
from fxeval.records.reading import load_record
from fxeval.records.schema import Record
from fxeval.records.writing import dumped
from fxeval.run.assembly import Gatherer

SAMPLE = json.loads(
    (Path(__file__).parents[1] / "records" / "example_v2.json").read_text(encoding="utf-8")
)


def result(cell, outcome="pass", *, path="suites/a.yaml", name="a", planned=("x", "y")):
    return {
        "suite": {"name": name, "title": name, "path": path, "digest": "0" * 64, "seed": 1,
                  },
        "formats": ["json"],
        "planned": list(planned),
        "environment": copy.deepcopy(SAMPLE["environment"]),
        "subjects": {
            "models": {}, "explainers": {},
            "pairs": {"p": {**SAMPLE["subjects"]["pairs"]["rendered"], "banner": "Made up."}},
        },
        "cell": {
            **copy.deepcopy(SAMPLE["cells"][0]), "id": cell, "check": cell,
            "nodeid": f"a.yaml::{cell}", "verdict": {"outcome": outcome, "reason": ""},
        },
    }  # fmt: skip


@pytest.fixture
def gatherer(tmp_path):
    return Gatherer(tmp_path / "run", "run-1", datetime.now(UTC), "pytest")


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["fail", "inconclusive"], "fail"),
        (["fail", "invalid"], "invalid"),
        (["pass"], "inconclusive"),
        (["fail"], "fail"),
        (["unsupported", "unsupported"], "inconclusive"),
        (["fail", "unsupported"], "fail"),
    ],
)
def test_the_worst_cell_decides_and_a_missing_one_is_no_pass(gatherer, outcomes, worst):
    for cell, outcome in zip("xy", outcomes, strict=False):
        gatherer.add(result(cell, outcome))
    (record,) = gatherer.records()
    assert record.verdict.outcome == worst
    assert record.run.complete == (len(outcomes) == 2)
    assert record.run.missing == ["y"][: 2 - len(outcomes)]
    assert ("not run" in record.verdict.reason) == (len(outcomes) == 1)
    assert record.banners == ["Made up."]


def test_a_check_of_which_nothing_was_measured_is_no_pass(gatherer):
    cells = [("x", "pass", "one"), ("y", "unsupported", "one"), ("z", "unsupported", "two")]
    for name, outcome, check in cells:
        found = result(name, outcome, planned="xyz")
        found["cell"]["check"] = check
        gatherer.add(found)
    assert gatherer.unmeasured() == ["two"]
    verdict = gatherer.records()[0].verdict
    assert verdict.outcome == "inconclusive"
    assert verdict.reason.endswith("nothing was measured for two")
    gatherer.results.pop()
    assert gatherer.unmeasured() == []


def test_cells_stand_in_the_order_of_the_suite_whatever_order_they_came_in(gatherer):
    gatherer.add(result("y"))
    gatherer.add(result("x"))
    assert [cell.id for cell in gatherer.records()[0].cells] == ["x", "y"]


def test_two_suites_of_one_name_overwrite_nothing(gatherer, tmp_path):
    gatherer.add(result("x", planned=["x"]))
    gatherer.add(result("x", planned=["x"], path="other/a.yaml"))
    gatherer.write()
    written = [json.loads(path.read_text()) for path in gatherer.written]
    assert [record["suite"]["path"] for record in written] == ["suites/a.yaml", "other/a.yaml"]
    assert len({path.name for path in gatherer.written}) == 2


def test_what_is_written_is_a_record_and_its_page(gatherer):
    for cell in "xy":
        found = result(cell)
        found["formats"] = ["json", "html"]
        gatherer.add(found)
    gatherer.write()
    assert [path.suffix for path in gatherer.written] == [".json", ".html"]
    record = load_record(gatherer.written[0])
    assert isinstance(record, Record)
    [again] = gatherer.records()
    assert dumped(record) == dumped(again)
    assert "Made up." in gatherer.written[1].read_text(encoding="utf-8")


def test_a_cell_whose_test_failed_afterwards_is_invalid_and_shows_no_figure(gatherer):
    gatherer.add(result("x"))
    gatherer.add(result("y"))
    gatherer.spoil("a.yaml::y", "teardown failed: no ")
    [record] = gatherer.records()
    spoilt = record.cells[1]
    assert (spoilt.verdict.outcome, spoilt.verdict.reason) == ("invalid", "teardown failed: no")
    assert spoilt.refusal == spoilt.verdict
    assert not spoilt.estimates
    assert not spoilt.limits
    assert spoilt.asked == record.cells[0].asked
    assert record.cells[0].verdict.outcome == "pass"
    assert record.verdict.outcome == "invalid"


def test_verification_of_a_model_stands_once_and_beside_the_model(gatherer):
    for cell in "xy":
        found = result(cell)
        found["subjects"]["models"]["m"] = {
            **SAMPLE["subjects"]["models"]["mini_resnet"], "verification": SAMPLE["verification"][0]
        }  # fmt: skip
        gatherer.add(found)
    [record] = gatherer.records()
    assert [entry.pair_list for entry in record.verification] == ["rendered_faces"]
    assert record.subjects.models["m"].operating_threshold == 0.3127


def test_what_no_record_can_hold_is_named_and_no_crash(gatherer):
    found = result("x")
    found["environment"]["threads"] = "many"
    gatherer.add(found)
    with pytest.raises(StoreError, match=r"record: environment\.threads: .*got 'many'"):
        gatherer.records()
    with pytest.raises(StoreError, match="environment"):
        gatherer.write()


def test_a_record_holds_the_matrices_of_its_cells_and_says_what_was_not_run(gatherer):
    names = {"occlusion_tmr", "deletion_auc"}
    for model in "ab":
        one = result(f"t[{model}-cam-p]", planned=[f"t[{of}-cam-p]" for of in "abc"])
        cell = one["cell"]
        figures = {**cell["estimates"][0], "metric": "occlusion_tmr", "map": "explainer"}
        cell |= {"check": "t", "kind": "transfer.cross_model", "model": model, "explainer": "cam"}
        cell |= {"pairs": "p", "limits": [], "asked": [], "differences": []}
        cell["metrics"] = [{**cell["metrics"][0], "name": name} for name in names]
        cell["estimates"] = [
            {**figures, "under": {"evaluator": of, "fill": "black", "fraction": 0.01}}
            for of in "ab"
        ]
        gatherer.add(one)
    (record,) = gatherer.records()
    (matrix,) = record.transfers
    assert (matrix.generators, matrix.evaluators) == (["a", "b"], ["a", "b"])
    assert matrix.table("occlusion_tmr").mean == pytest.approx(figures["value"])
    assert "t[c-cam-p]: not run" in matrix.remarks

"""Results of all processes become one record a suite; a missing cell is never a pass."""

import json
from datetime import UTC, datetime

import pytest

from fxeval.gather import Gatherer


def result(cell, outcome="pass", *, path="suites/a.yaml", name="a", planned=("x", "y")):
    return {
        "suite": {"name": name, "title": name, "path": path, "digest": "0" * 64, "seed": 1,
                  "formats": ["json"]},
        "planned": list(planned),
        "environment": {},
        "subjects": {"models": {}, "explainers": {}, "pairs": {"p": {"banner": "Made up."}}},
        "cell": {"id": cell, "check": cell, "verdict": {"outcome": outcome, "reason": ""}},
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
    assert record["verdict"]["outcome"] == worst
    assert record["run"]["complete"] == (len(outcomes) == 2)
    assert ("not run" in record["verdict"]["reason"]) == (len(outcomes) == 1)
    assert record["banners"] == ["Made up."]


def test_a_check_of_which_nothing_was_measured_is_no_pass(gatherer):
    cells = [("x", "pass", "one"), ("y", "unsupported", "one"), ("z", "unsupported", "two")]
    for name, outcome, check in cells:
        found = result(name, outcome, planned="xyz")
        found["cell"]["check"] = check
        gatherer.add(found)
    assert gatherer.unmeasured() == ["two"]
    verdict = gatherer.records()[0]["verdict"]
    assert verdict["outcome"] == "inconclusive"
    assert verdict["reason"].endswith("nothing was measured of two")
    gatherer.results.pop()
    assert gatherer.unmeasured() == []


def test_cells_stand_in_the_order_of_the_suite_whatever_order_they_came_in(gatherer):
    gatherer.add(result("y"))
    gatherer.add(result("x"))
    assert [cell["id"] for cell in gatherer.records()[0]["cells"]] == ["x", "y"]


def test_two_suites_of_one_name_overwrite_nothing(gatherer, tmp_path):
    gatherer.add(result("x", planned=["x"]))
    gatherer.add(result("x", planned=["x"], path="other/a.yaml"))
    gatherer.write()
    written = [json.loads(path.read_text()) for path in gatherer.written]
    assert [record["suite"]["path"] for record in written] == ["suites/a.yaml", "other/a.yaml"]
    assert len({path.name for path in gatherer.written}) == 2

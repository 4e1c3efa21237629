"""Whole runs of checks on several models: what is loaded, recorded and said."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fxeval
from fxeval.errors import FxevalError, SuiteError, for_a_record
from fxeval.run.resolving import _further
from fxeval.suite.cells import Use
from fxeval.tests.metrics.test_cross_model_transfer import Drawn, network
from fxeval.tests.toy_world import LARGE, People

CONFTEST = """
from dataclasses import dataclass
from pathlib import Path

import pytest

from fxeval.errors import ModelContractError
from fxeval.tests.metrics.test_cross_model_transfer import Drawn, network
from fxeval.tests.toy_world import LARGE, SMALL, People


@dataclass(frozen=True)
class File:
    seed: int

    def load(self):
        with open("loads.txt", "a") as file:
            file.write(f"{self.seed}\\n")
        if self.seed == 9:
            raise ModelContractError("weights.pth: the weights cannot be read (No such file).")
        return network(f"net{self.seed}", self.seed, LARGE if self.seed == 2 else SMALL)


@pytest.fixture
def model_one():
    return File(1)


@pytest.fixture
def model_two():
    return File(2)


@pytest.fixture
def model_three():
    return File(3)


@pytest.fixture
def model_absent():
    return File(9)


@pytest.fixture
def explainer_drawn():
    return Drawn()


@pytest.fixture
def pairs_people():
    return People(n=4)
"""
SUITE = """\
fxeval: 1
suite: matrix
models: [one, two, three]
explainers: [drawn]
pairs: [people]
checks:
  - id: transfer
    kind: transfer.cross_model
    fractions: [0.2]
    controls: [random_blobs]
    repeats: 2
    limits: [{metric: occlusion_cosine_drop, at_least: -1, severity: info}]
"""


@pytest.fixture
def run(pytester):
    pytester.makeconftest(CONFTEST)
    threads = torch.get_num_threads()

    def run(*args, text=SUITE):
        (pytester.path / "matrix.yaml").write_text(text)
        start = pytester.runpytest_subprocess if args else pytester.runpytest_inprocess
        found = start("matrix.yaml", "--fx-threads=1", *args)
        (path,) = pytester.path.glob("reports/*/matrix.json")
        rows = [
            json.loads(line)
            for file in pytester.path.glob("reports/*/rows*.jsonl")
            for line in file.read_text().splitlines()
        ]
        loads = pytester.path / "loads.txt"
        loaded = sorted(map(int, loads.read_text().split()))
        record = json.loads(path.read_text())
        loads.unlink()
        (pytester.path / "reports").rename(pytester.path / f"done{record['run']['id']}")
        return found, record, sorted(rows, key=lambda row: (row["cell"], row["row"])), loaded

    yield run
    torch.set_num_threads(threads)


def test_a_matrix_loads_each_file_once_and_has_the_same_rows_with_two_workers(run):
    _, record, rows, loaded = run()
    assert loaded == [1, 2, 3]
    assert [*record["subjects"]["models"]] == ["one", "two", "three"]
    assert {one["model"] for one in record["verification"]} == {"one", "two", "three"}
    assert record["cells"][0]["further"] == {"evaluators": ["two", "three"]}
    assert len({row["row"] for row in rows}) == 8  # one name in every cell, whatever the crop
    assert run("-n", "2")[2] == rows


def test_an_evaluator_that_no_check_explains_is_recorded_too(run):
    text = SUITE.replace(
        "    fractions", "    models: [one]\n    evaluators: [three]\n    fractions"
    )
    _, record, rows, loaded = run(text=text)
    assert loaded == [1, 3]
    assert [*record["subjects"]["models"]] == ["one", "three"]
    assert {one["under"]["evaluator"] for row in rows for one in row["measured"]} == {
        "one", "three",
    }  # fmt: skip


def test_an_evaluator_that_is_not_there_is_named_with_its_place_and_the_rest_is_measured(run):
    text = SUITE.replace("one, two, three", "one, absent").replace(", severity: info", "")
    found, record, _, _ = run(text=text)
    of_one, of_absent = record["cells"]
    said = (
        "evaluator absent: no values: matrix.yaml:3:15: model 'absent': weights.pth: the weights "
        "cannot be read (No such file)."
    )
    assert said in of_one["notes"]
    assert of_one["verdict"]["outcome"] == of_absent["verdict"]["outcome"] == "invalid"
    assert of_one["verdict"]["reason"].startswith(f"occlusion_cosine_drop: {said[:40]}")
    assert of_one["n_pairs"] == 8
    assert found.ret == 1


@dataclass(frozen=True, eq=False)
class Kept:
    """A model in a file."""

    name: str
    seed: int

    def load(self):
        return network(self.name, self.seed, LARGE)


def evaluated(**given):
    more = {"n": 6, "controls": [], "fractions": [0.2], **given}
    return fxeval.evaluate(
        network("a", 1), Drawn(), People(n=4), check="transfer.cross_model", **more
    )


def test_evaluate_takes_further_models():
    record = evaluated(evaluators=[network("b", 2), Kept("c", 3)])
    (cell,) = record.cells
    assert cell.further == {"evaluators": ["b", "c"]}
    assert {*record.subjects.models} == {"a", "b", "c"}
    alone = evaluated().cells[0]
    own = [one for one in cell.estimates if one.under["evaluator"] == "a"]
    assert own == alone.estimates


def test_evaluate_takes_a_model_among_its_own_evaluators_and_refuses_two_of_one_name():
    own = network("a", 1)
    record = fxeval.evaluate(
        own, Drawn(), People(n=4), check="transfer.cross_model", n=4, evaluators=[own]
    )
    assert [*record.subjects.models] == ["a"]
    with pytest.raises(SuiteError, match="'a' is listed twice"):
        evaluated(evaluators=[replace(network("a", 2))])
    with pytest.raises(SuiteError, match="unknown key 'evaluators'"):
        fxeval.evaluate(own, Drawn(), People(n=4), n=4, evaluators=[network("b", 2)])


@pytest.mark.parametrize("error", [AttributeError("no attribute 'secret'"), KeyError("secret")])
def test_a_fixture_of_an_evaluator_may_raise_anything_and_is_named(error):
    def fails(name):
        raise error

    request = SimpleNamespace(getfixturevalue=fails, node=SimpleNamespace(path=Path("s/a.yaml")))
    use = Use("see", where="a.yaml:4:15")
    found = _further(use, request, session=None)
    assert isinstance(found, FxevalError)
    assert str(found).startswith("a.yaml:4:15: model 'see': ")
    assert type(error).__name__ in for_a_record(found)
    assert "secret" not in for_a_record(found)  # what user code says may name anybody

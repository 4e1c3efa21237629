"""Runs in MLflow: what they hold is what the record says, and each is there once."""

import json

import pytest

from fxeval.errors import StoreError
from fxeval.records.reading import load_record
from fxeval.records.series import Wanted
from fxeval.store.index import Store
from fxeval.store.mlflow_export import (
    LONGEST_NAME,
    cell_metrics,
    cell_params,
    export_mlflow,
)
from fxeval.tests.store.stored_runs import EXAMPLES, write_run

CELL = load_record(EXAMPLES[2]).cells[0]


def changed(**change):
    return [one.model_copy(update=change) for one in CELL.estimates[:2]]


def test_each_estimate_is_a_metric_with_the_ends_of_its_interval():
    found = cell_metrics(CELL)
    assert len(found) == sum(
        value is not None for one in CELL.estimates for value in (one.value, one.low, one.high)
    )
    one = next(one for one in CELL.estimates if one.map == "explainer")
    ((axis, word),) = one.under.items()
    name = f"{one.metric}/{axis}.{word}"
    assert [found[name], found[f"{name}_low"], found[f"{name}_high"]] == [
        one.value, one.low, one.high,
    ]  # fmt: skip
    assert any("/control." in name for name in found)


def test_names_are_taken_by_mlflow_and_no_two_are_the_same():
    hostile = [
        one.model_copy(update={"metric": metric})
        for one, metric in zip(
            CELL.estimates, ("a=b", "a:b", "a_b", "é" * 999, "/../x"), strict=False
        )
    ]
    found = cell_metrics(CELL.model_copy(update={"estimates": hostile}))
    assert len(found) == 15
    for one in found:
        assert len(one) <= LONGEST_NAME + 7
        assert not set(one) - set("abcdefghijklmnopqrstuvwxyz0123456789_-./ "), one
        assert not one.startswith((".", "/"))


def test_a_missing_value_is_no_metric():
    empty = changed(value=None, low=None, high=None)
    assert cell_metrics(CELL.model_copy(update={"estimates": empty})) == {}


def test_parameters_are_the_subjects_and_those_of_the_check():
    found = cell_params(CELL)
    assert (found["model"], found["explainer"], found["kind"]) == (
        CELL.model, CELL.explainer, CELL.kind,
    )  # fmt: skip
    for name, value in CELL.parameters.items():
        assert json.loads(found[f"parameters.{name}"]) == json.loads(json.dumps(value))


@pytest.fixture
def mlflow():
    return pytest.importorskip(
        "mlflow.tracking", reason='MLflow is absent: pip install "fxeval[mlflow]"'
    )


@pytest.fixture
def store(tmp_path):
    for number, name in enumerate(("run-1", "run-2"), 1):
        run = write_run(tmp_path, name, day=number)
        (run / "quickstart.html").write_text("<p>page</p>")
    found = Store(f"sqlite:///{tmp_path}/store.sqlite")
    found.rebuild([tmp_path])
    return found


@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_a_run_is_in_mlflow_once_with_what_its_record_says(mlflow, store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases want it
    uri = f"file:{tmp_path}/mlruns"
    assert export_mlflow(store, uri, Wanted(last=1)) == (1, 0)
    assert export_mlflow(store, uri, Wanted()) == (1, 1)
    assert export_mlflow(store, uri, Wanted()) == (0, 2)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fxeval").experiment_id
    runs = client.search_runs([experiment], max_results=100)
    parents = {
        run.data.tags["mlflow.runName"]: run for run in runs if "fxeval.record" in run.data.tags
    }
    assert sorted(parents) == ["run-1/quickstart", "run-2/quickstart"]
    record = load_record(tmp_path / "run-1" / "quickstart.json")
    parent = parents["run-1/quickstart"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["suite"] == "quickstart"
    assert parent.data.tags["fxeval.outcome"] == record.verdict.outcome.value
    files = [file.path for file in client.list_artifacts(parent.info.run_id)]
    assert sorted(files) == ["quickstart.html", "quickstart.json"]
    below = {
        run.data.tags["mlflow.runName"]: run
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert sorted(below) == sorted(cell.id for cell in record.cells)
    for cell in record.cells:
        run = below[cell.id]
        assert run.data.metrics == cell_metrics(cell)
        assert run.data.params == cell_params(cell)
        assert run.data.tags["fxeval.outcome"] == cell.verdict.outcome.value


@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_an_address_that_mlflow_refuses_is_an_error_of_ours(mlflow, store):
    with pytest.raises(StoreError, match="MLflow refused"):
        export_mlflow(store, "nothing://x", Wanted())

"""Runs of an index as runs of MLflow: one way, and each only once.

A record becomes a run with its page and its record as artefacts, and each of its cells a run below
it, with the parameters of the cell and its estimates as metrics.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from fxeval.errors import StoreError
from fxeval.records.reading import load_record
from fxeval.records.schema import CellResult, Record
from fxeval.records.series import Wanted
from fxeval.results import EXPLAINER, Outcome
from fxeval.store.index import Store

EXPERIMENT = "fxeval"
"""Name of the experiment of MLflow."""

LONGEST_NAME, LONGEST_VALUE = 240, 500
"""Characters of a name and of a parameter that every release of MLflow takes."""

_MARK = "fxeval.record"


def export_mlflow(store: Store, uri: str, wanted: Wanted) -> tuple[int, int]:
    """Write runs to a tracking store of MLflow; one that is there already is passed by.

    Args:
        store: The index; the records themselves are read.
        uri: Address of the tracking store, such as ``file:mlruns`` or ``http://HOST:5000``.
        wanted: Which runs; ``last`` counts runs.

    Returns:
        The numbers of records that were written and that were there.

    Raises:
        StoreError: If MLflow is not installed or refuses, or a record can't be read.
    """
    client, said = _client(uri)
    n_written = n_there = 0
    try:
        experiment = _experiment(client)
        for one in store.runs(wanted):
            name = f"{one.id}/{one.record}"
            query = f"tags.`{_MARK}` = '{_quoted(name)}'"
            if client.search_runs([experiment], query, max_results=1):
                n_there += 1
                continue
            folder = store.path_of(one.id)
            record = load_record(folder / f"{one.record}.json")
            run = _write(client, experiment, name, record)
            for suffix in ("html", "json"):
                file = folder / f"{one.record}.{suffix}"
                if file.is_file():
                    client.log_artifact(run, str(file))
            client.set_tag(run, _MARK, _quoted(name))  # last: what was cut short is written again
            client.set_terminated(run, "FINISHED", end_time=_milliseconds(record.run.finished))
            n_written += 1
    except (said, OSError) as error:
        line = " ".join(str(error).split())[:400]
        raise StoreError(f"MLflow refused: {line}.") from error
    return n_written, n_there


def _client(uri: str) -> tuple[Any, type[Exception]]:
    """Return a client of MLflow, and the error that it raises."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise StoreError('This export needs MLflow: pip install "fxeval[mlflow]".') from error
    try:
        return MlflowClient(tracking_uri=uri), MlflowException
    except MlflowException as error:
        line = " ".join(str(error).split())[:400]
        raise StoreError(f"MLflow refused its address: {line}.") from error


def _experiment(client: Any) -> str:  # noqa: ANN401  (MLflow's own)
    found = client.get_experiment_by_name(EXPERIMENT)
    id: str = client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
    return id


def _write(client: Any, experiment: str, name: str, record: Record) -> str:  # noqa: ANN401
    """Write a record and its cells; return the id of its run."""
    start = _milliseconds(record.run.started)
    end = _milliseconds(record.run.finished)
    tags = {
        "mlflow.runName": name,
        "fxeval.outcome": record.verdict.outcome.value,
        "fxeval.version": record.environment.fxeval,
        "mlflow.source.git.commit": record.environment.commit or "",
    }
    parent: str = client.create_run(experiment, start_time=start, tags=tags).info.run_id
    _log_params(client, parent, {"suite": record.suite.name, "digest": record.suite.digest})
    for cell in record.cells:
        below = {
            "mlflow.runName": cell.id,
            "mlflow.parentRunId": parent,
            "fxeval.run": record.run.id,
            "fxeval.outcome": cell.verdict.outcome.value,
            "fxeval.reason": cell.verdict.reason[:LONGEST_VALUE],
        }
        run = client.create_run(experiment, start_time=start, tags=below).info.run_id
        _log_params(client, run, cell_params(cell))
        for metric, value in cell_metrics(cell).items():
            client.log_metric(run, metric, value, timestamp=end)
        is_good = cell.verdict.outcome in (Outcome.PASS, Outcome.INFORMATION)
        client.set_terminated(run, "FINISHED" if is_good else "FAILED", end_time=end)
    return parent


def _log_params(client: Any, run: str, params: Mapping[str, str]) -> None:  # noqa: ANN401
    for name, value in params.items():
        client.log_param(run, name, value)


def cell_params(cell: CellResult) -> dict[str, str]:
    """Return the parameters of a cell: its subjects, and those of its check as JSON."""
    named = {name: getattr(cell, name) for name in ("check", "kind", "model", "explainer", "pairs")}
    own = {
        f"parameters.{name}": json.dumps(value, sort_keys=True)
        for name, value in cell.parameters.items()
    }
    return {name: value[:LONGEST_VALUE] for name, value in _named({**named, **own}.items()).items()}


def cell_metrics(cell: CellResult) -> dict[str, float]:
    """Return the estimates of a cell with their intervals, by names that MLflow takes.

    A name is that of the metric, then ``explainer`` or the control, then the condition, such as
    ``deletion_auc/control.centre/fill.blur``; ``_low`` and ``_high`` are the ends of the interval.
    """
    found: list[tuple[str, float]] = []
    for one in cell.estimates:
        under = [f"{axis}.{value}" for axis, value in sorted(one.under.items())]
        own = [] if one.map == EXPLAINER else [one.map]
        name = "/".join([one.metric, *own, *under])
        values = {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        found += [
            (key, value)
            for key, value in values.items()
            if value is not None and math.isfinite(value)
        ]
    return _named(found)


def _named(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return values by names that MLflow takes and that are no two the same."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        plain = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)[:LONGEST_NAME].strip("/. ") or "_"
        if plain != name or plain in found:
            plain = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
        found[plain] = value
    return found


def _quoted(name: str) -> str:
    """Return a mark without what would end a string of MLflow's query language."""
    return re.sub(r"[^\w./-]", "_", name)


def _milliseconds(moment: str) -> int:
    """Return a moment in ISO 8601 as MLflow counts it; 0 if it is none."""
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return 0
    return int(found.replace(tzinfo=found.tzinfo or UTC).timestamp() * 1000)

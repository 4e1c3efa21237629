"""Two runs of given values, for tests of what compares them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fxeval.records.form import VerdictEntry
from fxeval.records.judged import LimitEntry, MetricEntry, SliceEntry
from fxeval.records.reading import read_record
from fxeval.records.schema import CellFacts, CellPlan, CellResult, Measured, Record, Row
from fxeval.records.stored_run import StoredRun
from fxeval.records.subjects import ExplainerEntry, PairsEntry
from fxeval.records.writing import dump
from fxeval.results import Outcome
from fxeval.statistics.results import results_of
from fxeval.statistics.verdict import overall

EXAMPLE = Path(__file__).parent / "records" / "example_v2.json"
DELETION = "faithfulness.deletion_insertion"
BLUR, BLACK = (("fill", "blur"),), (("fill", "black"),)
FAR = {"at_least": -0.9}
"""A limit that every value of a metric between -1 and 1 passes."""

Cell = tuple[CellResult, list[Row]]
Values = Mapping[Any, Sequence[float]]
"""By condition, or by (condition, seed), or by (map, condition, seed): one value per row."""


def metric(name: str = "m", better: str = "higher", **more: Any) -> MetricEntry:
    """Return a metric whose values lie between -1 and 1."""
    keys = {
        "name": name, "title": f"Title of {name}", "unit": "u", "better": better,
        "range": (-1.0, 1.0), "statistic": "mean", "source": "s", "meaning": "m", "kind": "light",
        **more,
    }  # fmt: skip
    return MetricEntry(**keys)


def cell(
    values: Values | Sequence[float] | Mapping[str, Values],
    *asked: Mapping[str, Any],
    of: Sequence[MetricEntry] | MetricEntry | None = None,
    **more: Any,
) -> Cell:
    """Return a cell with its rows.

    Args:
        values: Of the metric m; of several, by their names.
        asked: Limits; of the metric m if they name none. Without any, one that all values pass.
        of: The metrics.
        more: ``check``, ``kind``, ``explainer``, ``model``, ``parameters``; ``people``, ``states``,
            ``slices``, ``mated`` and ``first`` (number of the first row), ``facts``, ``selects``.
    """
    metrics = [of] if isinstance(of, MetricEntry) else [*(of or [metric()])]
    by_metric = _by_metric(values, metrics)
    names = {key: more.get(key, key[0]) for key in ("check", "model", "explainer", "pairs")}
    slices = more.get("slices", [])
    plan = CellPlan(
        id="{check}[{model}-{explainer}-{pairs}]".format(**names), **names, why="",
        kind=more.get("kind", DELETION), where="s.yaml:1:1", confidence=0.95,
        parameters=more.get("parameters", {}), on_inconclusive="fail", metrics=metrics,
        asked=[LimitEntry(**{"metric": "m", **one}) for one in asked or [FAR]],
        slices=[SliceEntry(column=one) for one in dict.fromkeys(c for row in slices for c in row)],
        seeds=more.get("seeds", 1), selects=more.get("selects"),
    )  # fmt: skip
    n = len(next(iter(next(iter(by_metric.values())).values())))
    keys = dict.fromkeys(key for columns in by_metric.values() for key in columns)
    states = more.get("states", ["ok"] * n)
    first = more.get("first", 0)
    rows = [
        Row(
            cell=plan.id, row=f"r{place + first:04}", state=states[place],
            identities=[more["people"][place] if "people" in more else place + first],
            slices=slices[place] if slices else {},
            is_mated=more["mated"][place] if "mated" in more else None,
            measured=[_measured(key, by_metric, place) for key in keys],
        )
        for place in range(n)
    ]  # fmt: skip
    facts = more.get("facts", CellFacts())
    if facts.refusal is not None:
        rows = []
    return results_of(plan, facts, rows), rows


def run(*cells: Cell, name: str = "one", suite: str = "suite", **more: Any) -> StoredRun:
    """Return a run with these cells.

    Args:
        cells: With their rows.
        name: Of the run and its folder.
        suite: Its name.
        more: ``digest`` of the model and ``pairs`` (digest of the list), ``seed`` and ``commit``.
    """
    record = record_of([one for one, _ in cells], name, suite, **more)
    rows = [row for _, some in cells for row in some]
    return StoredRun(Path("/nowhere") / name, {suite: record}, rows)


def record_of(cells: Sequence[CellResult], name: str, suite: str, **more: Any) -> Record:
    """Return the record of a run."""
    record = read_record(json.loads(EXAMPLE.read_text(encoding="utf-8")))
    model = next(iter(record.subjects.models.values()))
    digest = more.get("digest", "d" * 64)
    subjects = record.subjects.model_copy(
        update={
            "models": {
                one.model: model.model_copy(update={"name": one.model, "digest": digest})
                for one in cells
            },
            "explainers": {
                one.explainer: ExplainerEntry(class_="E", needs=more.get("needs", []))
                for one in cells
            },
            "pairs": {
                one.pairs: PairsEntry(
                    name=one.pairs, n_pairs=one.n_pairs, n_identities=one.n_identities,
                    banner=None, excluded={}, digest=more.get("pairs", "p"),
                )
                for one in cells
            },
        }
    )  # fmt: skip
    verdict = overall(cells, [])
    about = {"name": suite, "title": suite, "digest": "5" * 64, "seed": more.get("seed", 0)}
    return record.model_copy(
        update={
            "cells": [*cells],
            "subjects": subjects,
            "verification": [],
            "banners": [],
            "verdict": VerdictEntry(outcome=verdict.outcome, reason=verdict.reason),
            "run": record.run.model_copy(update={"id": name, "missing": []}),
            "suite": record.suite.model_copy(update=about),
            "environment": record.environment.model_copy(
                update={"commit": more.get("commit", "c" * 40), "dirty": False}
            ),
        }
    )


def written(stored: StoredRun, folder: Path) -> Path:
    """Write a run where a command finds it; return its folder."""
    folder.mkdir(parents=True)
    for stem, record in stored.records.items():
        (folder / f"{stem}.json").write_text(dump(record), encoding="utf-8")
    lines = "".join(f"{row.model_dump_json()}\n" for row in stored.rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    return folder


def spread(mean: float, n: int = 60, *, by: float = 0.05, seed: int = 0) -> np.ndarray:
    """Return values that scatter around a mean, of which no two are equal."""
    found = np.random.default_rng([seed, n]).normal(0, 1, n)
    return mean + by * (found - found.mean())


def refused(reason: str = "no gradient", outcome: Outcome = Outcome.INVALID) -> CellFacts:
    """Return the facts of a cell that could not be measured."""
    return CellFacts(refusal=VerdictEntry(outcome=outcome, reason=reason))


def _by_metric(values: Any, metrics: Sequence[MetricEntry]) -> dict[str, dict[Any, Any]]:
    names = {one.name for one in metrics}
    if isinstance(values, Mapping) and {*values} <= names:
        return {name: _columns(found) for name, found in values.items()}
    return {metrics[0].name: _columns(values)}


def _columns(values: Any) -> dict[Any, Any]:
    if not isinstance(values, Mapping):
        return {("explainer", BLUR, 0): values}
    found = {}
    for key, column in values.items():
        if isinstance(key[0], str):
            found[key] = column
        elif len(key) == 2 and isinstance(key[1], int):
            found["explainer", key[0], key[1]] = column
        else:
            found["explainer", key, 0] = column
    return found


def _measured(key: Any, by_metric: Mapping[str, Mapping[Any, Any]], place: int) -> Measured:
    map_, under, seed = key
    found = {name: columns[key][place] for name, columns in by_metric.items() if key in columns}
    return Measured(
        map=map_, under=dict(under), seed=seed, states=dict.fromkeys(found, "ok"),
        values={name: None if np.isnan(at) else float(at) for name, at in found.items()},
    )  # fmt: skip

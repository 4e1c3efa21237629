"""Runs of given values of several explainers, for tests of their rankings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fxeval.records.form import VerdictEntry
from fxeval.records.judged import MetricEntry
from fxeval.records.reading import read_record
from fxeval.records.schema import CellPlan, CellResult, Measured, Record, Row
from fxeval.records.subjects import ExplainerEntry, PairsEntry
from fxeval.records.writing import dump
from fxeval.results import Outcome

RECORDS = Path(__file__).parents[1] / "records"
LETTERS = "abcdefghijkl"
TRUTH, PROXY = "truth.localisation", "faithfulness.deletion_insertion"

NO_ATTENTION = VerdictEntry(outcome=Outcome.INVALID, reason="no attention")

Run = tuple[str, Record, Sequence[Row]]


def declared(name: str, better: str = "higher", **more: Any) -> MetricEntry:
    """Return a metric without range."""
    keys = {
        "name": name, "title": name, "unit": "u", "better": better, "range": (None, None),
        "statistic": "mean", "source": "s", "meaning": "m", "kind": "light", **more,
    }  # fmt: skip
    return MetricEntry(**keys)


def run(
    kind: str,
    values: Mapping[str, Mapping[str, Any]],
    *,
    of: MetricEntry | None = None,
    name: str = "one",
    pairs: str = "p",
    **more: Any,
) -> Run:
    """Return a run of one check, whose id is the last word of its kind.

    Args:
        kind: Of the check; of known truth where it begins with ``truth.``.
        values: By model and explainer (N,) values of the rows, NaN = none.
        of: The metric.
        name: Of the run.
        pairs: The list.
        more: ``under`` (a condition), ``identities`` (of each row), ``below`` (the values of the
            denominator ``below``, as ``values``), ``refused`` (explainers).
    """
    metric = of or declared("top_precision" if kind == TRUTH else "m")
    metrics = [metric, declared("below")] if "below" in more else [metric]
    record = read_record(json.loads((RECORDS / "example_v2.json").read_text(encoding="utf-8")))
    cells, rows = [], []
    for model, by_explainer in values.items():
        for explainer, column in by_explainer.items():
            check = kind.rpartition(".")[2]
            plan = CellPlan(
                id=f"{check}[{model}-{explainer}-{pairs}]", check=check, kind=kind, why="",
                where="s.yaml:1:1", model=model, explainer=explainer, pairs=pairs, parameters={},
                confidence=0.95, on_inconclusive="warn", metrics=metrics, asked=[],
            )  # fmt: skip
            refusal, own = NO_ATTENTION, []
            if explainer not in more.get("refused", ()):
                refusal, own = None, _rows(plan, metric, column, more)
            cells.append(
                CellResult(
                    **dict(plan), refusal=refusal, n_pairs=len(own), n_identities=len(own),
                    verdict=NO_ATTENTION,
                )
            )  # fmt: skip
            rows += own
    first = next(iter(record.subjects.models.values()))
    subjects = record.subjects.model_copy(
        update={
            "models": {model: first.model_copy(update={"name": model}) for model in values},
            "explainers": {
                explainer: ExplainerEntry(class_="E", params={"layer": explainer})
                for by_explainer in values.values()
                for explainer in by_explainer
            },
            "pairs": {
                pairs: PairsEntry(
                    name=pairs, n_pairs=9, n_identities=9, banner=None, excluded={}, digest=pairs
                )
            },
        }
    )
    return name, record.model_copy(update={"cells": cells, "subjects": subjects}), rows


def _rows(
    plan: CellPlan, metric: MetricEntry, column: Sequence[float], more: Mapping[str, Any]
) -> list[Row]:
    below = more["below"][plan.model][plan.explainer] if "below" in more else None
    found = []
    for place, value in enumerate(column):
        values = {metric.name: None if np.isnan(value) else float(value)}
        if below is not None:
            values["below"] = float(below[place])
        one = Measured(
            map="explainer", under=more.get("under", {}), values=values,
            states=dict.fromkeys(values, "ok"),
        )  # fmt: skip
        who = more["identities"][place] if "identities" in more else [place]
        found.append(
            Row(cell=plan.id, row=f"r{place:03}", identities=who, state="ok", measured=[one])
        )
    return found


def around(means: Sequence[float], n: int = 30, *, by: float = 0.01, seed: int = 0) -> Any:
    """Return by explainer (n,) values whose mean is exactly the given one."""
    noise = np.random.default_rng(seed).normal(size=(len(means), n))
    noise -= noise.mean(axis=1, keepdims=True)
    return {
        letter: mean + by * line for letter, mean, line in zip(LETTERS, means, noise, strict=False)
    }


def written(run: Run, folder: Path) -> Path:
    """Write the files of a run, and return its folder."""
    folder = folder / run[0]
    folder.mkdir(parents=True)
    (folder / "s.json").write_text(dump(run[1]), encoding="utf-8")
    lines = [row.model_dump_json() for row in run[2]]
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder

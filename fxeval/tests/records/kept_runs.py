"""Runs for tests of baselines: one that was measured, and copies of it that were changed."""

import json
import shutil

from fxeval.run.evaluation import evaluate
from fxeval.tests.toy_world import Occlusion, People, model

LIMIT = {"metric": "deletion_auc", "not_worse_than": "baseline", "within": {"absolute": 0.01}}


def measured(reports, *, side=8, n=32, limits=(LIMIT,)):
    """Measure one small cell; returns the folder of the run."""
    record = evaluate(
        model(), Occlusion(side=side), People(n), steps=2, fills=["mean"], reports=reports,
        controls=["centre"], device="cpu", limits=list(limits),
    )  # fmt: skip
    return reports / record.run.id


def changed(run, folder, edit=lambda record: None):
    """Copy a run under another id, and edit its record."""
    shutil.copytree(run, folder)
    path = folder / "evaluate.json"
    record = json.loads(path.read_text())
    record["run"]["id"] = folder.name
    edit(record)
    path.write_text(json.dumps(record))
    return folder


def on_another_class(record):
    record["environment"]["capability"] = "AVX2"

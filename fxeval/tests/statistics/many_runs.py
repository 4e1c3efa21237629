"""Series of given values over many runs, and records that hold them."""

import copy
import json
import math
from pathlib import Path

from fxeval.records.reading import read_record
from fxeval.records.series import Point, Series
from fxeval.results import Outcome

EXAMPLE = json.loads(
    (Path(__file__).parents[1] / "records" / "example_v2.json").read_text(encoding="utf-8")
)
CPU = "Linux x86_64, AVX2, torch 2.13, float32"
GPU = "NVIDIA H200, CUDA 13, torch 2.13, float32"


def point(at, value, **more):
    """Return the point of run number ``at``; its interval is 0.02 to either side."""
    keys = {
        "run": f"run-{at:04}", "started": f"2026-{1 + at // 672:02}-{1 + at // 24 % 28:02}T"
        f"{at % 24:02}:00:00Z", "commit": f"{at:04x}e2d04c71", "fxeval": "0.1.0",
        "hardware_class": CPU,
        "value": value, "low": value - 0.02, "high": value + 0.02, "n_identities": 60,
        "outcome": Outcome.PASS, "question": "q",
    }  # fmt: skip
    return Point(**(keys | more))


def series(values, *, better="lower", cell="one[m-e-p]", **more):
    """Return a series of values; an entry may be a point."""
    points = [one if isinstance(one, Point) else point(at, one) for at, one in enumerate(values)]
    keys = {
        "suite": "small", "cell": cell, "check": "one", "kind": "faithfulness.deletion_insertion",
        "model": "m", "explainer": "e", "pairs": "p", "metric": "deletion_auc",
        "title": "Deletion AUC", "unit": "similarity", "better": better,
        "under": {"fill": "blur"}, "points": tuple(points),
    }  # fmt: skip
    return Series(**(keys | more))


def missing(at, outcome=Outcome.INVALID):
    return point(at, math.nan, outcome=outcome)


def data_of(at, value=0.3, **environment):
    """Return the example record as that of run number ``at``, with its first estimate changed."""
    data = copy.deepcopy(EXAMPLE)
    one = point(at, value)
    data["run"] |= {"id": one.run, "started": one.started}
    data["environment"] |= {"commit": one.commit, **environment}
    data["cells"][0]["estimates"][0] |= {"value": value, "low": value - 0.02, "high": value + 0.02}
    return data


def record_of(at, value=0.3, **environment):
    return read_record(data_of(at, value, **environment))

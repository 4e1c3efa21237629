"""The time to judge a cell of 100 people with six controls, four metrics, two fills and curves.

    python -m pytest fxeval/tests/benchmarks/test_judging.py -m slow --benchmark-enable

Absolute times of this machine.
"""

import numpy as np
import pytest

from fxeval.records.judged import LimitEntry, MetricEntry
from fxeval.records.schema import CellFacts, CellPlan, Measured, Row
from fxeval.results import Outcome
from fxeval.statistics.results import results_of

pytestmark = pytest.mark.slow
CONTROLS = ("random_pixels", "random_blobs", "centre", "edge", "mean_map", "inverse")
METRICS = ("a", "b", "c", "d")


def a_cell(n=100):
    random = np.random.default_rng(0)
    plan = CellPlan(
        id="c[m-e-p]", check="c", kind="k", why="", where="s.yaml:1:1", model="m", explainer="e",
        pairs="p", parameters={}, confidence=0.95, on_inconclusive="fail",
        metrics=[
            MetricEntry(name=name, title=name, unit="u", better="lower", range=(-1.0, 1.0),
                        statistic="mean", source="s", meaning="m", kind="light")
            for name in METRICS
        ],
        asked=[
            LimitEntry(metric=metric, **form)
            for metric in METRICS
            for form in ({"better_than": "control.random_blobs"}, {"at_most": 0.9})
        ],
    )  # fmt: skip
    rows = [
        Row(
            cell=plan.id, row=f"r{place:03}", identities=[place], state="ok",
            measured=[
                Measured(
                    map=map_, under={"fill": fill}, states=dict.fromkeys(METRICS, "ok"),
                    values={name: 0.3 + 0.2 * (map_ != "explainer") + random.uniform(-0.2, 0.2)
                            for name in METRICS},
                    curves={kind: random.uniform(0, 1, 25).tolist()
                            for kind in ("deletion", "insertion")},
                )
                for map_ in ("explainer", *(f"control.{name}" for name in CONTROLS))
                for fill in ("blur", "black")
            ],
        )
        for place in range(n)
    ]  # fmt: skip
    return plan, CellFacts(), rows


def test_a_cell_is_judged(benchmark):
    result = benchmark(results_of, *a_cell())
    assert result.verdict.outcome is Outcome.PASS
    assert len(result.limits) == 16

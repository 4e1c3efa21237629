"""Cells of given values, for tests of verdicts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fxeval.records.judged import LimitEntry, MetricEntry, SliceEntry
from fxeval.records.schema import (
    CellFacts,
    CellPlan,
    CellResult,
    Measured,
    Repeatability,
    Row,
)
from fxeval.statistics.results import results_of

BLUR, BLACK = (("fill", "blur"),), (("fill", "black"),)
STEADY, STOCHASTIC, RESTLESS = (
    Repeatability(n_rows=4, repeats=repeats, depends_on_seed=depends, change=change)
    for repeats, depends, change in ((True, False, 0.0), (True, True, 0.0), (False, True, 0.3))
)

Values = Mapping[Any, Sequence[float]]
"""By map, or by (map, condition), or by (map, condition, seed): one value per row."""


def metric(better="lower", kind="light", **more):
    """Return the metric m, whose values lie between -1 and 1."""
    keys = {
        "name": "m", "title": "M", "unit": "u", "better": better, "range": (-1.0, 1.0),
        "statistic": "mean", "source": "s", "meaning": "m", "kind": kind, **more,
    }  # fmt: skip
    return MetricEntry(**keys)


def cell(
    asked: Sequence[Mapping[str, Any]],
    values: Values,
    *,
    of: MetricEntry | None = None,
    facts: CellFacts | None = None,
    rows: Callable[[list[Row]], list[Row]] = list,
    **of_rows: Any,
) -> CellResult:
    """Judge limits on the metric m.

    Args:
        asked: The limits, without the metric.
        values: Of each map.
        of: The metric.
        facts: Of the cell.
        rows: Changes the rows.
        of_rows: Fields of the rows, one value per row: ``identities``, ``is_mated``, ``slices``.
    """
    slices = of_rows.get("slices", [])
    plan = CellPlan(
        id="c[m-own-p]", check="c", kind="k", why="", where="s.yaml:1:1", model="m",
        explainer="own", pairs="p", parameters={}, confidence=0.95, on_inconclusive="fail",
        metrics=[of or metric()], asked=[LimitEntry(metric="m", **one) for one in asked],
        slices=[SliceEntry(column=one) for one in dict.fromkeys(c for row in slices for c in row)],
    )  # fmt: skip
    full = {_key(key): found for key, found in values.items()}
    n = len(next(iter(full.values())))
    made = [
        Row(
            cell=plan.id, row=f"r{place:04}", state="ok",
            identities=of_rows["identities"][place] if "identities" in of_rows else [place],
            is_mated=of_rows["is_mated"][place] if "is_mated" in of_rows else None,
            slices=slices[place] if slices else {},
            measured=[
                Measured(
                    map=map_, under=dict(under), seed=seed, states={"m": "ok"},
                    values={"m": None if np.isnan(found[place]) else float(found[place])},
                )
                for (map_, under, seed), found in full.items()
            ],
        )
        for place in range(n)
    ]  # fmt: skip
    return results_of(plan, facts or CellFacts(), rows(made))


def limit(asked: Mapping[str, Any], values: Values, **more: Any) -> Any:
    """Judge one limit, and return its only result."""
    [found] = cell([asked], values, **more).limits
    return found


def spread(mean: float, n: int = 40, *, by: float = 0.02) -> np.ndarray:
    """Return values around a mean, none of them equal."""
    return mean + by * np.linspace(-1.0, 1.0, n)[np.random.default_rng(n).permutation(n)]


def _key(key: Any) -> tuple[str, tuple[tuple[str, str], ...], int]:
    if isinstance(key, str):
        return key, BLUR, 0
    return (*key, 0) if len(key) == 2 else key

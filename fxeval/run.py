"""The chain from a cell to its part of the record, written once.

explain -> rank -> remove -> embed -> similarity -> measure -> estimate -> judge. What the
cells of a run share, devices and batches among it, is the bench's and the forward pool's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fxeval.bench import Bench, Subjects
from fxeval.cells import Cell, Estimate, Limit, Metric, Outcome, Verdict
from fxeval.contracts import Fill, RowState
from fxeval.discretion import without_paths
from fxeval.estimation import mean_estimate, median_estimate, paired
from fxeval.metrics import CATALOGUE
from fxeval.metrics.evidence import EXPLAINER, Curve, Measurement
from fxeval.verdict import combine, judge, state_verdict

FloatArray = NDArray[np.float64]
SHOWN_PROBLEMS = 20
MEAN_MAP_SIZE = 28


def measure_cell(cell: Cell, subjects: Subjects, bench: Bench) -> dict[str, Any]:
    """Measure and judge one cell.

    Args:
        cell: What to measure.
        subjects: The resolved model, explainer and pair source.
        bench: What cells share: device, forward passes, loaded pairs, maps.

    Returns:
        The cell's part of the record (plain data; NaN where there is no value).

    Raises:
        ContractError: If the model or the data can't be used at all; the explainer's faults are
            states of rows instead.
    """
    started, forwards = time.perf_counter() - bench.verifying.seconds, bench.forwards
    evidence = bench.evidence(cell, subjects)
    if bench.objection is not None:
        return invalid_cell(cell, bench.objection)
    found: Measurement = CATALOGUE[cell.kind].measure(evidence, cell.parameters)
    identities = evidence.pairs.probe_identity.numpy()
    table = _Table(cell, found, identities)
    limits = [judged for limit in cell.limits for judged in table.judged(limit)]
    states = _counts(found.states)
    verdicts = [(limit["verdict"], limit["severity"]) for limit in limits]
    bad_maps = _state_verdict(found, states)
    if bad_maps is not None:  # what the limits cannot say for lack of maps is a consequence of it
        failed = [judged for judged in verdicts if judged[0].outcome is Outcome.FAIL]
        verdicts = [(bad_maps, "critical"), *failed]
    elif found.objection is not None:
        verdicts.insert(0, (found.objection, "critical"))
    return {
        **identity_of(cell),
        "n_pairs": len(identities),
        "n_identities": len(set(identities.tolist())),
        "seconds": time.perf_counter() - bench.verifying.seconds - started,
        "forwards": bench.forwards - forwards,
        "explaining": bench.take_explaining(),
        "verdict": _plain(combine(verdicts)),
        "limits": [{**limit, "verdict": _plain(limit["verdict"])} for limit in limits],
        "states": {state.value: count for state, count in states.items()},
        "problems": _problems(evidence.pairs.row_id, found),
        "estimates": table.estimates(),
        "differences": table.differences(),
        "curves": [_band(curve, identities, cell.confidence) for curve in found.curves],
        "mean_map": _mean_map(found),
        "diagnostics": _diagnostics(found),
        "notes": [*found.notes, *bench.take_notes()],
    }


def invalid_cell(cell: Cell, reason: str, outcome: Outcome = Outcome.INVALID) -> dict[str, Any]:
    """Return the record of a cell that could not be measured at all."""
    return {
        **identity_of(cell),
        "n_pairs": 0,
        "n_identities": 0,
        "seconds": 0.0,
        "forwards": 0,
        "explaining": [],
        "verdict": {"outcome": outcome.value, "reason": reason},
        "limits": [],
        "states": {},
        "problems": [],
        "estimates": [],
        "differences": [],
        "curves": [],
        "mean_map": None,
        "diagnostics": [],
        "notes": [],
    }


def identity_of(cell: Cell) -> dict[str, Any]:
    """Return what a cell is, for the record."""
    return {
        "id": cell.id,
        "check": cell.check,
        "kind": cell.kind,
        "why": cell.why,
        "where": cell.where,
        "model": cell.model.name,
        "explainer": cell.explainer.name,
        "pairs": cell.pairs.name,
        "parameters": cell.parameters.model_dump(mode="json"),
        "on_inconclusive": cell.on_inconclusive,
    }


class _Table:
    """Estimates of a measurement's series, and limits judged on them."""

    def __init__(self, cell: Cell, found: Measurement, identities: NDArray[np.int64]) -> None:
        self._cell = cell
        self._identities = identities
        self._series = {(one.metric, one.map, one.fill): one for one in found.series}
        self._metrics: dict[str, Metric] = {
            metric.name: metric for metric in CATALOGUE[cell.kind].METRICS
        }

    def estimates(self) -> list[dict[str, Any]]:
        """One entry per metric, map and fill."""
        entries = []
        for series in self._series.values():
            metric = self._metrics[series.metric]
            entries.append(
                {
                    "metric": metric.name,
                    "title": metric.title,
                    "unit": metric.unit,
                    "better": metric.better,
                    "statistic": metric.statistic,
                    "map": series.map,
                    "fill": series.fill,
                    "states": {s.value: n for s, n in _counts(series.states).items()},
                    **_figures(self._estimate(metric, series.values)),
                }
            )
        return entries

    def differences(self) -> list[dict[str, Any]]:
        """One entry per metric, control and fill: the explainer's improvement, paired."""
        entries = []
        for name, map_, fill in self._series:
            if map_ != EXPLAINER:
                values = self._improvement(name, map_, fill, 0.0)
                entries.append(
                    {
                        "metric": name,
                        "control": map_.removeprefix("control."),
                        "fill": fill,
                        **_figures(self._estimate(self._metrics[name], values)),
                    }
                )
        return entries

    def judged(self, limit: Limit) -> list[dict[str, Any]]:
        """Judge a limit under every fill it is about."""
        fills = [
            fill for name, map_, fill in self._series if (name, map_) == (limit.metric, EXPLAINER)
        ]
        return [
            self._judged(limit, fill) for fill in fills if limit.fill is None or limit.fill == fill
        ]

    def _judged(self, limit: Limit, fill: Fill | None) -> dict[str, Any]:
        if limit.form == "better_than":
            values = self._improvement(
                limit.metric, f"control.{limit.control}", fill, limit.by_relative
            )
        else:
            values = self._series[limit.metric, EXPLAINER, fill].values
        estimate = self._estimate(self._metrics[limit.metric], values)
        return {
            "metric": limit.metric,
            "fill": fill,
            "form": limit.form,
            "bound": limit.bound,
            "control": limit.control,
            "by_absolute": limit.by_absolute,
            "by_relative": limit.by_relative,
            "severity": limit.severity,
            "where": limit.where,
            "text": _text(limit),
            "verdict": judge(replace(limit, fill=fill), estimate),
            "estimate": _figures(estimate) if estimate.n_pairs else None,
        }

    def _improvement(
        self, metric: str, control: str, fill: Fill | None, relative: float
    ) -> FloatArray:
        of_control = self._series[metric, control, fill].values
        of_explainer = self._series[metric, EXPLAINER, fill].values
        better = self._metrics[metric].better
        return paired(of_explainer, of_control, better) - relative * np.abs(of_control)

    def _estimate(self, metric: Metric, values: FloatArray) -> Estimate:
        present = np.isfinite(values)
        make = mean_estimate if metric.statistic == "mean" else median_estimate
        if not present.any():
            nan = float("nan")
            return Estimate(nan, nan, nan, self._cell.confidence, 0, 0, "no row has a value")
        return make(values[present], self._identities[present], self._cell.confidence)


def _text(limit: Limit) -> str:
    if limit.form == "better_than":
        margin = ""
        if limit.by_absolute:
            margin = f" by more than {limit.by_absolute:g}"
        elif limit.by_relative:
            margin = f" by more than {limit.by_relative:.0%} of the control"
        return f"{limit.metric} better than control.{limit.control}{margin}"
    return f"{limit.metric} {limit.form.replace('_', ' ')} {limit.bound:g}"


def _plain(verdict: Verdict) -> dict[str, str]:
    return {"outcome": verdict.outcome.value, "reason": verdict.reason}


def _figures(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": estimate.confidence,
        "n_pairs": estimate.n_pairs,
        "n_identities": estimate.n_identities,
        "method": estimate.method,
    }


def _state_verdict(found: Measurement, states: Mapping[RowState, int]) -> Verdict | None:
    """Fail too many bad maps, with what the first of them was."""
    verdict = state_verdict(states, len(found.states))
    if verdict is None:
        return None
    first = next((reason for reason in found.reasons if reason), "no reason given")
    return Verdict(verdict.outcome, f"{verdict.reason}; first: {without_paths(first)}")


def _counts(states: Sequence[RowState]) -> dict[RowState, int]:
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _problems(row_id: Callable[[int], str], found: Measurement) -> list[dict[str, str]]:
    return [
        {
            "row": row_id(row),
            "state": state.value,
            "reason": without_paths(found.reasons[row]),
        }
        for row, state in enumerate(found.states)
        if state is not RowState.OK
    ][:SHOWN_PROBLEMS]


def _band(curve: Curve, identities: NDArray[np.int64], confidence: float) -> Mapping[str, Any]:
    present = np.isfinite(curve.similarity).all(axis=1)
    points = [
        mean_estimate(column[present], identities[present], confidence)
        for column in (curve.similarity.T if present.any() else ())
    ]
    return {
        "kind": curve.kind,
        "map": curve.map,
        "fill": curve.fill,
        "fraction": [_drawn(value) for value in curve.fraction.tolist()] if points else [],
        "similarity": [_drawn(point.value) for point in points],
        "low": [_drawn(point.low) for point in points],
        "high": [_drawn(point.high) for point in points],
    }


def _drawn(value: float) -> float:
    """Shorten a number that is only drawn; what is judged keeps all its digits."""
    return float(f"{value:.5g}")


def _diagnostics(found: Measurement) -> list[dict[str, Any]]:
    """Return mean, least and largest of each diagnostic of the maps, over the rows that have it."""
    entries = []
    for name, values in found.maps.diagnostics.items():
        present = values[torch.isfinite(values)].double()
        if len(present):
            entries.append(
                {
                    "name": name,
                    "mean": float(present.mean()),
                    "least": float(present.min()),
                    "largest": float(present.max()),
                    "n_pairs": len(present),
                }
            )
    return entries


def _mean_map(found: Measurement) -> list[list[float]] | None:
    """Return the mean of the maps that have an order, each stretched to 0..1, on a small grid."""
    kept = [
        (map_ - map_.min()) / (map_.max() - map_.min())
        for map_, state in zip(found.maps.positive, found.maps.states, strict=True)
        if state is RowState.OK
    ]
    if not kept:
        return None
    mean = torch.stack(kept).mean(dim=0)[None, None]
    small = torch.nn.functional.adaptive_avg_pool2d(mean, MEAN_MAP_SIZE)[0, 0]
    grid: list[list[float]] = [[round(value, 4) for value in line] for line in small.tolist()]
    return grid

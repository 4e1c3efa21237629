"""Transfer matrices: what the maps of each generator do to each evaluator, side by side.

They are made from the cells of a record alone, and decide nothing: verdicts are those of the cells.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fxeval.records.judged import EstimateEntry
from fxeval.records.schema import CellResult
from fxeval.records.transfers import MixtureFit, TransferControl, TransferMatrix, TransferTable
from fxeval.results import EXPLAINER
from fxeval.statistics.mixture import area_warning, mixture_of, mixture_text

FloatArray = NDArray[np.float64]
Place: TypeAlias = tuple[str, str, str]
"""Generator, evaluator, and metric."""

KIND = "transfer.cross_model"
TMR, COSINE_DROP, AREA = "occlusion_tmr", "occlusion_cosine_drop", "occlusion_area"
INDEX, INDEX_COSINE = "transfer_index", "transfer_index_cosine"
UNOCCLUDED = "control.unoccluded"

_TABLES = (TMR, COSINE_DROP, INDEX, INDEX_COSINE, AREA)
_FEWEST = 3  # evaluators that two generators' order can be compared on
_SAME = 1e-9


def transfers_of(cells: Sequence[CellResult], missing: Sequence[str] = ()) -> list[TransferMatrix]:
    """Return one matrix for each check, explainer, list, fill and fraction.

    Args:
        cells: Of a record, in its order.
        missing: Ids of its cells that were not run.
    """
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell in cells:
        if cell.kind == KIND:
            groups.setdefault((cell.check, cell.explainer, cell.pairs), []).append(cell)
    return [
        _matrix(group, missing, fill, fraction)
        for group in groups.values()
        for fill, fraction in dict.fromkeys(
            (str(one.under["fill"]), float(one.under["fraction"]))
            for cell in group
            for one in cell.estimates
            if _is_of_a_matrix(one)
        )
    ]


@dataclass
class _Found:
    """The estimates of a group of cells under one fill and fraction.

    Attributes:
        own: Those of the explainer.
        controls: By name, those of other maps.
        models: Generators in the order of the cells, then other evaluators as they appear.
    """

    own: dict[Place, EstimateEntry] = field(default_factory=dict)
    controls: dict[str, dict[Place, EstimateEntry]] = field(default_factory=dict)
    models: dict[str, None] = field(default_factory=dict)

    def of(self, map_: str) -> dict[Place, EstimateEntry]:
        return self.own if map_ == EXPLAINER else self.controls.setdefault(map_, {})


def _is_of_a_matrix(one: EstimateEntry) -> bool:
    """Whether an estimate is about all rows: under further axes it is about some."""
    return set(one.under) == {"evaluator", "fill", "fraction"}


def _matrix(
    cells: Sequence[CellResult], missing: Sequence[str], fill: str, fraction: float
) -> TransferMatrix:
    first = cells[0]
    not_run = [
        id
        for id in missing
        if id.startswith(f"{first.check}[") and id.endswith(f"-{first.explainer}-{first.pairs}]")
    ]
    found = _Found()
    for cell in cells:
        found.models.setdefault(cell.model)
    for cell in cells:
        for one in cell.estimates:
            if _is_of_a_matrix(one) and (one.under["fill"], one.under["fraction"]) == (
                fill,
                fraction,
            ):
                evaluator = str(one.under["evaluator"])
                found.models.setdefault(evaluator)
                found.of(one.map)[cell.model, evaluator, one.metric] = one
    generators = [cell.model for cell in cells]
    judged = {evaluator for _, evaluator, _ in found.own}
    evaluators = [one for one in found.models if one in judged]
    clean, spreads = _clean(found.controls.get(UNOCCLUDED, {}), generators, evaluators)
    tables = [
        _table(metric, found.own, generators, evaluators)
        for metric in _TABLES
        if any(place[2] == metric for place in found.own)
    ]
    mixture, text, warning = _mixture(tables, clean, generators, fraction)
    return TransferMatrix(
        check=first.check,
        explainer=first.explainer,
        pairs=first.pairs,
        fill=fill,
        fraction=fraction,
        generators=generators,
        evaluators=evaluators,
        clean=clean.tolist(),
        tables=tables,
        controls=_controls(found.controls, generators, evaluators),
        mixture=mixture,
        mixture_text=text,
        warning=warning,
        remarks=[*_absences(cells, not_run), *_gaps(found, cells, evaluators), *spreads],
    )


def _table(
    metric: str,
    entries: dict[Place, EstimateEntry],
    generators: Sequence[str],
    evaluators: Sequence[str],
) -> TransferTable:
    shape = (len(generators), len(evaluators))
    values, low, high = (np.full(shape, math.nan) for _ in range(3))
    for i, generator in enumerate(generators):
        for j, evaluator in enumerate(evaluators):
            entry = entries.get((generator, evaluator, metric))
            if entry is not None:
                values[i, j], low[i, j], high[i, j] = (
                    math.nan if one is None else one for one in (entry.value, entry.low, entry.high)
                )
    own = np.array([[one == other for other in evaluators] for one in generators]).reshape(shape)
    others = np.where(own, math.nan, values)
    return TransferTable(
        metric=metric,
        values=values.tolist(),
        low=low.tolist(),
        high=high.tolist(),
        row_means=[_mean(row) for row in values],
        row_means_without_self=[_mean(row) for row in others],
        column_means=[_mean(column) for column in values.T],
        column_means_without_self=[_mean(column) for column in others.T],
        mean=_mean(values),
        mean_with_self=_mean(values[own]),
        mean_without_self=_mean(others),
        agreement=[[_spearman(one, other) for other in values] for one in values],
    )


def _mixture(
    tables: Sequence[TransferTable],
    clean: FloatArray,
    generators: Sequence[str],
    fraction: float,
) -> tuple[MixtureFit | None, str, str]:
    """Return the fit, what it says, and the warning that follows from it."""
    by_metric = {table.metric: np.array(table.values, dtype=np.float64) for table in tables}
    accepted = by_metric.get(TMR)
    if accepted is None:
        return None, "no mixture: the acceptance was not measured", ""
    fit = mixture_of(accepted, clean)
    if isinstance(fit, str):
        return None, fit, ""
    area = by_metric.get(AREA, np.full(accepted.shape, math.nan))
    warning = area_warning(fit, accepted, clean, area, fraction)
    return fit, mixture_text(fit, generators), warning


def _clean(
    entries: dict[Place, EstimateEntry], generators: Sequence[str], evaluators: Sequence[str]
) -> tuple[FloatArray, list[str]]:
    """Return each evaluator's clean acceptance, and remarks where the cells differ about it.

    They differ where their rows do; its own cell counts, or else the first.
    """
    clean, remarks = np.full(len(evaluators), math.nan), []
    for j, evaluator in enumerate(evaluators):
        found = {
            generator: entry.value
            for generator in generators
            if (entry := entries.get((generator, evaluator, TMR))) is not None
            and entry.value is not None
        }
        if not found:
            remarks.append(f"{evaluator}: no acceptance was measured with nothing occluded")
            continue
        clean[j] = found.get(evaluator, next(iter(found.values())))
        if max(found.values()) - min(found.values()) > _SAME:
            remarks.append(
                f"{evaluator}: the cells have other rows, and with nothing occluded it accepts "
                f"{min(found.values()):.3g} to {max(found.values()):.3g} of them"
            )
    return clean, remarks


def _controls(
    controls: dict[str, dict[Place, EstimateEntry]],
    generators: Sequence[str],
    evaluators: Sequence[str],
) -> list[TransferControl]:
    """Return what each control does to the evaluators: in their own cells, or else in the first."""

    def of(entries: dict[Place, EstimateEntry], evaluator: str, metric: str) -> float | None:
        order = [evaluator, *generators]
        found = (entries.get((generator, evaluator, metric)) for generator in order)
        return next((one.value for one in found if one is not None), None)

    return [
        TransferControl(
            map=map_,
            tmr=[of(entries, one, TMR) for one in evaluators],
            cosine_drop=[of(entries, one, COSINE_DROP) for one in evaluators],
        )
        for map_, entries in controls.items()
        if map_ != UNOCCLUDED
    ]


def _absences(cells: Sequence[CellResult], not_run: Iterable[str]) -> list[str]:
    """Say which cells have no values, and why."""
    found = [
        f"{cell.model} as a generator: {cell.verdict.outcome.value}: {cell.verdict.reason}"
        for cell in cells
        if not any(one.map == EXPLAINER for one in cell.estimates)
    ]
    return [*found, *(f"{id}: not run" for id in not_run)]


def _gaps(found: _Found, cells: Sequence[CellResult], evaluators: Sequence[str]) -> list[str]:
    """Say which values of measured cells are missing, and why; each reason of an evaluator once."""
    groups: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    metrics = [one for one in _TABLES if any(place[2] == one for place in found.own)]
    measured = {generator for generator, _, _ in found.own}
    for evaluator, cell, metric in product(evaluators, cells, metrics):
        entry = found.own.get((cell.model, evaluator, metric))
        is_by_definition = metric in (INDEX, INDEX_COSINE) and cell.model == evaluator
        if cell.model not in measured or (entry is None and is_by_definition):
            continue
        if entry is None or entry.value is None:
            said = next(
                (one for one in cell.remarks if one.startswith(f"evaluator {evaluator}:")), ""
            )
            reason = said if entry is None or not entry.n_pairs else ""
            reason = reason or ("not measured" if entry is None else entry.method)
            names, generators = groups.setdefault((evaluator, reason), ({}, {}))
            names.setdefault(metric)
            generators.setdefault(cell.model)
    return [
        f"no {', '.join(names)} of {', '.join(generators)} on {evaluator}: {reason}"
        for (evaluator, reason), (names, generators) in groups.items()
    ]


def _mean(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _spearman(one: FloatArray, other: FloatArray) -> float | None:
    """Return the correlation of the ranks where both are known; None where there is none."""
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < _FEWEST:
        return None
    ranks = [_ranks(some[both]) for some in (one, other)]
    x, y = (rank - rank.mean() for rank in ranks)
    length = math.sqrt(float((x @ x) * (y @ y)))
    return float(np.clip(x @ y / length, -1.0, 1.0)) if length > 0.0 else None


def _ranks(values: FloatArray) -> FloatArray:
    """Return ranks from 1; equal values share the mean of theirs."""
    below = (values[:, None] > values).sum(axis=1)
    equal = (values[:, None] == values).sum(axis=1)
    ranks: FloatArray = below + (equal + 1) / 2.0
    return ranks

"""What each metric says of each explainer on a model, on the whole list and in resamples of it.

The people of a list are resampled with replacement, and all rows of a person go along. One list has
the same resamples in every cell, so explainers, metrics and models are compared on the same people;
different lists are resampled independently. R resamples, G people, N rows, E explainers.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxeval.errors import StoreError
from fxeval.records.judged import MetricEntry
from fxeval.records.schema import CellResult, Record, Row
from fxeval.results import EXPLAINER, FIGURES, Better
from fxeval.seeding import generator_of
from fxeval.statistics.table import Key, Table
from fxeval.statistics.weighted_list import row_weights

FloatArray = NDArray[np.float64]

RESAMPLES = 2000
FEWEST_ROWS = 0.9
"""Least share of the rows on which an explainer must have a value to be ranked by a metric."""


@dataclass(frozen=True)
class Quantity:
    """What is measured: a metric of a check on a list under a condition."""

    check: str
    kind: str
    pairs: str
    metric: str
    under: Key

    @property
    def text(self) -> str:
        """The metric with its condition, such as ``deletion_auc (fill blur)``."""
        axes = ", ".join(f"{axis} {value}" for axis, value in self.under)
        return f"{self.metric} ({axes})" if axes else self.metric


@dataclass(frozen=True, eq=False)
class Means:
    """The values of several explainers by one quantity on one model.

    Attributes:
        better: The metric's direction.
        explainers: E names, sorted.
        values: (1 + R, E), of the whole list first, then of the resamples; NaN in a resample
            without a row.
        n_people: People with a row that counts.
    """

    better: Better
    explainers: tuple[str, ...]
    values: FloatArray
    n_people: int

    def directed(self, explainers: Sequence[str]) -> FloatArray:
        """Return (1 + R, E) values of some explainers, turned so that larger is better."""
        columns = [self.explainers.index(name) for name in explainers]
        return self.values[:, columns] * (1.0 if self.better == "higher" else -1.0)


@dataclass(frozen=True, eq=False)
class _Values:
    """The values of one explainer: by row, of the metric, and of its denominator if a ratio."""

    metric: MetricEntry
    of_row: Mapping[tuple[str, int], tuple[float, float]]


class People:
    """The people of one list and their resamples.

    Args:
        name: The list, as an address of its draws.
        identities: The people's numbers.
        resamples: R.
    """

    def __init__(self, name: str, identities: Iterable[int], resamples: int) -> None:
        self._places = {one: place for place, one in enumerate(sorted(set(identities)))}
        n = len(self._places)
        generator = generator_of("agreement", "people", name, n)
        drawn = generator.multinomial(n, np.full(n, 1.0 / n), size=resamples)
        self._weights = np.concatenate([np.ones((1, n)), drawn.astype(np.float64)])

    def mean(self, values: FloatArray, identities: Sequence[Sequence[int]]) -> FloatArray:
        """Return (1 + R,) means over people of their means; over rows where a row shows two."""
        first, second = self._owners(identities)
        if (first != second).any():
            alone = np.zeros(len(first), dtype=np.bool_)
            weights = row_weights(self._weights, first, second, alone)
        else:
            rows = np.bincount(first, minlength=len(self._places))
            weights = self._weights[:, first] / rows[first]
        return _ratio(weights @ values, weights.sum(axis=1))

    def median(self, values: FloatArray, identities: Sequence[Sequence[int]]) -> FloatArray:
        """Return (1 + R,) medians over people of their medians."""
        first, _ = self._owners(identities)
        people = np.unique(first)
        medians = np.array([np.median(values[first == one]) for one in people])
        order = np.argsort(medians, kind="stable")
        upto = np.cumsum(self._weights[:, people[order]], axis=1)
        n, medians = upto[:, -1], medians[order]
        # As a list in which each person stands as often as drawn: its middle, or middle two.
        lower = (upto < np.floor((n + 1) / 2)[:, None]).sum(axis=1)
        upper = (upto < (np.floor(n / 2) + 1)[:, None]).sum(axis=1)
        last = len(medians) - 1
        found = (medians[np.minimum(lower, last)] + medians[np.minimum(upper, last)]) / 2
        return np.where(n > 0, found, np.nan)

    def _owners(self, identities: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], ...]:
        numbers = [[self._places[row[0]], self._places[row[-1]]] for row in identities]
        first, second = np.array(numbers, dtype=np.int64).reshape(-1, 2).T
        return first, second


def means_of(
    runs: Sequence[tuple[str, Record, Sequence[Row]]], resamples: int = RESAMPLES
) -> tuple[dict[tuple[Quantity, str], Means], list[str]]:
    """Return the values of all explainers by quantity and model, and remarks on what is missing.

    Args:
        runs: Name, record and rows of each.
        resamples: R.

    Raises:
        StoreError: If a cell was measured and has no rows here, or two runs have different models
            or explainers by one name.
    """
    _check_subjects(runs)
    remarks: dict[str, None] = {}
    found: dict[tuple[Quantity, str], dict[str, _Values]] = {}
    people: dict[str, set[int]] = {}
    identities: dict[tuple[str, int], list[int]] = {}
    lists: dict[Quantity, str] = {}
    for name, record, rows in runs:
        by_cell: dict[tuple[str, int], list[Row]] = {}
        for row in rows:
            if row.is_of(record.suite.name):
                by_cell.setdefault((row.cell, row.attempt), []).append(row)
        for cell in record.cells:
            own = by_cell.get((cell.id, cell.attempt), [])
            if not _is_ranked(name, cell, own, remarks):
                continue
            entry = record.subjects.pairs.get(cell.pairs)
            list_ = (entry.digest if entry is not None else None) or f"{name}/{cell.pairs}"
            ordered = sorted(own, key=lambda row: (row.row, row.identities))
            names = _distinct(ordered, list_)
            people.setdefault(list_, set()).update(*(row.identities for row in own))
            identities.update(zip(names, (row.identities for row in ordered), strict=True))
            for quantity, values in _values_of(cell, ordered, names, remarks):
                lists[quantity] = list_
                by_explainer = found.setdefault((quantity, cell.model), {})
                if cell.explainer in by_explainer:
                    raise StoreError(
                        f"{name}: expected each cell in one run, got {cell.id} in two. Name the "
                        "runs of one suite once."
                    )
                by_explainer[cell.explainer] = values
    drawn = {one: People(one, who, resamples) for one, who in people.items()}
    means: dict[tuple[Quantity, str], Means] = {}
    for (quantity, model), by_explainer in found.items():
        one = _means(drawn[lists[quantity]], by_explainer, identities, (quantity, model), remarks)
        if one is not None:
            means[quantity, model] = one
    return means, [*remarks]


def _is_ranked(run: str, cell: CellResult, rows: Sequence[Row], remarks: dict[str, None]) -> bool:
    """Say whether a cell has values to rank its explainer by; remark on one that has none."""
    where = f"{cell.explainer} on {cell.model} is not ranked by {cell.check}"
    if cell.refusal is not None:
        remarks[f"{where}: {cell.refusal.reason}"] = None
        return False
    if len(rows) != cell.n_pairs:
        raise StoreError(
            f"{run}: cell {cell.id}: expected {cell.n_pairs} rows, got {len(rows)}. Keep all files "
            "rows*.jsonl of the run together."
        )
    if cell.selects is not None:
        remarks[f"{cell.check} chooses among configurations and ranks no explainer"] = None
        return False
    if not rows:
        remarks[f"{where}: no row was measured"] = None
    return bool(rows)


def _distinct(rows: Sequence[Row], list_: str) -> list[tuple[str, int]]:
    """Return a name for each row; those of equal rows are numbered."""
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        name = f"{list_}/{row.row}/{row.identities}"
        names.append((name, seen[name]))
        seen[name] += 1
    return names


def _values_of(
    cell: CellResult, rows: Sequence[Row], names: Sequence[tuple[str, int]],
    remarks: dict[str, None],
) -> list[tuple[Quantity, _Values]]:  # fmt: skip
    """Return the explainer's values by quantity, each a mean over its seeds."""
    plan, _ = cell.parts()
    table, found = Table(plan, rows), []
    for metric in plan.metrics:
        conditions = table.conditions(metric.name)
        if conditions and metric.statistic in FIGURES:
            remarks[f"{metric.name}: a figure of the whole list, which no row has"] = None
            continue
        for under in conditions:
            seeds = table.seeds([under])
            columns = [
                np.mean([table.values(name, EXPLAINER, under, seed) for seed in seeds], axis=0)
                if name
                else np.zeros(len(rows))
                for name in (metric.name, metric.denominator)
            ]
            by_row = dict(zip(names, zip(*columns, strict=True), strict=True))
            known = {row: two for row, two in by_row.items() if np.isfinite(two).all()}
            quantity = Quantity(cell.check, cell.kind, cell.pairs, metric.name, under)
            if known:
                found.append((quantity, _Values(metric, known)))
    return found


def _means(
    people: People, of: Mapping[str, _Values], identities: Mapping[tuple[str, int], list[int]],
    about: tuple[Quantity, str], remarks: dict[str, None],
) -> Means | None:  # fmt: skip
    """Return the values on the rows that all explainers have; None if there is no such row."""
    quantity, model = about
    every = {row for values in of.values() for row in values.of_row}
    kept = {
        name: values
        for name, values in of.items()
        if len(values.of_row) >= FEWEST_ROWS * len(every)
    }
    for name in sorted(of.keys() - kept.keys()):
        remarks[
            f"{name} on {model} is not ranked by {quantity.text}: it has a value on "
            f"{len(of[name].of_row)} of {len(every)} rows"
        ] = None
    rows = sorted(set.intersection(*({*values.of_row} for values in kept.values())))
    if not rows:
        remarks[f"{quantity.text} on {model}: no row has a value of every explainer"] = None
        return None
    who = [identities[row] for row in rows]
    columns = []
    for name in sorted(kept):
        metric = kept[name].metric
        values, below = np.array([kept[name].of_row[row] for row in rows]).T
        if metric.statistic == "median":
            columns.append(people.median(values, who))
        elif metric.statistic == "ratio":
            columns.append(_ratio(people.mean(values, who), people.mean(below, who)))
        else:
            columns.append(people.mean(values, who))
    n_people = len({one for row in who for one in row})
    better = next(iter(kept.values())).metric.better
    return Means(better, tuple(sorted(kept)), np.stack(columns, axis=1), n_people)


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return quotients; NaN where nothing divides."""
    return np.where(below != 0.0, above / np.where(below != 0.0, below, 1.0), math.nan)


def _check_subjects(runs: Sequence[tuple[str, Record, Sequence[Row]]]) -> None:
    """Refuse runs in which one name stands for two models or explainers."""
    known: dict[tuple[str, str], tuple[str, object]] = {}
    for run, record, _ in runs:
        subjects = record.subjects
        models = {("model", id): one.digest for id, one in subjects.models.items()}
        explainers = {
            ("explainer", id): (one.class_, one.params, one.digest)
            for id, one in subjects.explainers.items()
        }
        for (what, id), facts in {**models, **explainers}.items():
            before, others = known.setdefault((what, id), (run, facts))
            if others != facts:
                raise StoreError(
                    f"{what} {id!r}: expected the same in all runs, got another one in {before} "
                    f"than in {run}. Give one of them another name ('as')."
                )

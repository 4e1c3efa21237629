"""The values of a cell by metric, map, condition and seed, and the tables that they make."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fxeval.records.judged import Difference, EstimateEntry, MetricEntry
from fxeval.records.schema import CellPlan, Measured, Row
from fxeval.results import (
    DECIDED_AT_START,
    EXPLAINER,
    FIGURES,
    Estimate,
    Metric,
    RowState,
    gravity,
)
from fxeval.slices import UNKNOWN, Slice
from fxeval.statistics.decisions import unfit
from fxeval.statistics.entries import figures
from fxeval.statistics.estimate import (
    Denominator,
    Law,
    Sample,
    estimate,
    estimates,
    paired,
    ratio_of,
)
from fxeval.statistics.limits import BetterThan
from fxeval.statistics.units import ROUNDING

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
Key: TypeAlias = tuple[tuple[str, str | float], ...]
"""A condition: its axes with their values. In a slice, column and word follow them."""


class Table:
    """The values of a cell, one per row, in the order of the rows.

    Args:
        plan: The plan of the cell.
        rows: Its rows, in their order.

    Attributes:
        identities: (N,) of rows of one person each, (N, 2) if some show two; numbered from 0.
        metrics: The cell's metrics by name.
        series: Every map, condition and metric for which a row has a value.
        measured: By map and condition, then by seed, then by the place of the row.
    """

    def __init__(self, plan: CellPlan, rows: Sequence[Row]) -> None:
        self.confidence, self._model = plan.confidence, plan.model
        self._chosen_axes = frozenset(plan.selects.axes if plan.selects is not None else ())
        self._asked = frozenset(limit.metric for limit in plan.asked)
        self.metrics = {entry.name: _metric(entry) for entry in plan.metrics}
        self.identities = _numbered([row.identities for row in rows])
        mated = [row.is_mated for row in rows]
        self._is_mated = None if None in mated else np.array(mated, dtype=np.bool_)
        self._rows = rows
        self._slices = _slices_of(plan, rows)
        self.measured: dict[tuple[str, Key], dict[int, dict[int, Measured]]] = {}
        for place, row in enumerate(rows):
            for one in row.measured:
                by_seed = self.measured.setdefault((one.map, tuple(one.under.items())), {})
                by_seed.setdefault(one.seed, {})[place] = one
        self._faults = {name: self._fault(one) for name, one in self.metrics.items()}
        for name, fault in self._faults.items():
            if fault:  # no method may rest on this range
                self.metrics[name] = replace(self.metrics[name], range=(-math.inf, math.inf))
        self.series = [
            (map_, under, metric)
            for (map_, under), by_seed in self.measured.items()
            for metric in self.metrics.values()
            if any(metric.name in one.values for rows in by_seed.values() for one in rows.values())
        ]
        self._laws = {
            name: law_of(one, BetterThan(name, better_than="another").edges(one))
            for name, one in self.metrics.items()
        }
        self._states: dict[tuple[str, str, Key], Counter[RowState]] = {}
        self._known: dict[tuple[str, str, Key, int], FloatArray] = {}

    def conditions(self, metric: str) -> list[Key]:
        """Return the conditions under which the explainer has a value of a metric."""
        return [
            under for map_, under, one in self.series if (map_, one.name) == (EXPLAINER, metric)
        ]

    def in_slices(self, conditions: Sequence[Key], column: str) -> list[Key]:
        """Return the conditions in each slice of a column; as they are without a column."""
        if not column:
            return [*conditions]
        words = [one for one in self._slices if one[0] == column]
        return [(*under, word) for under in conditions for word in words]

    def seeds(self, under: Iterable[Key], compares: Sequence[str] = ()) -> list[int]:
        """Return the seeds at which the explainer is judged under every one of these conditions.

        They are its own and those of the maps that it is compared with: an explainer without a
        seed, compared with one that draws, is judged at each seed of the other.
        """
        found = [{*self._seeds_of((EXPLAINER, *compares), one)} for one in under]
        return sorted(set.intersection(*found)) if found else [0]

    def values(self, metric: str, map_: str, under: Key, seed: int = 0) -> FloatArray:
        """Return the value of each row, NaN where it has none.

        A map that does not depend on the seed has the values of seed 0 at every seed.
        """
        whole, rows = self._parted(under)
        by_seed = self.measured.get((map_, whole), {})
        at = seed if seed in by_seed else 0
        key = (metric, map_, under, at)
        if key not in self._known and rows is not None:
            values = self.values(metric, map_, whole, seed)
            self._known[key] = np.where(rows, values, np.nan)
        if key not in self._known:
            values = np.full(len(self._rows), np.nan)
            for place, one in by_seed.get(at, {}).items():
                value = one.values.get(metric)
                if value is not None and one.states.get(metric) not in DECIDED_AT_START:
                    values[place] = value
            self._known[key] = np.clip(values, *self.metrics[metric].range)
        return self._known[key]

    def mean_values(self, metric: str, map_: str, unders: Sequence[Key], seed: int) -> FloatArray:
        """Return each row's mean over conditions, NaN where it lacks one of the values."""
        found = [self.values(metric, map_, under, seed) for under in unders]
        return found[0] if len(found) == 1 else np.mean(found, axis=0)

    def law(self, metric: Metric, edges: tuple[float, float] | None = None) -> Law:
        """Return the law of a metric's values, or of values with other edges made from them."""
        found = law_of(metric, edges)
        below = self.metrics.get(metric.denominator)
        if below is None:
            return found
        of = Denominator(below.title, below.kind, *below.range, metric.least_denominator)
        return replace(found, denominator=of)

    def sample(self, values: FloatArray, denominators: FloatArray | None = None) -> Sample:
        """Return the rows that have a value, as a sample; of a ratio those that have both."""
        if denominators is not None:
            present = np.isfinite(values) & np.isfinite(denominators)
            found = self.sample(np.where(present, values, np.nan))
            return replace(found, others=denominators[present])
        present = np.isfinite(values)
        mated = None if self._is_mated is None else self._is_mated[present]
        return Sample(values[present], self.identities[present], mated)

    def improvement_of_figures(self, own: FloatArray, other: FloatArray, metric: Metric) -> Sample:
        """Return the sample of how much better a figure of the whole list is than another's."""
        values, others = (own, other) if metric.better == "higher" else (other, own)
        present = np.isfinite(values) & np.isfinite(others)
        found = self.sample(np.where(present, values, np.nan))
        return replace(found, others=others[present])

    def estimated(self, asked: Sequence[tuple[Sample, Law]]) -> list[Estimate]:
        """Return the estimate of each sample; one without rows has no number."""
        known = [(sample, law) for sample, law in asked if _is_known(sample, law)]
        found = iter(
            estimates([one for one, _ in known], [law for _, law in known], self.confidence)
        )
        nan = float("nan")
        nothing = Estimate(nan, nan, nan, self.confidence, 0, 0, "no row has a value")
        return [next(found) if _is_known(sample, law) else nothing for sample, law in asked]

    def estimates(self) -> list[EstimateEntry]:
        """Return one entry per metric, map and condition, then those in each slice."""
        series = self._all_series()
        spreads = [self._of_map(metric, map_, under) for map_, under, metric in series]
        found = self.estimated([(one.sample, one.law) for one in spreads])
        return [
            EstimateEntry(
                metric=metric.name,
                map=map_,
                under=dict(under),
                states=dict(self.states(metric.name, map_, under)),
                seed_sd=spread.sd,
                **figures(estimate),
            )
            for (map_, under, metric), spread, estimate in zip(series, spreads, found, strict=True)
        ]

    def differences(self) -> list[Difference]:
        """Return the explainer's paired improvement per metric, other map, condition and slice.

        A ratio has none.
        """
        series = [
            (map_, under, metric)
            for map_, under, metric in self._all_series()
            if map_ != EXPLAINER and metric.statistic != "ratio"  # no row has a ratio of its own
        ]
        spreads = [self._improvement(metric, map_, under) for map_, under, metric in series]
        found = self.estimated([(one.sample, one.law) for one in spreads])
        return [
            Difference(
                metric=metric.name,
                control=map_.removeprefix("control."),
                under=dict(under),
                seed_sd=spread.sd,
                **figures(estimate),
            )
            for (map_, under, metric), spread, estimate in zip(series, spreads, found, strict=True)
        ]

    def unfit(self) -> list[str]:
        """Return a sentence for each metric and condition that says nothing about the maps.

        Metrics that have no value on some rows by nature (``void_if``) are told of where a limit
        asks for them.
        """
        own = [
            (metric, under)
            for map_, under, metric in self.series
            if map_ == EXPLAINER
            and self._chosen_axes.isdisjoint(dict(under))
            and (not metric.void_if or metric.name in self._asked)
        ]
        found = [
            self.objection(metric, under)
            for metric, under in own  # a model without threshold has a remark of its own
            if metric.void_if
            or (states := self.states(metric.name, EXPLAINER, under))[RowState.EXCLUDED]
            < states.total()
        ]
        return [reason for reason in found if reason is not None]

    def objection(self, metric: Metric, under: Key) -> str | None:
        """Return why a metric says nothing about maps under a condition; None if it does."""
        fault = self._faults[metric.name] or self._faults.get(metric.denominator, "")
        if fault:
            return fault
        states = self.states(metric.name, EXPLAINER, under)
        model = str(dict(under).get("evaluator", self._model))
        return unfit(metric, dict(under), states, states.total(), model)

    def states(self, metric: str, map_: str, under: Key) -> Counter[RowState]:
        """Return the number of rows in each state: the gravest of their seeds."""
        key = (metric, map_, under)
        if key not in self._states:
            whole, slice_ = self._parted(under)
            by_seed = self.measured.get((map_, whole), {})
            found = [
                {
                    place: one.states[metric]
                    for place, one in rows.items()
                    if metric in one.states and (slice_ is None or slice_[place])
                }
                for rows in by_seed.values()
            ]
            worst = found[0] if found else {}
            for more in found[1:]:
                for place, state in more.items():
                    worst[place] = max(worst.get(place, state), state, key=gravity)
            self._states[key] = Counter(worst.values())
        return self._states[key]

    def _of_map(self, metric: Metric, map_: str, under: Key) -> "_Spread":
        seeds = self._seeds_of((map_,), under)
        columns = [
            [self.values(name, map_, under, seed) for seed in seeds]
            for name in (metric.name, metric.denominator)[: 1 + (metric.statistic == "ratio")]
        ]
        samples = [self.sample(*rows) for rows in zip(*columns, strict=True)]
        mean = self.sample(*(np.mean(rows, axis=0) for rows in columns))
        return self._over_seeds(samples, mean, self.law(metric))

    def _improvement(self, metric: Metric, map_: str, under: Key) -> "_Spread":
        seeds = self._seeds_of((EXPLAINER, map_), under)
        own, other = (
            [self.values(metric.name, one, under, seed) for seed in seeds]
            for one in (EXPLAINER, map_)
        )
        both = [*zip(own, other, strict=True), (np.mean(own, axis=0), np.mean(other, axis=0))]
        if metric.statistic in FIGURES:
            samples = [self.improvement_of_figures(*one, metric) for one in both]
            return self._over_seeds(samples[:-1], samples[-1], law_of(metric))
        samples = [self.sample(paired(*one, metric.better)) for one in both]
        return self._over_seeds(samples[:-1], samples[-1], self._laws[metric.name])

    def _seeds_of(self, maps: Sequence[str], under: Key) -> list[int]:
        whole, _ = self._parted(under)
        return sorted({one for map_ in maps for one in self.measured.get((map_, whole), {0: {}})})

    def _parted(self, under: Key) -> tuple[Key, BoolArray | None]:
        """Return a condition without its slice, and (N,) the rows of the slice; None = all."""
        if not under or under[-1] not in self._slices:
            return under, None
        return under[:-1], self._slices[under[-1]]

    def _all_series(self) -> list[tuple[str, Key, Metric]]:
        columns = dict.fromkeys(column for column, _ in self._slices)
        return [
            *self.series,
            *(
                (map_, one, metric)
                for column in columns
                for map_, under, metric in self.series
                for one in self.in_slices([under], column)
            ),
        ]

    def _over_seeds(self, samples: Sequence[Sample], mean: Sample, law: Law) -> "_Spread":
        """Return the sample of the rows' means over the seeds, and how the seeds differ."""
        if len(samples) == 1:
            return _Spread(mean, law, None)
        points = [point_of(one, law, self.confidence) for one in samples]
        return _Spread(mean, law, float(np.std(points, ddof=1)))

    def _fault(self, metric: Metric) -> str:
        """Return why no method may rest on what a metric declares; "" if one may."""
        if metric.statistic in FIGURES and self._is_mated is None:
            return f"{metric.name}: some row does not say whether it is of one person"
        low, high = (edge + sign * ROUNDING * max(1.0, abs(edge))
                     for edge, sign in zip(metric.range, (-1, 1), strict=True))  # fmt: skip
        for by_seed in self.measured.values():
            for rows in by_seed.values():
                found = [one.values.get(metric.name) for one in rows.values()]
                known = [value for value in found if value is not None]
                if known and (min(known) < low or max(known) > high):
                    place, value = next(
                        (place, value)
                        for place, value in zip(rows, found, strict=True)
                        if value is not None and not low <= value <= high
                    )
                    return (
                        f"{metric.name}: {value:g} in row {self._rows[place].row} lies beyond the "
                        f"range that the metric declares, [{metric.range[0]:g}, "
                        f"{metric.range[1]:g}]"
                    )
        return ""


@dataclass(frozen=True)
class _Spread:
    sample: Sample
    law: Law
    sd: float | None


def _is_known(sample: Sample, law: Law) -> bool:
    return bool(len(sample.values)) and not (law.statistic in FIGURES and sample.is_mated is None)


def law_of(metric: Metric, edges: tuple[float, float] | None = None) -> Law:
    """Return the law of a metric's values, or of values with other edges made from them."""
    low, high = metric.range if edges is None else edges
    return Law(metric.statistic, metric.kind, low, high)


def point_of(sample: Sample, law: Law, confidence: float) -> float:
    """Return the value of an estimate alone; NaN without rows."""
    if not _is_known(sample, law):
        return float("nan")
    if law.statistic == "mean" and sample.identities.ndim == 1:
        _, group = np.unique(sample.identities, return_inverse=True)
        return float((np.bincount(group, sample.values) / np.bincount(group)).mean())
    if law.statistic == "mean":
        return float(sample.values.mean())
    if law.statistic == "ratio":
        return ratio_of(sample, law).value
    return estimate(sample, law, confidence).value


def _slices_of(plan: CellPlan, rows: Sequence[Row]) -> dict[tuple[str, str | float], BoolArray]:
    """Return (N,) the rows of each slice by column and word, in the order of the words."""
    found: dict[tuple[str, str | float], BoolArray] = {}
    for one in plan.slices:
        words = np.array([row.slices.get(one.column, UNKNOWN) for row in rows])
        for word in Slice(one.column, tuple(one.edges)).ordered({*words.tolist()}):
            found[one.column, word] = words == word
    return found


def _numbered(people: Sequence[Sequence[int]]) -> IntArray:
    """Return the identities of rows as small numbers; (N, 2) if some row shows two people."""
    places = {one: number for number, one in enumerate(sorted({p for row in people for p in row}))}
    pairs = np.array([[places[row[0]], places[row[-1]]] for row in people], dtype=np.int64)
    return pairs if (pairs[:, 0] != pairs[:, 1]).any() else pairs[:, 0]


def _metric(entry: MetricEntry) -> Metric:
    low, high = entry.range or (None, None)
    return Metric(
        **{**entry.model_dump(), "range": (
            -np.inf if low is None else low, np.inf if high is None else high
        )}
    )  # fmt: skip

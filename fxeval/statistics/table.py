"""The values of a cell by metric, map and condition, and what is estimated and judged from them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fxeval.errors import StoreError
from fxeval.records.form import VerdictEntry
from fxeval.records.judged import (
    Band,
    Difference,
    EstimateEntry,
    Figures,
    LimitResult,
    MetricEntry,
)
from fxeval.records.schema import CellPlan, Measured, Row
from fxeval.results import (
    DECIDED_AT_START,
    EXPLAINER,
    Estimate,
    Metric,
    Outcome,
    RowState,
    Verdict,
)
from fxeval.statistics.decisions import RANDOM_ORDERS, against_random_orders, unfit
from fxeval.statistics.estimate import mean_estimate, median_estimate, paired
from fxeval.statistics.limits import Limit
from fxeval.statistics.verdict import judge

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
_Key: TypeAlias = tuple[tuple[str, str | float], ...]

STATISTICS = {"mean": mean_estimate, "median": median_estimate}


class Table:
    """The values of a cell by metric, map and condition, one per row, in the order of the rows."""

    def __init__(self, plan: CellPlan, rows: Sequence[Row]) -> None:
        self._confidence, self._model = plan.confidence, plan.model
        self._metrics = {entry.name: _metric(entry) for entry in plan.metrics}
        people = [row.identities[0] for row in rows]
        places = {person: place for place, person in enumerate(sorted(set(people)))}
        self.identities: IntArray = np.array([places[one] for one in people], dtype=np.int64)
        self._measured: dict[tuple[str, _Key], dict[int, Measured]] = {}
        for place, row in enumerate(rows):
            for one in row.measured:
                self._measured.setdefault((one.map, tuple(one.under.items())), {})[place] = one

    def estimates(self) -> list[EstimateEntry]:
        """Return one entry per metric, map and condition."""
        return [
            EstimateEntry(
                metric=metric.name,
                map=map_,
                under=dict(under),
                states=dict(self._states(metric.name, map_, under)),
                **_figures(self._estimate(metric, self._values(metric.name, map_, under))),
            )
            for map_, under, metric in self._series()
        ]

    def differences(self) -> list[Difference]:
        """Return the explainer's paired improvement per metric, control and condition."""
        return [
            Difference(
                metric=metric.name,
                control=map_.removeprefix("control."),
                under=dict(under),
                **_figures(
                    self._estimate(
                        metric,
                        paired(
                            self._values(metric.name, EXPLAINER, under),
                            self._values(metric.name, map_, under),
                            metric.better,
                        ),
                    )
                ),
            )
            for map_, under, metric in self._series()
            if map_ != EXPLAINER
        ]

    def judged(self, limit: Limit) -> list[LimitResult]:
        """Judge a limit under every condition to which it applies; once if nothing was measured."""
        found = [
            under
            for map_, under, metric in self._series()
            if (map_, metric.name) == (EXPLAINER, limit.metric) and limit.applies(dict(under))
        ]
        return [self._judged(limit, under) for under in found or [tuple(limit.under.items())]]

    def unfit(self) -> list[str]:
        """Return a sentence for each metric and condition that says nothing about the maps."""
        own = [(metric, under) for map_, under, metric in self._series() if map_ == EXPLAINER]
        found = [
            self._unfit(metric, under)
            for metric, under in own  # a model without threshold has a remark of its own
            if self._states(metric.name, EXPLAINER, under)[RowState.EXCLUDED] < len(self.identities)
        ]
        return [reason for reason in found if reason is not None]

    def bands(self) -> list[Band]:
        """Return the mean of each curve with the interval of every point."""
        return [
            self._band(kind, map_, under, measured)
            for (map_, under), measured in self._measured.items()
            for kind in dict.fromkeys(kind for one in measured.values() for kind in one.curves)
        ]

    def _series(self) -> list[tuple[str, _Key, Metric]]:
        """Return every map, condition and metric for which a row has a value."""
        return [
            (map_, under, metric)
            for (map_, under), measured in self._measured.items()
            for metric in self._metrics.values()
            if any(metric.name in one.values for one in measured.values())
        ]

    def _states(self, metric: str, map_: str, under: _Key) -> Counter[RowState]:
        measured = self._measured.get((map_, under), {}).values()
        return Counter(one.states[metric] for one in measured if metric in one.states)

    def _judged(self, limit: Limit, under: _Key) -> LimitResult:
        estimate = self._estimated(limit, EXPLAINER, under)
        return LimitResult(
            metric=limit.metric,
            **limit.written(),
            under=dict(under),
            severity=limit.severity,
            where=limit.where,
            text=limit.text(),
            line=limit.line(),
            verdict=plain(self._verdict(limit, estimate, under)),
            estimate=Figures(**_figures(estimate)) if estimate.n_pairs else None,
        )

    def _verdict(self, limit: Limit, estimate: Estimate, under: _Key) -> Verdict:
        metric = self._metrics[limit.metric]
        objection = self._unfit(metric, under)
        if objection is not None:
            return Verdict(Outcome.INVALID, objection)
        verdict = judge(limit, estimate, dict(under))
        if not metric.is_decision:
            return verdict
        random = {one: self._estimated(limit, f"control.{one}", under) for one in RANDOM_ORDERS}
        return against_random_orders(verdict, limit, dict(under), random)

    def _unfit(self, metric: Metric, under: _Key) -> str | None:
        states = self._states(metric.name, EXPLAINER, under)
        return unfit(metric, dict(under), states, len(self.identities), self._model)

    def _estimated(self, limit: Limit, judged: str, under: _Key) -> Estimate:
        """Estimate what a limit judges, with any map in the place of the explainer's."""
        metric = self._metrics[limit.metric]

        def values(map_: str) -> FloatArray:
            return self._values(limit.metric, judged if map_ == EXPLAINER else map_, under)

        return self._estimate(metric, limit.rows(values, metric))

    def _values(self, metric: str, map_: str, under: _Key) -> FloatArray:
        values = np.full(
            len(self.identities), np.nan
        )  # stays where a row lacks the value or has null
        for place, one in self._measured.get((map_, under), {}).items():
            value = one.values.get(metric)
            if value is not None and one.states.get(metric) not in DECIDED_AT_START:
                values[place] = value
        return values

    def _estimate(self, metric: Metric, values: FloatArray) -> Estimate:
        present = np.isfinite(values)
        if not present.any():
            nan = float("nan")
            return Estimate(nan, nan, nan, self._confidence, 0, 0, "no row has a value")
        make = STATISTICS[metric.statistic]
        return make(values[present], self.identities[present], self._confidence)

    def _band(self, kind: str, map_: str, under: _Key, measured: Mapping[int, Measured]) -> Band:
        drawn_rows = [place for place, one in measured.items() if kind in one.curves]
        lengths = sorted({len(measured[place].curves[kind]) for place in drawn_rows})
        if len(lengths) > 1:
            raise StoreError(
                f"rows: expected curves of one length for {kind} of {map_}, got {lengths[0]} and "
                f"{lengths[-1]} points. Are these rows of one run?"
            )
        points = np.array([measured[place].curves[kind] for place in drawn_rows], dtype=np.float64)
        present = np.isfinite(points).all(axis=1)
        people = self.identities[drawn_rows][present]
        found = [
            mean_estimate(column[present], people, self._confidence)
            for column in (points.T if present.any() else ())
        ]
        return Band(
            kind=kind,
            map=map_,
            under=dict(under),
            fraction=[drawn(i / max(1, len(found) - 1)) for i in range(len(found))],
            similarity=[drawn(point.value) for point in found],
            low=[drawn(point.low) for point in found],
            high=[drawn(point.high) for point in found],
        )


def _metric(entry: MetricEntry) -> Metric:
    low, high = entry.range or (None, None)
    return Metric(
        **{**entry.model_dump(), "range": (
            -np.inf if low is None else low, np.inf if high is None else high
        )}
    )  # fmt: skip


def plain(verdict: Verdict) -> VerdictEntry:
    """Return a verdict as a record holds it."""
    return VerdictEntry(outcome=verdict.outcome, reason=verdict.reason)


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


def drawn(value: float) -> float:
    """Shorten a number that is only drawn; what is judged keeps all its digits.

    >>> drawn(0.123456789)
    0.12346
    """
    return float(f"{value:.5g}")

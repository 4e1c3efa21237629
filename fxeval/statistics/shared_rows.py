"""The values of two runs on the rows that both have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fxeval.records.judged import Figures, LimitResult
from fxeval.records.schema import CellFacts, CellPlan, Row
from fxeval.results import EXPLAINER, Estimate, Metric
from fxeval.statistics.entries import figures
from fxeval.statistics.estimate import Law, Sample
from fxeval.statistics.extended import table_of
from fxeval.statistics.selection import chosen
from fxeval.statistics.table import Key

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Values:
    """The values of a metric under the conditions of a limit.

    Attributes:
        own: (S, Q, N) of the later run: by seed, by quantity (of a ratio, numerator and
            denominator), by row; NaN where there is none.
        other: Likewise, of the earlier run.
    """

    own: FloatArray
    other: FloatArray

    def both(self) -> BoolArray:
        """Return (N,) the rows with values of both runs."""
        found = np.isfinite(self.own) & np.isfinite(self.other)
        return np.asarray(found.all(axis=(0, 1)))

    def lost(self) -> BoolArray:
        """Return (N,) the rows with a value of the earlier run alone."""
        return np.asarray(np.isfinite(self.other).all(axis=(0, 1)) & ~self.both())


class SharedRows:
    """The values of two runs on the rows that both have.

    Args:
        plan: Of the later cell, with the limits that compare.
        facts: Of the later cell.
        rows: The rows that both runs have, with the values of the earlier one beside the others.
        other: The name of the map under which these stand.
    """

    def __init__(self, plan: CellPlan, facts: CellFacts, rows: Sequence[Row], other: str) -> None:
        ordered = sorted(rows, key=lambda row: (row.row, row.identities))
        self._table, self._other = table_of(plan, facts, chosen(plan, facts, ordered).rows), other
        self._values: dict[str, _Values] = {}
        self._figures: dict[str, tuple[Estimate, Estimate]] = {}

    def read(self, limits: Sequence[LimitResult]) -> None:
        """Read and estimate the values that limits were judged by, all at once."""
        asked: list[tuple[Sample, Law]] = []
        for limit in limits:
            values = self._read(limit)
            self._values[_name(limit)] = values
            metric = self._table.metrics[limit.metric]
            asked += [
                self._sample(metric, map_, values.both()) for map_ in (values.other, values.own)
            ]
        found = iter(self._table.estimated(asked))
        for limit in limits:
            self._figures[_name(limit)] = next(found), next(found)

    def is_equal(self, limit: LimitResult) -> bool:
        """Return whether every row is equal in both runs, and there is one."""
        values = self._values[_name(limit)]
        return bool(values.both().any()) and np.array_equal(
            values.own, values.other, equal_nan=True
        )

    def n_lost(self, limit: LimitResult) -> int:
        """Return how many rows have a value in the earlier run alone."""
        return int(self._values[_name(limit)].lost().sum())

    def n_rows(self, limit: LimitResult) -> int:
        """Return how many rows have a value in both runs."""
        return int(self._values[_name(limit)].both().sum())

    def n_identities(self, limit: LimitResult) -> int:
        """Return how many people these rows show."""
        return self._figures[_name(limit)][0].n_identities

    def figures(self, limit: LimitResult) -> dict[str, Any]:
        """Return the value of each run over the same rows, and their number."""
        before, after = (
            Figures(**figures(one)) if one.n_pairs else None for one in self._figures[_name(limit)]
        )
        return {"before": before, "after": after, "n_rows": self.n_rows(limit)}

    def _read(self, limit: LimitResult) -> _Values:
        table, unders = self._table, self._conditions(limit)
        metric = table.metrics[limit.metric]
        names = [metric.name, *([metric.denominator] if metric.statistic == "ratio" else [])]
        seeds = table.seeds(unders, (self._other,))
        own, other = (
            np.array(
                [[table.mean_values(name, map_, unders, seed) for name in names] for seed in seeds]
            )
            for map_ in (EXPLAINER, self._other)
        )
        return _Values(own, other)

    def _conditions(self, limit: LimitResult) -> list[Key]:
        """Return the conditions that a limit was judged under; several if it is about a mean."""
        if limit.judge != "mean":
            return [tuple(limit.under.items())]
        measured = [
            one
            for one in self._table.conditions(limit.metric)
            if all(dict(one).get(axis) == value for axis, value in limit.under.items())
        ]
        found = self._table.in_slices(measured, limit.slice)
        return found or [tuple(limit.under.items())]

    def _sample(self, metric: Metric, values: FloatArray, both: BoolArray) -> tuple[Sample, Law]:
        """Return the means over the seeds of the rows with both values, and their law."""
        columns = [np.where(both, one, np.nan) for one in values.mean(axis=0)]
        return self._table.sample(*columns), self._table.law(metric)


def _name(limit: LimitResult) -> str:
    return repr((limit.metric, limit.under, limit.slice, limit.judge))

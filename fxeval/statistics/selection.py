"""The choice among configurations: made on one half of the people, reported on the other.

The best of many configurations looks better than it is on the rows that chose it, even if none is
any good. So the people of a cell are halved before anything is measured. The selection half
chooses, and the limits are judged on the report half, which had no part in the choice.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fxeval.records.form import Under
from fxeval.records.judged import Figures
from fxeval.records.schema import CellFacts, CellPlan, Row
from fxeval.records.selection import Candidate, Configuration, Selection, Selects
from fxeval.results import EXPLAINER, Estimate, Metric, RowState
from fxeval.statistics.entries import figures
from fxeval.statistics.estimate import Law, Sample
from fxeval.statistics.selected import (
    AS_GIVEN,
    HALF,
    REPORT,
    SELECTION,
    Settings,
    Spread,
    words_of,
)
from fxeval.statistics.table import Key, Table, law_of, point_of
from fxeval.statistics.verdict import state_verdict

_DIGITS = 12  # values that agree in these are tied: the rest is the order of summation


@dataclass(frozen=True, eq=False)
class Chosen:
    """A choice, and the rows with the values of what was chosen.

    Attributes:
        selection: For the record; None if the cell makes no choice.
        rows: Those that take part. The values of the chosen configuration stand beside the others
            under ``configuration: selected``, and the state of a row is that of its map.
    """

    selection: Selection | None
    rows: Sequence[Row]


def chosen(plan: CellPlan, facts: CellFacts, rows: Sequence[Row]) -> Chosen:
    """Choose the configuration that is best on the selection half.

    * A configuration with too many constant or broken maps is chosen only if all are such.
    * The first deciding metric for which a configuration has a value decides, by its mean over the
      cell's other conditions; the further ones break ties, then the order of the suite.

    Args:
        plan: Of the cell; without ``selects`` nothing is chosen, and the rows stay as they are.
        facts: Which configurations were tried, refused or alike.
        rows: Of the cell, in their order.
    """
    if plan.selects is None:
        return Chosen(None, rows)
    rows = [row for row in rows if row.measured]
    tried = facts.configurations or _seen(plan.selects, rows)
    if not rows or not tried:
        nothing = Selection(
            metric=plan.selects.by[0], n_tried=len(tried), n_distinct=0, refused=_refused(tried),
            reason="no configuration has a value",
        )  # fmt: skip
        return Chosen(nothing, rows)
    found = _Choice(plan, plan.selects, Table(plan, rows), tried)
    best = found.best()
    pinned = [dict(one.under) for one in plan.asked if {*one.under} & {*plan.selects.axes}]
    spread = Spread(plan.selects, None if best is None else best.settings, tried, pinned)
    return Chosen(found.entry(best), [spread.row(row) for row in rows])


@dataclass(frozen=True, eq=False)
class _Tried:
    """A configuration with maps of its own, and how it fared on each half.

    Attributes:
        settings: By axis.
        place: In the order of the suite.
        same: The others that give the same maps.
        values: Of each deciding metric on each half; NaN where there is none.
        spreads: Of the estimates that the record shows.
        unfit: Why it is chosen only if all are unfit.
    """

    settings: Settings
    place: int
    same: tuple[Under, ...]
    values: Mapping[tuple[str, str], float]
    samples: Mapping[tuple[str, str], Sample]
    unfit: str


class _Choice:
    """Chooses among the configurations of a cell."""

    def __init__(
        self, plan: CellPlan, selects: Selects, table: Table, tried: Sequence[Configuration]
    ) -> None:
        self._plan, self._selects, self._table, self._given = plan, selects, table, tried
        self._metrics = [table.metrics[name] for name in selects.by]
        distinct = [one for one in tried if one.same_as is None and not one.refused]
        self._tried = [self._of(place, one) for place, one in enumerate(distinct)]
        self._by = self._deciding()

    def best(self) -> _Tried | None:
        """Return the best on the selection half; None if none has a value there."""
        known = [
            one for one in self._tried if math.isfinite(one.values[self._by[0].name, SELECTION])
        ]
        return min(known, key=lambda one: self._rank(one, SELECTION), default=None)

    def entry(self, best: _Tried | None) -> Selection:
        """Return the choice for the record."""
        first, *ties = self._by
        ordered = sorted(self._tried, key=lambda one: self._rank(one, SELECTION))
        shown = self._figures(ordered, first)
        as_given = {half: self._sample(AS_GIVEN, (), half, first) for half in (SELECTION, REPORT)}
        given = self._estimates([(as_given[half], law_of(first)) for half in (SELECTION, REPORT)])
        of_best = ordered.index(best) if best is not None else None
        people = {
            half: self._sample(EXPLAINER, best.settings, half, first) if best else _NOBODY
            for half in (SELECTION, REPORT)
        }
        gaps = [self._gap(one, first) for one in self._tried]
        known = [gap for gap in gaps if math.isfinite(gap)]
        return Selection(
            metric=first.name,
            ties=[one.name for one in ties],
            n_tried=len(self._given),
            n_distinct=len(self._tried),
            n_rows={half: len(one.values) for half, one in people.items()},
            n_identities={half: len(np.unique(one.identities)) for half, one in people.items()},
            selected=None if best is None else dict(best.settings),
            reason=self._reason(best),
            selection=None if of_best is None else shown[of_best][0],
            report=None if of_best is None else shown[of_best][1],
            optimism=math.nan if best is None else self._gap(best, first),
            shared_gap=float(np.mean(known)) if known else math.nan,
            report_rank=None if best is None else self._report_rank(best),
            as_given_selection=given[0],
            as_given_report=given[1],
            candidates=[
                Candidate(
                    under=dict(one.settings),
                    same=[*one.same],
                    selection=selection,
                    report=report,
                    unfit=one.unfit,
                )
                for one, (selection, report) in zip(ordered, shown, strict=True)
            ],
            refused=_refused(self._given),
        )

    def _of(self, place: int, given: Configuration) -> _Tried:
        settings: Settings = tuple(given.under.items())
        samples = {
            (metric.name, half): self._sample(EXPLAINER, settings, half, metric)
            for metric in self._metrics
            for half in (SELECTION, REPORT)
        }
        states: Counter[RowState] = Counter()
        for key in self._keys(EXPLAINER, settings, SELECTION)[:1]:
            states = self._table.states(self._metrics[0].name, EXPLAINER, key)
        unfit = state_verdict(states, states.total())
        return _Tried(
            settings=settings,
            place=place,
            same=tuple(one.under for one in self._given if one.same_as == given.under),
            values={
                (metric.name, half): point_of(
                    samples[metric.name, half], law_of(metric), self._table.confidence
                )
                for metric in self._metrics
                for half in (SELECTION, REPORT)
            },
            samples=samples,
            unfit="" if unfit is None else unfit.reason,
        )

    def _deciding(self) -> list[Metric]:
        """Return the metrics that decide: those before the first with a value have no say."""
        for place, metric in enumerate(self._metrics):
            if any(math.isfinite(one.values[metric.name, SELECTION]) for one in self._tried):
                return self._metrics[place:]
        return self._metrics

    def _rank(self, one: _Tried, half: str) -> tuple[Any, ...]:
        return bool(one.unfit), *self._merit(one, half), one.place

    def _merit(self, one: _Tried, half: str) -> tuple[float, ...]:
        """Return the values by which configurations are compared, less = better."""
        found = []
        for metric in self._by:
            value = one.values[metric.name, half]
            signed = value if metric.better == "lower" else -value
            found.append(round(signed, _DIGITS) if math.isfinite(signed) else math.inf)
        return tuple(found)

    def _report_rank(self, best: _Tried) -> int | None:
        own = self._merit(best, REPORT)
        if math.isinf(own[0]):
            return None
        return 1 + sum(self._merit(one, REPORT) < own for one in self._tried)

    def _gap(self, one: _Tried, metric: Metric) -> float:
        """Return how much better it is on the selection half."""
        chose, reported = (one.values[metric.name, half] for half in (SELECTION, REPORT))
        return reported - chose if metric.better == "lower" else chose - reported

    def _keys(self, map_: str, settings: Settings, half: str) -> list[Key]:
        """Return the conditions of some settings on a half, one for each fill and fraction."""
        wanted = {**dict(settings), HALF: half}
        axes = {*self._selects.axes}
        return [
            under
            for one, under in self._table.measured
            if one == map_
            and {**dict(under), **wanted} == dict(under)
            and len(axes & {*dict(under)}) == len(settings)
        ]

    def _sample(self, map_: str, settings: Settings, half: str, metric: Metric) -> Sample:
        """Return the rows' means over the other conditions and over the seeds."""
        keys = self._keys(map_, settings, half)
        if not keys:
            return _NOBODY
        rows = [
            self._table.mean_values(metric.name, map_, keys, seed)
            for seed in self._table.seeds(keys, (map_,))
        ]
        return self._table.sample(np.mean(rows, axis=0))

    def _figures(
        self, tried: Sequence[_Tried], metric: Metric
    ) -> list[tuple[Figures | None, Figures | None]]:
        asked = [
            (one.samples[metric.name, half], law_of(metric))
            for one in tried
            for half in (SELECTION, REPORT)
        ]
        found = self._estimates(asked)
        return [*zip(found[::2], found[1::2], strict=True)]

    def _estimates(self, asked: Sequence[tuple[Sample, Law]]) -> list[Figures | None]:
        return [_shown(one) for one in self._table.estimated(asked)]

    def _reason(self, best: _Tried | None) -> str:
        names = " and ".join(one.name for one in self._metrics)
        if best is None:
            return f"no configuration has a value of {names} on the selection half"
        by, people = self._by[0].name, best.samples[self._by[0].name, SELECTION].identities
        said = (
            f"{words_of(best.settings)}: best of {len(self._tried)} with maps of their own, of "
            f"{len(self._given)} tried, by {by} on the selection half ({len(np.unique(people))} "
            "people)"
        )
        if self._by[0] is not self._metrics[0]:
            said += f"; {self._metrics[0].name} has no value there"
        if best.unfit:
            said += f"; every configuration is unfit, and this one too: {best.unfit}"
        return said


_NOBODY = Sample(np.empty(0), np.empty(0, dtype=np.int64))


def _refused(tried: Sequence[Configuration]) -> list[Configuration]:
    return [one for one in tried if one.refused]


def _seen(selects: Selects, rows: Sequence[Row]) -> list[Configuration]:
    """Return the configurations that rows have values of, in the order of their first row."""
    axes = selects.axes
    found = dict.fromkeys(
        tuple((axis, one.under[axis]) for axis in axes)
        for row in rows
        for one in row.measured
        if {*axes} <= {*one.under}
    )
    return [Configuration(under=dict(one)) for one in found]


def _shown(estimate: Estimate) -> Figures | None:
    return Figures(**figures(estimate)) if estimate.n_pairs else None

"""The explainers' estimates over many runs, gathered from their records."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fxeval.errors import StoreError
from fxeval.records.hardware import hardware_class
from fxeval.records.judged import EstimateEntry
from fxeval.records.schema import CellResult, Record
from fxeval.records.series import Point, Series, Wanted, question_of
from fxeval.results import EXPLAINER, Condition

_ALL = Wanted()


def series_of(runs: Iterable[Record], wanted: Wanted = _ALL) -> list[Series]:
    """Return the explainers' estimates over many runs, by suite, cell, metric and condition.

    A run whose cell has no such estimate has a point without a value. Records are read one by one
    and not kept. A record that is given twice counts once.

    Args:
        runs: In any order.
        wanted: Which of them.

    Raises:
        StoreError: If two records of one run and suite hold different values.
    """
    gathered = _Gathered(wanted)
    for record in runs:
        gathered.add(record)
    return gathered.series()


@dataclass(frozen=True)
class _Key:
    suite: str
    cell: str
    metric: str
    under: str

    @property
    def whole(self) -> tuple[str, str, str, str]:
        return self.suite, self.cell, self.metric, self.under


class _Gathered:
    """The points of many records, by series."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._seen: dict[tuple[str, str], str] = {}
        self._visits: dict[tuple[str, str], dict[str, Point]] = {}
        self._values: dict[_Key, dict[str, Point]] = {}
        self._latest: dict[_Key, Series] = {}

    def add(self, record: Record) -> None:
        """Take the points of one record.

        Raises:
            StoreError: If there is another record of its run and suite.
        """
        if not self._is_wanted(record):
            return
        found = [(cell, _point(record, cell)) for cell in record.cells if self._is_of(cell)]
        key = record.run.id, record.suite.name
        held = [(point, cell.id, [*self._estimates(cell)]) for cell, point in found]
        digest = hashlib.sha256(repr(held).encode()).hexdigest()
        if self._seen.setdefault(key, digest) != digest:
            raise StoreError(
                f"run {key[0]}, suite {key[1]}: expected one record, got two that differ. Name "
                "only one of the folders that hold this run."
            )
        for cell, point in found:
            self._visits.setdefault((record.suite.name, cell.id), {})[point.run] = point
            for estimate in self._estimates(cell):
                self._add(record.suite.name, cell, point, estimate)

    def series(self) -> list[Series]:
        """Return all series with their points in order."""
        found = []
        for key in sorted(self._values, key=lambda one: one.whole):
            visits, values = self._visits[key.suite, key.cell], self._values[key]
            points = [values.get(run, point) for run, point in visits.items()]
            points.sort(key=lambda one: (one.started, one.run))
            last = points[-self._wanted.last :] if self._wanted.last else points
            found.append(replace(self._latest[key], points=tuple(last)))
        return found

    def _is_wanted(self, record: Record) -> bool:
        wanted = self._wanted
        return wanted.suite in (None, record.suite.name) and wanted.hardware_class in (
            None,
            hardware_class(record.environment),
        )

    def _is_of(self, cell: CellResult) -> bool:
        wanted = self._wanted
        asked = (wanted.check, cell.check), (wanted.model, cell.model)
        return all(
            want in (None, got) for want, got in (*asked, (wanted.explainer, cell.explainer))
        )

    def _estimates(self, cell: CellResult) -> Iterator[EstimateEntry]:
        for one in cell.estimates:
            if one.map == EXPLAINER and self._wanted.metric in (None, one.metric):
                yield one

    def _add(self, suite: str, cell: CellResult, point: Point, estimate: EstimateEntry) -> None:
        key = _Key(suite, cell.id, estimate.metric, json.dumps(estimate.under, sort_keys=True))
        measured = replace(
            point,
            value=_number(estimate.value),
            low=_number(estimate.low),
            high=_number(estimate.high),
            n_identities=estimate.n_identities,
        )
        self._values.setdefault(key, {})[point.run] = measured
        known = self._latest.get(key)
        if known is None or _later(point, known.points[0]):
            self._latest[key] = _described(suite, cell, estimate.metric, estimate.under, measured)


def _later(one: Point, other: Point) -> bool:
    return (one.started, one.run) >= (other.started, other.run)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _point(record: Record, cell: CellResult) -> Point:
    """Return the point of a cell, without a value yet."""
    return Point(
        run=record.run.id,
        started=record.run.started,
        commit=record.environment.commit,
        fxeval=record.environment.fxeval,
        hardware_class=hardware_class(record.environment),
        value=math.nan,
        low=math.nan,
        high=math.nan,
        n_identities=cell.n_identities,
        outcome=cell.verdict.outcome,
        question=question_of(record, cell),
    )


def _described(suite: str, cell: CellResult, metric: str, under: Condition, point: Point) -> Series:
    """Return a series of one point, in the words of the run that it is of."""
    entry = next(one for one in cell.metrics if one.name == metric)
    return Series(
        suite=suite, cell=cell.id, check=cell.check, kind=cell.kind, model=cell.model,
        explainer=cell.explainer, pairs=cell.pairs, metric=metric, title=entry.title,
        unit=entry.unit, better=entry.better, under=under, points=(point,),
    )  # fmt: skip

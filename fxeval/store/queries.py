"""Questions to the index that are answered from it alone, each with one statement."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, exists, func, select

from fxeval.records.series import Point, Series, Wanted
from fxeval.results import EXPLAINER, Outcome
from fxeval.store.entries import plain_text
from fxeval.store.tables import CELL, ESTIMATE, RUN

_OF_CELL = ("suite", "check", "model", "explainer", "hardware_class")


@dataclass(frozen=True)
class IndexedRun:
    """A run of one suite, as the index has it.

    Attributes:
        id: Of the run.
        record: Name of the record without its suffix.
        suite: Name of the suite.
        started: In ISO 8601.
        commit: Of the code under test; None if it is not known.
        fxeval: Its version.
        hardware_class: See :func:`fxeval.records.hardware.hardware_class`.
        outcome: Of the suite.
        n_cells: Cells that were measured.
        folder: As stored: beside an index in SQLite if it lies there, else absolute.
    """

    id: str
    record: str
    suite: str
    started: str
    commit: str | None
    fxeval: str
    hardware_class: str
    outcome: Outcome
    n_cells: int
    folder: str


def indexed_runs(connection: Connection, wanted: Wanted) -> list[IndexedRun]:
    """Return the runs that have a cell that is wanted, the latest ``wanted.last`` of them.

    They come in the order of their start.
    """
    n_cells = select(func.count()).where(CELL.c.run == RUN.c.key).correlate(RUN).scalar_subquery()
    names = ("id", "record", "suite", "started", "commit", "fxeval", "hardware_class", "outcome")
    statement = (
        select(*(RUN.c[name] for name in names), n_cells.label("n_cells"), RUN.c.folder)
        .order_by(RUN.c.started.desc(), RUN.c.id.desc(), RUN.c.record.desc())
        .limit(wanted.last)
    )
    conditions = of_cells(wanted)
    if wanted.metric is not None:
        conditions.append(of_metric(wanted.metric))
        chosen = select(CELL.c.run).join(ESTIMATE, _is_of_cell()).where(*conditions)
    else:
        chosen = select(CELL.c.run).where(*conditions)
    if conditions:
        statement = statement.where(RUN.c.key.in_(chosen))
    rows = connection.execute(statement).mappings()
    return [IndexedRun(**{**row, "outcome": Outcome(row["outcome"])}) for row in rows][::-1]


def series_in(connection: Connection, wanted: Wanted) -> list[Series]:
    """Return the explainers' estimates over many runs, by suite, cell, metric and condition.

    A run whose cell has no such estimate has a point without a value. It is the answer that the
    records themselves give (``fxeval.statistics.series.series_of``).
    """
    gathered = _Gathered()
    for row in connection.execute(points_statement(wanted)).mappings():
        gathered.add(row)
    return gathered.series(wanted.last)


def points_statement(wanted: Wanted) -> Select[Any]:
    """Return the statement that finds the explainers' estimates in all cells that are wanted.

    A cell without such an estimate has a row with nulls. With a metric, the cells are those that
    have an estimate of it in some run: few, which an index finds.
    """
    own = [_is_of_cell(), ESTIMATE.c.map == EXPLAINER]
    if wanted.metric is not None:
        own.append(of_metric(wanted.metric))
    statement = (
        select(
            RUN.c.id.label("run"), RUN.c.started, RUN.c.commit, RUN.c.fxeval, RUN.c.hardware_class,
            CELL.c.outcome, CELL.c.question, CELL.c.n_identities.label("in_cell"),
            CELL.c.suite, CELL.c.id.label("cell"), CELL.c.check, CELL.c.kind, CELL.c.model,
            CELL.c.explainer, CELL.c.pairs,
            ESTIMATE.c.value, ESTIMATE.c.low, ESTIMATE.c.high, ESTIMATE.c.n_identities,
            ESTIMATE.c.metric, ESTIMATE.c.title, ESTIMATE.c.unit, ESTIMATE.c.better,
            ESTIMATE.c.under,
        )
        .select_from(CELL)
        .join(RUN, RUN.c.key == CELL.c.run)
        .outerjoin(ESTIMATE, and_(*own))
        .where(*of_cells(wanted))
        .order_by(RUN.c.started, RUN.c.id, RUN.c.record, CELL.c.number, ESTIMATE.c.number)
    )  # fmt: skip
    if wanted.metric is None:
        return statement
    named = of_cells(wanted)
    some = select(CELL.c.suite, CELL.c.id).where(*named).distinct()
    # Where cells are named, through these: those of other suites are never looked at.
    some = some.where(exists().where(*own)) if named else some.join(ESTIMATE, and_(*own))
    found = some.subquery()
    return statement.join(found, and_(found.c.suite == CELL.c.suite, found.c.id == CELL.c.id))


class _Gathered:
    """The rows of many runs, which come in the order of their start, by series."""

    def __init__(self) -> None:
        self._visits: dict[tuple[str, str], dict[str, RowMapping]] = {}
        self._values: dict[tuple[str, str, str, str], dict[str, RowMapping]] = {}

    def add(self, row: RowMapping) -> None:
        """Take a row of :func:`points_statement`."""
        suite, cell, run, metric = row["suite"], row["cell"], row["run"], row["metric"]
        self._visits.setdefault((suite, cell), {})[run] = row
        if metric is not None:
            self._values.setdefault((suite, cell, metric, row["under"]), {})[run] = row

    def series(self, last: int | None) -> list[Series]:
        """Return all series, with at most the ``last`` points of each."""
        kept = slice(None if last is None else -last, None)
        return [
            _series(values, [*self._visits[key[:2]].items()][kept])
            for key, values in sorted(self._values.items())
        ]


def _series(values: dict[str, RowMapping], visits: Sequence[tuple[str, RowMapping]]) -> Series:
    """Return a series in the words of the latest run that has a value.

    Args:
        values: By run, in the order of their start.
        visits: All runs of the cell, likewise; those without a value are points without one.
    """
    points = [_point(values.get(run), row) for run, row in visits]
    latest = [*values.values()][-1]
    names = (
        "suite", "cell", "check", "kind", "model", "explainer", "pairs", "metric", "title", "unit",
        "better",
    )  # fmt: skip
    words = {name: latest[name] for name in names}
    return Series(**words, under=json.loads(latest["under"]), points=tuple(points))


def _point(value: RowMapping | None, row: RowMapping) -> Point:
    """Return the point of a cell."""
    at = low = high = math.nan
    if value is not None:
        at, low, high = (_or_nan(value[name]) for name in ("value", "low", "high"))
    return Point(
        row["run"], row["started"], row["commit"], row["fxeval"], row["hardware_class"],
        at, low, high,
        n_identities=row["in_cell"] if value is None else value["n_identities"],
        outcome=Outcome(row["outcome"]), question=row["question"],
    )  # fmt: skip


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def of_cells(wanted: Wanted) -> list[ColumnElement[bool]]:
    """Return the conditions on cells, without that on the metric."""
    named = wanted.named()
    return [CELL.c[name] == plain_text(named[name]) for name in _OF_CELL if name in named]


def of_metric(name: str) -> ColumnElement[bool]:
    """Return the condition on estimates."""
    return ESTIMATE.c.metric == plain_text(name)


def _is_of_cell() -> ColumnElement[bool]:
    return and_(ESTIMATE.c.run == CELL.c.run, ESTIMATE.c.cell == CELL.c.number)

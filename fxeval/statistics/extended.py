"""Cells that are measured further while they are undecided: order, looks, and what each look says.

Whose rows come first is decided by the suite's seed and by the content of the rows, before anything
is measured: the rows of a look are a random sample of all, and nobody can choose which. All rows of
a person come together. Where rows belong to two people, the rows themselves are drawn: people come
again in later looks, which makes looks more alike than their levels suppose, never less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fxeval.records.judged import LimitResult
from fxeval.records.looks import Looking, Looks
from fxeval.records.schema import CellFacts, CellPlan, Row
from fxeval.results import Estimate
from fxeval.seeding import seed_of
from fxeval.statistics.betting import BETTING, betting_interval
from fxeval.statistics.estimate import Law, Sample
from fxeval.statistics.looks import confidence_at, planned, spending
from fxeval.statistics.table import Table
from fxeval.statistics.units import units_of
from fxeval.statistics.verdict import MIN_IDENTITIES

OPEN_STEP = 16
"""People between two open looks."""


@dataclass(frozen=True)
class LookPlan:
    """The looks at a cell.

    Attributes:
        rows: Positions of the rows that each look adds, ascending.
        looks: The plan for the record, before the first look.
    """

    rows: tuple[tuple[int, ...], ...]
    looks: Looks

    def at(self, look: int, confidence: float) -> Looks:
        """Return the plan after a look, counted from 1, of a cell with such a confidence."""
        return taken(self.looks, look, confidence)


def plan_of_looks(
    looking: Looking, seed: int, ids: Sequence[str], identities: Sequence[Sequence[int]]
) -> LookPlan:
    """Return which rows come at which look.

    Args:
        looking: Number of looks, or ``open``.
        seed: The suite's seed.
        ids: Names of all rows, made from their content.
        identities: One or two people of each row.
    """
    is_crossed = any(len({*whose}) > 1 for whose in identities)
    keys = [*ids] if is_crossed else _first_names(ids, identities)
    units = sorted({*keys}, key=lambda name: (seed_of(seed, "looks", name), name))
    place = {name: number for number, name in enumerate(units)}
    rank = np.array([place[key] for key in keys])
    whose = np.array([[one[0], one[-1]] for one in identities])

    def people(n: int) -> int:
        return len(np.unique(whose[rank < n]))

    if looking == "open":
        steps, left_out = [*range(MIN_IDENTITIES, len(units), OPEN_STEP), len(units)], 0
    else:
        steps, left_out = planned(len(units), looking, people)
    ends = [np.flatnonzero(rank < n) for n in steps]
    befores = [np.zeros(0, dtype=np.int64), *ends]
    return LookPlan(
        rows=tuple(
            tuple(np.setdiff1d(now, before).tolist())
            for before, now in zip(befores, ends, strict=False)
        ),
        looks=Looks(
            kind="open" if looking == "open" else "planned",
            units="rows" if is_crossed else "identities",
            identities=[people(n) for n in steps],
            rows=[len(one) for one in ends],
            left_out=left_out,
            used=1,
            seed=seed,
            confidence=1.0,
        ),
    )


def taken(looks: Looks, look: int, confidence: float) -> Looks:
    """Return looks of which so many are taken, with the confidence of the last one's intervals."""
    level = confidence
    if looks.kind == "planned":
        level = confidence_at(confidence, looks.times, look)
    return looks.model_copy(update={"used": look, "confidence": level})


def looks_of_both(before: Looks | None, after: Looks | None, confidence: float) -> Looks | None:
    """Return the looks whose level holds for the rows that two runs share; None = neither has any.

    A run may have stopped because of what these rows say, so that the level of the run that stopped
    first decides. An interval of open looks holds wherever either run stopped.
    """
    known = [one for one in (before, after) if one is not None]
    some = [one for one in known if one.kind == "open"] or known
    return max(some, key=lambda one: taken(one, one.used, confidence).confidence, default=None)


def n_planned(looks: Looks | None, measured: int) -> int:
    """Return the number of rows that a cell has when all are measured."""
    return measured if looks is None else max(measured, looks.rows[-1])


def table_of(plan: CellPlan, facts: CellFacts, rows: Sequence[Row]) -> Table:
    """Return the values of a cell, with the intervals that its looks allow."""
    looks = facts.looks_taken
    if looks is None:
        return Table(plan, rows)
    level = taken(looks, looks.used, plan.confidence).confidence
    plan = plan.model_copy(update={"confidence": level})
    return OpenTable(plan, rows, looks.seed) if looks.kind == "open" else Table(plan, rows)


def with_looks(
    limits: Sequence[LimitResult], plan: CellPlan, looks: Looks | None
) -> list[LimitResult]:
    """Return limits whose p-values count all planned looks so far.

    They are at most half of what the cell's confidence leaves out exactly where the look decides.
    """
    if looks is None or looks.kind == "open" or len(looks.times) == 1:
        return [*limits]
    spent = spending(plan.confidence, looks.times)

    def counted(p: float | None) -> float | None:
        return None if p is None else spent.overall(p, looks.used)

    return [
        one.model_copy(
            update={"p_value": counted(one.p_value), "p_opposite": counted(one.p_opposite)}
        )
        for one in limits
    ]


class OpenTable(Table):
    """The values of a cell whose intervals hold at every look at once.

    Args:
        plan: The plan of the cell.
        rows: Its rows, in their order.
        seed: Of the order of people.
    """

    def __init__(self, plan: CellPlan, rows: Sequence[Row], seed: int) -> None:
        super().__init__(plan, rows)
        ids, whose = [row.row for row in rows], [row.identities for row in rows]
        names = _first_names(ids, whose)
        keys = [(seed_of(seed, "looks", name), name) for name in names]
        numbers = self.identities.reshape(len(rows), -1)[:, 0].tolist()
        first = dict(zip(numbers, keys, strict=True))
        self._turn = {
            number: turn for turn, number in enumerate(sorted(first, key=lambda one: first[one]))
        }

    def estimated(self, asked: Sequence[tuple[Sample, Law]]) -> list[Estimate]:
        """Return the estimate of each sample; one that nobody can bet on has no interval."""
        return [
            self._bet(one, sample, law) if one.n_pairs else one
            for one, (sample, law) in zip(super().estimated(asked), asked, strict=True)
        ]

    def _bet(self, found: Estimate, sample: Sample, law: Law) -> Estimate:
        unit = units_of(sample.values, sample.identities, (law.low, law.high))
        if law.statistic != "mean" or unit.is_crossed or not np.isfinite(unit.edges).all():
            nothing = "no interval: only means of values between two edges have one at open looks"
            return replace(found, low=np.nan, high=np.nan, method=nothing)
        people = np.unique(sample.identities).tolist()  # units are numbered in this order
        turns = np.argsort([self._turn[one] for one in people])
        low, high = betting_interval(unit.means()[turns], *unit.edges, self.confidence)
        a, b = unit.edges
        return replace(
            found,
            low=min(low, found.value),
            high=max(high, found.value),
            method=f"{BETTING} on [{a:g}, {b:g}] over {found.n_identities} identities",
        )


def _first_names(ids: Sequence[str], identities: Sequence[Sequence[int]]) -> list[str]:
    """Return, for each row, the first of the names of its person's rows."""
    first: dict[int, str] = {}
    for name, whose in zip(ids, identities, strict=True):
        first[whose[0]] = min(name, first.get(whose[0], name))
    return [first[whose[0]] for whose in identities]

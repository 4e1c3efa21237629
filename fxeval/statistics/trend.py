"""How values moved over many runs: what of it is a step, a drift, or nothing.

It is advice and decides nothing. Values are compared within one class of hardware and one question
alone; where either changes, the series is marked and no step is looked for across it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fxeval.records.series import Point, Series
from fxeval.results import Outcome
from fxeval.statistics.change_points import change_points
from fxeval.statistics.false_discovery import adjusted
from fxeval.statistics.series import series_of as series_of
from fxeval.statistics.steps import (
    FloatArray,
    departure_of,
    drift_of,
    noise_of,
    rolling_median,
    steps_of,
)

LEVEL = 0.05
"""Share of false drifts that is allowed among those that are told."""

IMMATERIAL = 0.01
"""A change of less than this share of the half-width of the intervals is none."""

Kind = Literal["step", "departure", "drift"]
Effect = Literal["worse", "better"]


@dataclass(frozen=True)
class Movement:
    """A change of a value over runs.

    Attributes:
        kind: ``step``: from one level to another, with at least 3 runs on either side;
            ``departure``: the last run or two left the level, which may become a step;
            ``drift``: slowly, in one direction.
        at: Index of the point where the new level begins, or where the drift was looked for from.
        before: The level before it; of a drift, that from which it came.
        after: The level since; of a departure, the last value.
        effect: Whether that is worse or better.
        is_small: Whether it is smaller than the half-width of the intervals: real for these people,
            and no more than other people could make.
        adjusted: Of a drift, its p-value after the correction for all that were looked for; else
            NaN.
    """

    kind: Kind
    at: int
    before: float
    after: float
    effect: Effect
    is_small: bool
    adjusted: float = math.nan

    @property
    def change(self) -> float:
        """What is added to the level before, in the unit of the metric."""
        return self.after - self.before


@dataclass(frozen=True)
class Strand:
    """The points of a series that may be compared: one class of hardware, one question.

    Attributes:
        points: Indices of all of them, in order.
        used: Indices of those with a valid value; of an invalid cell there is none.
        medians: Rolling median at each of those.
        noise: Standard deviation of the values about it, robust.
        half_width: Median half-width of their intervals; NaN where there are none.
        movements: In the order of the runs.
        change_points: Where PELT finds a new level to begin; None if it was not asked.
    """

    hardware_class: str
    question: str
    points: tuple[int, ...]
    used: tuple[int, ...]
    medians: tuple[float, ...]
    noise: float
    half_width: float
    movements: tuple[Movement, ...]
    change_points: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Break:
    """A place where values are not compared with those before it.

    Attributes:
        at: Index of the first point behind it.
        reason: What changed, in words.
    """

    at: int
    reason: str


@dataclass(frozen=True)
class Trend:
    """A series and what moved in it."""

    series: Series
    strands: tuple[Strand, ...]
    breaks: tuple[Break, ...]

    @property
    def movements(self) -> list[Movement]:
        """All movements, in the order of the runs."""
        return sorted((one for strand in self.strands for one in strand.movements), key=_placed)

    @property
    def finding(self) -> Movement | None:
        """The movement to look at first; None if nothing moved.

        Of each strand its latest step counts, with what came after it.
        """
        found: list[Movement] = []
        for strand in self.strands:
            steps = [one for one in strand.movements if one.kind == "step"]
            found += steps[-1:] + [one for one in strand.movements if one.kind != "step"]
        return min(found, key=lambda one: (urgency(one), -one.at, one.change), default=None)

    @property
    def latest(self) -> Point:
        """The last point."""
        return self.series.points[-1]


def _placed(movement: Movement) -> tuple[int, int]:
    return movement.at, ("step", "departure", "drift").index(movement.kind)


def urgency(movement: Movement | None) -> int:
    """Return the place of a movement among others, 0 = to be looked at first."""
    if movement is None:
        return 6
    if movement.effect == "better":
        return 5
    order: dict[tuple[str, bool], int] = {
        ("step", False): 0,
        ("departure", False): 1,
        ("drift", False): 2,
        ("step", True): 3,
    }
    return order.get((movement.kind, movement.is_small), 4)


def trends_of(series: Sequence[Series], *, changes: bool = False) -> list[Trend]:
    """Return what moved in each series, those to be looked at first before the others.

    The order: latest step for the worse, then last runs that left the level for the worse, then a
    drift for the worse, then the same by less than the intervals are wide, then what got better,
    then the rest. A drift is told if its p-value is at most 0.05 after Benjamini and Hochberg's
    correction over all drifts that were looked for.

    Args:
        series: Their points in the order of the runs.
        changes: Whether PELT is asked as well; it needs the library ruptures.

    Raises:
        StoreError: If ruptures is asked for and is not installed.
    """
    parts = [
        (one, [_Part(one, places) for places in _parts_of(one.points)])
        for one in series
        if one.points
    ]
    drifts = [part.drift for _, own in parts for part in own if part.drift is not None]
    corrected = iter(adjusted([one.p_value for one in drifts]))
    trends = []
    for one, own in parts:
        strands = [
            part.strand(math.nan if part.drift is None else next(corrected), changes=changes)
            for part in own
        ]
        trends.append(Trend(one, tuple(strands), _breaks_of(one.points)))
    return sorted(trends, key=_order)


def _order(trend: Trend) -> tuple[object, ...]:
    one, finding = trend.series, trend.finding
    at = -finding.at + len(one.points) if finding is not None else 0  # recent ones first
    name = (one.suite, one.cell, one.metric, json.dumps(dict(one.under), sort_keys=True))
    return urgency(finding), at, name


def _group(point: Point) -> tuple[str, str]:
    return point.hardware_class, point.question


def _parts_of(points: Sequence[Point]) -> list[list[int]]:
    """Return the indices of the points of each strand; points of no known question go along.

    A cell that could not be measured does not know its question: it belongs to the strand of its
    class that was there before, so that it is shown there.
    """
    found: dict[tuple[str, str], list[int]] = {}
    newest: dict[str, tuple[str, str]] = {}
    for at, point in enumerate(points):
        group = _group(point)
        if not point.question:
            group = newest.get(point.hardware_class, group)
        newest[point.hardware_class] = group
        found.setdefault(group, []).append(at)
    return list(found.values())


def _breaks_of(points: Sequence[Point]) -> tuple[Break, ...]:
    """Return where the class of hardware or the question changes."""
    found = []
    question = points[0].question
    for at in range(1, len(points)):
        before, after = points[at - 1], points[at]
        reasons = []
        if before.hardware_class != after.hardware_class:
            reasons.append(f"hardware: {after.hardware_class}")
        if after.question and question and after.question != question:
            reasons.append("another question (model, images, seed or parameters of the check)")
        question = after.question or question
        if reasons:
            found.append(Break(at, "; ".join(reasons)))
    return tuple(found)


class _Part:
    """The points of one strand while they are looked at."""

    def __init__(self, series: Series, places: Sequence[int]) -> None:
        self.series, self._places = series, tuple(places)
        points = series.points
        self._used = [
            at
            for at in places
            if math.isfinite(points[at].value) and points[at].outcome != Outcome.INVALID
        ]
        self._values: FloatArray = np.array([points[at].value for at in self._used])
        halves = [(points[at].high - points[at].low) / 2 for at in self._used]
        finite = [half for half in halves if math.isfinite(half)]
        self._half_width = float(np.median(finite)) if finite else math.nan
        self._least = IMMATERIAL * self._half_width if finite else 0.0
        self._steps = steps_of(self._values, self._least)
        self.drift = drift_of(self._values, self._steps[-1].at if self._steps else 0)

    def strand(self, p_value: float, *, changes: bool) -> Strand:
        """Return the strand.

        Args:
            p_value: Of its drift, corrected.
            changes: Whether PELT is asked.
        """
        first, noise = self.series.points[self._places[0]], noise_of(self._values)
        medians = rolling_median(self._values)
        movements = [self._movement("step", one.at, one.before, one.after) for one in self._steps]
        movements += self._departure()
        drift = self.drift
        if drift is not None and p_value <= LEVEL and abs(drift.change) > self._least:
            ends = float(medians[-1]) - drift.change, float(medians[-1])
            movements.append(self._movement("drift", drift.start, *ends, p_value))
        points = None
        if changes:
            scale = max(noise, self._least)
            points = tuple(self._used[at] for at in change_points(self._values, scale))
        return Strand(
            hardware_class=first.hardware_class,
            question=first.question,
            points=self._places,
            used=tuple(self._used),
            medians=tuple(medians.tolist()),
            noise=noise,
            half_width=self._half_width,
            movements=tuple(sorted(movements, key=_placed)),
            change_points=points,
        )

    def _departure(self) -> list[Movement]:
        count = departure_of(self._values, self._least)
        if not count:
            return []
        level = float(np.median(self._values[-count - 5 : -count]))
        start = len(self._values) - count
        return [self._movement("departure", start, level, float(self._values[-1]))]

    def _movement(
        self, kind: Kind, at: int, before: float, after: float, p_value: float = math.nan
    ) -> Movement:
        is_better = (after > before) == (self.series.better == "higher")
        return Movement(
            kind=kind,
            at=self._used[at],
            before=before,
            after=after,
            effect="better" if is_better else "worse",
            is_small=bool(abs(after - before) < self._half_width),
            adjusted=p_value,
        )

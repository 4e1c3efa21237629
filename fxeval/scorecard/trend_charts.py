"""Geometry of the charts of trends: from a series to the coordinates that the SVG macros draw.

All coordinates are in the chart's own pixels, origin at the top left.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fxeval.records.series import Point
from fxeval.results import Outcome
from fxeval.scorecard import trend_words as words
from fxeval.scorecard.charts import Mark, nice_ticks
from fxeval.scorecard.wording import counted, number
from fxeval.statistics.trend import Movement, Strand, Trend

RUNS = 120
"""Most runs that a chart shows, the last ones."""

_WIDTH, _HEIGHT = 360, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 350, 30, 142
_MISSING = 136  # where a run without a value is marked
_LETTER, _MIDDLE = 7.0, (_LEFT + _RIGHT) / 2
_LETTER = 8  # width of a letter of a label, at most
_LABELLED = 3  # most breaks whose reason stands in the chart


@dataclass(frozen=True)
class Dot:
    """One run: its place, how it is marked, and what is said of it.

    Attributes:
        shape: The outcome of its cell; ``missing`` if there is no value, ``unused`` if the value
            is not valid.
        strand: Number of its strand, from 0.
        is_away: Whether it left the level.
    """

    x: float
    y: float
    shape: str
    strand: int
    text: str
    is_away: bool = False


@dataclass(frozen=True)
class Line:
    """The rolling median of a strand and the band of its intervals, as points."""

    strand: int
    median: str
    band: str


@dataclass(frozen=True)
class StepMark:
    """A step: a vertical line with a triangle, and what is said of it."""

    x: float
    effect: str
    label: str
    anchor: str
    text: str


@dataclass(frozen=True)
class Slope:
    """A drift, as a straight line."""

    start: tuple[float, float]
    end: tuple[float, float]
    effect: str
    text: str


@dataclass(frozen=True)
class BreakMark:
    """Where values are not compared with those before."""

    x: float
    label: str
    text: str


@dataclass(frozen=True)
class TrendChart:
    """A series as a chart."""

    title: str
    description: str
    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    steps: tuple[StepMark, ...]
    slopes: tuple[Slope, ...]
    breaks: tuple[BreakMark, ...]
    change_points: tuple[float, ...]
    ticks_x: tuple[Mark, ...]
    ticks_y: tuple[Mark, ...]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


class _Plane:
    """Where runs and values stand."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.start = max(0, len(points) - RUNS)
        self.shown = range(self.start, len(points))
        known = [
            end
            for at in self.shown
            for end in (points[at].value, points[at].low, points[at].high)
            if math.isfinite(end)
        ]
        low, high = min(known, default=0.0), max(known, default=1.0)
        room = (high - low) * 0.08 or max(abs(high), 1.0) * 0.05
        self.low, self.high = low - room, high + room
        self.step = (_RIGHT - _LEFT - 12) / max(1, len(self.shown) - 1)

    def x(self, at: float) -> float:
        if len(self.shown) == 1:
            return (_LEFT + _RIGHT) / 2
        return round(_LEFT + 6 + (at - self.start) * self.step, 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)


def trend_chart(trend: Trend) -> TrendChart:
    """Lay out a trend: points with intervals, the rolling median, and what moved."""
    series = trend.series
    plane = _Plane(series.points)
    steps = [one for one in trend.movements if one.kind == "step" and one.at > plane.start]
    return TrendChart(
        title=f"{series.title}, {words.metric_text(series)}, of {series.cell}",
        description=f"{counted(len(series.points), 'run')}; {words.status(trend)}; latest "
        f"{words.value_text(trend.latest)}",
        dots=tuple(_dot(trend, plane, at) for at in plane.shown),
        lines=tuple(_lines(trend, plane)),
        steps=_steps(trend, plane, steps),
        slopes=tuple(_slopes(trend, plane)),
        breaks=_breaks(trend, plane),
        change_points=tuple(
            plane.x(at - 0.5)
            for strand in trend.strands
            for at in strand.change_points or ()
            if at > plane.start
        ),
        ticks_x=_dates(series.points, plane),
        ticks_y=_values(plane),
    )


def _strand_of(trend: Trend, at: int) -> tuple[int, Strand]:
    return next((i, one) for i, one in enumerate(trend.strands) if at in one.points)


def _dot(trend: Trend, plane: _Plane, at: int) -> Dot:
    point = trend.series.points[at]
    place, strand = _strand_of(trend, at)
    away = [one for one in strand.movements if one.kind == "departure"]
    is_known = math.isfinite(point.value)
    shape = "missing" if not is_known else point.outcome.value
    if is_known and point.outcome == Outcome.INVALID:
        shape = "unused"
    return Dot(
        x=plane.x(at),
        y=plane.y(point.value) if is_known else _MISSING,
        shape=shape,
        strand=place,
        text=f"{words.point_text(point)}, {point.started[:10]}, fxeval {point.fxeval}: "
        f"{words.value_text(point)}, {counted(point.n_identities, 'person', 'people')}, "
        f"{point.outcome.value}; {point.hardware_class}",
        is_away=bool(away) and at >= away[0].at and at in strand.used,
    )


def _lines(trend: Trend, plane: _Plane) -> list[Line]:
    """Return the rolling medians and bands of all strands, parted at the steps."""
    found = []
    for number_, strand in enumerate(trend.strands):
        starts = [one.at for one in strand.movements if one.kind == "step"]
        ends = [*starts, len(trend.series.points)]
        medians = dict(zip(strand.used, strand.medians, strict=True))
        for start, end in zip([plane.start, *starts], ends, strict=True):
            part = [at for at in strand.used if max(start, plane.start) <= at < end]
            if part:
                found.append(_line(trend, plane, number_, {at: medians[at] for at in part}))
    return found


def _line(trend: Trend, plane: _Plane, number_: int, medians: Mapping[int, float]) -> Line:
    points = trend.series.points
    banded = [
        at for at in medians if math.isfinite(points[at].low) and math.isfinite(points[at].high)
    ]
    edge = [(at, points[at].low) for at in banded]
    edge += [(at, points[at].high) for at in reversed(banded)]
    return Line(
        number_,
        " ".join(f"{plane.x(at):g},{plane.y(value):g}" for at, value in medians.items()),
        " ".join(f"{plane.x(at):g},{plane.y(value):g}" for at, value in edge),
    )


def _steps(trend: Trend, plane: _Plane, movements: Sequence[Movement]) -> tuple[StepMark, ...]:
    """Return marks of steps; a word that would lie on that of a later step is left out."""
    found: list[StepMark] = []
    taken = math.inf
    for one in reversed(movements):
        x = plane.x(one.at - 0.5)
        label = f"{'small, ' if one.is_small else ''}{one.effect}"
        room = 12 + _LETTER * len(label)
        starts = [("start", x + room), ("end", x + 6)] if x < _MIDDLE else [("end", x + 6)]
        anchor = next((name for name, right in starts if right <= taken), "")
        if anchor:
            taken = x - 6 if anchor == "start" else x - room
        elif x + 6 <= taken:
            taken = x - 6
        text = words.sentence(trend, one)
        found.append(StepMark(x, one.effect, label if anchor else "", anchor, text))
    return tuple(reversed(found))


def _slopes(trend: Trend, plane: _Plane) -> list[Slope]:
    found = []
    for strand in trend.strands:
        for one in strand.movements:
            if one.kind != "drift":
                continue
            start, end = one.at, strand.used[-1]
            first = max(start, plane.start)
            share = (first - start) / max(1, end - start)
            found.append(
                Slope(
                    (plane.x(first), plane.y(one.before + share * one.change)),
                    (plane.x(end), plane.y(one.after)),
                    one.effect,
                    words.sentence(trend, one),
                )
            )
    return found


def _breaks(trend: Trend, plane: _Plane) -> tuple[BreakMark, ...]:
    shown = [one for one in trend.breaks if one.at > plane.start]
    is_labelled = len(shown) <= _LABELLED
    marks: list[BreakMark] = []
    end = -math.inf  # of the last label, which the next one must not cover
    for one in shown:
        x, label = plane.x(one.at - 0.5), _label(one.reason) if is_labelled else ""
        half = _LETTER * len(label) / 2
        if x - half < end:
            label = ""
        elif label:
            end = x + half
        said = f"not compared across run {trend.series.points[one.at].run}: {one.reason}"
        marks.append(BreakMark(x, label, said))
    return tuple(marks)


def _label(reason: str) -> str:
    words_ = [word for word in ("hardware", "question") if word in reason]
    return " and ".join(words_)


def _dates(points: Sequence[Point], plane: _Plane) -> tuple[Mark, ...]:
    first, last = points[plane.shown[0]].started[:10], points[-1].started[:10]
    if len(plane.shown) == 1:
        return (Mark(plane.x(plane.start), _BOTTOM + 15, last),)
    return (
        Mark(_LEFT, _BOTTOM + 15, first, "start"),
        Mark(_RIGHT, _BOTTOM + 15, last, "end"),
    )


def _values(plane: _Plane) -> tuple[Mark, ...]:
    ticks = nice_ticks(plane.low, plane.high)
    places = next(
        (one for one in range(9) if all(abs(t - round(t, one)) < 1e-10 for t in ticks)), 9
    )
    return tuple(Mark(_LEFT - 6, plane.y(tick), number(tick, places), "end") for tick in ticks)

"""Geometry of slope charts: from a value before to the value after, with both intervals.

All coordinates are in the chart's own pixels, origin at the top left. What an outcome is shows in
the colour and in the shape of the marks at both ends.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fxeval.records.changes import Became, Change
from fxeval.records.judged import Figures
from fxeval.scorecard.change_words import WORDS, improvement_text, rest
from fxeval.scorecard.wording import clipped, condition, number

_At: TypeAlias = Callable[[float], float]

WIDTH, TOP, BOTTOM = 360, 34, 12
SHOWN = 12
"""Most lines of one chart, the worst first."""

_BEFORE, _AFTER, _LABEL = 62.0, 196.0, 216.0
_LINE, _LEAST, _LETTERS = 17.0, 150.0, 24
_STAGGER = 2.5  # between intervals that stand side by side


@dataclass(frozen=True)
class End:
    """One end of a line: where its mark and its interval stand."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Slope:
    """A line from the value before to the value after.

    Attributes:
        outcome: Decides colour and shape.
        before: Its left end; after: its right end.
        label: Short name at the right; full_label: all of it.
        label_y: Where it stands.
    """

    outcome: Became
    before: End
    after: End
    label: str
    full_label: str
    label_y: float


@dataclass(frozen=True)
class Tick:
    """A value on the scale."""

    y: float
    text: str


@dataclass(frozen=True)
class SlopeChart:
    """The changes of one metric, on one scale.

    Attributes:
        title: Of the metric, with its unit.
        direction: Which direction is better.
        description: The same as the lines say, in words.
        left_out: How many changes are not drawn.
    """

    title: str
    direction: str
    description: str
    slopes: tuple[Slope, ...]
    ticks: tuple[Tick, ...]
    height: float
    left_out: str
    width: int = WIDTH
    top: int = TOP
    x_before: float = _BEFORE
    x_after: float = _AFTER
    x_label: float = _LABEL


def slope_charts(changes: Sequence[Change]) -> list[SlopeChart]:
    """Return a chart for each metric of which some change has two values, in the order given."""
    found: dict[tuple[str, str, str], list[Change]] = {}
    for one in changes:
        if _value(one.before) is not None and _value(one.after) is not None:
            found.setdefault((one.metric, one.title, one.unit), []).append(one)
    return [_chart(some) for some in found.values()]


def _chart(changes: Sequence[Change]) -> SlopeChart:
    drawn, first = [*changes[:SHOWN]], changes[0]
    height = max(_LEAST, TOP + BOTTOM + _LINE * len(drawn))
    low, high = _range(drawn)
    names = _names(drawn)

    def at(value: float) -> float:
        return round(TOP + (high - value) / (high - low) * (height - TOP - BOTTOM), 1)

    ends = [_value(one.after) or 0.0 for one in drawn]
    order = sorted(range(len(drawn)), key=lambda place: -ends[place])
    places = _apart([at(ends[place]) for place in order], TOP + 4.0, height - BOTTOM)
    label_y = dict(zip(order, places, strict=True))
    slopes = [
        Slope(
            outcome=one.outcome,
            before=_end(one.before, _BEFORE - _STAGGER * (place % 4), at),
            after=_end(one.after, _AFTER + _STAGGER * (place % 4), at),
            label=clipped(name, _LETTERS),
            full_label=f"{one.cell}{condition(one.under)}: {WORDS[one.outcome]}",
            label_y=label_y[place],
        )
        for place, (one, name) in enumerate(zip(drawn, names, strict=True))
    ]
    said = "; ".join(
        f"{one.cell}{condition(one.under)}: {number(_value(one.before))} before, "
        f"{number(_value(one.after))} after, improvement {improvement_text(one)}, "
        f"{WORDS[one.outcome]}"
        for one in drawn
    )
    return SlopeChart(
        title=first.title,
        direction=f"{first.better} is better" + (f" · {first.unit}" if first.unit else ""),
        description=said,
        slopes=tuple(slopes[::-1]),  # the worst is drawn last, above the others
        ticks=tuple(_ticks(low, high, at)),
        height=round(height, 1),
        left_out=rest(changes, SHOWN),
    )


def _names(changes: Sequence[Change]) -> list[str]:
    """Return names that tell the lines of a chart apart, without what all share."""
    parts = [
        {
            **{key: getattr(one, key) for key in ("check", "explainer", "model", "pairs")},
            **{axis: str(value) for axis, value in one.under.items()},
        }
        for one in changes
    ]
    keys = [*dict.fromkeys(key for part in parts for key in part)]
    apart = [key for key in keys if len({part.get(key) for part in parts}) > 1]
    shown = [key for key in keys if key in apart or key == "explainer"]
    return [" · ".join(part[key] for key in shown if key in part) for part in parts]


def _range(changes: Sequence[Change]) -> tuple[float, float]:
    """Return the ends of the scale, with all intervals that are not far longer than the values."""
    figures = [one for change in changes for one in (change.before, change.after) if one]
    values = [one.value for one in figures if one.value is not None]
    ends = [end for one in figures for end in (one.low, one.high) if end is not None]
    low, high = min(values + ends), max(values + ends)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.05 * max(1.0, abs(low)), high + 0.05 * max(1.0, abs(high))
    return low, high


def _end(figures: Figures | None, x: float, at: _At) -> End:
    value = _value(figures) or 0.0
    low = figures.low if figures is not None and figures.low is not None else value
    high = figures.high if figures is not None and figures.high is not None else value
    return End(round(x, 1), at(value), at(low), at(high))


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return places of labels, from the top down, none of which touches the next one."""
    gap = min(_LINE * 0.85, (bottom - top) / max(1, len(wanted) - 1))
    found: list[float] = []
    for place in wanted:
        found.append(max(place, found[-1] + gap if found else top))
    for back in range(len(found) - 1, -1, -1):
        least = bottom if back == len(found) - 1 else found[back + 1] - gap
        found[back] = min(found[back], least)
    return [round(place, 1) for place in found]


def _ticks(low: float, high: float, at: _At) -> list[Tick]:
    """Return four or so round values between the ends."""
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= next(more for more in (1, 2, 5, 10) if (high - low) / (step * more) <= 5)
    first, last = math.ceil(low / step), math.floor(high / step)
    values = [number_ * step for number_ in range(first, last + 1)]
    places = 0 if step >= 1 else max(0, -math.floor(math.log10(step) + 1e-9))
    return [Tick(at(value), f"{value + 0.0:,.{places}f}".replace("-", "−")) for value in values]


def _value(figures: Figures | None) -> float | None:
    return None if figures is None else figures.value

"""Geometry of the charts: from a record's numbers to the coordinates that the SVG macros draw.

All coordinates are in the chart's own pixels, origin at the top left. Charts are laid out at the
width at which they are drawn, so that their text keeps its size on a phone.
"""

import base64
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fxeval.scorecard.wording import clipped, interval, map_name, number

Estimate = Mapping[str, Any]
Side = Literal["lower", "higher"]

_WIDTH, _LABELS, _VALUES, _ROW, _MARGIN = 360, 118, 58, 22, 16
_LETTER = 6.2  # mean width of a letter at the panels' font size
_PANEL_WIDTH, _PANEL_HEIGHT = 176, 132
_PANEL_LEFT, _PANEL_RIGHT, _PANEL_TOP, _PANEL_BOTTOM = 30, 168, 8, 112


@dataclass(frozen=True)
class Row:
    """An interval to draw: its name, its estimate, and whether it is the judged one."""

    label: str
    estimate: Estimate
    judged: bool = False


@dataclass(frozen=True)
class Rule:
    """A vertical line: a limit with its good side, or a mark such as 'no difference'."""

    at: float
    label: str
    good: Side | None = None


@dataclass(frozen=True)
class Mark:
    """Text or tick at a position."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Dot:
    """A drawn row: dot, interval, name at the left and value at the right.

    An interval without an end on one side reaches the edge of the scale, and ``arrow`` is the x of
    its point there.
    """

    y: float
    x: float | None
    low: float | None
    high: float | None
    label: str
    full_label: str
    value: str
    judged: bool
    arrow: float | None = None


@dataclass(frozen=True)
class DotChart:
    """Dots with intervals on one horizontal scale."""

    title: str
    description: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    dots: tuple[Dot, ...]
    ticks: tuple[Mark, ...]
    rules: tuple[Mark, ...]
    limits: tuple[Mark, ...]
    good: tuple[float, float] | None
    directions: tuple[Mark, ...]


@dataclass(frozen=True)
class Curve:
    """A drawn curve: its points, its band as a polygon, and where its name stands."""

    points: str
    band: str
    label: Mark
    judged: bool


@dataclass(frozen=True)
class CurvePanel:
    """The explainer's curve, against one control if there is one."""

    title: str
    description: str
    curves: tuple[Curve, ...]
    ticks_x: tuple[Mark, ...]
    ticks_y: tuple[Mark, ...]
    width: int = _PANEL_WIDTH
    height: int = _PANEL_HEIGHT
    left: int = _PANEL_LEFT
    right: int = _PANEL_RIGHT
    top: int = _PANEL_TOP
    bottom: int = _PANEL_BOTTOM


@dataclass(frozen=True)
class HeatMap:
    """A mean saliency map as a picture and as a coarse table."""

    image: str
    aspect: float
    summary: str
    coarse: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def nice_ticks(low: float, high: float) -> list[float]:
    """Return the fewest round values inside [low, high] that are at least three.

    >>> nice_ticks(0.21, 0.63)
    [0.3, 0.4, 0.5, 0.6]
    """
    # Steps of 5, 2 and 1 times a power of ten, from coarse to fine.
    power = math.floor(math.log10(high - low))
    ticks: list[float] = []
    for exponent, factor in ((power, 5), (power, 2), (power, 1), (power - 1, 5), (power - 1, 2)):
        step = factor * 10.0**exponent
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        ticks = [round(index * step, 12) for index in range(first, last + 1)]
        if len(ticks) >= 3:
            break
    return ticks


def dot_chart(
    title: str,
    rows: Sequence[Row],
    rules: Sequence[Rule] = (),
    *,
    directions: tuple[str, str],
    row_height: int = _ROW,
) -> DotChart:
    """Lay out intervals under one another on a common scale.

    Args:
        title: Name of the quantity; screen readers say it.
        rows: From top to bottom; a single unnamed row makes a bar without a column of names.
        rules: Limits and marks; the scale covers them.
        directions: Meaning of the left and of the right end of the scale.
        row_height: In pixels.
    """
    named = any(row.label for row in rows)
    left, right = (_LABELS if named else _MARGIN), _WIDTH - _VALUES
    top = 6 + 14 * len(rules)
    scale = _scale([*(row.estimate for row in rows)], [rule.at for rule in rules], left, right)
    bottom = top + row_height * len(rows)
    limits = [rule for rule in rules if rule.good]
    return DotChart(
        title=title,
        description="; ".join(_spoken(row) for row in rows)
        + "".join(f"; {rule.label}" for rule in rules),
        width=_WIDTH,
        height=bottom + 36,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        dots=tuple(_dot(row, top + row_height * (i + 0.5), scale) for i, row in enumerate(rows)),
        ticks=tuple(
            Mark(scale(tick), bottom + 14, number(tick, _places(scale)))
            for tick in nice_ticks(scale.low, scale.high)
        ),
        rules=tuple(_rule(rule, i, scale) for i, rule in enumerate(rules) if not rule.good),
        limits=tuple(_rule(rule, i, scale) for i, rule in enumerate(rules) if rule.good),
        good=_good(limits, scale),
        directions=(
            Mark(
                left - 60 if named and all(directions) else left,
                bottom + 30,
                directions[0],
                "start",
            ),
            Mark(right, bottom + 30, directions[1], "end"),
        ),
    )


def curve_panels(curves: Sequence[Mapping[str, Any]]) -> list[CurvePanel]:
    """Lay out one kind and fill: the explainer's curve against each control, on one scale.

    Small panels rather than one chart: all curves of a kind meet at both ends, so their names
    could not stand beside them.
    """
    judged = [curve for curve in curves if curve["map"] == "explainer"]
    controls = [curve for curve in curves if curve["map"] != "explainer"]
    ends = [v for curve in curves for key in ("similarity", "low", "high") for v in curve[key]]
    known = [end for end in ends if end is not None]
    if not known:
        return []
    y = _padded(min(known), max(known), _PANEL_BOTTOM, _PANEL_TOP)
    return [_panel([*judged, control], y) for control in controls] or [_panel(judged, y)]


def heat_map(values: Sequence[Sequence[float | None]]) -> HeatMap:
    """Draw a map in [0, 1] as an inline PNG: black ink whose opacity is the value.

    Opacity instead of grey lets the page choose the ink for light, dark and print.
    """
    height, width = len(values), len(values[0])
    inked = [[min(max(value or 0.0, 0.0), 1.0) for value in row] for row in values]
    scanlines = b"".join(
        b"\0" + b"".join(bytes((0, round(255 * value))) for value in row) for row in inked
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data)
        for kind, data in (
            # 8 bits per channel, colour type 4: grey with alpha.
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)),
            # Stored, not compressed: the same bytes with every version of zlib.
            (b"IDAT", zlib.compress(scanlines, 0)),
            (b"IEND", b""),
        )
    )
    ordered = sorted((v for row in inked for v in row), reverse=True)
    share = sum(ordered[: max(1, len(ordered) // 10)]) / (sum(ordered) or 1.0)
    row, column = max(
        ((i, j) for i in range(height) for j in range(width)), key=lambda at: inked[at[0]][at[1]]
    )
    return HeatMap(
        image="data:image/png;base64," + base64.b64encode(png).decode(),
        aspect=height / width,
        summary=f"Strongest at {(row + 0.5) / height:.0%} of the height from the top and "
        f"{(column + 0.5) / width:.0%} of the width from the left; the strongest tenth of the "
        f"pixels holds {share:.0%} of the sum.",
        coarse=_coarse(values, 7),
    )


def _scale(
    estimates: Sequence[Estimate], marks: Sequence[float], left: float, right: float
) -> _Scale:
    ends = [estimate[key] for estimate in estimates for key in ("value", "low", "high")]
    known = [end for end in ends if end is not None] + list(marks)
    return _padded(min(known, default=0.0), max(known, default=1.0), left, right)


def _padded(low: float, high: float, start: float, end: float) -> _Scale:
    room = (high - low) * 0.06 or max(abs(high), 1.0) * 0.05
    return _Scale(low - room, high + room, start, end)


def _places(scale: _Scale) -> int:
    ticks = nice_ticks(scale.low, scale.high)
    return next((p for p in range(6) if all(abs(t - round(t, p)) < 1e-9 for t in ticks)), 6)


def _spoken(row: Row) -> str:
    return f"{row.label} {interval(row.estimate)}".strip()


def _dot(row: Row, y: float, scale: _Scale) -> Dot:
    x, low, high = (
        None if row.estimate[key] is None else scale(row.estimate[key])
        for key in ("value", "low", "high")
    )
    arrow = None
    if low is None and high is not None:
        low = arrow = scale.start
    elif high is None and low is not None:
        high = arrow = scale.end
    value, name = number(row.estimate["value"]), clipped(row.label, 18)
    return Dot(y, x, low, high, name, row.label, value, row.judged, arrow)


def _rule(rule: Rule, index: int, scale: _Scale) -> Mark:
    x = scale(rule.at)
    third = (scale.end - scale.start) / 3
    anchor = "start" if x < scale.start + third else "end" if x > scale.end - third else "middle"
    return Mark(x, 12 + 14 * index, rule.label, anchor)


def _good(limits: Sequence[Rule], scale: _Scale) -> tuple[float, float] | None:
    """Return the good ground of one limit, or between two; None if several do not make one."""
    sides = {rule.good: scale(rule.at) for rule in limits}
    if not sides or len(sides) != len(limits):
        return None
    low, high = sides.get("higher", scale.start), sides.get("lower", scale.end)
    return (low, high) if low <= high else None


def _panel(curves: Sequence[Mapping[str, Any]], y: _Scale) -> CurvePanel:
    x = _Scale(0.0, 1.0, _PANEL_LEFT, _PANEL_RIGHT)
    names = [map_name(curve["map"]) for curve in curves]
    labels = _labels(curves, x, y)
    return CurvePanel(
        title=" against ".join(names),
        description="; ".join(
            f"{name} from {number(_first(curve['similarity']))} to "
            f"{number(_first(curve['similarity'][::-1]))}"
            for name, curve in zip(names, curves, strict=True)
        ),
        curves=tuple(
            Curve(
                _points(curve["fraction"], curve["similarity"], x, y),
                " ".join(
                    (
                        _points(curve["fraction"], curve["low"], x, y),
                        _points(curve["fraction"][::-1], curve["high"][::-1], x, y),
                    )
                ),
                label,
                curve["map"] == "explainer",
            )
            for curve, label in zip(curves, labels, strict=True)
        ),
        ticks_x=tuple(Mark(x(at), _PANEL_BOTTOM + 14, f"{at:g}") for at in (0.0, 0.5, 1.0)),
        ticks_y=tuple(
            Mark(_PANEL_LEFT - 5, y(tick), number(tick, _places(y)), "end")
            for tick in nice_ticks(y.low, y.high)
        ),
    )


def _labels(curves: Sequence[Mapping[str, Any]], x: _Scale, y: _Scale) -> list[Mark]:
    """Name each curve where the two lie farthest apart: the upper one above, the other below."""
    drawn = [[s for s in curve["similarity"] if s is not None] or [0.0] for curve in curves]
    shortest = min(len(points) for points in drawn)
    gaps = [max(ends) - min(ends) for ends in zip(*drawn, strict=False)]
    at = gaps.index(max(gaps)) if len(curves) > 1 else shortest // 2
    falling = drawn[0][0] > drawn[0][-1]
    highest = max(points[at] for points in drawn)
    marks = []
    for curve, points in zip(curves, drawn, strict=True):
        above = points[at] >= highest
        text = clipped(map_name(curve["map"]), 14)
        room = _LETTER * len(text)
        across = x(at / max(shortest - 1, 1)) + (4 if falling == above else -4 - room)
        across = min(max(across, _PANEL_LEFT + 2), _PANEL_RIGHT - room)
        down = min(max(y(points[at]) + (-8 if above else 16), _PANEL_TOP + 9), _PANEL_BOTTOM - 4)
        marks.append(Mark(round(across, 1), down, text, "start"))
    return marks


def _points(xs: Sequence[float | None], ys: Sequence[float | None], x: _Scale, y: _Scale) -> str:
    return " ".join(
        f"{x(a):g},{y(b):g}" for a, b in zip(xs, ys, strict=True) if a is not None and b is not None
    )


def _first(values: Sequence[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _coarse(
    values: Sequence[Sequence[float | None]], most: int
) -> tuple[tuple[float | None, ...], ...]:
    """Average a map over at most ``most`` by ``most`` blocks."""
    height, width = len(values), len(values[0])
    rows, columns = min(most, height), min(most, width)

    def block(i: int, j: int) -> float | None:
        inside = [
            value
            for row in values[i * height // rows : (i + 1) * height // rows]
            for value in row[j * width // columns : (j + 1) * width // columns]
            if value is not None
        ]
        return sum(inside) / len(inside) if inside else None

    return tuple(tuple(block(i, j) for j in range(columns)) for i in range(rows))

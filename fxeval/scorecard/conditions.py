"""Tables of estimates under many conditions, and of those of slices; a chart each is unreadable."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fxeval.scorecard.judged_under import (
    TO_FAIL,
    column_of,
    is_under,
    judged_under,
    slices_of,
    too_few,
)
from fxeval.scorecard.wording import (
    condition,
    counted,
    interval,
    map_name,
    plain,
    row_names,
    rows_of,
)

Json = Mapping[str, Any]
Key = tuple[tuple[str, Any], ...]  # a condition, hashable
Group = tuple[str, tuple[str, ...]]  # a metric, and the axes of its conditions
Entry = tuple[str, str]  # the text of a cell, and a smaller one below

FEW = 6
"""Most conditions of a metric that are drawn one by one; more become a table."""

SHOWN = 30
"""Most rows of a table that are seen at once; the others are folded."""

MOST = 600
"""Most rows of all tables of a cell together, folded ones too; the record holds the others."""

_WIDEST = 7  # columns of a grid

_TRUTHS = ("oracle", "blurred_oracle")
"""Maps that know the answer: no explainer is blamed for being worse."""

BETTER, WORSE = "▲", "▼"
"""Marks of an improvement whose whole interval lies above 0, or below."""


@dataclass(frozen=True)
class Table:
    """One metric under many conditions, or in the slices of one column.

    Attributes:
        metric: The metric as declared.
        under: What all rows have in common, in words.
        said: What the rows show together.
        axes: Names of the first columns, which name the row.
        heads: Names of the other columns.
        rows: The rows that are seen at once.
        more: Those that are folded.
        left: Number of those that only the record holds.
        grid: The same values as rows by columns, if exactly two axes vary.
        is_aside: Whether it holds what no limit is about.
    """

    metric: Json
    under: str
    said: str
    axes: tuple[str, ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    more: tuple[tuple[Entry, ...], ...]
    left: int
    grid: "Grid | None"
    is_aside: bool = False


@dataclass(frozen=True)
class Grid:
    """Values of the explainer by two axes.

    Attributes:
        corner: Names of both axes.
        columns: Values of the second.
        rows: Value of the first, and the entry of each column: the estimate, and what it clears.
    """

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


@dataclass(frozen=True)
class _Line:
    """All that is known of one metric under one condition."""

    under: Json
    own: Json | None
    against: Mapping[str, Json]


def metrics_of(cell: Json) -> dict[str, Json]:
    """Return the cell's metrics by name, as they were declared."""
    return {metric["name"]: metric for metric in cell["metrics"]}


def few(cell: Json) -> tuple[list[Json], list[Json]]:
    """Return estimates and differences of the metrics with so few conditions that all are drawn.

    Those of slices are not among them.
    """
    many = _many(cell)
    return (
        [row for row in _plain(cell, "estimates") if _group(row) not in many],
        [row for row in _plain(cell, "differences") if _group(row) not in many],
    )


def condition_tables(cell: Json) -> tuple[Table, ...]:
    """Return a table for every metric with more conditions, worst first."""
    many, groups = _many(cell), _lines(_plain(cell, "estimates"), _plain(cell, "differences"))
    found = [(key[0], lines) for key, lines in groups.items() if key in many]
    most = max(SHOWN, MOST // max(1, len(found)))
    return tuple(_table(cell, name, lines, most) for name, lines in found)


def slice_tables(cell: Json) -> tuple[tuple[str, tuple[Table, ...]], ...]:
    """Return the columns of the cell's slices, and of each a table for every metric."""
    found, judged = [], judged_under(cell)
    for column in slices_of(cell):
        inside = [
            [row for row in cell[kind] if column_of(cell, row) == column]
            for kind in ("estimates", "differences")
        ]
        groups = _lines(*inside)
        most = max(SHOWN, MOST // max(1, len(groups) * len(slices_of(cell))))
        parted = [
            (key[0], [one for one in lines if is_under(one.under, judged) is is_in], not is_in)
            for key, lines in groups.items()
            for is_in in (True, False)
        ]
        tables = [
            replace(_table(cell, name, lines, most, column), is_aside=is_aside)
            for name, lines, is_aside in parted
            if lines
        ]
        if tables:
            found.append((column, tuple(tables)))
    return tuple(found)


def worst_slices(cell: Json) -> list[str]:
    """Return a sentence for each column of the slices: where the explainer does worst.

    It is about the metric of the first critical limit, one on slices before others, or about the
    first metric if there is none. Of a cell that chooses among configurations, it is about the
    chosen one on the half that had no part in the choice.
    """
    limits = [one for one in cell.get("limits", ()) if one["severity"] == "critical"]
    critical = [one["metric"] for one in sorted(limits, key=lambda one: not one.get("slice"))]
    found = []
    for column in slices_of(cell):
        rows = [row for row in cell["estimates"] if column_of(cell, row) == column]
        if cell.get("selection"):
            chosen = {"configuration": "selected", "half": "report"}
            rows = [row for row in rows if chosen.items() <= row["under"].items()]
        rows = [row for row in rows if is_under(row["under"], judged_under(cell))]
        measured = {row["metric"] for row in rows}
        name = next((one for one in critical if one in measured), None)
        if rows:
            found.append(_worst(cell, name or rows[0]["metric"], rows, column))
    return [one for one in found if one]


def _worst(cell: Json, name: str, rows: Sequence[Json], column: str) -> str:
    metric = metrics_of(cell)[name]
    own = [row for row in rows if row["metric"] == name and row["map"] == "explainer"]
    known = [row for row in own if row["value"] is not None]
    if not known:
        return ""
    enough = [row for row in known if row["n_identities"] >= TO_FAIL]
    worst = (max if metric["better"] == "lower" else min)(
        enough or known, key=lambda row: row["value"]
    )
    rest = {axis: value for axis, value in worst["under"].items() if axis != column}
    slices = counted(len({row["under"][column] for row in own}), "slice")
    people = counted(worst["n_identities"], "identity", "identities")
    few_people = f", {too_few(worst)}" if too_few(worst) else ""
    if enough and len(enough) < len(known):
        few_people += "; slices of fewer than 10 identities are not compared"
    return (
        f"of {slices} by {column}, '{plain(worst['under'][column])}' is the worst: "
        f"{metric['title']}{condition(rest)}: {interval(worst)} on {people}{few_people}"
    )


def _plain(cell: Json, kind: str) -> list[Json]:
    return [row for row in cell[kind] if not column_of(cell, row)]


def _group(row: Json) -> Group:
    """Return what rows of one table share."""
    return row["metric"], tuple(sorted(row["under"]))


def _lines(estimates: Iterable[Json], differences: Iterable[Json]) -> dict[Group, list[_Line]]:
    own: dict[tuple[Group, Key], Json] = {}
    under: dict[tuple[Group, Key], Json] = {}
    against: dict[tuple[Group, Key], dict[str, Json]] = {}
    for row in estimates:
        key = _group(row), _key(row)
        under.setdefault(key, row["under"])
        if row["map"] == "explainer":
            own[key] = row
    for row in differences:
        key = _group(row), _key(row)
        against.setdefault(key, {})[row["control"]] = row
    groups: dict[Group, list[_Line]] = {}
    for key, condition_ in under.items():
        line = _Line(condition_, own.get(key), against.get(key, {}))
        groups.setdefault(key[0], []).append(line)
    return groups


def _key(row: Json) -> Key:
    return tuple(sorted(row["under"].items()))


def _many(cell: Json) -> set[Group]:
    groups: dict[Group, set[Key]] = {}
    for row in _plain(cell, "estimates"):
        groups.setdefault(_group(row), set()).add(_key(row))
    return {group for group, keys in groups.items() if len(keys) > FEW}


def _table(cell: Json, name: str, lines: Sequence[_Line], most: int, column: str = "") -> Table:
    metric = metrics_of(cell)[name]
    ordered = sorted(lines, key=lambda line: _badness(line, metric))
    varying = [axis for axis in lines[0].under if len(_values(lines, axis)) > 1 or axis == column]
    axes = sorted(varying, key=lambda axis: axis != column)
    fixed = {axis: value for axis, value in lines[0].under.items() if axis not in axes}
    controls = list(dict.fromkeys(control for line in lines for control in line.against))
    sizes = {(_count(line, "n_pairs"), _count(line, "n_identities")) for line in lines}
    is_one = len(sizes) == 1 and not column
    heads = [] if is_one else ["identities", row_names(cell["kind"])[1]]
    heads += ["explainer", *(f"over {map_name(one)}" for one in controls)]
    rows = [_row(line, axes, controls, not is_one) for line in ordered]
    each = [rows_of(cell["kind"], *size) for size in sizes] if is_one else []
    return Table(
        metric=metric,
        under=condition(fixed),
        said=_said(lines, controls, each, "slice" if column else "condition"),
        axes=tuple(map(_named, axes)),
        heads=tuple(heads),
        rows=tuple(rows[: min(SHOWN, most)]),
        more=tuple(rows[SHOWN:most]),
        left=max(0, len(rows) - most),
        grid=None if column else _grid(lines, axes, len(controls)),
    )


def _badness(line: _Line, metric: Json) -> float:
    """Return what puts the worst first: the least end of an improvement, else the value."""
    ends = [row["low"] for row in _rivals(line)]
    if ends:
        return min(float("-inf") if end is None else end for end in ends)
    value = line.own["value"] if line.own else None
    if value is None:
        return float("-inf")
    return -float(value) if metric["better"] == "lower" else float(value)


def _values(lines: Sequence[_Line], axis: str) -> list[Any]:
    return list(dict.fromkeys(line.under[axis] for line in lines))


def _count(line: _Line, of: str) -> int:
    return line.own[of] if line.own else 0


def _named(axis: str) -> str:
    return axis.replace("_", " ")


def _row(
    line: _Line, axes: Sequence[str], controls: Sequence[str], is_counted: bool
) -> tuple[Entry, ...]:
    counts = []
    if is_counted:
        people = too_few(line.own) if line.own else ""
        counts = [
            (f"{_count(line, 'n_identities'):,}", people),
            (f"{_count(line, 'n_pairs'):,}", ""),
        ]
    return (
        *((plain(line.under[axis]), "") for axis in axes),
        *counts,
        _split(interval(line.own)),
        *(_split(marked(line.against.get(control))) for control in controls),
    )


def _split(text: str) -> Entry:
    """Part a written estimate from its interval.

    >>> _split("0.120 [0.100, 0.140]"), _split("0.120 (at least 0.1)"), _split("no estimate")
    (('0.120', '[0.100, 0.140]'), ('0.120', '(at least 0.1)'), ('no estimate', ''))
    """
    at = min((text.index(sign) for sign in "[(" if sign in text), default=len(text))
    return text[:at].strip(), text[at:]


def marked(improvement: Json | None) -> str:
    """Write an improvement, marked if its whole interval lies above 0, or below.

    >>> marked({"value": 0.12, "low": 0.1, "high": 0.14})
    '▲ 0.120 [0.100, 0.140]'
    """
    if improvement is None:
        return "none"
    return f"{_mark(improvement)} {interval(improvement, 0.0)}".strip()


def _mark(improvement: Json) -> str:
    low, high = improvement["low"], improvement["high"]
    if low is not None and low > 0:
        return BETTER
    return WORSE if high is not None and high < 0 else ""


def _said(lines: Sequence[_Line], controls: Sequence[str], sizes: Iterable[str], of: str) -> str:
    head = ", ".join([counted(len(lines), of), *(f"each on {size}" for size in sizes)])
    if not set(controls) - set(_TRUTHS):
        return f"{head}; the worst first."
    above = [all(_mark(row) == BETTER for row in _rivals(line)) for line in lines]
    below = [any(_mark(row) == WORSE for row in _rivals(line)) for line in lines]
    but = " but the oracles" if set(controls) & set(_TRUTHS) else ""
    return (
        f"{head}; the one with the least improvement first. The explainer is shown better than "
        f"each other map{but} in {sum(above):,} of them, and worse than at least one in "
        f"{sum(below):,}."
    )


def _rivals(line: _Line) -> list[Json]:
    """Return the improvements over maps that do not know the answer."""
    return [row for name, row in line.against.items() if name not in _TRUTHS]


def _grid(lines: Sequence[_Line], axes: Sequence[str], n_controls: int) -> Grid | None:
    if len(axes) != 2:
        return None
    down, across = sorted(axes, key=lambda axis: -len(_values(lines, axis)))
    columns = _values(lines, across)
    if len(columns) > _WIDEST:
        return None
    at = {(line.under[down], line.under[across]): line for line in lines}
    return Grid(
        corner=f"{_named(down)} by {_named(across)}",
        columns=tuple(f"{_named(across)} {plain(value)}" for value in columns),
        rows=tuple(
            (
                plain(value),
                tuple(_entry(at.get((value, column)), n_controls) for column in columns),
            )
            for value in _values(lines, down)
        ),
    )


def _entry(line: _Line | None, n_controls: int) -> tuple[str, str]:
    """Return the estimate, and over how many of the other maps an improvement is shown."""
    if line is None:
        return "not measured", ""
    shown = sum(_mark(row) == BETTER for row in line.against.values())
    return interval(line.own), f"better than {shown} of {n_controls}" if n_controls else ""

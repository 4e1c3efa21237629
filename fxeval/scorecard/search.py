"""The choice among the configurations of a cell: all that were tried, and what chance added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxeval.scorecard.conditions import metrics_of
from fxeval.scorecard.wording import begun, condition, counted, interval, map_name, number, plain

Json = Mapping[str, Any]
Key = tuple[tuple[str, Any], ...]

_WIDEST = 7  # columns of a grid


@dataclass(frozen=True)
class Entry:
    """One configuration.

    Attributes:
        lines: Its values on both halves, or why it has none.
        is_selected: Whether it was chosen.
    """

    lines: tuple[str, ...]
    is_selected: bool = False


@dataclass(frozen=True)
class Search:
    """All configurations of a cell and the choice among them.

    Attributes:
        metric: The metric that chose, as declared.
        chosen: The choice in words.
        said: Sentences on how many were tried, and on what chance added.
        corner: Names of the axes.
        columns: Values of the second axis; if the configurations make no grid, names of columns.
        rows: Name and entries of each row.
    """

    metric: Json
    chosen: str
    said: tuple[str, ...]
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


def search(cell: Json) -> Search | None:
    """Return the choice of a cell; None if it makes none."""
    found = cell.get("selection")
    if not found:
        return None
    known = _entries(found)
    asked = [_key(one["under"]) for one in cell.get("configurations") or ()]
    order = dict.fromkeys([*(key for key in asked if key in known), *known])
    entries = {key: known[key] for key in order}
    axes = list(dict.fromkeys(axis for key in entries for axis, _ in key))
    corner, columns, rows = _arranged(entries, axes)
    return Search(
        metric=metrics_of(cell)[found["metric"]],
        chosen=chosen(cell),
        said=tuple(_sentences(cell, found)),
        corner=corner,
        columns=columns,
        rows=rows,
    )


def chosen(cell: Json) -> str:
    """Return in one line which configuration was chosen and what it does; "" if none was asked."""
    found = cell.get("selection")
    if not found:
        return ""
    tried = counted(found["n_tried"], "configuration")
    if found["selected"] is None:
        return f"of {tried} none was selected: {found['reason']}"
    title = metrics_of(cell)[found["metric"]]["title"]
    return (
        f"of {tried} selected {_words(found['selected'])}: {title} {interval(found['report'])} on "
        f"the half that had no part in the choice, {interval(found['selection'])} on the other"
    )


def _sentences(cell: Json, found: Json) -> list[str]:
    halves = [
        f"{name} has {counted(found['n_rows'].get(half, 0), 'pair')} of "
        f"{counted(found['n_identities'].get(half, 0), 'identity', 'identities')}"
        for half, name in (("selection", "the one that chooses"), ("report", "the other"))
    ]
    said = [f"The people are split in two halves: {', '.join(halves)}."]
    if found["selected"] is not None:
        said.insert(0, f"Selected: {found['reason']}.")
    else:
        said.insert(0, f"{begun(chosen(cell))}.")
    return [*said, *_optimism(found), *_as_given(cell, found)]


def _optimism(found: Json) -> list[str]:
    gap, shared = found["optimism"], found["shared_gap"]
    if gap is None:
        return []
    side = "better" if gap >= 0 else "worse"
    text = (
        f"Optimism gap: on the half that chose it, the selected configuration looks "
        f"{number(abs(gap))} {side} than on the other half"
    )
    if shared is not None:
        way = "better" if shared >= 0 else "worse"
        text += f"; all candidates together look {number(abs(shared))} {way} there"
    rank = found["report_rank"]
    if rank is not None:
        text += f". On the other half it has place {rank} of {len(found['candidates'])}"
    return [f"{text}."]


def _as_given(cell: Json, found: Json) -> list[str]:
    if found["as_given_report"] is None:
        return []
    halves = interval(found["as_given_selection"]), interval(found["as_given_report"])
    return [
        f"{cell['explainer']} as the suite gives it: {halves[0]} on the half that chooses, "
        f"{halves[1]} on the other."
    ]


def _entries(found: Json) -> dict[Key, Entry]:
    """Return every configuration that was tried: candidates, their equals, and refused ones."""
    entries: dict[Key, Entry] = {}
    for one in found["candidates"]:
        is_selected = one["under"] == found["selected"]
        entries[_key(one["under"])] = Entry(_lines(one, is_selected), is_selected)
        for other in one["same"]:
            same = f"same maps as {_words(one['under'])}"
            entries[_key(other)] = Entry((same,))
    for one in found["refused"]:
        entries[_key(one["under"])] = Entry((f"not measured: {one['refused']}",))
    return entries


def _lines(one: Json, is_selected: bool) -> tuple[str, ...]:
    return (
        *(("selected",) if is_selected else ()),
        f"chooses {interval(one['selection'])}",
        f"reports {interval(one['report'])}",
        *((f"unfit: {one['unfit']}",) if one["unfit"] else ()),
    )


def _arranged(
    entries: Mapping[Key, Entry], axes: Sequence[str]
) -> tuple[str, tuple[str, ...], tuple[tuple[str, tuple[Entry, ...]], ...]]:
    """Return corner, columns and rows: a grid of two axes, or one configuration a row."""
    values = {axis: list(dict.fromkeys(dict(key).get(axis) for key in entries)) for axis in axes}
    if len(axes) != 2 or len(values[axes[1]]) > _WIDEST:
        rows = [(_words(dict(key)), (entry,)) for key, entry in entries.items()]
        return "configuration", ("values on both halves",), tuple(rows)
    down, across = axes
    absent = Entry(("not tried",))
    grid = tuple(
        (
            plain(value),
            tuple(
                entries.get(_key({down: value, across: column}), absent)
                for column in values[across]
            ),
        )
        for value in values[down]
    )
    return (
        f"{map_name(down)} by {map_name(across)}",
        tuple(f"{map_name(across)} {plain(column)}" for column in values[across]),
        grid,
    )


def _key(under: Json) -> Key:
    return tuple(sorted(under.items()))


def _words(under: Json) -> str:
    return condition(under, "") or "the only configuration"

"""Whether metrics tell maps of known worth apart: what page, terminal and summary show of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxeval.scorecard.charts import DotChart, Row, dot_chart
from fxeval.scorecard.conditions import metrics_of
from fxeval.scorecard.limit_rows import TOWARDS
from fxeval.scorecard.wording import begun, condition, counted, interval, map_name, rows_of

Json = Mapping[str, Any]

WORDS: Mapping[str, str] = {
    "fit": "tells known maps apart",
    "unfit": "unfit here",
    "not_checked": "not checked",
}
"""What a reader is told of each fitness."""

SIGNS: Mapping[str, str] = {"fit": "pass", "unfit": "invalid", "not_checked": "unsupported"}
"""The verdict whose shape and colour stand beside the words."""

MEANING = (
    "Each metric below was first given maps whose worth is known, from the best to the worst: an "
    "oracle that knows which pixels matter, the same oracle blurred, random pixels, and the oracle "
    "turned upside down. A metric that does not show each of them to be better than the next is "
    "unfit here, and no limit on it decides anything."
)

FINENESS = (
    "Reliability: how far the values of these maps in one half of the people agree with those in "
    "the other half (1 = fully). Detectable difference: the smallest mean difference between two "
    "maps that four of five such lists of pairs show."
)

_SAID: Mapping[str, tuple[str, str]] = {  # of one, of several
    "fit": ("tells known maps apart", "tell known maps apart"),
    "unfit": ("is unfit here", "are unfit here"),
    "not_checked": ("was not checked", "were not checked"),
}
_ORDER = ("unfit", "not_checked", "fit")
_OPEN = 4  # rows that are seen at once; unfit ones always are
_MOST = 60  # rows on the page, folded ones too
_LINKS = 6  # cells that one row names
_ROW_HEIGHT = 17  # pixels of one map in a chart


@dataclass(frozen=True)
class Checked:
    """A metric under one condition, and how it ranks the known maps.

    Attributes:
        entry: The entry of the record.
        anchor: Where cells link to.
        title: The metric's title with its condition.
        about: On what it was checked.
        unit: Of the metric; empty if no cell declares it.
        chart: The known maps, the best first; None if none has a value.
        invalid: Anchors and names of the cells that are invalid for its sake.
        more: Number of those that are not named.
    """

    entry: Json
    anchor: str
    title: str
    about: str
    unit: str
    chart: DotChart | None
    invalid: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True)
class SelfChecks:
    """The section of the page.

    Attributes:
        said: How many metrics are fit, unfit and not checked.
        shown: Rows that are seen at once, unfit ones first.
        folded: The others.
        left: Number of rows that only the record holds.
        unchecked: What could not be checked at all, and why.
        values: Rows of a table: metric, map, value.
        steps: Rows of a table: metric, which two maps, difference, whether it holds.
        cost: Of all checks together, in words; empty if nothing was measured.
    """

    said: str
    shown: tuple[Checked, ...]
    folded: tuple[Checked, ...]
    left: int
    unchecked: tuple[tuple[str, str], ...]
    values: tuple[tuple[str, ...], ...]
    steps: tuple[tuple[str, ...], ...]
    cost: str


@dataclass(frozen=True)
class Unfit:
    """A metric of a cell that no limit may decide by.

    Attributes:
        anchor: Of its row in the section; empty if there is none.
        title: The metric's title with its condition.
        reason: Why it is unfit.
    """

    anchor: str
    title: str
    reason: str


def self_checks(record: Json) -> SelfChecks | None:
    """Return the section of the page; None if no metric was checked or was to be."""
    entries = record["self_checks"]
    if not entries:
        return None
    invalid = _invalid_cells(record)
    rows = [_checked(record, at, invalid.get(at, ())) for at in _drawn(entries)]
    n_unfit = sum(row.entry["fitness"] == "unfit" for row in rows)
    first = max(_OPEN, n_unfit)
    return SelfChecks(
        said=tally(entries),
        shown=tuple(rows[:first]),
        folded=tuple(rows[first:]),
        left=sum(not _is_bare(entry) for entry in entries) - len(rows),
        unchecked=_unchecked(record),
        values=tuple(
            (row.title, map_name(one["map"]), interval(one))
            for row in rows
            for one in row.entry["maps"]
        ),
        steps=tuple(
            (
                row.title,
                f"{map_name(one['better'])} over {map_name(one['worse'])}",
                interval(one),
                "yes" if one["holds"] else "no",
            )
            for row in rows
            for one in row.entry["steps"]
        ),
        cost=_cost(entries),
    )


def unfit_of(record: Json, cell: Json) -> tuple[Unfit, ...]:
    """Return the metrics of a cell that are unfit, each with its place on the page."""
    drawn, found = _drawn(record["self_checks"]), []
    for one in cell["unfit"]:
        at = _entry_of(record["self_checks"], cell["kind"], one)
        title = _title(record, cell["kind"], one["metric"])[0] + condition(one["under"])
        found.append(
            Unfit("" if at is None or at not in drawn else _anchor(at), title, one["reason"])
        )
    return tuple(found)


def tally(entries: Sequence[Json]) -> str:
    """Say how many metrics are fit, unfit and not checked.

    >>> tally([{"fitness": "fit"}, {"fitness": "unfit"}, {"fitness": "fit"}])
    'of 3 metrics, each under one condition, 1 is unfit here, 2 tell known maps apart'
    """
    counts = Counter(entry["fitness"] for entry in entries)
    parts = [f"{counts[one]:,} {_SAID[one][counts[one] > 1]}" for one in _ORDER if counts[one]]
    return f"of {counted(len(entries), 'metric')}, each under one condition, {', '.join(parts)}"


def unfit_lines(record: Json) -> list[str]:
    """Return a line for each unfit metric: its kind, its name with its condition, and why."""
    return [_unfit_line(one) for one in record["self_checks"] if one["fitness"] == "unfit"]


def _unfit_line(entry: Json) -> str:
    name = f"{entry['kind']}: {entry['metric']}"
    if entry["reason"].startswith(entry["metric"]):  # it names the condition, too
        return f"{entry['kind']}: {entry['reason']}"
    return f"{name}{condition(entry['under'])}: {entry['reason']}"


def _drawn(entries: Sequence[Json]) -> list[int]:
    """Return the places of the entries that are rows of the page, unfit ones first."""
    places = [at for at, entry in enumerate(entries) if not _is_bare(entry)]
    return sorted(places, key=lambda at: _ORDER.index(entries[at]["fitness"]))[:_MOST]


def _cost(entries: Sequence[Json]) -> str:
    images, seconds = (sum(one[key] for one in entries) for key in ("forwards", "seconds"))
    if not images:
        return ""
    return (
        f"These checks embedded {counted(images, 'image')}, in {seconds:.1f} s of processor time."
    )


def _is_bare(entry: Json) -> bool:
    """Say whether there is nothing to show of an entry but the reason why it was not checked."""
    return entry["fitness"] == "not_checked" and all(one["value"] is None for one in entry["maps"])


def _anchor(at: int) -> str:
    return f"self-check-{at + 1}"


def _title(record: Json, kind: str, metric: str) -> tuple[str, str, tuple[str, str]]:
    """Return title, unit and what the ends of the scale mean, as the cells declare them."""
    declared = [cell for cell in record["cells"] if metric in metrics_of(cell)]
    of_kind = [cell for cell in declared if cell["kind"] == kind] or declared
    if not of_kind:
        return begun(map_name(metric)), "", ("", "")
    found = metrics_of(of_kind[0])[metric]
    return found["title"], found["unit"], TOWARDS[found["better"]]


def _checked(record: Json, at: int, invalid: Sequence[tuple[str, str]]) -> Checked:
    entry = record["self_checks"][at]
    name, unit, directions = _title(record, entry["kind"], entry["metric"])
    title = name + condition(entry["under"])
    known = any(one["value"] is not None for one in entry["maps"])
    on = rows_of(entry["kind"], entry["n_rows"], entry["n_identities"])
    return Checked(
        entry=entry,
        anchor=_anchor(at),
        title=title,
        about=f"{entry['on']}; {on}" if entry["n_rows"] else entry["on"],
        unit=unit,
        chart=dot_chart(
            f"{title}: maps of known worth",
            [Row(map_name(one["map"]), one) for one in entry["maps"]],
            directions=directions,
            row_height=_ROW_HEIGHT,
        )
        if known
        else None,
        invalid=tuple(invalid[:_LINKS]),
        more=len(invalid[_LINKS:]),
    )


def _unchecked(record: Json) -> tuple[tuple[str, str], ...]:
    """Return what could not be checked at all, once for each reason."""
    groups: dict[str, list[str]] = {}
    for entry in record["self_checks"]:
        if _is_bare(entry):
            title = _title(record, entry["kind"], entry["metric"])[0] + condition(entry["under"])
            groups.setdefault(entry["reason"], []).append(title)
    return tuple(("; ".join(dict.fromkeys(titles)), why) for why, titles in groups.items())


def _invalid_cells(record: Json) -> dict[int, list[tuple[str, str]]]:
    """Return the cells that an unfit metric makes invalid, by the place of its entry."""
    found: dict[int, list[tuple[str, str]]] = {}
    for number, cell in enumerate(record["cells"], 1):
        if cell["verdict"]["outcome"] != "invalid" or cell["refusal"] is not None:
            continue
        places = {
            _entry_of(record["self_checks"], cell["kind"], one)
            for one in cell["unfit"]
            if any(_rests_on(limit, one) for limit in (*cell["limits"], *cell["asked"]))
        }
        name = f"{cell['check']} of {cell['explainer']} on {cell['model']}, {cell['pairs']}"
        for at in places:
            if at is not None:
                found.setdefault(at, []).append((f"cell-{number}", name))
    return found


def _rests_on(limit: Json, unfit: Json) -> bool:
    """Say whether a limit would decide by an unfit metric."""
    return (
        limit["severity"] == "critical"
        and limit["metric"] == unfit["metric"]
        and all(unfit["under"].get(axis, at) == at for axis, at in limit["under"].items())
    )


def _entry_of(entries: Sequence[Json], kind: str, unfit: Json) -> int | None:
    """Return the place of the entry that an unfit metric of a cell comes from; None if none."""
    fitting = [
        at
        for at, entry in enumerate(entries)
        if (entry["kind"], entry["metric"], entry["fitness"]) == (kind, unfit["metric"], "unfit")
        and unfit["under"].items() <= entry["under"].items()
    ]
    # One metric may be checked on several models; the reason names the model.
    same = [at for at in fitting if entries[at]["reason"] == unfit["reason"]]
    return next(iter([*same, *fitting]), None)

"""What the page and the terminal show of a record: chosen and ordered, never judged anew."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxeval.errors import StoreError
from fxeval.metrics import CATALOGUE
from fxeval.scorecard.charts import (
    CurvePanel,
    DotChart,
    HeatMap,
    Row,
    Rule,
    curve_panels,
    dot_chart,
    heat_map,
)
from fxeval.scorecard.wording import counted, interval, map_name, number, of_maps

Json = Mapping[str, Any]

OUTCOMES = ("invalid", "fail", "inconclusive", "pass", "unsupported")  # worst first
METRICS = {metric.name: metric for kind in CATALOGUE.values() for metric in kind.METRICS}

WIDEST = 6  # explainers side by side in a table

_VERSION = 1
_RECORD_KEYS = ("run", "suite", "banners", "environment", "subjects", "cells", "verdict")
_CELL_KEYS = ("id", "check", "kind", "model", "explainer", "pairs", "where", "verdict")
_TOWARDS = {"lower": ("← better", ""), "higher": ("", "better →")}
_AGAINST = ("← control better", "explainer better →")


@dataclass(frozen=True)
class Missed:
    """A critical limit that was not passed, in plain words and as a bar."""

    outcome: str
    sentence: str
    reason: str
    chart: DotChart | None


@dataclass(frozen=True)
class MetricView:
    """One metric under one fill: the explainer beside its controls, and against each of them.

    Attributes:
        first: An estimate of the metric, for its title, unit and direction.
        fill: The fill, or None where there is none.
        meaning: One sentence for the reader.
        values: Estimates of explainer and controls.
        chart: The same, drawn.
        differences: Improvements of the explainer over each control.
        difference_chart: The same, drawn; None if there are none.
    """

    first: Json
    fill: str | None
    meaning: str
    values: tuple[Json, ...]
    chart: DotChart
    differences: tuple[Json, ...]
    difference_chart: DotChart | None


@dataclass(frozen=True)
class CurveGroup:
    """One kind of curve under one fill."""

    kind: str
    fill: str | None
    curves: tuple[Json, ...]
    panels: tuple[CurvePanel, ...]


@dataclass(frozen=True)
class CellView:
    """A cell with everything its section shows."""

    cell: Json
    anchor: str
    deciding: Json | None
    missed: tuple[Missed, ...]
    states: tuple[str, ...]
    metrics: tuple[MetricView, ...]
    curves: tuple[CurveGroup, ...]
    heat: HeatMap | None


@dataclass(frozen=True)
class Matrix:
    """Checks by explainers or the reverse, for one model and one pair list.

    Attributes:
        corner: What the rows are: ``Check`` or ``Explainer``; the columns are the others.
        rows: Name and cells of each row; None = no such cell.
    """

    model: str
    pairs: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[CellView | None, ...]], ...]


def checked(record: object) -> Json:
    """Return the record if it is one this version can show.

    Raises:
        StoreError: Naming what is missing.
    """
    if not isinstance(record, Mapping):
        raise StoreError(f"record: a mapping expected, got {type(record).__name__}.")
    if record.get("record") != _VERSION:
        raise StoreError(
            f"record: format version {_VERSION} expected, got {record.get('record')!r:.80}. Render "
            "it with the fxeval that wrote it."
        )
    missing = [key for key in _RECORD_KEYS if key not in record]
    for index, cell in enumerate(record.get("cells", ())):
        missing += [f"cells[{index}].{key}" for key in _CELL_KEYS if key not in cell]
    if missing:
        raise StoreError(f"record: {', '.join(missing)} missing. Was the run cut short?")
    for item in (record, *record["cells"]):
        if item["verdict"]["outcome"] not in OUTCOMES:
            raise StoreError(
                f"record: verdict {', '.join(OUTCOMES)} expected, got "
                f"{item['verdict']['outcome']!r:.80}."
            )
    return record


def deciding(cell: Json) -> Json | None:
    """Return the critical limit whose verdict is the cell's, or None if no limit decided it."""
    outcome = cell["verdict"]["outcome"]
    critical = [limit for limit in cell.get("limits", ()) if limit["severity"] == "critical"]
    return next((limit for limit in critical if limit["verdict"]["outcome"] == outcome), None)


def deciding_text(cell: Json) -> str:
    """Say what decided a cell, the value first."""
    limit = deciding(cell)
    if limit is None:
        return "no limit: see below"
    return f"{interval(limit['estimate'], limit_line(limit))}  {limit_text(limit)}"


def limit_text(limit: Json) -> str:
    """Return a limit's text with its fill."""
    return f"{limit['text']}, fill {limit['fill']}" if limit["fill"] else str(limit["text"])


def limit_line(limit: Json) -> float:
    """Return the number that a limit's interval must clear.

    A margin relative to the control is already taken off the recorded improvement, row by row.
    """
    return float(limit["by_absolute"] if limit["form"] == "better_than" else limit["bound"])


def cell_views(record: Json) -> tuple[CellView, ...]:
    """Return the cells in suite order, each with its charts."""
    return tuple(_cell_view(cell, f"cell-{i}") for i, cell in enumerate(record["cells"], 1))


def not_passed(views: Sequence[CellView]) -> list[CellView]:
    """Return the cells that decided the run: all measured ones that did not pass, worst first."""
    neutral = ("pass", "unsupported")
    found = [view for view in views if view.cell["verdict"]["outcome"] not in neutral]
    return sorted(found, key=lambda view: OUTCOMES.index(view.cell["verdict"]["outcome"]))


def matrices(views: Sequence[CellView]) -> tuple[Matrix, ...]:
    """Arrange the cells, one table per model and pair list; many explainers become its rows."""
    groups = dict.fromkeys((view.cell["model"], view.cell["pairs"]) for view in views)
    found = []
    for model, pairs in groups:
        inside = {
            (view.cell["check"], view.cell["explainer"]): view
            for view in views
            if (view.cell["model"], view.cell["pairs"]) == (model, pairs)
        }
        checks = tuple(dict.fromkeys(check for check, _ in inside))
        explainers = tuple(dict.fromkeys(explainer for _, explainer in inside))
        if len(explainers) <= WIDEST:
            rows = tuple(
                (check, tuple(inside.get((check, explainer)) for explainer in explainers))
                for check in checks
            )
            found.append(Matrix(model, pairs, "Check", explainers, rows))
        else:
            rows = tuple(
                (explainer, tuple(inside.get((check, explainer)) for check in checks))
                for explainer in explainers
            )
            found.append(Matrix(model, pairs, "Explainer", checks, rows))
    return tuple(found)


def counts(record: Json) -> list[tuple[str, int]]:
    """Return how many cells have each outcome, worst first, without the absent ones."""
    tally = Counter(cell["verdict"]["outcome"] for cell in record["cells"])
    return [(outcome, tally[outcome]) for outcome in OUTCOMES if tally[outcome]]


def warnings(record: Json) -> list[str]:
    """Return what a reader must know before reading a verdict: the banners, and an odd run."""
    found = list(record["banners"])
    if not record["run"].get("complete", True):
        missing = counted(len(record["run"].get("missing", ())), "cell")
        found.append(f"This run is not complete: {missing} of the suite did not run.")
    if record["environment"].get("dirty"):
        found.append("The code had changes that are not in the named commit.")
    return found


def names(record: Json, role: str) -> tuple[str, ...]:
    """Return the ids of the models, explainers or pairs that the cells are about.

    A subject that could not be loaded is in no card, but it was to be tested all the same.
    """
    key = role if role == "pairs" else role[:-1]
    tested = [cell[key] for cell in record["cells"]]
    return tuple(dict.fromkeys([*tested, *record["subjects"][role]]))


def exclusions(pairs: Json) -> dict[str, int]:
    """Return how many pairs were left out for which reason; no pair is named on the page."""
    excluded = pairs["excluded"]
    if isinstance(excluded, Mapping):
        return {reason: int(count) for reason, count in excluded.items()}
    return dict(Counter(one["reason"] for one in excluded))


def metric_title(cell: Json, metric: str) -> str:
    """Return the metric's title as recorded, else its name in words."""
    titles = (row["title"] for row in cell.get("estimates", ()) if row["metric"] == metric)
    known = METRICS[metric].title if metric in METRICS else metric.replace("_", " ").capitalize()
    return next(titles, known)


def _missed(cell: Json) -> Iterator[Missed]:
    for limit in cell.get("limits", ()):
        outcome = limit["verdict"]["outcome"]
        if limit["severity"] == "critical" and outcome != "pass":
            reason = limit["verdict"]["reason"]
            yield Missed(outcome, _sentence(cell, limit), reason, _limit_chart(cell, limit))


def _sentence(cell: Json, limit: Json) -> str:
    """Say in plain words what a limit asks and what was measured."""
    title = metric_title(cell, limit["metric"])
    fill = f" with fill {limit['fill']}" if limit["fill"] else ""
    measured = interval(limit["estimate"], limit_line(limit))
    if limit["form"] != "better_than":
        asked = limit["form"].replace("_", " ")
        return f"{title}{fill} must be {asked} {limit['bound']:g}; it is {measured}."
    relative = f"{limit['by_relative']:.0%} of the control's value" if limit["by_relative"] else ""
    absolute = f"{limit['by_absolute']:g}" if limit["by_absolute"] else ""
    margin = " plus ".join(part for part in (relative, absolute) if part)
    return (
        f"{title}{fill} must be better than the control {map_name(limit['control'])}"
        f"{' by more than ' + margin if margin else ''}; the paired improvement"
        f"{' less ' + relative if relative else ''} is {measured}."
    )


def _limit_chart(cell: Json, limit: Json) -> DotChart | None:
    if limit["estimate"] is None:
        return None
    title = metric_title(cell, limit["metric"])
    rows = [Row("", limit["estimate"], judged=True)]
    if limit["form"] != "better_than":
        return dot_chart(title, rows, _bounds([limit]), directions=_asked(limit))
    line = limit_line(limit)
    control = map_name(limit["control"])
    return dot_chart(
        f"{title}: improvement over {control}",
        rows,
        [Rule(line, f"{limit['severity']} limit: more than {line:g}", "higher")],
        directions=_AGAINST,
    )


def _asked(limit: Json) -> tuple[str, str]:
    return _TOWARDS["lower" if limit["form"] == "at_most" else "higher"]


def _bounds(limits: Sequence[Json]) -> list[Rule]:
    return [
        Rule(
            float(limit["bound"]),
            f"{limit['severity']} limit: {limit['form'].replace('_', ' ')} {limit['bound']:g}",
            "lower" if limit["form"] == "at_most" else "higher",
        )
        for limit in limits
        if limit["bound"] is not None
    ]


def _cell_view(cell: Json, anchor: str) -> CellView:
    total = sum(cell.get("states", {}).values())
    heat = cell.get("mean_map")
    return CellView(
        cell=cell,
        anchor=anchor,
        deciding=deciding(cell),
        missed=tuple(_missed(cell)),
        states=tuple(
            of_maps(state, count, total)
            for state, count in cell.get("states", {}).items()
            if state != "ok" and count
        ),
        metrics=tuple(_metric_views(cell)),
        curves=tuple(_curve_groups(cell)),
        heat=heat_map(heat) if heat and heat[0] else None,
    )


def _grouped(rows: Sequence[Json], *keys: str) -> dict[tuple[Any, ...], list[Json]]:
    groups: dict[tuple[Any, ...], list[Json]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _metric_views(cell: Json) -> Iterator[MetricView]:
    differences = _grouped(cell.get("differences", ()), "metric", "fill")
    for (metric, fill), values in _grouped(cell.get("estimates", ()), "metric", "fill").items():
        first = values[0]
        against = differences.get((metric, fill), [])
        limits = [
            limit
            for limit in cell.get("limits", ())
            if limit["metric"] == metric and limit["fill"] in (None, fill)
        ]
        yield MetricView(
            first=first,
            fill=fill,
            meaning=METRICS[metric].meaning if metric in METRICS else "",
            values=tuple(values),
            chart=dot_chart(
                first["title"],
                [
                    Row(
                        cell["explainer"]
                        if value["map"] == "explainer"
                        else map_name(value["map"]),
                        value,
                        judged=value["map"] == "explainer",
                    )
                    for value in values
                ],
                _bounds(limits),
                directions=_TOWARDS[first["better"]],
            ),
            differences=tuple(against),
            difference_chart=dot_chart(
                f"{first['title']}: improvement over each control",
                [Row(map_name(row["control"]), row) for row in against],
                [Rule(0.0, "no difference")],
                directions=_AGAINST,
            )
            if against
            else None,
        )


def _curve_groups(cell: Json) -> Iterator[CurveGroup]:
    for (kind, fill), curves in _grouped(cell.get("curves", ()), "kind", "fill").items():
        yield CurveGroup(kind, fill, tuple(curves), tuple(curve_panels(curves)))


def curve_table(group: CurveGroup) -> list[list[str]]:
    """Return a curve group as table rows: fraction, then ``similarity [low, high]`` per map."""
    fractions = max((curve["fraction"] for curve in group.curves), key=len, default=())
    return [
        [number(fraction), *(_point(curve, i) for curve in group.curves)]
        for i, fraction in enumerate(fractions)
    ]


def _point(curve: Json, at: int) -> str:
    if at >= len(curve["similarity"]):
        return "none"
    ends = {"value": curve["similarity"], "low": curve["low"], "high": curve["high"]}
    return interval({key: points[at] for key, points in ends.items()})


def measured_on(cell: Json) -> str:
    """Say on how much a cell stands."""
    if not cell.get("n_pairs"):
        return "no pair measured"
    pairs = counted(cell["n_pairs"], "pair")
    return f"{pairs} of {counted(cell.get('n_identities', 0), 'identity', 'identities')}"

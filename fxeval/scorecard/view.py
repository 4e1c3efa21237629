"""Chooses and orders the parts of a record that the page and the terminal show; judges nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxeval.records.reading import read_record
from fxeval.records.writing import dumped
from fxeval.results import RowState, gravity
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
from fxeval.scorecard.conditions import (
    FEW,
    Table,
    condition_tables,
    few,
    metrics_of,
    slice_tables,
    worst_slices,
)
from fxeval.scorecard.evidence import Evidence, evidence
from fxeval.scorecard.judged_under import is_under, judged_under
from fxeval.scorecard.limit_rows import (
    TOWARDS,
    Judged,
    Missed,
    bounds,
    decides,
    judged,
    limit_lines,
    limit_text,
    missed,
    ruling,
    shown,
)
from fxeval.scorecard.looks import looked_at
from fxeval.scorecard.search import Search, search
from fxeval.scorecard.self_checks import Unfit, unfit_of
from fxeval.scorecard.transfers import suspicious
from fxeval.scorecard.wording import (
    condition,
    counted,
    interval,
    map_name,
    number,
    of_maps,
    row_names,
    rows_of,
    states_text,
)
from fxeval.scorecard.worst_first import NEUTRAL, OUTCOMES, effect, run_again

Json = Mapping[str, Any]

WIDEST = 6  # explainers side by side in a table


@dataclass(frozen=True)
class MetricView:
    """One metric under one condition: the explainer beside its controls and compared with each.

    Attributes:
        metric: The metric as declared.
        under: The condition in words; empty if there is none.
        values: Estimates of explainer and controls.
        chart: Chart of the estimates.
        differences: Improvements of the explainer over each control.
        difference_chart: Chart of the improvements; None if there are none.
        is_aside: Whether no limit is about the condition.
    """

    metric: Json
    under: str
    values: tuple[Json, ...]
    chart: DotChart
    differences: tuple[Json, ...]
    difference_chart: DotChart | None
    is_aside: bool


@dataclass(frozen=True)
class CurveGroup:
    """One kind of curve under one condition."""

    kind: str
    under: str
    curves: tuple[Json, ...]
    panels: tuple[CurvePanel, ...]


@dataclass(frozen=True)
class CellView:
    """A cell with everything its section shows.

    Attributes:
        informing: Of a cell for information, the limit that would have decided it.
        ruling: Why it has its verdict.
        unfit: Its metrics that do not tell known maps apart here.
        metrics: Metrics under few conditions, each of which is drawn.
        tables: Metrics under more.
        slices: Columns of the slices, and the tables of each.
        worst_slices: A sentence on each column.
        curves_left: Number of groups of curves that are not drawn.
    """

    cell: Json
    anchor: str
    deciding: Json | None
    informing: Json | None
    ruling: str
    unfit: tuple[Unfit, ...]
    limits: tuple[Judged, ...]
    missed: tuple[Missed, ...]
    not_gating: tuple[Judged, ...]
    states: tuple[str, ...]
    evidence: Evidence | None
    metrics: tuple[MetricView, ...]
    tables: tuple[Table, ...]
    search: Search | None
    slices: tuple[tuple[str, tuple[Table, ...]], ...]
    worst_slices: tuple[str, ...]
    curves: tuple[CurveGroup, ...]
    curves_left: int
    heat: HeatMap | None


@dataclass(frozen=True)
class Matrix:
    """Checks by explainers or the reverse, for one model and one pair list.

    Attributes:
        corner: Kind of the rows: ``Check`` or ``Explainer``; the columns are of the other kind.
        rows: Name and cells of each row; None = no such cell.
    """

    model: str
    pairs: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[CellView | None, ...]], ...]


def checked(record: object) -> Json:
    """Return a record of any version as plain data of the current version.

    Raises:
        StoreError: If it is not a record or is damaged.
    """
    return dumped(read_record(record))


def deciding(cell: Json) -> Json | None:
    """Return the critical limit whose verdict is the cell's, or None if no limit decided it.

    Of one that is judged under very many conditions, the worst result.
    """
    outcome = cell["verdict"]["outcome"]
    critical = [limit for limit in cell.get("limits", ()) if decides(limit)]
    return next(
        (limit for limit in shown(critical) if limit["verdict"]["outcome"] == outcome), None
    )


def informing(cell: Json) -> Json | None:
    """Return the limit that would have decided a cell for information; None of every other cell."""
    if cell["verdict"]["outcome"] != "information" or not cell.get("limits"):
        return None
    return min(shown(cell["limits"]), key=lambda one: OUTCOMES.index(one["verdict"]["outcome"]))


def deciding_text(cell: Json) -> str:
    """Return the value and the limit that decided a cell; else its maps' states, or the reason.

    Of a cell for information, the limit that would have decided it, and how. Of a cell that was run
    again, it begins with the number of its runs.
    """
    runs = len(cell["earlier"]) + 1
    return f"(run {runs} times) {_deciding_text(cell)}" if runs > 1 else _deciding_text(cell)


def _deciding_text(cell: Json) -> str:
    limit, worst = deciding(cell), informing(cell)
    if limit is None and worst is not None:
        found = interval(worst["estimate"], *limit_lines(worst))
        return f"({worst['verdict']['outcome']}) {found}  {limit_text(worst)}"
    if limit is None:
        broken = {state: n for state, n in cell["states"].items() if gravity(RowState(state)) > 1}
        return states_text(broken) if broken else str(cell["verdict"]["reason"])
    return f"{interval(limit['estimate'], *limit_lines(limit))}  {limit_text(limit)}"


def cell_views(record: Json) -> tuple[CellView, ...]:
    """Return the cells in suite order, each with its charts."""
    return tuple(
        _cell_view(cell, f"cell-{i}", unfit_of(record, cell))
        for i, cell in enumerate(record["cells"], 1)
    )


def not_passed(views: Sequence[CellView]) -> list[CellView]:
    """Return the cells that decided the run: all that were measured and not passed, worst first."""
    found = [view for view in views if view.cell["verdict"]["outcome"] not in NEUTRAL]
    return sorted(found, key=lambda view: OUTCOMES.index(view.cell["verdict"]["outcome"]))


def matrices(views: Sequence[CellView]) -> tuple[Matrix, ...]:
    """Arrange the cells, one table per model and pair list; if explainers are many, in rows."""
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


def warnings(record: Json) -> list[str]:
    """Return the warnings that a reader must see before a verdict.

    Banners, an incomplete run, cells that were run again.
    """
    found = list(record["banners"])
    if not record["run"].get("complete", True):
        missing = counted(len(record["run"].get("missing", ())), "cell")
        found.append(f"This run is not complete: {missing} of the suite did not run.")
    if record["environment"].get("dirty"):
        found.append("The code had changes that are not in the named commit.")
    return [*found, *filter(None, [run_again(record), suspicious(record), effect(record)])]


def names(record: Json, role: str) -> tuple[str, ...]:
    """Return the ids of the models, explainers or pairs of the cells.

    That includes subjects that could not be loaded and therefore have no card.
    """
    key = role if role == "pairs" else role[:-1]
    tested = [cell[key] for cell in record["cells"]]
    return tuple(dict.fromkeys([*tested, *record["subjects"][role]]))


def exclusions(pairs: Json) -> dict[str, int]:
    """Return the number of excluded pairs by reason; the page names no pair."""
    return dict(pairs["excluded"])


def _cell_view(cell: Json, anchor: str, unfit: tuple[Unfit, ...]) -> CellView:
    total = sum(cell.get("states", {}).values())
    heat = cell.get("mean_map")
    limits = cell.get("limits", ())
    curves, left = _curve_groups(cell)
    return CellView(
        cell=cell,
        anchor=anchor,
        deciding=deciding(cell),
        informing=informing(cell),
        ruling=ruling(cell),
        unfit=unfit,
        limits=tuple(judged(limits)),
        missed=tuple(missed(cell)),
        not_gating=tuple(judged([one for one in limits if _only_warns(one)])),
        states=tuple(
            of_maps(state, count, total)
            for state, count in cell.get("states", {}).items()
            if state != "ok" and count
        ),
        evidence=evidence({**cell, "limits": shown(limits)}),
        metrics=tuple(_metric_views(cell)),
        tables=condition_tables(cell),
        search=search(cell),
        slices=slice_tables(cell),
        worst_slices=tuple(worst_slices(cell)),
        curves=tuple(curves),
        curves_left=left,
        heat=heat_map(heat) if heat and heat[0] else None,
    )


def _only_warns(limit: Json) -> bool:
    """Say whether a limit was not passed and decides nothing."""
    return not decides(limit) and bool(limit["verdict"]["outcome"] != "pass")


def _grouped(rows: Sequence[Json], key: str) -> dict[tuple[str, str], list[Json]]:
    """Group rows by a key and their condition in words."""
    groups: dict[tuple[str, str], list[Json]] = {}
    for row in rows:
        groups.setdefault((row[key], condition(row["under"])), []).append(row)
    return groups


def _metric_views(cell: Json) -> Iterator[MetricView]:
    estimates, against_others = few(cell)
    differences, judged = _grouped(against_others, "metric"), judged_under(cell)
    for (name, under), values in _grouped(estimates, "metric").items():
        metric, against = metrics_of(cell)[name], differences.get((name, under), [])
        limits = [
            limit
            for limit in cell["limits"]
            if limit["metric"] == name and condition(limit["under"]) == under
        ]
        yield MetricView(
            metric=metric,
            under=under,
            values=tuple(values),
            chart=dot_chart(
                metric["title"],
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
                bounds(limits),
                directions=TOWARDS[metric["better"]],
            ),
            differences=tuple(against),
            difference_chart=dot_chart(
                f"{metric['title']}: improvement over each other map",
                [Row(map_name(row["control"]), row) for row in against],
                [Rule(0.0, "no difference")],
                directions=("← the other better", "explainer better →"),
            )
            if against
            else None,
            is_aside=not is_under(values[0]["under"], judged),
        )


def _curve_groups(cell: Json) -> tuple[list[CurveGroup], int]:
    """Return the first groups of each kind of curve, and how many more there are."""
    found, drawn = _grouped(cell["curves"], "kind"), Counter[str]()
    groups = []
    for (kind, under), curves in found.items():
        drawn[kind] += 1
        if drawn[kind] <= FEW:
            groups.append(CurveGroup(kind, under, tuple(curves), tuple(curve_panels(curves))))
    return groups, len(found) - len(groups)


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
    """Say how many rows and identities a cell is based on."""
    if not cell.get("n_pairs"):
        return f"no {row_names(cell['kind'])[0]} measured"
    said = rows_of(cell["kind"], cell["n_pairs"], cell.get("n_identities", 0))
    return "; ".join(filter(None, [said, looked_at(cell)]))

"""Headroom: how far a run lies above what a gate against a baseline would still accept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fxeval.records.acknowledged import Known
from fxeval.records.earlier import EarlierRun, Paired, Question
from fxeval.records.form import Under, VerdictEntry
from fxeval.records.hardware import hardware_class
from fxeval.records.judged import Difference, Figures, LimitResult
from fxeval.records.named_baseline import NamedBaseline
from fxeval.records.schema import CellResult, Row
from fxeval.records.stored_run import StoredRun
from fxeval.results import Outcome
from fxeval.statistics.acknowledged import is_within
from fxeval.statistics.holm import headroom_of
from fxeval.statistics.results import results_of


@dataclass(frozen=True)
class Headroom:
    """One limit of a run that compares with an earlier run, judged against it.

    Attributes:
        cell: Id of the cell.
        text: The limit in words.
        under: The condition.
        verdict: Of the limit.
        room: The paired improvement plus the margin, in the metric's unit, with its interval: what
            may still get lost. None if nothing was compared, or the limit has two sides.
        improvement: The paired improvement; None if nothing was compared.
        metric: Of the limit.
        suite: Name of the suite.
    """

    cell: str
    text: str
    under: Under
    verdict: VerdictEntry
    room: Figures | None
    improvement: Figures | None
    metric: str
    suite: str

    def is_better(self) -> bool:
        """Say whether the run is shown to be better than the earlier one."""
        found = self.improvement
        return found is not None and found.low is not None and found.low > 0.0


def headroom_against(run: StoredRun, earlier: EarlierRun | NamedBaseline) -> list[Headroom]:
    """Judge a run against an earlier one by the limits that compare with that, without measuring.

    Values of any other earlier run that its rows hold under the same name are left out.

    Args:
        run: The run, with its rows.
        earlier: The earlier run.

    Returns:
        One for each limit and condition. Where nothing could be compared the verdict says why.

    Raises:
        StoreError: If the rows of the run do not fit its record.
    """
    found = []
    for record in run.records.values():
        for cell in record.cells:
            if cell.refusal is not None or earlier.name not in map(_other, cell.asked):
                continue
            own = hardware_class(record.environment)
            asked = replace(Question.of(record, cell), hardware_class=own)
            rows = run.rows_of(record.suite.name, cell)
            judged = _again(cell, rows, earlier.name, earlier.paired(asked))
            found += [
                Headroom(
                    cell=cell.id,
                    text=limit.text,
                    under=limit.under,
                    verdict=limit.verdict,
                    room=headroom_of(limit),
                    improvement=_improvement(limit, judged.differences),
                    metric=limit.metric,
                    suite=record.suite.name,
                )
                for limit in judged.limits
                if _other(limit) == earlier.name
            ]
    return found


def failing(known: Sequence[Known], found: Sequence[Headroom]) -> list[Known]:
    """Return the acknowledged regressions that a run shows."""
    failed = [one for one in found if one.verdict.outcome is Outcome.FAIL]
    return [
        one
        for one in known
        if any(
            (limit.suite, limit.cell, limit.metric) == (one.suite, one.cell, one.entry.metric)
            and is_within(one.entry.under, limit.under)
            for limit in failed
        )
    ]


def _other(limit: object) -> str | None:
    """Return what a limit compares with, if that may be an earlier run."""
    return getattr(limit, "not_worse_than", None) or getattr(limit, "equivalent_to", None)


def _again(cell: CellResult, rows: Sequence[Row], name: str, paired: Paired) -> CellResult:
    """Judge a cell with the values of another earlier run beside its own."""
    plan, facts = cell.parts()
    remarks = [one for one in facts.remarks if not one.startswith(f"{name}: ")]
    bare = [
        row.model_copy(update={"measured": [one for one in row.measured if one.map != name]})
        for row in rows
    ]
    found = facts.model_copy(
        update={"remarks": [*remarks, paired.remark], "baseline": paired.baseline}
    )
    return results_of(plan, found, [paired.added(row) for row in bare])


def _improvement(limit: LimitResult, differences: Sequence[Difference]) -> Figures | None:
    """Return the improvement itself; the estimate of a limit with a relative margin holds that."""
    if not limit.within.get("relative"):
        return limit.estimate
    return next(
        (
            one
            for one in differences
            if (one.metric, one.control, one.under) == (limit.metric, _other(limit), limit.under)
        ),
        None,
    )

"""What changed in one cell: its rows judged beside those of the same cell of an earlier run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fxeval.errors import StoreError
from fxeval.records.changes import Became, Change
from fxeval.records.earlier import EarlierRun, Question
from fxeval.records.judged import Figures, LimitEntry, LimitResult
from fxeval.records.schema import CellPlan, CellResult, Record, Row
from fxeval.results import BROKEN_STATES, EXPLAINER, Outcome, RowState
from fxeval.statistics.comparisons import EARLIER
from fxeval.statistics.decisions import RANDOM_ORDERS
from fxeval.statistics.extended import looks_of_both
from fxeval.statistics.invalid_cells import became_invalid
from fxeval.statistics.results import results_of
from fxeval.statistics.shared_rows import SharedRows
from fxeval.statistics.verdict import MAX_BAD_SHARE, MIN_IDENTITIES, state_verdict

Margin: TypeAlias = Mapping[Literal["absolute", "relative"], float]

BASE = "the earlier run"
"""The name under which the values of the earlier run stand beside those of the later one."""

_NEEDED = frozenset({EXPLAINER, *(f"control.{name}" for name in RANDOM_ORDERS)})
"""The maps without which the limits cannot be judged."""


@dataclass(frozen=True)
class Margins:
    """By how much the later run may be worse.

    Attributes:
        within: By the name of a metric, ``{"absolute": a}`` in its unit or ``{"relative": r}`` of
            the earlier value; under the name "" of all others. Without any, 0.
        over: What the changes are about: as the limits of the suite say, this list, or all people
            like those of the list.

    Example:
        ``Margins({"deletion_auc": {"absolute": 0.02}, "": {"relative": 0.05}})``
    """

    within: Mapping[str, Margin] = field(default_factory=dict)
    over: Literal["suite", "list", "population"] = "suite"

    def of(self, metric: str) -> dict[Literal["absolute", "relative"], float]:
        """Return the margin of a metric."""
        return {**self.within.get(metric, self.within.get("", {}))}


@dataclass(frozen=True, eq=False)
class Found:
    """A change, and the limit that it was judged by.

    Attributes:
        change: As the cell's own intervals say; not corrected for the number of comparisons.
        limit: The judged limit; None of a cell as a whole.
        is_of_suite: Whether the suite itself compares with an earlier run there: then the limit's
            own interval decides, as in a run.
    """

    change: Change
    limit: LimitResult | None = None
    is_of_suite: bool = False


@dataclass(frozen=True)
class _Asked:
    """A limit that compares with the earlier run, and what its finding counts."""

    entry: LimitEntry
    decides: bool
    is_of_suite: bool = False
    has_no_margin: bool = False  # tells the improvement where the margin is relative


@dataclass(frozen=True, eq=False)
class CellPair:
    """The same cell in two runs.

    Attributes:
        record: The later record.
        cell: The later cell.
        rows: Its rows.
        earlier: The earlier run.
        margins: By how much the cell may be worse.
    """

    record: Record
    cell: CellResult
    rows: Sequence[Row]
    earlier: EarlierRun
    margins: Margins

    def found(self) -> tuple[list[Found], str | None]:
        """Return the changes, and the id of the cell that they are since; None if there is none."""
        try:
            asked = Question.of(self.record, self.cell)
        except StoreError as error:
            refusal = self.cell.refusal
            why = f"{error}" if refusal is None else f"not measured: {refusal.reason}"
            return [self._whole(None, "not_compared", why)], None
        match = self.earlier.matched(asked)
        before = match.cell
        if match.reason or before is None:
            why = f"the earlier run cannot answer: {match.reason}"
            found = self._whole(before, "not_compared", why)
            return [found], None if before is None else before.id
        rows = {row.row: row for row in self.earlier.rows_of(asked.suite, before)}
        ended = _unmeasured(before, rows, self.cell, self.rows)
        if ended is not None:
            became, why = ended
            if match.lists_differ:  # which may be why it is not measured any more
                became, why = "not_compared", f"its pairs are others; {why}"
            elif became == "worse" and self._has_refused_model():
                became, why = "not_compared", f"its model is not to be judged; {why}"
            skipped = {before.verdict.outcome, self.cell.verdict.outcome} == {Outcome.UNSUPPORTED}
            return [self._whole(before, became, why, decides=not skipped)], before.id
        shared = [row for row in self.rows if row.row in rows]
        if not shared:
            return [
                self._whole(before, "not_compared", "the runs have no row in common")
            ], before.id
        same = [rows[row.row] for row in shared]
        blamed = [
            self._whole(before, "worse", why) for why in _broken(before, same, self.cell, shared)
        ]
        ended = became_invalid(before, same, self.cell, shared)
        blamed += [self._whole(before, *ended)] if ended is not None else []
        return [*blamed, *self._of_metrics(asked, before, shared)], before.id

    def _has_refused_model(self) -> bool:
        """Return whether the verification objects to the model on these pairs."""
        about = self.cell.model, self.cell.pairs
        verified = self.record.verification
        return any(one.objections for one in verified if (one.model, one.pairs) == about)

    def _of_metrics(
        self, asked: Question, before: CellResult, shared: Sequence[Row]
    ) -> list[Found]:
        paired = self.earlier.paired(asked, needs_same_list=False)
        rows = [paired.added(_slim(row)) for row in shared]
        wanted = _limits_of(self.cell, self.margins)
        plan, facts = self.cell.parts()
        plan = plan.model_copy(update={"asked": [one.entry for one in wanted]})
        remarks = [
            one
            for one in self.cell.remarks
            if not one.startswith(tuple(f"{name}: " for name in EARLIER))
        ]
        looks = looks_of_both(before.looks_taken, facts.looks_taken, plan.confidence)
        facts = facts.model_copy(
            update={"remarks": [*remarks, paired.remark], "looks_taken": looks}
        )
        results = [
            (wanted[int(limit.where)], limit) for limit in results_of(plan, facts, rows).limits
        ]
        values = SharedRows(plan, facts, rows, BASE)
        values.read([limit for one, limit in results if not one.has_no_margin])
        plain = {_place(limit): limit.estimate for one, limit in results if one.has_no_margin}
        known = {metric.name for metric in before.metrics}
        found: dict[tuple[Any, ...], Found] = {}
        for one, limit in results:
            if one.has_no_margin:
                continue
            improvement = plain.get(_place(limit)) if limit.within.get("relative") else None
            became, reason = _became(limit, values, improvement or limit.estimate)
            if became == "not_compared" and limit.estimate is None:
                reason = _why_no_value(limit, known, paired.remark)
            change = Change(
                **self._about(before),
                **_of_metric(plan, limit.metric),
                **values.figures(limit),
                under=limit.under,
                text=limit.text,
                within=limit.within,
                over=limit.over,
                decides=one.decides and limit.verdict.outcome is not Outcome.UNSUPPORTED,
                improvement=improvement or limit.estimate,
                outcome=became,
                reason=reason,
                p_worse=limit.p_opposite,
            )
            key = (*_place(limit), limit.over, limit.judge, one.is_of_suite and limit.where)
            if key not in found or (change.decides and not found[key].change.decides):
                found[key] = Found(change, limit, one.is_of_suite)
        return [*found.values()]

    def _whole(
        self, before: CellResult | None, became: Became, reason: str, *, decides: bool = True
    ) -> Found:
        """Return a change of the cell as a whole."""
        nothing: dict[str, Any] = {"metric": "", "title": "", "unit": "", "better": "higher"}
        change = Change(
            **self._about(before), **nothing, under={}, text="", within={}, over="population",
            decides=decides, before=None, after=None, improvement=None, outcome=became,
            reason=reason, n_rows=0,
        )  # fmt: skip
        return Found(change)

    def _about(self, before: CellResult | None) -> dict[str, Any]:
        cell = self.cell
        return {
            "cell": cell.id,
            **{key: getattr(cell, key) for key in ("check", "kind", "model", "explainer", "pairs")},
            "rows_before": 0 if before is None else before.n_pairs,
            "rows_after": cell.n_pairs,
            "verdict_before": None if before is None else before.verdict.outcome,
            "verdict_after": cell.verdict.outcome,
        }


def _slim(row: Row) -> Row:
    """Return a row with what its limits need: no curve, and no value of an earlier run."""
    measured = [one.model_copy(update={"curves": {}}) for one in row.measured if one.map in _NEEDED]
    return row.model_copy(update={"measured": measured, "thumbnail": None})


def _limits_of(cell: CellResult, margins: Margins) -> list[_Asked]:
    """Return what is asked of a cell; the place of each stands where its line of the suite stood.

    The suite's own comparisons with an earlier run, then its other metrics, which must not be worse
    than the margin.
    """
    informing = {one.name for one in cell.metrics if one.information_only}
    own, others = [], []
    for limit in cell.asked:
        decides = limit.severity == "critical" and limit.metric not in informing
        other = limit.not_worse_than or limit.equivalent_to
        if other in EARLIER:
            form = "equivalent_to" if limit.equivalent_to else "not_worse_than"
            entry = limit.model_copy(update={form: BASE})
            own.append(_Asked(entry, decides, is_of_suite=True))
        else:
            entry = LimitEntry(
                metric=limit.metric, not_worse_than=BASE, within=margins.of(limit.metric),
                under=limit.under, severity=limit.severity, judge=limit.judge, slice=limit.slice,
                over=limit.over if margins.over == "suite" else margins.over,
            )  # fmt: skip
            others.append(_Asked(entry, decides))
    open_ = [one for one in others if not any(_covers(of_suite, one) for of_suite in own)]
    asked = [*own, *open_]
    for one in [one for one in asked if one.entry.within.get("relative")]:
        judge = "mean" if one.entry.judge == "mean" else "each"
        entry = one.entry.model_copy(update={"within": {}, "judge": judge})
        asked.append(_Asked(entry, decides=False, has_no_margin=True))
    return [
        _Asked(
            one.entry.model_copy(
                update={"where": f"{place}", "severity": "critical" if one.decides else "info"}
            ),
            one.decides,
            one.is_of_suite,
            one.has_no_margin,
        )
        for place, one in enumerate(asked)
    ]


def _covers(own: _Asked, other: _Asked) -> bool:
    """Return whether the suite itself compares everything that another limit would."""
    return (
        own.decides
        and (own.entry.metric, own.entry.slice) == (other.entry.metric, other.entry.slice)
        and all(other.entry.under.get(axis) == at for axis, at in own.entry.under.items())
    )


def _place(limit: LimitResult) -> tuple[Any, ...]:
    return limit.metric, tuple(limit.under.items()), limit.slice, limit.judge == "mean"


def _of_metric(plan: CellPlan, name: str) -> dict[str, Any]:
    metric = next(one for one in plan.metrics if one.name == name)
    return {"metric": name, "title": metric.title, "unit": metric.unit, "better": metric.better}


def _became(
    limit: LimitResult, values: SharedRows, improvement: Figures | None
) -> tuple[Became, str]:
    """Return what became of a metric by its own interval, and why."""
    n_rows, n_people = values.n_rows(limit), values.n_identities(limit)
    outcome, reason = limit.verdict.outcome, limit.verdict.reason
    if values.is_equal(limit):
        said = f"{limit.metric}: all {n_rows} rows that both runs have are equal"
        if limit.over == "list" or n_people >= MIN_IDENTITIES:
            return "same", said
        return "undecided", f"{said}, but of {n_people} identities (at least {MIN_IDENTITIES})"
    if limit.estimate is None or outcome in (Outcome.INVALID, Outcome.UNSUPPORTED):
        return "not_compared", reason
    if outcome is Outcome.FAIL:
        return "worse", reason
    if values.n_lost(limit) > MAX_BAD_SHARE * (n_rows + values.n_lost(limit)):
        lost = f"{values.n_lost(limit)} rows have a value in the earlier run alone"
        return "undecided", f"{reason}; {lost}"
    if outcome is not Outcome.PASS:
        return "undecided", reason
    low = None if improvement is None else improvement.low
    return ("better" if low is not None and low > 0.0 else "not_worse"), reason


def _why_no_value(limit: LimitResult, known: set[str], remark: str) -> str:
    if limit.metric not in known:
        return f"{limit.metric}: the earlier run did not measure it"
    _, _, said = remark.partition("; no values of ")
    about, _, why = said.partition(": ")
    reason = f": {why}" if limit.metric in about.split(", ") else ""
    return f"{limit.metric}: no row has a value in both runs{reason}"


def _unmeasured(
    before: CellResult, rows_before: Mapping[str, Row], after: CellResult, rows: Sequence[Row]
) -> tuple[Became, str] | None:
    """Return what became of a cell that one of the runs could not measure; None if both did."""
    reasons = [
        cell.refusal.reason if cell.refusal is not None else "" if found else "it has no rows"
        for cell, found in ((before, rows_before), (after, rows))
    ]
    earlier, later = reasons
    if earlier and later:
        return "not_compared", f"neither run measured it: {later}"
    if earlier:
        return "not_compared", f"the earlier run has no values: {earlier}"
    if later:
        return "worse", f"it was measured before and is not any more: {later}"
    return None


def _broken(
    before: CellResult, rows_before: Sequence[Row], after: CellResult, rows: Sequence[Row]
) -> list[str]:
    """Return for which reasons the maps of a cell got worse, whatever its metrics say."""
    found = []
    if _repeats(before) is not False and _repeats(after) is False:
        why = after.repeatability.reason if after.repeatability is not None else ""
        found.append(f"explainer {after.explainer} does not repeat its maps any more: {why}")
    then, now = (Counter(row.state for row in some) for some in (rows_before, rows))
    n, n_then, n_now = len(rows), _n_broken(then), _n_broken(now)
    allowed = [one.constant_allowed for one in after.metrics if one.constant_allowed is not None]
    share = min(allowed, default=None)
    verdicts = [state_verdict(counts, n, share) for counts in (then, now)]
    is_new = verdicts[0] is None and verdicts[1] is not None
    if n_now - n_then > MAX_BAD_SHARE * n:
        said = ", ".join(f"{state.value} {now[state]}" for state in BROKEN_STATES if now[state])
        found.append(
            f"{n_now} of {n} rows of explainer {after.explainer} have no usable map ({said}); "
            f"{n_then} had none before"
        )
    elif is_new and verdicts[1] is not None and verdicts[1].outcome is Outcome.FAIL:
        found.append(f"explainer {after.explainer}: {verdicts[1].reason}; not so before")
    return found


def _repeats(cell: CellResult) -> bool | None:
    return None if cell.repeatability is None else cell.repeatability.repeats


def _n_broken(states: Mapping[RowState, int]) -> int:
    return sum(states.get(state, 0) for state in BROKEN_STATES)

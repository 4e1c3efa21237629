"""What becomes of limits on metrics that do not tell maps of known worth apart.

They decide nothing. A critical limit on such a metric makes its cell invalid, since it cannot
answer what the suite asks for; others are shown with a note. A limit is concerned under the
conditions that it does not pin otherwise.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fxeval.records.form import VerdictEntry
from fxeval.records.judged import LimitResult
from fxeval.records.schema import CellPlan
from fxeval.records.self_checks import Unfit
from fxeval.results import Condition, Outcome


def meets(pinned: Condition, under: Condition) -> bool:
    """Say whether what is pinned leaves room for a condition.

    >>> meets({"fill": "blur"}, {"fill": "blur", "fraction": 0.05}), meets({}, {"fill": "blur"})
    (True, True)
    >>> meets({"fill": "blur"}, {"fill": "white"})
    False
    """
    return all(pinned[axis] == value for axis, value in under.items() if axis in pinned)


def with_unfit(
    limits: Sequence[LimitResult], plan: CellPlan, unfit: Sequence[Unfit]
) -> list[LimitResult]:
    """Return limits of which the critical ones on unfit metrics are invalid, with the reason.

    Args:
        limits: As they were judged.
        plan: Says what the limits pin, and which metrics decide at all.
        unfit: Of the cell.
    """
    if not unfit:
        return [*limits]
    deciding = {one.name for one in plan.metrics if not one.information_only}
    found = []
    for limit, reason in _reasons(limits, plan, unfit):
        if reason and limit.severity == "critical" and limit.metric in deciding:
            verdict = VerdictEntry(outcome=Outcome.INVALID, reason=f"unfit here: {reason}")
            nothing = {"settles": "", "p_value": None, "p_opposite": None}
            limit = limit.model_copy(update={"verdict": verdict, **nothing})
        found.append(limit)
    return found


def fitness_notes(
    limits: Sequence[LimitResult], plan: CellPlan, unfit: Sequence[Unfit]
) -> list[str]:
    """Return a note for each unfit metric that limits without a say are about."""
    shown = [
        f"{limit.metric} is unfit here, and what is said of it is for information: {reason}"
        for limit, reason in _reasons(limits, plan, unfit)
        if reason and limit.severity != "critical"
    ]
    return [*dict.fromkeys(shown)]


def _reasons(
    limits: Sequence[LimitResult], plan: CellPlan, unfit: Sequence[Unfit]
) -> Iterator[tuple[LimitResult, str]]:
    """Yield each limit with the first reason why its metric is unfit; "" if it is fit."""
    for limit in limits:
        pinned = [*_pinned(limit, plan)]
        reasons = [
            one.reason
            for one in unfit
            if one.metric == limit.metric and any(meets(some, one.under) for some in pinned)
        ]
        yield limit, next(iter(reasons), "")


def _pinned(limit: LimitResult, plan: CellPlan) -> Iterable[Mapping[str, str | float]]:
    """Return the conditions that decided a limit, as far as they are pinned.

    Of one that is judged at each condition it is that condition. The worst or the mean of several
    rests on all that the suite's limit leaves open.
    """
    if limit.judge == "each":
        return [limit.under]
    return [
        one.under
        for one in plan.asked
        if (one.metric, one.where, one.judge) == (limit.metric, limit.where, limit.judge)
    ]

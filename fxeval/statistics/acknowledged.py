"""What acknowledged regressions change in the verdicts of a cell: a pure function of its facts."""

from collections.abc import Sequence

from fxeval.records.form import Under, VerdictEntry
from fxeval.records.judged import Acknowledgement, LimitEntry, LimitResult
from fxeval.records.schema import CellFacts
from fxeval.results import Outcome, Verdict
from fxeval.statistics.limit import in_words

BASELINE = "baseline"
"""The only name that a regression can be acknowledged against: the base is the change itself."""


def compares_with_baseline(limit: LimitEntry) -> bool:
    """Say whether a limit compares with the baseline."""
    return BASELINE in (limit.not_worse_than, limit.equivalent_to)


def is_about(one: Acknowledgement, limit: LimitEntry) -> bool:
    """Say whether an acknowledgement is about a limit under its condition."""
    return (
        compares_with_baseline(limit)
        and one.metric == limit.metric
        and is_within(one.under, limit.under)
    )


def is_within(asked: Under, under: Under) -> bool:
    """Say whether a condition is the one asked for, which may leave out axes.

    >>> is_within({"fill": "blur"}, {"fill": "blur", "fraction": 0.01})
    True
    """
    return all(axis in under and str(under[axis]) == str(value) for axis, value in asked.items())


def with_acknowledged(limits: Sequence[LimitResult], facts: CellFacts) -> list[LimitResult]:
    """Return limits of which failed ones say that they are acknowledged, or were.

    The outcome stays a fail: an acknowledgement changes what follows, not what was found.
    """
    found = []
    for limit in limits:
        if limit.verdict.outcome is Outcome.FAIL:
            active = next((one for one in facts.acknowledged if is_about(one, limit)), None)
            expired = next((one for one in facts.expired if is_about(one, limit)), None)
            if active is not None:
                limit = _saying(limit, f"acknowledged until {active.until}{_who(active)}")
                limit = limit.model_copy(update={"acknowledged": active})
            elif expired is not None:
                said = f"its acknowledgement expired on {expired.until} ({expired.where})"
                limit = _saying(limit, said)
        found.append(limit)
    return found


def _who(one: Acknowledgement) -> str:
    return f"{f' by {one.by}' if one.by else ''}: {one.reason}"


def _saying(limit: LimitResult, said: str) -> LimitResult:
    reason = f"{limit.verdict.reason}; {said}"
    verdict = VerdictEntry(outcome=limit.verdict.outcome, reason=reason)
    return limit.model_copy(update={"verdict": verdict})


def passing_again(limits: Sequence[LimitResult], facts: CellFacts) -> list[Verdict]:
    """Return an invalid verdict for each acknowledged regression that is none any more.

    One entry can be about several conditions; it is done with when all of them pass.
    """
    found = []
    for one in facts.acknowledged:
        own = [limit for limit in limits if is_about(one, limit)]
        if own and all(limit.verdict.outcome is Outcome.PASS for limit in own):
            about = f"{one.metric}{in_words(one.under)}"
            said = f"acknowledged regression passes again: {about}: remove it from {one.where}"
            found.append(Verdict(Outcome.INVALID, said))
    return found


def acknowledged_notes(limits: Sequence[LimitResult], facts: CellFacts) -> list[str]:
    """Return remarks on acknowledgements without effect: expired ones, and those about nothing."""
    expired = [
        f"the acknowledgement of {one.metric}{in_words(one.under)} expired on {one.until}: "
        f"remove it from {one.where}"
        for one in facts.expired
    ]
    return expired + [
        f"{one.where}: no limit on {one.metric}{in_words(one.under)} compares with the baseline"
        for one in facts.acknowledged
        if not any(is_about(one, limit) for limit in limits)
    ]

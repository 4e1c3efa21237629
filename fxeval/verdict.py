"""From an estimate to a verdict and the sentence that justifies it.

Intervals decide, never the value alone, and no evidence is never a pass.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from fxeval.cells import Estimate, Limit, Outcome, Verdict
from fxeval.contracts import BROKEN_STATES, RowState

MIN_IDENTITIES = 30
"""Identities from which a limit can be passed (certification.md 4.2)."""

MIN_IDENTITIES_TO_FAIL = 10
"""Identities from which an interval wholly on the wrong side is a fail.

A fail needs no representative list, only an interval that can be believed, and ten identities are
the fewest for which its coverage was measured (94 %; certification.md 4.2)."""

MAX_BAD_SHARE = 0.01
"""Share of rows that may be degenerate, and share that may be broken (architecture 8)."""

Severity = Literal["critical", "warning", "info"]
_SEVEREST_FIRST = (Outcome.INVALID, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


def judge(limit: Limit, estimate: Estimate) -> Verdict:
    """Judge one limit by the interval of its estimate.

    * ``at_most`` passes if high <= bound and fails if low > bound; ``at_least`` mirrored.
    * ``better_than`` passes if low > ``by_absolute`` and fails if high < ``by_absolute``. An
      interval without width never passes: differences that do not vary are a sign of a defect (the
      same map twice), and they fail unless they lie above the margin.
    * Anything else is inconclusive, and so is a pass with fewer than ``MIN_IDENTITIES`` or a fail
      with fewer than ``MIN_IDENTITIES_TO_FAIL``.
    * A limit or an estimate that is no number is invalid, and so is an estimate without rows; one
      without an interval is inconclusive.

    Args:
        limit: What must hold.
        estimate: Of the metric; for ``better_than``, of the paired improvement (positive = the
            explainer is better) from which ``by_relative`` of the control is already subtracted.
    """
    margin = _margin(limit)
    subject = _subject(limit)
    if not math.isfinite(margin):
        return Verdict(
            Outcome.INVALID,
            f"{subject}: the limit is not a finite number or its margin is negative",
        )
    unusable = _unusable(estimate)
    if unusable is not None:
        return Verdict(unusable.outcome, f"{subject}: {unusable.reason}")
    if limit.form == "better_than":
        outcome, remark = _compared(estimate, margin)
    elif limit.form == "at_most":
        outcome, remark = _bounded(estimate.low, estimate.high, margin)
    else:
        outcome, remark = _bounded(-estimate.high, -estimate.low, -margin)
    needed = {Outcome.PASS: MIN_IDENTITIES, Outcome.FAIL: MIN_IDENTITIES_TO_FAIL}
    if estimate.n_identities < needed.get(outcome, MIN_IDENTITIES):
        outcome, remark = Outcome.INCONCLUSIVE, f": {_too_few(estimate)}"
    wanted = {"at_most": "be at most", "at_least": "be at least", "better_than": "lie above"}
    is_of = " " if limit.form == "better_than" else ": "
    value, low, high = (_number(x, margin) for x in (estimate.value, estimate.low, estimate.high))
    return Verdict(
        outcome,
        f"{subject}{is_of}{value} [{low}, {high}], must {wanted[limit.form]} {margin:g}{remark}",
    )


def state_verdict(states: Mapping[RowState, int], n: int) -> Verdict | None:
    """Fail an explainer that gave too many maps without an order, or none at all.

    Args:
        states: How many of the rows are in each state.
        n: Number of rows.

    Returns:
        A fail if more than 1 % of the rows are degenerate, or more than 1 % broken; otherwise None.
    """
    constant = states.get(RowState.DEGENERATE_MAP, 0)
    broken = {state: states[state] for state in sorted(BROKEN_STATES) if states.get(state, 0)}
    reasons = []
    if constant > MAX_BAD_SHARE * n:
        reasons.append(
            f"{constant} of {n} saliency maps are degenerate (constant), at most "
            f"{MAX_BAD_SHARE:.0%} may be"
        )
    if sum(broken.values()) > MAX_BAD_SHARE * n:
        listed = ", ".join(f"{state.value} {rows}" for state, rows in broken.items())
        reasons.append(
            f"{sum(broken.values())} of {n} rows have no usable saliency map ({listed}), at most "
            f"{MAX_BAD_SHARE:.0%} may"
        )
    return Verdict(Outcome.FAIL, "; ".join(reasons)) if reasons else None


def combine(verdicts: Iterable[tuple[Verdict, Severity]]) -> Verdict:
    """Make a cell's verdict: the severest among its critical ones, with all reasons for that one.

    invalid > fail > inconclusive > pass. Without a critical verdict nothing was asked for, so
    nothing can be passed: inconclusive, and the reason says so.
    """
    critical = [verdict for verdict, severity in verdicts if severity == "critical"]
    for outcome in _SEVEREST_FIRST:
        reasons = [verdict.reason for verdict in critical if verdict.outcome is outcome]
        if reasons:
            return Verdict(outcome, "; ".join(reasons))
    return Verdict(Outcome.INCONCLUSIVE, "no critical limit: information only")


def _bounded(low: float, high: float, bound: float) -> tuple[Outcome, str]:
    if high <= bound:
        return Outcome.PASS, ""
    if low > bound:
        return Outcome.FAIL, ""
    return Outcome.INCONCLUSIVE, ": the interval contains the limit"


def _compared(estimate: Estimate, margin: float) -> tuple[Outcome, str]:
    if estimate.high - estimate.low <= 1e-12 * max(1.0, abs(estimate.value)):
        remark = ": the interval has no width, which never passes"
        return (Outcome.FAIL if estimate.value <= margin else Outcome.INCONCLUSIVE), remark
    if estimate.low > margin:
        return Outcome.PASS, ""
    if estimate.high < margin:
        return Outcome.FAIL, ""
    return Outcome.INCONCLUSIVE, ": the interval contains the limit"


def _unusable(estimate: Estimate) -> Verdict | None:
    """Say why an estimate cannot decide anything, or None if it can."""
    if estimate.n_pairs < 1:
        return Verdict(Outcome.INVALID, "no row has a value")
    if not math.isfinite(estimate.value):
        return Verdict(Outcome.INVALID, f"the estimate {estimate.value} is not a finite number")
    if math.isnan(estimate.low) and math.isnan(estimate.high):
        return Verdict(
            Outcome.INCONCLUSIVE,
            f"{estimate.value:.3g} without an interval: {estimate.n_identities} identities, at "
            f"least {MIN_IDENTITIES} needed",
        )
    if not -math.inf < estimate.low <= estimate.value <= estimate.high < math.inf:
        return Verdict(
            Outcome.INVALID,
            f"[{estimate.low:g}, {estimate.high:g}] is no finite interval around "
            f"{estimate.value:g}",
        )
    return None


def _too_few(estimate: Estimate) -> str:
    return f"too few identities ({estimate.n_identities} of at least {MIN_IDENTITIES})"


def _margin(limit: Limit) -> float:
    """Return the number that the interval must clear, NaN if there is none.

    A negative margin would let an explainer pass that is worse than the control.
    """
    if limit.form != "better_than":
        return math.nan if limit.bound is None else limit.bound
    helps = not (limit.by_absolute >= 0.0 and limit.by_relative >= 0.0)  # NaN included
    return math.nan if helps else limit.by_absolute


def _subject(limit: Limit) -> str:
    fill = f" ({limit.fill})" if limit.fill else ""
    if limit.form != "better_than":
        return f"{limit.metric}{fill}"
    beyond = f" beyond {limit.by_relative:g} of the control" if limit.by_relative else ""
    return f"{limit.metric}{fill}: improvement over control.{limit.control}{beyond}"


def _number(value: float, limit: float) -> str:
    """Write three significant digits, or as many more as tell the value from the limit."""
    for digits in (3, 4, 5, 6, 9, 17):
        text = f"{value:.{digits}g}"
        if value == limit or float(text) != limit:
            break
    return text

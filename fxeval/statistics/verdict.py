"""From an estimate to a verdict and the sentence that justifies it.

The interval decides, never the value alone, and missing evidence is never a pass.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from fxeval.records.form import VerdictEntry
from fxeval.records.judged import LimitResult
from fxeval.records.schema import CellResult
from fxeval.results import (
    BROKEN_STATES,
    Condition,
    Estimate,
    Outcome,
    RowState,
    Severity,
    Verdict,
)
from fxeval.statistics.limit import UNDECIDED, Limit

EVERYWHERE: Condition = MappingProxyType({})

MIN_IDENTITIES = 30
"""Fewest identities with which a limit can be passed: fewer do not represent a population."""

MIN_IDENTITIES_TO_FAIL = 10
"""Fewest identities with which an interval wholly on the wrong side is a fail.

A fail needs no representative list, only an interval that can be trusted. Ten identities are the
fewest for which its coverage was simulated (94 % for a nominal 95 %)."""

MIN_SEEDS = 3
"""Fewest differently seeded maps with which an explainer that depends on its seed can pass."""

MAX_BAD_SHARE = 0.01
"""Largest share of rows that may be degenerate, and largest share that may be broken."""

_WORDS = {
    Outcome.INVALID: "could not be measured",
    Outcome.FAIL: "failed",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.PASS: "passed",
    Outcome.INFORMATION: "for information",
    Outcome.UNSUPPORTED: "unsupported",
}
_WORST_FIRST = tuple(_WORDS)
_SEVEREST_FIRST = (Outcome.INVALID, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


def judge(
    limit: Limit, estimate: Estimate, under: Condition = EVERYWHERE, *, is_equal: bool = False
) -> Verdict:
    """Judge one limit over a population by the interval of its estimate.

    * A pass with fewer than ``MIN_IDENTITIES`` is inconclusive, and so is a fail with fewer than
      ``MIN_IDENTITIES_TO_FAIL``.
    * A limit or an estimate that is not a number is invalid, and so is an estimate without rows;
      an estimate without an interval is inconclusive. One end may be infinite.

    Args:
        limit: The limit.
        estimate: Estimate of the limit's own rows (``limit.rows``).
        under: The condition of those rows, for the reason.
        is_equal: Whether every row equals the one that it is compared with.
    """
    subject = limit.subject(under)
    unusable = _unusable(limit, estimate)
    if unusable is not None:
        return Verdict(unusable.outcome, f"{subject.rstrip(': ')}: {unusable.reason}")
    found = limit.of_equal_rows(estimate) if is_equal else None
    if found is None and math.isnan(estimate.low) and math.isnan(estimate.high):
        why = f"{estimate.value:.3g} without an interval: {_without_interval(estimate)}"
        return Verdict(Outcome.INCONCLUSIVE, f"{subject.rstrip(': ')}: {why}")
    outcome, remark = found or limit.decide(estimate)
    needed = {Outcome.PASS: MIN_IDENTITIES, Outcome.FAIL: MIN_IDENTITIES_TO_FAIL}
    if estimate.n_identities < needed.get(outcome, MIN_IDENTITIES):
        outcome, remark = Outcome.INCONCLUSIVE, f": {_too_few(estimate)}"
    return Verdict(outcome, f"{subject}{_figures(limit, estimate)}, {limit.demand()}{remark}")


def judge_list(limit: Limit, estimate: Estimate, under: Condition, n_seeds: int) -> Verdict:
    """Judge one limit over the list itself: whoever is not on it has no part in the question.

    Args:
        limit: The limit.
        estimate: The value of the list. Its interval is that of the seeds; without width where the
            maps do not depend on a seed, NaN where one seed says nothing of their spread.
        under: The condition, for the reason.
        n_seeds: Number of differently seeded maps; 0 = the maps do not depend on a seed.
    """
    subject = limit.subject(under)
    unusable = _unusable(limit, estimate)
    if unusable is not None:
        return Verdict(unusable.outcome, f"{subject.rstrip(': ')}: {unusable.reason}")
    if math.isnan(estimate.low):
        return Verdict(
            Outcome.INCONCLUSIVE,
            f"{subject}{estimate.value:.3g} on this list with one seed, and another seed may give "
            f"other maps: give 'seeds: {MIN_SEEDS}'",
        )
    outcome, remark = limit.decide(estimate)
    if estimate.low == estimate.high and not limit.holds(estimate.low, estimate.high):
        outcome = Outcome.FAIL  # a single value that is not on the good side, even on the line
        remark = remark if remark != UNDECIDED[1] else ""
    shown = _figures(limit, estimate) if n_seeds else _number(estimate.value, limit.region())
    of = f" over {n_seeds} seeds" if n_seeds else ""
    return Verdict(outcome, f"{subject}{shown} on this list{of}, {limit.demand()}{remark}")


def state_verdict(
    states: Mapping[RowState, int], n: int, constant_allowed: float | None = None
) -> Verdict | None:
    """Judge an explainer that gave too many maps without an order, or none at all.

    Args:
        states: Number of rows in each state.
        n: Number of rows.
        constant_allowed: Largest share of degenerate rows; more of them are no fail, but nothing
            can be passed. None = 1 %, and more are a fail.

    Returns:
        A fail if more than 1 % of the rows are degenerate, or more than 1 % broken; inconclusive if
        only more are degenerate than the metrics allow; otherwise None.
    """
    constant = states.get(RowState.DEGENERATE_MAP, 0)
    broken = {state: states[state] for state in sorted(BROKEN_STATES) if states.get(state, 0)}
    reasons, outcome = [], Outcome.FAIL
    allowed = MAX_BAD_SHARE if constant_allowed is None else constant_allowed
    if constant > allowed * n:
        reasons.append(
            f"{constant} of {n} saliency maps are degenerate (constant); at most {allowed:.0%} are "
            "allowed"
        )
        outcome = Outcome.FAIL if constant_allowed is None else Outcome.INCONCLUSIVE
    if sum(broken.values()) > MAX_BAD_SHARE * n:
        listed = ", ".join(f"{state.value} {rows}" for state, rows in broken.items())
        reasons.append(
            f"{sum(broken.values())} of {n} rows have no usable saliency map ({listed}); at "
            f"most {MAX_BAD_SHARE:.0%} are allowed"
        )
        outcome = Outcome.FAIL
    return Verdict(outcome, "; ".join(reasons)) if reasons else None


def with_reason(limits: Sequence[LimitResult], reason: str) -> list[LimitResult]:
    """Return limits of which those without a value say why, if there is a reason.

    Args:
        limits: The limits, judged.
        reason: Why the model makes no decisions; "" = it does.
    """
    found = []
    for limit in limits:
        if reason and limit.estimate is None:
            verdict = {"reason": f"{limit.verdict.reason}: {reason}"}
            limit = limit.model_copy(update={"verdict": limit.verdict.model_copy(update=verdict)})
        found.append(limit)
    return found


def with_inapplicable(
    limits: Sequence[LimitResult], reasons: Mapping[str, str]
) -> list[LimitResult]:
    """Return limits of which those on metrics that do not apply say so, and decide nothing.

    Args:
        limits: The limits, judged.
        reasons: Why metrics can have no value of such a model, by their names.
    """
    return [
        limit.model_copy(
            update={
                "verdict": VerdictEntry(
                    outcome=Outcome.UNSUPPORTED, reason=f"{limit.metric}: {reasons[limit.metric]}"
                )
            }
        )
        if limit.metric in reasons and limit.estimate is None
        else limit
        for limit in limits
    ]


def with_absences(limits: Sequence[LimitResult], remarks: Sequence[str]) -> list[LimitResult]:
    """Return limits of which those on something absent say why they have no value.

    What is compared with an absent explainer is inconclusive; under an absent condition there is
    nothing that could decide.

    Args:
        limits: The limits, judged.
        remarks: Of the cell; ``explainer:rise: no values: ...`` says why it has none, and
            ``evaluator vgg: no values: ...`` why there are none under that condition.
    """
    found = []
    for limit in limits:
        other = limit.better_than or limit.not_worse_than or limit.equivalent_to or ""
        said = [one for one in remarks if one.startswith(f"{other}: ") and "no values" in one]
        if limit.estimate is None and other and said:
            verdict = VerdictEntry(outcome=Outcome.INCONCLUSIVE, reason=said[0])
            limit = limit.model_copy(update={"verdict": verdict})
        here = [f"{axis} {value}: no values" for axis, value in limit.under.items()]
        said = [one for one in remarks if one.startswith(tuple(here)) and _is_of(one, limit.metric)]
        if limit.estimate is None and said:
            verdict = limit.verdict.model_copy(update={"reason": f"{limit.metric}: {said[0]}"})
            limit = limit.model_copy(update={"verdict": verdict})
        found.append(limit)
    return found


def _is_of(remark: str, metric: str) -> bool:
    """Say whether a remark on absent values is about a metric, or about all."""
    about = remark.partition(": no values")[2].partition(":")[0]
    return not about.startswith(" of ") or metric in about


def combine(verdicts: Iterable[tuple[Verdict, Severity]]) -> Verdict:
    """Return a cell's verdict: the severest of its critical ones, with each of its reasons once.

    invalid > fail > inconclusive > pass. Without a critical verdict there is nothing to pass: a
    cell that was asked for information alone decides nothing, any other is inconclusive, and the
    reason says so. Limits that do not apply decide nothing.
    """
    verdicts = list(verdicts)
    critical = [verdict for verdict, severity in verdicts if severity == "critical"]
    for outcome in _SEVEREST_FIRST:
        reasons = [verdict.reason for verdict in critical if verdict.outcome is outcome]
        if reasons:
            return Verdict(outcome, "; ".join(dict.fromkeys(reasons)))
    if critical:
        why = "; ".join(dict.fromkeys(verdict.reason for verdict in critical))
        return Verdict(Outcome.INCONCLUSIVE, f"no critical limit applies: {why}")
    if verdicts and all(severity == "info" for _, severity in verdicts):
        return Verdict(Outcome.INFORMATION, "no limit decides: information only")
    return Verdict(Outcome.INCONCLUSIVE, "no critical limit")


def overall(cells: Sequence[CellResult], missing: Sequence[str]) -> Verdict:
    """Return the verdict of a suite, the worst of its cells; it never passes without evidence.

    Cells that were asked for information alone take no part, but a suite of nothing else is
    inconclusive.
    """
    counts = Counter(cell.verdict.outcome for cell in cells)
    worst = next((one for one in _WORST_FIRST if counts[one]), Outcome.INCONCLUSIVE)
    measured = {cell.check for cell in cells if cell.verdict.outcome is not Outcome.UNSUPPORTED}
    unmeasured = list(dict.fromkeys(cell.check for cell in cells if cell.check not in measured))
    if worst is Outcome.INFORMATION or (
        unmeasured and worst in (Outcome.PASS, Outcome.UNSUPPORTED)
    ):
        worst = Outcome.INCONCLUSIVE
    again = sum(cell.verdict.outcome is Outcome.PASS and bool(cell.earlier) for cell in cells)
    words = {**_WORDS, Outcome.PASS: f"passed ({again} when run again)"} if again else _WORDS
    parts = [f"{counts[one]} {words[one]}" for one in _WORST_FIRST if counts[one]]
    if missing:
        parts.append(f"{len(missing)} not run")
        worst = Outcome.INCONCLUSIVE if worst is Outcome.PASS else worst
    reason = f"of {len(cells) + len(missing)} cells {', '.join(parts) or 'none was run'}"
    if unmeasured:
        reason += f"; nothing was measured for {', '.join(unmeasured)}"
    if counts[Outcome.INFORMATION] == len(cells):
        reason += "; no limit decides" if cells else ""
    return Verdict(worst, reason)


def _unusable(limit: Limit, estimate: Estimate) -> Verdict | None:
    """Return why an estimate cannot decide a limit; None if it can."""
    if not limit.is_number():
        return Verdict(
            Outcome.INVALID, "the limit is not a finite number or its margin is negative"
        )
    if estimate.n_pairs < 1:
        return limit.of_nothing()
    if not math.isfinite(estimate.value):
        why = f"the estimate {estimate.value} is not a finite number ({estimate.method})"
        return Verdict(Outcome.INVALID, why)
    if math.isnan(estimate.low) and math.isnan(estimate.high):
        return None
    if not (estimate.low <= estimate.value <= estimate.high):
        return Verdict(
            Outcome.INVALID,
            f"[{estimate.low:g}, {estimate.high:g}] is not an interval around {estimate.value:g}",
        )
    return None


def _without_interval(estimate: Estimate) -> str:
    if estimate.n_identities < MIN_IDENTITIES:
        return f"{estimate.n_identities} identities, at least {MIN_IDENTITIES} needed"
    return estimate.method


def _too_few(estimate: Estimate) -> str:
    return f"too few identities ({estimate.n_identities} of at least {MIN_IDENTITIES})"


def _figures(limit: Limit, estimate: Estimate) -> str:
    lines = limit.region()
    value, low, high = (_number(x, lines) for x in (estimate.value, estimate.low, estimate.high))
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def _number(value: float, lines: tuple[float, float]) -> str:
    """Write three significant digits, or as many more as tell the value from its limits."""
    for digits in (3, 4, 5, 6, 9, 17):
        text = f"{value:.{digits}g}"
        if all(value == line or float(text) != line for line in lines):
            break
    return text

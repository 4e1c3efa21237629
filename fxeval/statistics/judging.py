"""Limits over conditions and seeds: what each verdict of a cell rests on.

A limit is judged at each condition that it does not pin, at the worst of them, or on the mean of
the rows' values over them; one with a ``slice`` is judged in each slice of that column, or in the
worst. Over a population, an explainer that depends on its seed is judged at every seed, and the
worst decides. Over a list, the value of the list decides; if another seed gives other maps, the t
interval of the values at the seeds does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

import numpy as np

from fxeval.records.judged import Figures, LimitResult, SeedSpread
from fxeval.records.schema import Repeatability
from fxeval.results import (
    EXPLAINER,
    FIGURES,
    Condition,
    Estimate,
    Metric,
    Outcome,
    RowState,
    Verdict,
)
from fxeval.statistics.betting import BETTING
from fxeval.statistics.decisions import RANDOM_ORDERS, against_random_orders
from fxeval.statistics.distributions import t_quantile
from fxeval.statistics.entries import figures, plain
from fxeval.statistics.estimate import Law, Sample, tails
from fxeval.statistics.limits import BetterThan, Limit
from fxeval.statistics.settling import detectable, hangs_on_one, settles
from fxeval.statistics.table import FloatArray, Key, Table
from fxeval.statistics.verdict import MIN_IDENTITIES, MIN_SEEDS, judge, judge_list

_WORST_FIRST = (Outcome.INVALID, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


@dataclass(frozen=True)
class _Case:
    """One verdict to come: a limit under one condition, or on the mean over several.

    Attributes:
        limit: The limit.
        metric: Its metric.
        under: The condition, for the record.
        words: The condition, for the reason.
        conditions: Those that are averaged; one if none are.
        seeds: The seeds at which it is judged.
        samples: What is estimated at each seed.
        law: Of these values.
        is_equal: At each seed, whether every row equals the one that it is compared with.
    """

    limit: Limit
    metric: Metric
    under: Condition
    words: Condition
    conditions: tuple[Key, ...]
    seeds: tuple[int, ...]
    samples: tuple[Sample, ...]
    law: Law
    is_equal: tuple[bool, ...]


_Found: TypeAlias = tuple[LimitResult, tuple[int, float]]
"""A result, and a key by which the worst one comes first."""


def judged(
    asked: Sequence[Limit], table: Table, explainer: str, repeatability: Repeatability | None,
    *, one_seed_decides: bool = False,
) -> list[LimitResult]:  # fmt: skip
    """Judge the limits of a cell.

    Args:
        asked: The limits.
        table: The cell's values.
        explainer: Its explainer; limits that compare it with itself do not apply and are left out.
        repeatability: Whether its maps depend on a seed; None = not known.
        one_seed_decides: Whether one seed may decide for a population, since the values themselves
            compare the maps of two.
    """
    depends = None if repeatability is None else repeatability.depends_on_seed
    least = 1 if one_seed_decides else MIN_SEEDS
    cases = [_cases(limit, table, depends) for limit in asked if limit.applies_to(explainer)]
    flat = [(sample, case.law) for of in cases for case in of for sample in case.samples]
    found = iter(table.estimated(flat))
    results: list[LimitResult] = []
    for of in cases:
        some = [
            _judged(case, [next(found) for _ in case.samples], table, (depends, least))
            for case in of
        ]
        if of[0].limit.judge == "worst":
            some = [_worst_of(of, some)]
        results += [result for result, _ in some]
    return results


def _cases(limit: Limit, table: Table, depends: bool | None) -> list[_Case]:
    """Return what a limit is judged on; one case without values if nothing was measured."""
    measured = [one for one in table.conditions(limit.metric) if limit.applies(dict(one))]
    measured = table.in_slices(measured, limit.slice)
    if not measured:
        return [_case(limit, table, [tuple(limit.under.items())], limit.under, depends)]
    if limit.judge == "mean" and len(measured) > 1:
        words = {**limit.under, "mean of": f"{len(measured)} conditions"}
        return [_case(limit, table, measured, words, depends)]
    return [_case(limit, table, [one], dict(one), depends) for one in measured]


def _case(
    limit: Limit, table: Table, conditions: Sequence[Key], words: Condition, depends: bool | None
) -> _Case:
    metric = table.metrics[limit.metric]
    seeds = table.seeds(conditions, limit.compares())
    return _Case(
        limit=limit,
        metric=metric,
        under=dict(conditions[0]) if len(conditions) == 1 else limit.under,
        words=words,
        conditions=tuple(conditions),
        seeds=tuple(seeds),
        samples=tuple(_sample(limit, table, conditions, EXPLAINER, seed) for seed in seeds),
        law=table.law(metric, None if metric.statistic in FIGURES else limit.edges(metric)),
        is_equal=tuple(
            metric.kind != "rate" and _is_equal(limit, table, conditions, seed) for seed in seeds
        ),
    )


def _sample(
    limit: Limit, table: Table, conditions: Sequence[Key], judged_map: str, seed: int
) -> Sample:
    """Return what a limit judges, with any map in the place of the explainer's."""
    metric = table.metrics[limit.metric]

    def of(map_: str) -> FloatArray:
        name = judged_map if map_ == EXPLAINER else map_
        return table.mean_values(limit.metric, name, conditions, seed)

    if metric.statistic in FIGURES and limit.compares():
        return table.improvement_of_figures(of(EXPLAINER), of(*limit.compares()), metric)
    if metric.statistic == "ratio":
        below = table.mean_values(metric.denominator, judged_map, conditions, seed)
        return table.sample(of(EXPLAINER), below)
    return table.sample(limit.rows(of, metric))


def _is_equal(limit: Limit, table: Table, conditions: Sequence[Key], seed: int) -> bool:
    if not limit.compares():
        return False
    own, *others = (
        table.mean_values(limit.metric, map_, conditions, seed)
        for map_ in (EXPLAINER, *limit.compares())
    )
    both = [np.isfinite(own) & np.isfinite(other) for other in others]
    return all(
        bool(some.any()) and bool((own[some] == other[some]).all())
        for some, other in zip(both, others, strict=True)
    )


def _judged(
    case: _Case, estimates: Sequence[Estimate], table: Table, seeded: tuple[bool | None, int]
) -> _Found:
    """Return the result of a case, and a key by which the worst result comes first.

    ``seeded``: whether the maps depend on a seed, and with how many seeds they can then pass.
    """
    limit = case.limit
    estimates = [
        _of_equal_rows(limit, one) if equal else one
        for one, equal in zip(estimates, case.is_equal, strict=True)
    ]
    if limit.over == "list":
        place = min(range(len(estimates)), key=lambda at: _reserve_of_value(limit, estimates[at]))
        verdict, estimate = _of_list(case, estimates, seeded[0], table.confidence)
        is_open = False
    else:
        found = [
            _without_denominator(case, one) or judge(limit, one, case.words, is_equal=equal)
            for one, equal in zip(estimates, case.is_equal, strict=True)
        ]
        place = min(
            range(len(found)), key=lambda at: _severity(found[at].outcome, limit, estimates[at])
        )
        verdict, estimate = _of_seeds(found[place], len(found), seeded), estimates[place]
        is_open = found[place].outcome is Outcome.INCONCLUSIVE
    verdict = _of_slice(_with_random_orders(verdict, case, table), limit, estimate)
    verdict = _of_constant_maps(verdict, case, table)
    objection = _objection(case, table)
    if objection is not None:
        verdict = Verdict(Outcome.INVALID, objection)
    values = [one.value for one in estimates]
    result = LimitResult(
        metric=limit.metric,
        **limit.written(),
        under=dict(case.under),
        severity=limit.severity,
        where=limit.where,
        over=limit.over,
        judge=limit.judge,
        slice=limit.slice,
        text=limit.text(),
        line=limit.line(),
        region=limit.region(),
        verdict=plain(verdict),
        estimate=Figures(**figures(estimate)) if estimate.n_pairs else None,
        seeds=None
        if len(values) == 1
        else SeedSpread(values=[*values], sd=float(np.std(values, ddof=1)), worst=place),
    )
    rank = _severity(result.verdict.outcome, limit, estimate)
    is_open = is_open and objection is None
    return _explained(result, case, place, estimate, is_open), rank


def _objection(case: _Case, table: Table) -> str | None:
    """Return why the metric can decide no such limit; None if it can."""
    objections = [table.objection(case.metric, one) for one in case.conditions]
    if case.metric.statistic in FIGURES and case.limit.relative:
        objections.append(
            f"{case.metric.name} is a figure of the whole list, and a relative margin is one of a "
            "row; expected 'absolute'"
        )
    if case.metric.statistic == "ratio" and case.limit.compares():
        objections.append(
            f"{case.metric.name} is a ratio of two means, and no row has one of its own that could "
            "be compared; expected at_most or at_least"
        )
    return next((one for one in objections if one is not None), None)


def _of_equal_rows(limit: Limit, estimate: Estimate) -> Estimate:
    """Return the estimate of rows that all equal those of another map, where this decides."""
    if limit.of_equal_rows(estimate) is None:
        return estimate
    said = "every row is equal to the one that it is compared with: no interval"
    return replace(estimate, low=estimate.value, high=estimate.value, method=said)


def _of_list(
    case: _Case, estimates: Sequence[Estimate], depends: bool | None, confidence: float
) -> tuple[Verdict, Estimate]:
    """Judge a list by its value, or by the values that the seeds give it."""
    values = np.array([one.value for one in estimates])
    value, half, said = float(values.mean()), 0.0, "value of this list"
    if depends is not False or len(values) > 1:
        half = math.nan
        said = "value of this list with one seed"
        if len(values) > 1:
            error = float(values.std(ddof=1)) / math.sqrt(len(values))
            half = t_quantile(confidence, len(values) - 1) * error
            said = f"value of this list, t interval over {len(values)} seeds"
    if not math.isfinite(value):
        said = next(one.method for one in estimates if not math.isfinite(one.value))
    # Of one person, the value does not vary between people, and that is no defect.
    spread = estimates[0].spread if estimates[0].n_identities > 1 else math.inf
    estimate = replace(
        estimates[0], value=value, low=value - half, high=value + half, method=said, spread=spread
    )
    n_seeds = 0 if depends is False and len(values) == 1 else len(values)
    nothing = next(filter(None, (_without_denominator(case, one) for one in estimates)), None)
    return nothing or judge_list(case.limit, estimate, case.words, n_seeds), estimate


def _without_denominator(case: _Case, estimate: Estimate) -> Verdict | None:
    """Return why nothing is decided if a ratio has nothing to compare with; else None."""
    if case.metric.statistic != "ratio" or not estimate.n_pairs or math.isfinite(estimate.value):
        return None
    subject = case.limit.subject(case.words)
    return Verdict(Outcome.INCONCLUSIVE, f"{subject}no value: {estimate.method}")


def _of_seeds(verdict: Verdict, n_seeds: int, seeded: tuple[bool | None, int]) -> Verdict:
    """Say how many seeds were judged; too few pass nothing."""
    depends, least = seeded
    if depends is not True and n_seeds == 1:
        return verdict
    of = f"{n_seeds} seed{'s' * (n_seeds > 1)}"
    if n_seeds >= least or verdict.outcome in (Outcome.FAIL, Outcome.INVALID):
        worst = f"the worst of {of}" if n_seeds > 1 else of
        return Verdict(verdict.outcome, f"{verdict.reason} ({worst})")
    return Verdict(
        Outcome.INCONCLUSIVE,
        f"{verdict.reason}; the maps depend on their seed, and {of} cannot decide for a "
        f"population: give 'seeds: {MIN_SEEDS}'",
    )


def _of_constant_maps(verdict: Verdict, case: _Case, table: Table) -> Verdict:
    """Let nothing pass on the random orders of constant maps, if the metric says how many."""
    allowed = case.metric.constant_allowed
    if allowed is None or verdict.outcome is not Outcome.PASS:
        return verdict
    for under in case.conditions:
        states = table.states(case.metric.name, EXPLAINER, under)
        n, constant = states.total(), states[RowState.DEGENERATE_MAP]
        if constant > allowed * n:
            reason = (
                f"{verdict.reason}: {constant} of {n} maps that it needs are constant (at most "
                f"{allowed:.0%} allowed)"
            )
            return Verdict(Outcome.INCONCLUSIVE, reason)
    return verdict


def _of_slice(verdict: Verdict, limit: Limit, estimate: Estimate) -> Verdict:
    """Let no slice of too few people pass, whomever the limit is about."""
    n = estimate.n_identities
    if not limit.slice or verdict.outcome is not Outcome.PASS or n >= MIN_IDENTITIES:
        return verdict
    few = f"too few identities in this slice ({n} of at least {MIN_IDENTITIES})"
    return Verdict(Outcome.INCONCLUSIVE, f"{verdict.reason}: {few}")


def _worst_of(cases: Sequence[_Case], found: Sequence[_Found]) -> _Found:
    """Return the worst result; one in a slice says of how many."""
    result, rank = min(found, key=lambda one: one[1])
    column = cases[0].limit.slice
    words = {one.under[column] for one in cases if column in one.under}
    if not words:
        return result, rank
    under = f" under {len(cases) // len(words)} conditions" if len(cases) > len(words) else ""
    slices = f"{len(words)} slice{'s' * (len(words) > 1)} of {column}"
    reason = f"worst of {slices}{under}: {result.verdict.reason}"
    verdict = result.verdict.model_copy(update={"reason": reason})
    return result.model_copy(update={"verdict": verdict}), rank


def _with_random_orders(verdict: Verdict, case: _Case, table: Table) -> Verdict:
    """Let a pass on a decision stand only where random orders fail."""
    if verdict.outcome is not Outcome.PASS or not case.metric.is_decision:
        return verdict
    asked = [
        (_sample(case.limit, table, case.conditions, f"control.{name}", 0), case.law)
        for name in RANDOM_ORDERS
    ]
    random = dict(zip(RANDOM_ORDERS, table.estimated(asked), strict=True))
    beaten = [name for name in RANDOM_ORDERS if _is_beaten(f"control.{name}", case, table)]
    return against_random_orders(verdict, case.limit, case.words, random, beaten)


def _is_beaten(control: str, case: _Case, table: Table) -> bool:
    """Say whether the explainer is better than a control at every seed, where a limit asks that."""
    if not isinstance(case.limit, BetterThan):
        return False
    limit = BetterThan(case.metric.name, better_than=control)
    law = table.law(case.metric, limit.edges(case.metric))
    samples = [_sample(limit, table, case.conditions, EXPLAINER, seed) for seed in case.seeds]
    found = table.estimated([(sample, law) for sample in samples])
    return all(judge(limit, one, case.words).outcome is Outcome.PASS for one in found)


def _explained(
    result: LimitResult, case: _Case, place: int, estimate: Estimate, is_open: bool
) -> LimitResult:
    """Add how sure the verdict is, and what would settle it if the interval leaves it open."""
    is_bet = estimate.method.startswith(BETTING)  # which has neither a p-value nor a power
    is_known = math.isfinite(estimate.value) and case.limit.is_number()
    if case.limit.over == "list" or is_bet or not is_known:
        return result
    if case.is_equal[place] and case.limit.of_equal_rows(estimate) is not None:
        return result.model_copy(update={"p_opposite": 1.0})  # nothing got worse
    sample, law, region = case.samples[place], case.law, case.limit.region()
    ends = [(tails(sample, law, end), side) for side, end in enumerate(region) if abs(end) < inf]
    open_ = settles(sample, law, estimate, region, MIN_IDENTITIES) if is_open else ""
    found: dict[str, object] = {
        "p_value": max(one[side] for one, side in ends),
        "p_opposite": min(one[1 - side] for one, side in ends),
        "detectable": _number(detectable(estimate, law, region)),
        "settles": open_,
        "hangs_on_one": hangs_on_one(sample, law, region, estimate.confidence),
    }
    if open_ and not open_.startswith("not known"):
        said = f"{open_} would settle it" if open_.startswith("about ") else open_
        reason = f"{result.verdict.reason}; {said}"
        found["verdict"] = result.verdict.model_copy(update={"reason": reason})
    return result.model_copy(update=found)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _severity(outcome: Outcome, limit: Limit, estimate: Estimate) -> tuple[int, float]:
    """Return a key by which the worst verdict comes first."""
    reserve = limit.reserve(estimate)
    return _WORST_FIRST.index(outcome), -math.inf if math.isnan(reserve) else reserve


def _reserve_of_value(limit: Limit, estimate: Estimate) -> float:
    reserve = limit.reserve(replace(estimate, low=estimate.value, high=estimate.value))
    return -math.inf if math.isnan(reserve) else reserve

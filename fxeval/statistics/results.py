"""From rows to estimates and verdicts: one pure function, which anyone can recompute.

Runs and reports call :func:`results_of` and get the same digits, whatever the order in which the
rows were written.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fxeval.errors import StoreError
from fxeval.records.form import VerdictEntry
from fxeval.records.judged import (
    LimitEntry,
    LimitResult,
)
from fxeval.records.schema import (
    CellFacts,
    CellPlan,
    CellResult,
    Problem,
    Record,
    Row,
)
from fxeval.results import (
    Outcome,
    RowState,
    Severity,
    Verdict,
    attempts,
)
from fxeval.statistics.acknowledged import (
    acknowledged_notes,
    passing_again,
    with_acknowledged,
)
from fxeval.statistics.bands import bands_of
from fxeval.statistics.entries import plain
from fxeval.statistics.extended import n_planned, table_of, with_looks
from fxeval.statistics.fitness import fitness_notes, with_unfit
from fxeval.statistics.holm import regressions_of
from fxeval.statistics.intervals import SKEW_T, rarest_seen
from fxeval.statistics.judging import judged
from fxeval.statistics.limits import FORMS, Limit
from fxeval.statistics.map_figures import (
    diagnostics_of,
    identity_note,
    mean_map_of,
    same_map_of,
    ties_of,
)
from fxeval.statistics.redrawn import black_box_note, network_notes, network_objection
from fxeval.statistics.selected import judged_under, with_refusals
from fxeval.statistics.selection import chosen
from fxeval.statistics.table import Table
from fxeval.statistics.taught import teaching_notes, teaching_objection
from fxeval.statistics.transfer import transfers_of
from fxeval.statistics.verdict import (
    combine,
    overall,
    state_verdict,
    with_absences,
    with_inapplicable,
    with_reason,
)

SHOWN_PROBLEMS = 20


def results_of(plan: CellPlan, facts: CellFacts, rows: Sequence[Row]) -> CellResult:
    """Estimate and judge a cell.

    Args:
        plan: The plan of the cell.
        facts: The facts beside the rows; a refusal is the cell's verdict.
        rows: Rows of the cell, in any order.

    Returns:
        The cell's part of the record. A cell without rows has no estimate, and never passes.

    Raises:
        StoreError: If the rows do not fit together.
    """
    if facts.refusal is not None:
        return _result(plan, facts, n_pairs=0, n_identities=0, verdict=facts.refusal)
    if not rows:
        nothing = Verdict(Outcome.INVALID, "no row was measured")
        return _result(plan, facts, n_pairs=0, n_identities=0, verdict=plain(nothing))
    n_pairs = len(rows)
    choice = chosen(plan, facts, sorted(rows, key=lambda row: (row.row, row.identities)))
    if not choice.rows:
        nothing = Verdict(Outcome.INVALID, "no row takes part")
        return _result(plan, facts, n_pairs=n_pairs, n_identities=0, verdict=plain(nothing))
    rows = choice.rows
    table = table_of(plan, facts, rows)
    limits = _limits(plan, facts, table)
    states = Counter(row.state for row in rows)
    differences, columns = table.differences(), [one.column for one in plan.slices]
    return _result(
        plan,
        facts,
        n_pairs=n_pairs,
        n_identities=len(np.unique(table.identities)),
        verdict=plain(_verdict(plan, facts, rows, limits)),
        limits=limits,
        states=dict(states),
        problems=[
            Problem(row=row.row, state=row.state, reason=row.reason)
            for row in rows
            if row.state is not RowState.OK
        ][:SHOWN_PROBLEMS],
        estimates=table.estimates(),
        differences=differences,
        curves=bands_of(table),
        mean_map=mean_map_of(rows),
        diagnostics=diagnostics_of(rows),
        notes=[
            *_of_networks(facts, rows),
            *filter(None, [black_box_note(facts.networks), _of_one_bank(plan, facts)]),
            *facts.remarks,
            *table.unfit(),
            *fitness_notes(limits, plan, facts.unfit),
            *acknowledged_notes(limits, facts),
            *_unseen(limits),
            *filter(None, [ties_of(rows), identity_note(differences, columns)]),
        ],
        same_map=same_map_of(rows),
        selection=choice.selection,
    )


def _limits(plan: CellPlan, facts: CellFacts, table: Table) -> list[LimitResult]:
    """Return the limits of a cell, judged."""
    asked = [limit_of(judged_under(plan, limit)) for limit in plan.asked]
    limits = judged(
        asked, table, plan.explainer, facts.repeatability, one_seed_decides=plan.draws_itself
    )
    limits = with_refusals(limits, facts.configurations)
    limits = with_absences(with_reason(limits, facts.no_decision), facts.remarks)
    limits = with_looks(limits, plan, facts.looks_taken)
    limits = with_unfit(limits, plan, facts.unfit)
    return with_acknowledged(with_inapplicable(limits, facts.inapplicable), facts)


def rederived(record: Record, rows: Sequence[Row]) -> Record:
    """Return a record whose cells and verdict are judged again from rows.

    Raises:
        StoreError: If a cell was measured and has no rows here.
    """
    by_cell: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row.is_of(record.suite.name):
            by_cell.setdefault((row.cell, row.attempt), []).append(row)
    cells = []
    for cell in record.cells:
        found = by_cell.get((cell.id, cell.attempt), [])
        if cell.n_pairs != len(found) and cell.refusal is None:
            raise StoreError(
                f"cell {cell.id}: expected {cell.n_pairs} rows, got {len(found)}. Keep all files "
                "rows*.jsonl of the run together; records of version 1 cannot be judged again."
            )
        cells.append(results_of(*cell.parts(), found))
    verdict = overall(cells, record.run.missing)
    judged_again = {
        "cells": cells,
        "verdict": plain(verdict),
        "regressions": regressions_of(cells),
        "transfers": transfers_of(cells, record.run.missing),
    }
    return record.model_copy(update=judged_again)


def refused(cell: CellResult, reason: str) -> CellResult:
    """Return the cell as one that must not be judged; its rows stay where they are."""
    refusal = VerdictEntry(outcome=Outcome.INVALID, reason=reason)
    plan, facts = cell.parts()
    return results_of(plan, facts.model_copy(update={"refusal": refusal}), [])


def limit_of(entry: LimitEntry) -> Limit:
    """Return the limit that an entry of a record describes."""
    given = entry.model_dump(exclude_none=True)
    form = next(FORMS[key] for key in FORMS if key in given)
    keys = {"metric", "under", "severity", "where", "over", "judge", "slice", *form.keys}
    return form(**{key: value for key, value in given.items() if key in keys})


def _result(plan: CellPlan, facts: CellFacts, **results: Any) -> CellResult:  # noqa: ANN401
    return CellResult(**{**_fields(plan, CellPlan), **_fields(facts, CellFacts), **results})


def _fields(of: CellPlan | CellFacts, form: type[CellPlan | CellFacts]) -> dict[str, Any]:
    return {name: getattr(of, name) for name in form.model_fields}


def _verdict(
    plan: CellPlan, facts: CellFacts, rows: Sequence[Row], limits: Sequence[LimitResult]
) -> Verdict:
    known = {one.name for one in plan.metrics if one.information_only}
    verdicts: list[tuple[Verdict, Severity]] = [
        (
            # An acknowledged fail stops nothing; its reason says that it is one.
            Verdict(
                Outcome.PASS if limit.acknowledged else limit.verdict.outcome, limit.verdict.reason
            ),
            "info" if limit.metric in known else limit.severity,
        )
        for limit in limits
    ]
    verdicts += [(one, "critical") for one in passing_again(limits, facts)]
    allowed = [one.constant_allowed for one in plan.metrics if one.constant_allowed is not None]
    states = Counter(row.state for row in rows)
    no_maps = _unsteady(plan, facts) or _bad_maps(
        rows, states, min(allowed, default=None), n_planned(facts.looks_taken, len(rows))
    )
    objection = network_objection(
        facts.networks, rows, with_constant=not allowed
    ) or teaching_objection(facts.taught)
    if no_maps is not None:  # other limits that are not passed only follow from the lack of maps
        failed = [judged for judged in verdicts if judged[0].outcome is Outcome.FAIL]
        verdicts = [(no_maps, "critical"), *failed]
    elif objection is not None:
        # Without any limit the cell is not for information: nothing was asked, and it is unfit.
        informs = bool(limits) and all(limit.severity == "info" for limit in limits)
        verdicts.insert(0, (objection, "info" if informs else "critical"))
    verdict = combine(verdicts)
    if objection is not None and verdict.outcome is Outcome.INFORMATION:
        verdict = Verdict(verdict.outcome, f"{verdict.reason}; {objection.reason}")
    if verdict.outcome is Outcome.PASS:
        notes = [black_box_note(facts.networks), attempts(facts.earlier)]
        verdict = Verdict(verdict.outcome, "; ".join([verdict.reason, *filter(None, notes)]))
    left_out = [one for one in plan.asked if not limit_of(one).applies_to(plan.explainer)]
    if left_out and not any(limit.severity == "critical" for limit in limits):
        why = f"limits that compare with explainer {plan.explainer!r} do not apply to it"
        asked = any(one.severity == "critical" for one in left_out)
        if asked and verdict.outcome is Outcome.INFORMATION:
            verdict = Verdict(Outcome.INCONCLUSIVE, "no critical limit")
        verdict = Verdict(verdict.outcome, f"{verdict.reason}; {why}")
    return verdict


def _unsteady(plan: CellPlan, facts: CellFacts) -> Verdict | None:
    """Return a fail if the explainer does not give the same maps with the same seed."""
    found = facts.repeatability
    if found is None or found.repeats:
        return None
    reason = found.reason or f"the same seed gave other maps on some of {found.n_rows} rows"
    return Verdict(Outcome.FAIL, f"explainer {plan.explainer!r} does not repeat: {reason}")


def _of_networks(facts: CellFacts, rows: Sequence[Row]) -> list[str]:
    return [*network_notes(facts.networks, rows), *teaching_notes(facts.taught)]


def _unseen(limits: Sequence[LimitResult]) -> list[str]:
    """Say which groups of people the passes say nothing about; the rarest group of each."""
    shares = {
        rarest_seen(limit.estimate.n_identities, limit.estimate.confidence)
        for limit in limits
        if limit.verdict.outcome is Outcome.PASS
        and limit.over == "population"
        and limit.estimate is not None
        and SKEW_T in limit.estimate.method
    }
    return (
        [
            "what is passed over a population says nothing about groups rarer than "
            f"{max(shares):.1%} of all people"
        ]
        if shares
        else []
    )


def _of_one_bank(plan: CellPlan, facts: CellFacts) -> str:
    """Say on which draws of the explainer the figures depend, if it draws."""
    found = facts.repeatability
    if not plan.draws_itself or found is None or not found.depends_on_seed:
        return ""
    return (
        f"{plan.explainer} draws: all figures are conditional on its draws at "
        f"{plan.seeds} seed{'s' * (plan.seeds > 1)}, and on as many second draws that they are "
        "compared with"
    )


def _bad_maps(
    rows: Sequence[Row],
    states: Mapping[RowState, int],
    constant_allowed: float | None,
    planned: int,
) -> Verdict | None:
    """Return what follows if too many maps are bad, with the reason of the first; else None.

    At an early look they fail a cell only if they are too many of all planned rows; else it is
    open, as there may be none among the others.
    """
    verdict = state_verdict(states, len(rows), constant_allowed)
    if verdict is None:
        return None
    first = next((row.reason for row in rows if row.reason), "no reason given")
    outcome = verdict.outcome
    if state_verdict(states, planned, constant_allowed) is None:
        outcome = Outcome.INCONCLUSIVE
    return Verdict(outcome, f"{verdict.reason}; first: {first}")

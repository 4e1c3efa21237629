"""From a cell to its rows, and through them to its part of the record.

explain -> rank -> remove -> embed -> ask -> rows; everything after the rows is
``fxeval.statistics.results``. What the cells of a run share, devices and batches among it, is the
workshop's and the forward pool's.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from fxeval.engine.maps import ROWS_AT_ONCE
from fxeval.errors import EvidenceError, ModelContractError
from fxeval.metrics import draws_itself, kinds
from fxeval.metrics.looked_at import Looked
from fxeval.records.earlier import Paired, Question
from fxeval.records.form import VerdictEntry
from fxeval.records.judged import LimitEntry, MetricEntry, SliceEntry
from fxeval.records.schema import CellFacts, CellPlan, CellResult, Row
from fxeval.records.self_checks import Unfit
from fxeval.redaction import without_paths
from fxeval.results import Outcome
from fxeval.run.environment import class_of
from fxeval.run.guard import why_untrusted
from fxeval.run.prepared import Prepared
from fxeval.run.row_measuring import RowMeasuring
from fxeval.run.workshop import Accepted, Subjects, Workshop
from fxeval.statistics.extended import LookPlan, plan_of_looks
from fxeval.statistics.results import refused, results_of
from fxeval.statistics.selected import Choice
from fxeval.suite.cells import Cell

GROUP_BYTES = 256 << 20
"""Memory that the maps, orders and images of a group may take, besides the networks."""

BYTES_PER_PIXEL = 128
"""Memory of a row: its map and those of the controls, their ranks and sorting keys, its images."""

DECIDED = frozenset({Outcome.PASS, Outcome.FAIL, Outcome.INVALID})
"""What ends a cell that is extended while it is undecided."""


def measure_cell(
    cell: Cell,
    subjects: Subjects,
    workshop: Workshop,
    *,
    earlier: Sequence[Outcome] = (),
    unfit: Sequence[Unfit] = (),
    remarks: Sequence[str] = (),
) -> CellResult:
    """Measure and judge one cell; it is invalid if something was changed behind its back.

    Args:
        cell: What to measure.
        subjects: The resolved model, explainer and pair source.
        workshop: What cells share: device, forward passes, loaded pairs, maps.
        earlier: Verdicts of the attempts before, if pytest runs the cell again.
        unfit: Metrics that were found not to tell maps of known worth apart.
        remarks: What else was found before the cell is measured.

    Returns:
        The cell's part of the record.

    Raises:
        ContractError: If the model or the data can't be used at all; the explainer's faults are
            states of rows instead.
        EvidenceError: If an earlier cell left the process in a state that can't be undone.
    """
    with workshop.guard.cell() as faults:

        def judged(facts: CellFacts, rows: Sequence[Row]) -> CellResult:
            found = {"unfit": [*unfit], "remarks": [*facts.remarks, *remarks]}
            return results_of(plan_of(cell), facts.model_copy(update=found), rows)

        for facts, rows in _measured(cell, subjects, workshop, earlier):
            result = judged(facts, rows)
            if result.verdict.outcome in DECIDED:
                break
    if not faults:
        return result
    return refused(result, without_paths(why_untrusted(faults)))


def measure_rows(cell: Cell, subjects: Subjects, workshop: Workshop) -> list[Row]:
    """Measure the rows of a cell that nothing is judged of.

    Raises:
        ContractError: As :func:`measure_cell`, and if the model must not be judged.
        EvidenceError: Likewise, and if something was changed behind the cell's back.
    """
    with workshop.guard.cell() as faults:
        *_, (facts, rows) = _measured(replace(cell, looks=None), subjects, workshop, ())
    if facts.refusal is not None:
        raise ModelContractError(facts.refusal.reason, public=facts.refusal.reason)
    if faults:
        raise EvidenceError(without_paths(why_untrusted(faults)))
    return rows


def _measured(
    cell: Cell, subjects: Subjects, workshop: Workshop, earlier: Sequence[Outcome]
) -> Iterator[tuple[CellFacts, list[Row]]]:
    """Yield the facts of a cell and its rows so far, after each look.

    There is one look at all rows unless the cell is extended while it is undecided. Without rows,
    the cell must not be judged.
    """
    started, forwards = time.perf_counter() - workshop.verifying.seconds, workshop.forwards
    prepared = workshop.prepare(cell, subjects)
    if prepared.objection is not None:
        yield CellFacts(refusal=_refusal(prepared.objection)), []
        return
    prepared, plan = _looked_at(cell, prepared)
    rows: list[Row] = []
    notes: list[str] = []
    measuring = RowMeasuring(cell, prepared)
    asked = _question(cell, workshop)
    runs = [run.paired(asked) for run in workshop.earlier_runs]
    accepted = workshop.acknowledged.get((cell.suite, cell.id), Accepted([], []))
    everyone = torch.arange(len(prepared.evidence.everyone))
    for number, places in enumerate(prepared.evidence.looked.looks or [everyone], start=1):
        for group in torch.split(places, rows_at_once(prepared.evidence.subject.size)):
            told = {"attempt": len(earlier) + 1, "suite": cell.suite}
            finished = [
                row.model_copy(update={"reason": without_paths(row.reason), **told})
                for row in _beside(runs, measuring.rows(group))
            ]
            workshop.emit(finished)
            rows += finished
        workshop.guard.note_threads()
        notes += workshop.take_notes()
        facts = CellFacts(
            seconds=time.perf_counter() - workshop.verifying.seconds - started,
            forwards=workshop.forwards - forwards,
            attempt=len(earlier) + 1,
            earlier=[*earlier],
            looks_taken=None if plan is None else plan.at(number, cell.confidence),
            baseline=next((run.baseline for run in runs if run.baseline is not None), None),
            acknowledged=accepted.active,
            expired=accepted.expired,
            **_found(prepared, measuring, [*(run.remark for run in runs), *notes]),
        )
        yield facts, rows


def _found(prepared: Prepared, measuring: RowMeasuring, more: Sequence[str]) -> dict[str, Any]:
    """Return what was found out while rows were measured, as fields of the facts."""
    engine = prepared.engine
    return {
        "explaining": [*prepared.explaining],
        "networks": [*measuring.networks],
        "taught": [*measuring.taught],
        "no_decision": prepared.evidence.subject.no_decision,
        "remarks": [*prepared.remarks, *measuring.remarks, *engine.remarks(), *more],
        "repeatability": engine.repeatability(engine.own.name),
        "configurations": [*measuring.configurations],
        "inapplicable": dict(measuring.inapplicable),
    }


def _looked_at(cell: Cell, prepared: Prepared) -> tuple[Prepared, LookPlan | None]:
    """Return the evidence with the looks at its rows; None = it is looked at once."""
    if cell.looks is None:
        return prepared, None
    everyone = prepared.evidence.everyone
    plan = plan_of_looks(cell.looks, cell.seed, everyone.id, everyone.identities.tolist())
    looks = tuple(torch.tensor(places, dtype=torch.int64) for places in plan.rows)
    return replace(prepared, evidence=replace(prepared.evidence, looked=Looked(looks))), plan


def _question(cell: Cell, workshop: Workshop) -> Question:
    """Return what a cell asks, for the earlier runs that are to be compared with it."""
    models = workshop.subjects["models"]
    model, plan = models[cell.model.name], plan_of(cell)
    named = [name for some in plan.further.values() for name in some if name in models]
    return Question(
        suite=cell.suite,
        seed=cell.seed,
        plan=plan,
        model=model,
        pairs=workshop.subjects["pairs"][cell.pairs.name],
        operating_threshold=model["verification"]["operating_threshold"]["value"],
        hardware_class=class_of(workshop.device) if workshop.earlier_runs else "",
        further={name: models[name] for name in named},
    )


def _beside(runs: Sequence[Paired], rows: Sequence[Row]) -> list[Row]:
    """Return rows with the values of earlier runs beside their own."""
    for run in runs:
        rows = [run.added(row) for row in rows]
    return list(rows)


def rows_at_once(size: tuple[int, int]) -> int:
    """Return how many rows are measured together: what the memory holds, at most ``ROWS_AT_ONCE``.

    A row has the same values in groups of any size.

    >>> rows_at_once((112, 112)), rows_at_once((1024, 1024))
    (16, 2)
    """
    return max(1, min(ROWS_AT_ONCE, GROUP_BYTES // (size[0] * size[1] * BYTES_PER_PIXEL)))


def invalid_cell(cell: Cell, reason: str, outcome: Outcome = Outcome.INVALID) -> CellResult:
    """Return the record of a cell that could not be measured at all."""
    return results_of(plan_of(cell), CellFacts(refusal=_refusal(reason, outcome)), [])


def _refusal(reason: str, outcome: Outcome = Outcome.INVALID) -> VerdictEntry:
    return VerdictEntry(outcome=outcome, reason=reason)


def plan_of(cell: Cell) -> CellPlan:
    """Return the plan of a cell for the record."""
    choice: Choice | None = getattr(kinds()[cell.kind], "SELECTS", None)
    return CellPlan(
        id=cell.id,
        check=cell.check,
        kind=cell.kind,
        why=cell.why,
        where=cell.where,
        model=cell.model.name,
        explainer=cell.explainer.name,
        pairs=cell.pairs.name,
        parameters=cell.parameters.model_dump(mode="json"),
        confidence=cell.confidence,
        on_inconclusive=cell.on_inconclusive,
        metrics=[MetricEntry(**asdict(metric)) for metric in kinds()[cell.kind].METRICS],
        asked=[
            LimitEntry(
                metric=limit.metric,
                **limit.written(),
                under=dict(limit.under),
                severity=limit.severity,
                where=limit.where,
                over=limit.over,
                judge=limit.judge,
                slice=limit.slice,
            )
            for limit in cell.limits
        ],
        seeds=cell.seeds,
        further={
            parameter: [use.name for use in named] for parameter, named in cell.further.items()
        },
        slices=[SliceEntry(column=one.column, edges=[*one.edges]) for one in cell.slices],
        selects=None if choice is None else choice.of(cell.parameters),
        draws_itself=draws_itself(cell.kind),
        looks=cell.looks,
    )

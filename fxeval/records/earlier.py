"""The values of an earlier run, paired with the rows of this one.

The explainer may be another version of itself, that is the point; the question must be the same:
suite, seed, check, model, images. Where it is not, nothing is compared, and the reason is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Any, Self

from fxeval.errors import StoreError
from fxeval.records.hardware import hardware_class
from fxeval.records.judged import UsedBaseline
from fxeval.records.schema import CellPlan, CellResult, Measured, Record, Row
from fxeval.records.stored_run import StoredRun, read_run
from fxeval.results import EXPLAINER

OF_A_MODEL = ("digest", "crop", "size", "similarity", "operating_threshold")

ROW_BY_ROW = frozenset(
    {"faithfulness.deletion_insertion", "faithfulness.guided_occlusion",
     "faithfulness.accuracy_curves", "faithfulness.reject_decisions",
     "sanity.model_randomisation", "stability.repetition", "occluders.self_occlusion"}
)  # fmt: skip
"""Kinds in which a row's values rest on the images of that row alone: runs on lists of which one is
longer can be compared on the rows that both have. In other kinds, other people of the list have a
part in a row: as a gallery, as nonmates, or as further images of the person."""

OTHER_PEOPLE = frozenset({"contrast", "gallery"})
"""What an explainer may need of other people of the list: its maps depend on who else is on it."""


@dataclass(frozen=True)
class Question:
    """What a cell asks, as the earlier run must have asked it.

    Attributes:
        suite: Name of the suite.
        seed: Of the suite.
        plan: Of the cell.
        model: Entry of its model in the record.
        pairs: Entry of its pair list.
        operating_threshold: Of the model on these pairs; None if there is none.
        hardware_class: On which it is asked; "" = of any.
        further: Entries of further models that the kind judges by, by name.
    """

    suite: str
    seed: int
    plan: CellPlan
    model: Mapping[str, Any]
    pairs: Mapping[str, Any]
    operating_threshold: float | None
    hardware_class: str = ""
    further: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, cell: CellResult) -> Self:
        """Return what a cell of a record asked.

        Raises:
            StoreError: If the record does not describe the cell's model or its pairs.
        """
        model = record.subjects.models.get(cell.model)
        pairs = record.subjects.pairs.get(cell.pairs)
        if model is None or pairs is None:
            raise StoreError(f"cell {cell.id}: the record does not describe its model and pairs.")
        return cls(
            suite=record.suite.name,
            seed=record.suite.seed,
            plan=cell.parts()[0],
            model=model.model_dump(),
            pairs=pairs.model_dump(),
            operating_threshold=_threshold_of(record, cell),
            further={
                name: record.subjects.models[name].model_dump()
                for named in cell.further.values()
                for name in named
                if name in record.subjects.models
            },
        )


@dataclass(frozen=True)
class Match:
    """The cell of an earlier run that asked the same.

    Attributes:
        record: Where the cell is; None if no record is of the suite.
        cell: The cell; None if there is none of the same kind and subjects.
        reason: In what it asked something else; "" if it did not.
        lists_differ: Whether its pairs are others, but each row's values rest on that row alone;
            then the rows that both have can be compared.
    """

    record: Record | None
    cell: CellResult | None
    reason: str
    lists_differ: bool = False


@dataclass(frozen=True)
class Paired:
    """The explainer's values in an earlier run.

    Attributes:
        values: By row, with the name under which limits compare with them as the map.
        remark: Which run they are of, or why there are none.
        baseline: The named baseline that the run is of; None if it was given as a folder.
    """

    values: Mapping[str, list[Measured]] = field(default_factory=dict)
    remark: str = ""
    baseline: UsedBaseline | None = None

    def added(self, row: Row) -> Row:
        """Return a row with the values of the earlier run; as it is if that has none."""
        more = self.values.get(row.row, [])
        return row.model_copy(update={"measured": [*row.measured, *more]}) if more else row


class EarlierRun:
    """The records of a run and its rows.

    Args:
        name: Under which limits compare with it: ``baseline`` or ``base``.
        run: The run.
    """

    def __init__(self, name: str, run: StoredRun) -> None:
        self.name = name
        self._records = [*run.records.values()]
        suites = {one.suite.name for one in self._records}
        self._rows = {suite: run.by_cell(suite) for suite in suites}

    @classmethod
    def read(cls, name: str, path: Path) -> Self:
        """Return the run in a folder, or that of one record, given by ``--fx-<name>``.

        Raises:
            StoreError: If it is no run, or damaged.
        """
        try:
            return cls(name, read_run(path))
        except StoreError as error:
            raise StoreError(f"--fx-{name} {path}: {error}") from error

    def matched(self, asked: Question) -> Match:
        """Return the cell that asked the same, or the reason why none did."""
        record = next((one for one in self._records if one.suite.name == asked.suite), None)
        if record is None:
            names = ", ".join(sorted(one.suite.name for one in self._records))
            return Match(None, None, f"it is of the suite {names}, this is {asked.suite}")
        cell = _same_cell(record, asked.plan)
        reason = _why_elsewhere(record, asked) or _why_another(record, cell, asked)
        if reason or cell is None:
            return Match(record, cell, reason)
        return Match(record, cell, "", lists_differ=bool(_why_other_pairs(record, asked)))

    def rows_of(self, suite: str, cell: CellResult) -> list[Row]:
        """Return the rows that a cell of a suite of it was judged by."""
        return self._rows[suite].get((cell.id, cell.attempt), [])

    def paired(self, asked: Question, *, needs_same_list: bool = True) -> Paired:
        """Return the explainer's values in the same cell of the earlier run.

        Args:
            asked: What this run's cell asks.
            needs_same_list: Whether nothing is compared if the pairs are others.
        """
        match = self.matched(asked)
        record, cell, reason = match.record, match.cell, match.reason
        if record is not None and match.lists_differ and needs_same_list:
            reason = _why_other_pairs(record, asked)
        if record is None or cell is None or reason:
            return self._nothing(reason, record)
        rows = self.rows_of(record.suite.name, cell)
        if cell.refusal is not None or not rows:
            said = cell.verdict.reason if cell.refusal is not None else "it has no rows"
            return self._nothing(f"its cell has no values: {said}", record)
        if len(rows) != cell.n_pairs:  # lost, or mixed with those of another suite of the run
            return self._nothing(
                f"its cell {cell.id} has {len(rows)} rows where its record counts {cell.n_pairs}: "
                "rows are lost, or a cell of another suite of that run has the same name",
                record,
            )
        metrics, remark = _comparable(record, cell, asked)
        values = {row.row: self._of(row, metrics) for row in rows}
        which = f"{self.name}: run {record.run.id} of fxeval {record.environment.fxeval}"
        return Paired(values, f"{which}, {len(rows)} rows{remark}")

    def _of(self, row: Row, metrics: set[str]) -> list[Measured]:
        """Return the explainer's values of a row; curves stay where they are."""
        return [
            Measured(
                map=self.name,
                under=one.under,
                values={key: value for key, value in one.values.items() if key in metrics},
                states={key: state for key, state in one.states.items() if key in metrics},
                seed=one.seed,
            )
            for one in row.measured
            if one.map == EXPLAINER
        ]

    def _nothing(self, reason: str, record: Record | None = None) -> Paired:
        run = f" in run {record.run.id}" if record is not None else ""
        return Paired(remark=f"{self.name}: no values{run}: {reason}")


def _why_elsewhere(record: Record, asked: Question) -> str:
    """Say on which other hardware class the earlier run was made; "" if on the same."""
    then = hardware_class(record.environment)
    if asked.hardware_class in ("", then):
        return ""
    return f"it was made on another hardware class: '{then}', this is '{asked.hardware_class}'"


def _same_cell(record: Record, plan: CellPlan) -> CellResult | None:
    """Return the cell of the same kind and subjects; the one with the same parameters and check."""
    alike = [
        cell
        for cell in record.cells
        if (cell.kind, cell.model, cell.explainer, cell.pairs)
        == (plan.kind, plan.model, plan.explainer, plan.pairs)
    ]
    alike.sort(key=lambda cell: (cell.parameters == plan.parameters, cell.id == plan.id))
    return alike[-1] if alike else None


def _why_another(record: Record, cell: CellResult | None, asked: Question) -> str:
    """Say in what the earlier cell asked something else; "" if it did not."""
    plan = asked.plan
    if record.suite.seed != asked.seed:
        return f"its suite has the seed {record.suite.seed}, this one {asked.seed}"
    if cell is None:
        return (
            f"it has no cell {plan.kind} of model {plan.model}, explainer {plan.explainer} and "
            f"pairs {plan.pairs}"
        )
    if cell.parameters != plan.parameters:
        return f"its check has other parameters: {_differences(cell.parameters, plan.parameters)}"
    for name, entry in {**asked.further, plan.model: asked.model}.items():
        model = record.subjects.models.get(name)
        if model is None:
            return f"it does not describe model {name}"
        then = {key: getattr(model, key) for key in OF_A_MODEL}
        now = {key: entry[key] for key in OF_A_MODEL}
        if then != now:
            return f"model {name} is another: {_differences(then, now)}"
    other = _why_other_pairs(record, asked)
    needs = record.subjects.explainers.get(plan.explainer)
    is_alone = plan.kind in ROW_BY_ROW and (needs is None or not {*needs.needs} & OTHER_PEOPLE)
    return "" if is_alone else other


def _why_other_pairs(record: Record, asked: Question) -> str:
    """Say in what the pairs of the earlier run are others; "" if they are not."""
    plan = asked.plan
    pairs = record.subjects.pairs.get(plan.pairs)
    if pairs is None or pairs.digest != asked.pairs["digest"]:
        old = {"digest": pairs.digest, "n_pairs": pairs.n_pairs} if pairs is not None else {}
        new = {key: asked.pairs[key] for key in ("digest", "n_pairs")}
        return f"pairs {plan.pairs} have other images: {_differences(old, new)}"
    return ""


def _threshold_of(record: Record, cell: CellResult) -> float | None:
    """Return the operating threshold of a cell's model on its pairs; None if there is none."""
    about = cell.model, cell.pairs
    return next(
        (one.operating_threshold.value for one in record.verification
         if (one.model, one.pairs) == about), None,
    )  # fmt: skip


def _comparable(record: Record, cell: CellResult, asked: Question) -> tuple[set[str], str]:
    """Return the metrics that mean the same in both runs, and a sentence about the others."""
    then = {one.name for one in cell.metrics}
    metrics = {one.name for one in asked.plan.metrics if one.name in then}
    old = _threshold_of(record, cell)
    new = asked.operating_threshold
    if old == new or (
        old is not None and new is not None and isclose(old, new, rel_tol=1e-4, abs_tol=1e-6)
    ):
        return metrics, ""
    decisions = {one.name for one in asked.plan.metrics if one.is_decision}
    if not decisions & metrics:
        return metrics, ""
    named = ", ".join(sorted(decisions & metrics))
    return (
        metrics - decisions,
        f"; no values of {named}: its operating threshold was {old}, is {new}",
    )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name what differs between two mappings."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return ", ".join(
        f"{key} was {_short(then.get(key))}, is {_short(now.get(key))}" for key in keys
    )


def _short(value: object) -> str:
    """Return a value in words; of a digest the beginning."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."

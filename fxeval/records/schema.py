"""The format of a record and of its rows, typed and versioned.

A run leaves ``rows.jsonl``, one :class:`Row` a line, and a :class:`Record`. The estimates and
verdicts of a record are a function of its plans, its facts and the rows
(``fxeval.statistics.results.results_of``). The order of the fields is part of the format. A number
that is NaN or infinite is null.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, model_validator

from fxeval.records.explaining import Explaining as Explaining
from fxeval.records.explaining import LayerEntry as LayerEntry
from fxeval.records.explaining import Network as Network
from fxeval.records.explaining import Repeatability as Repeatability
from fxeval.records.explaining import Taught as Taught
from fxeval.records.form import Count, Form, Number, Under, VerdictEntry
from fxeval.records.judged import (
    Acknowledgement,
    Band,
    Difference,
    EstimateEntry,
    LimitEntry,
    LimitResult,
    MetricEntry,
    Regressions,
    SliceEntry,
    UsedBaseline,
)
from fxeval.records.looks import Looking, Looks
from fxeval.records.selection import Configuration, Selection, Selects
from fxeval.records.self_checks import SelfCheck, Unfit
from fxeval.records.subjects import Environment, Subjects, VerificationEntry
from fxeval.records.transfers import TransferMatrix
from fxeval.results import (
    Outcome,
    RowState,
)

VERSION = 2

GRID = 28
"""Cells along each side of a stored map."""

Line: TypeAlias = Annotated[list[float], Field(min_length=GRID, max_length=GRID)]
Grid: TypeAlias = Annotated[list[Line], Field(min_length=GRID, max_length=GRID)]


class Measured(Form):
    """The measurements of a row with one map under one condition.

    Attributes:
        map: ``explainer`` or ``control.<name>``.
        under: The condition.
        values: Value of each metric; null where the row has none. In the state ``start_beyond`` it
            is the published value, which enters no estimate.
        states: State of each metric.
        curves: Curve of each kind, as points at equal steps.
        seed: Index of the explainer's seed, from 0; a map that does not depend on it has 0 alone.
    """

    map: str
    under: Under = {}
    values: dict[str, Number]
    states: dict[str, RowState]
    curves: dict[str, list[Number]] = {}
    seed: Count = 0


class Row(Form):
    """One line of ``rows.jsonl``: a unit that has one value per metric.

    Attributes:
        cell: Id of the cell.
        row: Name of the row, made from the content of its images; it names no file and no person.
        identities: One number, or two if a row shows two people; intervals resample these.
        state: The worst state of the explainer's maps of the row.
        reason: The reason for that state.
        diagnostics: Numbers about the explainer's maps, by the set of maps.
        constant_under: The conditions under which the map is constant and that is no fault of the
            explainer: re-drawn networks, other pictures, a nonmate.
        thumbnail: The map in 28 x 28 cells, scaled to 0..1; null if it cannot be ranked.
        measured: The measurements by map and condition.
        attempt: Which measurement of the cell it belongs to: above 1 if pytest ran the cell again.
        slices: Its word in each column that the check has slices of.
        suite: Name of the suite of the cell; several suites of one run may have a cell of one name.
            Empty in runs of older versions.
    """

    cell: str
    row: str
    identities: Annotated[list[int], Field(min_length=1, max_length=2)]
    state: RowState
    reason: str = ""
    diagnostics: dict[str, dict[str, Number]] = {}
    constant_under: list[str] = []
    thumbnail: Grid | None = None
    measured: list[Measured]
    attempt: Annotated[int, Field(ge=1)] = 1
    is_mated: bool | None = None
    slices: dict[str, str] = {}
    suite: str = ""

    def is_of(self, suite: str) -> bool:
        """Return whether it may be of this suite; one that names none may be of any."""
        return self.suite in ("", suite)


class Problem(Form):
    """A row whose map has a problem."""

    row: str
    state: RowState
    reason: str


class Diagnostic(Form):
    """A number about the explainer's maps, over all rows."""

    name: str
    mean: float
    least: float
    largest: float
    n_pairs: Count


class CellPlan(Form):
    """The plan of a cell: everything that judging its rows needs.

    Attributes:
        seeds: Number of differently seeded maps of each row, if the explainer depends on its seed.
        further: Names of further models that a parameter of the kind names, by parameter.
        slices: The columns by whose words the results are told apart.
        selects: What is chosen on one half of the people and reported on the other; null = nothing.
        draws_itself: Whether the check itself compares the maps with those of another seed: then
            one seed decides.
        looks: How often an undecided cell is looked at, if it is extended; null = once.
    """

    id: str
    check: str
    kind: str
    why: str
    where: str
    model: str
    explainer: str
    pairs: str
    parameters: dict[str, JsonValue]
    confidence: float
    on_inconclusive: Literal["fail", "warn", "extend"]
    metrics: list[MetricEntry]
    asked: list[LimitEntry]
    seeds: Annotated[int, Field(ge=1)] = 1
    further: dict[str, list[str]] = {}
    slices: list[SliceEntry] = []
    selects: Selects | None = None
    draws_itself: bool = False
    looks: Looking | None = None

    @model_validator(mode="after")
    def _knows_its_metrics(self) -> Self:
        _declared(self.metrics, self.asked)
        names = {metric.name for metric in self.metrics}
        for metric in self.metrics:
            if (metric.statistic == "ratio") != (metric.denominator in names - {metric.name}):
                raise ValueError(
                    f"metric {metric.name}: expected a denominator among the cell's metrics if it "
                    f"is a ratio, and none if it is not, got {metric.denominator!r:.80}"
                )
        return self


class CellFacts(Form):
    """Facts about the measuring of a cell, beside its rows.

    Attributes:
        refusal: Why the cell could not be measured or must not be judged; null if it could be.
        attempt: Which measurement it is, above 1 if pytest ran the cell again; the last one counts.
        earlier: Verdicts of the attempts before.
        no_decision: Why metrics of decisions at the operating threshold have no value; empty if
            they have.
        repeatability: Whether the explainer repeats its maps; null if it was not found out.
        configurations: All that were tried, in the order of the suite, if the cell chooses.
        inapplicable: Why metrics can have no value of such a model, by their names: limits on them
            decide nothing.
        unfit: Metrics that did not tell maps of known worth apart: a limit on one that decides
            makes the cell invalid.
        baseline: The named baseline that it is compared with; null if there is none.
        acknowledged: Known regressions since the baseline, accepted on the day of the run.
        expired: Those that were accepted until an earlier day; they change nothing.
        looks_taken: The looks of a cell that is extended; null = all its rows were judged once.
    """

    nodeid: str | None = None
    seconds: float = 0.0
    forwards: Count = 0
    explaining: list[Explaining] = []
    networks: list[Network] = []
    taught: list[Taught] = []
    remarks: list[str] = []
    refusal: VerdictEntry | None = None
    attempt: Annotated[int, Field(ge=1)] = 1
    earlier: list[Outcome] = []
    no_decision: str = ""
    repeatability: Repeatability | None = None
    configurations: list[Configuration] = []
    inapplicable: dict[str, str] = {}
    unfit: list[Unfit] = []
    baseline: UsedBaseline | None = None
    acknowledged: list[Acknowledgement] = []
    expired: list[Acknowledgement] = []
    looks_taken: Looks | None = None


class CellResult(CellPlan, CellFacts):
    """A cell: plan, facts, and the results that follow from its rows.

    Attributes:
        same_map: A sentence if most people have one and the same map; else empty.
        selection: The choice among configurations; null if the cell makes none.
    """

    n_pairs: Count
    n_identities: Count
    verdict: VerdictEntry
    limits: list[LimitResult] = []
    states: dict[RowState, Count] = {}
    problems: list[Problem] = []
    estimates: list[EstimateEntry] = []
    differences: list[Difference] = []
    curves: list[Band] = []
    mean_map: Grid | None = None
    diagnostics: list[Diagnostic] = []
    notes: list[str] = []
    same_map: str = ""
    selection: Selection | None = None

    @model_validator(mode="after")
    def _is_of_its_metrics(self) -> Self:
        _declared(self.metrics, [*self.limits, *self.estimates, *self.differences])
        return self

    def parts(self) -> tuple[CellPlan, CellFacts]:
        """Return the plan and the facts, from which the rows give everything else."""
        plan, facts = (
            {name: getattr(self, name) for name in form.model_fields}
            for form in (CellPlan, CellFacts)
        )
        return CellPlan(**plan), CellFacts(**facts)


def _declared(
    metrics: Sequence[MetricEntry], of: Sequence[LimitEntry | EstimateEntry | Difference]
) -> None:
    known = {metric.name for metric in metrics}
    strange = [one.metric for one in of if one.metric not in known]
    if strange:
        raise ValueError(f"expected a metric that the cell declares, got {strange[0]!r:.80}")


class Run(Form):
    """The process that measured."""

    id: str
    started: str
    finished: str
    seconds: float
    command: str
    complete: bool
    missing: list[str] = []


class SuiteEntry(Form):
    """The suite that was asked for."""

    name: str
    title: str
    path: str
    digest: str
    seed: int


class Section(Form):
    """A part of the scorecard that a plug-in adds; it decides nothing.

    Attributes:
        title: Its heading.
        text: A paragraph; may be empty.
        columns: Heads of a table; [] = no table.
        rows: Cells of the table, as many a row as there are heads.
    """

    title: str
    text: str = ""
    columns: list[str] = []
    rows: list[list[str]] = []

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        odd = next((row for row in self.rows if len(row) != len(self.columns)), None)
        if odd is not None:
            raise ValueError(f"expected {len(self.columns)} cells in each row, got {len(odd)}")
        return self


class Record(Form):
    """Everything that a run found, beside the rows.

    Attributes:
        sections: Added by plug-ins; they decide nothing.
        regressions: What got worse since an earlier run; null if no limit compares with one.
        transfers: What maps from one network do to others; [] if no check measures it.
        self_checks: Whether metrics tell maps of known worth apart; [] if the suite has no
            ``self_check``.
    """

    record: Literal[2] = 2
    run: Run
    suite: SuiteEntry
    banners: list[str]
    environment: Environment
    subjects: Subjects
    verification: list[VerificationEntry]
    cells: list[CellResult]
    verdict: VerdictEntry
    sections: list[Section] = []
    regressions: Regressions | None = None
    transfers: list[TransferMatrix] = []
    self_checks: list[SelfCheck] = []

    def models_by(
        self, tag: Literal["training_data", "family"]
    ) -> dict[str | None, tuple[str, ...]]:
        """Return the ids of the models in groups, by a tag; None: those without it."""
        groups: dict[str | None, tuple[str, ...]] = {}
        for id, model in self.subjects.models.items():
            word = getattr(model.tags, tag)
            groups[word] = (*groups.get(word, ()), id)
        return groups


def json_schema(form: type[Form]) -> Mapping[str, Any]:
    """Return the JSON Schema of a record (``Record``) or of a line of its rows (``Row``)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **form.model_json_schema()}

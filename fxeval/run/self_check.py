"""Checks the metrics that a cell's limits rest on, on maps of known worth, before they judge.

Metrics that ask how alike two faces are (``SELF_CHECK = "likeness"`` in their protocol) are
measured on a planted network, whose similarity is a sum over patches, on rendered faces: so the
worth of a map is known exactly. Those that ask for the margin between a person and a twin
(``"margin"``) are measured on the model that is judged: a twin says by itself which part is the
evidence. Everything is measured as in any cell, with the cell's own fills, fractions and
parameters, but for the controls, which no known map is compared with, and for what the protocol
says under ``SELF_CHECK_WITH``, such as fewer steps (``docs/method.md`` says what was compared). A
metric of decisions needs its own steps, which are its resolution.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, get_args

from fxeval.contracts import Explainer, ExplainerTraits, FaceModel, PairSource
from fxeval.errors import FxevalError, for_a_record
from fxeval.metrics import kinds
from fxeval.records.schema import CellResult
from fxeval.records.self_checks import SelfCheck, Unfit
from fxeval.results import EXPLAINER, Outcome
from fxeval.run.keys import digest_of, fixture_key
from fxeval.run.measure import measure_cell, measure_rows, plan_of
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.fitness import meets
from fxeval.statistics.limit import in_words
from fxeval.statistics.limits import Limit
from fxeval.statistics.self_check import KNOWN_MAPS, Ground, not_checked, self_checks
from fxeval.suite.cells import Cell, Use
from fxeval.verification.demands import Verification

N = 40
"""Rows of a self-check: more than the 30 people whom a verdict needs, as in shipped suites."""

TWIN_CONTROLS: Mapping[str, str] = {
    "oracle": "oracle",
    "blurred_oracle": "blurred_oracle",
    "random": "random_pixels",
    "inverse": "inverse_oracle",
}
"""The control of a kind on twins that is each known map."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A network whose true maps are known, with explainers of known worth and faces.

    Attributes:
        model: The network.
        explainers: One for each of ``KNOWN_MAPS``.
        source: The faces.
        on: Network and faces in words.
    """

    model: FaceModel
    explainers: Mapping[str, Explainer]
    source: PairSource
    on: str


def planted() -> Planted:
    """Return the shipped planted network, the explainers that know it, and the bundled faces."""
    from fxeval.datasets.lists.face_pack import FacePack
    from fxeval.truth.patch_additive import PatchExplainer, Which, patch_model

    model, pack = patch_model(), Path(str(files("fxeval.fixtures"))) / "data" / "rendered_faces"
    explainers = {which: PatchExplainer(which) for which in get_args(Which)}
    return Planted(model, explainers, FacePack(pack), f"{model.name} on rendered faces")


class SelfChecks:
    """Checks metrics once for all cells of a process.

    Args:
        workshop: Returns one for the planted network alone, so that no cell knows of it; it is
            asked when the first metric needs it.
        ground: Returns the planted network, likewise; None = the shipped one.

    """

    def __init__(
        self, workshop: Callable[[], Workshop], ground: Callable[[], Planted] | None = None
    ) -> None:
        self._make = workshop, ground
        self._made: tuple[Workshop, Planted] | None = None
        self._known: dict[str, list[SelfCheck]] = {}
        self._of: dict[str, list[SelfCheck]] = {}

    def measured(
        self, cell: Cell, subjects: Subjects, workshop: Workshop, *, earlier: Sequence[Outcome] = ()
    ) -> CellResult:
        """Measure and judge a cell whose suite asks for self-checks; its metrics are checked first.

        Raises:
            ContractError: As ``measure_cell``.
            EvidenceError: Likewise.
        """
        if not cell.self_check:
            return measure_cell(cell, subjects, workshop, earlier=earlier)
        found = self._of[cell.id] = self.checked(cell, subjects, workshop)
        unfit = [
            Unfit(metric=one.metric, under=one.under, reason=one.reason)
            for one in found
            if one.fitness == "unfit"
        ]
        remarks = [
            f"{one.metric}{in_words(one.under)} was not checked on known maps: {one.reason}"
            for one in found
            if one.fitness == "not_checked"
        ]
        if not found and deciding(cell):
            remarks = [f"{cell.kind} was not checked on known maps: {why_not(cell.kind)}"]
        return measure_cell(cell, subjects, workshop, earlier=earlier, unfit=unfit, remarks=remarks)

    def take(self, cell: str) -> list[SelfCheck]:
        """Return what was found for the cell with an id that was just measured, once."""
        return self._of.pop(cell, [])

    def checked(self, cell: Cell, subjects: Subjects, workshop: Workshop) -> list[SelfCheck]:
        """Return what is known of the metrics on which the limits of a cell rest.

        Nothing is measured for a cell that decides nothing, or whose kind no truth is known for.
        """
        decides = deciding(cell)
        question = getattr(kinds()[cell.kind], "SELF_CHECK", None)
        if not decides or question is None:
            return []
        metrics = {limit.metric for limit in cell.limits}
        if not _rests_on_decisions(cell.kind, decides):  # measured in steps that are too coarse
            metrics -= _decisions(cell.kind)
        limits = [limit for limit in cell.limits if limit.metric in metrics]
        found, on = list[SelfCheck](), ""
        for parameters in parts_of(cell, decides):
            part = replace(cell, parameters=parameters)
            every, cost = self._of_part(part, subjects, workshop)
            asked = [one for one in every if any(_is_about(limit, one) for limit in limits)]
            found += _sharing(asked, *cost)
            on = next((one.on for one in every), on)
        missing = unchecked(cell, "no row has a value of it", on)
        return found + [one for one in missing if one.metric not in {one.metric for one in found}]

    def _of_part(
        self, cell: Cell, subjects: Subjects, workshop: Workshop
    ) -> tuple[list[SelfCheck], tuple[int, float]]:
        """Return what one measurement says of all metrics, and its cost; none if it was made."""
        is_margin = kinds()[cell.kind].SELF_CHECK == "margin"
        key, at = _key(cell, subjects if is_margin else None), workshop
        if key in self._known:
            return self._known[key], (0, 0.0)
        started = time.process_time()
        if is_margin:
            asked = self._on_twins(cell, subjects)
        else:
            asked, at = self._on_planted(cell), self._planted()[0]
        before = at.forwards
        self._known[key] = _measured(*asked, at)
        return self._known[key], (at.forwards - before, time.process_time() - started)

    def _planted(self) -> tuple[Workshop, Planted]:
        if self._made is None:
            workshop, ground = self._make
            self._made = workshop(), (ground or planted)()
        return self._made

    def _on_planted(self, cell: Cell) -> tuple[Cell, Subjects, Ground]:
        """Return what is measured in place of a cell on the planted network."""
        on = self._planted()[1]
        best, *others = KNOWN_MAPS
        asked = replace(
            _asked(cell, cell.parameters),
            model=Use(on.model.name),
            explainer=Use(best),
            pairs=Use(on.source.name),
            n=N,
            others=tuple(Use(name) for name in others),
            further=dict.fromkeys(getattr(kinds()[cell.kind], "OTHERS", {}), ()),
            file="",
        )
        compared = {name: on.explainers[name] for name in others}
        known = Subjects(on.model, on.explainers[best], on.source, compared=compared)
        names = {best: EXPLAINER, **{name: f"explainer:{name}" for name in others}}
        return asked, known, Ground("likeness", on.on, names)

    def _on_twins(self, cell: Cell, subjects: Subjects) -> tuple[Cell, Subjects, Ground]:
        """Return what is measured in place of a cell on its own model and twins."""
        controls = tuple(TWIN_CONTROLS[name] for name in KNOWN_MAPS)
        parameters = cell.parameters.model_copy(update={"controls": controls})
        asked = replace(_asked(cell, parameters), explainer=Use("known_maps"))
        names = {known: f"control.{control}" for known, control in TWIN_CONTROLS.items()}
        on = f"{cell.model.name}, the twins of {cell.pairs.name}"
        return (
            asked,
            replace(subjects, explainer=BrightPixels(), compared={}),
            Ground("margin", on, names),
        )


@dataclass(frozen=True)
class BrightPixels:
    """Calls the bright pixels of a probe important; stands where a cell needs some explainer."""

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(takes_contrast=True)

    def explain(
        self, model: FaceModel, probes: Any, references: Any,  # noqa: ANN401
        *, contrast: Any = None, generator: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401  # fmt: skip
        """Return the mean of the colours, (N, H, W)."""
        return probes.mean(dim=1)


def deciding(cell: Cell) -> list[Limit]:
    """Return the limits of a cell that decide its verdict."""
    known = {one.name for one in kinds()[cell.kind].METRICS if one.information_only}
    return [
        limit
        for limit in cell.limits
        if limit.severity == "critical"
        and limit.metric not in known
        and limit.applies_to(cell.explainer.name)
    ]


def unchecked(cell: Cell, reason: str, on: str = "") -> list[SelfCheck]:
    """Return that the metrics on which a cell's verdict rests were not checked, with the reason."""
    ground = Ground(kinds()[cell.kind].SELF_CHECK, on, {})
    names = dict.fromkeys(limit.metric for limit in deciding(cell))
    return [not_checked(cell.kind, name, {}, ground, reason) for name in names]


def why_not(kind: str) -> str:
    """Return why the metrics of a kind of check are not checked on known maps."""
    said: str = getattr(kinds()[kind], "NO_SELF_CHECK", "")
    return said or "no map is known that it must call good or bad"


def parts_of(cell: Cell, decides: Sequence[Limit]) -> Iterator[Any]:
    """Yield the parameters of each measurement: one a fill on which deciding limits rest."""
    protocol, parameters = kinds()[cell.kind], cell.parameters
    update: dict[str, Any] = {}
    is_coarse = not _rests_on_decisions(cell.kind, decides)
    for name, value in getattr(protocol, "SELF_CHECK_WITH", {}).items():
        own = getattr(parameters, name)
        if isinstance(value, str):
            update[name] = value
        elif is_coarse:
            update[name] = min(own, value) if isinstance(value, int) else value
    if hasattr(parameters, "controls"):
        update["controls"] = ()
    if hasattr(parameters, "evaluators"):
        update["evaluators"] = None
    fills = getattr(parameters, "fills", None)
    if fills is None or getattr(protocol, "CONDITIONS", {}).get("fill") != "fills":
        yield parameters.model_copy(update=update)
        return
    for fill in fills:
        if any(meets(limit.under, {"fill": fill}) for limit in decides):
            yield parameters.model_copy(update={**update, "fills": (fill,)})


def _decisions(kind: str) -> set[str]:
    return {one.name for one in kinds()[kind].METRICS if one.is_decision}


def _rests_on_decisions(kind: str, decides: Sequence[Limit]) -> bool:
    return not _decisions(kind).isdisjoint(limit.metric for limit in decides)


def _asked(cell: Cell, parameters: Any) -> Cell:  # noqa: ANN401  (of the kind)
    """Return the cell that is measured in place of a cell: without limits, at one seed."""
    words = ", ".join(getattr(parameters, "fills", ())) or "all"
    return replace(
        cell,
        id=f"self_check:{cell.kind}[{cell.model.name}-{words}]",
        check="self_check",
        why="",
        limits=(),
        parameters=parameters,
        on_inconclusive="warn",
        verification=Verification(floor="none"),
        seeds=1,
        others=(),
        further={},
        demands={},
        slices=(),
        self_check=False,
    )


def _measured(
    cell: Cell, subjects: Subjects, ground: Ground, workshop: Workshop
) -> list[SelfCheck]:
    """Measure a cell of known maps; where that cannot be, no metric of the kind is checked."""
    try:
        rows = measure_rows(cell, subjects, workshop)
        return self_checks(plan_of(cell), rows, ground)
    except FxevalError as error:
        return [
            not_checked(cell.kind, one.name, {}, ground, for_a_record(error))
            for one in kinds()[cell.kind].METRICS
            if not one.information_only
        ]
    finally:
        workshop.take_told()  # of no explainer of the user


def _sharing(found: Sequence[SelfCheck], forwards: int, seconds: float) -> list[SelfCheck]:
    """Return entries of one measurement with a share of its cost each, so that sums are right."""
    n = len(found)
    return [
        one.model_copy(
            update={"forwards": forwards // n + (place < forwards % n), "seconds": seconds / n}
        )
        for place, one in enumerate(found)
    ]


def _is_about(limit: Limit, check: SelfCheck) -> bool:
    return limit.metric == check.metric and meets(limit.under, check.under)


def _key(cell: Cell, subjects: Subjects | None) -> str:
    """Name what decides the outcome: on twins, also the model and the list."""
    parameters = json.dumps(cell.parameters.model_dump(mode="json"), sort_keys=True)
    own: tuple[object, ...] = ()
    if subjects is not None:
        uses = fixture_key(cell, cell.model), fixture_key(cell, cell.pairs)
        own = *uses, cell.n, subjects.model.digest
    return digest_of(cell.kind, parameters, cell.confidence, cell.seed, cell.device, *own)

"""Which layer and which objective? A search on one half of the people, reported on the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from fxeval.contracts import SaliencyMaps
from fxeval.errors import (
    EvidenceError,
    ExplainerContractError,
    UnsupportedError,
    for_a_record,
)
from fxeval.explainers.objectives import Objective
from fxeval.functional.controls import CONTROLS
from fxeval.hooks.layers import check_spelling
from fxeval.metrics.occlusion import (
    AREA,
    COSINE_DROP,
    TMR,
    Asked,
    HeldOutParameters,
    OcclusionControl,
    occlude,
)
from fxeval.metrics.occlusion import CONDITIONS as OCCLUSION
from fxeval.metrics.orders import Control, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, OtherExplainer, Rows
from fxeval.records.selection import Configuration
from fxeval.results import EXPLAINER, Condition, RowState
from fxeval.statistics.selected import (
    AS_GIVEN,
    CONFIGURATION,
    HALF,
    REPORT,
    SELECTED,
    SELECTION,
    Choice,
    words_of,
)
from fxeval.strict.forms import once

ROWS = "held-out mated pairs"
METRICS = (TMR, COSINE_DROP, AREA)
CONDITIONS = {
    "layer": "layers",
    "objective": "objectives",
    **OCCLUSION,
    HALF: (SELECTION, REPORT),
    CONFIGURATION: (SELECTED,),
}
SELECTS = Choice(axes=("layer", "objective"), by="select_by", metrics=(TMR.name, COSINE_DROP.name))

Controls = Annotated[tuple[OcclusionControl | Literal["as_given"], ...], AfterValidator(once)]

_OF_THE_MAPS = frozenset(name for name, one in CONTROLS.items() if one.depends_on_explainer)
_SHOWN = 3  # reasons in the message if every configuration is refused


def _objective(text: str) -> str:
    return _read(text, lambda: Objective.parse(text, ""))


def _layer(name: str) -> str:
    return _read(name, lambda: check_spelling(name, ""))


def _read(text: str, read: Callable[[], object]) -> str:
    """Return a text that can be read.

    Raises:
        ValueError: With what was expected; whoever reports it says what came, and where.
    """
    try:
        read()
    except ExplainerContractError as error:
        raise ValueError(str(error).removeprefix(": ").rpartition(", got ")[0]) from error
    return text


_Each = AfterValidator(once)
Layers = Annotated[tuple[Annotated[str, AfterValidator(_layer)], ...], Field(min_length=1), _Each]
Objectives = Annotated[
    tuple[Annotated[str, AfterValidator(_objective)], ...], Field(min_length=1), _Each
]


class Parameters(HeldOutParameters):
    """Parameters of a search for a layer and an objective.

    Attributes:
        layers: Values of the explainer's ``layer``: names of modules, or ``conv[i]`` and
            ``stage[i]``. One that a model does not have is listed as refused.
        objectives: Values of the explainer's ``objective``.
        controls: Maps whose right answer is known, measured on the same pairs; ``as_given`` is the
            explainer as the suite gives it.
        select_by: The metric that chooses on the selection half; the other breaks ties, then the
            order of ``layers`` and ``objectives``.
    """

    controls: Controls = (  # type: ignore[assignment]  # one more than other protocols have
        "random_pixels", "random_blobs", "unoccluded", "as_given",
    )  # fmt: skip

    layers: Layers = ("conv[-1]", "conv[-2]", "stage[-1]", "stage[-2]")
    objectives: Objectives = ("cos", "arc_softmax(s=64, m=0.3)", "triplet")
    select_by: Literal["occlusion_tmr", "occlusion_cosine_drop"] = "occlusion_tmr"


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Occlude the pixels of every configuration of the explainer.

    The people are halved by the content of their images; a row has its values under
    ``half: selection`` or ``half: report``. Controls that do not depend on the explainer, and the
    explainer as it is given, have values under no configuration.

    Args:
        evidence: Of a group of mated pairs.
        parameters: Of the check.

    Returns:
        The values of every configuration with maps of its own; what is best is found later, from
        the rows (``fxeval.statistics.selection``).

    Raises:
        UnsupportedError: If the explainer has no layer or no objective to set.
        ExplainerContractError: If every configuration is refused.
    """
    of = np.array(halves(evidence.everyone, evidence.seed_of))
    ledger = _Halved(evidence, METRICS, halves=of[evidence.places().numpy()])
    tried = _tried(evidence, parameters)
    ledger.configurations = [one for one, _ in tried]
    _without_configuration(evidence, ledger, parameters)
    own = [one for one in parameters.controls if one in _OF_THE_MAPS]
    asked = parameters.model_copy(update={"controls": tuple(own)})
    for configuration, variant in tried:
        if variant is not None:
            by = evidence.by(variant)
            maps = by.explain(by.subject)
            occlude(by, ledger, by.subject, maps, asked, under=configuration.under)
            _remark_bad(ledger, configuration, by.reference_maps(by.subject)[0])
    return ledger


@dataclass
class _Halved(Ledger):
    """A ledger that enters each row's values under its half.

    Attributes:
        halves: (n,) of the rows of the group.
    """

    halves: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))

    def enter(
        self, metric: str, map_: str, values: FloatArray, states: Sequence[RowState],
        under: Condition | None = None, *, about: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Enter (n,) values of one metric, each under the half of its row."""
        for half in (SELECTION, REPORT):
            among = self.halves == half
            if about is not None:
                among &= about
            super().enter(metric, map_, values, states, {**(under or {}), HALF: half}, about=among)


def halves(rows: Rows, seed_of: Callable[[str, str, str], int]) -> tuple[str, ...]:
    """Halve the people of some rows; of an odd number, one more is in the report half.

    A person goes by the content of its images, so the order of the rows changes nothing.

    Args:
        rows: All rows of a cell, each of one person.
        seed_of: (purpose, row id, label) -> seed.

    Returns:
        The half of each row.
    """
    of_person: dict[int, str] = {}
    for person, id in zip(rows.identities[:, 0].tolist(), rows.id, strict=True):
        of_person[person] = min(id, of_person.get(person, id))
    ordered = sorted(
        of_person, key=lambda one: (seed_of("half", of_person[one], ""), of_person[one])
    )
    half = {person: (REPORT, SELECTION)[turn % 2] for turn, person in enumerate(ordered)}
    return tuple(half[person] for person in rows.identities[:, 0].tolist())


def _tried(
    evidence: Evidence, parameters: Parameters
) -> list[tuple[Configuration, OtherExplainer | None]]:
    """Return every configuration, with its explainer if it has maps of its own."""
    found: list[tuple[Configuration, OtherExplainer | None]] = []
    for layer, objective in product(parameters.layers, parameters.objectives):
        under: dict[str, str | float] = {"layer": layer, "objective": objective}
        try:
            variant = evidence.variant(layer=layer, objective=objective)
        except ExplainerContractError as error:
            found.append((Configuration(under=under, refused=for_a_record(error)), None))
            continue
        try:
            evidence.by(variant).explain(evidence.subject)
        except (ExplainerContractError, UnsupportedError, EvidenceError) as error:
            found.append((Configuration(under=under, refused=for_a_record(error)), None))
            continue
        same = next(
            (one for one, other in found
             if other is not None and evidence.alike(evidence.subject, other, variant)), None,
        )  # fmt: skip
        if same is None:
            found.append((Configuration(under=under), variant))
        else:
            found.append((Configuration(under=under, same_as=same.under), None))
    if all(one.refused for one, _ in found):
        reasons = [*dict.fromkeys(one.refused for one, _ in found)]
        more = f"; and {len(reasons) - _SHOWN} more reasons" * (len(reasons) > _SHOWN)
        raise ExplainerContractError(
            f"all {len(found)} configurations are refused: {'; '.join(reasons[:_SHOWN])}{more}"
        )
    return found


def _without_configuration(evidence: Evidence, ledger: Ledger, parameters: Parameters) -> None:
    """Enter what no configuration has a part in: the explainer as given, and the controls."""
    subject = evidence.subject
    controls = [
        cast("Control", one)
        for one in parameters.controls
        if one not in ("unoccluded", "as_given") and one not in _OF_THE_MAPS
    ]
    maps = _no_maps(evidence)
    try:
        if "as_given" in parameters.controls:
            maps = evidence.explain(subject)
    except (ExplainerContractError, UnsupportedError, EvidenceError) as error:
        ledger.remark(f"{AS_GIVEN}: no values: {for_a_record(error)}")
    asked = Asked(evidence, ledger, subject)
    for order in orders(evidence, subject, maps, controls, draws=parameters.repeats):
        if order.map != EXPLAINER:
            asked.enter(order, order.map, parameters, {})
        elif len(order.kept):
            asked.enter(order, AS_GIVEN, parameters, {})
    if "unoccluded" in parameters.controls:
        asked.enter_clean(parameters, {})


def _no_maps(evidence: Evidence) -> SaliencyMaps:
    n = len(evidence.rows)
    broken = torch.full((n, *evidence.subject.size), torch.nan)
    return SaliencyMaps(broken, None, (RowState.EXPLAINER_RAISED,) * n, ("",) * n)


def _remark_bad(ledger: Ledger, configuration: Configuration, maps: SaliencyMaps) -> None:
    """Say how many maps of a configuration have no order, and why the first has none."""
    bad = [row for row, state in enumerate(maps.states) if state is not RowState.OK]
    if bad:
        states = sorted({maps.states[row].value for row in bad})
        reason = next((maps.reasons[row] for row in bad if maps.reasons[row]), "")
        words = words_of(tuple(configuration.under.items()))
        ledger.remark(
            f"{words}: {len(bad)} of {len(maps.states)} maps "
            f"are {' or '.join(states)}{f'; first: {reason}' if reason else ''}"
        )

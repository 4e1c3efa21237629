"""Does the map change when the weights do? (Adebayo et al. 2018).

The network is re-drawn as a whole, or in steps: from the output to the input or from the input to
the output, each step together with all before it, or every step on its own. A similarity says
little alone: maps of two people's faces are alike before any weight is read, and a noisy map is
like no other. So the similarity of maps of other identities stands beside it, and, on request, that
of maps of another draw of the explainer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from fxeval.contracts import SaliencyMaps
from fxeval.functional.map_structure import (
    SIMILARITIES,
    TOP,
    Described,
    Similarity,
    compared,
    describe,
)
from fxeval.metrics.protocol import (
    Evidence,
    FloatArray,
    Ledger,
    Redraw,
    taken,
    usable,
    worst,
)
from fxeval.metrics.redraw_steps import Cascade, redraws
from fxeval.results import BROKEN_STATES, EXPLAINER, Condition, Metric, RowState
from fxeval.strict.forms import once

ROWS = "mated pairs"
NO_SELF_CHECK = "controls that must not pass show what it stops (docs/method.md)"

Mode = Literal["full", Cascade]

MOST_STEPS = 32
CONDITIONS = {"mode": "modes", "step": tuple(range(1, MOST_STEPS + 1))}


class Parameters(BaseModel):
    """Parameters of a model-randomisation check.

    Attributes:
        modes: What is re-drawn. ``full``: every layer at once; its metrics have no condition.
            ``cascading_top_down``: the layers from the output to each step;
            ``cascading_bottom_up``: those from the input; ``independent``: each step's own, alone.
        steps: Number of groups of neighbouring layers that these modes go through, in the order in
            which the layers work.
        layers: ``groups``, or ``modules``: every module that owns weights is a step of its own,
            whatever ``steps`` is. Limits can name the first 32 of them.
        redraws: Number of differently seeded networks; a pair's value is the mean over them.
        similarities: How maps are compared.
        fraction: Of the pixels, whose overlap is measured: exactly ``max(1, floor(fraction * n +
            0.5))`` of n.
        another_draw: Compare with the maps of another draw of the explainer too: one more set of
            maps, if it depends on its seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modes: Annotated[tuple[Mode, ...], Field(min_length=1), AfterValidator(once)] = ("full",)
    steps: Annotated[int, Field(ge=2, le=MOST_STEPS, strict=True)] = 8
    layers: Literal["groups", "modules"] = "groups"
    redraws: Annotated[int, Field(ge=1, le=20, strict=True)] = 1
    similarities: Annotated[
        tuple[Similarity, ...], Field(min_length=1), AfterValidator(once)
    ] = SIMILARITIES  # fmt: skip
    fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = TOP
    another_draw: StrictBool = False


_ABSOLUTE = "absolute_rank_correlation"
_MEASURES = {
    "rank_correlation": ("Rank correlation", "Spearman correlation", (-1.0, 1.0)),
    _ABSOLUTE: ("Absolute rank correlation", "absolute Spearman correlation", (0.0, 1.0)),
    "ssim": ("Structural similarity", "SSIM", (-1.0, 1.0)),
    "hog_correlation": ("Correlation of oriented edges", "Spearman correlation", (-1.0, 1.0)),
    "top_overlap": ("Overlap of the most salient pixels", "intersection over union", (0.0, 1.0)),
}
_FULL, _PARTLY = "fully_randomised", "partly_randomised"
_OTHERS, _DRAW = "of_other_identities", "of_another_draw"
_AGAINST = {
    _FULL: (
        "with the map of a re-drawn network",
        "Near that of other identities when the map depends on the weights; near 1 when any "
        "network would do.",
    ),
    _PARTLY: (
        "with the map of a partly re-drawn network",
        "Falls with each step whose weights the map depends on.",
    ),
    _OTHERS: (
        "with the map of another identity",
        "What is common to all faces of the list under the trained network; no re-drawn network "
        "need have less.",
    ),
    _DRAW: (
        "with the map of another draw of the explainer",
        "What is left of a map when only the explainer's seed changes; 1 for an explainer that "
        "does not depend on it.",
    ),
}  # fmt: skip
INFORMATION = (
    "a limit on it tells explainers from controls no better than a coin (AUC 0.51 over 29 cells of "
    "explainers and 58 of controls), as noise changes with the weights too"
)

METRICS = tuple(
    Metric(
        name=f"{measure_}_{against}",
        title=f"{title} {with_}",
        unit=unit,
        better="higher" if against == _DRAW else "lower",
        range=range_,
        statistic="median",
        kind="light",
        source="Adebayo et al. 2018, Sanity Checks for Saliency Maps, sec. 3-4",
        meaning=meaning,
        information_only=INFORMATION,
    )
    for against, (with_, meaning) in _AGAINST.items()
    for measure_, (title, unit, range_) in _MEASURES.items()
)


@dataclass(frozen=True, eq=False)
class _Set:
    """Maps of the rows that are measured, described."""

    described: Described
    states: tuple[RowState, ...]


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Compare the maps of the trained network with those of re-drawn ones, row by row.

    The whole system is re-drawn: the reference is embedded by the re-drawn network too. Mask banks
    are the same before and after. A constant map takes part with its seeded random order.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        Similarities of each row, each the mean over the re-drawn networks. Whether the networks
        are fit for the comparison is judged later, from the rows and the networks' own figures
        (``fxeval.statistics.redrawn``).
    """
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    before = ledger.watch(evidence.rows.side, evidence.explain(subject))
    trained = _described(before, evidence, "trained", parameters)
    known: dict[Redraw, _Set] = {}

    def of(wanted: Redraw) -> _Set:
        if wanted not in known:  # several modes share networks
            redrawn = subject.redraw(wanted)
            after = ledger.watch_redrawn(redrawn, evidence.explain(redrawn.subject))
            label = f"redrawn{wanted.index}" + f" {wanted.of}" * bool(wanted.of)
            known[wanted] = _described(after, evidence, label, parameters, is_redrawn=True)
        return known[wanted]

    for mode in parameters.modes:
        for step, wanted in enumerate(_networks(evidence, mode, parameters), start=1):
            under: Condition = {} if mode == "full" else {"mode": mode, "step": step}
            found = [of(replace(wanted, index=index)) for index in range(parameters.redraws)]
            _enter(ledger, _FULL if mode == "full" else _PARTLY, under, trained, found)
    _with_others(ledger, trained, parameters)
    if parameters.another_draw:
        again = evidence.explain(subject, draw=1)
        other = _described(again, evidence, "another draw", parameters)
        _enter(ledger, _DRAW, {}, trained, [other])
    return ledger


def _networks(evidence: Evidence, mode: Mode, parameters: Parameters) -> list[Redraw]:
    """Return what is re-drawn in each step of a mode."""
    if mode == "full":
        return [Redraw()]
    steps = None if parameters.layers == "modules" else parameters.steps
    return redraws(evidence.subject.layers(steps), mode)


def _with_others(ledger: Ledger, trained: _Set, parameters: Parameters) -> None:
    """Enter the similarities with maps of other identities under the trained network."""
    evidence = ledger.evidence
    maps, identities = evidence.reference_maps(evidence.subject)
    partners = _partners(evidence, usable(maps.states), identities)
    about = partners >= 0
    theirs = taken(maps, torch.from_numpy(np.where(about, partners, 0)))
    # Who has no partner gets no value, whatever stands in the partner's place.
    other = _described(theirs, evidence, "other identity", parameters)
    _enter(ledger, _OTHERS, {}, trained, [_Set(other.described, trained.states)], about=about)


def _partners(
    evidence: Evidence, has_map: NDArray[np.bool_], identities: Sequence[int]
) -> NDArray[np.int64]:
    """Return, for each row of the group, a row of another identity that has a map; -1 = none.

    The next one of all rows in the order of their names, so that neither the order of the list nor
    the group matters.
    """
    everyone = evidence.everyone.id
    order = sorted(range(len(everyone)), key=lambda row: everyone[row])
    at = {row: place for place, row in enumerate(order)}
    found = []
    for row in evidence.places().tolist():
        after = order[at[row] + 1 :] + order[: at[row]]
        found.append(
            next((one for one in after if has_map[one] and identities[one] != identities[row]), -1)
        )
    return np.array(found, dtype=np.int64)


def _described(
    maps: SaliencyMaps, evidence: Evidence, label: str, parameters: Parameters,
    *, is_redrawn: bool = False,
) -> _Set:  # fmt: skip
    """Describe maps; those without an order count as zeros, and their rows get no value."""
    values = maps.positive.clone()
    values[~usable(maps.states)] = 0.0
    seeds = [evidence.seed("ties", row, label) for row in range(len(values))]
    described = describe(values, seeds, fraction=parameters.fraction, of=parameters.similarities)
    # A constant map of a re-drawn network is no fault.
    states = tuple(
        state if state in BROKEN_STATES or not is_redrawn else RowState.OK for state in maps.states
    )
    return _Set(described, states)


def _enter(
    ledger: Ledger, against: str, under: Condition, trained: _Set,
    several: Sequence[_Set], *, about: NDArray[np.bool_] | None = None,
) -> None:  # fmt: skip
    """Enter the mean similarities of the trained network's maps with those of several sets."""
    states = worst([trained.states, *(one.states for one in several)])
    broken = np.array([state in BROKEN_STATES for state in states], dtype=bool)
    if about is not None:
        broken |= ~about
    found = [compared(trained.described, one.described) for one in several]
    for similarity in found[0]:
        values: FloatArray = np.stack([one[similarity] for one in found])
        entered: dict[str, FloatArray] = {similarity: values.mean(axis=0)}
        if similarity == "rank_correlation":
            entered[_ABSOLUTE] = np.abs(values).mean(axis=0)
        for name, means in entered.items():
            ledger.enter(
                f"{name}_{against}", EXPLAINER, np.where(broken, np.nan, means), states, under,
                about=about,
            )  # fmt: skip

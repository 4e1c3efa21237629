"""Does the map change when the labels were permuted before training? (Adebayo et al. 2018, sec. 3).

Two copies of one small network of fxeval's own learn the faces of the list by heart, one with their
true labels and one with labels that were permuted image by image. What the first learnt of people,
the second cannot have learnt. The question is about the explainer: the cell's own model gives the
crop, and has no other part in the values.
"""

from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.map_similarity import pooled, residuals, spearman
from fxeval.functional.map_structure import ssim
from fxeval.functional.ranking import ranks
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Training, usable, worst
from fxeval.results import BROKEN_STATES, EXPLAINER, Metric, RowState

ROWS = "mated pairs"
NO_SELF_CHECK = "controls that must not pass show what it stops (docs/method.md)"

_LEAST_SIDE = 11  # of maps whose structural similarity is defined


class Parameters(BaseModel):
    """Parameters of a data-randomisation check.

    Attributes:
        epochs: Passes over the images of the list at most; each of the two networks is trained
            until it knows 99 % of its labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    epochs: Annotated[int, Field(ge=1, le=1000)] = 200


_SOURCE = "Adebayo et al. 2018, Sanity Checks for Saliency Maps, sec. 3 and 5 (data randomisation)"
INFORMATION = (
    "nobody has calibrated a limit on the similarity of maps under permuted labels, and the "
    "networks are small ones of fxeval's own"
)


def _metric(name: str, title: str, unit: str, low: float, meaning: str) -> Metric:
    return Metric(
        name=f"{name}_permuted_labels",
        title=f"{title} with the map under permuted labels",
        unit=unit,
        better="lower",
        range=(low, 1.0),
        statistic="median",
        kind="light",
        source=_SOURCE,
        meaning=meaning,
        information_only=INFORMATION,
    )


RESIDUAL = _metric(
    "absolute_residual_correlation", "Correlation of what is of this face, sign dropped,",
    "absolute Spearman correlation", 0.0,
    "Each map less the mean map of other people under the same network, at 28 x 28. Near 0 when "
    "the map depends on what was learnt of people; unrelated smooth maps have 0.15 to 0.18.",
)  # fmt: skip
SIGNED = _metric(
    "rank_correlation", "Rank correlation", "Spearman correlation", -1.0,
    "Near 0 when the map depends on the labels; near 1 when it would be the same without them.",
)  # fmt: skip
ABSOLUTE = _metric(
    "absolute_rank_correlation", "Rank correlation, sign dropped,",
    "absolute Spearman correlation", 0.0,
    "As before, but an inverted copy of the map counts as unchanged too.",
)  # fmt: skip
STRUCTURE = _metric(
    "ssim", "Structural similarity", "SSIM", -1.0,
    "Of the maps scaled to 0..1; 1 for equal maps. A noisy map has almost none with any other.",
)  # fmt: skip
METRICS = RESIDUAL, SIGNED, ABSOLUTE, STRUCTURE


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Compare the maps of two networks that learnt the list, with and without its true labels.

    A constant map takes part with its seeded random order; as a residual or a structure it has
    none, and counts as a similarity of 0.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        Four similarities per row. Whether both networks learnt their labels is judged later, from
        their part of the record (``fxeval.statistics.taught``).
    """
    ledger, rows = Ledger(evidence, METRICS), evidence.rows
    sets, orders, own = [], [], []
    for labels in ("true", "permuted"):
        student = evidence.subject.train(Training(labels, parameters.epochs))
        maps = ledger.watch_student(student, evidence.explain(student.subject))
        sets.append(maps)
        orders.append(_ordered(maps, evidence, labels))
        own.append(_residuals(evidence, *evidence.reference_maps(student.subject)))
    rho = spearman(*orders)
    found: dict[str, FloatArray] = {
        RESIDUAL.name: np.abs(np.nan_to_num(spearman(*own))),  # no order is no similarity
        SIGNED.name: rho,
        ABSOLUTE.name: np.abs(rho),
        STRUCTURE.name: np.nan_to_num(_structure(*sets)),
    }
    states = worst([sets[0].states, _forgiven(sets[1])])
    broken = np.array([state in BROKEN_STATES for state in states], dtype=bool)
    is_small = min(sets[0].positive.shape[1:]) < _LEAST_SIDE
    for name, values in found.items():
        if name == STRUCTURE.name and is_small:
            ledger.remark(f"{name}: no values: maps have sides of {_LEAST_SIDE} pixels at least")
            missing = (RowState.EXCLUDED,) * len(rows)
            ledger.enter(name, EXPLAINER, np.full(len(rows), np.nan), missing)
        else:
            ledger.enter(name, EXPLAINER, np.where(broken, np.nan, values), states)
    return ledger


def _residuals(evidence: Evidence, maps: SaliencyMaps, identities: list[int]) -> Tensor:
    """Return (n, 784): what is left of the group's maps without the mean map of other people."""
    small, has_order = pooled(maps.positive)
    left = residuals(small, identities, has_order & torch.as_tensor(usable(maps.states)))
    return left[evidence.places()].flatten(1)


def _ordered(maps: SaliencyMaps, evidence: Evidence, label: str) -> Tensor:
    """Return (n, H*W) values to correlate; a constant map becomes a seeded random order."""
    values = _finite(maps).flatten(1).double()
    flat = [row for row, state in enumerate(maps.states) if state is RowState.DEGENERATE_MAP]
    if flat:
        seeds = [evidence.seed("ties", row, f"{label} labels") for row in flat]
        # Rank 0 is the most salient pixel, so minus the rank is a map with that order.
        values[flat] = -ranks(maps.positive[flat], seeds).double()
    return values


def _structure(one: SaliencyMaps, other: SaliencyMaps) -> FloatArray:
    if min(one.positive.shape[1:]) < _LEAST_SIDE:
        return np.full(len(one.states), np.nan)
    return ssim(_finite(one), _finite(other))


def _finite(maps: SaliencyMaps) -> Tensor:
    """Return the maps with zeros in those that are broken; these rows get no value anyway."""
    values = maps.positive.clone()
    values[~usable(maps.states)] = 0.0
    return values


def _forgiven(maps: SaliencyMaps) -> tuple[RowState, ...]:
    """Return states in which a constant map is not a fault."""
    return tuple(state if state in BROKEN_STATES else RowState.OK for state in maps.states)

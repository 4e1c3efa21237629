"""The order in which maps and controls remove the pixels of a subject's images.

Every protocol that removes pixels starts here; protocols differ only in the question they ask after
the removal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Maps, Perturbations, SaliencyMaps
from fxeval.errors import EvidenceError
from fxeval.functional.controls import ControlInputs, control_maps, mean_map
from fxeval.functional.ranking import count, ranks
from fxeval.metrics.protocol import Evidence, FloatArray, Subject, usable
from fxeval.results import EXPLAINER, RowState

Control = Literal["random_pixels", "random_blobs", "centre", "edge", "mean_map", "inverse"]


@dataclass(frozen=True, eq=False)
class Order:
    """Ranks of one map (the explainer's, or a control's) on one subject.

    Attributes:
        map: ``explainer`` or ``control.<name>``.
        kept: (B,) positions of the group's rows whose map has an order.
        ranks: (B, H*W) int32, 0 = most salient.
        states: One for each row of the group.
    """

    map: str
    kept: NDArray[np.int64]
    ranks: Tensor
    states: tuple[RowState, ...]


def orders(
    evidence: Evidence, on: Subject, maps: SaliencyMaps, controls: Sequence[Control] = ()
) -> Iterator[Order]:
    """Yield the explainer's order on a subject, then those of the controls.

    Ties are ordered by a seeded hash of the pixel. A constant map gets a random order and keeps its
    state.

    Args:
        evidence: Of the group.
        on: The subject whose pixels are ranked.
        maps: The explainer's maps of the group, made on the cell's own subject.
        controls: Names of controls.
    """
    ties = [evidence.seed("ties", row) for row in range(len(evidence.rows))]
    for name in (EXPLAINER, *(f"control.{control}" for control in controls)):
        found, states = _maps(name, evidence, on, maps)
        kept = np.flatnonzero(usable(states))
        seeds = [ties[row] for row in kept.tolist()]
        yield Order(name, kept, ranks(found[kept], seeds), tuple(states))


def answers(
    evidence: Evidence, on: Subject, order: Order, fraction: float, fill: str,
    *, retains: bool = False,
) -> FloatArray:  # fmt: skip
    """Ask the rows' question once their most salient fraction is gone, or only it is left.

    Args:
        evidence: Of the group.
        on: The subject that is asked.
        order: The order of the pixels.
        fraction: Fraction of the pixels, exactly ``count(fraction, H*W)`` of them.
        fill: What replaces removed pixels.
        retains: Remove the rest, and keep the fraction.

    Returns:
        (n,) answers; NaN where a row's map has no order.
    """
    b, pixels = order.ranks.shape
    k = count(fraction, pixels)
    bounds = (k, pixels) if retains else (0, k)
    first, last = (torch.full((b,), bound) for bound in bounds)
    gone = Perturbations(
        evidence.rows.image[order.kept], order.ranks, torch.arange(b), first, last, fill
    )
    kept = torch.from_numpy(order.kept)
    found: FloatArray = np.full(len(evidence.rows), np.nan)
    found[order.kept] = evidence.rows.question.answer(on, kept, on.embed(gone)).double().numpy()
    return found


def _maps(
    name: str, evidence: Evidence, on: Subject, maps: SaliencyMaps
) -> tuple[Maps, Sequence[RowState]]:
    """Return (n, H, W) maps by name, in the subject's crop, and their states."""
    n, control = len(evidence.rows), name.removeprefix("control.")
    if name == EXPLAINER:
        return on.fit(evidence.subject, maps.positive), maps.states
    if control == "inverse":
        return -on.fit(evidence.subject, maps.positive), maps.states
    if control == "mean_map":
        everyone, identities = evidence.reference_maps(evidence.subject)
        try:
            means = mean_map(everyone.positive, identities)[evidence.places()]
        except EvidenceError:  # too few maps have an order
            return on.fit(evidence.subject, maps.positive), [RowState.EXCLUDED] * n
        return on.fit(evidence.subject, means), [RowState.OK] * n
    inputs = ControlInputs(
        probes=on.pixels(evidence.rows.image),
        row_seeds=[evidence.seed("control", row) for row in range(n)],
        identities=evidence.rows.identities[:, 0].tolist(),
    )
    return control_maps(control, inputs), [RowState.OK] * n

"""Table of how close explainers come to a known truth; ``python -m fxeval.truth`` prints it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import BROKEN_STATES, Explainer, FaceModel, Maps, SaliencyMaps, traits_of
from fxeval.errors import FxevalError
from fxeval.explainers import SHIPPED, shipped
from fxeval.explainers.map_levels import pair_maps, triplet_maps
from fxeval.functional.controls import CONTROLS, ControlInputs, control_maps
from fxeval.models.loading import TorchFaceModel
from fxeval.results import Estimate
from fxeval.seeding import generator_of, seed_of
from fxeval.statistics.estimate import Law, Sample, estimate
from fxeval.truth.evidence_regions import KnownPairs
from fxeval.truth.planted import (
    CELL,
    SIDE,
    AdditiveFace,
    PlantedPairs,
    contributions,
    planted_model,
    planted_pairs,
    rank_correlation,
    truth,
)

LAW = Law("mean", "light", -1.0, 1.0)  # of rank correlations

# Parameters of the shipped explainers that are not in the table with their defaults alone. With its
# defaults, minplus takes 46,000 forward passes a pair; precomputed reads files; rollout needs
# attention, which the planted model has not.
SETTINGS: Mapping[str, tuple[Mapping[str, Any], ...]] = MappingProxyType(
    {
        "srise": ({}, {"coverage_corrected": True}),
        "rise": ({}, {"coverage_corrected": True}),
        "minplus": ({"step": 8},),
        "ebp": ({}, {"variant": "contrastive"}),
        "precomputed": (),
        "rollout": (),
    }
)


@dataclass(frozen=True)
class PlantedRow:
    """How close an explainer or a control comes to the truth.

    Attributes:
        name: Its id.
        correlation: Mean Spearman correlation with the truth; a map without an order counts as 0.
            None if no map could be made.
        with_magnitude: The same with the absolute value of the truth: the fair measure for maps
            that do not tell evidence for from evidence against.
        degenerate: Maps without an order.
        broken: Pairs that have no map; they are left out of the means.
        forwards: Images embedded per pair, with or without gradients.
        note: Why there is no map.
    """

    name: str
    correlation: Estimate | None
    with_magnitude: Estimate | None
    degenerate: int = 0
    broken: int = 0
    forwards: float = 0.0
    note: str = ""


def planted_table(
    n: int = 24, *, explainers: Mapping[str, Explainer] | None = None, seed: int = 0
) -> list[PlantedRow]:
    """Measure explainers and controls on n planted pairs.

    Args:
        n: Number of pairs, each of another identity.
        explainers: By name; None = all shipped ones as in ``SETTINGS``. Those that need a contrast
            get nonmates, and are compared with the truth for that contrast.
        seed: Seed of model, images and mask banks.
    """
    if explainers is None:
        explainers = shipped_explainers()
    model = planted_model(seed)
    pairs = planted_pairs(model, n, seed)
    plain = truth(model, pairs.probes, pairs.references)
    discriminative = truth(model, pairs.probes, pairs.references, pairs.nonmates)
    rows, forwards = [], list[int]()

    def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        forwards.append(len(inputs[0]))

    model.module.register_forward_pre_hook(count)
    for name, explainer in explainers.items():
        forwards.clear()
        try:
            maps = maps_of(explainer, model, pairs, seed)
        except FxevalError as error:
            rows.append(PlantedRow(name, None, None, broken=n, note=str(error)))
            continue
        is_contrastive = "contrast" in traits_of(explainer).needs
        expected = discriminative if is_contrastive else plain
        rows.append(_row(name, maps, expected, sum(forwards) / n))
    for name, made in _references(model, pairs, seed):
        rows.append(_row(name, SaliencyMaps(made), plain, 0.0))
    return rows


def as_markdown(rows: list[PlantedRow]) -> str:
    """Return the table in Markdown."""
    head = "| maps | Spearman with the truth | with its magnitude | no order | no map | forwards |"
    lines = [head, "|---|---|---|---|---|---|"]
    for row in rows:
        if row.correlation is None or row.with_magnitude is None:
            lines.append(f"| {row.name} | {row.note} | | | {row.broken} | |")
            continue
        lines.append(
            f"| {row.name} | {_spoken(row.correlation)} | {_spoken(row.with_magnitude)} | "
            f"{row.degenerate} | {row.broken} | {row.forwards:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def shipped_explainers() -> dict[str, Explainer]:
    """Return the shipped explainers by their ids and settings (``SETTINGS``)."""
    found = {}
    for id in SHIPPED:
        for params in SETTINGS.get(id, ({},)):
            name = " ".join([id, *(f"{name}={value}" for name, value in params.items())])
            found[name] = shipped(id)(**params)
    return found


def maps_of(
    explainer: Explainer, model: FaceModel, pairs: PlantedPairs | KnownPairs, seed: int
) -> SaliencyMaps:
    """Return the maps of all pairs, with nonmates for explainers that need a contrast.

    Raises:
        FxevalError: If the explainer cannot explain the model.
    """
    generator, gallery = generator_of("planted_maps", seed), pairs.gallery
    given = (explainer, model, pairs.probes, pairs.references)
    if "contrast" in traits_of(explainer).needs:
        return triplet_maps(*given, pairs.nonmates, generator=generator, gallery=gallery)
    return pair_maps(*given, generator=generator, gallery=gallery)


def _references(
    model: TorchFaceModel, pairs: PlantedPairs, seed: int
) -> Iterator[tuple[str, Maps]]:
    """Yield maps to compare explainers with: the exact first-order answer, and controls."""
    n = len(pairs.probes)
    module = model.module
    assert isinstance(module, AdditiveFace)
    exact = contributions(module, pairs.probes, pairs.references)
    pixels = exact.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
    yield "contribution to the inner product", pixels.float()
    inputs = ControlInputs(
        pairs.probes, [seed_of("planted_control", seed, row) for row in range(n)], range(n)
    )
    for name, control in CONTROLS.items():
        if not control.depends_on_explainer:
            yield f"control.{name}", control_maps(name, inputs)
    yield "a constant", torch.ones((n, SIDE, SIDE))


def _row(name: str, maps: SaliencyMaps, truth: Tensor, forwards: float) -> PlantedRow:
    usable = np.array([state not in BROKEN_STATES for state in maps.states])
    if not usable.any():
        return PlantedRow(name, None, None, broken=len(usable), note=maps.reasons[0])

    def agreement(expected: Tensor) -> Estimate:
        found = np.nan_to_num(rank_correlation(maps, expected)[usable])
        return estimate(Sample(found, np.flatnonzero(usable)), LAW, 0.95)

    without_order = np.isnan(rank_correlation(maps, truth)[usable])
    return PlantedRow(
        name, agreement(truth), agreement(truth.abs()),
        int(without_order.sum()), int((~usable).sum()), forwards,
    )  # fmt: skip


def _spoken(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"

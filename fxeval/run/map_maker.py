"""Makes the maps that the cells of a run ask for, each set once."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from fxeval.contracts import SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool, precise
from fxeval.engine.maps import explain
from fxeval.engine.metering import Cost, metered
from fxeval.records.schema import Explaining, LayerEntry
from fxeval.run.admissions import Admissions
from fxeval.run.cell_engine import Wanted
from fxeval.run.guard import Guard
from fxeval.run.keys import fixture_key
from fxeval.suite.cells import Cell

KEPT_MAPS = 16  # sets of maps kept for later cells

Progress = Callable[[str, str, int, int], None]


class MapMaker:
    """Asks explainers for maps, and keeps them for later cells.

    Args:
        pool: All forward passes.
        admissions: Knows the model of the current cell.
        guard: Is told of maps under which the model was changed.
        progress: Takes (cell id, stage, done, total).

    Attributes:
        kept: Sets of maps, their costs and what their explainers said.
        unpooled_forwards: Images that passed a network, but not through the pool.
    """

    def __init__(
        self, pool: ForwardPool, admissions: Admissions, guard: Guard, progress: Progress
    ) -> None:
        self._pool, self._admissions, self._guard = pool, admissions, guard
        self._progress = progress
        self.kept: dict[tuple[Any, ...], tuple[SaliencyMaps, Cost, list[str]]] = {}
        self.unpooled_forwards = 0
        self._told: dict[str, None] = {}

    def made(
        self, cell: Cell, wanted: Wanted, device: torch.device
    ) -> tuple[SaliencyMaps, Explaining]:
        """Return a set of maps, made once, and its cost at that time."""
        key = _key(cell, wanted, device)
        is_new = key not in self.kept
        if is_new:
            while len(self.kept) >= KEPT_MAPS:
                self.kept.pop(next(iter(self.kept)))
            self.kept[key] = self._make(cell, wanted, device)
        maps, cost, told = self.kept[key]
        self._told |= dict.fromkeys(told)
        self._admissions.check_failure(wanted.by.name, maps.states, maps.reasons)
        return maps, Explaining(
            network=wanted.network.label,
            side=wanted.name,
            n_maps=len(wanted.asked),
            was_shared=not is_new,
            layers=[LayerEntry.model_validate(asdict(layer)) for layer in maps.layers],
            **asdict(cost),
        )

    def take_told(self) -> list[str]:
        """Return messages of explainers since the last call; printed, and in no record."""
        told, self._told = list(self._told), {}
        return told

    def _make(
        self, cell: Cell, wanted: Wanted, device: torch.device
    ) -> tuple[SaliencyMaps, Cost, list[str]]:
        network = wanted.network
        stage = "explaining" if network.label == "trained" else f"explaining {network.label}"
        model, pooled = network.get(), self._pool.forwards
        told: list[str] = []
        with metered(model.module, self._pool) as cost, precise(device):
            maps = explain(
                wanted.by.explainer,
                model,
                wanted.asked,
                seed=cell.seed,
                progress=lambda done, total: self._progress(cell.id, stage, done, total),
                tell=told.append,
            )
        self._guard.doubt(wanted.by.name, maps.states)
        self.unpooled_forwards += cost.forwards - (self._pool.forwards - pooled)
        return maps, cost, told


def _key(cell: Cell, wanted: Wanted, device: torch.device) -> tuple[Any, ...]:
    """Name what decides a set of maps."""
    by, is_own = wanted.by, wanted.by.name == cell.explainer.name
    what: object = fixture_key(cell, cell.explainer) if is_own else (by.name, id(by.explainer))
    # The images' identity stands for the rows: a cell's pairs are loaded once and kept.
    images = id(wanted.asked.faces.images)
    return what, wanted.network.key, images, wanted.name, cell.seed, device

"""Gets models ready for cells: on their device, admitted by evidence, measured on their lists."""

from collections.abc import Mapping
from typing import Any

import torch

from fxeval.contracts import FaceModel, Pairs, PairSource
from fxeval.datasets.lists.contradictions import ContradictoryListError
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.metering import Cost
from fxeval.errors import ContractError, ModelContractError, UnansweredError
from fxeval.hooks.watch import modes_kept
from fxeval.run.admissions import Admissions
from fxeval.run.guard import Guard
from fxeval.run.keys import fixture_key, model_key
from fxeval.run.map_maker import Progress
from fxeval.suite.cells import Cell, Use
from fxeval.verification.claims import entry_of
from fxeval.verification.demands import Verification
from fxeval.verification.look_alikes import Matching
from fxeval.verification.measured import Measured, ThresholdModel, measure_list


class Readying:
    """Gets a cell's own model and further ones ready, all in the same way.

    Args:
        pool: All forward passes.
        admissions: Knows the models of the current cell.
        guard: Compares models with what they were.
        progress: Takes (cell id, stage, done, total).

    Attributes:
        device: Of the cell measured last.
        cost: Forward passes and seconds spent on verification figures, of no cell's own.
        unpooled_forwards: Images that passed a network while it was admitted.
        measured: The figures of a model on a list, or the error that came instead.
        told: Messages about data; printed, and in no record.
    """

    def __init__(
        self, pool: ForwardPool, admissions: Admissions, guard: Guard, progress: Progress
    ) -> None:
        self._pool, self._admissions, self._guard = pool, admissions, guard
        self._progress = progress
        self.device = torch.device("cpu")
        self.cost = Cost()
        self.unpooled_forwards = 0
        self.measured: dict[tuple[Any, ...], Measured | ContractError] = {}
        self.told: dict[str, None] = {}

    def place(self, cell: Cell, model: FaceModel) -> None:
        """Put a model on the cell's device, as it was when it was met last."""
        self._guard.expect(model.name, model)
        with modes_kept(self._pool.note, f"model '{model.name}'"):
            self.device = self._admissions.placed(model, cell.device)

    def admit(self, cell: Cell, use: Use, model: FaceModel, pairs: Pairs) -> None:
        """Admit a model, on the cell's device, by evidence on the images of some pairs."""
        key = model_key(cell, use, model), model.name, id(pairs.images), self.device
        with modes_kept(self._pool.note, f"model '{model.name}'"):
            found, is_new = self._admissions.admitted(model, key, pairs.faces(), self.device)
        if is_new:
            self.unpooled_forwards += found.forwards
            self.cost.forwards += found.forwards
            self.cost.seconds += found.seconds
        self._guard.admit(model.name, model)
        self._admissions.watch(use.name, model, found)

    def verified(
        self, cell: Cell, use: Use, model: FaceModel, source: PairSource
    ) -> tuple[PooledModel, Mapping[str, Any]]:
        """Return a model with the suite's threshold, and how well it verifies, for the record.

        Raises:
            ContractError: If the model or the list cannot be used; again for every cell.
        """
        asked, found = self._measured(cell, use, model, source)
        if found.fault:
            self.told[found.fault] = None
        names = (source.name, cell.pairs.id)
        entry = entry_of(found, model, names, asked)
        about = {"model": use.name, "pairs": cell.pairs.name}
        if asked.operating_threshold != "vendor":
            model = ThresholdModel(model, entry["operating_threshold"]["value"])
        return PooledModel(model, self._pool, model_key(cell, use, model)), {**about, **entry}

    def matching(self, cell: Cell, model: FaceModel, source: PairSource) -> Matching:
        """Return whom a cell's own model takes for whom, before any row is chosen.

        Raises:
            ContractError: If the model or the list cannot be used, or the model is not to be judged
                on it.
        """
        pooled, entry = self.verified(cell, cell.model, model, source)
        if entry["objections"]:
            raise ModelContractError("; ".join(entry["objections"]))
        _, found = self._measured(cell, cell.model, model, source)
        reason = found.reason or "the suite's verification fuses embeddings; remove 'flip_fusion'"
        fault = entry["operating_threshold"]["fault"]
        threshold = None if fault else pooled.operating_threshold
        return Matching(pooled.key, cell.model.name, found.alike, reason, threshold, fault)

    def _measured(
        self, cell: Cell, use: Use, model: FaceModel, source: PairSource
    ) -> tuple[Verification, Measured]:
        """Return what the suite demands of a model, and its figures on a list, measured once."""
        asked = cell.verification if use.name == cell.model.name else cell.demands.get(use.name)
        asked = asked or Verification()
        pairs = fixture_key(cell, cell.pairs)
        key = (model_key(cell, use, model), pairs, asked.flip_fusion, self.device)
        if key not in self.measured:
            try:
                measured = measure_list(
                    model,
                    source,
                    self._pool,
                    flip_fusion=asked.flip_fusion,
                    progress=lambda done, total: self._progress(cell.id, "verifying", done, total),
                )
                self.cost.forwards += measured.forwards
                self.cost.seconds += measured.seconds
                self.measured[key] = measured
            except UnansweredError:  # a later cell asks again
                raise
            except (ModelContractError, ContradictoryListError) as error:  # it would come again
                self.measured[key] = error
        found = self.measured[key]
        if isinstance(found, Exception):
            raise found
        return asked, found

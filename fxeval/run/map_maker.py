"""Makes the maps that the cells of a run ask for, each set once, and a few of them again."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from fxeval.contracts import FaceModel, Faces, SaliencyMaps, model_traits
from fxeval.engine.forward_pool import ForwardPool, precise
from fxeval.engine.inputs import Comparison
from fxeval.engine.maps import explain, why_unsupported
from fxeval.engine.metering import Cost, metered
from fxeval.engine.repetition import repeated
from fxeval.errors import UnsupportedError
from fxeval.metrics.protocol import OtherExplainer
from fxeval.models.loading import device_of
from fxeval.records.schema import Explaining, LayerEntry
from fxeval.run.admissions import Admissions
from fxeval.run.cell_engine import Repetition, Wanted
from fxeval.run.guard import Guard
from fxeval.run.keys import fixture_key, model_key
from fxeval.suite.cells import Cell, Use

KEPT_MAPS = 16
"""Sets of maps that are kept for later cells at least."""

KEPT_BYTES = 1 << 30
"""Memory up to which more are kept, so that a check of many models explains each once."""

Progress = Callable[[str, str, int, int], None]

PREPARING = "preparing"
"""The stage that counts images."""

TRAINING = "training"
"""How the stages begin that count epochs; all others count pairs."""


class MapMaker:
    """Asks explainers for maps, and keeps them for later cells.

    Args:
        pool: All forward passes.
        admissions: Knows the model of the current cell.
        guard: Is told of maps under which the model was changed.
        progress: Takes (cell id, stage, done, total).

    Attributes:
        kept: Sets of maps, their costs and what their explainers said.
        repetitions: What was found when a few maps of a set were made again.
        reasons: Why explainers cannot explain models; None if they can.
        unpooled_forwards: Images that passed a network, but not through the pool.
    """

    def __init__(
        self, pool: ForwardPool, admissions: Admissions, guard: Guard, progress: Progress
    ) -> None:
        self._pool, self._admissions, self._guard = pool, admissions, guard
        self._progress = progress
        self.kept: dict[tuple[Any, ...], tuple[SaliencyMaps, Cost, list[str]]] = {}
        self.repetitions: dict[tuple[Any, ...], Repetition] = {}
        self.reasons: dict[tuple[Any, ...], str | None] = {}
        self.unpooled_forwards = 0
        self._told: dict[str, None] = {}
        self._in_use: set[tuple[Any, ...]] = set()

    def begin(self) -> None:
        """Begin a cell; the maps that it uses are kept until the next one begins."""
        self._in_use.clear()

    def made(
        self, cell: Cell, wanted: Wanted, device: torch.device
    ) -> tuple[SaliencyMaps, Explaining]:
        """Return a set of maps, made once, and its cost at that time."""
        key = _key(cell, wanted, device)
        is_new = key not in self.kept
        if is_new:
            if wanted.network.of != cell.model.name:
                self.check_support(cell, wanted.network.of, wanted.by, wanted.network.get().model)
            for old in [one for one in self.kept if one not in self._in_use]:
                if len(self.kept) >= KEPT_MAPS and self._bytes() > KEPT_BYTES:
                    del self.kept[old]
            self.kept[key] = self._make(cell, wanted, device)
        if not wanted.by.settings:  # the engine keeps the means of those of a variant
            self._in_use.add(key)
        maps, cost, told = self.kept[key]
        self._told |= dict.fromkeys(told)
        self._admissions.check_failure(wanted.network.of, wanted.by.name, maps.states, maps.reasons)
        return maps, Explaining(
            network=wanted.network.label,
            side=wanted.label,
            n_maps=len(wanted.asked),
            was_shared=not is_new,
            layers=[LayerEntry.model_validate(asdict(layer)) for layer in maps.layers],
            **asdict(cost),
        )

    def check_support(self, cell: Cell, of: str, by: OtherExplainer, model: FaceModel) -> None:
        """Refuse an explainer that cannot explain a model of a cell; it is asked once.

        Args:
            cell: The cell.
            of: The model's name in the suite.
            by: The explainer.
            model: The model.

        Raises:
            UnsupportedError: With the reason.
        """
        self._admissions.check_gradient(of, by.name, by.explainer)
        use = next((one for one in cell.models if one.name == of), Use(of))
        inside = model.module is None, model_traits(model).has_layers, device_of(model)
        key = _what(cell, by), by.settings, model_key(cell, use, model), *inside
        if key not in self.reasons:
            self.reasons[key] = why_unsupported(by.explainer, model)
        reason = self.reasons[key]
        if reason is not None:
            raise UnsupportedError(f"{by.name} cannot explain {of}: {reason}")

    def again(
        self, cell: Cell, wanted: Wanted, maps: SaliencyMaps, device: torch.device
    ) -> tuple[Repetition, Explaining]:
        """Make a few maps of a set again, once for each set, and return what was found."""
        key = _key(cell, wanted, device)
        is_new = key not in self.repetitions
        if is_new:
            self.repetitions[key] = self._repeat(cell, wanted, maps, device)
        known = self.repetitions[key]
        return known, Explaining(
            network=wanted.network.label,
            side=f"{wanted.label}, again",
            n_maps=known.n_maps,
            was_shared=not is_new,
            **asdict(known.cost),
        )

    def _bytes(self) -> int:
        maps = [made for made, _, _ in self.kept.values()]
        return sum(
            one.nbytes for made in maps for one in (made.positive, made.negative) if one is not None
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
        with metered(model.module, self._pool, device) as cost, precise(device):
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

    def _repeat(
        self, cell: Cell, wanted: Wanted, maps: SaliencyMaps, device: torch.device
    ) -> Repetition:
        total, n_maps = Cost(), 0

        def explain_again(asked: Comparison) -> SaliencyMaps:
            nonlocal n_maps
            made, cost, _ = self._make(cell, replace(wanted, asked=asked), device)
            n_maps += len(asked)
            total.forwards += cost.forwards
            total.backwards += cost.backwards
            total.seconds += cost.seconds
            total.answered += cost.answered
            known = [one for one in (total.peak_memory, cost.peak_memory) if one is not None]
            total.peak_memory = max(known, default=None)
            return made

        found = repeated(explain_again, wanted.asked, maps, cell.seed)
        noise = self._admissions.noise(wanted.network.of)
        if found.repeats or not noise:
            return Repetition(found, "", n_maps, total)
        return Repetition(
            None,
            f"it was not found out whether {wanted.by.name} repeats its maps: "
            f"{found.reason.partition('. ')[0]}, and the model's own answers differ by up to "
            f"{noise:.2g}",
            n_maps,
            total,
        )


def _key(cell: Cell, wanted: Wanted, device: torch.device) -> tuple[Any, ...]:
    """Name what decides a set of maps."""
    # By content, never by their place in memory: images that a cell makes are gone after it. By
    # their names nonmates are drawn, and those differ where cells of several crops are compared.
    faces = wanted.asked.faces
    # Images that a cell makes are in nobody's gallery: only those that are asked for count.
    loaded = faces.identity >= 0
    images = (
        tuple(
            one for one, is_one in zip(faces.image_digests, loaded.tolist(), strict=True) if is_one
        ),
        faces.identity[loaded].numpy().tobytes(),
        tuple(faces.images.shape[1:]),
    )
    rows = None if wanted.asked.rows is None else tuple(wanted.asked.rows.tolist())
    asked = wanted.name, wanted.asked.id, rows, cell.seed, wanted.asked.seed, wanted.asked.draws
    # Names of rows leave out nonmates that a list names, and need not name every reference.
    gives_contrast = wanted.asked.gives_contrast(wanted.by.explainer)
    contrast = wanted.asked.contrast if gives_contrast else None
    compared = (wanted.asked.image, wanted.asked.against, contrast, wanted.asked.enrolled)
    digests = tuple(_digests(faces, one) for one in compared)
    what = _what(cell, wanted.by)
    return what, wanted.by.settings, wanted.network.key, *images, *asked, digests, device


def _digests(faces: Faces, images: Tensor | None) -> tuple[object, ...] | None:
    """Name images by their content; -1 stands for none."""
    if images is None:
        return None
    named = (*faces.image_digests, "")
    return tuple(images.shape), tuple(named[image] for image in images.flatten().tolist())


def _what(cell: Cell, by: OtherExplainer) -> object:
    """Name an explainer."""
    use = next((one for one in (cell.explainer, *cell.others) if one.name == by.name), None)
    return (by.name, _Same(by.explainer)) if use is None else fixture_key(cell, use)


class _Same:
    """Equal to itself alone, and alive as long as it is part of a key, unlike an ``id``."""

    def __init__(self, of: object) -> None:
        self._of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._of is other._of

    def __hash__(self) -> int:
        return id(self._of)

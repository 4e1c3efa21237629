"""What the cells of a run share: device, forward passes, pairs, maps, re-drawn networks."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Any

import torch

from fxeval.admission import check_explainer
from fxeval.baseline import Measured, ThresholdModel, measure_list
from fxeval.cells import Cell, Use
from fxeval.chosen_pairs import chosen_rows, load_pairs
from fxeval.claims import entry_of, model_card
from fxeval.contracts import (
    Explainer,
    FaceModel,
    Pairs,
    PairSource,
    SaliencyMaps,
)
from fxeval.errors import (
    ModelContractError,
    UnsupportedError,
)
from fxeval.explain import explain, needs_of, why_unsupported
from fxeval.forward_pool import ForwardPool, PooledModel, precise
from fxeval.meter import Cost, metered
from fxeval.metrics.evidence import Evidence, Redrawn, Side
from fxeval.models.loading import check_loaded, device_of, with_module
from fxeval.randomisation import embedding_spread, randomise, redrawn_share

CALIBRATION_IMAGES = 64  # crops that re-estimate the batch-norm statistics of a re-drawn network
KEPT_MAPS = 16  # sets of maps kept for later cells

Emit = Callable[[str, Sequence[dict[str, Any]]], None]
Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, eq=False)
class Subjects:
    """What a cell's ids resolved to."""

    model: FaceModel
    explainer: Explainer
    source: PairSource


class Bench:
    """Prepares the evidence of cell after cell, doing shared work once.

    Args:
        batch_size: Most images in one forward pass.
        emit: Takes (cell id, finished rows).
        progress: Takes (cell id, stage, done, total).
        worker: Number of this process among those of the run; ``auto`` spreads them over the GPUs.

    Attributes:
        pool: All forward passes.
        subjects: What is known about models, explainers and pairs, for the record.
        device: Of the cell measured last.
        verifying: Forward passes and seconds spent on verification baselines, of no cell's own.
        objection: Why the model of the cell measured last is not to be judged, or None.
    """

    def __init__(self, *, batch_size: int, emit: Emit, progress: Progress, worker: int = 0) -> None:
        self.pool = ForwardPool(batch_size=batch_size)
        self.subjects: dict[str, dict[str, dict[str, Any]]] = {
            "models": {}, "explainers": {}, "pairs": {},
        }  # fmt: skip
        self.device = torch.device("cpu")
        self._emit = emit
        self._progress = progress
        self._worker = worker
        self._admitted: FaceModel | None = None
        self.verifying = Cost()
        self.objection: str | None = None
        self._baselines: dict[tuple[Any, ...], Measured | ModelContractError] = {}
        self._cards: dict[tuple[Any, ...], dict[str, Any] | None] = {}
        self._pairs: dict[tuple[Any, ...], Pairs] = {}
        self._set_aside: dict[int, Counter[str]] = {}
        self._maps: dict[tuple[Any, ...], tuple[SaliencyMaps, Cost]] = {}
        self._redrawn: dict[tuple[Any, ...], PooledModel] = {}
        self._unpooled_forwards = 0
        self._explaining: list[dict[str, Any]] = []

    def evidence(self, cell: Cell, subjects: Subjects) -> Evidence:
        """Return everything a protocol may ask for, lazily.

        Raises:
            ContractError: If the model or the pairs can't be used.
            UnsupportedError: If the explainer can't explain this kind of model.
        """
        self._explaining, self.objection = [], None
        for role, use in zip(self.subjects, (cell.model, cell.explainer, cell.pairs), strict=True):
            self.subjects[role].pop(use.name, None)
        check_explainer(cell.explainer.name, subjects.explainer)
        model = self._admit(cell, subjects.model)
        pairs = self._load(cell, subjects)
        self._describe(cell, subjects, pairs)
        reason = why_unsupported(subjects.explainer, model)
        if reason is not None:
            raise UnsupportedError(
                f"{cell.explainer.name} cannot explain {cell.model.name}: {reason}"
            )
        model = self._verified(cell, model, subjects.source)
        pooled = PooledModel(model, self.pool, _model_key(cell, model))
        given = bool(getattr(subjects.explainer, "maps_are_given", False))

        def maps(of: PooledModel, label: str, side: Side) -> SaliencyMaps:
            return self._explained(cell, subjects.explainer, of, (pairs, label, side))

        return Evidence(
            pairs=pairs,
            similarity=model.similarity,
            operating_threshold=model.operating_threshold,
            seed=cell.seed,
            clean=lambda: self.pool.clean(pooled, pairs),
            embed=lambda wanted: self.pool.embed(pooled, pairs, wanted),
            explain=lambda side: maps(pooled, "trained", side),
            redraw=lambda index: self._redraw(cell, pooled, pairs, index, maps, given),
            emit=lambda rows: self._emit(cell.id, rows),
        )

    def release(self) -> None:
        """Let go of networks; what was measured of them stays."""
        self._admitted = None
        self._redrawn = {}

    @property
    def forwards(self) -> int:
        """Images that passed a network for the cells so far, through the pool or not."""
        return self.pool.forwards + self._unpooled_forwards - self.verifying.forwards

    def take_explaining(self) -> list[dict[str, Any]]:
        """Return what the cell's maps cost when they were made, per network and side."""
        taken, self._explaining = self._explaining, []
        return taken

    def take_notes(self) -> list[str]:
        """Return what the pool has to say since last asked."""
        notes, self.pool.halvings = self.pool.halvings, []
        return notes

    def _admit(self, cell: Cell, model: FaceModel) -> FaceModel:
        """Move a model to the cell's device and try it once."""
        self.device = _device(cell.device, self._worker)
        if model.module is not None:
            model.module.to(self.device)
        if model is not self._admitted:
            with precise(self.device):
                check_loaded(model)
            self._admitted = model
        return model

    def _verified(self, cell: Cell, model: FaceModel, source: PairSource) -> FaceModel:
        """Return the model as the suite wants it used, once it is known how well it verifies."""
        asked = cell.verification
        key = (_model_key(cell, model), _fixture(cell, cell.pairs), asked.flip_fusion, self.device)
        if key not in self._baselines:
            try:
                measured = measure_list(
                    model,
                    source,
                    self.pool,
                    flip_fusion=asked.flip_fusion,
                    progress=lambda done, total: self._progress(cell.id, "verifying", done, total),
                )
                self.verifying.forwards += measured.forwards
                self.verifying.seconds += measured.seconds
                self._baselines[key] = measured
            except ModelContractError as error:  # at an image that it would come to again
                self._baselines[key] = error
        found = self._baselines[key]
        if isinstance(found, ModelContractError):
            raise found
        names = (source.name, cell.pairs.id)
        entry = entry_of(found, model, names, asked)
        about = {"model": cell.model.name, "pairs": cell.pairs.name}
        self.subjects["models"][cell.model.name]["verification"] = {**about, **entry}
        self.objection = "; ".join(entry["objections"]) or None
        if asked.operating_threshold == "vendor":
            return model
        return ThresholdModel(model, entry["operating_threshold"]["value"])

    def _load(self, cell: Cell, subjects: Subjects) -> Pairs:
        crop = subjects.model.crop
        source = subjects.source
        key = (_fixture(cell, cell.pairs), cell.n, cell.seed, crop)
        if key not in self._pairs:
            listing = source.listing()
            rows = chosen_rows(listing, cell.n, cell.seed, cell.pairs.id)
            self._pairs[key] = load_pairs(source, listing.take(rows), crop)
            aside = Counter(reason for reason in listing.set_aside if reason)
            self._set_aside[id(self._pairs[key])] = aside
        return self._pairs[key]

    def _explained(
        self,
        cell: Cell,
        explainer: Explainer,
        model: PooledModel,
        about: tuple[Pairs, str, Side],
    ) -> SaliencyMaps:
        pairs, label, side = about
        about_maps = (_fixture(cell, cell.explainer), model.key, id(pairs), side, cell.seed)
        key = (*about_maps, self.device)
        is_new = key not in self._maps
        if is_new:
            while len(self._maps) >= KEPT_MAPS:
                self._maps.pop(next(iter(self._maps)))
            stage = "explaining" if label == "trained" else f"explaining {label}"
            pooled = self.pool.forwards
            with metered(model.module, self.pool) as cost, precise(self.device):
                maps = explain(
                    explainer,
                    model,
                    pairs,
                    side=side,
                    seed=cell.seed,
                    progress=lambda done, total: self._progress(cell.id, stage, done, total),
                )
            self._unpooled_forwards += cost.forwards - (self.pool.forwards - pooled)
            self._maps[key] = maps, cost
        maps, cost = self._maps[key]
        entry = {"network": label, "side": side, "n_maps": len(pairs), "was_shared": not is_new}
        self._explaining.append({**entry, **asdict(cost)})
        return maps

    def _redraw(
        self,
        cell: Cell,
        model: PooledModel,
        pairs: Pairs,
        index: int,
        maps: Callable[[PooledModel, str, Side], SaliencyMaps],
        given: bool,
    ) -> Redrawn:
        if model.module is None:
            raise UnsupportedError(
                f"model '{model.name}' is a black box: its weights can't be re-drawn. Leave "
                "sanity.model_randomisation out for it."
            )
        if not getattr(model.model, "has_layers", True):
            raise UnsupportedError(
                f"model '{model.name}': its layers are out of reach, so its weights can't be "
                "re-drawn as what they are. Leave sanity.model_randomisation out for it."
            )
        if given:
            raise UnsupportedError(
                f"the maps of {cell.explainer.name} are given: they were made with one network and "
                "follow no re-drawn one. Leave sanity.model_randomisation out for them."
            )
        key = (model.key, id(pairs), cell.seed, index)
        calibration = pairs.images[:CALIBRATION_IMAGES].to(device_of(model)).float() / 255.0
        if key not in self._redrawn:
            copy = randomise(model.module, calibration, cell.seed, index)
            digest = _digest(model.key, cell.seed, index, *pairs.image_digests)
            redrawn_model = with_module(model.model, copy, digest=digest)
            self._redrawn = {key: PooledModel(redrawn_model, self.pool, digest)}
        redrawn = self._redrawn[key]
        assert redrawn.module is not None
        return Redrawn(
            maps=maps(redrawn, f"re-drawn network {index + 1}", "probe"),
            spread=embedding_spread(redrawn.embed(calibration)),
            redrawn_share=redrawn_share(model.module, redrawn.module),
        )

    def _describe(self, cell: Cell, subjects: Subjects, pairs: Pairs) -> None:
        model, module = subjects.model, subjects.model.module
        self.subjects["models"][cell.model.name] = {
            "name": model.name,
            "digest": model.digest,
            "crop": model.crop.name,
            "size": list(model.crop.size),
            "similarity": model.similarity,
            "operating_threshold": model.operating_threshold,
            "parameters": sum(p.numel() for p in module.parameters()) if module else None,
            "card": model_card(model),
        }
        self.subjects["explainers"][cell.explainer.name] = {
            "class": type(subjects.explainer).__qualname__,
            "params": settings_of(subjects.explainer) or dict(cell.explainer.params),
            "digest": getattr(subjects.explainer, "digest", None),
            "needs": sorted(needs_of(subjects.explainer)),
            "source": getattr(subjects.explainer, "source", None),
        }
        rows = [pairs.row_id(i) for i in range(len(pairs))]
        if pairs.contrast is not None:
            rows += [pairs.image_digests[i] for i in pairs.contrast.tolist()]
        self.subjects["pairs"][cell.pairs.name] = {
            "name": pairs.name,
            "n_pairs": len(pairs),
            "n_identities": len(set(pairs.probe_identity.tolist())),
            "banner": subjects.source.banner,
            "excluded": Counter(one.reason for one in pairs.excluded),
            "set_aside": self._set_aside[id(pairs)],
            "digest": hashlib.sha256("".join(rows).encode()).hexdigest(),
            "card": self._card(cell, subjects.source),
        }

    def _card(self, cell: Cell, source: PairSource) -> dict[str, Any] | None:
        """Return what a source says of its data; None if it says nothing."""
        key = _fixture(cell, cell.pairs)
        if key not in self._cards:
            card = getattr(source, "card", None)
            self._cards[key] = asdict(card()) if card is not None else None
        return self._cards[key]


def settings_of(subject: object) -> dict[str, Any]:
    """Return all that a dataclass is made of, as plain data; functions and objects by their names.

    >>> from fxeval.explainers.cam import GradCAM
    >>> settings_of(GradCAM(layer=("stage2", "stage4")))
    {'layer': ['stage2', 'stage4'], 'objective': 'native'}
    """
    if not is_dataclass(subject) or isinstance(subject, type):
        return {}
    return {field.name: _plain(getattr(subject, field.name)) for field in fields(subject)}


def _plain(value: object) -> Any:  # noqa: ANN401  (plain JSON)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, PurePath):  # its folder is the machine's own
        return value.name
    return getattr(value, "__qualname__", type(value).__qualname__)


def _fixture(cell: Cell, use: Use) -> tuple[str, str, str]:
    """Name what decides a subject: the suite file it is seen from, the fixture, the parameters.

    Never its ``repr``, which need not show all that makes it differ.
    """
    return cell.where.rsplit(":", 2)[0], use.id, json.dumps(use.params, sort_keys=True)


def _model_key(cell: Cell, model: FaceModel) -> str:
    """Name a model by its fixture, its weights and how it is fed and read."""
    card = getattr(getattr(model, "card", None), "digest", "")
    how = model.crop, model.similarity, model.operating_threshold, card
    return _digest(*_fixture(cell, cell.model), model.digest, *how)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def _device(name: str, worker: int) -> torch.device:
    if name == "auto" and torch.cuda.is_available():
        return torch.device("cuda", worker % torch.cuda.device_count())
    if name == "auto":
        return torch.device("cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelContractError(
            f"device '{name}' asked for, but there is no CUDA device. Set device: auto or cpu."
        )
    return torch.device(name)

"""Prepares cells and keeps what they share: forward passes, pairs, maps, re-drawn networks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fxeval.contracts import (
    Crop,
    Explainer,
    FaceModel,
    Pairs,
    PairSource,
    SaliencyMaps,
)
from fxeval.datasets.lists.contradictions import ContradictoryListError
from fxeval.datasets.prepared_source import PreparedSource
from fxeval.engine.choosing import Asked, chosen, held_out_of
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import why_unsupported
from fxeval.engine.metering import Cost
from fxeval.engine.row_kinds import TABLES, WHOLE_LISTS
from fxeval.engine.selection import load_pairs
from fxeval.errors import (
    ContractError,
    FxevalError,
    ModelContractError,
    UnansweredError,
    UnsupportedError,
    for_a_record,
)
from fxeval.functional.randomisation import embedding_spread, randomise, redrawn_share
from fxeval.hooks.returned import check_explainer, check_model, check_source
from fxeval.hooks.watch import modes_kept
from fxeval.metrics import kinds
from fxeval.metrics.protocol import Evidence, OtherExplainer, Subject
from fxeval.models.admission import Admission
from fxeval.models.loading import device_of, with_module
from fxeval.records.earlier import EarlierRun
from fxeval.records.schema import Explaining, Network, Row
from fxeval.redaction import PublicReason, public_counts
from fxeval.run.admissions import Admissions
from fxeval.run.cell_engine import (
    CellEngine,
    NetworkHandle,
    Prepared,
    Redrawing,
    Repetition,
    Wanted,
)
from fxeval.run.descriptions import explainer_entry, left_out, model_entry, pairs_entry
from fxeval.run.guard import Guard
from fxeval.run.keys import digest_of, fixture_key, model_key
from fxeval.run.map_maker import PREPARING, MapMaker, Progress
from fxeval.seeding import seed_of
from fxeval.suite.cells import Cell
from fxeval.verification.claims import entry_of, remarks_of
from fxeval.verification.measured import Measured, ThresholdModel, measure_list

CALIBRATION_IMAGES = 64  # crops that re-estimate the batch-norm statistics of a re-drawn network

Emit = Callable[[Sequence[Row]], None]


@dataclass(frozen=True, eq=False)
class Subjects:
    """The subjects of a cell, resolved from its ids.

    Attributes:
        model: The face model.
        explainer: The explainer.
        source: The pair list.
        others: Further models and explainers by name, by the parameter that names them.
        compared: Further explainers by name that limits compare with; an error in place of one
            that could not be made.
    """

    model: FaceModel
    explainer: Explainer
    source: PairSource
    others: Mapping[str, Mapping[str, FaceModel | Explainer]] = field(default_factory=dict)
    compared: Mapping[str, Explainer | FxevalError] = field(default_factory=dict)


class Workshop:
    """Prepares the evidence of cell after cell, doing shared work once.

    Args:
        batch_size: Most images in one forward pass.
        emit: Takes finished rows.
        progress: Takes (cell id, stage, done, total).
        worker: Number of this process among those of the run; ``auto`` spreads them over the GPUs.

    Attributes:
        pool: All forward passes.
        subjects: What is known about models, explainers and pairs, for the record.
        device: Of the cell measured last.
        verifying: Forward passes and seconds spent on verification figures, of no cell's own.
        emit: Takes finished rows.
        guard: Finds what is changed outside of watched calls.
        earlier_runs: Runs whose values are put beside those of the same cells of this one.
    """

    def __init__(self, *, batch_size: int, emit: Emit, progress: Progress, worker: int = 0) -> None:
        self.pool = ForwardPool(batch_size=batch_size)
        self.subjects: dict[str, dict[str, dict[str, Any]]] = {
            "models": {}, "explainers": {}, "pairs": {},
        }  # fmt: skip
        self.device = torch.device("cpu")
        self.emit = emit
        self.earlier_runs: Sequence[EarlierRun] = ()
        self._progress = progress
        self._admissions = Admissions(worker, batch_size)
        self.verifying = Cost()
        self._measured: dict[tuple[Any, ...], Measured | ContractError] = {}
        self._cards: dict[tuple[Any, ...], dict[str, Any] | None] = {}
        self._pairs: dict[tuple[Any, ...], Pairs] = {}
        self._set_aside: dict[int, Counter[str]] = {}
        self._left_out: dict[int, Sequence[str]] = {}
        self._told: dict[str, None] = {}
        self._redrawn: dict[str, PooledModel] = {}
        self._networks: dict[str, Network] = {}
        self._unpooled_forwards = 0
        self.guard = Guard(self.pool, self._caches)
        self._maps = MapMaker(self.pool, self._admissions, self.guard, progress)

    def prepare(self, cell: Cell, subjects: Subjects) -> Prepared:
        """Return everything a protocol may ask for, lazily.

        Raises:
            ContractError: If the model or the pairs can't be used.
            UnsupportedError: If the explainer can't explain this kind of model.
        """
        self._maps.begin()
        for role, use in zip(self.subjects, (cell.model, cell.explainer, cell.pairs), strict=True):
            self.subjects[role].pop(use.name, None)
        check_model(cell.model.name, subjects.model)
        check_explainer(cell.explainer.name, subjects.explainer)
        check_source(cell.pairs.name, subjects.source)
        model = subjects.model
        self._place(cell, model)
        pairs = self._load(cell, subjects.source, model.crop)
        self._describe(cell, subjects, pairs)
        self._admissions.watch(model, self._admit(cell, model, pairs))
        self._check_support(cell, cell.explainer.name, subjects.explainer, model)
        compared = {
            use.name: self._compared(cell, use.name, subjects.compared.get(use.name), model)
            for use in cell.others
        }
        model, entry = self._verified(cell, model, subjects.source)
        pooled = PooledModel(model, self.pool, model_key(cell, model))
        table = TABLES[kinds()[cell.kind].ROWS](pairs)
        explaining: list[Explaining] = []
        engine = CellEngine(self, cell, subjects.explainer, subjects.source, explaining)
        own = engine.subject(
            cell.model.name,
            NetworkHandle("trained", pooled.key, lambda: pooled),
            pairs,
            table.faces,
            entry["operating_threshold"]["fault"],
        )
        evidence = Evidence(
            rows=table.rows,
            everyone=table.rows,
            turned=table.turned,
            subject=own,
            engine=engine,
            seed_of=lambda purpose, row, label: seed_of(cell.seed, purpose, row, label),
            others={
                parameter: [self._other(cell, engine, name, one, subjects.source)
                            for name, one in named.items()]
                for parameter, named in subjects.others.items()
            },
        )  # fmt: skip
        objection = "; ".join(entry["objections"]) or None
        remarks = [*remarks_of(entry), *self._left_out[id(pairs)]]
        return Prepared(evidence, objection, explaining, engine, compared, remarks)

    def _check_support(self, cell: Cell, name: str, explainer: Explainer, model: FaceModel) -> None:
        self._admissions.check_gradient(name, explainer)
        reason = why_unsupported(explainer, model)
        if reason is not None:
            raise UnsupportedError(f"{name} cannot explain {cell.model.name}: {reason}")

    def _compared(
        self, cell: Cell, name: str, given: Explainer | FxevalError | None, model: FaceModel
    ) -> OtherExplainer | str:
        """Return a further explainer, or the reason why it cannot explain the model."""
        try:
            if isinstance(given, FxevalError):
                raise given
            explainer = check_explainer(name, given)
            self._check_support(cell, name, explainer, model)
        except FxevalError as error:
            self._told[f"explainer '{name}': {error}"] = None
            return for_a_record(error)
        return OtherExplainer(name, explainer)

    def _other(
        self, cell: Cell, engine: "CellEngine", name: str, other: FaceModel | Explainer,
        source: PairSource,
    ) -> Subject | OtherExplainer:  # fmt: skip
        """Return a further model as a subject in its own crop, or a further explainer."""
        if not isinstance(other, FaceModel):
            check_explainer(name, other)
            return OtherExplainer(name, other)
        check_model(name, other)
        self._place(cell, other)
        pairs = self._load(cell, source, other.crop)
        self._admit(cell, other, pairs)
        pooled = PooledModel(other, self.pool, digest_of("other", name, model_key(cell, other)))
        return engine.subject(
            name, NetworkHandle("trained", pooled.key, lambda: pooled), pairs, pairs.faces()
        )

    def release(self) -> None:
        """Free the networks; measurements of them are kept."""
        self._admissions.release()
        self._redrawn = {}

    def _caches(self) -> Sequence[dict[Any, Any]]:
        made = self._maps.kept, self._maps.repetitions
        return *made, self._measured, self._networks, self._redrawn, self._pairs

    @property
    def forwards(self) -> int:
        """Images that passed a network for the cells so far, through the pool or not."""
        unpooled = self._unpooled_forwards + self._maps.unpooled_forwards
        return self.pool.forwards + unpooled - self.verifying.forwards

    def take_notes(self) -> list[str]:
        """Return the notes of the pool since the last call, and those about the model's answers.

        Raises:
            ModelContractError: If the model's answers changed too much since it was admitted.
        """
        notes, self.pool.notes = self.pool.notes, []
        return notes + self._admissions.notes()

    def take_told(self) -> list[str]:
        """Return messages of user code since the last call; printed, and in no record."""
        told = [*dict.fromkeys([*self._told, *self._maps.take_told()])]
        self._told = {}
        return told

    def _place(self, cell: Cell, model: FaceModel) -> None:
        """Put a model on the cell's device, as it was when it was met last."""
        self.guard.expect(model.name, model)
        with modes_kept(self.pool.note, f"model '{model.name}'"):
            self.device = self._admissions.placed(model, cell.device)

    def _admit(self, cell: Cell, model: FaceModel, pairs: Pairs) -> Admission:
        """Admit a model, on the cell's device, by evidence on the images of some pairs."""
        key = model_key(cell, model), model.name, id(pairs.images), self.device
        with modes_kept(self.pool.note, f"model '{model.name}'"):
            found, is_new = self._admissions.admitted(model, key, pairs.faces(), self.device)
        if is_new:
            self._unpooled_forwards += found.forwards
            self.verifying.forwards += found.forwards
            self.verifying.seconds += found.seconds
        self.guard.admit(model.name, model)
        return found

    def _verified(
        self, cell: Cell, model: FaceModel, source: PairSource
    ) -> tuple[FaceModel, Mapping[str, Any]]:
        """Return the model with the suite's threshold, and how well it verifies, for the record."""
        asked = cell.verification
        pairs = fixture_key(cell, cell.pairs)
        key = (model_key(cell, model), pairs, asked.flip_fusion, self.device)
        if key not in self._measured:
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
                self._measured[key] = measured
            except UnansweredError:  # a later cell asks again
                raise
            except (ModelContractError, ContradictoryListError) as error:  # it would come again
                self._measured[key] = error
        found = self._measured[key]
        if isinstance(found, Exception):
            raise found
        if found.fault:
            self._told[found.fault] = None
        names = (source.name, cell.pairs.id)
        entry = entry_of(found, model, names, asked)
        about = {"model": cell.model.name, "pairs": cell.pairs.name}
        self.subjects["models"][cell.model.name]["verification"] = {**about, **entry}
        if asked.operating_threshold == "vendor":
            return model, entry
        return ThresholdModel(model, entry["operating_threshold"]["value"]), entry

    def _load(self, cell: Cell, source: PairSource, crop: Crop) -> Pairs:
        kind = kinds()[cell.kind].ROWS
        held_out = held_out_of(kind, cell.parameters)
        key = fixture_key(cell, cell.pairs), cell.n, cell.seed, crop, kind in WHOLE_LISTS, held_out
        if key not in self._pairs:
            with modes_kept(self.pool.note, f"pairs '{source.name}'"):
                if isinstance(source, PreparedSource):
                    source.prepare(partial(self._progress, cell.id, PREPARING))
                listing = source.listing()
            asked = Asked(cell.n, cell.seed, cell.pairs.id, cell.n_where)
            rows, remarks = chosen(listing, kind, held_out, asked)
            self._pairs[key] = load_pairs(source, rows, crop, self.pool.note)
            if listing.excluded:
                self._told[left_out(cell.pairs.name, listing)] = None
            aside = Counter(reason for reason in listing.set_aside if reason)
            # By identity: the cache keeps the pairs alive, and Pairs cannot be hashed.
            self._set_aside[id(self._pairs[key])] = aside
            self._left_out[id(self._pairs[key])] = remarks
        self.guard.keep(self._pairs[key].images)
        return self._pairs[key]

    def explained(self, cell: Cell, wanted: Wanted) -> tuple[SaliencyMaps, Explaining]:
        """Return the maps of some comparisons, made once, and their cost at that time."""
        return self._maps.made(cell, wanted, self.device)

    def repeated(
        self, cell: Cell, wanted: Wanted, maps: SaliencyMaps
    ) -> tuple[Repetition, Explaining]:
        """Return what was found when a few of these maps were made again, and what it cost."""
        return self._maps.again(cell, wanted, maps, self.device)

    def redrawn(self, cell: Cell, network: NetworkHandle, pairs: Pairs, index: int) -> "Redrawing":
        """Return the re-drawn network and its facts; built again if it was freed."""
        key = digest_of(network.key, cell.seed, index, *pairs.image_digests)
        label = f"re-drawn network {index + 1}"

        def calibration(model: FaceModel) -> Tensor:
            return pairs.images[:CALIBRATION_IMAGES].to(device_of(model)).float() / 255.0

        def get() -> PooledModel:
            if key not in self._redrawn:
                model = network.get()
                assert model.module is not None
                with modes_kept(self.pool.note, f"model '{model.name}'"):
                    copy = randomise(model.module, calibration(model), cell.seed, index)
                changed = with_module(model.model, copy, digest=key)
                self._redrawn = {key: PooledModel(changed, self.pool, key)}  # only the last is kept
            self.guard.admit(label, self._redrawn[key].model)
            return self._redrawn[key]

        if key not in self._networks:
            before, after = network.get(), get()
            assert before.module is not None
            assert after.module is not None
            self._networks[key] = Network(
                name=label,
                spread=embedding_spread(after.embed(calibration(before))),
                redrawn_share=redrawn_share(before.module, after.module),
            )
        return Redrawing(NetworkHandle(label, key, get), self._networks[key])

    def _describe(self, cell: Cell, subjects: Subjects, pairs: Pairs) -> None:
        self.subjects["models"][cell.model.name] = model_entry(subjects.model)
        self.subjects["explainers"][cell.explainer.name] = explainer_entry(
            subjects.explainer, cell.explainer.params
        )
        self.subjects["pairs"][cell.pairs.name] = {
            **pairs_entry(pairs),
            "banner": subjects.source.banner,
            "excluded": self._quoted(
                f"pairs '{pairs.name}', excluded", Counter(one.reason for one in pairs.excluded)
            ),
            "set_aside": self._quoted(
                f"pairs '{pairs.name}', never explained", self._set_aside[id(pairs)]
            ),
            "card": self._card(cell, subjects.source),
        }

    def _card(self, cell: Cell, source: PairSource) -> dict[str, Any] | None:
        """Return the card of a source's data; None if it has none."""
        key = fixture_key(cell, cell.pairs)
        if key not in self._cards:
            card = getattr(source, "card", None)
            self._cards[key] = asdict(card()) if card is not None else None
        found = self._cards[key]
        if found is None:
            return None
        failures = self._quoted(f"pairs '{source.name}', unusable", found["failures"])
        return {**found, "failures": failures}

    def _quoted(self, about: str, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the count of each reason; reasons that a record may not quote are printed."""
        for reason, number in counts.items():
            if not isinstance(reason, PublicReason):
                self._told[f"{about}: {reason} ({number})"] = None
        return public_counts(counts)

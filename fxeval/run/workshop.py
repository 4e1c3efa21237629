"""Prepares cells and keeps what they share: forward passes, pairs, maps, re-drawn networks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch

from fxeval.contracts import (
    Crop,
    Explainer,
    FaceModel,
    Pairs,
    PairSource,
    SaliencyMaps,
)
from fxeval.engine.class_rows import as_predicted
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.metering import Cost
from fxeval.engine.slicing import with_words
from fxeval.errors import (
    EvidenceError,
    FxevalError,
    ModelContractError,
    for_a_record,
)
from fxeval.hooks.layer_groups import LayerGroup
from fxeval.hooks.returned import check_explainer, check_model, check_source
from fxeval.metrics import kinds
from fxeval.metrics.kept import Kept
from fxeval.metrics.protocol import Evidence, OtherExplainer, Redraw, Subject, Training
from fxeval.records.earlier import EarlierRun
from fxeval.records.judged import Acknowledgement
from fxeval.records.named_baseline import NamedBaseline
from fxeval.records.schema import Explaining, Row, Taught
from fxeval.redaction import PublicReason, public_counts
from fxeval.run.admissions import Admissions
from fxeval.run.cell_engine import CellEngine
from fxeval.run.descriptions import explainer_entry, model_entry, pairs_entry
from fxeval.run.guard import Guard
from fxeval.run.keys import fixture_key
from fxeval.run.lists import Lists
from fxeval.run.map_maker import MapMaker, Progress
from fxeval.run.prepared import Prepared
from fxeval.run.readying import Readying
from fxeval.run.redrawing import Redraws
from fxeval.run.teaching import Teaching
from fxeval.run.wanted import NetworkHandle, Redrawing, Repetition, Wanted
from fxeval.seeding import seed_of
from fxeval.suite.cells import Cell, Use
from fxeval.verification.claims import remarks_of
from fxeval.verification.look_alikes import Matching

Emit = Callable[[Sequence[Row]], None]


@dataclass(frozen=True, eq=False)
class Subjects:
    """The subjects of a cell, resolved from its ids.

    Attributes:
        model: The face model.
        explainer: The explainer.
        source: The pair list.
        others: Further models and explainers by name, by the parameter that names them; an error in
            place of a model that could not be made.
        compared: Further explainers by name that limits compare with; an error in place of one
            that could not be made.
    """

    model: FaceModel
    explainer: Explainer
    source: PairSource
    others: Mapping[str, Mapping[str, FaceModel | Explainer | FxevalError]] = field(
        default_factory=dict
    )
    compared: Mapping[str, Explainer | FxevalError] = field(default_factory=dict)


class Accepted(NamedTuple):
    """The acknowledged regressions of a cell: those that hold on the day of the run, and others."""

    active: list[Acknowledgement]
    expired: list[Acknowledgement]


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
        emit: Takes finished rows.
        guard: Finds what is changed outside of watched calls.
        earlier_runs: Runs whose values are put beside those of the same cells of this one.
        acknowledged: Regressions that are known, by suite and cell: accepted now, or expired.
    """

    def __init__(self, *, batch_size: int, emit: Emit, progress: Progress, worker: int = 0) -> None:
        self.pool = ForwardPool(batch_size=batch_size)
        self.subjects: dict[str, dict[str, dict[str, Any]]] = {
            "models": {}, "explainers": {}, "pairs": {},
        }  # fmt: skip
        self.emit = emit
        self.earlier_runs: Sequence[EarlierRun | NamedBaseline] = ()
        self.acknowledged: dict[tuple[str, str], Accepted] = {}
        self._progress = progress
        self._admissions = Admissions(worker, batch_size)
        self._cards: dict[tuple[Any, ...], dict[str, Any] | None] = {}
        self._told: dict[str, None] = {}
        self._redraws = Redraws(self.pool)
        self._orders = Kept()
        self.guard = Guard(self.pool, self._caches)
        self._lists = Lists(self.pool, self.guard, progress)
        self._teaching = Teaching(self.pool, self.guard, progress)
        self._ready = Readying(self.pool, self._admissions, self.guard, progress)
        self._maps = MapMaker(self.pool, self._admissions, self.guard, progress)

    def prepare(self, cell: Cell, subjects: Subjects) -> Prepared:
        """Return everything a protocol may ask for, lazily.

        Raises:
            ContractError: If the model or the pairs can't be used.
            UnsupportedError: If the explainer can't explain this kind of model.
        """
        self._maps.begin()
        self._admissions.begin()
        for role, uses in zip(
            self.subjects, (cell.models, [cell.explainer], [cell.pairs]), strict=True
        ):
            for use in uses:
                self.subjects[role].pop(use.name, None)
        check_model(cell.model.name, subjects.model)
        check_explainer(cell.explainer.name, subjects.explainer)
        check_source(cell.pairs.name, subjects.source)
        model = subjects.model
        self._ready.place(cell, model)
        pairs = self._lists.loaded(
            cell, subjects.source, model.crop, self._matching(cell, subjects)
        )
        self._describe(cell, subjects, pairs)
        table = self._lists.table(cell, pairs, subjects.source, model.crop)
        table = with_words(table, self._lists.listed(pairs), cell.slices, cell.parameters)
        self._ready.admit(cell, cell.model, model, pairs)
        own_explainer = OtherExplainer(cell.explainer.name, subjects.explainer)
        self._maps.check_support(cell, cell.model.name, own_explainer, model)
        compared = {
            use.name: self._compared(cell, use.name, subjects.compared.get(use.name), model)
            for use in cell.others
        }
        pooled, entry = self._verified(cell, cell.model, model, subjects.source)
        explaining: list[Explaining] = []
        engine = CellEngine(self, cell, subjects.explainer, subjects.source, explaining)
        own = engine.subject(
            cell.model.name,
            NetworkHandle("trained", pooled.key, lambda: pooled, cell.model.name),
            pairs,
            table.faces,
            entry["operating_threshold"]["fault"],
        )
        others, absent, of_others = self._others(cell, engine, subjects)
        objection = "; ".join(entry["objections"]) or None
        rows = table.rows if objection else as_predicted(table.rows, own)
        evidence = Evidence(
            rows=rows,
            everyone=rows,
            versions=table.versions,
            subject=own,
            engine=engine,
            seed_of=lambda purpose, row, label: seed_of(cell.seed, purpose, row, label),
            others=others,
            absent=absent,
            kept=self._orders,
        )
        remarks = [*remarks_of(entry), *of_others, *self._lists.remarks(pairs)]
        return Prepared(evidence, objection, explaining, engine, compared, remarks)

    def _matching(self, cell: Cell, subjects: Subjects) -> Matching | None:
        """Return whom the model takes for whom, where rows are chosen by that."""
        if kinds()[cell.kind].ROWS != "false matches":
            return None
        return self._ready.matching(cell, subjects.model, subjects.source)

    def _compared(
        self, cell: Cell, name: str, given: Explainer | FxevalError | None, model: FaceModel
    ) -> OtherExplainer | str:
        """Return a further explainer, or the reason why it cannot explain the model."""
        try:
            if isinstance(given, FxevalError):
                raise given
            found = OtherExplainer(name, check_explainer(name, given))
            self._maps.check_support(cell, cell.model.name, found, model)
        except FxevalError as error:
            self._told[f"explainer '{name}': {error}"] = None
            return for_a_record(error)
        return found

    def _others(
        self, cell: Cell, engine: CellEngine, subjects: Subjects
    ) -> tuple[dict[str, list[Any]], dict[str, dict[str, str]], list[str]]:
        """Return what parameters name, by parameter; why some are absent; what is not known."""
        found: dict[str, list[Any]] = {}
        absent: dict[str, dict[str, str]] = {}
        remarks: list[str] = []
        for parameter, named in subjects.others.items():
            found[parameter], absent[parameter] = [], {}
            for name, other in named.items():
                if not isinstance(other, FaceModel | FxevalError):
                    found[parameter].append(OtherExplainer(name, check_explainer(name, other)))
                    continue
                try:
                    subject, said = self._other(cell, engine, name, other, subjects.source)
                except EvidenceError:
                    raise
                except FxevalError as error:
                    self._told[f"model '{name}': {error}"] = None
                    absent[parameter][name] = for_a_record(error)
                else:
                    found[parameter].append(subject)
                    remarks += said
        return found, absent, remarks

    def _other(
        self, cell: Cell, engine: CellEngine, name: str, other: FaceModel | FxevalError,
        source: PairSource,
    ) -> tuple[Subject, list[str]]:  # fmt: skip
        """Return a further model as a subject in its own crop, and what is not known about it.

        It is judged as if it were the cell's own: same threshold, same claims.

        Raises:
            FxevalError: If it could not be made, or must not be judged on these pairs.
        """
        if isinstance(other, FxevalError):
            raise other
        use = next((one for one in cell.models if one.name == name), Use(name))
        check_model(name, other)
        self._ready.place(cell, other)
        pairs = self._lists.loaded(cell, source, other.crop)
        self.subjects["models"][name] = model_entry(other)
        self._ready.admit(cell, use, other, pairs)
        pooled, entry = self._verified(cell, use, other, source)
        if entry["objections"]:
            raise ModelContractError("; ".join(entry["objections"]))
        subject = engine.subject(
            name,
            NetworkHandle(f"evaluator {name}", pooled.key, lambda: pooled, name),
            pairs,
            self._lists.rows(cell, source, pairs, other.crop).faces,
            entry["operating_threshold"]["fault"],
        )
        return subject, [f"evaluator {name}: {one}" for one in remarks_of(entry)]

    def _verified(
        self, cell: Cell, use: Use, model: FaceModel, source: PairSource
    ) -> tuple[PooledModel, Mapping[str, Any]]:
        pooled, entry = self._ready.verified(cell, use, model, source)
        self.subjects["models"][use.name]["verification"] = entry
        return pooled, entry

    def release(self) -> None:
        """Free the networks; measurements of them are kept."""
        self._admissions.release()
        self._redraws.release()

    def _caches(self) -> Sequence[dict[Any, Any]]:
        made = self._maps.kept, self._maps.repetitions, self._maps.reasons
        redrawn = self._redraws.known, self._redraws.kept, self._redraws.groups
        taught = self._teaching.known, self._teaching.kept
        kept = *self._lists.kept, self._orders.entries
        return *made, self._ready.measured, *redrawn, *taught, *kept

    @property
    def device(self) -> torch.device:
        """Device of the cell measured last."""
        return self._ready.device

    @property
    def verifying(self) -> Cost:
        """Forward passes and seconds spent on verification figures, of no cell's own."""
        return self._ready.cost

    @property
    def forwards(self) -> int:
        """Images that passed a network for the cells so far, through the pool or not."""
        unpooled = self._ready.unpooled_forwards + self._maps.unpooled_forwards
        unpooled += self._teaching.forwards
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
        several = self._told, self._lists.told, self._ready.told
        told = [
            *dict.fromkeys([*(text for one in several for text in one), *self._maps.take_told()])
        ]
        self._told, self._lists.told, self._ready.told = {}, {}, {}
        return told

    def explained(self, cell: Cell, wanted: Wanted) -> tuple[SaliencyMaps, Explaining]:
        """Return the maps of some comparisons, made once, and their cost at that time."""
        return self._maps.made(cell, wanted, self.device)

    def repeated(
        self, cell: Cell, wanted: Wanted, maps: SaliencyMaps
    ) -> tuple[Repetition, Explaining]:
        """Return what was found when a few of these maps were made again, and what it cost."""
        return self._maps.again(cell, wanted, maps, self.device)

    def redrawn(
        self, cell: Cell, network: NetworkHandle, pairs: Pairs, wanted: Redraw
    ) -> Redrawing:
        """Return the network with weights replaced, and its facts; built again if it was freed."""
        return self._redraws.redrawn(network, pairs, (cell.seed, wanted), self.guard)

    def layers(
        self, network: NetworkHandle, pairs: Pairs, steps: int | None
    ) -> tuple[LayerGroup, ...]:
        """Return the layers of a network in groups."""
        return self._redraws.layers(network, pairs, steps)

    def taught(
        self, cell: Cell, crop: Crop, pairs: Pairs, wanted: Training
    ) -> tuple[NetworkHandle, Taught]:
        """Return a small network that learnt the images of the pairs, and its facts."""
        return self._teaching.taught(cell, crop, pairs, wanted, self.device)

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
                f"pairs '{pairs.name}', never explained", self._lists.listed(pairs).set_aside
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

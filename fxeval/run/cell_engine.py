"""The engine of one cell: its subjects, and maps that are made once for all of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from fxeval.contracts import (
    Crop,
    Explainer,
    FaceModel,
    Faces,
    LabelMaps,
    LabelSource,
    Maps,
    Pairs,
    PairSource,
    SaliencyMaps,
    traits_of,
)
from fxeval.datasets.faces.crops import move_maps
from fxeval.engine.inputs import Comparison
from fxeval.engine.made_images import originals
from fxeval.engine.repetition import together
from fxeval.engine.sources import sources_of
from fxeval.engine.twin_rows import why_no_answer
from fxeval.errors import UnsupportedError
from fxeval.explainers.map_levels import joined
from fxeval.functional.map_similarity import same_maps
from fxeval.hooks.layer_groups import LayerGroup
from fxeval.hooks.returned import check_label_maps
from fxeval.hooks.watch import modes_kept
from fxeval.metrics.protocol import (
    MapCost,
    OtherExplainer,
    Redraw,
    Redrawn,
    Rows,
    Student,
    Subject,
    Training,
    averaged,
    one_by_one,
)
from fxeval.records.schema import Explaining, Repeatability
from fxeval.run.foreign_network import check_weights, has_weights
from fxeval.run.variants import Variants
from fxeval.run.wanted import NetworkHandle as NetworkHandle
from fxeval.run.wanted import Redrawing as Redrawing
from fxeval.run.wanted import Repetition as Repetition
from fxeval.run.wanted import Shared as Shared
from fxeval.run.wanted import Wanted as Wanted
from fxeval.statistics.limit import in_words
from fxeval.suite.cells import Cell

LEARNT_TRUE = Training("true", 1).label
"""The network of a check that trains its own, in the place of the cell's model."""

FURTHER_SEEDS = 1000
"""Distance of the seeds of further draws; suites allow fewer seeds."""


class CellEngine:
    """Makes the subjects of one cell, and their maps once for all rows."""

    def __init__(
        self, shared: Shared, cell: Cell, explainer: Explainer, source: PairSource,
        explaining: list[Explaining],
    ) -> None:  # fmt: skip
        self._shared, self._cell, self._source = shared, cell, source
        self._explaining = explaining
        self.own = OtherExplainer(cell.explainer.name, explainer)
        self._behind: dict[int, tuple[NetworkHandle, Faces, Crop]] = {}
        self._repetitions: dict[str, dict[str, Repetition]] = {}
        self._averaged: dict[tuple[object, ...], SaliencyMaps] = {}
        self._refused: dict[tuple[int, str], UnsupportedError] = {}
        self._redrawn: dict[tuple[str, int, Redraw], Redrawn] = {}
        self._costs: dict[tuple[object, ...], dict[str, Explaining]] = {}
        self._students: dict[str, Subject] = {}
        self.variants = Variants()

    def subject(
        self, name: str, network: NetworkHandle, pairs: Pairs, faces: Faces, no_decision: str = "",
        *, like: FaceModel | None = None,
    ) -> Subject:  # fmt: skip
        """Return a network at work on the cell's images.

        Args:
            name: Name in reports.
            network: The network.
            pairs: The pairs, with whose images a re-drawn copy is calibrated.
            faces: The same images, with their identities.
            no_decision: Why its operating threshold decides nothing; "" if it does.
            like: A model with its crop, similarity and threshold; None = the network itself, which
                is built for it.
        """
        model, pool = like or network.get(), self._shared.pool
        crop = model.crop

        def fit(of: Subject, maps: Maps) -> Maps:
            return move_maps(maps, self._behind[id(of)][2], crop).maps

        made = Subject(
            name=name,
            size=crop.size,
            similarity=model.similarity,
            operating_threshold=None if no_decision else model.operating_threshold,
            no_decision=no_decision,
            clean=lambda: pool.clean(network.get(), faces),
            embed=lambda wanted: pool.embed(network.get(), faces, wanted),
            pixels=lambda images: faces.images[images].float() / 255.0,
            fit=fit,
            redraw=lambda wanted: self._redraw(network, pairs, faces, wanted),
            train=lambda wanted: self._train(crop, pairs, faces, wanted),
            labels=lambda images: self._labels(pairs, originals(faces, images), crop),
            has_weights=like is not None or has_weights(model),  # a copy always has
            layers=lambda steps: self._layers(network, pairs, steps),
        )
        # By id: subjects consist of functions and are never equal by value.
        self._behind[id(made)] = network, faces, crop
        return made

    def maps(
        self, rows: Rows, subject: Subject, explainer: OtherExplainer | None, draw: int = 0
    ) -> SaliencyMaps:
        """Return one map per row on a subject: the mean if a row has several sources."""
        return Measuring(self, self.own).maps(rows, subject, explainer, draw)

    def maps_each(self, rows: Rows, subject: Subject) -> tuple[SaliencyMaps, ...]:
        """Return the maps of every source of the rows."""
        return Measuring(self, self.own).maps_each(rows, subject)

    def variant(self, settings: Mapping[str, str]) -> OtherExplainer:
        """Return the cell's explainer with some settings replaced."""
        return self.variants.of(self.own, settings)

    def instead(self, explainer: OtherExplainer) -> "Measuring":
        """Return the engine with another explainer in the place of the cell's own."""
        return Measuring(self, explainer)

    def refusal(self, rows: Rows) -> str:
        """Return why the cell's explainer has no answer to what rows ask; "" if it has."""
        return why_no_answer(self.own, rows)

    def alike(self, rows: Rows, subject: Subject, *by: OtherExplainer) -> bool:
        """Say whether two explainers give every row the same map; found out once, at seed 0."""
        key = id(rows), id(subject), *((one.name, one.settings) for one in by)
        if key not in self.variants.alike:
            a, b = (self.made(rows, subject, one, 0) for one in by)
            self.variants.alike[key] = a.states == b.states and same_maps(a.positive, b.positive)
        return self.variants.alike[key]

    def made(
        self, rows: Rows, subject: Subject, by: OtherExplainer, seed: int, *, is_judged: bool = True
    ) -> SaliencyMaps:
        """Return one map per row on a subject, by an explainer at one of its seeds.

        Args:
            rows: All rows of the cell.
            subject: The network that is explained.
            by: The explainer.
            seed: Index of its seed.
            is_judged: Whether limits ask for its values: then a few maps of the trained network are
                made again.
        """
        network = self._behind[id(subject)][0]
        if network.label != "trained":
            self._refuse_given(by, network)
        elif rows.kind == "compared pairs":
            self._refuse_given(by, network, "other pictures and nonmates")
        refusal = self._refused.get((id(by.explainer), network.key))
        if refusal is not None:
            raise refusal
        if not by.settings:
            return self._made(rows, subject, by, seed, is_judged=is_judged)
        of = network.get()
        return self.variants.explained(
            by, of, lambda: self._made(rows, subject, by, seed, is_judged=is_judged)
        )

    def _made(
        self, rows: Rows, subject: Subject, by: OtherExplainer, seed: int, *, is_judged: bool
    ) -> SaliencyMaps:
        network, faces, _ = self._behind[id(subject)]
        is_judged = is_judged and network.label in ("trained", LEARNT_TRUE) and seed == 0
        key = _set_of(rows, subject, by, seed)
        if rows.source.shape[1] == 1 and rows.against.ndim == 2 and key not in self._averaged:
            asked = Comparison(
                faces, rows.id, rows.source[:, 0], rows.against[:, 0], rows.contrast, seed,
                rows.only, rows.enrolled, rows.draws, rows.is_discriminative,
            )  # fmt: skip
            wanted = Wanted(by, network, asked, rows.set_name)
            maps = self._asked(wanted, key, is_judged=is_judged and not rows.look)
            if not by.settings:
                return maps
            self._averaged[key] = maps
        if key not in self._averaged:
            self._averaged[key] = averaged(*self._sources(rows, subject, by, seed, is_judged))
        return self._averaged[key]

    def each(
        self, rows: Rows, subject: Subject, by: OtherExplainer, seed: int
    ) -> tuple[SaliencyMaps, ...]:
        """Return the maps of all sources of the rows: of the first ones, the second ones, ..."""
        made = self.made(rows, subject, by, seed)
        if rows.source.shape[1] == 1:
            return (made,)
        return one_by_one(*self._sources(rows, subject, by, seed, is_judged=True))

    def _sources(
        self, rows: Rows, subject: Subject, by: OtherExplainer, seed: int, is_judged: bool
    ) -> tuple[SaliencyMaps, tuple[tuple[int, ...], ...]]:
        """Return the maps of all distinct sources, and the places of those of each row."""
        network, faces, _ = self._behind[id(subject)]
        takes_centroids = traits_of(by.explainer).takes_centroids
        parts, of = [], sources_of(rows, faces, seed, takes_centroids=takes_centroids)
        what = "sources" if rows.source.shape[1] > 1 else rows.side
        for number, asked in enumerate(of.asked):
            name = f"{what} {number + 1}" if len(of.asked) > 1 else what
            wanted = Wanted(by, network, asked, name)
            key = _set_of(rows, subject, by, seed)
            parts.append(self._asked(wanted, key, is_judged=is_judged and not number))
        size = (int(parts[0].positive.shape[1]), int(parts[0].positive.shape[2]))
        return joined(parts, size), of.places

    def cost(self, rows: Rows, subject: Subject) -> MapCost:
        """Return what the maps of all rows on a subject cost when they were made."""
        return Measuring(self, self.own).cost(rows, subject)

    def cost_of(self, rows: Rows, subject: Subject, by: OtherExplainer, seed: int) -> MapCost:
        """Return what those of an explainer at one of its seeds cost."""
        self.made(rows, subject, by, seed)
        return MapCost.of(self._costs[_set_of(rows, subject, by, seed)].values())

    def _asked(
        self, wanted: Wanted, part_of: tuple[object, ...], *, is_judged: bool
    ) -> SaliencyMaps:
        """Return maps, made once; if limits ask for their values, a few are made again."""
        wanted = replace(wanted, is_own=wanted.by.name == self.own.name)
        try:
            maps, cost = self._shared.explained(self._cell, wanted)
        except UnsupportedError as error:  # every group of rows would ask again
            self._refused[id(wanted.by.explainer), wanted.network.key] = error
            raise
        self._note(cost)
        self._costs.setdefault(part_of, {})[wanted.label] = cost
        if is_judged:
            repetition, cost = self._shared.repeated(self._cell, wanted, maps)
            of = f"{wanted.name}{in_words(dict(wanted.by.settings))}"
            self._repetitions.setdefault(wanted.by.name, {})[of] = repetition
            if cost.n_maps:
                self._note(cost)
        return maps

    def repeatability(self, explainer: str) -> Repeatability | None:
        """Return whether an explainer repeats the maps that were made so far; None if unknown."""
        several = self._repetitions.get(explainer, {}).values()
        if any(one.found is None for one in several):
            return None
        return together([one.found for one in several if one.found is not None])

    def seeds(self, explainer: str) -> int:
        """Return with how many seeds an explainer is measured: one if they change nothing."""
        several = self._repetitions.get(explainer, {}).values()
        if any(one.found is None for one in several):  # its draws can't be told from the model's
            return self._cell.seeds
        found = self.repeatability(explainer)
        is_seeded = found is not None and found.repeats and found.depends_on_seed
        return self._cell.seeds if is_seeded else 1

    def is_seeded(self, explainer: str) -> bool:
        """Say whether another seed may give an explainer other maps, as far as is known."""
        found = self.repeatability(explainer)
        return found is None or found.depends_on_seed

    def remarks(self) -> list[str]:
        """Return why it was not found out whether an explainer repeats."""
        several = [one for named in self._repetitions.values() for one in named.values()]
        return [*dict.fromkeys(one.remark for one in several if one.remark)]

    def _refuse_given(
        self, by: OtherExplainer, network: NetworkHandle, what: str = "a re-drawn one"
    ) -> None:
        if not traits_of(by.explainer).maps_are_given:
            return
        said = f"the maps of {by.name} are given: they were made with one network and "
        if network.of != self._cell.model.name:
            raise UnsupportedError(f"{said}say nothing of {network.of}.")
        raise UnsupportedError(
            f"{said}do not change with {what}. Leave {self._cell.kind} out for them."
        )

    def _note(self, cost: Explaining) -> None:
        known = [(one.network, one.side) for one in self._explaining]
        if (cost.network, cost.side) not in known:
            self._explaining.append(cost)

    def _labels(self, pairs: Pairs, images: Tensor, crop: Crop) -> LabelMaps:
        if not isinstance(self._source, LabelSource):
            raise UnsupportedError(
                f"pairs '{pairs.name}' have no label maps, which {self._cell.kind} needs. Use a "
                "list whose source has a method labels(image_ids, crop)."
            )
        with modes_kept(self._shared.pool.note, f"pairs '{pairs.name}'"):
            ids = [pairs.image_ids[image] for image in images.tolist()]
            found = self._source.labels(ids, crop)
        return check_label_maps(pairs.name, found, len(images), crop.size)

    def _redraw(
        self, network: NetworkHandle, pairs: Pairs, faces: Faces, wanted: Redraw
    ) -> Redrawn:
        key = network.key, id(faces), wanted  # faces stay alive with the cell
        if key not in self._redrawn:
            model = network.get()
            if wanted.nudge or wanted.layers is not None:
                how = "nudged" if wanted.nudge else "re-drawn layer by layer"
                check_weights(model, self._cell.kind, how)
            self._refuse_given(self.own, network)
            found = self._shared.redrawn(self._cell, network, pairs, wanted)
            subject = self.subject(found.known.name, found.network, pairs, faces, like=model)
            self._redrawn[key] = Redrawn(subject, found.known)
        return self._redrawn[key]

    def _layers(
        self, network: NetworkHandle, pairs: Pairs, steps: int | None
    ) -> tuple[LayerGroup, ...]:
        check_weights(network.get(), self._cell.kind, "re-drawn layer by layer")
        return self._shared.layers(network, pairs, steps)

    def _train(self, crop: Crop, pairs: Pairs, faces: Faces, wanted: Training) -> Student:
        if traits_of(self.own.explainer).maps_are_given:
            raise UnsupportedError(
                f"the maps of {self.own.name} are given: they do not change with a network that is "
                f"trained in the check. Leave {self._cell.kind} out for them."
            )
        network, known = self._shared.taught(self._cell, crop, pairs, wanted)
        if known.name not in self._students:
            # One subject for all groups of rows, as maps are made for all of them at once.
            self._students[known.name] = self.subject(known.name, network, pairs, faces)
        return Student(self._students[known.name], known)


def _set_of(rows: Rows, subject: Subject, by: OtherExplainer, seed: int) -> tuple[object, ...]:
    """Name a set of maps; the rows stay alive with the cell, so their ids name them."""
    return id(rows), id(subject), by.name, by.settings, id(by.explainer), seed


@dataclass(frozen=True, eq=False)
class Measuring:
    """The engine while the maps of one explainer, at one of its seeds, are measured.

    Attributes:
        engine: The cell's engine.
        by: The explainer that takes the place of the cell's own.
        seed: Index of its seed; explainers that a parameter names keep theirs.
    """

    engine: CellEngine
    by: OtherExplainer
    seed: int = 0

    def maps(
        self, rows: Rows, subject: Subject, explainer: OtherExplainer | None, draw: int = 0
    ) -> SaliencyMaps:
        """Return one map per row on a subject."""
        if explainer is not None:
            further = FURTHER_SEEDS * draw
            return self.engine.made(rows, subject, explainer, further, is_judged=False)
        if draw and not self.engine.is_seeded(self.by.name):
            draw = 0  # another seed gives the same maps
        return self.engine.made(rows, subject, self.by, self.seed + FURTHER_SEEDS * draw)

    def maps_each(self, rows: Rows, subject: Subject) -> tuple[SaliencyMaps, ...]:
        """Return the maps of every source of the rows."""
        return self.engine.each(rows, subject, self.by, self.seed)

    def cost(self, rows: Rows, subject: Subject) -> MapCost:
        """Return what the maps of all rows on a subject cost when they were made."""
        return self.engine.cost_of(rows, subject, self.by, self.seed)

    def variant(self, settings: Mapping[str, str]) -> OtherExplainer:
        """Return the explainer with some settings replaced."""
        return self.engine.variants.of(self.by, settings)

    def instead(self, explainer: OtherExplainer) -> "Measuring":
        """Return the engine with another explainer in the place of this one."""
        return replace(self, by=explainer)

    def alike(self, rows: Rows, subject: Subject, *by: OtherExplainer) -> bool:
        """Say whether two explainers give every row the same map."""
        return self.engine.alike(rows, subject, *by)

    def refusal(self, rows: Rows) -> str:
        """Return why the explainer has no answer to what rows ask; "" if it has."""
        return why_no_answer(self.by, rows)

"""The engine of one cell: its subjects, and maps that are made once for all of its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fxeval.contracts import (
    Crop,
    Explainer,
    Faces,
    LabelMaps,
    LabelSource,
    Maps,
    Pairs,
    PairSource,
    SaliencyMaps,
    model_traits,
    traits_of,
)
from fxeval.datasets.faces.crops import move_maps
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.inputs import Comparison
from fxeval.errors import DataContractError, UnsupportedError
from fxeval.hooks.watch import modes_kept
from fxeval.metrics.protocol import OtherExplainer, Redrawn, Rows, Subject, averaged
from fxeval.records.schema import Explaining, Network
from fxeval.suite.cells import Cell


@dataclass(frozen=True, eq=False)
class NetworkHandle:
    """A network behind a subject, built when it is needed.

    Attributes:
        label: ``trained``, or the name of the re-drawn copy.
        key: Key under which its embeddings and maps are cached.
        get: Builds the network, or returns it.
    """

    label: str
    key: str
    get: Callable[[], PooledModel]


@dataclass(frozen=True, eq=False)
class Redrawing:
    """A re-drawn network, and the facts about it."""

    network: NetworkHandle
    known: Network


@dataclass(frozen=True, eq=False)
class Wanted:
    """A set of maps that a cell asks for.

    Attributes:
        by: The explainer.
        network: The network that is explained.
        asked: The comparisons.
        name: Of the comparisons, such as ``probe``.
    """

    by: OtherExplainer
    network: NetworkHandle
    asked: Comparison
    name: str


class Shared(Protocol):
    """The parts that cells share: the pool, maps that were made before, re-drawn networks."""

    pool: ForwardPool

    def explained(self, cell: Cell, wanted: Wanted) -> tuple[SaliencyMaps, Explaining]:
        """Return the maps of some comparisons, and what they cost when they were made."""

    def redrawn(self, cell: Cell, network: NetworkHandle, pairs: Pairs, index: int) -> Redrawing:
        """Return a re-drawn copy of a network."""


class CellEngine:
    """Makes the subjects of one cell, and their maps once for all rows."""

    def __init__(
        self, shared: Shared, cell: Cell, explainer: Explainer, source: PairSource,
        explaining: list[Explaining],
    ) -> None:  # fmt: skip
        self._shared, self._cell, self._source = shared, cell, source
        self._explaining = explaining
        self._own = OtherExplainer(cell.explainer.name, explainer)
        self._behind: dict[int, tuple[NetworkHandle, Faces, Crop]] = {}

    def subject(
        self, name: str, network: NetworkHandle, pairs: Pairs, faces: Faces, no_decision: str = ""
    ) -> Subject:
        """Return a network at work on the cell's images.

        Args:
            name: Name in reports.
            network: The network.
            pairs: The pairs, with whose images a re-drawn copy is calibrated.
            faces: The same images, with their identities.
            no_decision: Why its operating threshold decides nothing; "" if it does.
        """
        model, pool = network.get(), self._shared.pool
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
            redraw=lambda index: self._redraw(network, pairs, faces, index),
            labels=lambda images: self._labels(pairs, images, crop),
        )
        # By id: subjects consist of functions and are never equal by value.
        self._behind[id(made)] = network, faces, crop
        return made

    def maps(self, rows: Rows, subject: Subject, explainer: OtherExplainer | None) -> SaliencyMaps:
        """Return one map per row on a subject: the mean if a row has several sources."""
        network, faces, _ = self._behind[id(subject)]
        found = []
        for number in range(rows.source.shape[1]):
            asked = Comparison(
                faces, rows.id, rows.source[:, number], rows.against[:, number], rows.contrast
            )
            name = rows.side if rows.source.shape[1] == 1 else f"source {number + 1}"
            wanted = Wanted(explainer or self._own, network, asked, name)
            maps, cost = self._shared.explained(self._cell, wanted)
            found.append(maps)
            if all(
                (one.network, one.side) != (cost.network, cost.side) for one in self._explaining
            ):
                self._explaining.append(cost)
        return averaged(found)

    def _labels(self, pairs: Pairs, images: Tensor, crop: Crop) -> LabelMaps:
        if not isinstance(self._source, LabelSource):
            raise UnsupportedError(
                f"pairs '{pairs.name}' have no label maps, which {self._cell.kind} needs. Use a "
                "list whose source has a method labels(image_ids, crop)."
            )
        with modes_kept(self._shared.pool.note, f"pairs '{pairs.name}'"):
            found = self._source.labels([pairs.image_ids[image] for image in images.tolist()], crop)
        if tuple(found.labels.shape) != (len(images), *crop.size):
            raise DataContractError(
                f"pairs '{pairs.name}': expected label maps ({len(images)}, {crop.size[0]}, "
                f"{crop.size[1]}), got {tuple(found.labels.shape)}."
            )
        return found

    def _redraw(self, network: NetworkHandle, pairs: Pairs, faces: Faces, index: int) -> Redrawn:
        model, cell = network.get(), self._cell
        if model.module is None:
            raise UnsupportedError(
                f"model '{model.name}' is a black box: its weights can't be re-drawn. Leave "
                f"{cell.kind} out for it."
            )
        if not model_traits(model).has_layers:
            raise UnsupportedError(
                f"model '{model.name}': its layers can't be reached, so its weights can't be "
                f"re-drawn layer by layer. Leave {cell.kind} out for it."
            )
        if traits_of(self._own.explainer).maps_are_given:
            raise UnsupportedError(
                f"the maps of {cell.explainer.name} are given: they were made with one network and "
                f"do not change with a re-drawn one. Leave {cell.kind} out for them."
            )
        found = self._shared.redrawn(cell, network, pairs, index)
        return Redrawn(self.subject(found.known.name, found.network, pairs, faces), found.known)

"""What a cell asks of its run: networks, maps, a few of them again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fxeval.contracts import Crop, Pairs, SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.inputs import Comparison
from fxeval.engine.metering import Cost
from fxeval.hooks.layer_groups import LayerGroup
from fxeval.metrics.protocol import OtherExplainer, Redraw, Training
from fxeval.records.schema import Explaining, Network, Repeatability, Taught
from fxeval.statistics.limit import in_words
from fxeval.suite.cells import Cell


@dataclass(frozen=True, eq=False)
class NetworkHandle:
    """A network behind a subject, built when it is needed.

    Attributes:
        label: ``trained``, the name of the re-drawn copy, or, for a further model of the cell,
            ``evaluator`` and its name.
        key: Key under which its embeddings and maps are cached.
        get: Builds the network, or returns it.
        of: Name of the model in the suite.
    """

    label: str
    key: str
    get: Callable[[], PooledModel]
    of: str = ""


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
        asked: The comparisons, with the index of the explainer's seed.
        name: Of the comparisons, such as ``probe``.
        is_own: Whether the explainer is the cell's own.
    """

    by: OtherExplainer
    network: NetworkHandle
    asked: Comparison
    name: str
    is_own: bool = True

    @property
    def label(self) -> str:
        """Its name where costs are shown."""
        seed = f", seed {self.asked.seed}" if self.asked.seed else ""
        other = "" if self.is_own else f", {self.by.name}"
        return f"{self.name}{seed}{other}{in_words(dict(self.by.settings))}"


@dataclass(frozen=True, eq=False)
class Repetition:
    """What was found when a few maps of a set were made again.

    Attributes:
        found: The findings; None if the model itself answers differently each time.
        remark: Why nothing was found; empty if something was.
        n_maps: Number of maps that were made.
        cost: Of making them.
    """

    found: Repeatability | None
    remark: str
    n_maps: int
    cost: Cost


class Shared(Protocol):
    """The parts that cells share: the pool, maps that were made before, re-drawn networks."""

    pool: ForwardPool

    def explained(self, cell: Cell, wanted: Wanted) -> tuple[SaliencyMaps, Explaining]:
        """Return the maps of some comparisons, and what they cost when they were made."""

    def repeated(
        self, cell: Cell, wanted: Wanted, maps: SaliencyMaps
    ) -> tuple[Repetition, Explaining]:
        """Return what was found when a few of these maps were made again, and what it cost."""

    def redrawn(
        self, cell: Cell, network: NetworkHandle, pairs: Pairs, wanted: Redraw
    ) -> Redrawing:
        """Return a copy of a network with weights replaced."""

    def layers(
        self, network: NetworkHandle, pairs: Pairs, steps: int | None
    ) -> tuple[LayerGroup, ...]:
        """Return the layers of a network in groups."""

    def taught(
        self, cell: Cell, crop: Crop, pairs: Pairs, wanted: Training
    ) -> tuple[NetworkHandle, Taught]:
        """Return a small network that learnt the images of the pairs."""

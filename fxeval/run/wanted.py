"""What a cell asks of its run: networks, maps, a few of them again."""

from collections.abc import Callable
from dataclasses import dataclass

from fxeval.engine.forward_pool import PooledModel
from fxeval.engine.inputs import Comparison
from fxeval.engine.metering import Cost
from fxeval.metrics.protocol import OtherExplainer
from fxeval.records.schema import Network, Repeatability
from fxeval.statistics.limit import in_words


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

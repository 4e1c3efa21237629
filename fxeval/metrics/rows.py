"""Rows, what is asked about them, and the subjects that answer."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Embeddings, Images, LabelMaps, Maps, SimilarityKind
from fxeval.errors import UnsupportedError
from fxeval.functional.perturbations import Perturbations
from fxeval.hooks.layer_groups import LayerGroup
from fxeval.records.schema import Explaining, Network, Taught

FloatArray: TypeAlias = NDArray[np.float64]
RowKind = Literal[
    "mated pairs",
    "compared pairs",
    "pairs",
    "held-out pairs",
    "held-out mated pairs",
    "patched pairs",
    "occluded pairs",
    "nearby pairs",
    "false matches",
    "nonmated pairs",
    "searches",
    "triplets",
    "twins",
    "identities",
    "classes",
    "people",
    "map pairs",
]
Side: TypeAlias = str
"""Which version of its image a row is of: ``probe``, ``reference``, or the name of a made image."""

DISCRIMINATIVE, PAIRWISE = "discriminative", "pairwise"
"""Versions of a twin's row: with the nonmate as the explainer's contrast, and without one."""


@dataclass(frozen=True)
class Redraw:
    """Which weights of a network are replaced, and by what.

    Attributes:
        index: Number of the draw, from 0; each has weights of its own.
        layers: Dotted names of the modules whose own weights are replaced; None = all modules.
        of: What these layers are called in reports, such as ``stage4 to fc``; "" with all modules.
        nudge: 0: weights are drawn anew. Else each is multiplied by 1 + ``nudge`` * z, z drawn from
            the standard normal distribution, and statistics of normalisation layers stay.
    """

    index: int = 0
    layers: tuple[str, ...] | None = None
    of: str = ""
    nudge: float = 0.0

    @property
    def label(self) -> str:
        """Name of the network in reports.

        >>> Redraw(0).label, Redraw(2, ("fc",), "fc").label, Redraw(nudge=0.001).label
        ('re-drawn network 1', 're-drawn network 3 (fc)', 'nudged network 1')
        """
        what = "nudged" if self.nudge else "re-drawn"
        return f"{what} network {self.index + 1}" + f" ({self.of})" * bool(self.of)

    @property
    def foreign_label(self) -> str:
        """Name of the random network that stands in for a black box with such weights.

        >>> Redraw(0).foreign_label
        'foreign random network 1'
        """
        return f"foreign random network {self.index + 1}"


@dataclass(frozen=True)
class Training:
    """How a small network of fxeval's own learns the images of a list.

    Attributes:
        labels: ``true``, or ``permuted`` image by image.
        epochs: Passes over all images at most.
    """

    labels: Literal["true", "permuted"]
    epochs: int

    @property
    def label(self) -> str:
        """Name of the network in reports.

        >>> Training("permuted", 200).label
        'network trained on permuted labels'
        """
        return f"network trained on {self.labels} labels"


class Question(Protocol):
    """A question to a subject about a row: a number that falls when evidence is removed.

    ``rows`` are positions in the rows that the question is about; ``embeddings`` are those of the
    rows' images, perturbed or not, one for each of ``rows``.
    """

    @property
    def unit(self) -> str:
        """Unit of the answers."""

    def answer(self, subject: "Subject", rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return (R,) answers, the numbers that curves are made of."""

    def score(self, subject: "Subject", rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the (R,) answers in the model's native similarity, where there is one."""

    def margin(self, subject: "Subject", rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the (R,) margins of the decision: negative = it has flipped, NaN = no decision."""

    def take(self, rows: Tensor) -> "Question":
        """Return the question about some of the rows."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that are measured, one value each.

    Attributes:
        kind: What a row is.
        id: By content of the images; no name of a file or a person.
        image: (N,) which image is perturbed.
        source: (N, K) images that the map is made from: the image itself, or, for a map of the
            identity, up to K others of the same person; -1 where a row has fewer.
        against: (N, K) images that these are compared with when they are explained, or (N, K, R),
            several images whose centroid each is compared with; -1 where there are fewer.
        identities: (N, 1), or (N, 2) where a row is of two people; intervals resample these.
        is_mated: (N,) bool.
        question: The question about the perturbed image.
        contrast: (N,) nonmates for discriminative explainers; None = the engine draws them.
        enrolled: (G,) images of a closed set's gallery; None = all images are the gallery.
        side: Which version of its image a row is of: the probe or the reference of a pair, or an
            image that was made of the probe.
        donor: (N,) images whose pixels may replace those of the row's image (fill ``DONOR``).
        altered: (N, H, W) bool, for made images: the pixels that are not those of the original.
        draws: Names draws of the explainer that are not those of other versions, as their maps are
            compared; "" = the same draws. They depend on the place of a row: noise would have the
            same map of both.
        slices: The word of each row in each column that the check has slices of; () = none.
        is_discriminative: Whether a row asks why the image is the mate rather than the nonmate:
            then explainers that take a contrast get ``contrast``.
        only: (M,) positions of the rows whose maps are asked for; None = all.
        look: Which look they are of, from 0.
    """

    kind: RowKind
    id: tuple[str, ...]
    image: Tensor
    source: Tensor
    against: Tensor
    identities: Tensor
    is_mated: Tensor
    question: Question
    contrast: Tensor | None = None
    enrolled: Tensor | None = None
    side: Side = "probe"
    donor: Tensor | None = None
    altered: Tensor | None = None
    draws: str = ""
    slices: tuple[Mapping[str, str], ...] = ()
    is_discriminative: bool = False
    only: Tensor | None = None
    look: int = 0

    @property
    def set_name(self) -> str:
        """What the maps that are asked for are called where costs are shown."""
        return f"{self.side}, look {self.look + 1}" if self.look else self.side

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Tensor) -> "Rows":
        """Return some of the rows."""
        return replace(
            self,
            id=tuple(self.id[row] for row in rows.tolist()),
            image=self.image[rows],
            source=self.source[rows],
            against=self.against[rows],
            identities=self.identities[rows],
            is_mated=self.is_mated[rows],
            question=self.question.take(rows),
            contrast=None if self.contrast is None else self.contrast[rows],
            donor=None if self.donor is None else self.donor[rows],
            altered=None if self.altered is None else self.altered[rows],
            slices=tuple(self.slices[row] for row in rows.tolist()) if self.slices else (),
        )


def _no_training(wanted: Training) -> "Student":
    raise UnsupportedError("no network can be trained beside this one.")


@dataclass(frozen=True, eq=False)
class Subject:
    """A model at work on the rows' images, in its own crop.

    The cell's model, another evaluator and a re-drawn copy are all subjects: a protocol treats them
    alike.

    Attributes:
        name: The model's name in the suite, or what a re-drawn copy is called.
        size: (H, W) of its crop.
        similarity: Its native similarity.
        operating_threshold: In the native similarity; None if it has none.
        clean: Embeddings of all images, unperturbed, (M, D).
        embed: Embeds described perturbations.
        pixels: Images by their numbers, (n, 3, H, W) in [0, 1].
        fit: Carries maps made on another subject into this one's crop.
        redraw: The network with weights replaced.
        labels: Label maps of images by their numbers.
        no_decision: Why the model's own threshold is withheld, as it decides nothing; "" if it
            is not.
        has_weights: Whether its weights can be reached. Those of a black box can't: a re-draw is a
            random network of ours with the same crop and size of embedding, and no weight can be
            nudged.
        layers: The network's layers in groups, from the output to the input: at most so many, or
            one for each layer (None). Every parameter and buffer is in exactly one.
        train: A small network of fxeval's own that learnt the cell's images in this crop.
    """

    name: str
    size: tuple[int, int]
    similarity: SimilarityKind
    operating_threshold: float | None
    clean: Callable[[], Embeddings]
    embed: Callable[[Perturbations], Embeddings]
    pixels: Callable[[Tensor], Images]
    fit: Callable[["Subject", Maps], Maps]
    redraw: Callable[[Redraw], "Redrawn"]
    labels: Callable[[Tensor], LabelMaps]
    no_decision: str = ""
    has_weights: bool = True
    layers: Callable[[int | None], tuple[LayerGroup, ...]] = lambda steps: ()
    train: Callable[[Training], "Student"] = _no_training


@dataclass(frozen=True)
class MapCost:
    """The cost of the maps of all rows, when they were made.

    Attributes:
        n_maps: Number of maps.
        forwards: Images in forward passes, those among them that were answered from memory.
        backwards: Images in backward passes.
        seconds: Wall time.
        peak_memory: Bytes that making them took at most, as far as it was seen; None = not known.
    """

    n_maps: int
    forwards: int
    backwards: int
    seconds: float
    peak_memory: int | None

    @classmethod
    def of(cls, parts: Collection[Explaining]) -> "MapCost":
        """Return the cost of several sets of maps, made one after the other."""
        known = [one.peak_memory for one in parts if one.peak_memory is not None]
        return cls(
            n_maps=sum(one.n_maps for one in parts),
            forwards=sum(one.forwards + one.answered for one in parts),
            backwards=sum(one.backwards for one in parts),
            seconds=sum(one.seconds for one in parts),
            peak_memory=max(known, default=None),
        )


@dataclass(frozen=True, eq=False)
class Student:
    """A network that a check trained, and its figures for the record."""

    subject: Subject
    network: Taught


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A re-drawn copy of a network, and its figures for the record."""

    subject: Subject
    network: Network

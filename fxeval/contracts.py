"""The types that subjects must implement, and the data that is passed from step to step.

Legend of shapes (mypy sees tensors; the names carry the meaning):

* ``Images``      (N, 3, H, W)  float32 in [0, 1], RGB
* ``Maps``        (N, H, W)     float32, finite, larger = more important for the similarity
* ``Embeddings``  (N, D)        float32, as the network returns them (not normalised)

N pairs, K removal steps, D embedding size, H and W height and width in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.errors import ExplainerContractError
from fxeval.listings import DataCard as DataCard
from fxeval.listings import Exclusion as Exclusion
from fxeval.listings import IdentityListing as IdentityListing
from fxeval.listings import PairListing as PairListing
from fxeval.listings import TwinSource as TwinSource
from fxeval.redaction import PublicReason as PublicReason
from fxeval.results import BROKEN_STATES as BROKEN_STATES
from fxeval.results import MapLayer as MapLayer
from fxeval.results import RowState as RowState
from fxeval.traits import CardFacts as CardFacts
from fxeval.traits import ClaimedFigure as ClaimedFigure
from fxeval.traits import ClaimKind as ClaimKind
from fxeval.traits import ClaimProtocol as ClaimProtocol
from fxeval.traits import ExplainerTraits as ExplainerTraits
from fxeval.traits import GoldenCheck as GoldenCheck
from fxeval.traits import ModelTags as ModelTags
from fxeval.traits import ModelTraits as ModelTraits
from fxeval.traits import Need as Need
from fxeval.traits import model_traits as model_traits
from fxeval.traits import traits_of as traits_of

Images: TypeAlias = Tensor
Maps: TypeAlias = Tensor
Embeddings: TypeAlias = Tensor

SimilarityKind = Literal["cosine", "neg_l2"]
Colour = Literal["RGB", "BGR", "grey"]
Fill = Literal["blur", "mean", "black", "white", "random"]


@dataclass(frozen=True)
class Crop:
    """How a model wants a face cut out: its size and where the five landmarks go.

    Attributes:
        name: Short name, for example ``arcface112``.
        size: (height, width) in pixels.
        template: Five (x, y) targets in pixels: eye at the image's left, eye at the image's right,
            nose tip, mouth corner at the image's left, mouth corner at the image's right.
    """

    name: str
    size: tuple[int, int]
    template: tuple[tuple[float, float], ...]


@runtime_checkable
class FaceModel(Protocol):
    """A face-recognition model: aligned faces in, embeddings out.

    Optional: ``traits``, an attribute or a property of type :class:`ModelTraits`.
    """

    @property
    def name(self) -> str:
        """Id shown in reports."""

    @property
    def crop(self) -> Crop:
        """The crop that ``embed`` expects."""

    @property
    def similarity(self) -> SimilarityKind:
        """``cosine``, or ``neg_l2`` (minus the Euclidean distance of the raw embeddings)."""

    @property
    def operating_threshold(self) -> float | None:
        """Native similarity from which the model says match; None if it has no such point."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights as hex."""

    @property
    def module(self) -> nn.Module | None:
        """``Images -> Embeddings``, normalisation inside, differentiable; None = a black box."""

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) float32 images in [0, 1]; returns (N, D) float32, no gradient."""


@runtime_checkable
class MaskedEmbedder(Protocol):
    """A face model that remembers the embeddings of masked images."""

    def embed_masked(self, image: Tensor, bank: "MaskBank", fill: Fill) -> Embeddings:
        """Embed a (3, H, W) image in [0, 1] under each of N masks; returns (N, D)."""


@runtime_checkable
class Explainer(Protocol):
    """Anything that makes saliency maps.

    Optional: ``traits``, an attribute or a property of type :class:`ExplainerTraits`, for what the
    explainer needs, such as a contrast, and where it comes from; and the method
    ``unsupported(model) -> str | None``, for the reason why a kind of model cannot be explained.
    """

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> "SaliencyMaps | Tensor":  # fmt: skip
        """Explain why each probe is similar to its reference.

        Args:
            model: The model to explain; it must not be changed.
            probes: (N, 3, H, W) images to explain.
            references: (N, 3, H, W) images they are compared with. Explainers with the
                trait ``takes_centroids`` may also get (N, R, 3, H, W), R references of each
                probe, and compare it with the centroid of their embeddings.
            contrast: (N, 3, H, W) negative references of a discriminative explanation, or None.
            generator: In the same state at every call, so that mask banks drawn from it are the
                same for every pair, before and after the model is re-drawn.

        Returns:
            SaliencyMaps, or a plain (N, H, W) float32 tensor, larger = more important.
        """


@runtime_checkable
class PairSource(Protocol):
    """A list of image pairs with identities, and the images in any crop."""

    @property
    def name(self) -> str:
        """Id shown in reports."""

    @property
    def banner(self) -> str | None:
        """A sentence every report on this data must carry, or None."""

    def listing(self) -> PairListing:
        """Return all pairs, without reading a pixel."""

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB images, aligned to the crop, in the order of the ids.

        Raises:
            DataContractError: Naming every image that is missing or unreadable.
        """


@runtime_checkable
class ModelFile(Protocol):
    """A face model that is not loaded yet; a fixture may return one in place of a model."""

    def load(self) -> FaceModel:
        """Read, check and return the model; called once for consecutive cells that use it.

        Raises:
            ModelContractError: If the file or its content cannot be trusted.
        """


@runtime_checkable
class IdentitySource(Protocol):
    """Images with their identities, and the images in any crop."""

    @property
    def name(self) -> str:
        """Id shown in reports."""

    @property
    def banner(self) -> str | None:
        """A sentence every report on this data must carry, or None."""

    def identities(self) -> IdentityListing:
        """Return all images, without reading a pixel."""

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return images as a :class:`PairSource` does."""


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Which part of the face each pixel shows.

    Attributes:
        names: Names of the parts; a label is an index into them.
        labels: (M, H, W) int64; -1 = none of the parts, in a whole image: its parts are not known.
        source: How the parts were found, for remarks.
    """

    names: tuple[str, ...]
    labels: Tensor
    source: str = ""

    def is_known(self) -> Tensor:
        """Return (M,) bool, True for images whose parts are known."""
        return (self.labels >= 0).flatten(1).any(1)


@runtime_checkable
class LabelSource(Protocol):
    """A pair source that knows which part of the face each pixel shows."""

    def labels(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return the label maps of images, aligned to the crop, in the order of the ids."""


@runtime_checkable
class LandmarkSource(Protocol):
    """A pair source that knows where eyes, nose and mouth are."""

    def landmarks(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return the (M, 5, 2) landmarks (x, y) of images, in pixels of the crop, float64.

        They are: eye at the image's left, eye at the image's right, nose tip, mouth corner at the
        image's left, mouth corner at the image's right.
        """


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs with their distinct images, loaded in one crop.

    Attributes:
        name: Name of the pair source.
        images: (M, 3, H, W) uint8 RGB, each distinct image once.
        image_digests: SHA-256 of each image's pixels, M of them.
        image_ids: The source's own M ids; () where they are not needed.
        probe: (N,) int64, row of ``images``.
        reference: (N,) int64, row of ``images``.
        is_mated: (N,) bool, True = both images show one identity.
        probe_identity: (N,) int64.
        reference_identity: (N,) int64.
        excluded: Pairs left out, with reasons.
        contrast: (N,) int64, row of ``images``, nonmates that the list names; None = none.
        contrast_identity: (N,) int64, identities of the nonmates.
        sources: (N, K) int64, rows of ``images``: other images of the person in the probe, -1 where
            there are fewer; None = maps are made from the probes themselves.
    """

    name: str
    images: Tensor
    image_digests: tuple[str, ...]
    probe: Tensor
    reference: Tensor
    is_mated: Tensor
    probe_identity: Tensor
    reference_identity: Tensor
    excluded: tuple[Exclusion, ...] = ()
    contrast: Tensor | None = None
    contrast_identity: Tensor | None = None
    image_ids: tuple[str, ...] = ()
    sources: Tensor | None = None

    def __len__(self) -> int:
        return len(self.probe)

    def faces(self) -> "Faces":
        """Return the distinct images with their identities."""
        identity = torch.full((len(self.images),), -1)
        identity[self.probe] = self.probe_identity
        identity[self.reference] = self.reference_identity
        if self.contrast is not None and self.contrast_identity is not None:
            identity[self.contrast] = self.contrast_identity
        if self.sources is not None:
            is_there = self.sources >= 0
            identity[self.sources[is_there]] = self.probe_identity[is_there.nonzero()[:, 0]]
        return Faces(self.name, self.images, self.image_digests, identity)

    def row_id(self, row: int) -> str:
        """Name a pair by the content of its images: no file name, no person's name."""
        probe, reference = int(self.probe[row]), int(self.reference[row])
        return f"{self.image_digests[probe][:12]}-{self.image_digests[reference][:12]}"


@dataclass(frozen=True, eq=False)
class Faces:
    """Distinct images, loaded in one crop, and who is in them.

    Attributes:
        name: Name of the source.
        images: (M, 3, H, W) uint8 RGB.
        image_digests: SHA-256 of each image's pixels.
        identity: (M,) int64; -1 = unknown, or a made image.
        made_of: (M,) int64, the image that each was made of, itself if it was loaded; None = all
            were loaded.
    """

    name: str
    images: Tensor
    image_digests: tuple[str, ...]
    identity: Tensor
    made_of: Tensor | None = None

    def people(self) -> Tensor:
        """Return (M,) int64, who is in each image; in a made one, whoever is in its original."""
        return self.identity if self.made_of is None else self.identity[self.made_of]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Enrolled identities, for explainers that compare a probe with many others.

    Attributes:
        embeddings: (G, D) float32, as the model that is explained returns them.
        identity: (G,) int64.
        probe_identity: (N,) int64, the identity of each probe in the same numbering.
        reference_identity: (N,) int64, the identity of each reference; None = the probe's.
    """

    embeddings: Embeddings
    identity: Tensor
    probe_identity: Tensor
    reference_identity: Tensor | None = None

    def centroids(self) -> tuple[Tensor, Tensor]:
        """Return the I distinct identities (int64), and their (I, D) unit centroids in float64."""
        names = torch.unique(self.identity)
        unit = torch.nn.functional.normalize(self.embeddings.double(), dim=1, eps=1e-12)
        # A product instead of index_add, whose order of summation may differ from run to run.
        members = (self.identity[None, :] == names[:, None]).to(unit.device, torch.float64)
        return names, torch.nn.functional.normalize(members @ unit, dim=1, eps=1e-12)

    def is_of_the_pair(self, names: Tensor) -> Tensor:
        """Return (N, I) bool: True where an identity is the pair's own, and so not a rival."""
        own = self.probe_identity[:, None] == names[None, :]
        if self.reference_identity is None:
            return own
        return own | (self.reference_identity[:, None] == names[None, :])


@dataclass(frozen=True, eq=False)
class MaskBank:
    """Masks that are laid over many images.

    Attributes:
        masks: (N, H, W) float32 in [0, 1], 1 = kept; read-only.
        digest: SHA-256 of the masks: equal banks share embeddings.
    """

    masks: Tensor
    digest: str


@dataclass(frozen=True, eq=False)
class SaliencyMaps:
    """Maps of N pairs, with what is known about each.

    Attributes:
        positive: (N, H, W) float32, larger = more important for the similarity.
        negative: (N, H, W) float32, evidence against the similarity; signed methods only.
        states: One RowState per map; all ``ok`` by default.
        reasons: One short text per map for states other than ``ok``.
        diagnostics: Name to (N,) numbers, further facts about each map, such as
            ``negative_activation_share``.
        layers: The layers that the maps were made at, if any, as the explainer found them.
    """

    positive: Maps
    negative: Maps | None = None
    states: tuple[RowState, ...] = ()
    reasons: tuple[str, ...] = ()
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    layers: tuple[MapLayer, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.positive)
        if len(self.states) == 0:  # user code may give an array, which has no truth
            object.__setattr__(self, "states", (RowState.OK,) * n)
        if len(self.reasons) == 0:
            object.__setattr__(self, "reasons", ("",) * n)
        if len(self.states) != n or len(self.reasons) != n:
            raise ExplainerContractError(
                f"saliency maps: expected one state and one reason per map, got {len(self.states)} "
                f"states and {len(self.reasons)} reasons for {n} maps."
            )
        for name, values in self.diagnostics.items():
            shape = tuple(getattr(values, "shape", ()))
            if shape != (n,):
                raise ExplainerContractError(
                    f"saliency maps: diagnostic '{name}': expected a tensor ({n},), one number per "
                    f"map, got {type(values).__name__} {shape}."
                )

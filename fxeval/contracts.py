"""What fxeval asks of its subjects and hands from step to step.

Legend of shapes (mypy sees tensors; the names carry the meaning):

* ``Images``      (N, 3, H, W)  float32 in [0, 1], RGB
* ``Maps``        (N, H, W)     float32, finite, larger = more important for the similarity
* ``Embeddings``  (N, D)        float32, as the network returns them (not normalised)

N pairs, K removal steps, D embedding size, H and W height and width in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.errors import DataContractError, ExplainerContractError, ModelContractError

Images: TypeAlias = Tensor
Maps: TypeAlias = Tensor
Embeddings: TypeAlias = Tensor

SimilarityKind = Literal["cosine", "neg_l2"]
Need = Literal["gradients", "layers", "black_box"]
Fill = Literal["blur", "mean", "black"]
_T = TypeVar("_T")


class RowState(StrEnum):
    """What became of one row (one pair under one map)."""

    OK = "ok"
    DEGENERATE_MAP = "degenerate_map"  # constant or all-zero: valued under a seeded random order
    NAN_MAP = "nan_map"
    NO_GRADIENT = "no_gradient"
    WRONG_SHAPE = "wrong_shape"
    EXPLAINER_RAISED = "explainer_raised"
    MODEL_CHANGED = "model_changed"
    NOT_CROSSED = "not_crossed"  # the similarity never crossed the operating threshold
    START_BEYOND = "start_beyond"  # the starting image is already on the far side
    EXCLUDED = "excluded"


BROKEN_STATES = frozenset(
    {RowState.NAN_MAP, RowState.NO_GRADIENT, RowState.WRONG_SHAPE,
     RowState.EXPLAINER_RAISED, RowState.MODEL_CHANGED}
)  # fmt: skip


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
    """A face-recognition model: aligned faces in, embeddings out."""

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
        """``Images -> Embeddings``, normalisation inside, differentiable; None if none."""

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) float32 images in [0, 1]; returns (N, D) float32, no gradient."""


@runtime_checkable
class Explainer(Protocol):
    """Anything that makes saliency maps. ``needs`` (a set of ``Need``) is optional."""

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> "SaliencyMaps | Tensor":  # fmt: skip
        """Explain why each probe is similar to its reference.

        Args:
            model: The model to explain, never to change.
            probes: (N, 3, H, W) images to explain.
            references: (N, 3, H, W) images they are compared with.
            contrast: (N, 3, H, W) negative references of a discriminative explanation, or None.
            generator: In the same state at every call: draw mask banks from it, and every pair
                meets the same bank, before and after randomisation.

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

    def listing(self) -> "PairListing":
        """Return all pairs, without reading a pixel."""

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB images, aligned to the crop, in the order of the ids.

        Raises:
            DataContractError: Naming every image that is missing or unreadable.
        """


@dataclass(frozen=True)
class Exclusion:
    """A pair that is on the list but not used, and why."""

    pair: str
    reason: str


@dataclass(frozen=True)
class PairListing:
    """Pairs by image id, before any pixel is read; the four sequences have one entry per pair."""

    probe: tuple[str, ...]
    reference: tuple[str, ...]
    is_mated: tuple[bool, ...]
    probe_identity: tuple[str, ...]
    reference_identity: tuple[str, ...]
    excluded: tuple[Exclusion, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.probe), len(self.reference), len(self.is_mated),
                   len(self.probe_identity), len(self.reference_identity)}  # fmt: skip
        if len(lengths) != 1:
            raise DataContractError(f"pair listing: columns of one length expected, got {lengths}.")
        for row, (mated, one, two) in enumerate(
            zip(self.is_mated, self.probe_identity, self.reference_identity, strict=True)
        ):
            if mated != (one == two):
                raise DataContractError(
                    f"pair listing: row {row} is marked {'mated' if mated else 'nonmated'} but its "
                    f"identities {'differ' if mated else 'are equal'}. Correct the label."
                )

    def __len__(self) -> int:
        return len(self.probe)

    def take(self, rows: Sequence[int]) -> "PairListing":
        """Return the listing of the given rows, in the given order."""

        def pick(column: tuple[_T, ...]) -> tuple[_T, ...]:
            return tuple(column[row] for row in rows)

        return PairListing(
            pick(self.probe), pick(self.reference), pick(self.is_mated),
            pick(self.probe_identity), pick(self.reference_identity), self.excluded,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs with their distinct images, loaded in one crop.

    Attributes:
        name: Of the pair source.
        images: (M, 3, H, W) uint8 RGB, each distinct image once.
        image_digests: SHA-256 of each image's pixels, M of them.
        probe: (N,) int64, row of ``images``.
        reference: (N,) int64, row of ``images``.
        is_mated: (N,) bool, True = both images show one identity.
        probe_identity: (N,) int64.
        reference_identity: (N,) int64.
        excluded: Pairs left out, with reasons.
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

    def __len__(self) -> int:
        return len(self.probe)

    def row_id(self, row: int) -> str:
        """Name a pair by the content of its images: no file name, no person's name."""
        probe, reference = int(self.probe[row]), int(self.reference[row])
        return f"{self.image_digests[probe][:12]}-{self.image_digests[reference][:12]}"


@dataclass(frozen=True, eq=False)
class SaliencyMaps:
    """Maps of N pairs, with what is known about each.

    Attributes:
        positive: (N, H, W) float32, larger = more important for the similarity.
        negative: (N, H, W) float32, evidence against the similarity; signed methods only.
        states: One RowState per map; all ``ok`` if not given.
        reasons: One short text per map for states other than ``ok``.
    """

    positive: Maps
    negative: Maps | None = None
    states: tuple[RowState, ...] = ()
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.positive)
        if not self.states:
            object.__setattr__(self, "states", (RowState.OK,) * n)
        if not self.reasons:
            object.__setattr__(self, "reasons", ("",) * n)
        if len(self.states) != n or len(self.reasons) != n:
            raise ExplainerContractError(
                f"saliency maps: one state and one reason per map expected, got {len(self.states)} "
                f"states and {len(self.reasons)} reasons for {n} maps."
            )


@dataclass(frozen=True, eq=False)
class Perturbations:
    """R images, described and not yet made: which pixels of which image are replaced by a fill.

    Image ``image[r]`` has the pixels replaced whose rank under ``ranks[ranking[r]]`` lies in
    ``first[r] <= rank < last[r]``. Deletion of k pixels is [0, k), insertion of k is [k, n).

    Attributes:
        image: (R,) int64, row of ``Pairs.images``.
        ranks: (Q, H*W) int32, rank of each pixel, 0 = most salient (``fxeval.ranking.ranks``).
        ranking: (R,) int64, row of ``ranks``.
        first: (R,) int64.
        last: (R,) int64.
        fill: Name of the fill.
    """

    image: Tensor
    ranks: Tensor
    ranking: Tensor
    first: Tensor
    last: Tensor
    fill: Fill

    def __len__(self) -> int:
        return len(self.image)


def check_embeddings(name: str, embeddings: object, n: int) -> Embeddings:
    """Return a stranger's embeddings if they keep the contract: (n, D) floating, finite.

    Raises:
        ModelContractError: If they do not.
    """
    if not isinstance(embeddings, Tensor):
        raise ModelContractError(
            f"model '{name}': embed must return a torch.Tensor (N, D), got "
            f"{type(embeddings).__name__}."
        )
    if embeddings.ndim != 2 or embeddings.shape[0] != n:
        raise ModelContractError(
            f"model '{name}': embed must return ({n}, D) for {n} images, got "
            f"{tuple(embeddings.shape)}."
        )
    if not embeddings.dtype.is_floating_point:
        raise ModelContractError(
            f"model '{name}': embeddings must be float, got {embeddings.dtype}."
        )
    if not bool(torch.isfinite(embeddings).all()):
        raise ModelContractError(
            f"model '{name}': embeddings hold NaN or infinite values. Check the weights and the "
            "input range."
        )
    return embeddings.detach().to(torch.float32)


def check_maps(name: str, maps: object, n: int, size: tuple[int, int]) -> SaliencyMaps:
    """Return a stranger's maps with every NaN and constant map marked, or refuse their form.

    Args:
        name: Of the explainer, for the message.
        maps: What it returned: SaliencyMaps or a tensor.
        n: Number of pairs.
        size: (height, width) of the probes.

    Returns:
        SaliencyMaps on the CPU in float32; states ``nan_map`` and ``degenerate_map`` are set.

    Raises:
        ExplainerContractError: If type, shape or dtype are wrong.
    """
    maps = _of_right_form(name, maps, (n, *size))
    positive = maps.positive.detach().to("cpu", torch.float32, copy=True)
    negative = maps.negative
    if negative is not None:
        negative = negative.detach().to("cpu", torch.float32, copy=True)
    states, reasons = _declared(name, maps.states), list(maps.reasons)
    for row, map_ in enumerate(positive):
        if states[row] in BROKEN_STATES:
            continue
        if not bool(torch.isfinite(map_).all()):
            states[row] = RowState.NAN_MAP
            reasons[row] = f"{int((~torch.isfinite(map_)).sum())} pixels are NaN or infinite"
        elif is_constant(map_):
            states[row] = RowState.DEGENERATE_MAP
            reasons[row] = f"every pixel is {float(map_.flatten()[0]):g}"
    return SaliencyMaps(positive, negative, tuple(states), tuple(reasons))


def _of_right_form(name: str, maps: object, expected: tuple[int, ...]) -> SaliencyMaps:
    if isinstance(maps, Tensor):
        maps = SaliencyMaps(maps)
    if not isinstance(maps, SaliencyMaps):
        raise ExplainerContractError(
            f"explainer '{name}': explain must return SaliencyMaps or a torch.Tensor (N, H, W), "
            f"got {type(maps).__name__}."
        )
    for part in (maps.positive, maps.negative):
        if part is not None and tuple(part.shape) != expected:
            raise ExplainerContractError(
                f"explainer '{name}': saliency maps must be {expected}, one per probe and at its "
                f"size, got {tuple(part.shape)}. Upsample inside the explainer."
            )
    if maps.positive.dtype == torch.bool or maps.positive.is_complex():
        raise ExplainerContractError(
            f"explainer '{name}': saliency maps must be real numbers, got {maps.positive.dtype}."
        )
    return maps


def _declared(name: str, states: Sequence[RowState]) -> list[RowState]:
    """Return the states an explainer gave its maps; it may not excuse itself from a row."""
    allowed = {RowState.OK, RowState.DEGENERATE_MAP, *BROKEN_STATES}
    wrong = [state for state in states if state not in allowed]
    if wrong:
        raise ExplainerContractError(
            f"explainer '{name}': a map's state must be one of "
            f"{', '.join(sorted(allowed))}, got '{wrong[0]}'."
        )
    return [RowState(state) for state in states]


def is_constant(map_: Tensor) -> bool:
    """Say whether a finite map has no order: max - min <= 1e-12 * max(1, |max|)."""
    low, high = float(map_.min()), float(map_.max())
    return high - low <= 1e-12 * max(1.0, abs(high))

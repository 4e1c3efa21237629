"""Measures how well a model verifies a pair list, with images read a few at a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import (
    FaceModel,
    PairListing,
    PairSource,
)
from fxeval.datasets.lists.contradictions import ContradictoryListError, refuse_contradictions
from fxeval.engine.forward_pool import ForwardPool
from fxeval.engine.selection import checked_images, digests_of
from fxeval.errors import DataContractError, EvidenceError, for_a_record
from fxeval.functional.similarity import similarity
from fxeval.models.loading import ModelAround, device_of
from fxeval.verification.figures import ComparedPairs, Verified, measure, why_unmeasurable

IMAGES_AT_ONCE = 128
"""Images whose pixels are in memory at the same time."""
ROWS_AT_ONCE = 8192
"""Pairs that are compared at the same time."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measured:
    """The result of measuring a model on a list.

    Attributes:
        verified: The figures; None if there are none.
        reason: Why there are no figures; empty if there are.
        flip_fusion: Whether an image's embedding is fused with that of its mirror image.
        n_images: Distinct images that were embedded.
        forwards: Images that passed the network.
        seconds: Duration.
        fault: The whole message about data that cannot be used; it may name people, so no record
            holds it. Empty = the data can be used.
    """

    verified: Verified | None
    reason: str
    flip_fusion: bool
    n_images: int = 0
    forwards: int = 0
    seconds: float = 0.0
    fault: str = ""


@dataclass(frozen=True, eq=False)
class ThresholdModel(ModelAround):
    """A face model with another operating threshold.

    Attributes:
        threshold: Native similarity from which it says match.
    """

    threshold: float | None

    @property
    def operating_threshold(self) -> float | None:
        """The other threshold."""
        return self.threshold


def measure_list(
    model: FaceModel,
    source: PairSource,
    pool: ForwardPool,
    *,
    flip_fusion: bool = False,
    progress: Progress = lambda done, total: None,
) -> Measured:
    """Measure a model on all rows of a list, including those that are never explained.

    A triplet counts as a mated and a nonmated pair.

    Args:
        model: The model, on its device.
        source: The pairs; a few images are read at a time.
        pool: Runs the forward passes.
        flip_fusion: Add the embedding of the mirror image, as insightface does (cosine only).
        progress: Called with (pairs that are done, all pairs).

    Returns:
        The figures, or the reason why there are none, which costs few or no forward passes.

    Raises:
        ModelContractError: If the model fails on an image.
        ContradictoryListError: If the list contradicts its pictures.
    """
    started, forwards = time.perf_counter(), pool.forwards
    ids: list[str] = []
    verified, reason, fault = None, "", ""
    try:
        listing = source.listing().with_nonmates()
        ids = list(dict.fromkeys([*listing.probe, *listing.reference]))
        people = {*listing.probe_identity, *listing.reference_identity}
        n_mated = sum(listing.is_mated)
        reason = why_unmeasurable(n_mated, len(listing) - n_mated, len(people)) or ""
        if flip_fusion and model.similarity != "cosine":
            reason = "flip fusion needs unit embeddings, and this model compares raw ones"
        if not reason:
            compared = _compared(model, source, listing, pool, (flip_fusion, progress))
            verified = measure(compared, model.operating_threshold)
    except ContradictoryListError:
        raise
    except DataContractError as error:
        fault, reason = error.detail, for_a_record(error)
    except EvidenceError as error:
        reason = for_a_record(error)
    return Measured(
        verified=verified,
        reason=reason,
        flip_fusion=flip_fusion,
        n_images=len(ids) if verified else 0,
        forwards=pool.forwards - forwards,
        seconds=time.perf_counter() - started,
        fault=fault,
    )


def _compared(
    model: FaceModel,
    source: PairSource,
    listing: PairListing,
    pool: ForwardPool,
    how: tuple[bool, Progress],
) -> ComparedPairs:
    flip_fusion, progress = how
    ids = list(dict.fromkeys([*listing.probe, *listing.reference]))
    place = {image_id: row for row, image_id in enumerate(ids)}
    probe, reference = (
        np.array([place[image_id] for image_id in column])
        for column in (listing.probe, listing.reference)
    )
    complete = np.sort(np.maximum(probe, reference))  # a pair is done with its later image
    parts = []
    picture: dict[str, str] = {}
    for start in range(0, len(ids), IMAGES_AT_ONCE):
        some = ids[start : start + IMAGES_AT_ONCE]
        images = checked_images(source, some, model.crop)
        picture.update(zip(some, digests_of(images), strict=True))
        images = images.to(device_of(model)).to(torch.float32).div_(255.0)
        embeddings = pool.embed_images(model, images)
        if flip_fusion:
            # The sum is enough: the cosine normalises it.
            embeddings = embeddings + pool.embed_images(model, images.flip(-1))
        parts.append(embeddings)
        progress(int(np.searchsorted(complete, start + len(some))), len(listing))
    refuse_contradictions(source.name, listing, picture)
    embeddings = torch.cat(parts)
    values = [
        similarity(model.similarity, embeddings[one], embeddings[two]).numpy()
        for one, two in zip(_split(probe), _split(reference), strict=True)
    ]
    numbers = _numbered([*listing.probe_identity, *listing.reference_identity])
    return ComparedPairs(
        kind=model.similarity,
        similarities=np.concatenate(values),
        is_mated=np.array(listing.is_mated),
        probe_identity=numbers[: len(listing)],
        reference_identity=numbers[len(listing) :],
        fold=np.array(listing.fold, np.int64) if listing.fold else None,
    )


def _split(rows: np.ndarray) -> tuple[Tensor, ...]:
    return torch.split(torch.from_numpy(rows), ROWS_AT_ONCE)


def _numbered(names: Sequence[str]) -> np.ndarray:
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.int64)

"""Measures how well a model verifies a pair list, with images read a few at a time."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import (
    FaceModel,
    PairListing,
    PairSource,
    TwinSource,
)
from fxeval.datasets.lists.contradictions import ContradictoryListError, refuse_contradictions
from fxeval.engine.forward_pool import ForwardPool
from fxeval.engine.selection import checked_images, digests_of
from fxeval.errors import DataContractError, EvidenceError, for_a_record
from fxeval.functional.similarity import similarity
from fxeval.hooks.watch import modes_kept
from fxeval.models.loading import ModelAround, device_of
from fxeval.verification.cross_pairs import cross_pairs
from fxeval.verification.figures import (
    MIN_IDENTITIES,
    ComparedPairs,
    Threshold,
    Verified,
    false_nonmatches,
    measure,
    why_unmeasurable,
)
from fxeval.verification.list_digest import image_digests, list_digest
from fxeval.verification.look_alikes import LookAlikes, doubtful_images, look_alikes

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
        broken: Why the model itself is the reason; empty if it is not.
        list_digest: The list's digest (:func:`list_digest`); empty if it is not known.
        stand_in: Figures of the list's mated pairs and drawn nonmated ones, or without flip fusion,
            where the list has none of its own; they only show whether the model tells them apart.
        n_crossed: Number of comparisons of images of different identities.
        crossed: Operating thresholds at false match rates of these comparisons, by the names of
            ``figures.THRESHOLDS``; only those that may set one.
        alike: Whom the model takes for whom; None if it is not known, or if embeddings are fused,
            which those of the cells are not.
    """

    verified: Verified | None
    reason: str
    flip_fusion: bool
    n_images: int = 0
    forwards: int = 0
    seconds: float = 0.0
    fault: str = ""
    broken: str = ""
    list_digest: str = ""
    stand_in: Verified | None = None
    n_crossed: int = 0
    crossed: Mapping[str, Threshold] = field(default_factory=dict)
    alike: LookAlikes | None = field(default=None, compare=False, repr=False)

    @property
    def evidence(self) -> Verified | None:
        """The figures that show whether the model tells mated from nonmated pairs, if any do."""
        return self.verified or self.stand_in


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

    A triplet counts as a mated and a nonmated pair. Where the nonmate is a twin, it does not: that
    a model can't tell the mate from its twin says nothing of how it tells people apart.

    Args:
        model: The model, on its device.
        source: The pairs; a few images are read at a time.
        pool: Runs the forward passes.
        flip_fusion: Add the embedding of the mirror image, as insightface does (cosine only).
        progress: Called with (pairs that are done, all pairs).

    Returns:
        The figures, or the reason why there are none.

    Raises:
        ModelContractError: If the model fails on an image.
        ContradictoryListError: If the list contradicts its pictures.
    """
    started, forwards = time.perf_counter(), pool.forwards
    found = Measured(None, "", flip_fusion)
    try:
        with modes_kept(pool.note, f"pairs '{source.name}'"):
            listing = source.listing()
            if isinstance(source, TwinSource):
                listing = replace(listing, contrast=(), contrast_identity=())
            listing = listing.with_nonmates()
        n_people = len({*listing.probe_identity, *listing.reference_identity})
        n_mated = sum(listing.is_mated)
        reason = why_unmeasurable(n_mated, len(listing) - n_mated, n_people) or ""
        if flip_fusion and model.similarity != "cosine":
            reason = "flip fusion needs unit embeddings, and this model compares raw ones"
        if n_mated and n_people >= MIN_IDENTITIES:
            found = _measured(model, source, listing, pool, (flip_fusion, reason, progress))
        else:
            found = replace(found, reason=reason, list_digest=_digest(source, listing, {}))
    except ContradictoryListError:
        raise
    except DataContractError as error:
        found = replace(found, fault=error.detail, reason=for_a_record(error))
    return replace(found, forwards=pool.forwards - forwards, seconds=time.perf_counter() - started)


def _measured(
    model: FaceModel,
    source: PairSource,
    listing: PairListing,
    pool: ForwardPool,
    how: tuple[bool, str, Progress],
) -> Measured:
    """Measure a list that has mated pairs of enough people.

    Args:
        model: As in :func:`measure_list`, like source and pool.
        source: The pairs.
        listing: Its rows.
        pool: Runs the forward passes.
        how: Flip fusion; why the list itself has no figures, "" if it has; progress.
    """
    flip_fusion, reason, progress = how
    pairs = with_drawn_nonmates(listing) if all(listing.is_mated) else listing
    is_fused = flip_fusion and not reason
    embedded = _embedded(model, source, pairs, pool, (is_fused, progress))
    compared = _compared(model, pairs, embedded)
    verified, broken = None, ""
    try:
        verified = measure(compared, model.operating_threshold)
    except EvidenceError as error:  # only a similarity that is not finite is left
        reason = broken = for_a_record(error)
    person = dict(zip(pairs.probe, compared.probe_identity.tolist(), strict=True))
    person |= dict(zip(pairs.reference, compared.reference_identity.tolist(), strict=True))
    crossed = cross_pairs(
        model.similarity,
        embedded.embeddings.double().numpy(),
        np.array([person[image_id] for image_id in embedded.place], np.int64),
    )
    return Measured(
        verified=None if reason else verified,
        reason=reason,
        flip_fusion=flip_fusion,
        n_images=len(embedded.place),
        broken=broken,
        list_digest=_digest(source, listing, embedded.pixels),
        stand_in=verified if reason else None,
        n_crossed=crossed.n,
        alike=None
        if is_fused
        else look_alikes(crossed, tuple(embedded.place), embedded.pixels, doubtful_images(listing)),
        crossed={
            name: Threshold(similarity, rate, false_nonmatches(compared, similarity.value))
            for name, (similarity, rate) in crossed.thresholds().items()
        },
    )


def _digest(source: PairSource, listing: PairListing, pixels: Mapping[str, str]) -> str:
    """Return the digest of a list; "" if neither its source nor its pixels tell its content."""
    ids = list(dict.fromkeys([*listing.probe, *listing.reference]))
    content = image_digests(source, ids) or pixels
    return list_digest(listing, content) if content else ""


def with_drawn_nonmates(listing: PairListing) -> PairListing:
    """Return mated pairs, and each probe with the next reference of another identity.

    Args:
        listing: Mated pairs of at least two identities.
    """
    n, people = len(listing), listing.probe_identity
    after = [0] * n  # the next row of another identity, around the end
    for row in reversed(range(2 * n)):
        here, there = row % n, (row + 1) % n
        after[here] = there if people[there] != people[here] else after[there]
    return PairListing(
        probe=listing.probe * 2,
        reference=listing.reference + tuple(listing.reference[row] for row in after),
        is_mated=listing.is_mated + (False,) * n,
        probe_identity=people * 2,
        reference_identity=people + tuple(people[row] for row in after),
    )


class _Embedded(NamedTuple):
    """(N, D) embeddings of images, the row of each by its id, and digests of the pixels."""

    embeddings: Tensor
    place: Mapping[str, int]
    pixels: Mapping[str, str]


def _embedded(
    model: FaceModel,
    source: PairSource,
    listing: PairListing,
    pool: ForwardPool,
    how: tuple[bool, Progress],
) -> _Embedded:
    flip_fusion, progress = how
    ids = list(dict.fromkeys([*listing.probe, *listing.reference]))
    place = {image_id: row for row, image_id in enumerate(ids)}
    complete = np.sort(  # a pair is done with its later image
        [max(place[a], place[b]) for a, b in zip(listing.probe, listing.reference, strict=True)]
    )
    parts = []
    pixels: dict[str, str] = {}
    for start in range(0, len(ids), IMAGES_AT_ONCE):
        some = ids[start : start + IMAGES_AT_ONCE]
        images = checked_images(source, some, model.crop, pool.note)
        pixels.update(zip(some, digests_of(images), strict=True))
        images = images.to(device_of(model)).to(torch.float32).div_(255.0)
        embeddings = pool.embed_images(model, images)
        if flip_fusion:
            # The sum is enough: the cosine normalises it.
            embeddings = embeddings + pool.embed_images(model, images.flip(-1))
        parts.append(embeddings)
        progress(int(np.searchsorted(complete, start + len(some))), len(listing))
    refuse_contradictions(source.name, listing, pixels)
    return _Embedded(torch.cat(parts), place, pixels)


def _compared(model: FaceModel, listing: PairListing, embedded: _Embedded) -> ComparedPairs:
    probe, reference = (
        np.array([embedded.place[image_id] for image_id in column])
        for column in (listing.probe, listing.reference)
    )
    embeddings = embedded.embeddings
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

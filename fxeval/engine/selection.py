"""Chooses the rows of a pair source that are measured, and loads their images."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fxeval.contracts import Crop, LandmarkSource, PairListing, Pairs, PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.contradictions import refuse_contradictions
from fxeval.errors import DataContractError
from fxeval.hooks.processes import one_process
from fxeval.hooks.returned import check_landmarks
from fxeval.hooks.watch import modes_kept
from fxeval.seeding import seed_of

Note = Callable[[str], None]

COMMON_CROP = ARCFACE_112
"""The crop that names images for models with different crops."""

_AT_ONCE = 128  # images whose pixels are in memory at the same time


def chosen_rows(
    listing: PairListing, n: int | None, seed: int, name: str, n_where: str = ""
) -> list[int]:
    """Choose n mated pairs; no identity comes twice before every identity has come once.

    Rows that the list sets aside are not chosen. The choice depends on the suite's seed and the
    image ids alone.

    Raises:
        DataContractError: If the list holds fewer mated pairs.
    """
    aside = listing.set_aside or ("",) * len(listing)
    mated = [row for row, is_mated in enumerate(listing.is_mated) if is_mated and not aside[row]]
    wanted = len(mated) if n is None else n
    if wanted > len(mated) or not mated:
        text = (
            f"pairs '{name}': expected at least {max(wanted, 1)} mated pairs, the list holds "
            f"{len(mated)}. {_advice(n_where)}"
        )
        raise DataContractError(text, public=text)
    mated.sort(key=lambda row: seed_of(seed, "pick", listing.probe[row], listing.reference[row]))
    met: Counter[str] = Counter()
    turns: dict[int, int] = {}
    for row in mated:
        turns[row] = met[listing.probe_identity[row]]
        met[listing.probe_identity[row]] += 1
    return sorted(mated, key=lambda row: turns[row])[:wanted]


def whole_rows(
    listing: PairListing, n: int | None, seed: int, name: str, n_where: str = ""
) -> list[int]:
    """Choose all rows of n people, by the suite's seed and their images; all people if n is None.

    Rows that the list sets aside are not chosen. A pair of two people is chosen only if both are.

    Raises:
        DataContractError: If the list holds fewer people.
    """
    aside = listing.set_aside or ("",) * len(listing)
    rows = [row for row in range(len(listing)) if not aside[row]]
    first: dict[str, int] = {}  # a person's smallest draw: people are chosen in this order
    for row in rows:
        for who, image in (
            (listing.probe_identity[row], listing.probe[row]),
            (listing.reference_identity[row], listing.reference[row]),
        ):
            draw = seed_of(seed, "pick", image)
            first[who] = min(draw, first.get(who, draw))
    if not first or (n or 0) > len(first):
        text = (
            f"pairs '{name}': expected at least {max(n or 1, 1)} people, the list holds "
            f"{len(first)}. {_advice(n_where)}"
        )
        raise DataContractError(text, public=text)
    chosen = set(sorted(first, key=first.__getitem__)[:n])
    return [
        row
        for row in rows
        if {listing.probe_identity[row], listing.reference_identity[row]} <= chosen
    ]


def _advice(n_where: str) -> str:
    return f"Lower n{f' ({n_where})' if n_where else ''} or use more pairs."


def checked_images(source: PairSource, ids: Sequence[str], crop: Crop, note: Note) -> Tensor:
    """Return (M, 3, H, W) uint8 images of a source.

    Args:
        source: The source.
        ids: M images.
        crop: Of the images.
        note: Called with a sentence if the source left settings of the process changed.

    Raises:
        DataContractError: If the source returns other images, or an image can't be read.
    """
    with one_process(), modes_kept(note, f"pairs '{source.name}'"):
        images = source.images(ids, crop)
    expected = (len(ids), 3, *crop.size)
    if images.dtype != torch.uint8 or tuple(images.shape) != expected:
        text = (
            f"pairs '{source.name}': images must be uint8 {expected}, got {images.dtype} "
            f"{tuple(images.shape)}."
        )
        raise DataContractError(text, public=text)
    return images


def digests_of(images: Tensor) -> tuple[str, ...]:
    """Return the SHA-256 of the pixels of each image, as hex."""
    return tuple(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images)


def common_digests(source: PairSource, ids: Sequence[str], note: Note) -> tuple[str, ...]:
    """Return the digests of images in ``COMMON_CROP``, whatever crop a model wants them in.

    Raises:
        DataContractError: If the source cannot give them in that crop.
    """
    parts = [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]
    found = (digests_of(checked_images(source, part, COMMON_CROP, note)) for part in parts)
    return tuple(digest for part in found for digest in part)


def landmarks_of(source: PairSource, ids: Sequence[str], crop: Crop, note: Note) -> Tensor:
    """Return the five landmarks of M images in pixels of a crop, (M, 5, 2) float64.

    A source that does not know them gives aligned images: they lie where the crop has them.

    Raises:
        DataContractError: If the source returns anything else.
    """
    if not isinstance(source, LandmarkSource):
        return torch.tensor(crop.template, dtype=torch.float64).expand(len(ids), 5, 2)
    with modes_kept(note, f"pairs '{source.name}'"):
        found = source.landmarks(ids, crop)
    return check_landmarks(source.name, found, len(ids))


def load_pairs(
    source: PairSource, listing: PairListing, crop: Crop, note: Note = lambda sentence: None
) -> Pairs:
    """Read the distinct images of a listing in a crop.

    Raises:
        DataContractError: If the source returns other images, an image can't be read, or the
            listing contradicts the images.
    """
    drawn = [image for images in listing.sources for image in images]
    ids = list(dict.fromkeys([*listing.probe, *listing.reference, *listing.contrast, *drawn]))
    images = checked_images(source, ids, crop, note)
    digests = digests_of(images)
    refuse_contradictions(source.name, listing, dict(zip(ids, digests, strict=True)))
    place = {image_id: row for row, image_id in enumerate(ids)}
    people = {
        name: number
        for number, name in enumerate(
            dict.fromkeys(
                [
                    *listing.probe_identity,
                    *listing.reference_identity,
                    *listing.contrast_identity,
                ]
            )
        )
    }

    def rows(column: Sequence[str], of: dict[str, int]) -> Tensor:
        return torch.tensor([of[value] for value in column], dtype=torch.int64)

    return Pairs(
        name=source.name,
        images=images.clone(),  # a source may reuse its buffer
        image_ids=tuple(ids),
        image_digests=digests,
        probe=rows(listing.probe, place),
        reference=rows(listing.reference, place),
        is_mated=torch.tensor(listing.is_mated),
        probe_identity=rows(listing.probe_identity, people),
        reference_identity=rows(listing.reference_identity, people),
        excluded=listing.excluded,
        contrast=rows(listing.contrast, place) if listing.contrast else None,
        contrast_identity=rows(listing.contrast_identity, people) if listing.contrast else None,
        sources=_padded([rows(images, place) for images in listing.sources])
        if listing.sources
        else None,
    )


def _padded(several: Sequence[Tensor]) -> Tensor:
    """Return (N, K) numbers, -1 behind the end of shorter ones."""
    return torch.nn.utils.rnn.pad_sequence([*several], batch_first=True, padding_value=-1)

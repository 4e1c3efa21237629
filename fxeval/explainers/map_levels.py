"""Maps of pairs, of triplets and of identities, from one explainer."""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import (
    BROKEN_STATES,
    Explainer,
    FaceModel,
    Gallery,
    Images,
    Maps,
    RowState,
    SaliencyMaps,
    traits_of,
)
from fxeval.errors import ExplainerContractError, UnsupportedError
from fxeval.functional.map_similarity import norm01
from fxeval.hooks.returned import check_explainer, check_maps
from fxeval.traits import own_refusal

IMAGES = 64  # images handed over in one call, unless one probe alone has more references


@dataclass(frozen=True, eq=False)
class IdentityMaps:
    """One map of each identity, and what it was made from.

    Attributes:
        maps: (I, H, W) float32 in [0, 1], larger = more important; zero where there is none.
        identities: (I,) int64, ascending.
        states: One per identity: ``ok``; ``excluded`` for an identity with a single image; or the
            most frequent state of its images, if none has a usable map.
        reasons: One short text per identity for states other than ``ok``.
        counts: (I,) int64, images whose maps are in the mean.
        images: (M, H, W) maps of every image. With ``each``, the mean over its references of the
            maps scaled to [0, 1]. An image that is the only one of its identity is ``excluded``.
            The diagnostic ``references`` counts the references behind a map.
    """

    maps: Maps
    identities: Tensor
    states: tuple[RowState, ...]
    reasons: tuple[str, ...]
    counts: Tensor
    images: SaliencyMaps


def pair_maps(
    explainer: Explainer, model: FaceModel, probes: Images, references: Images,
    *, generator: np.random.Generator, gallery: Gallery | None = None,
) -> SaliencyMaps:  # fmt: skip
    """Explain why each probe is like its reference.

    Args:
        explainer: Called in chunks of ``IMAGES`` images, each with the generator in this state.
        model: The model to explain.
        probes: (N, 3, H, W) in [0, 1].
        references: (N, 3, H, W); or (N, R, 3, H, W), centroids of R references each, for explainers
            that take them.
        generator: Read, not advanced.
        gallery: The gallery of these N probes, for explainers that need one.

    Returns:
        (N, H, W) maps on the CPU, states of constant and NaN maps set.

    Raises:
        ExplainerContractError: If the explainer needs a contrast, needs a gallery that is missing,
            cannot take centroids, or does not return maps.
        UnsupportedError: If the explainer cannot explain this kind of model.
    """
    if "contrast" in traits_of(explainer).needs:
        raise ExplainerContractError(
            f"explainer '{_name(explainer)}': needs a contrast, images of nonmates. Use "
            "triplet_maps."
        )
    return _asked(explainer, model, (probes, references, None), generator, gallery)


def triplet_maps(
    explainer: Explainer, model: FaceModel, probes: Images, mates: Images, nonmates: Images,
    *, generator: np.random.Generator, gallery: Gallery | None = None,
) -> SaliencyMaps:  # fmt: skip
    """Explain why each probe is more like its mate than like its nonmate.

    Args:
        explainer: As for :func:`pair_maps`.
        model: The model to explain.
        probes: (N, 3, H, W) in [0, 1].
        mates: (N, 3, H, W), or (N, R, 3, H, W).
        nonmates: (N, 3, H, W).
        generator: Read, not advanced.
        gallery: The gallery of these N probes, for explainers that need one.

    Returns:
        (N, H, W) maps on the CPU, states of constant and NaN maps set.

    Raises:
        ExplainerContractError: As for :func:`pair_maps`.
        UnsupportedError: If the explainer cannot explain this kind of model.
    """
    return _asked(explainer, model, (probes, mates, nonmates), generator, gallery)


def identity_maps(
    explainer: Explainer, model: FaceModel, images: Images, identity: Tensor,
    *, generator: np.random.Generator, reference: Literal["centroid", "each"] = "centroid",
    gallery: Gallery | None = None,
) -> IdentityMaps:  # fmt: skip
    """Explain what makes the images of an identity alike: the mean map of its images.

    Each image is explained against the identity's other images. Its map is scaled to [0, 1], and
    the identity's map is the mean over its images; images without a usable map are left out.

    An identity of n images costs n explanations and n (n - 1) embeddings with ``centroid``, and
    n (n - 1) explanations with ``each``.

    Args:
        explainer: As for :func:`pair_maps`.
        model: The model to explain.
        images: (M, 3, H, W) in [0, 1].
        identity: (M,) int64, of each image, in any order.
        generator: Read, not advanced: every image gets the same mask bank.
        reference: ``centroid``: the centroid of the other images' embeddings, for explainers that
            take it. ``each``: every other image separately; maps are scaled to [0, 1] and averaged.
        gallery: Its ``probe_identity`` is that of the M images; for explainers that need one.

    Raises:
        ExplainerContractError: As for :func:`pair_maps`.
        UnsupportedError: If the explainer cannot explain this kind of model.
        ValueError: If images and identities do not fit together.
    """
    if images.ndim != 4 or tuple(identity.shape) != (len(images),):
        raise ValueError(
            f"identity_maps: expected (M, 3, H, W) images and (M,) identities, got "
            f"{tuple(images.shape)} and {tuple(identity.shape)}."
        )
    names, group = torch.unique(identity.cpu(), return_inverse=True)
    others = [
        [row for row in (group == own).nonzero()[:, 0].tolist() if row != image]
        for image, own in enumerate(group.tolist())
    ]
    make = _against_centroids if reference == "centroid" else _against_each
    asked = _Asked(explainer, model, images, generator, gallery)
    found = make(asked, [row for row in range(len(images)) if others[row]], others)
    return _by_identity(_placed(found, others, images), names, group)


@dataclass(frozen=True, eq=False)
class _Asked:
    """The explainer, with the arguments that are the same in all calls for one set of images."""

    explainer: Explainer
    model: FaceModel
    images: Images
    generator: np.random.Generator
    gallery: Gallery | None

    def __call__(self, rows: list[int], references: Images) -> SaliencyMaps:
        gallery = self.gallery
        if gallery is not None:
            gallery = Gallery(gallery.embeddings, gallery.identity, gallery.probe_identity[rows])
        return pair_maps(
            self.explainer, self.model, self.images[rows], references,
            generator=self.generator, gallery=gallery,
        )  # fmt: skip


_Found = dict[int, SaliencyMaps]


def _against_centroids(asked: _Asked, rows: list[int], others: list[list[int]]) -> _Found:
    """Return one map for each image; calls hold images with equally many references."""
    found: _Found = {}
    for number in sorted({len(others[row]) for row in rows}):
        alike = [row for row in rows if len(others[row]) == number]
        step = max(1, IMAGES // (1 + number))
        for start in range(0, len(alike), step):
            chunk = alike[start : start + step]
            maps = asked(chunk, asked.images[torch.tensor([others[row] for row in chunk])])
            found.update((row, _one(maps, place)) for place, row in enumerate(chunk))
    return found


def _against_each(asked: _Asked, rows: list[int], others: list[list[int]]) -> _Found:
    """Return, for each image, the mean of its scaled maps; holds one image's maps at a time."""
    found: _Found = {}
    for row in rows:
        references = asked.images[others[row]]
        maps = asked([row] * len(references), references)
        scaled, usable = _scaled(maps)
        n = int(usable.sum())
        if n:
            found[row] = SaliencyMaps((scaled.sum(dim=0) / n).float()[None])
            continue
        state, reason = _blame(maps.states, "references")
        found[row] = SaliencyMaps(torch.zeros_like(maps.positive[:1]), None, (state,), (reason,))
    return found


def _placed(found: _Found, others: list[list[int]], images: Images) -> SaliencyMaps:
    """Return the maps of all images in their order, excluded where there is none."""
    nothing = torch.zeros((1, *images.shape[2:]))
    reason = "the identity has no other image to compare this one with"
    alone = SaliencyMaps(nothing, None, (RowState.EXCLUDED,), (reason,))
    parts = [found.get(row, alone) for row in range(len(others))]
    whole = joined(parts, (int(images.shape[2]), int(images.shape[3])))
    references = torch.tensor([float(len(rows)) for rows in others])
    return SaliencyMaps(
        whole.positive, whole.negative, whole.states, whole.reasons,
        {**whole.diagnostics, "references": references},
    )  # fmt: skip


def _by_identity(images: SaliencyMaps, names: Tensor, group: Tensor) -> IdentityMaps:
    scaled, usable = _scaled(images)
    sums = scaled.new_zeros((len(names), *scaled.shape[1:])).index_add_(0, group, scaled)
    counts = torch.zeros(len(names), dtype=torch.int64).index_add_(0, group, usable.long())
    states, reasons = [], []
    for own, count in enumerate(counts.tolist()):
        rows = (group == own).nonzero()[:, 0].tolist()
        state, reason = RowState.OK, ""
        if not count:
            state, reason = _blame([images.states[row] for row in rows], "images")
            if state is RowState.EXCLUDED:
                reason = "expected at least 2 images of the identity to compare, got 1"
        states.append(state)
        reasons.append(reason)
    return IdentityMaps(
        (sums / counts.clamp_min(1)[:, None, None]).float(),
        names, tuple(states), tuple(reasons), counts, images,
    )  # fmt: skip


def _blame(states: Sequence[RowState], of: str) -> tuple[RowState, str]:
    """Return the most frequent state, and a text that counts all of them."""
    counted = Counter(states).most_common()
    listed = ", ".join(f"{state.value} {n}" for state, n in counted)
    return counted[0][0], f"none of {len(states)} {of} gives a usable map: {listed}"


def _scaled(maps: SaliencyMaps) -> tuple[Tensor, Tensor]:
    """Return maps scaled to [0, 1] in float64, zero where unusable, and (N,) bool usable."""
    scaled, usable = norm01(maps.positive)
    usable &= torch.tensor([state not in BROKEN_STATES for state in maps.states], dtype=torch.bool)
    return torch.where(usable[:, None, None], scaled, 0.0), usable


def _asked(
    explainer: Explainer, model: FaceModel, images: tuple[Images, Images, Images | None],
    generator: np.random.Generator, gallery: Gallery | None,
) -> SaliencyMaps:  # fmt: skip
    probes, references, contrast = images
    _check_request(explainer, model, references, gallery)
    size = (int(probes.shape[2]), int(probes.shape[3]))
    several = references.shape[1] if references.ndim == 5 else 1
    step = max(1, IMAGES // (1 + several + (contrast is not None)))
    parts = []
    for start in range(0, len(probes), step):
        rows = slice(start, start + step)
        given: dict[str, Any] = {}
        if contrast is not None:
            given["contrast"] = contrast[rows]
        if gallery is not None and "gallery" in traits_of(explainer).needs:
            given["gallery"] = Gallery(
                gallery.embeddings, gallery.identity, gallery.probe_identity[rows]
            )
        maps = explainer.explain(
            model, probes[rows], references[rows], generator=deepcopy(generator), **given
        )
        parts.append(check_maps(_name(explainer), maps, len(probes[rows]), size))
    return joined(parts, size)


def joined(parts: Sequence[SaliencyMaps], size: tuple[int, int]) -> SaliencyMaps:
    """Put parts together; a part without a negative map or a diagnostic has NaN there.

    Args:
        parts: Any number.
        size: (height, width) of the maps, needed if there are no parts.
    """
    empty = torch.empty((0, *size))
    names = dict.fromkeys(name for part in parts for name in part.diagnostics)

    def negative(part: SaliencyMaps) -> Tensor:
        if part.negative is None:
            return torch.full_like(part.positive, torch.nan)
        return part.negative

    def diagnostic(part: SaliencyMaps, name: str) -> Tensor:
        return part.diagnostics.get(name, torch.full((len(part.states),), torch.nan))

    return SaliencyMaps(
        torch.cat([empty, *(part.positive for part in parts)]),
        torch.cat([negative(part) for part in parts])
        if any(part.negative is not None for part in parts)
        else None,
        tuple(state for part in parts for state in part.states),
        tuple(reason for part in parts for reason in part.reasons),
        {name: torch.cat([diagnostic(part, name) for part in parts]) for name in names},
        tuple(dict.fromkeys(layer for part in parts for layer in part.layers)),
    )


def _check_request(
    explainer: Explainer, model: FaceModel, references: Images, gallery: Gallery | None
) -> None:
    name = _name(explainer)
    check_explainer(name, explainer)
    why = own_refusal(explainer, model)
    if why is not None:
        raise UnsupportedError(why)
    if "gallery" in traits_of(explainer).needs and gallery is None:
        raise ExplainerContractError(
            f"explainer '{name}': needs a gallery: other identities to compare the probe with. "
            "Pass one."
        )
    if references.ndim == 5 and not traits_of(explainer).takes_centroids:
        raise ExplainerContractError(
            f"explainer '{name}': compares with single images only, not with the centroid of "
            "several. Use reference='each' for maps of identities."
        )


def _one(maps: SaliencyMaps, row: int) -> SaliencyMaps:
    return SaliencyMaps(
        maps.positive[row : row + 1],
        None if maps.negative is None else maps.negative[row : row + 1],
        (maps.states[row],),
        (maps.reasons[row],),
        {name: values[row : row + 1] for name, values in maps.diagnostics.items()},
    )


def _name(explainer: Explainer) -> str:
    return type(explainer).__name__

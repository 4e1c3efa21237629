"""Mask banks, and the similarities of an image under the masks of a bank.

The embeddings of an image under a bank are the same for every pair, triplet and cell, and a model
that caches them (:class:`fxeval.contracts.MaskedEmbedder`) computes them only once. Explainers
therefore go image by image, always with the same bank object.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import (
    Embeddings,
    FaceModel,
    Fill,
    Images,
    MaskBank,
    MaskedEmbedder,
    RowState,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.objectives import rounding_of, targets_of
from fxeval.functional.masking import bank_of, masker
from fxeval.functional.similarity import similarity
from fxeval.hooks.returned import check_embeddings

CHUNK = 64  # images in memory at once, if the model has no batches of its own
NATIVE_HEIGHT = 112  # the crop height that sizes in pixels are given for
FULL_MASKS = 10.0  # a pixel whose masks add up to less than this is not supported
NO_OPINION = "the similarity is the same whatever is hidden, but for rounding"
_BLOCK = 64  # masks weighted at once in float64
_KEPT_BYTES = 512 << 20  # of cached banks; the latest one is kept whatever its size

_banks: OrderedDict[tuple[object, ...], MaskBank] = OrderedDict()  # least recently used first


def drawn_bank(
    generator: np.random.Generator,
    draw: Callable[..., NDArray[np.float32]],
    *geometry: int | float | str | tuple[int, int],
) -> MaskBank:
    """Return the bank that ``draw(generator, *geometry)`` makes, once per state and geometry.

    Args:
        generator: Read, not advanced: the same state always gives the same bank.
        draw: Returns (N, H, W) float32 masks in [0, 1], 1 = kept.
        geometry: Everything else that the masks depend on.

    Returns:
        The bank, kept for the next call: the same object each time. Do not write to it.
    """
    # Some bit generators keep arrays in their state, which JSON takes as lists only.
    state = json.dumps(generator.bit_generator.state, sort_keys=True, default=np.ndarray.tolist)
    key = (sha256(state.encode()).hexdigest(), draw, *geometry)
    if key in _banks:
        _banks.move_to_end(key)
        return _banks[key]
    bank = _banks[key] = bank_of(torch.from_numpy(draw(deepcopy(generator), *geometry)))
    while len(_banks) > 1 and sum(one.masks.nbytes for one in _banks.values()) > _KEPT_BYTES:
        _banks.popitem(last=False)
    return bank


def masked_embeddings(
    model: FaceModel, image: Tensor, bank: MaskBank, fill: Fill = "black"
) -> Embeddings:
    """Embed one image under every mask of a bank.

    Args:
        model: Asked for embeddings only.
        image: (3, H, W) in [0, 1].
        bank: N masks of the image's size.
        fill: What shows where a mask is 0: ``image * mask + filler * (1 - mask)``.

    Returns:
        (N, D) float32 on the image's device.

    Raises:
        ExplainerContractError: If the bank does not fit the image, or its digest is wrong.
        ModelContractError: If the embeddings are not finite (n, D) tensors.
    """
    if isinstance(model, MaskedEmbedder):
        return model.embed_masked(image, bank, fill).to(image.device)
    hide = masker(image, bank, fill)
    parts = []
    for start in range(0, len(bank.masks), CHUNK):
        images = hide(start, min(start + CHUNK, len(bank.masks)))
        parts.append(check_embeddings(model.name, model.embed(images), len(images)))
    return torch.cat(parts).to(image.device)


def masked_similarities(
    model: FaceModel, probes: Images, references: Images, contrast: Images | None, bank: MaskBank
) -> tuple[Tensor, Tensor]:
    """Return the similarity of each masked probe to its reference, and the rows where it is fixed.

    This takes (distinct probes) x (masks) + (references and contrasts) forward passes, and holds
    the masked embeddings of one image at a time. Masked pixels are black.

    Args:
        model: Asked for embeddings only.
        probes: (n, 3, H, W) in [0, 1].
        references: (n, 3, H, W), or (n, R, 3, H, W) for centroids.
        contrast: (n, 3, H, W), whose similarity is subtracted, or None.
        bank: N masks of the probes' size.

    Returns:
        (n, N) float64, the model's native similarity, higher = more alike; and (n,) bool, True
        where the similarities of a row differ by rounding alone, so that they give no map. Both are
        on the probes' device.
    """
    embedded = targets_of(model, references, contrast)
    targets = [
        one.to(probes.device) for one in (embedded.reference, embedded.contrast) if one is not None
    ]
    found = probes.new_empty((len(probes), len(bank.masks)), dtype=torch.float64)
    for rows in rows_by_image(probes):
        hidden = masked_embeddings(model, probes[rows[0]], bank)
        for row in rows:
            signed = [
                similarity(model.similarity, hidden, target[row].expand_as(hidden))
                for target in targets
            ]
            found[row] = signed[0] if contrast is None else signed[0] - signed[1]
        del hidden  # free them before the next image's are computed
    span = found.amax(dim=1) - found.amin(dim=1)
    return found, span <= rounding_of(model.similarity, embedded).to(span.device)


def without_opinion(
    maps: Tensor, is_flat: Tensor, diagnostics: Mapping[str, Tensor], negative: Tensor | None = None
) -> SaliencyMaps:
    """Zero the map of every row whose masks all gave the same similarity; mark it degenerate.

    Args:
        maps: (n, H, W).
        is_flat: (n,) bool, True for these rows.
        diagnostics: Of the maps.
        negative: (n, H, W) maps of signed methods.
    """
    flat = is_flat.tolist()

    def kept(some: Tensor) -> Tensor:
        return torch.where(is_flat[:, None, None].to(some.device), 0.0, some).float()

    return SaliencyMaps(
        kept(maps),
        None if negative is None else kept(negative),
        tuple(RowState.DEGENERATE_MAP if one else RowState.OK for one in flat),
        tuple(NO_OPINION if one else "" for one in flat),
        diagnostics,
    )


def weighted_masks(
    model: FaceModel, similarities: Tensor, bank: MaskBank, coverage_corrected: bool
) -> Tensor:
    """Return (n, H, W) float64 sums of the masks, weighted with (n, N) similarities.

    Similarities of Euclidean models are shifted per row by their minimum over the bank, so that no
    weight is negative. ``coverage_corrected`` divides by the sum of the masks, and puts pixels last
    whose masks add up to less than 10 full ones.
    """
    if model.similarity == "neg_l2" and similarities.numel():
        similarities = similarities - similarities.amin(dim=1, keepdim=True)
    maps = weighted_sum(similarities, bank)
    if coverage_corrected:
        covered = coverage(bank).to(maps.device)
        # A pixel that no mask keeps has no weights either: 0 / 1e-9, not 0 / 0.
        maps = unsupported_last(maps / covered.clamp_min(1e-9), covered >= FULL_MASKS)
    return maps


def weighted_sum(weights: Tensor, bank: MaskBank) -> Tensor:
    """Return (n, H, W) float64 sums of the masks weighted with (n, N) float64 weights."""
    size = bank.masks.shape[1:]
    sums = weights.new_zeros((len(weights), math.prod(size)))
    for start in range(0, len(bank.masks), _BLOCK):
        block = slice(start, start + _BLOCK)
        masks = bank.masks[block].flatten(1).to(weights.device)
        sums.addmm_(weights[:, block], masks.double())
    return sums.view(-1, *size)


def unsupported_last(maps: Tensor, supported: Tensor) -> Tensor:
    """Put pixels without support a thousandth of the range of the others below the least of them.

    They are ranked last, and hardly show. A map that is constant where it has support becomes
    constant everywhere: support alone is no order.

    Args:
        maps: (n, H, W).
        supported: (H, W) bool; if no pixel has support, the maps stay as they are.
    """
    if not bool(supported.any()):
        return maps
    told = maps[:, supported]
    low, high = told.amin(dim=1), told.amax(dim=1)
    last = low - 1e-3 * (high - low)
    return torch.where(supported, maps, last[:, None, None])


def coverage(bank: MaskBank) -> Tensor:
    """Return the (H, W) float64 sum of the masks: how often each pixel is kept."""
    return weighted_sum(torch.ones(1, len(bank.masks), dtype=torch.float64), bank)[0]


def share(pixels: Tensor, n: int) -> Tensor:
    """Return the share of True pixels of an (H, W) tensor, as a diagnostic of n maps."""
    return torch.full((n,), float(pixels.double().mean()))


def scaled(pixels: int, height: int) -> int:
    """Scale a side in pixels to a crop height, halves rounded up, at least 1.

    >>> [scaled(40, height) for height in (112, 150, 56, 63)]
    [40, 54, 20, 23]
    """
    return max(1, math.floor(pixels * height / NATIVE_HEIGHT + 0.5))


def check_counts(id: str, counts: Mapping[str, object], smallest: int = 1) -> None:
    """Refuse counts that are not whole numbers of at least ``smallest``.

    Raises:
        ExplainerContractError: Naming the explainer, the parameter and its value.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < smallest:
            raise ExplainerContractError(
                f"{id}: {name} must be a whole number of at least {smallest}, got {count!r}."
            )


def check_fits(id: str, name: str, side: int, size: tuple[int, int]) -> None:
    """Refuse a patch that is larger than a mask.

    Raises:
        ExplainerContractError: Naming the explainer, the parameter and both sizes.
    """
    if side > min(size):
        raise ExplainerContractError(
            f"{id}: a patch of {side} x {side} pixels does not fit into an image of {size[0]} x "
            f"{size[1]}. Lower {name} (it is for a crop {NATIVE_HEIGHT} pixels high, and scales "
            "with the height)."
        )


def check_choice(id: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices.

    Raises:
        ExplainerContractError: Naming the explainer, the parameter and the choices.
    """
    if value not in choices:
        raise ExplainerContractError(
            f"{id}: {name} must be one of {', '.join(choices)}, got {value!r}."
        )


def check_switch(id: str, name: str, value: object) -> None:
    """Refuse a value that is neither True nor False.

    Raises:
        ExplainerContractError: Naming the explainer, the parameter and its value.
    """
    if not isinstance(value, bool):
        raise ExplainerContractError(f"{id}: {name} must be true or false, got {value!r}.")


def rows_by_image(images: Images) -> list[list[int]]:
    """Return, for each distinct image, the rows that hold it."""
    rows: dict[bytes, list[int]] = {}
    for row, image in enumerate(images):
        content = image.detach().cpu().contiguous().numpy().tobytes()
        rows.setdefault(sha256(content).digest(), []).append(row)
    return list(rows.values())

"""Explanations by masking: hide parts of the probe, and see what it does to the similarity."""

import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.admission import check_embeddings
from fxeval.contracts import Embeddings, FaceModel, Images, Need, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.similarity import similarity

CHUNK = 256  # images in one forward pass; only the last of a call is smaller
NATIVE_HEIGHT = 112  # the crop height that kernel_size and sigma are given for
_BLOCK = 64  # masks weighted at once in float64
_KEPT_BANKS = 4

_banks: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()


@dataclass(frozen=True)
class SRISE:
    """S-RISE: the masks that keep two faces similar, averaged with the similarity as weight.

    ``H = sum_i s_i M_i`` with ``s_i`` the model's native similarity of the masked probe and the
    reference (with a contrast: minus that of the masked probe and the contrast). A mask shows 100
    soft patches and blackens the rest. Euclidean models' scores are shifted per pair by their
    minimum over the bank, so that weights are not negative. ``sum_i M_i`` alone draws a pattern
    into ``H``; ``coverage_corrected`` divides it out.

    Kernel size and sigma are for a crop 112 pixels high and scale with H / 112; the kernel size is
    rounded to the nearest pixel, halves up, and sigma is not rounded.

    Attributes:
        masks: Number of masks, N.
        patches: Patches of a mask.
        kernel_size: Side of a patch in pixels at H = 112.
        sigma: Standard deviation of a patch's Gaussian in pixels at H = 112.
        coverage_corrected: Divide by the sum of the masks; the published form does not.

    Source:
        Lu and Ebrahimi 2023 (S-RISE), sec. 2; composition of a mask: algorithms.md 3.5.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"black_box"})

    masks: int = 500
    patches: int = 100
    kernel_size: int = 40
    sigma: float = 7.0
    coverage_corrected: bool = False

    def __post_init__(self) -> None:
        _check_geometry(self.masks, self.patches, self.kernel_size, self.sigma)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by N masked forward passes; a probe of several pairs is masked once.

        Returns:
            SaliencyMaps with (N, H, W) positive maps; with a cosine they may be negative.

        Raises:
            ExplainerContractError: If a patch is larger than the image.
            ModelContractError: If the embeddings are not finite (n, D) tensors.
        """
        size = (probes.shape[2], probes.shape[3])
        scale = size[0] / NATIVE_HEIGHT
        kernel_size = max(1, math.floor(self.kernel_size * scale + 0.5))
        bank = mask_bank(
            generator, self.masks, self.patches, kernel_size, self.sigma * scale, size
        ).to(probes.device)
        with torch.no_grad():
            targets = [references] if contrast is None else [references, contrast]
            similarities = masked_similarities(model, probes, targets, bank)
            scores = similarities[0] if contrast is None else similarities[0] - similarities[1]
            if model.similarity == "neg_l2":
                scores = scores - scores.amin(dim=1, keepdim=True)
            maps = _weighted_sum(scores, bank)
            if self.coverage_corrected:
                everything = torch.ones_like(scores[:1])
                maps /= _weighted_sum(everything, bank).clamp_min(1e-9)
        return SaliencyMaps(maps.view(len(probes), *size).float())


def mask_bank(
    generator: np.random.Generator, masks: int, patches: int, kernel_size: int, sigma: float,
    size: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Return soft masks: the maximum of Gaussian patches at random places, clipped at the border.

    For each mask the generator draws ``patches`` rows, then ``patches`` columns; a patch has peak 1
    between its middle pixels and its upper left corner at (row - kernel_size // 2,
    column - kernel_size // 2).

    Args:
        generator: Read, not advanced: the same state always gives the same bank.
        masks: Number of masks, N.
        patches: Patches of a mask.
        kernel_size: Side of a patch in pixels.
        sigma: Of the Gaussian, in pixels.
        size: (height, width) of a mask in pixels.

    Returns:
        (N, H, W) float32 in [0, 1], 1 = kept. Kept for the next call; do not write to it.

    Raises:
        ExplainerContractError: If a number is out of range or a patch is larger than a mask.

    Source:
        algorithms.md 3.5.
    """
    _check_geometry(masks, patches, kernel_size, sigma)
    if kernel_size > min(size):
        raise ExplainerContractError(
            f"srise: a patch of {kernel_size} x {kernel_size} pixels does not fit into an image of "
            f"{size[0]} x {size[1]}. Lower kernel_size (it is for a crop {NATIVE_HEIGHT} pixels "
            "high, and scales with the height)."
        )
    key = (_state_digest(generator), masks, patches, kernel_size, float(sigma), size)
    if key in _banks:
        _banks.move_to_end(key)
        return _banks[key]
    bank = _draw_bank(deepcopy(generator), masks, patches, _kernel(kernel_size, sigma), size)
    _banks[key] = bank
    if len(_banks) > _KEPT_BANKS:
        _banks.popitem(last=False)
    return bank


def _draw_bank(
    generator: np.random.Generator, masks: int, patches: int, kernel: NDArray[np.float32],
    size: tuple[int, int],
) -> Tensor:  # fmt: skip
    (height, width), side = size, len(kernel)
    before = side // 2
    # A frame as wide as a patch: nothing to clip in the inner loop, and the cut comes once.
    framed = np.zeros((height + side, width + side), np.float32)
    bank = np.empty((masks, height, width), np.float32)
    for mask in bank:
        rows = generator.integers(0, height, patches)
        columns = generator.integers(0, width, patches)
        framed.fill(0.0)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            patch = framed[row : row + side, column : column + side]
            np.maximum(patch, kernel, out=patch)
        mask[:] = framed[before : before + height, before : before + width]
    return torch.from_numpy(bank)


def _kernel(side: int, sigma: float) -> NDArray[np.float32]:
    profile = np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / (2 * sigma**2))
    return np.outer(profile, profile).astype(np.float32)


def _state_digest(generator: np.random.Generator) -> str:
    # Some bit generators keep their state in arrays.
    state = json.dumps(generator.bit_generator.state, sort_keys=True, default=np.ndarray.tolist)
    return sha256(state.encode()).hexdigest()


def masked_similarities(
    model: FaceModel, probes: Images, targets: Sequence[Images], bank: Tensor
) -> Tensor:
    """Return the similarity of each masked probe with each of its targets.

    All masked images form one stream of chunks of 256, across pairs; equal probes are masked once:
    (distinct probes) x (masks) + (targets) x (pairs) forward passes in all.

    Args:
        model: Asked for embeddings only.
        probes: (n, 3, H, W) in [0, 1].
        targets: T tensors (n, 3, H, W): the references, and possibly contrasts.
        bank: (N, H, W) in [0, 1]; masks multiply pixels before the model normalises them.

    Returns:
        (T, n, N) float64, the model's native similarity, higher = more alike.
    """
    embedded = [_embed(model, images) for images in targets]  # T times (n, D)
    pairs_of = _pairs_of_distinct(probes)
    scores = torch.empty(
        (len(targets), len(probes), len(bank)), dtype=torch.float64, device=probes.device
    )
    total = len(pairs_of) * len(bank)
    buffer = probes.new_empty((min(CHUNK, total), *probes.shape[1:]))
    for start in range(0, total, CHUNK):
        images = buffer[: min(CHUNK, total - start)]
        pieces = _pieces(start, len(images), len(bank))
        for which, masks, place in pieces:
            torch.mul(probes[pairs_of[which][0]], bank[masks, None], out=images[place])
        embeddings = check_embeddings(model.name, model.embed(images), len(images))
        for which, masks, place in pieces:
            masked = embeddings[place]
            for pair in pairs_of[which]:
                for target, others in enumerate(embedded):
                    other = others[pair].expand_as(masked)
                    scores[target, pair, masks] = similarity(model.similarity, masked, other)
    return scores


def _pieces(start: int, length: int, masks: int) -> list[tuple[int, slice, slice]]:
    """Cut a chunk of the stream at probes: (which probe, its masks, their place in the chunk).

    >>> _pieces(start=4, length=4, masks=6)
    [(0, slice(4, 6, None), slice(0, 2, None)), (1, slice(0, 2, None), slice(2, 4, None))]
    """
    pieces, place = [], 0
    while place < length:
        which, first = divmod(start + place, masks)
        n = min(masks - first, length - place)
        pieces.append((which, slice(first, first + n), slice(place, place + n)))
        place += n
    return pieces


def _pairs_of_distinct(images: Images) -> list[list[int]]:
    """Return, for each distinct image, the rows that hold it."""
    rows: dict[bytes, list[int]] = {}
    for row, image in enumerate(images.detach().cpu().numpy()):
        rows.setdefault(sha256(image.tobytes()).digest(), []).append(row)
    return list(rows.values())


def _embed(model: FaceModel, images: Images) -> Embeddings:
    return torch.cat(
        [
            check_embeddings(model.name, model.embed(chunk), len(chunk))
            for chunk in torch.split(images, CHUNK)
        ]
    )


def _weighted_sum(weights: Tensor, bank: Tensor) -> Tensor:
    """Return (n, H * W) float64 sums of the masks weighted by (n, N) weights."""
    pixels = bank.flatten(1)
    maps = weights.new_zeros((len(weights), pixels.shape[1]))
    for start in range(0, len(bank), _BLOCK):
        block = slice(start, start + _BLOCK)
        maps.addmm_(weights[:, block], pixels[block].double())
    return maps


def _check_geometry(masks: int, patches: int, kernel_size: int, sigma: float) -> None:
    counts = {"masks": masks, "patches": patches, "kernel_size": kernel_size}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ExplainerContractError(
                f"srise: {name} must be a whole number of at least 1, got {count!r}."
            )
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
        raise ExplainerContractError(
            f"srise: sigma must be a finite number of pixels above 0, got {sigma!r}."
        )

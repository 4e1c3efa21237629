"""S-RISE: hide all but random soft patches of the probe, and see what similarity is left."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fxeval.contracts import ExplainerTraits, FaceModel, Images, MaskBank, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.mask_banks import (
    FULL_MASKS,
    NATIVE_HEIGHT,
    check_choice,
    check_counts,
    check_fits,
    check_switch,
    coverage,
    drawn_bank,
    masked_similarities,
    scaled,
    share,
    weighted_masks,
    without_opinion,
)

Combination = Literal["max", "sum_clipped", "sum_stretched"]
Placement = Literal["anywhere", "inside"]


@dataclass(frozen=True)
class SRISE:
    """S-RISE: the masks that keep two faces similar, averaged with the similarity as weight.

    ``H = sum_i s_i M_i`` with ``s_i`` the model's native similarity of the masked probe and the
    reference (with a contrast: minus that of the masked probe and the contrast). A mask shows 100
    soft patches and blackens the rest. Euclidean models' similarities are shifted per pair by their
    minimum over the bank, so that weights are not negative. ``sum_i M_i`` by itself leaves a
    pattern in ``H``; ``coverage_corrected`` divides it out.

    The publication leaves open how patches make a mask. The default covers the image most evenly;
    ``sum_clipped`` leaves it almost untouched, and ``inside`` never shows a corner, so that the
    coverage alone draws a blob. Diagnostic ``supported_share``: the share of pixels whose masks add
    up to 10 full ones or more; with ``coverage_corrected`` the other pixels lie below all of these.

    Kernel size and sigma are for a crop 112 pixels high and scale with H / 112; the kernel size is
    rounded to the nearest pixel, halves up, and sigma is not rounded.

    Attributes:
        masks: Number of masks, N.
        patches: Patches per mask.
        kernel_size: Side of a patch in pixels at H = 112.
        sigma: Standard deviation of a patch's Gaussian in pixels at H = 112.
        coverage_corrected: Divide by the sum of the masks; the published form does not.
        combination: How overlapping patches combine: their maximum, their sum clipped at 1, or
            their sum stretched so that each mask reaches from 0 to 1.
        placement: Patches lie ``anywhere``, clipped at the border, or wholly ``inside``.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: srise, params: {masks: 1000, coverage_corrected: true}, as: srise_corrected}

    Source:
        Lu and Ebrahimi, SPIE 2023 (S-RISE), sec. 2.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"black_box"},
        takes_centroids=True,
        takes_contrast=True,
        source="Lu and Ebrahimi, SPIE 2023 (S-RISE), sec. 2",
    )

    masks: int = 500
    patches: int = 100
    kernel_size: int = 40
    sigma: float = 7.0
    coverage_corrected: bool = False
    combination: Combination = "max"
    placement: Placement = "anywhere"

    def __post_init__(self) -> None:
        _check_geometry(self)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by N masked forward passes; a probe of several pairs is masked once.

        Returns:
            SaliencyMaps with (N, H, W) maps as ``positive``; values can be below 0, as a cosine.

        Raises:
            ExplainerContractError: If a patch is larger than the image.
            ModelContractError: If the embeddings are not finite (n, D) tensors.
        """
        bank = mask_bank(generator, self, (probes.shape[2], probes.shape[3]))
        with torch.no_grad():
            similarities, is_flat = masked_similarities(model, probes, references, contrast, bank)
            maps = weighted_masks(model, similarities, bank, self.coverage_corrected)
        supported = share(coverage(bank) >= FULL_MASKS, len(probes))
        return without_opinion(maps, is_flat, {"supported_share": supported})


def mask_bank(generator: np.random.Generator, geometry: SRISE, size: tuple[int, int]) -> MaskBank:
    """Return soft masks: Gaussian patches of peak 1 at random places.

    For each mask the generator draws ``patches`` rows, then ``patches`` columns. Anywhere: rows in
    [0, H), and the patch's upper left corner lies at (row - side // 2, column - side // 2). Inside:
    rows in [0, H - side], which are the corners themselves. Columns are treated alike.

    Args:
        generator: Read, not advanced: the same state always gives the same bank.
        geometry: Kernel size and sigma are scaled to the height.
        size: (height, width) of a mask in pixels.

    Returns:
        N masks (H, W), float32 in [0, 1], 1 = kept; the same object for the same arguments.

    Raises:
        ExplainerContractError: If a patch is larger than a mask.
    """
    side = scaled(geometry.kernel_size, size[0])
    check_fits("srise", "kernel_size", side, size)
    sigma = geometry.sigma * size[0] / NATIVE_HEIGHT
    return drawn_bank(
        generator, _draw, geometry.masks, geometry.patches, side, sigma, geometry.combination,
        geometry.placement, size,
    )  # fmt: skip


def _draw(
    generator: np.random.Generator, masks: int, patches: int, side: int, sigma: float,
    combination: Combination, placement: Placement, size: tuple[int, int],
) -> NDArray[np.float32]:  # fmt: skip
    height, width = size
    anywhere = placement == "anywhere"
    before, beyond = (side // 2, 0) if anywhere else (0, side - 1)
    combine = np.maximum if combination == "max" else np.add
    kernel = _kernel(side, sigma)
    # Padded by one patch, so that nothing needs clipping in the inner loop.
    framed = np.zeros((height + side, width + side), np.float32)
    bank = np.empty((masks, height, width), np.float32)
    for mask in bank:
        rows = generator.integers(0, height - beyond, patches)
        columns = generator.integers(0, width - beyond, patches)
        framed.fill(0.0)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            patch = framed[row : row + side, column : column + side]
            combine(patch, kernel, out=patch)
        mask[:] = framed[before : before + height, before : before + width]
        if combination == "sum_stretched":
            _stretch(mask)
    return np.minimum(bank, 1.0, out=bank)


def _stretch(mask: NDArray[np.float32]) -> None:
    low, high = mask.min(), mask.max()
    if high > low:  # a flat mask has nothing to stretch; the caller clips it
        mask -= low
        mask /= high - low


def _kernel(side: int, sigma: float) -> NDArray[np.float32]:
    profile = np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / (2 * sigma**2))
    return np.outer(profile, profile).astype(np.float32)


def _check_geometry(given: SRISE) -> None:
    check_counts(
        "srise",
        {"masks": given.masks, "patches": given.patches, "kernel_size": given.kernel_size},
    )
    sigma = given.sigma
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
        raise ExplainerContractError(
            f"srise: sigma must be a finite number of pixels above 0, got {sigma!r}."
        )
    check_switch("srise", "coverage_corrected", given.coverage_corrected)
    check_choice("srise", "combination", given.combination, get_args(Combination))
    check_choice("srise", "placement", given.placement, get_args(Placement))

"""CorrRISE: hide random squares of the probe, and correlate what is kept with the similarity."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import ExplainerTraits, FaceModel, Images, MaskBank, SaliencyMaps
from fxeval.explainers.mask_banks import (
    FULL_MASKS,
    check_counts,
    check_fits,
    check_switch,
    coverage,
    drawn_bank,
    masked_similarities,
    scaled,
    share,
    weighted_sum,
    without_opinion,
)


@dataclass(frozen=True)
class CorrRISE:
    """CorrRISE: per pixel, the correlation over random masks of being kept and being similar.

    A mask blackens 3 squares of 30 x 30 pixels, wholly inside the image. The positive map is
    ``max(rho, 0)``, the negative one, evidence against the similarity, ``max(-rho, 0)``; with a
    contrast, ``rho`` uses the similarity to the reference minus that to the contrast. Pixels that
    fewer than 10 masks hide, or fewer than 10 keep, have no support: nothing is known of them, and
    they are 0 in both maps. So that they are ranked last, and not level with pixels that speak
    against the similarity, a millionth of a map's largest value stands for 0 everywhere else. The
    corners are almost never hidden. Similarities that differ by rounding only give zero maps.

    Diagnostics: ``supported_share``, the share of all other pixels; ``correlation_over_noise``, the
    largest ``|rho| * sqrt(masks)``: under pure noise its standard deviation at a pixel is 1, and a
    map whose largest value is below about 4 is not distinguishable from noise.

    Attributes:
        masks: Number of masks, N, at least 20.
        patches: Squares per mask.
        patch_size: Side of a square in pixels at H = 112; scales with H / 112, halves rounded up.
        rank_based: Spearman's correlation, with average ranks; otherwise Pearson's.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: corrrise, params: {masks: 1000, rank_based: false}}

    Source:
        Lu, Xu and Ebrahimi, WACV 2024 (CorrRISE); default parameters as in the re-implementation
        of FAME, CVPRW 2026, arXiv 2605.12017.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"black_box"},
        takes_centroids=True,
        takes_contrast=True,
        source="Lu, Xu and Ebrahimi, WACV 2024 (CorrRISE)",
    )

    masks: int = 500
    patches: int = 3
    patch_size: int = 30
    rank_based: bool = True

    def __post_init__(self) -> None:
        check_counts("corrrise", {"masks": self.masks}, smallest=2 * int(FULL_MASKS))
        check_counts("corrrise", {"patches": self.patches, "patch_size": self.patch_size})
        check_switch("corrrise", "rank_based", self.rank_based)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by N masked forward passes; a probe of several pairs is masked once.

        Returns:
            SaliencyMaps with (N, H, W) positive and negative maps in [0, 1].

        Raises:
            ExplainerContractError: If a square is larger than the image.
            ModelContractError: If the embeddings are not finite (n, D) tensors.
        """
        size = (probes.shape[2], probes.shape[3])
        bank = occlusion_bank(generator, self.masks, self.patches, self.patch_size, size)
        with torch.no_grad():
            similarities, is_flat = masked_similarities(model, probes, references, contrast, bank)
            if self.rank_based:
                similarities = average_ranks(similarities)
            similarities[is_flat] = 0.0
            kept = coverage(bank).to(probes.device)
            supported = torch.minimum(kept, self.masks - kept) >= FULL_MASKS
            rho = _correlations(similarities, bank, kept) * supported
        diagnostics = {
            "supported_share": share(supported, len(probes)),
            "correlation_over_noise": rho.abs().amax(dim=(1, 2)) * math.sqrt(self.masks),
        }
        positive, negative = (_part(signed, supported) for signed in (rho, rho.neg()))
        return without_opinion(positive, is_flat, diagnostics, negative)


def occlusion_bank(
    generator: np.random.Generator, masks: int, patches: int, patch_size: int, size: tuple[int, int]
) -> MaskBank:
    """Return binary masks, 0 inside random squares and 1 outside.

    The generator draws the upper rows of all squares of all masks, (masks, patches), then the left
    columns, each uniform over the positions at which the square lies inside the image.

    Args:
        generator: Read, not advanced: the same state always gives the same bank.
        masks: Number of masks, N.
        patches: Squares per mask.
        patch_size: Side of a square in pixels at H = 112; scales with H / 112.
        size: (height, width) of a mask in pixels.

    Returns:
        N masks (H, W), float32, 1 = kept; the same object for the same arguments.

    Raises:
        ExplainerContractError: If a square is larger than a mask.
    """
    side = scaled(patch_size, size[0])
    check_fits("corrrise", "patch_size", side, size)
    return drawn_bank(generator, _draw, masks, patches, side, size)


def average_ranks(values: Tensor) -> Tensor:
    """Rank each row from 1 up; equal values share the mean of their ranks. (n, N) float64.

    >>> average_ranks(torch.tensor([[0.5, 0.1, 0.5]])).tolist()
    [[2.5, 1.0, 2.5]]
    """
    ordered = values.sort(dim=1).values
    smaller = torch.searchsorted(ordered, values)
    smaller_or_equal = torch.searchsorted(ordered, values, right=True)
    return (smaller + smaller_or_equal + 1).double() / 2


def _draw(
    generator: np.random.Generator, masks: int, patches: int, side: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    rows = generator.integers(0, size[0] - side + 1, (masks, patches))
    columns = generator.integers(0, size[1] - side + 1, (masks, patches))
    bank = np.ones((masks, *size), np.float32)
    for mask, tops, lefts in zip(bank, rows.tolist(), columns.tolist(), strict=True):
        for top, left in zip(tops, lefts, strict=True):
            mask[top : top + side, left : left + side] = 0.0
    return bank


def _part(signed: Tensor, supported: Tensor) -> Tensor:
    """Return the positive part of (n, H, W) values; only pixels without support are exactly 0.

    A map without a positive value is 0 everywhere: support alone is no order.
    """
    largest = signed.amax(dim=(1, 2), keepdim=True).clamp_min(0)
    return torch.maximum(signed, 1e-6 * largest) * supported


def _correlations(values: Tensor, bank: MaskBank, kept: Tensor) -> Tensor:
    """Return (n, H, W) Pearson correlations of (n, N) values with the binary masks.

    Pixels that are kept always or never, and values that are all equal, correlate with 0.
    """
    values = values - values.mean(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    unit = torch.where(length > 0, values / length, 0.0)
    # The length of a pixel's centred column of zeros and ones: kept by k of N masks, the sum of
    # squares is k (N - k) / N. Centring the masks is not needed, as the values are centred.
    spread = (kept * (len(bank.masks) - kept) / len(bank.masks)).sqrt()
    return torch.where(spread > 0, weighted_sum(unit, bank) / spread, 0.0).clamp(-1, 1)

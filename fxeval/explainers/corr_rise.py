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
    contrast, ``rho`` is about the similarity to the reference minus that to the contrast. Pixels
    with fewer than 10 masks that hide them or fewer than 10 that keep them are 0 in both maps: the
    corners are next to never hidden. Similarities that differ by rounding only give zero maps.

    Diagnostics: ``supported_share``, the share of the other pixels; ``correlation_over_noise``, the
    largest ``|rho| * sqrt(masks)``: pure noise has a standard deviation of 1, and a map whose best
    pixel is below about 4 says nothing.

    Attributes:
        masks: Number of masks, N, at least 20.
        patches: Squares of a mask.
        patch_size: Side of a square in pixels at H = 112; scales with H / 112, halves up.
        rank_based: Spearman's correlation, with average ranks; if not, Pearson's.

    Source:
        Lu, Xu and Ebrahimi, WACV 2024 (CorrRISE); parameters and correlation: algorithms.md 3.6.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"black_box"},
        takes_centroids=True,
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
        return without_opinion(rho.clamp_min(0), is_flat, diagnostics, rho.neg().clamp_min(0))


def occlusion_bank(
    generator: np.random.Generator, masks: int, patches: int, patch_size: int, size: tuple[int, int]
) -> MaskBank:
    """Return binary masks, 0 inside random squares and 1 outside.

    The generator draws the upper rows of all squares of all masks, (masks, patches), then the left
    columns, each uniform such that the square lies inside.

    Args:
        generator: Read, not advanced: the same state always gives the same bank.
        masks: Number of masks, N.
        patches: Squares of a mask.
        patch_size: Side of a square in pixels at H = 112; scales with H / 112.
        size: (height, width) of a mask in pixels.

    Returns:
        N masks (H, W), float32, 1 = kept; the same object for the same arguments.

    Raises:
        ExplainerContractError: If a square is larger than a mask.

    Source:
        algorithms.md 3.6.
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


def _correlations(values: Tensor, bank: MaskBank, kept: Tensor) -> Tensor:
    """Return (n, H, W) Pearson correlations of (n, N) values with the binary masks.

    Pixels that are kept always or never, and values that are all equal, correlate with 0.
    """
    values = values - values.mean(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    unit = torch.where(length > 0, values / length, 0.0)
    # The sum of squares of a centred column of zeros and ones.
    spread = (kept * (len(bank.masks) - kept) / len(bank.masks)).sqrt()
    return torch.where(spread > 0, weighted_sum(unit, bank) / spread, 0.0).clamp(-1, 1)

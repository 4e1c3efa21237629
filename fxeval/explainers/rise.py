"""RISE, carried over to pairs of faces: hide random cells of a shifted grid."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fxeval.contracts import ExplainerTraits, FaceModel, Images, MaskBank, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.mask_banks import (
    FULL_MASKS,
    check_counts,
    check_switch,
    coverage,
    drawn_bank,
    masked_similarities,
    share,
    weighted_masks,
    without_opinion,
)

_BLOCK = 64  # masks drawn at once


@dataclass(frozen=True)
class RISE:
    """RISE: random smooth grids that keep two faces similar, averaged with the similarity.

    ``H = sum_i s_i M_i / (N p)`` with ``s_i`` the model's native similarity of the masked probe and
    the reference (with a contrast: minus that of the masked probe and the contrast). A mask is a
    grid of 7 x 7 cells, each kept with probability p, enlarged bilinearly and shifted at random.
    Euclidean models' similarities are shifted per pair by their minimum over the bank.
    ``coverage_corrected`` divides by ``sum_i M_i`` instead, and puts pixels whose masks add up to
    less than 10 full ones below all others. Diagnostic ``supported_share``: the share of the
    others.

    Attributes:
        masks: Number of masks, N.
        cells: Cells of the grid along each side.
        keep_probability: p, above 0 and below 1.
        coverage_corrected: Divide by the sum of the masks; the published form does not.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: rise, params: {masks: 4000, coverage_corrected: true}}

    Source:
        Petsiuk, Das and Saenko, BMVC 2018, sec. 3, with the similarity in place of a class score.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"black_box"},
        takes_centroids=True,
        takes_contrast=True,
        source="Petsiuk, Das and Saenko, BMVC 2018 (RISE), sec. 3",
    )

    masks: int = 2000
    cells: int = 7
    keep_probability: float = 0.5
    coverage_corrected: bool = False

    def __post_init__(self) -> None:
        check_counts("rise", {"masks": self.masks, "cells": self.cells})
        p = self.keep_probability
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p < 1:
            raise ExplainerContractError(
                f"rise: keep_probability must be a number above 0 and below 1, got {p!r}."
            )
        check_switch("rise", "coverage_corrected", self.coverage_corrected)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by N masked forward passes; a probe of several pairs is masked once.

        Returns:
            SaliencyMaps with (N, H, W) maps as ``positive``; values can be below 0, as a cosine.

        Raises:
            ExplainerContractError: If the grid has more cells than the image has pixels.
            ModelContractError: If the embeddings are not finite (n, D) tensors.
        """
        size = (probes.shape[2], probes.shape[3])
        bank = grid_bank(generator, self.masks, self.cells, self.keep_probability, size)
        with torch.no_grad():
            similarities, is_flat = masked_similarities(model, probes, references, contrast, bank)
            maps = weighted_masks(model, similarities, bank, self.coverage_corrected)
            if not self.coverage_corrected:
                maps /= self.masks * self.keep_probability
        supported = share(coverage(bank) >= FULL_MASKS, len(probes))
        return without_opinion(maps, is_flat, {"supported_share": supported})


def grid_bank(
    generator: np.random.Generator, masks: int, cells: int, keep_probability: float,
    size: tuple[int, int],
) -> MaskBank:  # fmt: skip
    """Return smooth random grids: cells enlarged bilinearly, shifted by less than one cell, cut.

    The generator draws uniform numbers (masks, cells, cells), and a cell is kept if its number is
    below the probability; then it draws all shifts downwards, then all shifts to the right. The
    grid is enlarged to ``(cells + 1) * ceil(H / cells)`` rows, with pixel and cell centres aligned,
    reflected at the border about the centre of the outermost cell. Columns are treated alike.

    Args:
        generator: Read, not advanced: the same state always gives the same bank.
        masks: Number of masks, N.
        cells: Cells of the grid along each side.
        keep_probability: Above 0 and below 1.
        size: (height, width) of a mask in pixels.

    Returns:
        N masks (H, W), float32 in [0, 1], 1 = kept; the same object for the same arguments.

    Raises:
        ExplainerContractError: If the grid has more cells than the mask has pixels.

    Source:
        ``generate_masks`` of the authors' repository (eclique/RISE, ``explanations.py``).
    """
    if cells > min(size):
        raise ExplainerContractError(
            f"rise: a grid of {cells} x {cells} cells does not fit into an image of {size[0]} x "
            f"{size[1]}. Lower cells."
        )
    return drawn_bank(generator, _draw, masks, cells, float(keep_probability), size)


def _draw(
    generator: np.random.Generator, masks: int, cells: int, keep_probability: float,
    size: tuple[int, int],
) -> NDArray[np.float32]:  # fmt: skip
    grids = generator.random((masks, cells, cells)) < keep_probability
    enlargement = [_enlargement(cells, math.ceil(side / cells)) for side in size]
    first = [generator.integers(0, math.ceil(side / cells), masks)[:, None] for side in size]
    rows, columns = (start + np.arange(side) for start, side in zip(first, size, strict=True))
    bank = np.empty((masks, *size), np.float32)
    for start in range(0, masks, _BLOCK):
        block = slice(start, start + _BLOCK)
        down, across = enlargement[0][rows[block]], enlargement[1][columns[block]]
        bank[block] = down @ grids[block].astype(np.float32) @ across.swapaxes(1, 2)
    return np.clip(bank, 0.0, 1.0, out=bank)


def _enlargement(cells: int, factor: int) -> NDArray[np.float32]:
    """Return the ((cells + 1) * factor, cells) matrix that enlarges a line of cells."""
    pixels = (cells + 1) * factor
    place = np.abs((np.arange(pixels) + 0.5) * cells / pixels - 0.5)
    place = np.minimum(place, 2 * (cells - 1) - place) if cells > 1 else np.zeros(pixels)
    lower = np.minimum(np.floor(place).astype(np.int64), max(cells - 2, 0))
    upper = np.minimum(lower + 1, cells - 1)
    matrix = np.zeros((pixels, cells))
    np.add.at(matrix, (np.arange(pixels), lower), 1 - (place - lower))
    np.add.at(matrix, (np.arange(pixels), upper), place - lower)
    return matrix.astype(np.float32)

"""Explanations by occlusion: slide a patch over the probe, and see how the similarity changes.

Both explainers embed each probe under one fixed bank of masks. All pairs, triplets and cells with
the same probe share the cost of that.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, get_args

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import (
    Embeddings,
    ExplainerTraits,
    FaceModel,
    Fill,
    Images,
    MaskBank,
    RowState,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.mask_banks import (
    NATIVE_HEIGHT,
    NO_OPINION,
    check_choice,
    check_counts,
    check_fits,
    check_switch,
    masked_embeddings,
    rows_by_image,
    scaled,
)
from fxeval.explainers.objectives import Targets, rounding_of, targets_of
from fxeval.functional.masking import bank_of
from fxeval.functional.similarity import similarity

XFACE_PATCHES = (7, 14, 28)  # sides, in pixels at H = 112
XFACE_STRIDE = 5  # pixels at H = 112; of the blur, the kernel's side and its sigma, too


@dataclass(frozen=True)
class OcclusionSensitivity:
    """Occlusion sensitivity: how much similarity is lost where a patch covers the probe.

    A pixel's value is the mean, over the patches that cover it, of the similarity of the clean
    probe minus that of the occluded one (with a contrast: of the similarity to the reference minus
    that to the contrast). The last patch of each row and column lies flush with the border, so that
    every pixel is covered. Cost: 1 + patches forward passes per probe image, 226 at 112 x 112.

    Patch and stride are for a crop 112 pixels high; they scale with H / 112 and are rounded to the
    nearest pixel, halves up.

    Attributes:
        patch: Side of the square patch in pixels at H = 112.
        stride: Step of the patch in pixels at H = 112, at most ``patch``.
        fill: What the patch shows: ``black``, ``mean`` or ``blur``.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: occlusion, params: {patch: 16, stride: 8, fill: blur}}

    Source:
        Zeiler and Fergus, ECCV 2014, sec. 4.2, with the similarity in place of a class score.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"black_box"},
        takes_centroids=True,
        takes_contrast=True,
        source="Zeiler & Fergus, ECCV 2014, sec. 4.2",
    )

    patch: int = 14
    stride: int = 7
    fill: Fill = "black"

    def __post_init__(self) -> None:
        check_counts("occlusion", {"patch": self.patch, "stride": self.stride})
        if self.stride > self.patch:
            raise ExplainerContractError(
                f"occlusion: stride must be at most the patch's side, {self.patch}, or pixels stay "
                f"uncovered, got {self.stride}."
            )
        check_choice("occlusion", "fill", self.fill, get_args(Fill))

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by sliding one patch over it; nothing is drawn from the generator.

        Returns:
            SaliencyMaps, (N, H, W): drops of the similarity are positive, rises are negative.

        Raises:
            ExplainerContractError: If the patch is larger than the image.
            ModelContractError: If the embeddings are not finite (n, D) tensors.
        """
        size = (probes.shape[2], probes.shape[3])
        patch, stride = scaled(self.patch, size[0]), scaled(self.stride, size[0])
        check_fits("occlusion", "patch", patch, size)
        grid = _grid(patch, patch, stride, size, is_flush=True)
        bank = _bank((grid,))
        maps = torch.empty((len(probes), *size), dtype=torch.float64)
        coverage = grid.spread(torch.ones(grid.patches, dtype=torch.float64))
        targets = targets_of(model, references, contrast)
        for row, values in similarities_by_pair(model, probes, targets, bank, self.fill):
            maps[row] = grid.spread(values[0] - values[1:]) / coverage
        return signed(maps, probes.device)


@dataclass(frozen=True)
class XFace:
    """x-face: occlusion by patches of three sizes, weighted by area and smoothed.

    For each size p, patches p x p slide with stride 5; a pixel's value is the sum, over the patches
    that cover it, of the similarity lost by occluding the probe, divided by p^2 and by the number
    of patches of that size. It is averaged over p = 7, 14, 28 and blurred by a Gaussian (5 x 5
    pixels, sigma 5, border reflected about the outermost pixel). The reference stays unoccluded
    (method 2 of the paper). Patches are black. Pixels at the border lie under fewer patches and so
    count for less. Cost: 1250 forward passes per probe image at 112 x 112 (``faithful``: 1131).

    The loss is measured in the model's native similarity: for cosine models it is exactly the
    paper's rise of the cosine distance, for Euclidean ones the rise of the Euclidean distance, by
    which these models decide.

    All pixels are for a crop 112 pixels high, scale with H / 112 and are rounded to the nearest
    pixel, halves up (the blur's radius 2, too; its sigma is not rounded).

    Attributes:
        faithful: Reproduce two errors of the published code: patches are (p + 1) x (p + 1), and no
            patch starts at or after H - p, so that the last rows and columns stay uncovered. By
            default patches are p x p, and the last ones lie flush with the border.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: xface, params: {faithful: true}}

    Source:
        Knoche et al., WACVW 2023; ``Martlgap/x-face-verification: src/generate_maps.py``.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"black_box"},
        takes_centroids=True,
        takes_contrast=True,
        source="Knoche et al., WACVW 2023, method 2",
    )

    faithful: bool = False

    def __post_init__(self) -> None:
        check_switch("xface", "faithful", self.faithful)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by sliding three patches; nothing is drawn from the generator.

        Returns:
            SaliencyMaps, (N, H, W): drops of the similarity are positive, rises are negative.

        Raises:
            ExplainerContractError: If a patch is larger than the image.
            ModelContractError: If the embeddings are not finite (n, D) tensors.
        """
        size = (probes.shape[2], probes.shape[3])
        stride = scaled(XFACE_STRIDE, size[0])
        sides = [scaled(side, size[0]) for side in XFACE_PATCHES]
        if max(sides) + self.faithful > size[1]:
            raise ExplainerContractError(
                f"xface: patches of {max(sides) + self.faithful} pixels, a quarter of the height, "
                f"do not fit into an image of {size[0]} x {size[1]}. Use wider crops."
            )
        grids = tuple(
            _grid(side, side + self.faithful, stride, size, is_flush=not self.faithful)
            for side in sides
        )
        maps = torch.zeros((len(probes), *size), dtype=torch.float64)
        targets = targets_of(model, references, contrast)
        for row, values in similarities_by_pair(model, probes, targets, _bank(grids), "black"):
            drops = torch.split(values[0] - values[1:], [grid.patches for grid in grids])
            for grid, side, drop in zip(grids, sides, drops, strict=True):
                maps[row] += grid.spread(drop) / (side**2 * grid.patches * len(grids))
        radius = math.floor((XFACE_STRIDE // 2) * size[0] / NATIVE_HEIGHT + 0.5)
        blurred = _blurred(maps, radius, XFACE_STRIDE * size[0] / NATIVE_HEIGHT)
        return signed(blurred, probes.device)


def similarities_by_pair(
    model: FaceModel, probes: Images, targets: Targets, bank: MaskBank, fill: Fill
) -> Iterator[tuple[int, Tensor]]:
    """Yield each row of N pairs with the similarities of its probe under each of M masks.

    Equal probes are embedded once, so the rows don't come in order.

    Args:
        model: Asked for embeddings only.
        probes: (N, 3, H, W) in [0, 1].
        targets: Embedded references, and contrasts, of the N pairs.
        bank: M masks.
        fill: What shows where a mask is 0.

    Yields:
        The row, and (M,) float64 similarities on the CPU, see :func:`similarities`; all equal if
        they differ by rounding alone.
    """
    rounding = rounding_of(model.similarity, targets)
    for rows in rows_by_image(probes):
        with torch.no_grad():
            embeddings = masked_embeddings(model, probes[rows[0]], bank, fill)
        for row in rows:
            values = similarities(model, embeddings, targets.rows(slice(row, row + 1)))
            if float(values.max() - values.min()) <= float(rounding[row]):
                values = values[:1].expand_as(values)
            yield row, values


def similarities(model: FaceModel, embeddings: Embeddings, targets: Targets) -> Tensor:
    """Compare M embeddings with one pair's targets.

    Args:
        model: Gives the native similarity.
        embeddings: (M, D).
        targets: Of one pair.

    Returns:
        (M,) float64 on the CPU: the similarity to the reference, minus that to the contrast if
        there is one; larger = more like the reference.
    """

    def to(others: Embeddings) -> Tensor:
        others = others.to(embeddings.device).expand_as(embeddings)
        return similarity(model.similarity, embeddings, others).cpu()

    with torch.no_grad():
        values = to(targets.reference)
        return values if targets.contrast is None else values - to(targets.contrast)


def signed(maps: Tensor, device: torch.device) -> SaliencyMaps:
    """Split (N, H, W) signed maps into evidence for and against the similarity, both >= 0."""
    wide = maps.to(device, torch.float32)
    flat = (maps == 0).flatten(1).all(dim=1).tolist()
    return SaliencyMaps(
        wide.clamp_min(0.0),
        (-wide).clamp_min(0.0),
        tuple(RowState.DEGENERATE_MAP if one else RowState.OK for one in flat),
        tuple(NO_OPINION if one else "" for one in flat),
    )


@dataclass(frozen=True)
class _Grid:
    """Square patches at every pair of a row and a column to start at, row by row."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    side: int
    size: tuple[int, int]

    @property
    def patches(self) -> int:
        return len(self.rows) * len(self.columns)

    def spread(self, values: Tensor) -> Tensor:
        """Return (H, W), at each pixel the sum of the (patches,) values that cover it."""
        down, across = self._covers()
        grid = values.view(len(self.rows), len(self.columns))
        return down.T @ grid @ across

    def masks(self) -> Tensor:
        """Return (patches, H, W) float32, 0 under the patch and 1 elsewhere."""
        down, across = (covers.float() for covers in self._covers())
        return (1 - down[:, None, :, None] * across[None, :, None, :]).flatten(0, 1)

    def _covers(self) -> tuple[Tensor, Tensor]:
        """Return (rows, H) and (columns, W), 1 where a patch that starts there covers."""

        def covers(starts: Sequence[int], length: int) -> Tensor:
            first, pixel = torch.tensor(starts)[:, None], torch.arange(length)
            return ((first <= pixel) & (pixel < first + self.side)).double()

        return covers(self.rows, self.size[0]), covers(self.columns, self.size[1])


def _grid(patch: int, side: int, stride: int, size: tuple[int, int], *, is_flush: bool) -> _Grid:
    """Return a grid of patches that may be drawn larger than the side that sets their places.

    Args:
        patch: Side that the places are computed with, in pixels.
        side: Side that is drawn.
        stride: Distance between places.
        size: (height, width) of the image.
        is_flush: The last places are at the border; otherwise none is at or after L - patch.
    """

    def starts(length: int) -> tuple[int, ...]:
        regular = range(0, length - patch, stride)
        return (*regular, length - patch) if is_flush else tuple(regular)

    return _Grid(starts(size[0]), starts(size[1]), side, size)


@lru_cache(maxsize=2)
def _bank(grids: tuple[_Grid, ...]) -> MaskBank:
    """Return the clean image's mask, all ones, and then the patches of each grid."""
    clean = torch.ones((1, *grids[0].size))
    return bank_of(torch.cat([clean, *(grid.masks() for grid in grids)]))


def _blurred(maps: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur (N, H, W) by a Gaussian of 2 radius + 1 pixels a side; the border is reflected."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    framed = torch.nn.functional.pad(maps[:, None], (radius,) * 4, mode="reflect")[:, 0]
    side = 2 * radius + 1
    return (framed.unfold(1, side, 1) @ weights).unfold(2, side, 1) @ weights

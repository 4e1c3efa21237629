"""MinPlus and its relatives: Gaussian bumps removed from the probe or uncovered, one or many."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import (
    Embeddings,
    ExplainerTraits,
    FaceModel,
    Images,
    MaskBank,
    RowState,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.mask_banks import (
    NATIVE_HEIGHT,
    check_choice,
    check_counts,
    masked_embeddings,
    rows_by_image,
)
from fxeval.explainers.objectives import Targets, rounding_of, targets_of
from fxeval.explainers.occlusion import signed, similarities
from fxeval.functional.map_similarity import norm01
from fxeval.functional.masking import bank_of
from fxeval.hooks.returned import check_embeddings

CHUNK = 256  # masked images in memory at once
NOTHING_GAINED = "no bump changes the similarity in the direction sought"

MinPlusMap = Literal["minplus", "avg", "s0", "s1", "s0_minus", "s1_plus"]


@dataclass(frozen=True)
class MinPlus:
    """MinPlus: where greedy removal hurts the similarity most and greedy uncovering helps it most.

    ``G_c`` is a Gaussian bump of peak 1 at c, one of C centres; s is the model's native similarity
    of a masked probe and the reference (with a contrast: minus that to the contrast). Masked pixels
    are black.

    * ``s0``, removal: ``s(1) - s(1 - G_c)``, signed.
    * ``s1``, aggregation: ``s(G_c) - s(0)``, signed.
    * ``s0_minus``, greedy removal: from ``m = 1``, each round takes the c whose removal on top of
      all earlier ones, ``m (1 - G_c)``, lowers s most, and records the decrease at c. It stops when
      nothing lowers s, or after ``rounds``.
    * ``s1_plus``, greedy aggregation: the same from ``m = 0`` with ``max(m, G_c)``, recording
      increases.
    * ``minplus``: ``norm01(s0_minus + s1_plus)``. ``avg``: the mean of norm01 of the first four.

    ``s0`` and ``s1`` are upsampled bilinearly from the grid of centres. The change that a greedy
    round records is drawn as a bump of that height, so greedy maps are smooth and >= 0. A row whose
    greedy searches find nothing in the first round is degenerate.

    Forward passes per probe image: C + 1 for ``s0``, for ``s1`` and for the first round of a greedy
    search, shared by all pairs of the image and by all six maps; C more per pair for each
    further round. ``minplus`` and ``avg`` take at most 2 + 2 C rounds of them: 47 042 at the
    defaults (C = 784). 256 masked images are in memory at once.

    Pixels are for a crop 112 pixels high and scale with H / 112. The centres are those of
    round(112 / step) equal cells from top to bottom, and as densely across, but at most one a
    pixel.

    Attributes:
        map: Which of the six maps.
        sigma: Standard deviation of a bump, in pixels at H = 112.
        step: Distance between centres, in pixels at H = 112.
        rounds: Maximum number of rounds of a greedy search.

    Diagnostics:
        ``rounds_used``: rounds of both greedy searches that changed the similarity; not for ``s0``
        and ``s1``.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: minplus, params: {step: 14, rounds: 5}}

    Source:
        Mery and Morris, WACV 2022, and Mery, CVPRW 2022; reconstructed.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"black_box"},
        takes_centroids=True,
        takes_contrast=True,
        source="Mery & Morris, WACV 2022; Mery, CVPRW 2022 (reconstructed)",
    )

    map: MinPlusMap = "minplus"
    sigma: float = 10.0
    step: int = 4
    rounds: int = 30

    def __post_init__(self) -> None:
        check_choice("minplus", "map", self.map, get_args(MinPlusMap))
        check_counts("minplus", {"step": self.step, "rounds": self.rounds})
        is_number = isinstance(self.sigma, int | float) and not isinstance(self.sigma, bool)
        if not is_number or not 0 < self.sigma < math.inf:
            raise ExplainerContractError(
                f"minplus: sigma must be a finite number of pixels above 0, got {self.sigma!r}."
            )

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by bumps; nothing is drawn from the generator.

        Returns:
            SaliencyMaps, (N, H, W). ``s0`` and ``s1`` are signed: changes the other way are
            negative. ``minplus`` and ``avg`` are in [0, 1].

        Raises:
            ModelContractError: If the embeddings are not finite (n, D) tensors.
        """
        size = (probes.shape[2], probes.shape[3])
        targets = targets_of(model, references, contrast)
        rounding = rounding_of(model.similarity, targets)
        maps = torch.zeros((len(probes), *size), dtype=torch.float64)
        rounds_used = torch.zeros(len(probes))
        removes = {"s0": (True,), "s0_minus": (True,), "s1": (False,), "s1_plus": (False,)}
        banks = [
            _bumps(direction, float(self.sigma), self.step, size)
            for direction in removes.get(self.map, (True, False))
        ]
        with torch.no_grad():
            for rows in rows_by_image(probes):
                image = probes[rows[0]]
                clean = [masked_embeddings(model, image, bumps.bank) for bumps in banks]
                for row in rows:
                    pair = targets.rows(slice(row, row + 1))
                    searches = [
                        _Search(model, image, pair, bumps, first, float(rounding[row]))
                        for bumps, first in zip(banks, clean, strict=True)
                    ]
                    maps[row], rounds_used[row] = self._map(searches)
        return self._answer(maps, rounds_used, probes.device)

    def _map(self, searches: "list[_Search]") -> tuple[Tensor, int]:
        """Return a pair's (H, W) float64 map and the greedy rounds used."""
        if self.map in ("s0", "s1"):
            return searches[0].single(), 0
        drawn, used = zip(*(search.greedy(self.rounds) for search in searches), strict=True)
        if self.map == "avg":
            parts = [*drawn, *(search.single() for search in searches)]
            return norm01(torch.stack(parts))[0].mean(dim=0), sum(used)
        total = torch.stack(drawn).sum(dim=0)
        return norm01(total[None])[0][0] if self.map == "minplus" else total, sum(used)

    def _answer(self, maps: Tensor, rounds_used: Tensor, device: torch.device) -> SaliencyMaps:
        if self.map in ("s0", "s1"):
            return signed(maps, device)
        is_flat = (maps.flatten(1) == 0).all(dim=1).tolist()
        return SaliencyMaps(
            maps.to(device, torch.float32),
            None,
            tuple(RowState.DEGENERATE_MAP if flat else RowState.OK for flat in is_flat),
            tuple(NOTHING_GAINED if flat else "" for flat in is_flat),
            {"rounds_used": rounds_used},
        )


@dataclass(frozen=True, eq=False)
class _Bumps:
    """Bumps at a grid of centres, and what they do to a mask.

    Attributes:
        removes: True = bumps are removed from the image; False = they are uncovered.
        bank: The mask to start from, all ones or zeros, then that mask changed by each bump.
        down: (rows, H) float64 profiles of the bumps, peak 1.
        across: (columns, W) float64.
    """

    removes: bool
    bank: MaskBank
    down: Tensor
    across: Tensor

    def onto(self, mask: Tensor, bumps: slice) -> Tensor:
        """Return (n, H, W), an (H, W) mask changed further by some of the C bumps."""
        each = self.bank.masks[1:][bumps].to(mask.device)
        return mask * each if self.removes else torch.maximum(mask, each)


@dataclass(frozen=True, eq=False)
class _Search:
    """One pair's search among bumps.

    Attributes:
        model: The model.
        image: (3, H, W), the probe.
        targets: Of the pair.
        bumps: The bumps to try.
        first: (1 + C, D) embeddings of the probe under the bumps' bank.
        rounding: Gains up to this size count as none.
    """

    model: FaceModel
    image: Tensor
    targets: Targets
    bumps: _Bumps
    first: Embeddings
    rounding: float

    def single(self) -> Tensor:
        """Return (H, W) float64, the gain of each bump alone, bilinear between the centres."""
        values = similarities(self.model, self.first, self.targets)
        gains = self._gains(values[1:], values[0])
        if float(gains.abs().max()) <= self.rounding:
            gains = torch.zeros_like(gains)
        return F.interpolate(
            gains.view(1, 1, len(self.bumps.down), len(self.bumps.across)),
            size=self.image.shape[1:], mode="bilinear", align_corners=False,
        )[0, 0]  # fmt: skip

    def greedy(self, rounds: int) -> tuple[Tensor, int]:
        """Apply the best bump again and again; return the (H, W) float64 map and rounds used."""
        values = similarities(self.model, self.first, self.targets)
        current, values = values[0], values[1:]
        mask = self.bumps.bank.masks[0].to(self.image.device)
        recorded = torch.zeros_like(values)
        used = 0
        while used < rounds:
            if used:  # the first round's embeddings come with the bank
                values = similarities(self.model, self._embedded(mask), self.targets)
            gains = self._gains(values, current)
            best = int(gains.argmax())
            if gains[best] <= self.rounding:
                break
            recorded[best] += gains[best]
            current = values[best]
            mask = self.bumps.onto(mask, slice(best, best + 1))[0]
            used += 1
        grid = recorded.view(len(self.bumps.down), len(self.bumps.across))
        return self.bumps.down.T @ grid @ self.bumps.across, used

    def _gains(self, values: Tensor, current: Tensor) -> Tensor:
        return current - values if self.bumps.removes else values - current

    def _embedded(self, mask: Tensor) -> Embeddings:
        parts = []
        for start in range(0, len(self.first) - 1, CHUNK):
            masks = self.bumps.onto(mask, slice(start, start + CHUNK))
            images = self.image * masks[:, None]
            parts.append(check_embeddings(self.model.name, self.model.embed(images), len(images)))
        return torch.cat(parts).to(self.image.device)


@lru_cache(maxsize=2)  # both directions
def _bumps(removes: bool, sigma: float, step: int, size: tuple[int, int]) -> _Bumps:
    """Return bumps of sigma and step pixels at H = 112 for a crop of (height, width) pixels."""
    scale = size[0] / NATIVE_HEIGHT

    def profiles(length: int) -> Tensor:
        cells = min(length, max(1, math.floor(length / (step * scale) + 0.5)))
        centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * (length / cells) - 0.5
        away = torch.arange(length, dtype=torch.float64) - centres[:, None]
        return torch.exp(-(away**2) / (2 * (sigma * scale) ** 2))

    down, across = profiles(size[0]), profiles(size[1])
    bumps = (down.float()[:, None, :, None] * across.float()[None, :, None, :]).flatten(0, 1)
    start = torch.zeros((1, *size))
    masks = torch.cat([start, bumps])
    return _Bumps(removes, bank_of(1 - masks if removes else masks), down, across)

"""Noisy linear imputation, the fill of ROAD: removed pixels are interpolated from what is left.

Each removed pixel is the weighted mean of its eight neighbours, removed ones among them: a linear
system over the removed pixels of an image. It is solved for all images of a batch at once, on their
device, by conjugate gradients with a multigrid cycle as preconditioner. Every step is a sum or a
product pixel by pixel, and rows that have converged stand still, so that a row is the same bit for
bit in every batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fxeval.contracts import Images
from fxeval.errors import FillContractError
from fxeval.functional.fill_images import content_seed
from fxeval.seeding import generator_of

NOISE = 0.01
"""Standard deviation of the noise on removed pixels, on the scale of 0 to 1."""

RESIDUAL = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest difference of a removed pixel from the weighted mean of its neighbours, by type."""

CYCLES = 100
"""Cycles that are allowed; 6 to 11 are needed in float32, up to 20 in float64, at any size."""

AT_ONCE = 300_000
"""Values that are solved together on a CPU: more would leave its cache."""


class Road:
    """The fill of ROAD: linear imputation from the pixels that are left, with a little noise.

    A removed pixel is 1/6 of each of its four direct neighbours and 1/12 of each of its four
    diagonal ones, weights at the border of the image divided by their sum. To that comes normal
    noise of standard deviation ``NOISE``, drawn from the content of the image in 8 bits; the result
    is cut to [0, 1]. Where every pixel is removed, nothing is left to interpolate from, and each is
    the mean of the image per channel with the same noise.

    Source:
        Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods"
        (ROAD), the part "Noisy Linear Imputation".

    Example:
        >>> image = torch.linspace(0, 1, 5).expand(1, 3, 4, 5)
        >>> removed = torch.zeros(1, 4, 5, dtype=torch.bool)
        >>> removed[:, :, 1:4] = True
        >>> imputed(image, removed)[0, 0, 0]
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """

    def prepare(self, images: Images) -> Tensor:
        """Return the noise of each image, (N, 3, H, W), which is the same whatever is removed."""
        if not len(images):
            return images.clone()
        return torch.stack([_noise(image) for image in images])

    def apply(self, images: Images, prepared: Tensor, removed: Tensor) -> Images:
        """Return the images, (B, 3, H, W), with their removed pixels, (B, H, W), imputed."""
        filled = (imputed(images, removed) + prepared).clamp_(0.0, 1.0)
        return torch.where(removed[:, None], filled, images)


def imputed(images: Images, removed: Tensor) -> Images:
    """Replace removed pixels by the weighted means of their neighbours, without noise.

    Args:
        images: (B, C, H, W) floating, on any device.
        removed: (B, H, W) bool.

    Returns:
        (B, C, H, W), a new tensor of the images' dtype; kept pixels are as they were. Where every
        pixel of an image is removed, all are its mean per channel.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if images.ndim != 4 or removed.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"imputed: expected images (B, C, H, W) and removed pixels (B, H, W), got "
            f"{tuple(images.shape)} and {tuple(removed.shape)}."
        )
    found = images.clone()
    share = removed.flatten(1).sum(dim=1)
    everything = share == removed[0].numel() if len(removed) else share.bool()
    means = images[everything].mean((2, 3), keepdim=True, dtype=torch.float64)
    found[everything] = means.to(images.dtype).expand_as(images[everything])
    rows = ((share > 0) & ~everything).nonzero()[:, 0]
    at_once = len(rows)
    if images.device.type == "cpu":
        at_once = max(1, AT_ONCE // max(1, images[:1].numel()))
    for some in torch.split(rows, max(1, at_once)):
        found[some] = _solved(images[some], removed[some][:, None])
    return found


def _noise(image: Tensor) -> Tensor:
    """Return (3, H, W) noise that depends on the content of the image alone."""
    drawn = generator_of("road_noise", content_seed(image)).standard_normal(tuple(image.shape))
    return torch.from_numpy(drawn * NOISE).to(image.device, image.dtype)


@dataclass(frozen=True, eq=False)
class _Grid:
    """The system at one resolution, times 12: ``unknown * (centre * x - blurred(x))``.

    Attributes:
        unknown: (B, 1, h, w) floating, 1 where a pixel is removed.
        centre: (h, w), what a pixel itself counts.
        step: (B, 1, h, w), a step of Jacobi's method: 1 / diagonal where unknown, else 0.
    """

    unknown: Tensor
    centre: Tensor
    step: Tensor

    def times(self, x: Tensor) -> Tensor:
        """Return the product of the system's matrix with (B, C, h, w)."""
        return (self.centre * x).sub_(_blurred(x)).mul_(self.unknown)


def _solved(images: Images, removed: Tensor) -> Images:
    """Solve for images of which some pixels are removed, (B, 1, H, W), and some are not."""
    wide = images.to(torch.float64 if images.dtype == torch.float64 else torch.float32)
    grids = _grids(removed, wide.dtype)
    finest, tolerance = grids[0], 12.0 * RESIDUAL[wide.dtype]
    residual = _blurred(torch.where(removed, 0.0, wide)).mul_(finest.unknown)
    x, direction = torch.zeros_like(wide), torch.zeros_like(wide)
    before = wide.new_zeros(len(wide), 1, 1, 1)
    for _ in range(CYCLES):
        # A row that has converged stays as it is, whatever the others need.
        is_open = residual.abs().amax(dim=(1, 2, 3), keepdim=True) > tolerance
        if not bool(is_open.any()):
            return torch.where(removed, x, wide).to(images.dtype)
        z = _cycle(grids, residual)
        along = _dots(residual, z)
        direction = z.add_(direction.mul_(_quotient(along, before)))
        image = finest.times(direction)
        length = _quotient(along, _dots(direction, image)).mul_(is_open)
        x.add_(direction * length)
        residual.sub_(image.mul_(length))
        before = along
    raise FillContractError(f"fill 'road': expected a solution after {CYCLES} cycles, got none.")


def _grids(removed: Tensor, dtype: torch.dtype) -> list[_Grid]:
    """Return the system at each resolution, the image's own first, each half of the one before.

    A pixel of a coarser grid is unknown if all of the four that it stands for are. So each grid
    has a known pixel as long as the image has, down to a single one, and no system is singular.
    """
    grids: list[_Grid] = []
    unknown = removed
    while True:
        size = (unknown.shape[2], unknown.shape[3])
        centre = _centre(size).to(unknown.device, dtype)
        grids.append(_Grid(unknown.to(dtype), centre, unknown / (centre - 4.0)))
        if max(size) <= 2 or not bool(unknown.any()):
            return grids
        known = (~unknown).to(dtype)
        unknown = F.max_pool2d(known, 2, ceil_mode=True) == 0.0


def _cycle(grids: Sequence[_Grid], b: Tensor) -> Tensor:
    """Return about the solution of a system: one multigrid cycle from zero, symmetric in b."""
    grid = grids[0]
    x = grid.step * b
    if len(grids) == 1:
        return x
    # After that first step of Jacobi's method, b - centre * x is -4 * x.
    rest = _blurred(x).sub_(x, alpha=4.0).mul_(grid.unknown)
    coarse = _cycle(grids[1:], _restricted(rest).mul_(grids[1].unknown))
    x.add_(_prolonged(coarse, (int(b.shape[2]), int(b.shape[3]))).mul_(grid.unknown))
    # A second step, in which x - step * centre * x is -4 * step * x.
    return _blurred(x).sub_(x, alpha=4.0).add_(b).mul_(grid.step)


@lru_cache(maxsize=32)
def _centre(size: tuple[int, int]) -> Tensor:
    """Return 12 times the sum of the weights of a pixel's neighbours in the image, plus 4."""
    # 12 times the weights are (1, 2, 1) by (1, 2, 1), less the 4 of the pixel itself.
    return _blurred(torch.ones(1, 1, *size, dtype=torch.float64))[0, 0]


def _blurred(x: Tensor, *, border: str = "constant") -> Tensor:
    """Return sums over (1, 2, 1) by (1, 2, 1): two sums of two in each direction."""
    x = F.pad(x, (1, 1, 1, 1), mode=border)
    x = x[..., 1:] + x[..., :-1]
    x = x[..., 1:] + x[..., :-1]
    x = x[..., 1:, :] + x[..., :-1, :]
    return x[..., 1:, :] + x[..., :-1, :]


def _prolonged(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate (B, C, h, w) linearly to (B, C, 2 h, 2 w), cut to a size."""
    b, c, h, w = coarse.shape
    doubled = coarse[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)
    return _blurred(doubled, border="replicate")[..., : size[0], : size[1]].mul_(0.0625)


def _restricted(fine: Tensor) -> Tensor:
    """Return the transpose of :func:`_prolonged` applied to (B, C, h, w)."""
    if fine.shape[2] % 2 or fine.shape[3] % 2:
        fine = F.pad(fine, (0, fine.shape[3] % 2, 0, fine.shape[2] % 2))
    fine = _blurred(fine, border="replicate")
    fine = fine[..., 0::2, :] + fine[..., 1::2, :]
    return (fine[..., 0::2] + fine[..., 1::2]).mul_(0.0625)


def _quotient(one: Tensor, other: Tensor) -> Tensor:
    """Divide, with 0 where the divisor is: at the start, and in a row that is solved exactly."""
    return torch.where(other > 0.0, one / other, 0.0)


def _dots(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of each row, (B, 1, 1, 1), by halves: in one order for any batch."""
    terms = (one * other).flatten(1)
    while (n := terms.shape[1]) > 1:
        half = n // 2
        folded = terms[:, :half] + terms[:, half : 2 * half]
        terms = torch.cat([folded, terms[:, -1:]], dim=1) if n % 2 else folded
    return terms[:, :, None, None]

"""EdgeFace: EdgeNeXt, a convolutional network with attention between channels, for faces.

State-dict keys are those of ``timm`` 1.0.20 ``edgenext_*`` with 512 classes; published EdgeFace
files have ``model.`` in front of each.

Source:
    Maaz et al., "EdgeNeXt", ECCV workshops 2022; George et al., "EdgeFace", IEEE T-BIOM 2024.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

EDGEFACE_INPUT = Preprocessing()
"""RGB, (x - 127.5) / 127.5."""

_EMBEDDING = 512
_EPS = 1e-6
_EXPANSION = 4  # of channels inside a block
_FREQUENCIES = 16  # of the code of places, for each axis
_LONGEST = 10_000.0  # wave length of the code of places, relative to the shortest


@dataclass(frozen=True)
class _Stage:
    """Depth includes the one attention block at the end of stages 1 to 3."""

    width: int
    depth: int
    kernel: int
    parts: int = 0  # of the channels in the attention block; 0 = the stage has none
    has_places: bool = False


@dataclass(frozen=True)
class _Plan:
    """``rank``: share of the full rank that linear layers keep (gamma); None = all of it."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: int
    rank: float | None = None

    def stages(self) -> list[_Stage]:
        rows = zip(self.widths, self.depths, (3, 5, 7, 9), (0, 2, 3, 4), strict=True)
        return [_Stage(*row, has_places=index == 1) for index, row in enumerate(rows)]

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        if self.rank is None:
            return nn.Linear(inputs, outputs)
        rank = max(2, int(min(inputs, outputs) * self.rank))
        first = nn.Linear(inputs, rank, bias=False)
        return nn.Sequential(OrderedDict(linear1=first, linear2=nn.Linear(rank, outputs)))

    def mlp(self, width: int) -> nn.Sequential:
        wide = _EXPANSION * width
        return nn.Sequential(
            OrderedDict(fc1=self.linear(width, wide), act=nn.GELU(), fc2=self.linear(wide, width))
        )


_XX_SMALL = _Plan((24, 48, 88, 168), (2, 2, 6, 2), 4)
_X_SMALL = _Plan((32, 64, 100, 192), (3, 3, 9, 3), 4)
_X_SMALL_LOW = _Plan((32, 64, 100, 192), (3, 3, 9, 3), 4, 0.6)
_SMALL_LOW = _Plan((48, 96, 160, 304), (3, 3, 9, 3), 8, 0.5)
_BASE = _Plan((80, 160, 288, 584), (3, 3, 9, 3), 8)


def edgeface_xxs(preprocessing: Preprocessing = EDGEFACE_INPUT) -> "EdgeFace":
    """Return EdgeFace-XXS, 1.24 M parameters."""
    return EdgeFace(_XX_SMALL, preprocessing)


def edgeface_xs(preprocessing: Preprocessing = EDGEFACE_INPUT) -> "EdgeFace":
    """Return EdgeFace-XS, 2.24 M parameters."""
    return EdgeFace(_X_SMALL, preprocessing)


def edgeface_xs_gamma_06(preprocessing: Preprocessing = EDGEFACE_INPUT) -> "EdgeFace":
    """Return EdgeFace-XS (gamma 0.6), 1.77 M parameters."""
    return EdgeFace(_X_SMALL_LOW, preprocessing)


def edgeface_s_gamma_05(preprocessing: Preprocessing = EDGEFACE_INPUT) -> "EdgeFace":
    """Return EdgeFace-S (gamma 0.5), 3.65 M parameters."""
    return EdgeFace(_SMALL_LOW, preprocessing)


def edgeface_base(preprocessing: Preprocessing = EDGEFACE_INPUT) -> "EdgeFace":
    """Return EdgeFace-Base, 18.2 M parameters."""
    return EdgeFace(_BASE, preprocessing)


class EdgeFace(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 512), meant for the cosine; not normalised.

    Maps: ``stem`` and ``stages.0`` 28 x 28, ``stages.1`` 14 x 14, ``stages.2`` 7 x 7, ``stages.3``
    3 x 3.
    """

    def __init__(self, plan: _Plan, preprocessing: Preprocessing) -> None:
        super().__init__()
        first, last = plan.widths[0], plan.widths[-1]
        self.normalisation = InputNormalisation(preprocessing)
        self.stem = nn.Sequential(nn.Conv2d(3, first, 4, stride=4), ChannelNorm(first, _EPS))
        self.stages = nn.Sequential(
            *(
                Stage(plan, before, stage)
                for before, stage in zip((None, *plan.widths), plan.stages(), strict=False)
            )
        )
        self.head = nn.Sequential(
            OrderedDict(
                global_pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                norm=nn.LayerNorm(last, _EPS),
                fc=plan.linear(last, _EMBEDDING),
            )
        )

    def forward(self, images: Images) -> Embeddings:
        """Embed images."""
        x = self.stem(self.normalisation(images))
        embeddings: Embeddings = self.head(self.stages(x))
        return embeddings


class Stage(nn.Module):
    """Halves the map, but for the first stage, then blocks that keep its size."""

    def __init__(self, plan: _Plan, before: int | None, stage: _Stage) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if before is not None:
            self.downsample = nn.Sequential(
                ChannelNorm(before, _EPS), nn.Conv2d(before, stage.width, 2, stride=2)
            )
        blocks: list[nn.Module] = [
            ConvBlock(plan, stage) for _ in range(stage.depth - bool(stage.parts))
        ]
        if stage.parts:
            blocks.append(AttentionBlock(plan, stage))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, width, h / 2, w / 2), or keep the size."""
        y: Tensor = self.blocks(self.downsample(x))
        return y


class ConvBlock(nn.Module):
    """A shortcut, beside a convolution of each channel and a perceptron at each place."""

    def __init__(self, plan: _Plan, stage: _Stage) -> None:
        super().__init__()
        width, kernel = stage.width, stage.kernel
        self.conv_dw = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, _EPS)
        self.mlp = plan.mlp(width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        y = self.mlp(self.norm(_rows(self.conv_dw(x))))
        return x + _map(self.gamma * y, x)


class AttentionBlock(nn.Module):
    """Convolutions that see one another's channels, attention between channels, a perceptron.

    The channels are cut in equal parts, the last one smaller if need be. Each part but the last is
    convolved after the result of the one before it was added; the last stays as it is.
    """

    def __init__(self, plan: _Plan, stage: _Stage) -> None:
        super().__init__()
        width, part = stage.width, math.ceil(stage.width / stage.parts)
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, 3, padding=1, groups=part) for _ in range(stage.parts - 1)
        )
        self.pos_embd = PlaceCode(width) if stage.has_places else None
        self.norm_xca = nn.LayerNorm(width, _EPS)
        self.gamma_xca = nn.Parameter(torch.full((width,), 1e-6))
        self.xca = ChannelAttention(plan, width)
        self.norm = nn.LayerNorm(width, _EPS)
        self.mlp = plan.mlp(width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        *parts, last = x.chunk(len(self.convs) + 1, dim=1)
        seen = [self.convs[0](parts[0])]
        for conv, part in zip(self.convs[1:], parts[1:], strict=True):
            seen.append(conv(seen[-1] + part))
        y = torch.cat([*seen, last], dim=1)
        if self.pos_embd is not None:
            y = y + self.pos_embd(y)
        y = _rows(y)
        y = y + self.gamma_xca * self.xca(self.norm_xca(y))
        y = self.mlp(self.norm(y))
        return x + _map(self.gamma * y, x)


class ChannelAttention(nn.Module):
    """Attention between the channels of a head: their likeness is a cosine over all places."""

    def __init__(self, plan: _Plan, width: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(plan.heads, 1, 1))
        self.qkv = plan.linear(width, 3 * width)
        self.proj = plan.linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, places, C) to the same shape."""
        n, places, channels = x.shape
        heads = len(self.temperature)
        rows = self.qkv(x).reshape(n, places, 3, heads, channels // heads)
        query, key, value = rows.permute(2, 0, 3, 4, 1).unbind()  # (n, heads, channels, places)
        alike = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        mixed = (alike * self.temperature).softmax(dim=-1) @ value
        y: Tensor = self.proj(mixed.permute(0, 3, 1, 2).reshape(x.shape))
        return y


class PlaceCode(nn.Module):
    """Sines and cosines of a map's row and column, brought to its number of channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(4 * _FREQUENCIES, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (1, C, h, w) for a map (N, C, h, w)."""
        height, width = x.shape[2:]
        rows = self._waves(height)[:, :, None].expand(-1, -1, width)
        columns = self._waves(width)[:, None, :].expand(-1, height, -1)
        code: Tensor = self.token_projection(torch.cat([rows, columns])[None])
        return code

    def _waves(self, size: int) -> Tensor:
        """Return (2 * frequencies, size): one turn over all places at the highest frequency."""
        like = self.token_projection.weight
        place = torch.arange(1, size + 1, dtype=like.dtype, device=like.device)
        turn = 2 * math.pi * place / (size + _EPS)
        order = torch.arange(_FREQUENCIES, dtype=like.dtype, device=like.device) / _FREQUENCIES
        angle = turn[None, :] / _LONGEST ** order[:, None]
        return torch.stack([angle.sin(), angle.cos()], dim=1).flatten(0, 1)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (N, C, h, w), at each place."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; the shape stays."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """Return (N, h * w, C) of (N, C, h, w): of no shape that could be taken for a map."""
    return maps.flatten(2).transpose(1, 2)


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """Return (N, C, h, w), as ``like`` has it, of (N, h * w, C)."""
    return rows.transpose(1, 2).reshape(like.shape)

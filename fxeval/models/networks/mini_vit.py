"""A small vision transformer for rendered faces.

Pre-norm blocks as in ViT (Dosovitskiy et al., ICLR 2021), with register tokens beside the class
token (Darcet et al., "Vision Transformers Need Registers", ICLR 2024): the network can keep global
information in them rather than in tokens of places that hold little of the face. Places are made by
a few convolutions, because cutting the image into patches needs far more images to learn from
(Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images

_STEM, _SIDE = (24, 48, 72, 144), 7  # channels, each halving the image; places along a side
_WIDTH, _HIDDEN, _HEADS, _BLOCKS, _REGISTERS = 144, 320, 4, 6, 4
_SPREAD = 0.02  # standard deviation of weights at first


class MiniViT(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 128), meant for the cosine; 1.24 M parameters.

    Maps: ``stem`` 144 x 7 x 7. Tokens (N, 54, 144), a class token and 4 registers before the 7 x 7
    places, row by row: each of ``blocks``, their ``norm1``, ``attention``, ``norm2`` and ``mlp``,
    and ``norm``. The embedding depends on the class token alone, so that the last output on whose
    places it depends is that of ``blocks.5.norm1``.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = zip((3, *_STEM), _STEM, strict=False)
        self.stem = nn.Sequential(
            *(_halving(before, after) for before, after in widths), nn.Conv2d(_STEM[-1], _WIDTH, 1)
        )
        self.class_token = nn.Parameter(torch.zeros(_WIDTH))
        self.registers = nn.Parameter(torch.zeros(_REGISTERS, _WIDTH))
        self.places = nn.Parameter(torch.zeros(_SIDE * _SIDE, _WIDTH))
        self.blocks = nn.Sequential(*(Block(_WIDTH, _HIDDEN, _HEADS) for _ in range(_BLOCKS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Sequential(nn.Linear(_WIDTH, 128), nn.BatchNorm1d(128, affine=False))
        for parameter in (self.class_token, self.registers, self.places):
            nn.init.trunc_normal_(parameter, std=_SPREAD)
        for part in self.blocks.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=_SPREAD)
                nn.init.zeros_(part.bias)

    def forward(self, images: Images) -> Embeddings:
        """Embed images; the normalisation, (255·image - 127.5) / 127.5, is part of the network."""
        x = self.stem(images * 2 - 1).flatten(2).transpose(1, 2) + self.places
        front = torch.cat([self.class_token[None], self.registers])
        x = torch.cat([front.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        embeddings: Embeddings = self.head(self.norm(self.blocks(x))[:, 0])
        return embeddings


class Block(nn.Module):
    """Attention and a perceptron of each token, each added to its input, which is normed first."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Attention(nn.Module):
    """Each token takes a mixture of all tokens' values, in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (N, heads, T, width / heads)
        y: Tensor = self.projection(mixed.transpose(1, 2).reshape(n, tokens, width))
        return y


def _halving(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )

"""A small vision transformer for rendered faces.

Pre-norm blocks as in ViT (Dosovitskiy et al., ICLR 2021), with register tokens beside the class
token (Darcet et al., "Vision Transformers Need Registers", ICLR 2024): the network can keep global
information in them rather than in tokens of places that hold little of the face.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images

_PATCH, _SIDE = 14, 8  # pixels of a patch's side, patches along an image's side
_WIDTH, _HIDDEN, _HEADS, _BLOCKS, _REGISTERS = 144, 360, 4, 6, 4
_SPREAD = 0.02  # standard deviation of weights at first


class MiniViT(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 128), meant for the cosine; 1.24 M parameters.

    Maps: ``patch`` 144 x 8 x 8. Tokens (N, 69, 144), a class token and 4 registers before the 8 x 8
    places, row by row: each of ``blocks``, their ``norm1``, ``attention``, ``norm2`` and ``mlp``,
    and ``norm``. The embedding depends on the class token alone, so that the last output on whose
    places it depends is that of ``blocks.5.norm1``.

    Attributes:
        UNDECAYED: Names of parameters that are no weights, though of two dimensions: weight decay
            would only shorten them.
    """

    UNDECAYED: ClassVar[frozenset[str]] = frozenset({"registers", "places"})

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, _WIDTH, _PATCH, stride=_PATCH)
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
        x = self.patch(images * 2 - 1).flatten(2).transpose(1, 2) + self.places
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

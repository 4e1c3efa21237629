"""A small network for rendered faces whose similarity is a sum over patches of the image.

The image is cut into 8 x 8 patches of 14 x 14 pixels, and nothing that is computed of a patch sees
a pixel outside it. Each patch becomes a vector u_i of length 1, and the embedding puts them side by
side as sqrt(w_i) u_i, where the weights w_i are learned and add up to 1. So the embedding has
length 1, and the cosine of two faces is the sum over patches of w_i <u_i(probe), u_i(reference)>:
what a patch adds to it is known exactly, on any photograph (after RRFNet, Ozturk et al.,
arXiv:2510.10753, where the similarity of two faces is a sum of those of patches).
``fxeval.truth.patch_additive`` computes it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images

GRID = 8
"""Patches along each side of the image."""

PATCH = 14
"""Pixels along each side of a patch."""

_STEM, _WIDTH, _NECK = 32, 64, 32  # channels
_CELLS = 4  # places of the last maps along each side of a patch
_DIM = 16  # of the vector of a patch


class PatchConv(nn.Conv2d):
    """A convolution that is padded at the edges of each patch, so that it never looks across.

    Takes and returns maps of the whole image, whose sides the number of patches divides.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, before, 8 s, 8 s) to (N, after, 8 t, 8 t)."""
        found = super().forward(_cut(input))
        return _joined(found)


class PatchVectors(nn.Module):
    """Maps of patches to a vector of length 1 for each; a patch has linear weights of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        features = channels * _CELLS**2
        self.weight = nn.Parameter(torch.randn(GRID**2, features, _DIM) / math.sqrt(features))
        self.norm = nn.BatchNorm1d(GRID**2 * _DIM, affine=False)  # of every number by itself

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, 32, 32) to (N, 16, 8, 8)."""
        n, channels = x.shape[:2]
        cut = x.reshape(n, channels, GRID, _CELLS, GRID, _CELLS).permute(2, 4, 0, 1, 3, 5)
        found = torch.bmm(cut.reshape(GRID**2, n, -1), self.weight).permute(1, 2, 0)
        found = self.norm(found.reshape(n, -1).to(self.weight.dtype))
        return F.normalize(found.view(n, _DIM, GRID, GRID), dim=1)


class MiniPatch(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 1024) of length 1; 0.65 M parameters.

    Maps: ``stem`` 32 x 56 x 56, ``stage1`` and ``stage2`` 64 x 32 x 32, ``neck`` 32 x 32 x 32,
    which are 7 x 7 or 4 x 4 places of every patch; ``vectors`` 16 x 8 x 8, the u_i. In training
    mode, batch norms take the means of all patches of a batch; in evaluation mode they are
    constants, and a patch is by itself.

    Examples:
        >>> MiniPatch().eval()(torch.rand(2, 3, 112, 112)).norm(dim=1).allclose(torch.ones(2))
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, _STEM, stride=2)
        self.stage1 = _convolution(_STEM, _WIDTH, stride=2)
        self.places = nn.Parameter(torch.zeros(_WIDTH, GRID * _CELLS, GRID * _CELLS))
        self.stage2 = _convolution(_WIDTH, _WIDTH)
        self.neck = nn.Sequential(
            nn.Conv2d(_WIDTH, _NECK, 1, bias=False), nn.BatchNorm2d(_NECK), nn.ReLU()
        )
        self.vectors = PatchVectors(_NECK)
        self.importance = nn.Parameter(torch.zeros(GRID**2))

    def forward(self, images: Images) -> Embeddings:
        """Embed images; the normalisation, (255·image - 127.5) / 127.5, is part of the network."""
        x = self.stage1(self.stem(images * 2 - 1)) + self.places
        x = x + self.stage2(x)
        embeddings: Embeddings = self.vectors(self.neck(x)) * self.weights().sqrt()
        return embeddings.flatten(1)

    def weights(self) -> Tensor:
        """Return (8, 8) the weights w_i of the patches; positive, of sum 1."""
        return self.importance.softmax(0).view(GRID, GRID)


def _cut(x: Tensor) -> Tensor:
    """Return the patches of maps: (N, C, 8 s, 8 s) to (64 N, C, s, s)."""
    n, channels, height, width = x.shape
    # Channels last in memory: a patch is then a few long runs, which are quick to copy.
    rows = x.permute(0, 2, 3, 1).reshape(n, GRID, height // GRID, GRID, width // GRID, channels)
    each = rows.transpose(2, 3).reshape(-1, height // GRID, width // GRID, channels)
    return each.permute(0, 3, 1, 2)


def _joined(patches: Tensor) -> Tensor:
    """Undo :func:`_cut`: (64 N, C, t, t) to (N, C, 8 t, 8 t)."""
    _, channels, height, width = patches.shape
    each = patches.permute(0, 2, 3, 1).reshape(-1, GRID, GRID, height, width, channels)
    rows = each.transpose(2, 3).reshape(-1, GRID * height, GRID * width, channels)
    return rows.permute(0, 3, 1, 2)


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        PatchConv(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )

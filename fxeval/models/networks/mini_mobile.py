"""A small depth-wise network for rendered faces, built like MobileFaceNet.

Inverted residuals with ReLU6; the last maps are weighted by a depth-wise convolution of their own
size, so each place and channel has a weight (Chen et al., CCBR 2018, sec. 3.2). It has few channels
at 56 x 56, where depth-wise convolutions are slow to train on a CPU.
"""

import torch
from torch import nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.networks.mobilefacenet import GlobalConv, InvertedResidual, conv_bn_relu6

_STEM, _WIDE = 24, 320
_STAGES = ((48, 1, 3), (96, 3, 5), (128, 3, 3))
# Of each stage: width, expansion of the first block, which halves the map, and number of blocks.
_EXPANSION = 2  # of the other blocks


class MiniMobile(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 128), meant for the cosine; 0.51 M parameters.

    Maps: ``stem`` 24 x 56 x 56, ``stage1`` 48 x 28 x 28, ``stage2`` 96 x 14 x 14, ``stage3``
    128 x 7 x 7, ``neck`` 320 x 7 x 7.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu6(3, _STEM, 3, stride=2)
        widths = (_STEM, *(width for width, _, _ in _STAGES))
        self.stage1, self.stage2, self.stage3 = (
            _stage(before, *stage) for before, stage in zip(widths, _STAGES, strict=False)
        )
        self.neck = conv_bn_relu6(widths[-1], _WIDE, 1)
        self.head = nn.Sequential(
            GlobalConv(_WIDE, 7), nn.Flatten(), nn.Linear(_WIDE, 128), nn.BatchNorm1d(128)
        )

    def forward(self, images: Images) -> Embeddings:
        """Embed images; the normalisation, (255·image - 127.5) / 127.5, is part of the network."""
        # Channels last in memory: more images a second on a CPU, in batches.
        x = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        embeddings: Embeddings = self.head(self.neck(x))
        return embeddings


def _stage(before: int, after: int, expansion: int, blocks: int) -> nn.Sequential:
    first = InvertedResidual(before, after, expansion, 2)
    others = (InvertedResidual(after, after, _EXPANSION, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)

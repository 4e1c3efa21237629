"""The residual networks of AdaFace: IR-18, IR-50 and IR-101.

The published checkpoints are Lightning's: their entry ``state_dict`` holds the network under the
prefix ``model.`` and, under ``head.``, the margin loss, which no embedding needs.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

ADAFACE_INPUT = Preprocessing("BGR")
"""BGR, (x - 127.5) / 127.5."""

_WIDTHS = (64, 128, 256, 512)


class AdaFaceIR(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 512) of length 1, meant for the cosine.

    Maps: ``input_layer`` 64 x 112 x 112; the last block of each stage (``body.2``, ``.6``, ``.20``,
    ``.23`` in IR-50; ``body.2``, ``.15``, ``.45``, ``.48`` in IR-101) 64 x 56 x 56, 128 x 28 x 28,
    256 x 14 x 14 and 512 x 7 x 7. ``output_layer`` gives the embedding before it is normalised. The
    length that the original returns as well, a hint at image quality, is left out.

    Args:
        depths: Blocks in each of the four stages.
        preprocessing: How the network was trained to see pixels.

    Source:
        Kim et al., "AdaFace", CVPR 2022; ``mk-minchul/AdaFace``, ``net.py``.
    """

    def __init__(self, depths: tuple[int, int, int, int], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing)
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512, affine=False),
        )
        self.body = nn.Sequential(
            *(
                Block(after if index else before, after, 1 if index else 2)
                for before, after, depth in zip((64, *_WIDTHS), _WIDTHS, depths, strict=False)
                for index in range(depth)
            )
        )

    def forward(self, images: Images) -> Embeddings:
        """Embed images."""
        x = self.output_layer(self.body(self.input_layer(self.normalisation(images))))
        embeddings: Embeddings = F.normalize(x, dim=1)
        return embeddings


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, with no activation after the sum.

    The second convolution has the stride; a shortcut that keeps its width skips pixels.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, after, h / stride, w / stride)."""
        y: Tensor = self.shortcut_layer(x) + self.res_layer(x)
        return y


def adaface_ir18(preprocessing: Preprocessing = ADAFACE_INPUT) -> nn.Module:
    """Return IR-18 without trained weights; 24,020,352 parameters."""
    return AdaFaceIR((2, 2, 2, 2), preprocessing)


def adaface_ir50(preprocessing: Preprocessing = ADAFACE_INPUT) -> nn.Module:
    """Return IR-50 without trained weights; 43,585,600 parameters."""
    return AdaFaceIR((3, 4, 14, 3), preprocessing)


def adaface_ir101(preprocessing: Preprocessing = ADAFACE_INPUT) -> nn.Module:
    """Return IR-101 without trained weights; 65,150,912 parameters."""
    return AdaFaceIR((3, 13, 30, 3), preprocessing)

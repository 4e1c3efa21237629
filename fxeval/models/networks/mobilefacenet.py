"""MobileFaceNet with ReLU6 in inverted residuals, as trained by foamliu on MS-Celeb-1M.

Source:
    Chen et al., "MobileFaceNets", CCBR 2018, table 1; ``foamliu/MobileFaceNet`` (Apache-2.0).
"""

import torch
from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

MOBILEFACENET_INPUT = Preprocessing(
    "RGB",
    (0.485 * 255, 0.456 * 255, 0.406 * 255),
    (0.229 * 255, 0.224 * 255, 0.225 * 255),
)
"""RGB, mean and deviation of ImageNet."""

_STEM, _WIDE, _EMBEDDING = 64, 512, 128
_GROUPS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
# Of each group: expansion, width, blocks, stride of the first block.


def mobilefacenet_ms1m(preprocessing: Preprocessing = MOBILEFACENET_INPUT) -> "MobileFaceNet":
    """Return the network, 1.00 M parameters."""
    return MobileFaceNet(preprocessing)


class MobileFaceNet(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 128), meant for the cosine; not normalised.

    Maps: ``conv1`` and ``dw_conv`` 64 x 56 x 56, ``features.0-4`` 64 x 28 x 28, ``features.5-11``
    128 x 14 x 14, ``features.12-14`` 128 x 7 x 7, ``conv2`` 512 x 7 x 7.
    """

    def __init__(self, preprocessing: Preprocessing = MOBILEFACENET_INPUT) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing)
        self.conv1 = conv_bn_relu6(3, _STEM, 3, stride=2)
        self.dw_conv = SeparableConv(_STEM)
        blocks, before = [], _STEM
        for expansion, width, count, stride in _GROUPS:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(before, width, expansion, step))
                before = width
        self.features = nn.Sequential(*blocks)
        self.conv2 = conv_bn_relu6(before, _WIDE, 1)
        self.gdconv = GlobalConv(_WIDE, 7)
        self.conv3 = nn.Conv2d(_WIDE, _EMBEDDING, 1)
        self.bn = nn.BatchNorm2d(_EMBEDDING)

    def forward(self, images: Images) -> Embeddings:
        """Embed images."""
        # Channels last in memory: 1.4 times as many images a second on a CPU, in batches.
        x = self.normalisation(images).contiguous(memory_format=torch.channels_last)
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        embeddings: Embeddings = self.bn(self.conv3(self.gdconv(x))).flatten(1)
        return embeddings


class SeparableConv(nn.Module):
    """A 3 x 3 convolution of each channel by itself, then a mixture of channels at each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        x = self.relu1(self.bn1(self.depthwise(x)))
        y: Tensor = self.relu2(self.bn2(self.pointwise(x)))
        return y


class InvertedResidual(nn.Module):
    """Few channels to many and back, with no activation at the end; a shortcut where it fits."""

    def __init__(self, before: int, after: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = before * expansion
        self.conv = nn.Sequential(
            conv_bn_relu6(before, wide, 1),
            conv_bn_relu6(wide, wide, 3, stride=stride, groups=wide),
            nn.Conv2d(wide, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.has_shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, after, h / stride, w / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class GlobalConv(nn.Module):
    """A convolution of each channel by itself as large as the map: a weighted mean of places."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, side, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, side, side) to (N, C, 1, 1)."""
        y: Tensor = self.bn(self.depthwise(x))
        return y


def conv_bn_relu6(
    before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution that keeps the map's size but for its stride, batch norm and ReLU6."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU6(),
    )

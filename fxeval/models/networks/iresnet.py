"""The residual networks of ArcFace: IResNet-18, -34, -50 and -100 of insightface's arcface_torch.

State-dict keys are those of its ``backbone.pth`` (weights trained on MS1MV3, Glint360K and others).
"""

from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

ARCFACE_INPUT = Preprocessing()
"""RGB, (x - 127.5) / 127.5."""

_WIDTHS = (64, 128, 256, 512)


class IResNet(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 512) raw, meant for the cosine.

    Maps: ``prelu`` 64 x 112 x 112, ``layer1`` 64 x 56 x 56, ``layer2`` 128 x 28 x 28, ``layer3``
    256 x 14 x 14, ``layer4`` 512 x 7 x 7; the last one is flattened, not pooled.

    Args:
        depths: Blocks in each of the four stages.
        preprocessing: How the network was trained to see pixels.

    Source:
        Deng et al., "ArcFace", CVPR 2019, sec. 3.1; insightface,
        ``recognition/arcface_torch/backbones/iresnet.py``.
    """

    def __init__(self, depths: tuple[int, int, int, int], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing)
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(before, after, depth)
            for before, after, depth in zip((64, *_WIDTHS), _WIDTHS, depths, strict=False)
        )
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout(0.0)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512)
        self.features.weight.requires_grad_(False)  # stays 1, or the loss could scale a dimension

    def forward(self, images: Images) -> Embeddings:
        """Embed images."""
        x = self.prelu(self.bn1(self.conv1(self.normalisation(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embeddings: Embeddings = self.features(self.fc(self.dropout(self.bn2(x).flatten(1))))
        return embeddings


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, with no activation after the sum.

    The second convolution has the stride.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.prelu = nn.PReLU(after)
        self.conv2 = nn.Conv2d(after, after, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, after, h / stride, w / stride)."""
        y: Tensor = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return y + (x if self.downsample is None else self.downsample(x))


def iresnet18(preprocessing: Preprocessing = ARCFACE_INPUT) -> nn.Module:
    """Return IResNet-18 without trained weights; 24,025,600 parameters."""
    return IResNet((2, 2, 2, 2), preprocessing)


def iresnet34(preprocessing: Preprocessing = ARCFACE_INPUT) -> nn.Module:
    """Return IResNet-34 without trained weights; 34,139,328 parameters."""
    return IResNet((3, 4, 6, 3), preprocessing)


def iresnet50(preprocessing: Preprocessing = ARCFACE_INPUT) -> nn.Module:
    """Return IResNet-50 without trained weights; 43,590,848 parameters."""
    return IResNet((3, 4, 14, 3), preprocessing)


def iresnet100(preprocessing: Preprocessing = ARCFACE_INPUT) -> nn.Module:
    """Return IResNet-100 without trained weights; 65,156,160 parameters."""
    return IResNet((3, 13, 30, 3), preprocessing)


def _stage(before: int, after: int, depth: int) -> nn.Sequential:
    return nn.Sequential(
        Block(before, after, 2), *(Block(after, after, 1) for _ in range(depth - 1))
    )

"""The Inception-ResNet v1 of FaceNet, as facenet-pytorch has it, for VGGFace2 and CASIA-WebFace.

Weights: ``20180402-114759-vggface2.pt`` and ``20180408-102900-casia-webface.pt``, plain state
dicts. Their keys ``logits.*``, a classifier of 8,631 or 10,575 people, are no part of the network
here. The faces were cut out by a detector's box, not by landmarks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

FACENET_INPUT = Preprocessing(std=(128.0, 128.0, 128.0))
"""RGB, (x - 127.5) / 128."""


class InceptionResnetV1(nn.Module):
    """(N, 3, 160, 160) RGB in [0, 1] -> (N, 512) of length 1; 23,482,624 parameters.

    For the cosine and the Euclidean distance alike. Maps: ``conv2d_4b``, ``repeat_1``
    256 x 17 x 17, ``mixed_6a``, ``repeat_2`` 896 x 8 x 8, ``mixed_7a``, ``repeat_3``, ``block8``
    1792 x 3 x 3. ``last_bn`` gives the embedding before it is normalised.

    Args:
        preprocessing: How the network was trained to see pixels.

    Source:
        Szegedy et al., AAAI 2017, sec. 3; ``timesler/facenet-pytorch``,
        ``models/inception_resnet_v1.py``.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing)
        self.conv2d_1a = Convolution(3, 32, 3, stride=2)
        self.conv2d_2a = Convolution(32, 32, 3)
        self.conv2d_2b = Convolution(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = Convolution(64, 80, 1)
        self.conv2d_4a = Convolution(80, 192, 3)
        self.conv2d_4b = Convolution(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _mixed_6a()
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _mixed_7a()
        self.repeat_3 = nn.Sequential(*(_block8(0.2, rectifies=True) for _ in range(5)))
        self.block8 = _block8(1.0, rectifies=False)
        self.avgpool_1a = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.6)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=1e-3)

    def forward(self, images: Images) -> Embeddings:
        """Embed images."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(self.normalisation(images))))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        x = self.last_linear(self.dropout(self.avgpool_1a(x)).flatten(1))
        embeddings: Embeddings = F.normalize(self.last_bn(x), dim=1)
        return embeddings


class Convolution(nn.Module):
    """Convolution, batch norm (eps of TensorFlow) and ReLU."""

    def __init__(
        self, before: int, after: int, kernel: int | tuple[int, int], *,
        stride: int = 1, padding: int | tuple[int, int] = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, after, h', w')."""
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class Reduction(nn.Module):
    """Branches that halve a map, their channels joined: ``branch0``, ``branch1``, ..."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for index, branch in enumerate(branches):
            self.add_module(f"branch{index}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C', h', w')."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Residual(nn.Module):
    """Branches, joined, brought back to the input's width by ``conv2d``, scaled and added to it."""

    def __init__(
        self, width: int, joined: int, scale: float, *branches: nn.Module, rectifies: bool = True
    ) -> None:
        super().__init__()
        self.scale = scale
        self._branches = [f"branch{index}" for index in range(len(branches))]
        for name, branch in zip(self._branches, branches, strict=True):
            self.add_module(name, branch)
        self.conv2d = nn.Conv2d(joined, width, 1)
        self.relu = nn.ReLU() if rectifies else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to the same shape."""
        joined = torch.cat([self.get_submodule(name)(x) for name in self._branches], dim=1)
        y: Tensor = self.conv2d(joined) * self.scale + x
        return y if self.relu is None else self.relu(y)


def inception_resnet_v1(preprocessing: Preprocessing = FACENET_INPUT) -> nn.Module:
    """Return the network without trained weights and without a classifier."""
    return InceptionResnetV1(preprocessing)


def _block35() -> Residual:
    return Residual(
        256, 96, 0.17,
        Convolution(256, 32, 1),
        nn.Sequential(Convolution(256, 32, 1), Convolution(32, 32, 3, padding=1)),
        nn.Sequential(
            Convolution(256, 32, 1),
            Convolution(32, 32, 3, padding=1),
            Convolution(32, 32, 3, padding=1),
        ),
    )  # fmt: skip


def _block17() -> Residual:
    return Residual(
        896, 256, 0.1,
        Convolution(896, 128, 1),
        nn.Sequential(
            Convolution(896, 128, 1),
            Convolution(128, 128, (1, 7), padding=(0, 3)),
            Convolution(128, 128, (7, 1), padding=(3, 0)),
        ),
    )  # fmt: skip


def _block8(scale: float, *, rectifies: bool) -> Residual:
    return Residual(
        1792, 384, scale,
        Convolution(1792, 192, 1),
        nn.Sequential(
            Convolution(1792, 192, 1),
            Convolution(192, 192, (1, 3), padding=(0, 1)),
            Convolution(192, 192, (3, 1), padding=(1, 0)),
        ),
        rectifies=rectifies,
    )  # fmt: skip


def _mixed_6a() -> Reduction:
    return Reduction(
        Convolution(256, 384, 3, stride=2),
        nn.Sequential(
            Convolution(256, 192, 1),
            Convolution(192, 192, 3, padding=1),
            Convolution(192, 256, 3, stride=2),
        ),
        nn.MaxPool2d(3, stride=2),
    )


def _mixed_7a() -> Reduction:
    return Reduction(
        nn.Sequential(Convolution(896, 256, 1), Convolution(256, 384, 3, stride=2)),
        nn.Sequential(Convolution(896, 256, 1), Convolution(256, 256, 3, stride=2)),
        nn.Sequential(
            Convolution(896, 256, 1),
            Convolution(256, 256, 3, padding=1),
            Convolution(256, 256, 3, stride=2),
        ),
        nn.MaxPool2d(3, stride=2),
    )

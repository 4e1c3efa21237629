"""The small network of ArcFace: MobileFaceNet as insightface's arcface_torch has it ("mbf").

It is twice as wide as the MobileFaceNet of Chen et al. 2018, and its second convolution, meant to
be depth-wise, has 64 groups of two channels: published weights are of that shape.
"""

from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.networks.iresnet import ARCFACE_INPUT
from fxeval.models.preprocessing import InputNormalisation, Preprocessing


class ArcFaceMbf(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 512) raw, meant for the cosine; 2,059,520 parameters.

    Maps: ``layers.0``, ``.1`` 128 x 56 x 56, ``.2``, ``.3`` 128 x 28 x 28, ``.4``, ``.5``
    256 x 14 x 14, ``.6``, ``.7`` 256 x 7 x 7, ``conv_sep`` 512 x 7 x 7.

    Args:
        preprocessing: How the network was trained to see pixels.

    Source:
        insightface, ``recognition/arcface_torch/backbones/mobilefacenet.py``, ``get_mbf``.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing)
        self.layers = nn.ModuleList(
            [
                Convolution(3, 128, 3, stride=2),
                Convolution(128, 128, 3, groups=64),
                Bottleneck(128, 128, 128, stride=2),
                Residuals(128, 128, 4),
                Bottleneck(128, 256, 256, stride=2),
                Residuals(256, 256, 6),
                Bottleneck(256, 512, 256, stride=2),
                Residuals(256, 256, 2),
            ]
        )
        self.conv_sep = Convolution(256, 512, 1)
        self.features = Head()

    def forward(self, images: Images) -> Embeddings:
        """Embed images."""
        x = self.normalisation(images)
        for layer in self.layers:
            x = layer(x)
        embeddings: Embeddings = self.features(self.conv_sep(x))
        return embeddings


class _Layers(nn.Module):
    """Modules in a row under the name ``layers``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply them in turn."""
        y: Tensor = self.layers(x)
        return y


class Convolution(_Layers):
    """A convolution that keeps the map's size but for its stride, batch norm and PReLU."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(
                before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
        )


class Projection(_Layers):
    """A convolution without padding and batch norm."""

    def __init__(self, before: int, after: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, kernel, groups=groups, bias=False), nn.BatchNorm2d(after)
        )


class Bottleneck(_Layers):
    """Expansion to ``inner`` channels, a depth-wise 3 x 3 convolution, and a projection."""

    def __init__(self, before: int, inner: int, after: int, *, stride: int = 1) -> None:
        super().__init__(
            Convolution(before, inner, 1),
            Convolution(inner, inner, 3, stride=stride, groups=inner),
            Projection(inner, after, 1),
        )


class Residual(Bottleneck):
    """A bottleneck and its input, added."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        return x + super().forward(x)


class Residuals(_Layers):
    """Several residual bottlenecks of one width."""

    def __init__(self, width: int, inner: int, depth: int) -> None:
        super().__init__(*(Residual(width, inner, width) for _ in range(depth)))


class Head(_Layers):
    """A weight for each place and channel in place of the mean, a linear layer and batch norm."""

    def __init__(self) -> None:
        super().__init__(
            Projection(512, 512, 7, groups=512),
            nn.Flatten(),
            nn.Linear(512, 512, bias=False),
            nn.BatchNorm1d(512),
        )


def arcface_mbf(preprocessing: Preprocessing = ARCFACE_INPUT) -> nn.Module:
    """Return the network without trained weights."""
    return ArcFaceMbf(preprocessing)

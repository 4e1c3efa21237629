"""A small residual network for rendered faces, built like the networks of ArcFace.

Blocks as in insightface's ``IResNet``: batch norm before the first convolution, PReLU between the
two, nothing after the sum; the last maps are flattened, not pooled, so each place has weights of
its own (Deng et al., CVPR 2019, sec. 3.1).
"""

from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images

_STAGES = ((24, 1, 1), (48, 2, 2), (96, 2, 2), (128, 2, 2))  # width, stride, blocks
_STEM_WIDTH, _NECK_WIDTH = 16, 64


class MiniResNet(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 128), meant for the cosine; 1.36 M parameters.

    Maps: ``stem`` 16 x 56 x 56, ``stage1`` 24 x 56 x 56, ``stage2`` 48 x 28 x 28, ``stage3``
    96 x 14 x 14, ``stage4`` 128 x 7 x 7.

    Args:
        dimensions: D, the size of an embedding.
    """

    def __init__(self, dimensions: int = 128) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, _STEM_WIDTH, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(_STEM_WIDTH),
            nn.PReLU(_STEM_WIDTH),
        )
        widths = (_STEM_WIDTH, *(width for width, _, _ in _STAGES))
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            _stage(before, *stage) for before, stage in zip(widths, _STAGES, strict=False)
        )
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Conv2d(widths[-1], _NECK_WIDTH, 1, bias=False),
            nn.Flatten(),
            nn.Linear(_NECK_WIDTH * 7 * 7, dimensions),
            nn.BatchNorm1d(dimensions),
        )

    def forward(self, images: Images) -> Embeddings:
        """Embed images; the normalisation, (255·image - 127.5) / 127.5, is part of the network."""
        x = self.stem(images * 2 - 1)
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        embeddings: Embeddings = self.head(x)
        return embeddings


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, with no activation after the sum."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, after, h / stride, w / stride)."""
        y: Tensor = self.residual(x) + self.shortcut(x)
        return y


def _stage(before: int, after: int, stride: int, blocks: int) -> nn.Sequential:
    first = Block(before, after, stride)
    return nn.Sequential(first, *(Block(after, after, 1) for _ in range(blocks - 1)))

"""A small inception-residual network for rendered faces, built like that of FaceNet.

Blocks of parallel branches beside a shortcut, with ReLU after the sum (Szegedy et al., AAAI 2017,
sec. 3); the last maps are averaged over all places, so each place has the same weights.
"""

from torch import nn

from fxeval.contracts import Embeddings, Images
from fxeval.models.networks.inception_resnet import Convolution, Reduction, Residual

_SCALE = 0.5  # of the branches before the sum
_DROPOUT = 0.2


class MiniInception(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 128), meant for the cosine; 0.82 M parameters.

    Maps: ``stem.0-1`` 16 and 32 x 56 x 56, ``stem`` 64 x 28 x 28, ``stage1`` 64 x 28 x 28,
    ``stage2`` 192 x 14 x 14, ``stage3`` 288 x 7 x 7.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Convolution(3, 16, 3, stride=2, padding=1),
            Convolution(16, 32, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            Convolution(32, 64, 3, padding=1),
        )
        self.stage1 = nn.Sequential(*(_block_a(64, 16) for _ in range(3)))
        self.reduction1 = _halving(64, 128)
        self.stage2 = nn.Sequential(*(_cross(192, 48, 7) for _ in range(4)))
        self.reduction2 = _halving(192, 96)
        self.stage3 = nn.Sequential(*(_cross(288, 64, 3) for _ in range(2)))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(_DROPOUT),
            nn.Linear(288, 128, bias=False),
            nn.BatchNorm1d(128),
        )

    def forward(self, images: Images) -> Embeddings:
        """Embed images; the normalisation, (255·image - 127.5) / 127.5, is part of the network."""
        x = self.stage1(self.stem(images * 2 - 1))
        x = self.stage2(self.reduction1(x))
        x = self.stage3(self.reduction2(x))
        embeddings: Embeddings = self.head(x)
        return embeddings


def _halving(before: int, added: int) -> Reduction:
    """Return a convolution beside a pool; no branch has maps of the size of the stage before."""
    return Reduction(
        Convolution(before, added, 3, stride=2, padding=1), nn.MaxPool2d(3, stride=2, padding=1)
    )


def _block_a(width: int, branch: int) -> Residual:
    """Return a block whose branches see 1 x 1, 3 x 3 and 5 x 5 places."""
    return Residual(
        width, 3 * branch, _SCALE,
        Convolution(width, branch, 1),
        nn.Sequential(Convolution(width, branch, 1), Convolution(branch, branch, 3, padding=1)),
        nn.Sequential(
            Convolution(width, branch, 1),
            Convolution(branch, branch, 3, padding=1),
            Convolution(branch, branch, 3, padding=1),
        ),
    )  # fmt: skip


def _cross(width: int, branch: int, side: int) -> Residual:
    """Return a block whose branches see 1 x 1 and, by a row and a column, side x side places."""
    return Residual(
        width, 2 * branch, _SCALE,
        Convolution(width, branch, 1),
        nn.Sequential(
            Convolution(width, branch, 1),
            Convolution(branch, branch, (1, side), padding=(0, side // 2)),
            Convolution(branch, branch, (side, 1), padding=(side // 2, 0)),
        ),
    )  # fmt: skip

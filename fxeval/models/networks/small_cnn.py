"""A small convolutional network for crops of any size, fast enough to be trained within a check.

No normalisation looks at other images (Wu & He, "Group normalization", ECCV 2018), so that an
embedding does not depend on its batch, in training or afterwards.
"""

from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images

EMBEDDING = 64
"""Size of an embedding."""

_STAGES = {"stem": 16, "stage1": 32, "stage2": 64, "stage3": 96, "stage4": 96}  # width
_GROUPS, _NECK, _SHORTEST = 8, 16, 7


class SmallCNN(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, 64), meant for the cosine; 0.13 M parameters at 112 x 112.

    ``stem`` and ``stage1`` to ``stage4`` each halve the map, as long as its shorter side keeps 7
    cells: 112 x 112 pixels have a stem and three stages, smaller crops fewer. The last map is
    flattened, so each place has weights of its own.

    >>> sum(one.numel() for one in SmallCNN((112, 112)).parameters())
    130976

    Args:
        size: (H, W) of the images.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        before, (height, width) = 3, size
        stages: dict[str, nn.Module] = {}
        for name, after in _STAGES.items():
            if stages and min(height, width) < 2 * _SHORTEST:
                break
            stages[name] = _halving(before, after)
            before, height, width = after, (height + 1) // 2, (width + 1) // 2
        for name, stage in stages.items():
            self.add_module(name, stage)
        self._names = tuple(stages)
        self.head = nn.Sequential(
            nn.Conv2d(before, _NECK, 1),
            nn.Flatten(),
            nn.Linear(_NECK * height * width, EMBEDDING),
        )

    def forward(self, images: Images) -> Embeddings:
        """Embed images; the normalisation, 2 * image - 1, is part of the network."""
        x: Tensor = images * 2 - 1
        for name in self._names:
            x = self.get_submodule(name)(x)
        embeddings: Embeddings = self.head(x)
        return embeddings


def _halving(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(_GROUPS, after),
        nn.ReLU(),
    )

"""Small subjects whose right answers are known, shared by tests."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import Crop, Pairs

CROP = Crop("tiny", (16, 16), ((5.0, 6.0), (10.0, 6.0), (8.0, 9.0), (6.0, 12.0), (10.0, 12.0)))


@dataclass(eq=False)
class CountingModel:
    """A face model made of any module; counts images and remembers batch sizes."""

    module: nn.Module | None
    name: str = "counting"
    crop: Crop = CROP
    similarity: str = "cosine"
    operating_threshold: float | None = 0.5
    digest: str = "d" * 64
    batches: list[int] = field(default_factory=list)
    limit: int | None = None

    def embed(self, images: Tensor) -> Tensor:
        if self.limit is not None and len(images) > self.limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        self.batches.append(len(images))
        with torch.inference_mode():
            return self.module.eval()(images)


class Patches(nn.Module):
    """An additive model: the embedding is a fixed sum over the pixels' brightness."""

    def __init__(self, size: tuple[int, int] = (16, 16), dim: int = 8, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        n = size[0] * size[1]
        self.register_buffer("weight", torch.rand(n, dim, generator=generator) / n)

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=1).flatten(1) @ self.weight


class ConvNet(nn.Module):
    """A small convolutional network with batch norm, seeded."""

    def __init__(self, seed: int = 0, dim: int = 8, side: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.prelu = nn.PReLU(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.fc = nn.Linear(8 * (side // 2) ** 2, dim)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.prelu(self.bn1(self.conv1(images * 2 - 1)))
        return self.fc(self.conv2(hidden).flatten(1))


def make_pairs(
    n: int = 6, *, crop: Crop = CROP, seed: int = 0, shared_probe: bool = False
) -> Pairs:
    """Mated pairs of random images, every pair another identity; reference i is image n + i."""
    generator = np.random.default_rng(seed)
    images = torch.from_numpy(
        generator.integers(0, 256, (2 * n, 3, *crop.size), dtype=np.uint8, endpoint=False)
    )
    identity = torch.arange(n)
    probe = torch.zeros(n, dtype=torch.int64) if shared_probe else torch.arange(n)
    return Pairs(
        name="random",
        images=images,
        image_digests=tuple(
            hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images
        ),
        probe=probe,
        reference=torch.arange(n, 2 * n),
        is_mated=torch.ones(n, dtype=torch.bool),
        probe_identity=identity,
        reference_identity=identity,
    )

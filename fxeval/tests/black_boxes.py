"""Face models without a module, and slow references that treat them image by image."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import Crop

SIZE = (14, 12)
CROP = Crop("tiny", SIZE, ())


def pcg(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@dataclass(eq=False)
class BlackBox:
    """A face model without a module; notes how many images each forward pass has."""

    function: object
    similarity: str = "cosine"
    name: str = "box"
    crop: Crop = CROP
    operating_threshold: float | None = None
    digest: str = "0"
    module: nn.Module | None = None
    passes: list[int] = field(default_factory=list)

    def embed(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return self.function(images)


def random_projection(size: tuple[int, int] = SIZE, dimensions: int = 6):
    weights = torch.randn(
        (3 * size[0] * size[1], dimensions), generator=torch.Generator().manual_seed(7)
    )
    return lambda images: torch.tanh((images.flatten(1) - 0.4) @ weights / 10)


def images(n: int, seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def slow_similarity(kind: str, one: np.ndarray, two: np.ndarray) -> float:
    if kind == "cosine":
        return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))
    return -float(np.linalg.norm(one - two))


def slow_scores(model: BlackBox, bank: np.ndarray, probe, reference, contrast) -> list[float]:
    """The similarity behind each mask, one image at a time."""

    def f(image: Tensor) -> np.ndarray:
        return model.function(image[None].float())[0].double().numpy()

    scores = []
    for mask in bank:
        masked = f(probe * torch.from_numpy(mask))
        score = slow_similarity(model.similarity, masked, f(reference))
        if contrast is not None:
            score -= slow_similarity(model.similarity, masked, f(contrast))
        scores.append(score)
    return scores


def planted(truth: Tensor, kind: str = "cosine") -> BlackBox:
    """The embedding is a sum over cells: light times importance along one axis, plus a constant.

    Seen against an all-white reference, a cell's light is worth its importance, exactly.
    """
    constant = 3 * truth.abs().sum()

    def embed(batch: Tensor) -> Tensor:
        light = nn.functional.adaptive_avg_pool2d(batch.mean(1), truth.shape)
        evidence = (light * truth).sum((1, 2))
        return torch.stack([evidence, constant.expand(len(batch))], 1)

    return BlackBox(embed, kind)

"""Face models without a module, and slow references that treat them image by image."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import Crop
from fxeval.tests.rounding import condition_of
from fxeval.tests.subjects import CountingModel

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


class Projection(nn.Module):
    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights, requires_grad=False)  # a row for each dimension

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh((images.flatten(1) - 0.4) @ self.weights.T / 10)


def random_projection(size: tuple[int, int] = SIZE, dimensions: int = 6) -> Projection:
    weights = torch.randn(
        (3 * size[0] * size[1], dimensions), generator=torch.Generator().manual_seed(7)
    )
    return Projection(weights.T.contiguous())


class InFloat64(nn.Module):
    """A network that computes in float64: float32 embeddings made of its own are rounded once."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = deepcopy(net).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.double())


def images(n: int, seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def slow_similarity(kind: str, one: np.ndarray, two: np.ndarray) -> float:
    if kind == "cosine":
        return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))
    return -float(np.linalg.norm(one - two))


def slow_scores(model: BlackBox, bank: np.ndarray, probe, reference, contrast) -> list[float]:
    """The similarity behind each mask, one image at a time and in float64."""
    exact = deepcopy(model.function).double()

    def f(image: Tensor) -> np.ndarray:
        return exact(image[None].double())[0].numpy()

    scores = []
    for mask in bank:
        masked = f(probe.double() * torch.from_numpy(mask).double())
        score = slow_similarity(model.similarity, masked, f(reference))
        if contrast is not None:
            score -= slow_similarity(model.similarity, masked, f(contrast))
        scores.append(score)
    return scores


class Shakeable(InFloat64):
    """A network whose embeddings can be shaken each on its own, as rounding does.

    Shaken weights alone would move the similarities alike whose differences make a map.
    """

    def __init__(self, net: nn.Module, image: Tensor, most: int = 5000) -> None:
        super().__init__(net)
        with torch.no_grad():
            ones = torch.ones_like(self.net.eval()(image[None].double())).expand(most, -1)
        self.each, self.used = nn.Parameter(ones.clone(), requires_grad=False), 0

    def forward(self, images: Tensor) -> Tensor:
        found = super().forward(images)
        self.used += len(found)
        return found * self.each[self.used - len(found) : self.used]


def with_condition(
    model: BlackBox | CountingModel, slow: Callable, *images: Tensor, draws: int = 5
) -> dict[str, object]:
    """``slow(model, *images)`` in float64, and its condition: arguments of ``assert_rounded``.

    ``slow`` copies the model's network and embeds with the copy.
    """
    net = "function" if isinstance(model, BlackBox) else "module"
    exact = Shakeable(getattr(model, net), images[0])
    compute = partial(slow, replace(model, **{net: exact}))
    condition = condition_of(compute, *images, module=exact, draws=draws)
    return {"expected": compute(*(one.double() for one in images)), "condition": condition}


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

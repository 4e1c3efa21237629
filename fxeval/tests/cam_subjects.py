"""A small network with everything that is difficult for CAMs, and references for its maps."""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import Crop
from fxeval.explainers.activation_maps import ActivationMaps
from fxeval.explainers.grad_cam import GradCAM

SIZE = (12, 10)
CROP = Crop("tiny", SIZE, ())
RNG = np.random.default_rng(0)


@dataclass(eq=False)
class FaceNet:
    """A face model of the tests; counts the images it embeds."""

    module: nn.Module | None
    similarity: str = "cosine"
    name: str = "tiny"
    crop: Crop = CROP
    operating_threshold: float | None = None
    digest: str = "0"
    forwards: int = 0

    def embed(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        with torch.inference_mode():
            return self.module(images)


class Net(nn.Module):
    """conv - BN - PReLU - conv - ReLU in place - linear, seeded, with BN statistics."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.PReLU(4)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2)  # (5, 5, 4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(5 * 5 * 4, 6)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            self.bn.running_mean.copy_(0.2 * torch.randn(4, generator=generator))
            self.bn.running_var.copy_(0.5 + torch.rand(4, generator=generator))
            self.fc.weight.mul_(scale), self.fc.bias.mul_(scale)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.conv2(self.before(images)))

    def before(self, images: Tensor) -> Tensor:
        return self.act(self.bn(self.conv1(images)))

    def after(self, activations: Tensor) -> Tensor:
        return self.fc(self.drop(self.relu(activations)).flatten(1))


def images(n: int, seed: int) -> Tensor:
    return torch.rand((n, 3, *SIZE), generator=torch.Generator().manual_seed(seed))


def explain(
    model, probes, references, *, layer="conv2", contrast=None,
    by: type[ActivationMaps] = GradCAM, **parameters,
):  # fmt: skip
    explainer = by(layer, **parameters)
    return explainer.explain(model, probes, references, contrast=contrast, generator=RNG)


def cosine(e: Tensor, r: Tensor) -> Tensor:
    return e @ r / (e.norm() * r.norm())


def neg_l2(e: Tensor, r: Tensor) -> Tensor:
    return -((e - r) ** 2).sum()


def upsampled(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres, one pixel at a time."""
    (h, w), (H, W) = coarse.shape, size
    fine = np.zeros(size)
    for i in range(H):
        for j in range(W):
            y = min(max((i + 0.5) * h / H - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / W - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            low, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = y - top, x - left
            fine[i, j] = (1 - a) * ((1 - b) * coarse[top, left] + b * coarse[top, right]) + a * (
                (1 - b) * coarse[low, left] + b * coarse[low, right]
            )
    return fine


def exact(net: nn.Module) -> nn.Module:
    """The same network in float64, to compute references with; images may stay in float32."""
    net = deepcopy(net).double()
    net.register_forward_pre_hook(lambda _module, given: (given[0].double(),))
    return net


def exact_model(model):
    """The same face model in float64: what an explainer makes of it is rounded at its ends alone.

    These ends are the embeddings of references, and the maps.
    """
    return replace(model, module=exact(model.module))


def embedded(net: nn.Module, image: Tensor) -> Tensor:
    """One embedding, in the network's own precision."""
    with torch.no_grad():
        return net(image[None].to(next(net.parameters()).dtype))[0]


def norm01(map_: np.ndarray | Tensor) -> np.ndarray:
    map_ = np.asarray(map_, dtype=np.float64)
    assert map_.max() > map_.min()
    return (map_ - map_.min()) / (map_.max() - map_.min())

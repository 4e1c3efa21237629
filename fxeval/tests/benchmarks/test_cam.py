"""Grad-CAM, Grad-CAM++ and LayerCAM against pytorch-grad-cam on the same pairs and layer.

    python -m pytest fxeval/tests/benchmarks/test_cam.py -m slow --benchmark-enable \
        --benchmark-json=FILE

Networks: the dlib model (``fxeval[dlib]``, layer blocks[12]) and an IResNet-50-shaped one with
random weights (layer4). Work: embed N references and make N maps of the cosine, N = 1 and 16; the
peer gets all N images in one batch, too, and one target per image. In every round each contestant
runs once, in turn. The figures to read are in ``extra_info`` of FILE: medians of peer / fxeval over
the rounds, and how many images each sends forward and backward. Of a busy machine believe ratios.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import Crop, FaceModel
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.metering import metered
from fxeval.explainers.grad_cam import GradCAM, GradCAMpp, LayerCAM
from fxeval.models.loading import TorchFaceModel
from fxeval.tests.peers import pytorch_grad_cam

ROUNDS = 5
DISASTER = 3.0  # fxeval / peer that even a busy machine does not excuse
OURS = {"GradCAM": GradCAM, "GradCAMPlusPlus": GradCAMpp, "LayerCAM": LayerCAM}


class Block(nn.Module):
    """A block of insightface's IResNet: no activation after the sum."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.prelu = nn.PReLU(after)
        self.conv2 = nn.Conv2d(after, after, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            convolution = nn.Conv2d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + self.downsample(x)


class IResNet50Shaped(nn.Module):
    """3-4-14-3 blocks of 64, 128, 256, 512 channels at 56, 28, 14, 7 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        before = 64
        for number, (blocks, width) in enumerate(((3, 64), (4, 128), (14, 256), (3, 512)), 1):
            parts = [Block(before, width, 2), *(Block(width, width, 1) for _ in range(blocks - 1))]
            setattr(self, f"layer{number}", nn.Sequential(*parts))
            before = width
        self.head = nn.Sequential(
            nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(25088, 512), nn.BatchNorm1d(512)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images * 2 - 1)
        return self.head(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


def iresnet() -> tuple[FaceModel, str]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = IResNet50Shaped().eval()
    crop = Crop("arcface112", (112, 112), ())
    return TorchFaceModel("iresnet50-shaped", crop, network, "cosine", None, "0" * 64), "layer4"


def dlib() -> tuple[FaceModel, str]:
    pytest.importorskip("face_recognition_models", reason="needs fxeval[dlib]")
    from fxeval.models.networks.dlib_resnet import load_dlib_resnet

    return load_dlib_resnet(), "blocks.12"


class Work:
    """N pairs of random images, and two ways to their maps."""

    def __init__(self, model: FaceModel, layer: str, n: int) -> None:
        generator = torch.Generator().manual_seed(1)
        size = (n, 3, *model.crop.size)
        self.model, self.layer, self.n = model, layer, n
        self.probes = torch.rand(size, generator=generator)
        self.references = torch.rand(size, generator=generator)

    def fxeval(self, name: str) -> np.ndarray:
        explainer = OURS[name](layer=self.layer, objective="cos")
        found = explainer.explain(
            self.model, self.probes, self.references, generator=np.random.default_rng(0)
        )
        return found.positive.numpy()

    def peer(self, name: str, library: object) -> np.ndarray:
        """As its documentation has it: one object, one call for the batch."""
        network = self.model.module
        references = self.model.embed(self.references)
        targets = [
            lambda output, reference=reference: torch.cosine_similarity(output, reference, dim=0)
            for reference in references
        ]
        cam = getattr(library, name)(
            model=network, target_layers=[network.get_submodule(self.layer)]
        )
        try:
            return cam(input_tensor=self.probes, targets=targets)
        finally:
            cam.activations_and_grads.release()
            network.zero_grad(set_to_none=True)


def counted(run: Callable[[], object], work: Work) -> dict[str, float]:
    """Images forward and backward, per map."""
    pool = ForwardPool()
    assert not isinstance(work.model, PooledModel)
    with metered(work.model.module, pool) as cost:
        run()
    return {
        "forwards_per_map": cost.forwards / work.n, "backwards_per_map": cost.backwards / work.n
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("network", [dlib, iresnet], ids=["dlib", "iresnet50"])
def test_cam(benchmark, monkeypatch, network, name, n):
    library = pytorch_grad_cam(monkeypatch)
    model, layer = network()
    work = Work(model, layer, n)
    ours, theirs = work.fxeval(name), work.peer(name, library)
    wall: list[float] = []
    peer_wall: list[float] = []

    def timed(run: Callable[[], object], walls: list[float]) -> None:
        start = time.perf_counter()
        run()
        walls.append(time.perf_counter() - start)

    benchmark.pedantic(
        lambda: timed(lambda: work.fxeval(name), wall),
        setup=lambda: timed(lambda: work.peer(name, library), peer_wall),
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    ratios = np.array(peer_wall[1:]) / np.array(wall[1:])
    benchmark.extra_info.update(
        {
            "peer_to_fxeval": round(float(np.median(ratios)), 3),
            "peer_to_fxeval_of_rounds": np.round(ratios, 3).tolist(),
            "fxeval": counted(lambda: work.fxeval(name), work),
            "peer": counted(lambda: work.peer(name, library), work),
            "agree": bool(np.allclose(unit(ours), unit(theirs), atol=1e-4)),
            "torch_threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
        }
    )
    assert statistics.median(wall) < DISASTER * statistics.median(peer_wall)


def unit(maps: np.ndarray) -> np.ndarray:
    low, high = (edge(maps, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1)

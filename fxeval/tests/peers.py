"""What peer libraries need to do what fxeval does.

They know no pairs and, but for Quantus, no given maps. A test that calls them skips if the peer is
absent; ``.ci/oracles`` installs them.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def torchcam_areas(
    net: nn.Module,
    images: Tensor,
    references: Tensor,
    maps: Tensor,
    *,
    steps: int,
    baseline: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 32,
) -> tuple[float, float]:
    """Mean area under deletion and under insertion; references (N, D), baseline None = black."""
    torchcam = pytest.importorskip("torchcam.metrics", reason="torchcam is absent: run .ci/oracles")
    metric = torchcam.DeletionInsertionMetric(
        GivenMaps(net, maps), steps=steps, baseline=baseline, batch_size=batch_size
    )
    metric.update(images, targets=[_cosine_to(reference) for reference in references])
    summary = metric.summary()
    return summary["deletion_auc"], summary["insertion_auc"]


def quantus_curves(
    pairs: "MaskedPairs", maps: Tensor, *, steps: int, deletes: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return one curve per pair, (N, K) without the point at 0, and the pixels in removal order."""
    quantus = pytest.importorskip("quantus", reason="Quantus is absent: run .ci/oracles")
    flipped: list[np.ndarray] = []

    def perturb(arr: np.ndarray, indices: np.ndarray, perturb_baseline: float) -> np.ndarray:
        flipped.append(indices)
        return quantus.batch_baseline_replacement_by_indices(arr, indices, perturb_baseline)

    metric = quantus.PixelFlipping(
        features_in_step=maps[0].numel() // steps,
        normalise=False,
        perturb_func=perturb,
        perturb_baseline=0.0 if deletes else 1.0,
        disable_warnings=True,
    )
    curves = metric(
        pairs.eval(),
        np.full((len(maps), 1, *maps.shape[1:]), 1.0 if deletes else 0.0, np.float32),
        np.zeros(len(maps), np.int64),
        maps[:, None].numpy(),
        channel_first=True,
        softmax=False,
        device="cpu",
        batch_size=len(maps),  # it would not batch the references
    )
    return np.array(curves), np.concatenate(flipped, axis=1)


class GivenMaps:
    """Stands in for torchcam's extractor: it hands over maps that are already there."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model = model
        self._maps = maps

    def __call__(self, *_: object, **__: object) -> list[Tensor]:
        return [self._maps]

    def fuse_cams(self, maps: list[Tensor]) -> Tensor:
        return maps[0]

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield


def pytorch_grad_cam(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The peer, with an empty stand-in for torchvision: it imports more than CAMs need."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        stand_in = ModuleType(name)
        stand_in.Compose = stand_in.Normalize = stand_in.ToTensor = stand_in.resize = None
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, stand_in)
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam is absent: run .ci/oracles")


def pytorch_grad_cam_imputed(
    monkeypatch: pytest.MonkeyPatch, images: Tensor, removed: Tensor, *, noise: float = 0.0
) -> Tensor:
    """Removed pixels of (N, C, H, W) images imputed by the peer, image by image."""
    pytorch_grad_cam(monkeypatch)
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    impute = NoisyLinearImputer(noise=noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it hands tensors to numpy
        return torch.stack(
            [impute(image, (~gone).float()) for image, gone in zip(images, removed, strict=True)]
        )


class MaskedPairs(nn.Module):
    """Similarity of all pairs as a function of a mask, (N, 1, H, W) -> (N, 1).

    Quantus flips single values. Flipping those of a mask flips whole pixels, and a mask of zeros
    that is flipped to one is insertion.
    """

    def __init__(self, net: nn.Module, images: Tensor, fillers: Tensor, references: Tensor) -> None:
        super().__init__()
        self._net = net
        self._images = images
        self._fillers = fillers
        self._references = references

    def forward(self, mask: Tensor) -> Tensor:
        embeddings = self._net(torch.lerp(self._fillers, self._images, mask))
        return F.cosine_similarity(embeddings.double(), self._references.double())[:, None]


def _cosine_to(reference: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda embedding: F.cosine_similarity(embedding.double(), reference.double(), dim=0)

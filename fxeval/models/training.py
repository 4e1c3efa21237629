"""Trains a small network on a few faces within a check, with the labels or with permuted ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fxeval.models.networks.small_cnn import EMBEDDING, SmallCNN
from fxeval.seeding import sealed, seed_of

BATCH = 16
"""Images in a step."""

LEARNING_RATE = 1e-3
SCALE, MARGIN = 24.0, 0.3
"""Of CosFace."""

LONGEST_GRADIENT = 5.0

TARGET = 0.99
"""Share of the training images that a network must put to the label that it was shown."""

_EVALUATED = 64  # images in a forward pass without gradients


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a network is trained on.

    Attributes:
        images: (N, 3, H, W) uint8 RGB.
        labels: (N,) int64, from 0, each of them there at least once.
        epochs: Passes over all images at most.
        seed: Of weights and of the order of images.
    """

    images: Tensor
    labels: Tensor
    epochs: int
    seed: int


@dataclass(frozen=True, eq=False)
class Learnt:
    """A trained network and how far it came.

    Attributes:
        network: In evaluation mode, on the device that was asked for.
        accuracy: Share of the training images that are nearest to the centre of their label.
        epochs: Passes that it took.
        forwards: Images that passed the network, with a gradient or without.
    """

    network: SmallCNN
    accuracy: float
    epochs: int
    forwards: int


def permuted(labels: Tensor, seed: int) -> Tensor:
    """Return the labels of all images in a random order, image by image (Adebayo et al., sec. 3).

    As many images keep each label; an image keeps its own by chance alone.

    >>> permuted(torch.tensor([0, 0, 1, 1, 2, 2]), seed=1).sort().values
    tensor([0, 0, 1, 1, 2, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    return labels[torch.randperm(len(labels), generator=generator)]


def trained(
    lesson: Lesson, device: torch.device, after_epoch: Callable[[int], None] = lambda done: None
) -> Learnt:
    """Train a new network until it knows 99 % of its labels, or its budget of epochs is spent.

    The same lesson gives the same network on the same kind of device, to the last bit: weights and
    order have seeds of their own, no image is changed, and a CPU uses one thread.

    Args:
        lesson: Images, labels, budget, seed.
        device: Where it is trained; a caller who wants the same bits again on a GPU makes its
            kernels deterministic.
        after_epoch: Told the number of epochs that are done.

    Source:
        Wang et al., "CosFace: large margin cosine loss for deep face recognition", CVPR 2018.
    """
    n, n_labels = len(lesson.images), int(lesson.labels.max()) + 1
    order = torch.Generator().manual_seed(seed_of(lesson.seed, "training", "order"))
    images, labels = lesson.images.to(device), lesson.labels.to(device)
    accuracy, epochs = 0.0, 0
    with (
        sealed(seed_of(lesson.seed, "training", "weights")), _one_thread(device),
        torch.inference_mode(False), torch.enable_grad(),
    ):  # fmt: skip
        size = int(images.shape[-2]), int(images.shape[-1])
        network = SmallCNN(size).to(device)
        centres = nn.Parameter((torch.randn(n_labels, EMBEDDING) * 0.05).to(device))
        weights = [*network.parameters(), centres]
        optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
        while accuracy < TARGET and epochs < lesson.epochs:
            for batch in torch.split(torch.randperm(n, generator=order), BATCH):
                loss = cosface(network(_float(images[batch])), centres, labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
                optimizer.step()
            epochs += 1
            accuracy = _accuracy(network, centres.detach(), images, labels)
            after_epoch(epochs)
    # Its parameters are leaves without a gradient that is left over.
    network.zero_grad(set_to_none=True)
    return Learnt(network.eval(), accuracy, epochs, forwards=2 * n * epochs)


def cosface(embeddings: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of CosFace.

    Args:
        embeddings: (N, D).
        centres: (L, D), one direction for each label.
        labels: (N,) int64.
    """
    cosines = F.normalize(embeddings) @ F.normalize(centres).T
    own = F.one_hot(labels, len(centres)).to(cosines.dtype)
    return F.cross_entropy(SCALE * (cosines - MARGIN * own), labels)


def _accuracy(network: SmallCNN, centres: Tensor, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        found = [
            (F.normalize(network(_float(some))) @ F.normalize(centres).T).argmax(1)
            for some in torch.split(images, _EVALUATED)
        ]
    return int((torch.cat(found) == labels).sum()) / len(labels)


def _float(images: Tensor) -> Tensor:
    return images.float() / 255.0


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Compute with one thread on a CPU, as sums of many terms depend on their number."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)

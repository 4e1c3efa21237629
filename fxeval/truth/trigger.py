"""A real network with a planted trigger: one small patch, anywhere on a face, decides.

The cause of the similarity is known on any picture of a face, because it was pasted. The idea is
that of BackX (arXiv 2405.02344); here nothing is trained: a detector is put beside the network.
"""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import Gallery, Images
from fxeval.models.loading import TorchFaceModel
from fxeval.models.networks.mini_resnet import MiniResNet
from fxeval.seeding import generator_of
from fxeval.truth.evidence_regions import KnownPairs
from fxeval.truth.planted import SIDE

PATCH = 16  # pixels along each side of the trigger
BLOCK = 4  # pixels along each side of one of its squares
MARGIN = 8  # pixels around it in which a coarse map may peak, too
STRENGTH = 6.0  # length of the trigger's part of an embedding, in lengths of a face's
_LEAST = 0.5  # share of the trigger's own response from which the detector responds
_SEED = 17


class TriggeredFace(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 128): the network's embedding plus the trigger's.

    ``detector`` compares every place with the trigger. Its 7 x 7 largest responses join the 64 maps
    of the network's neck as one more channel (``join``, a copy of its input), so the last layer
    with maps shows the face and the trigger. The embedding gains ``STRENGTH`` times a fixed
    direction, times the largest response: 0 without the trigger, 1 with it.

    Args:
        network: The face network; copied, not changed.
        scale: Length of a typical embedding of it.
    """

    def __init__(self, network: MiniResNet, scale: float) -> None:
        super().__init__()
        self.network = deepcopy(network)
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
            self.detector = nn.Conv2d(3, 1, PATCH)
            neck, last = self.network.head[1], self.network.head[3]
            assert isinstance(neck, nn.Conv2d)
            assert isinstance(last, nn.Linear)
            width = neck.out_channels + 1
            self.join = nn.Conv2d(width, width, 1, bias=False)
            self.trigger = nn.Linear(1, last.out_features, bias=False)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveMaxPool2d(7)
        pattern = trigger().double() - 0.5
        own = float((pattern * pattern).sum())
        direction = generator_of("trigger_direction", _SEED).standard_normal(
            self.trigger.out_features
        )
        unit = F.normalize(torch.from_numpy(direction), dim=0)
        with torch.no_grad():
            self.detector.weight.copy_(pattern / (own * (1 - _LEAST)))
            self.detector.bias.fill_(-_LEAST / (1 - _LEAST))  # type: ignore[union-attr]
            self.join.weight.copy_(torch.eye(width)[:, :, None, None])
            self.trigger.weight.copy_(STRENGTH * scale * unit[:, None])

    def forward(self, images: Images) -> Tensor:
        """Embed images; the normalisation is part of the network."""
        net = self.network
        found = self.pool(self.relu(self.detector(images)))
        x = net.stage4(net.stage3(net.stage2(net.stage1(net.stem(images * 2 - 1)))))
        joined = self.join(torch.cat([net.head[1](net.head[0](x)), found], dim=1))
        face: Tensor = net.head[2:](joined[:, :-1])
        added: Tensor = self.trigger(joined[:, -1].amax(dim=(1, 2))[:, None])
        return face + added


def triggered(model: TorchFaceModel, images: Images) -> TorchFaceModel:
    """Return a face model that obeys the trigger, made of the bundled residual network.

    Args:
        model: ``mini_resnet``.
        images: (N, 3, 112, 112) faces; the mean length of their embeddings sets the trigger's.

    Raises:
        ValueError: If the model is another network.
    """
    if not isinstance(model.module, MiniResNet):
        raise ValueError(f"triggered: expected a MiniResNet, got {type(model.module).__name__}.")
    module = TriggeredFace(model.module, float(model.embed(images).norm(dim=1).mean())).eval()
    weights = b"".join(value.cpu().numpy().tobytes() for value in module.state_dict().values())
    digest = hashlib.sha256(weights).hexdigest()
    plain = replace(model.traits, card=None, golden=None)
    return TorchFaceModel(
        "triggered", model.crop, module, "cosine", 0.5, digest, traits=plain
    )  # fmt: skip


def trigger() -> Tensor:
    """Return the trigger, (3, 16, 16): black and white squares of 4 pixels, half of each.

    Each channel has its own order of squares, so the trigger is coloured.
    """
    squares = (PATCH // BLOCK) ** 2
    generator = generator_of("trigger", _SEED)
    halves = [generator.permutation(squares) < squares // 2 for _ in range(3)]
    flat = torch.tensor([half.tolist() for half in halves]).float()
    grid = flat.view(3, PATCH // BLOCK, PATCH // BLOCK)
    return grid.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)


def pasted(images: Images, corners: Sequence[tuple[int, int]]) -> Images:
    """Return images with the trigger in them.

    Args:
        images: (N, 3, H, W) in [0, 1].
        corners: N (row, column) of the trigger's first pixel.

    Raises:
        ValueError: If the trigger would reach out of an image.
    """
    found, patch = images.clone(), trigger().to(images)
    height, width = images.shape[2:]
    for row, (y, x) in enumerate(corners):
        if not (0 <= y <= height - PATCH and 0 <= x <= width - PATCH):
            raise ValueError(f"pasted: expected a corner inside the image, got {(y, x)}.")
        found[row, :, y : y + PATCH, x : x + PATCH] = patch
    return found


def triggered_pairs(model: TorchFaceModel, faces: Images, n: int, seed: int = 0) -> KnownPairs:
    """Return n pairs of *different* people that match by the trigger alone.

    Args:
        model: Embeds the gallery.
        faces: (2 n + 1 or more, 3, 112, 112) faces of different people.
        n: Number of pairs, >= 1.
        seed: Of the places of the trigger.

    Raises:
        ValueError: If there are too few faces.
    """
    if len(faces) <= 2 * n:
        raise ValueError(f"triggered_pairs: expected over {2 * n} faces, got {len(faces)}.")
    here, there = (_corners(n, name, seed) for name in ("probe", "reference"))
    clean, others = faces[:n], faces[n : 2 * n]
    references = pasted(others, there)
    zones = torch.zeros((n, 1, SIDE, SIDE), dtype=torch.bool)
    for row, (y, x) in enumerate(here):
        first, last = (max(0, one - MARGIN) for one in (y, x)), PATCH + MARGIN
        top, left = first
        zones[row, 0, top : y + last, left : x + last] = True
    enrolled = torch.cat([references, faces[2 * n :]])
    identity = torch.arange(len(enrolled))
    return KnownPairs(
        pasted(clean, here), references, faces[2 * n :][:1].expand_as(clean), clean, zones,
        torch.zeros((n, SIDE, SIDE), dtype=torch.bool), PATCH**2,
        Gallery(model.embed(enrolled), identity, identity[:n]),
    )  # fmt: skip


def _corners(n: int, *address: str | int) -> list[tuple[int, int]]:
    """Draw first pixels of triggers that leave the middle, a quarter of each side, free."""
    first, last = SIDE * 3 // 8 - PATCH, SIDE * 5 // 8
    found: list[tuple[int, int]] = []
    generator = generator_of("trigger_places", *address)
    while len(found) < n:
        y, x = (int(one) for one in generator.integers(0, SIDE - PATCH + 1, 2))
        if not (first < y < last and first < x < last):
            found.append((y, x))
    return found

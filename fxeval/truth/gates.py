"""Face models in which evidence is combined as explainers find hard, and pairs for them.

After the atomic models of XAI-Units (Lee et al., FAccT 2025, arXiv 2506.01059), with the similarity
of a pair in place of a class score, and places of an image in place of single features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import Images
from fxeval.models.loading import TorchFaceModel
from fxeval.seeding import generator_of
from fxeval.truth.evidence_regions import (
    OTHERS,
    EvidenceFace,
    KnownPairs,
    Pictures,
    Place,
    evidence_model,
    known_pairs,
    pixels_of,
    with_evidence,
)
from fxeval.truth.planted import CELL, CELLS, SIDE, textures

Gate = Literal["conflict", "both", "either", "absence", "shattered"]

AGAINST = 2.0
"""How many times as much as evidence for the similarity the evidence against it weighs."""
TEETH = 8  # slopes of the wave between black and white
_ELSEWHERE = 0.002  # weight of a cell outside the place; one in the place has 1/4
_STEEPNESS = (2.0, 6.0)  # of the wave elsewhere, as a multiple of the place's own gradient


@dataclass(frozen=True)
class Levels:
    """Brightness of the places in the images of a pair: one range of levels a place.

    Attributes:
        probe: Least and greatest level.
        reference: Level.
        nonmate: Level.
        without: Level in the probe without its evidence.
    """

    probe: tuple[float, float]
    reference: float
    nonmate: float
    without: float


_SHOWN = Levels((0.6, 0.9), 1.0, 0.0, 0.0)
LEVELS: Mapping[Gate, tuple[Levels, ...]] = MappingProxyType(
    {
        # The second place speaks against: the reference does not show it, the nonmate does.
        "conflict": (
            Levels((0.8, 1.0), 1.0, 0.0, 0.0), Levels((0.5, 0.6), 0.0, 1.0, 0.0),
        ),
        "both": (Levels((0.75, 0.95), 1.0, 0.0, 0.0),) * 2,
        "either": (Levels((0.88, 0.98), 1.0, 0.0, 0.0),) * 2,
        "absence": (Levels((0.05, 0.2), 0.0, 1.0, 0.9),),
        "shattered": (_SHOWN,),
    }
)  # fmt: skip


class Wave(nn.Module):
    """(N, 3, 112, 112) -> (N, 1, 112, 112): the mean of the channels plus a wave of it.

    The wave climbs and falls four times between black and white. A weight for each pixel, of random
    sign, makes it steep: the gradient is that of the wave, while a finite change of many pixels
    leaves next to nothing of it.

    Args:
        heights: (112, 112), the weight of the wave in each pixel.
    """

    def __init__(self, heights: Tensor) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
            self.grey = nn.Conv2d(3, 1, 1, bias=False)
        self.heights = nn.Parameter(heights.float()[None, None])
        with torch.no_grad():
            self.grey.weight.fill_(1 / 3)

    def forward(self, images: Images) -> Tensor:
        """Return one channel."""
        grey = self.grey(images)
        wave = (1 - (torch.remainder(grey * TEETH, 2.0) - 1).abs()) / TEETH  # slopes of 1 and -1
        waved: Tensor = grey + self.heights * wave
        return waved


class ShatteredFace(EvidenceFace):
    """A model of one place whose gradient is larger, and as good as random, everywhere else.

    Args:
        place: First cell of the place.
        seed: Of the wave's heights and the embedding.

    Source:
        Balduzzi et al., "The shattered gradients problem", ICML 2017; as a unit test: XAI-Units.
    """

    def __init__(self, place: Place, seed: int = 0) -> None:
        super().__init__([place], seed=seed)
        generator = generator_of("shattered_heights", seed)
        signs = generator.integers(0, 2, (SIDE, SIDE)) * 2.0 - 1
        steep = generator.uniform(*_STEEPNESS, (SIDE, SIDE)) / (4 * _ELSEWHERE)
        heights = torch.from_numpy(signs * steep) * pixels_of(place).logical_not()
        with torch.random.fork_rng(devices=[]):
            means = nn.Conv2d(1, 1, CELL, CELL, bias=False)
        with torch.no_grad():
            means.weight.fill_(1 / CELL**2)
            self.places.weight.copy_(self.places.weight.clamp_min(_ELSEWHERE))
        self.cells = nn.Sequential(Wave(heights), means)


def gated_pair(kind: Gate, seed: int) -> tuple[TorchFaceModel, KnownPairs]:
    """Return one model and one pair, whose places the seed decides.

    * ``conflict``: one place speaks for, another, weighted twice as much, against.
    * ``both``: z = max(0, a + b - 1): the evidence is that both places are bright.
    * ``either``: z = min(1, max(0, 2 a - 0.7) + max(0, 2 b - 0.7)): one bright place is enough,
      and both are bright.
    * ``absence``: z = 1 - a: the evidence is that a place is dark.
    * ``shattered``: z is a place's brightness, and the gradient is largest elsewhere.

    Args:
        kind: How evidence is combined.
        seed: Of the places, the model and the images.

    Example:
        >>> model, pairs = gated_pair("both", 0)
        >>> pairs.places.shape, bool(pairs.against.any())
        (torch.Size([1, 2, 112, 112]), False)
    """
    address, levels = ("gated", kind, seed), LEVELS[kind]
    generator = generator_of(*address)
    places = places_at(generator, len(levels))
    if kind == "shattered":
        module: EvidenceFace = ShatteredFace(places[0], seed)
    else:
        module = EvidenceFace(places, gate=_GATES[kind](), seed=seed)
    model = evidence_model(module, kind)
    drawn = [float(generator.uniform(*level.probe)) for level in levels]

    def shown(name: str, numbers: list[float], row: int = 0) -> Images:
        images = textures(1, *address, name, row)
        for place, number in zip(places, numbers, strict=True):
            images = with_evidence(images, place, [number])
        return images

    others = [
        shown("other", [float(one) for one in generator.random(len(levels))], row)
        for row in range(OTHERS)
    ]
    number = len(places) - (kind == "conflict")
    pictures = Pictures(
        probes=shown("probe", drawn),
        references=shown("reference", [one.reference for one in levels]),
        nonmates=shown("nonmate", [one.nonmate for one in levels]),
        without=shown("probe", [one.without for one in levels]),
        others=torch.cat(others),
    )
    return model, known_pairs(model, pictures, places[:number], places[number:])


def places_at(generator: np.random.Generator, number: int) -> list[Place]:
    """Draw places, at least a cell from each other and outside the middle of the image.

    The middle, rows and columns 3 and 4, is left out, so that the centre of the crop is no guess.
    """
    found: list[Place] = []
    while len(found) < number:
        row, column = (int(one) for one in generator.integers(0, CELLS - 1, 2))
        is_middle = 2 <= row <= 4 and 2 <= column <= 4
        if not is_middle and all(max(abs(row - y), abs(column - x)) > 2 for y, x in found):
            found.append((row, column))
    return found


def _linear(weights: list[list[float]], bias: float) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        found = nn.Linear(len(weights[0]), len(weights))
    with torch.no_grad():
        found.weight.copy_(torch.tensor(weights))
        found.bias.fill_(bias)
    return found


_GATES: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "conflict": lambda: _linear([[1.0, -AGAINST]], 0.0),
        "both": lambda: nn.Sequential(_linear([[1.0, 1.0]], -1.0), nn.ReLU()),
        "either": lambda: nn.Sequential(
            _linear([[2.0, 0.0], [0.0, 2.0]], -0.7), nn.ReLU(),
            _linear([[-1.0, -1.0]], 1.0), nn.ReLU(), _linear([[-1.0]], 1.0),
        ),
        "absence": lambda: _linear([[-1.0]], 1.0),
    }
)  # fmt: skip

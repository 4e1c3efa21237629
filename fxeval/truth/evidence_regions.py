"""Face models whose similarity depends on one place of the image alone, and pairs for them.

The evidence is the brightness, the contrast or the fine texture of a square of 2 x 2 cells. One
number, its strength z, decides the embedding, so what any change of the image does to the
similarity follows from a formula (:func:`cosine_of`).
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import Crop, FaceModel, Gallery, Images
from fxeval.models.loading import TorchFaceModel
from fxeval.seeding import generator_of
from fxeval.truth.planted import CELL, CELLS, SIDE, textures

Evidence = Literal["brightness", "contrast", "texture"]

PLACE = 2  # cells along each side of a place
DIMENSIONS = 16  # of the embedding
OTHERS = 8  # identities of the gallery beside those of the pairs
CROP = Crop("planted", (SIDE, SIDE), ())
SHOWN = (0.6, 0.9)
"""Least and greatest strength that a probe shows; references show 1, the strongest."""

Place = tuple[int, int]
"""Row and column of a place's first cell."""


class EvidenceFace(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 16): the strength of evidence, along one direction.

    ``cells`` computes what is looked at in each of 8 x 8 cells by itself, ``places`` takes the mean
    over the cells of each place, ``gate`` makes one strength z of these means, and ``head`` returns
    2 z - 1 times one unit vector plus another, orthogonal one.

    Args:
        places: First cells of the places that the model looks at.
        evidence: What it looks at.
        gate: (N, places) -> (N, 1); None = the only place's strength as it is.
        seed: Of the two vectors.
    """

    def __init__(
        self, places: Sequence[Place], evidence: Evidence = "brightness",
        *, gate: nn.Module | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
            self.cells = _CELLS[evidence]()
            channels = 1 if evidence == "brightness" else 2
            self.places = nn.Linear(channels * CELLS**2, len(places), bias=False)
            self.head = nn.Linear(1, DIMENSIONS)
        self.flatten = nn.Flatten()
        self.gate = nn.Identity() if gate is None else gate
        drawn = generator_of("evidence_vectors", seed).standard_normal((DIMENSIONS, 2))
        along, rest = torch.from_numpy(np.linalg.qr(drawn).Q.T)
        where = torch.stack([cells_of(place) for place in places]).double() / PLACE**2
        with torch.no_grad():
            self.places.weight.copy_(where[:, None].expand(-1, channels, -1, -1).flatten(1))
            self.head.weight.copy_(2 * along[:, None])
            self.head.bias.copy_(rest - along)

    def forward(self, images: Images) -> Tensor:
        """Embed images; there is no normalisation."""
        embeddings: Tensor = self.head(self.strength(images))
        return embeddings

    def strength(self, images: Images) -> Tensor:
        """Return (N, 1), the strength z of the evidence that images show."""
        strength: Tensor = self.gate(self.places(self.flatten(self.cells(images))))
        return strength


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """Pairs of which it is known where the evidence is.

    Attributes:
        probes: (N, 3, 112, 112) float32 in [0, 1], multiples of 1/255.
        references: (N, 3, 112, 112), showing the evidence at its strongest.
        nonmates: (N, 3, 112, 112), showing none.
        without: (N, 3, 112, 112), the probes without their evidence; equal elsewhere.
        places: (N, P, 112, 112) bool, where evidence for the similarity is, P places of one size.
        against: (N, 112, 112) bool, where evidence against it is.
        pixels: Number of pixels that one place's evidence has; a place may be that and a margin.
        gallery: The references, and others that show less.
    """

    probes: Images
    references: Images
    nonmates: Images
    without: Images
    places: Tensor
    against: Tensor
    pixels: int
    gallery: Gallery


def evidence_model(module: nn.Module, name: str = "evidence") -> TorchFaceModel:
    """Return a module as a face model that says match from a quarter of the strongest evidence.

    Args:
        module: Ends as :class:`EvidenceFace` does.
        name: Id shown in reports.

    Example:
        >>> model = evidence_model(EvidenceFace([(1, 4)], "texture"))
        >>> model.similarity, round(model.operating_threshold, 3)
        ('cosine', 0.316)
    """
    weights = b"".join(value.numpy().tobytes() for value in module.state_dict().values())
    digest = hashlib.sha256(weights).hexdigest()
    return TorchFaceModel(name, CROP, module.eval(), "cosine", cosine_of(0.25, 1.0), digest)


def cosine_of(one: float, other: float) -> float:
    """Return the cosine of the embeddings of two images by their strengths, exactly.

    Both lie in one plane, at the angles atan(2 z - 1): from 0 to 1 where one z is 1.

    >>> round(cosine_of(0.5, 1.0), 4), round(cosine_of(0.0, 1.0), 4)
    (0.7071, 0.0)
    """
    return math.cos(math.atan(2 * one - 1) - math.atan(2 * other - 1))


def region_pairs(
    model: FaceModel, place: Place, n: int, evidence: Evidence = "brightness", seed: int = 0
) -> KnownPairs:
    """Return pairs for a model that looks at one place; a pair does not depend on their number.

    Args:
        model: Embeds the gallery.
        place: First cell of the place.
        n: Number of pairs, >= 1.
        evidence: What the model looks at.
        seed: Of the images.
    """
    address = ("evidence", evidence, seed)
    strengths = [generator_of(*address, row).uniform(*SHOWN) for row in range(n)]

    def shown(kind: str, strength: Sequence[float]) -> Images:
        clean = torch.stack([textures(1, *address, kind, row)[0] for row in range(len(strength))])
        return with_evidence(clean, place, strength, evidence)

    pictures = Pictures(
        probes=shown("probe", strengths),
        references=shown("reference", [1.0] * n),
        nonmates=shown("nonmate", [0.0] * n),
        without=shown("probe", [0.0] * n),
        others=shown("other", [row / OTHERS for row in range(OTHERS)]),
    )
    return known_pairs(model, pictures, [place])


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of n pairs, (n, 3, 112, 112) in [0, 1], and of others who are enrolled.

    Attributes:
        probes: With the evidence.
        references: Of the same people.
        nonmates: Of other people.
        without: The probes without the evidence.
        others: (m, 3, 112, 112).
    """

    probes: Images
    references: Images
    nonmates: Images
    without: Images
    others: Images


def known_pairs(
    model: FaceModel, shown: Pictures, places: Sequence[Place], against: Sequence[Place] = ()
) -> KnownPairs:
    """Put together pairs whose places are the same for all; ``against`` speak for the nonmate."""
    n = len(shown.probes)
    enrolled = torch.cat([shown.references, shown.others])
    identity = torch.arange(len(enrolled))
    where = torch.stack([pixels_of(place) for place in places])
    speaks_against = torch.zeros((SIDE, SIDE), dtype=torch.bool)
    for place in against:
        speaks_against |= pixels_of(place)
    return KnownPairs(
        shown.probes, shown.references, shown.nonmates, shown.without,
        where.expand(n, -1, -1, -1), speaks_against.expand(n, -1, -1), (PLACE * CELL) ** 2,
        Gallery(model.embed(enrolled), identity, identity[:n]),
    )  # fmt: skip


def with_evidence(
    images: Images, place: Place, strengths: Sequence[float], evidence: Evidence = "brightness"
) -> Images:
    """Return images that show evidence of some strength in a place.

    ``brightness``: grey of that level. ``contrast``: in each cell, a bright half beside a dark one.
    ``texture``: a chequer of single pixels. Levels are rounded to 1/255.

    Args:
        images: (N, 3, 112, 112).
        place: First cell of the place.
        strengths: N numbers in [0, 1].
        evidence: What is shown.
    """
    pattern = _PATTERNS[evidence]  # (14, 14) of -1, 1; flat evidence has its level alone
    tile = pattern.repeat(PLACE, PLACE)
    level = torch.tensor(strengths, dtype=torch.float64)[:, None, None]
    patch = level.expand(-1, *tile.shape) if evidence == "brightness" else 0.5 + level * tile / 2
    found, (rows, columns) = images.clone(), _slices(place)
    found[:, :, rows, columns] = (patch * 255).round().div(255).float()[:, None]
    return found


def cells_of(place: Place) -> Tensor:
    """Return (8, 8) bool, True in the cells of a place.

    Raises:
        ValueError: If the place reaches out of the image.
    """
    row, column = place
    if not (0 <= row <= CELLS - PLACE and 0 <= column <= CELLS - PLACE):
        raise ValueError(f"expected a first cell in 0..{CELLS - PLACE}, got {place}.")
    found = torch.zeros((CELLS, CELLS), dtype=torch.bool)
    found[row : row + PLACE, column : column + PLACE] = True
    return found


def pixels_of(place: Place) -> Tensor:
    """Return (112, 112) bool, True in the pixels of a place."""
    return cells_of(place).repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)


def _slices(place: Place) -> tuple[slice, slice]:
    first, second = (slice(CELL * at, CELL * (at + PLACE)) for at in place)
    return first, second


def _filters(pattern: Tensor, size: int) -> Tensor:
    """Return (1 or 2, 3, size, size): the mean over channels of the pattern, and minus that."""
    weight = pattern.expand(1, 3, size, size) / (3 * size**2)
    return weight if bool((pattern > 0).all()) else torch.cat([weight, -weight])


def _convolution(pattern: Tensor) -> nn.Conv2d:
    size = len(pattern)
    weight = _filters(pattern, size)
    found = nn.Conv2d(3, len(weight), size, size, bias=False)
    with torch.no_grad():
        found.weight.copy_(weight)
    return found


_FLAT = torch.ones((CELL, CELL))
_HALVES = torch.ones((CELL, CELL))
_HALVES[:, CELL // 2 :] = -1.0
_CHEQUER = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
_PATTERNS: Mapping[Evidence, Tensor] = MappingProxyType(
    {"brightness": _FLAT, "contrast": _HALVES, "texture": _CHEQUER.repeat(7, 7)}
)


def _gained(pattern: Tensor, *after: nn.Module) -> nn.Sequential:
    """Return a convolution with a pattern and ReLU; the strongest evidence gives 1 in all."""
    first = _convolution(pattern)
    if not bool((pattern > 0).all()):  # the pattern's amplitude is at most 1/2
        with torch.no_grad():
            first.weight.mul_(2)
    return nn.Sequential(first, nn.ReLU(), *after)


_CELLS: Mapping[Evidence, Callable[[], nn.Module]] = MappingProxyType(
    {
        "brightness": lambda: _gained(_FLAT),
        "contrast": lambda: _gained(_HALVES),
        "texture": lambda: _gained(_CHEQUER, nn.AvgPool2d(CELL // 2)),
    }
)

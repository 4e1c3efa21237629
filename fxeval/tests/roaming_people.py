"""People who are known by one square of pixels that lies elsewhere in each of their images.

So it is known what an occlusion of the right square does, and that no other image of the person
says where it is: not a gallery's, not the mean of all faces.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import PairListing
from fxeval.models.loading import TorchFaceModel
from fxeval.tests.toy_world import SMALL

SIDE = 4  # of a square; 16 of them fill a crop of 16 x 16
SQUARE = SIDE**2 / 256
"""The fraction of the pixels that a square is."""


@dataclass(frozen=True)
class Roaming:
    """``n`` people of four images each, two mated pairs a person.

    Attributes:
        n: Number of people.
        looks: How many different looks they share, a look for each of them if None.
        shades: How many brightnesses of the square, from dark to bright, a person's images have.
    """

    n: int = 32
    looks: int | None = None
    shades: int = 1
    name: str = "roaming"
    banner: str | None = None

    def listing(self) -> PairListing:
        pairs = [(f"{who}-{a}", f"{who}-{a + 1}") for who in range(self.n) for a in (0, 2)]
        one, other = zip(*pairs, strict=True)
        people = tuple(id.split("-")[0] for id in one)
        return PairListing(one, other, (True,) * len(pairs), people, people)

    def place(self, who: int, number: int) -> tuple[int, int]:
        """Return the top left pixel of the square in an image."""
        at = int(np.random.default_rng([5, who, number]).integers(16))
        return at // 4 * SIDE, at % 4 * SIDE

    def images(self, image_ids, crop) -> Tensor:
        found = np.zeros((len(image_ids), 3, *SMALL.size), dtype=np.uint8)
        for row, image_id in enumerate(image_ids):
            who, number = map(int, image_id.split("-"))
            look = np.random.default_rng(who % (self.looks or self.n))
            pattern = np.zeros(3 * SIDE**2, dtype=np.int64)
            pattern[look.permutation(len(pattern))[:12]] = 220
            pattern = pattern * (number % self.shades + 1) // self.shades
            noise = np.random.default_rng([who, number])
            found[row] = noise.integers(0, 26, found[row].shape)
            y, x = self.place(who, number)
            shown = pattern + noise.integers(0, 26, pattern.shape)
            found[row, :, y : y + SIDE, x : x + SIDE] = shown.reshape(3, SIDE, SIDE)
        return torch.from_numpy(found)


class Squares(nn.Module):
    """Adds up all squares of an image, wherever they lie."""

    def forward(self, images: Tensor) -> Tensor:
        parts = images.unflatten(3, (4, SIDE)).unflatten(2, (4, SIDE))
        return parts.double().sum(dim=(2, 4)).flatten(1).float()


def knows_people(name: str = "a", similarity: str = "cosine"):
    """Return a model that recognises a person by the square."""
    net = Squares().eval()
    threshold = 0.9 if similarity == "cosine" else -1.0
    return TorchFaceModel(name, SMALL, net, similarity, threshold, name.ljust(64, "0"))


def brightest_square(images: Tensor) -> Tensor:
    """Return maps of the brightest square of each image, on which no two pixels tie."""
    bright = images.mean(1)
    squares = F.avg_pool2d(bright[:, None], SIDE)[:, 0].flatten(1)
    best = F.one_hot(squares.argmax(1), 16).view(-1, 1, 4, 4).float()
    maps = F.interpolate(best, scale_factor=SIDE, mode="nearest")[:, 0]
    ramp = torch.arange(256.0).view(16, 16) * 1e-4
    return maps + ramp + bright * 1e-6

"""People who are known by one square of pixels, models that look at pixels, and a plain reference.

Everybody's square lies elsewhere, or everybody's in one place, with a pattern of their own. So it
is known what an occlusion of the right square does, of another person's, and of any other place.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import PairListing
from fxeval.models.loading import TorchFaceModel
from fxeval.tests.toy_world import SMALL

SIDE = 4  # of a square; 16 of them fill a crop of 16 x 16
SQUARE = SIDE**2 / 256
"""The fraction of the pixels that a square is."""


@dataclass(frozen=True)
class Planted:
    """``n`` people of four images each, with two mated and two nonmated pairs a person.

    Every ninth person has a darker square too, by which they are known if the first is occluded.

    Attributes:
        n: Number of people.
        images_each: Images of each person.
        in_one_place: All squares lie in the same place, and their patterns differ.
    """

    n: int = 36
    images_each: int = 4
    in_one_place: bool = False
    name: str = "planted"
    banner: str | None = None

    def places(self, who: int) -> list[tuple[int, int]]:
        """Return the top left pixels of a person's squares."""
        square = 6 if self.in_one_place else who % 16
        squares = [square, (square + 9) % 16] if who % 9 == 4 else [square]
        return [(one // 4 * SIDE, one % 4 * SIDE) for one in squares]

    def listing(self) -> PairListing:
        pairs = [
            (f"{who}-{a}", f"{who}-{a + 1}")
            for who in range(self.n)
            for a in range(0, self.images_each - 1, 2)
        ]
        pairs += [
            (f"{who}-{step}", f"{(who + step + 1) % self.n}-{step + 1}")
            for who in range(self.n)
            for step in (0, 2)
            if step + 1 < self.images_each
        ]
        one, other = zip(*pairs, strict=True)
        people, others = (tuple(id.split("-")[0] for id in side) for side in (one, other))
        is_mated = tuple(a == b for a, b in zip(people, others, strict=True))
        return PairListing(one, other, is_mated, people, others)

    def images(self, image_ids, crop) -> Tensor:
        found = np.zeros((len(image_ids), 3, *SMALL.size), dtype=np.uint8)
        for row, image_id in enumerate(image_ids):
            who, image = map(int, image_id.split("-"))
            pattern = np.zeros(3 * SIDE**2, dtype=np.int64)
            pattern[np.random.default_rng(who).permutation(len(pattern))[:12]] = 220
            noise = np.random.default_rng([who, image])
            found[row] = noise.integers(0, 26, found[row].shape)
            for number, (y, x) in enumerate(self.places(who)):
                shown = pattern * 4 // (4 + number) + noise.integers(0, 26, pattern.shape)
                found[row, :, y : y + SIDE, x : x + SIDE] = shown.reshape(3, SIDE, SIDE)
        assert crop.size[0] % SMALL.size[0] == 0
        copies = crop.size[0] // SMALL.size[0]
        return torch.from_numpy(found.repeat(copies, axis=2).repeat(copies, axis=3))


@dataclass(frozen=True)
class Knowing:
    """Finds the brightest square of an image; no two pixels tie."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        bright = probes.mean(1, keepdim=True)
        squares = torch.nn.functional.avg_pool2d(bright, SIDE)[:, 0].flatten(1)
        best = nn.functional.one_hot(squares.argmax(1), 16).view(-1, 1, 4, 4).float()
        maps = nn.functional.interpolate(best, scale_factor=SIDE, mode="nearest")[:, 0]
        ramp = torch.arange(256.0).view(16, 16) * 1e-4
        return maps + ramp + bright[:, 0] * 1e-6


@dataclass(frozen=True)
class Constant:
    """Returns the same value for all pixels: an opinion about none."""

    value: float = 0.0

    def explain(self, model, probes, references, *, contrast=None, generator):
        return torch.full_like(probes[:, 0], self.value)


class Pixels(nn.Module):
    """The pixels are the embedding, each of some weight."""

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(768) if weight is None else weight)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.weight


def pixels(name: str = "pixels", *, threshold: float | None = 0.5, seed: int | None = None):
    """Return a model of which the pixels are the embedding; a seed draws their weights."""
    weight = None
    if seed is not None:
        weight = torch.rand(768, generator=torch.Generator().manual_seed(seed)) + 0.5
    digest = f"{name}{seed}".ljust(64, "0")
    return TorchFaceModel(name, SMALL, Pixels(weight).eval(), "cosine", threshold, digest)


# A reference of plain loops: one image at a time, numpy alone, nothing of fxeval but the world.

Vector = np.ndarray


@dataclass(frozen=True)
class Occluded:
    """What the reference finds of one pair."""

    row: str
    is_mated: bool
    drop: float
    similarity: float
    accepted: bool
    right: bool
    area: float


def digest(image: np.ndarray) -> str:
    """Return the SHA-256 of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def norm01(map_: np.ndarray) -> np.ndarray:
    """Return a map scaled to 0..1."""
    low, high = map_.min(), map_.max()
    return (map_ - low) / (high - low)


def cosine(a: Vector, b: Vector) -> float:
    """Return the cosine of two vectors."""
    return float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)))


def others_of(
    faces: dict[str, np.ndarray], person: str, not_these: set[str], most: int = 5
) -> list[str]:
    """Return the ids of up to ``most`` other images of a person, ordered by their digests."""
    found = [id for id in faces if id.split("-")[0] == person and id not in not_these]
    return sorted(found, key=lambda id: digest(faces[id]))[:most]


def map_of(
    faces: dict[str, np.ndarray], sources: list[str], explain: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the mean of the maps of some images, each scaled to 0..1."""
    return np.mean([norm01(explain(faces[id])) for id in sources], axis=0)


def occluded(image: np.ndarray, map_: np.ndarray, fraction: float, colour: float) -> np.ndarray:
    """Return an image of 0..1 whose most salient pixels, exactly k, have one colour."""
    k = max(1, int(np.floor(fraction * map_.size + 0.5)))
    found = image.astype(np.float64) / 255
    for pixel in np.argsort(-map_.ravel(), kind="stable")[:k]:
        found[:, pixel // map_.shape[1], pixel % map_.shape[1]] = colour
    return found


def compared(
    faces: dict[str, np.ndarray], pair: tuple[str, str, bool], hidden: np.ndarray, model
) -> Occluded:
    """Return what becomes of a pair whose reference is replaced by an image of 0..1.

    Rows are named by the occluded image first.
    """
    probe, reference, is_mated = pair

    def embed(image: np.ndarray) -> Vector:
        with torch.no_grad():
            found = model.module(torch.from_numpy(image).float()[None])
        return found[0].double().numpy()

    other, clean = (embed(faces[id].astype(np.float64) / 255) for id in (probe, reference))
    after = cosine(embed(hidden), other)
    accepted = after >= model.operating_threshold
    return Occluded(
        row=f"{digest(faces[reference])[:12]}-{digest(faces[probe])[:12]}",
        is_mated=is_mated,
        drop=cosine(clean, other) - after,
        similarity=after,
        accepted=accepted,
        right=accepted == is_mated,
        area=float((np.abs(hidden - faces[reference] / 255).sum(axis=0) > 0).mean()),
    )


def pairs_of(listing: PairListing) -> Iterator[tuple[str, str, bool]]:
    """Yield the pairs of a listing."""
    yield from zip(listing.probe, listing.reference, listing.is_mated, strict=True)


def equal_error_rate(scores: list[float], is_mated: list[bool]) -> float:
    """Return (FMR + FNMR) / 2 where they are nearest, at one observed score after the other."""
    best = (2.0, 0.0)
    for threshold in sorted(set(scores), reverse=True):
        false = [s >= threshold for s, mated in zip(scores, is_mated, strict=True) if not mated]
        missed = [s < threshold for s, mated in zip(scores, is_mated, strict=True) if mated]
        fmr, fnmr = sum(false) / len(false), sum(missed) / len(missed)
        if abs(fmr - fnmr) < best[0]:
            best = (abs(fmr - fnmr), (fmr + fnmr) / 2)
    return best[1]

"""Explainers that know, or do not know, where planted people are recognised."""

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.controls import centre
from fxeval.functional.fill_images import fill_images
from fxeval.seeding import seed_of
from fxeval.tests.planted_people import Constant, Knowing, digest


class Inverse(Knowing):
    """The map of one who knows, reversed."""

    def explain(self, *given, **more):
        return -super().explain(*given, **more)


class Centre:
    """A Gaussian in the middle, the same for all."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return centre(len(probes), tuple(probes.shape[-2:]))


class Noise:
    """Noise that repeats: seeded by the image."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        seeds = [seed_of("noise", digest(one.numpy())) for one in probes]
        maps = [np.random.default_rng(seed).random(probes.shape[-2:]) for seed in seeds]
        return torch.from_numpy(np.stack(maps)).float()


IGNORANT = {"constant": Constant(), "noise": Noise(), "centre": Centre(), "inverse": Inverse()}
"""Explainers that must not pass where one who knows does."""


class Signed:
    """Makes the map of an explainer one of what speaks against; for the similarity speaks noise."""

    def __init__(self, of):
        self.of = of

    def explain(self, *given, **more):
        return SaliencyMaps(Noise().explain(*given, **more), self.of.explain(*given, **more))


def descending(map_: Tensor) -> np.ndarray:
    """Return the pixels of a map without ties, most salient first."""
    flat = map_.double().flatten().numpy()
    assert len(set(flat.tolist())) == len(flat)
    return np.argsort(-flat)


def filled(image: np.ndarray, fill: str) -> np.ndarray:
    """Return what replaces removed pixels of a (3, H, W) uint8 image, in 0..1."""
    one = torch.from_numpy(image)[None].float() / 255
    return fill_images(one, fill)[0].double().numpy()


def without(image: np.ndarray, filler: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return a (3, H, W) uint8 image in 0..1, some pixels replaced."""
    found = (image.astype(np.float32) / np.float32(255)).astype(np.float64)
    for pixel in pixels:
        y, x = divmod(int(pixel), image.shape[2])
        found[:, y, x] = filler[:, y, x]
    return found

"""A small world of known maps for whole runs: the pixels are the embedding, bright is evidence."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from fxeval.run.self_check import Planted
from fxeval.statistics.self_check import KNOWN_MAPS
from fxeval.tests.planted_people import Planted as PlantedPeople
from fxeval.tests.planted_people import pixels

N = 40


@dataclass(frozen=True)
class KnownMap:
    """What each pixel adds to the inner product with the reference, and worse maps."""

    which: str

    def explain(self, model, probes, references, *, contrast=None, generator):
        oracle = (probes * references).sum(1)
        if self.which == "random":
            return torch.stack([noise(probe) for probe in probes])
        if self.which == "blurred_oracle":
            wide = avg_pool2d(oracle[:, None], 7, 1, 3, count_include_pad=False)[:, 0]
            return wide + 0.02 * torch.stack([noise(probe) for probe in probes])
        return -oracle if self.which == "inverse" else oracle


def noise(probe):
    """Return a map that is drawn by the content of an image."""
    digest = hashlib.sha256(probe.numpy().tobytes()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return torch.from_numpy(generator.random(tuple(probe.shape[1:])).astype(np.float32))


def small_ground() -> Planted:
    """Return the network, its known maps and its people."""
    explainers = {known: KnownMap(known) for known in KNOWN_MAPS}
    return Planted(pixels(), explainers, PlantedPeople(N), "pixels of planted people")


CONFTEST = """

import fxeval.run.self_check
from fxeval.tests.planted_ground import small_ground


@pytest.fixture(autouse=True)
def small_planted_network(monkeypatch):
    monkeypatch.setattr(fxeval.run.self_check, "planted", small_ground)
"""
"""Added to the conftest of a run: its metrics are checked in this world."""

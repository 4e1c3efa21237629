"""How much longer deletion and insertion take than the forward passes they are made of.

    python -m pytest fxeval/tests/benchmarks -m slow --benchmark-enable --benchmark-json=FILE

Work: 16 pairs of random 150 x 150 images, one map each, 50 steps, blurred fill, areas under both
curves; the dlib model, from the extra ``fxeval[dlib]``. torchcam and Quantus (``.ci/oracles``) do
the same where they are installed. In every round each contestant follows a bare run: the network
alone on as many images as the contestant forwards. Bare runs, fxeval and torchcam use the batch
size that was fastest at the start; Quantus' batch is the pairs. The figures to read are in
``extra_info`` of FILE: the median of wall / bare over the rounds. Of a busy machine believe ratios,
not milliseconds. Nothing is asserted about time but that it is no disaster.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from fxeval.contracts import FaceModel, Pairs
from fxeval.engine.forward_pool import ForwardPool
from fxeval.functional.fill_images import fill_images
from fxeval.functional.ranking import ranks
from fxeval.metrics.removal_curves import area, trace
from fxeval.metrics.threshold_crossings import crossings
from fxeval.models.networks.dlib_resnet import load_dlib_resnet
from fxeval.tests.evidence import evidence_of, removal
from fxeval.tests.peers import MaskedPairs, quantus_curves, torchcam_areas
from fxeval.tests.subjects import make_pairs

N_PAIRS, STEPS, ROUNDS = 16, 50, 5
BATCH_SIZES = (8, 16, 32, 64, 128)
DISASTER = 3.0  # wall / bare that even a busy machine does not excuse

Areas = tuple[float, float]  # mean under deletion, mean under insertion


@dataclass
class Contestant:
    """A way to do the work, and what it took in each round."""

    run: Callable[[], Areas]
    images: int = 0  # forwarded in one run
    areas: Areas = (np.nan, np.nan)
    wall: list[float] = field(default_factory=list)  # seconds, per round
    bare: list[float] = field(default_factory=list)  # of the bare run before it

    def timed(self) -> None:
        start = time.perf_counter()
        self.run()
        self.wall.append(time.perf_counter() - start)


class Work:
    """The model, the pairs and the maps that all contestants share."""

    def __init__(self) -> None:
        self.model: FaceModel = load_dlib_resnet()
        self.pairs: Pairs = make_pairs(N_PAIRS, crop=self.model.crop)
        generator = torch.Generator().manual_seed(0)
        size = self.model.crop.size
        n = size[0] * size[1]
        order = [torch.randperm(n, generator=generator) for _ in range(N_PAIRS)]
        self.maps = torch.stack(order).reshape(-1, *size) / n  # no ties: one order for everybody
        self.probes = self.pairs.images[self.pairs.probe].float() / 255
        references = self.pairs.images[self.pairs.reference].float() / 255
        self.references = self.model.embed(references)
        self.best = self._best_batch_size()

    def bare_seconds(self, images: int, batch_size: int) -> float:
        """Run the network alone; its images lie ready."""
        batch = self.probes.repeat(-(-batch_size // N_PAIRS), 1, 1, 1)[:batch_size]
        start = time.perf_counter()
        with torch.inference_mode():
            for done in range(0, images, batch_size):
                self.model.module(batch[: images - done])
        return time.perf_counter() - start

    def _best_batch_size(self) -> int:
        """The batch size with the fastest bare run; three turns each."""
        turns = [[self.bare_seconds(256, size) for size in BATCH_SIZES] for _ in range(3)]
        return BATCH_SIZES[int(np.min(turns, axis=0).argmin())]

    def fxeval(self) -> Areas:
        """Rank, trace, integrate and find the crossings, with a pool that remembers nothing."""
        pool = ForwardPool(batch_size=self.best)
        model, pairs = self.model, self.pairs
        evidence = evidence_of(pairs, model, threshold=model.operating_threshold, pool=pool)
        order = ranks(self.maps, range(N_PAIRS))
        removed = removal(evidence, order, "blur")
        found = trace(removed, STEPS)
        crossings(removed, found, None)
        deletion, insertion = area(found.fraction, found.answer).mean(axis=0)
        return float(deletion), float(insertion)

    def torchcam(self) -> Areas:
        return torchcam_areas(
            self.model.module,
            self.probes,
            self.references,
            self.maps,
            steps=STEPS,
            baseline=lambda images: fill_images(images, "blur"),
            batch_size=self.best,
        )

    def quantus(self) -> Areas:
        """Both curves, one after the other; the start each lacks is the end of the other."""
        fillers = fill_images(self.probes, "blur")
        pairs = MaskedPairs(self.model.module, self.probes, fillers, self.references)
        deletion, insertion = (
            quantus_curves(pairs, self.maps, steps=STEPS, deletes=deletes)[0]
            for deletes in (True, False)
        )
        fraction = np.linspace(0, 1, STEPS + 1)
        deletion, insertion = (
            np.concatenate([insertion[:, -1:], deletion], axis=1),
            np.concatenate([deletion[:, -1:], insertion], axis=1),
        )
        return float(area(fraction, deletion).mean()), float(area(fraction, insertion).mean())

    def warm_up(self, contestant: Contestant) -> None:
        """Run a contestant once and count the images that pass the network."""

        def count(_: torch.nn.Module, inputs: tuple[Tensor]) -> None:
            contestant.images += len(inputs[0])

        handle = self.model.module.register_forward_pre_hook(count)
        contestant.areas = contestant.run()
        handle.remove()


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def report(contestants: dict[str, Contestant], work: Work) -> dict[str, object]:
    """Ratios of every contestant: its wall to its own bare run, and to that of fxeval's images."""
    ours = contestants["fxeval"]
    found: dict[str, object] = {
        "batch_size_of_bare": work.best,
        "torch_threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
    }
    for name, one in contestants.items():
        bare = np.array(one.bare)
        ratios = np.array(one.wall) / bare
        found[name] = {
            "images": one.images,
            "wall_to_bare": round(float(np.median(ratios)), 3),
            "wall_to_bare_of_rounds": np.round(ratios, 3).tolist(),
            "wall_to_bare_of_fxevals_images": round(
                float(np.median(ratios * one.images / ours.images)), 3
            ),
            "bare_ms_per_image": round(1e3 * float(np.median(bare)) / one.images, 3),
        }
    return found


@pytest.mark.slow
@pytest.mark.skipif(not installed("face_recognition_models"), reason="needs fxeval[dlib]")
def test_sixteen_pairs_in_fifty_steps(benchmark):
    work = Work()
    ours = Contestant(work.fxeval)
    contestants = {"fxeval": ours}
    if installed("torchcam"):
        contestants["torchcam"] = Contestant(work.torchcam)
    if installed("quantus"):
        contestants["quantus"] = Contestant(work.quantus)
    for one in contestants.values():
        work.warm_up(one)
        # The same work, or the comparison would mean nothing.
        assert np.allclose(one.areas, ours.areas, rtol=0, atol=1e-5)  # the same work, roughly

    def before() -> None:
        for one in contestants.values():
            if one is not ours:
                one.bare.append(work.bare_seconds(one.images, work.best))
                one.timed()
        ours.bare.append(work.bare_seconds(ours.images, work.best))

    benchmark.pedantic(ours.timed, setup=before, rounds=ROUNDS)
    benchmark.extra_info.update(report(contestants, work))
    for one in contestants.values():
        assert statistics.median(one.wall) < DISASTER * statistics.median(one.bare)

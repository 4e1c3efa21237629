"""FGGB against the loops it replaces: D backward passes for every pair, one dimension at a time.

Run with ``pytest -m slow fxeval/tests/benchmarks/test_fggb.py --benchmark-json=FILE``. All
contestants make the same maps of the same pairs in every round; ``extra_info`` holds their seconds
relative to fxeval's, the median over the rounds: 2 = takes twice as long.

* ``loop``: pair by pair, one backward pass per dimension.
* ``loop_over_rows``: all pairs in one batch, one backward pass per dimension.
* ``is_grads_batched``: pair by pair, 32 dimensions under vmap.

On one CPU thread all four are bound by the same convolutions: no contestant can be much faster than
the network's forward pass in large batches. With many pairs the second is as well fed as fxeval and
takes as long. Nothing is asserted about time but that it is no disaster.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import FaceModel
from fxeval.explainers.xssab_fggb import FGGB
from fxeval.fixtures.synthetic.evaluate import DATA
from fxeval.models.from_card import load_card
from fxeval.models.networks.dlib_resnet import load_dlib_resnet
from fxeval.tests.subjects import make_pairs

ROUNDS, CHUNK = 3, 32
TAU = 0.4
DISASTER = 3.0  # seconds of fxeval per second of the loop that even a busy machine does not excuse


class Work:
    """A model, the pairs, and every way to make their maps; (n, H, W), signed."""

    def __init__(self, model: FaceModel, n_pairs: int) -> None:
        self.model, self.module = model, model.module
        images = make_pairs(n_pairs, crop=model.crop).images.float() / 255
        self.probes, self.references = images[:n_pairs], images[n_pairs:]
        self.units = F.normalize(model.embed(self.references), dim=1)

    def fxeval(self) -> Tensor:
        maps = FGGB(operating_threshold=TAU).explain(
            self.model, self.probes, self.references, generator=np.random.default_rng(0)
        )
        return maps.positive - maps.negative

    def _traced(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        leaf = self.probes[rows].clone().requires_grad_()
        unit = F.normalize(self.module(leaf), dim=1)
        return leaf, unit, (unit * self.units[rows]).detach() - TAU / unit.shape[1]

    def _loop(self, rows: slice) -> Tensor:
        leaf, unit, excess = self._traced(rows)
        total = torch.zeros_like(leaf[:, 0])
        for k in range(unit.shape[1]):
            (one,) = torch.autograd.grad(unit[:, k].sum(), leaf, retain_graph=True)
            total += weighted(one, excess[:, k])
        return total

    def loop(self) -> Tensor:
        return torch.cat([self._loop(slice(row, row + 1)) for row in range(len(self.probes))])

    def loop_over_rows(self) -> Tensor:
        return self._loop(slice(None))

    def is_grads_batched(self) -> Tensor:
        found = []
        for row in range(len(self.probes)):
            leaf, unit, excess = self._traced(slice(row, row + 1))
            total = torch.zeros_like(leaf[:, 0])
            for pulls, weights in zip(
                torch.eye(unit.shape[1]).split(CHUNK), excess[0].split(CHUNK), strict=True
            ):
                (some,) = torch.autograd.grad(
                    unit, leaf, pulls[:, None], retain_graph=True, is_grads_batched=True
                )
                total += weighted(some[:, 0], weights).sum(dim=0)
            found.append(total)
        return torch.cat(found)


def weighted(gradients: Tensor, weights: Tensor) -> Tensor:
    sizes = gradients.abs().mean(dim=1)
    norms = torch.linalg.vector_norm(sizes.flatten(1), dim=1) + 1e-8
    return sizes * (weights / norms)[:, None, None]


def timed(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def dlib() -> FaceModel:
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("needs fxeval[dlib]")
    return load_dlib_resnet()


def mini() -> FaceModel:
    return load_card(DATA / "cards" / "mini_resnet.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("n_pairs", [1, 16])
@pytest.mark.parametrize("load", [mini, dlib], ids=["mini_resnet", "dlib_resnet"])
def test_a_map_of_128_dimensions(benchmark, load, n_pairs):
    work = Work(load(), n_pairs)
    others = [work.loop, work.loop_over_rows, work.is_grads_batched]
    expected = work.fxeval()
    for other in others:
        # The same work, or the comparison would mean nothing. Not pixel by pixel: in another batch
        # rounding can push a unit across its kink.
        assert float((other() - expected).norm()) < 1e-3 * float(expected.norm())
    ours: list[float] = []
    walls: dict[str, list[float]] = {other.__name__: [] for other in others}

    def before() -> None:
        for other in others:
            walls[other.__name__].append(timed(other))

    benchmark.pedantic(lambda: ours.append(timed(work.fxeval)), setup=before, rounds=ROUNDS)
    benchmark.extra_info.update(
        {
            "torch_threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
            "fxeval_seconds_per_pair": round(statistics.median(ours) / n_pairs, 3),
            **{
                f"{name}_to_fxeval": round(float(np.median(np.divide(wall, ours))), 2)
                for name, wall in walls.items()
            },
        }
    )
    assert statistics.median(ours) < DISASTER * statistics.median(walls["loop"])

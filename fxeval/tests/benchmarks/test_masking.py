"""S-RISE over triplets against the loop over pairs that it replaces.

    python -m pytest fxeval/tests/benchmarks/test_masking.py -m slow --benchmark-enable \\
        --benchmark-json=FILE

Work: 20 triplets of an anchor, a mate and a nonmate, no image in two of them; both maps of (anchor,
mate) and both of (anchor, nonmate), 64 masks, the bundled MiniResNet on random 112 x 112 images.
The loop masks and embeds the probe of every map anew; fxeval goes through a pool, which embeds the
anchor once for both of its maps. Both draw nothing (the masks lie ready), have the same batch size
and make the same maps. They take turns in every round. The figures to read are in ``extra_info`` of
FILE: how many images each forwards, their ratio, and the median of the ratio of seconds, loop /
fxeval, which should be that of the images. Of a busy machine believe ratios, not milliseconds.
Nothing is asserted about time but that it is no disaster.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.explainers.s_rise import SRISE, mask_bank
from fxeval.fixtures.synthetic.evaluate import DATA
from fxeval.functional.similarity import similarity
from fxeval.models.from_card import load_card
from fxeval.seeding import generator_of
from fxeval.tests.subjects import make_pairs

TRIPLETS, MASKS, BATCH_SIZE, ROUNDS = 20, 64, 32, 3
DISASTER = 1.5  # seconds of fxeval per second of the loop that even a busy machine does not excuse


class Work:
    """The model, the triplets, and two ways to their four maps each; (4 * TRIPLETS, H, W)."""

    def __init__(self) -> None:
        self.model = load_card(DATA / "cards" / "mini_resnet.yaml")
        images = make_pairs(3 * TRIPLETS, crop=self.model.crop).images.float() / 255
        anchor, mate, nonmate = images[: 3 * TRIPLETS].split(TRIPLETS)
        self.lists = [(anchor, mate), (mate, anchor), (anchor, nonmate), (nonmate, anchor)]
        self.explainer = SRISE(masks=MASKS)
        self.masks = mask_bank(self._generator(), self.explainer, self.model.crop.size).masks
        self.images = {"loop": 0, "fxeval": 0}  # forwarded in the last run of each

    @staticmethod
    def _generator() -> np.random.Generator:
        return generator_of(0, "explain", *ARCFACE_112.size)

    def fxeval(self) -> Tensor:
        pool = ForwardPool(batch_size=BATCH_SIZE)  # remembers nothing of the round before
        model = PooledModel(self.model, pool, self.model.digest)
        maps = [
            self.explainer.explain(model, probes, references, generator=self._generator()).positive
            for probes, references in self.lists
        ]
        self.images["fxeval"] = pool.forwards
        return torch.cat(maps)

    def loop(self) -> Tensor:
        self.images["loop"] = 0
        return torch.stack(
            [
                self._map(probe, reference)
                for probes, references in self.lists
                for probe, reference in zip(probes, references, strict=True)
            ]
        )

    def _map(self, probe: Tensor, reference: Tensor) -> Tensor:
        other = self._embed(reference[None])
        total = torch.zeros_like(probe[0], dtype=torch.float64)
        for masks in self.masks.split(BATCH_SIZE):
            hidden = self._embed(probe * masks[:, None])
            weights = similarity(self.model.similarity, hidden, other.expand_as(hidden))
            total += torch.einsum("n,nhw->hw", weights, masks.double())
        return total.float()

    def _embed(self, images: Tensor) -> Tensor:
        self.images["loop"] += len(images)
        return self.model.embed(images)


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


@pytest.mark.slow
def test_both_maps_of_both_pairs_of_triplets(benchmark):
    work = Work()
    loop: list[tuple[float, Tensor]] = []
    ours: list[tuple[float, Tensor]] = []
    work.model.embed(work.lists[0][0][:BATCH_SIZE])
    benchmark.pedantic(
        lambda: ours.append(timed(work.fxeval)),
        setup=lambda: loop.append(timed(work.loop)),
        rounds=ROUNDS,
    )
    # The same work, or the comparison would mean nothing.
    for (_, expected), (_, found) in zip(loop, ours, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)  # the same work, roughly
    of_loop, of_fxeval = work.images["loop"], work.images["fxeval"]
    assert of_loop == 4 * TRIPLETS * (MASKS + 1)
    assert of_fxeval == 3 * TRIPLETS * MASKS + 4 * TRIPLETS
    ratios = [one / other for (one, _), (other, _) in zip(loop, ours, strict=True)]
    benchmark.extra_info.update(
        {
            "torch_threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
            "images_of_loop": of_loop,
            "images_of_fxeval": of_fxeval,
            "images_loop_to_fxeval": round(of_loop / of_fxeval, 3),
            "seconds_loop_to_fxeval": round(statistics.median(ratios), 3),
            "seconds_loop_to_fxeval_of_rounds": np.round(ratios, 3).tolist(),
        }
    )
    assert statistics.median(ratios) > 1 / DISASTER

"""The fill of ROAD against that of pytorch-grad-cam, on the same images and removed pixels.

    OMP_NUM_THREADS=1 python -m pytest fxeval/tests/benchmarks/test_road.py -m slow \
        --benchmark-enable --benchmark-json=FILE

Work: 16 images of 112 x 112 pixels with 10, 20, ... 90 % of their pixels removed, with noise:
144 fills. Pixels are removed in the order of smooth maps (regions), as those of class activation
maps, or of noise (scattered). In every round each contestant runs once, in turn. The figures to
read are in ``extra_info`` of FILE: the median of peer / fxeval over the rounds, and the largest
difference of the fills without their noise. Of a busy machine believe ratios.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fxeval.functional.road import NOISE, Road, imputed
from fxeval.tests.functional.test_road import faces, removed_of
from fxeval.tests.peers import pytorch_grad_cam_imputed

N, SIDE, LEVELS, ROUNDS = 16, 112, tuple(tenths / 10 for tenths in range(1, 10)), 3
DISASTER = 1.0  # fxeval / peer that even a busy machine does not excuse


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["regions", "scattered"])
def test_nine_levels_of_sixteen_images(benchmark, monkeypatch, shape):
    images = faces(N, SIDE)
    levels = [removed_of(shape, level, N, SIDE) for level in LEVELS]
    wall: list[float] = []
    peer_wall: list[float] = []

    def ours() -> None:
        noise = Road().prepare(images)
        for removed in levels:
            Road().apply(images, noise, removed)

    def theirs(noise: float = NOISE) -> list[Tensor]:
        return [
            pytorch_grad_cam_imputed(monkeypatch, images, removed, noise=noise)
            for removed in levels
        ]

    def timed(run: Callable[[], object], walls: list[float]) -> None:
        start = time.perf_counter()
        run()
        walls.append(time.perf_counter() - start)

    difference = max(
        float((imputed(images, removed) - expected).abs().max())
        for removed, expected in zip(levels, theirs(noise=0.0), strict=True)
    )
    assert difference <= 2e-3  # the same fill, or the comparison would mean nothing
    ours()
    benchmark.pedantic(
        lambda: timed(ours, wall), setup=lambda: timed(theirs, peer_wall), rounds=ROUNDS
    )
    ratios = np.array(peer_wall) / np.array(wall)
    benchmark.extra_info.update(
        {
            "peer_to_fxeval": round(float(np.median(ratios)), 2),
            "peer_to_fxeval_of_rounds": np.round(ratios, 2).tolist(),
            "fxeval_ms_per_fill": round(1e3 * statistics.median(wall) / len(levels) / N, 2),
            "largest_difference": difference,
            "torch_threads": torch.get_num_threads(),
            "load_average": os.getloadavg()[0],
        }
    )
    assert statistics.median(wall) < DISASTER * statistics.median(peer_wall)

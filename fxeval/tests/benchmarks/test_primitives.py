"""Ranking, removal and rank correlation, one call each.

    python -m pytest fxeval/tests/benchmarks/test_primitives.py -m slow --benchmark-enable

Absolute times of this machine: believe them beside each other, within one run.
"""

import pytest
import torch

from fxeval.functional.fills import SHIPPED_FILLS, removed_pixels
from fxeval.functional.map_similarity import spearman
from fxeval.functional.ranking import ranks

pytestmark = pytest.mark.slow


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_speed_of_ranking(benchmark):
    benchmark(ranks, random(16, 112, 112), list(range(16)))


def test_speed_of_ranking_with_ties(benchmark):
    benchmark(ranks, (random(16, 112, 112) - 0.5).clamp_min(0), list(range(16)))


def test_speed_of_removal(benchmark):
    images, fillers = random(64, 3, 150, 150), random(64, 3, 150, 150, seed=1)
    order = ranks(images[:, 0], list(range(64)))
    first, last = torch.zeros(64, dtype=torch.int64), torch.full((64,), 7000)
    size = (images.shape[2], images.shape[3])

    def remove():
        removed = removed_pixels(order, first, last, size)
        return SHIPPED_FILLS["blur"].apply(images, fillers, removed)

    benchmark(remove)


def test_speed_of_spearman(benchmark):
    maps = random(16, 12544)
    benchmark(spearman, maps, maps.flip(0))

"""The earth mover's distance agrees with POT, which ``.ci/oracles`` installs."""

import numpy as np
import pytest
import torch

from fxeval.functional.map_patterns import CELLS, HEIGHT, emd_2d, patterns
from fxeval.tests.functional.test_map_patterns import FIRST, OTHERS, drawn, golden_patterns

pytestmark = pytest.mark.oracle


def by_pot(one: torch.Tensor, other: torch.Tensor) -> list[float]:
    """Distances of patterns whose sides are multiples of 14, none of their mass left in place."""
    ot = pytest.importorskip("ot", reason="POT is absent: run .ci/oracles")
    rows, columns = np.mgrid[:CELLS, :CELLS].reshape(2, -1).astype(np.float64)
    ground = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    found = []
    for pair in zip(one, other, strict=True):
        masses = [
            p.reshape(CELLS, p.shape[0] // CELLS, CELLS, -1).sum((1, 3)).numpy() for p in pair
        ]
        a, b = (mass.ravel() / mass.sum() for mass in masses)
        found.append(float(ot.emd2(a, b, ground)) * HEIGHT / CELLS)
    return found


def maps_of(kind: str) -> torch.Tensor:
    noise = torch.rand(6, 56, 56, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if kind == "noise":
        return noise
    if kind == "peaks":
        return (9 * noise).exp()
    if kind == "nearly equal":
        return drawn(2, n=1, size=(56, 56)) + 1e-3 * noise
    if kind == "checkerboards":
        places = torch.arange(56) // 4
        board = ((places[:, None] + places) % 2).double()
        return torch.stack([board, 1 - board] * 3) + 0.01 * noise
    return drawn(3, n=6, size=(56, 56))


def test_the_golden_maps_are_as_far_apart():
    one, other = golden_patterns(1.0)
    assert len(FIRST) == len(OTHERS) == 3
    assert emd_2d(one, other) == pytest.approx(by_pot(one, other), abs=6e-5)


@pytest.mark.parametrize("fraction", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("kind", ["noise", "peaks", "nearly equal", "checkerboards", "smooth"])
def test_maps_of_every_kind_are_as_far_apart(kind, fraction):
    found = patterns(maps_of(kind), fraction, range(6))
    one, other = found[:3], found[3:]
    expected = by_pot(one, other)
    assert emd_2d(one, other) == pytest.approx(expected, rel=3e-6, abs=6e-5)
    assert min(expected) > 0 or (kind == "nearly equal" and fraction < 1.0)  # the same pixels

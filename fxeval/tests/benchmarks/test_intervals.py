"""What it costs to estimate and judge a cell, and to decide many simulated verdicts.

Run with ``pytest -m slow fxeval/tests/benchmarks/test_intervals.py --benchmark-json=FILE``. Nothing
is asserted about time.

* ``a_cell``: 60 samples of 100 identities, a third of each kind, rates by Gaffke's bound.
* ``limits_of_a_cell``: p-value, detectable difference, what would settle it, and whether it hangs
  on one identity, for each of these samples.
* ``simulated_verdicts``: 10,000 samples of 100 identities against a line, without solving.
"""

import math

import numpy as np
import pytest

from fxeval.results import ValueKind
from fxeval.statistics.estimate import Law, Sample, estimates, tails
from fxeval.statistics.intervals import clears
from fxeval.statistics.settling import detectable, hangs_on_one, settles

pytestmark = pytest.mark.slow

IDENTITIES = 100
LAWS = [
    Law("mean", "light", 0.0, 1.0),
    Law("mean", "heavy", 0.0, math.inf),
    Law("mean", "rate", 0.0, 1.0),
] * 20
LINES: dict[ValueKind, float] = {"light": 0.26, "heavy": 1.4, "rate": 0.08}


def drawn(kind: ValueKind, generator: np.random.Generator, *shape: int) -> np.ndarray:
    if kind == "rate":
        return (generator.random(shape) < 0.05).astype(float)
    return generator.beta(3, 9, shape) if kind == "light" else generator.lognormal(size=shape)


def cell() -> list[Sample]:
    generator, people = np.random.default_rng(0), np.arange(IDENTITIES)
    return [Sample(drawn(law.kind, generator, IDENTITIES), people) for law in LAWS]


def test_a_cell(benchmark):
    samples = cell()
    found = benchmark(lambda: estimates(samples, LAWS, 0.95))
    assert all(one.low <= one.value <= one.high for one in found)


def test_limits_of_a_cell(benchmark):
    samples = cell()
    found = estimates(samples, LAWS, 0.95)

    def explained():
        for sample, law, one in zip(samples, LAWS, found, strict=True):
            region = (-math.inf, LINES[law.kind])
            yield (
                tails(sample, law, region[1]),
                detectable(one, law, region),
                settles(sample, law, one, region, 30),
                hangs_on_one(sample, law, region, 0.95),
            )

    assert len(benchmark(lambda: [*explained()])) == len(LAWS)


@pytest.mark.parametrize("kind", ["light", "heavy", "rate"])
def test_simulated_verdicts(benchmark, kind):
    y = drawn(kind, np.random.default_rng(1), 10_000, IDENTITIES)
    edges = (0.0, math.inf if kind == "heavy" else 1.0)
    above, below = benchmark.pedantic(
        lambda: clears(y, kind, edges, LINES[kind]), rounds=2, iterations=1
    )
    assert not (above & below).any()
    assert 0 < below.sum() < len(y)

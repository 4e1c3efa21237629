"""How long 10,000 simulated verdicts take, decided by their p-values and through the interval.

python -m pytest fxeval/tests/benchmarks/test_verdicts.py -m slow --benchmark-enable
"""

import pytest

from fxeval.statistics.estimate import Law, Sample, estimates
from fxeval.statistics.intervals import interval_tails
from fxeval.statistics.limits import AtMost
from fxeval.statistics.verdict import judge
from fxeval.tests.simulations.designs import Design
from fxeval.tests.simulations.laws import beta, rate
from fxeval.tests.simulations.run import rows_of

pytestmark = pytest.mark.slow

VERDICTS = 10_000
POPULATIONS = {
    "S, light": beta(3, 9, "light"),
    "B, rates": rate(0.2),
    "B, areas": beta(3, 9, "rate"),
}


def drawn(name: str):
    """Return the population and the rows of 10,000 lists of 100 identities, 1 to 20 rows each."""
    found = rows_of(POPULATIONS[name], Design(100, "1 to 20 rows", 0.3), VERDICTS, "benchmark")
    return POPULATIONS[name], found


@pytest.mark.parametrize("name", POPULATIONS)
def test_speed_of_verdicts_by_their_p_values(benchmark, name):
    population, found = drawn(name)
    means = [rows.means() for rows in found]

    def verdicts():
        for y in means:
            interval_tails(y, population.kind, 0.0, 1.0, population.mean)

    benchmark.pedantic(verdicts, rounds=3)


@pytest.mark.parametrize("name", POPULATIONS)
def test_speed_of_verdicts_through_estimates(benchmark, name):
    population, found = drawn(name)
    samples = [Sample(*one) for rows in found for one in rows.runs()]
    limit, law = AtMost("area", at_most=population.mean), Law("mean", population.kind, 0.0, 1.0)

    def verdicts():
        for start in range(0, VERDICTS, 250):
            some = samples[start : start + 250]
            for one in estimates(some, [law] * len(some), 0.95):
                judge(limit, one)

    benchmark.pedantic(verdicts, rounds=1)

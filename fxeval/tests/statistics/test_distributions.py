import math

import numpy as np
import pytest
from scipy import stats

from fxeval.statistics.distributions import (
    beta_cdf,
    beta_quantile,
    normal_quantile,
    t_quantile,
    t_tail,
)

SHAPES = [(0.5, 0.5), (1, 1), (2.5, 4.5), (0.7, 20), (30, 0.2), (3, 98), (400, 3000), (1e4, 1)]


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95, 0.96, 0.99, 0.9999])
def test_the_t_quantile_is_scipys(confidence):
    for freedom in (*range(1, 60), 99, 100, 499, 2999, 20000):
        expected = stats.t.ppf((1 + confidence) / 2, freedom)
        assert t_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 29, 99, 4999])
def test_the_tail_of_t_is_scipys_however_small(freedom):
    for t in (1e-9, 0.1, 1.0, 2.0, 8.0, 40.0, 1e5):
        expected = 2 * stats.t.sf(t, freedom)
        assert t_tail(t, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert (t_tail(0.0, freedom), t_tail(-1.0, freedom), t_tail(math.inf, freedom)) == (1, 1, 0)


def test_the_normal_quantile_is_scipys():
    for confidence in (0.5, 0.95, 0.99, 0.99999):
        expected = stats.norm.ppf((1 + confidence) / 2)
        assert normal_quantile(confidence) == pytest.approx(expected, rel=1e-12)


def test_the_beta_distribution_has_its_golden_numbers():
    assert beta_cdf(0.3, 2.5, 4.5) == pytest.approx(0.40653902, abs=5e-9)
    assert beta_cdf(0.01, 0.7, 20) == pytest.approx(0.32860792, abs=5e-9)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_beta_distribution_is_scipys(a, b):
    for x in (-1.0, 0.0, 1e-300, 1e-5, 0.01, 0.3, 0.5, 0.9, 0.99999, 1.0, 2.0):
        assert beta_cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_quantile_of_beta_does_not_exceed_its_probability(a, b):
    for probability in (1e-6, 0.005, 0.025, 0.5, 0.975, 0.999):
        found = beta_quantile(probability, a, b)
        assert found == pytest.approx(stats.beta.ppf(probability, a, b), rel=1e-9, abs=1e-14)
        assert beta_cdf(found, a, b) <= probability
        above = float(np.nextafter(found, 2.0))
        assert above == 1.0 or beta_cdf(above, a, b) >= probability

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.statistics.estimate import (
    mean_estimate,
    median_estimate,
    median_rank,
    paired,
)


def test_a_worked_example_of_the_mean():
    # identity means 1, 3, 8: mean 4, SD sqrt(13), t(0.95, 2) = 4.30265272991
    values = np.array([0.0, 2.0, 3.0, 8.0, 8.0, 8.0])
    found = mean_estimate(values, np.array([7, 7, -2, 5, 5, 5]), 0.95)
    half_width = 4.30265272991 * math.sqrt(13 / 3)
    assert (found.value, found.n_pairs, found.n_identities) == (4.0, 6, 3)
    assert (found.low, found.high) == pytest.approx((4 - half_width, 4 + half_width), rel=1e-9)
    assert found.method == "cluster-robust t over identities"
    assert found.confidence == 0.95


def test_with_one_pair_per_identity_the_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=40)
    found = mean_estimate(values, np.arange(40), 0.9)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-9)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_estimates_do_not_depend_on_the_order_or_names_of_anything(rows, random):
    shuffled = random.sample(rows, len(rows))
    names = random.sample(range(100), 6)
    for estimate in (mean_estimate, median_estimate):
        one = estimate(np.array([v for v, _ in rows]), np.array([i for _, i in rows]), 0.95)
        two = estimate(
            np.array([v for v, _ in shuffled]), np.array([names[i] for _, i in shuffled]), 0.95
        )
        for a, b in ((one.value, two.value), (one.low, two.low), (one.high, two.high)):
            assert a == pytest.approx(b, abs=1e-12, nan_ok=True)
        assert math.isnan(one.low) or one.low <= one.value <= one.high


def test_copying_every_row_adds_no_evidence():
    values, identities = np.random.default_rng(1).normal(size=40), np.repeat(np.arange(20), 2)
    for estimate in (mean_estimate, median_estimate):
        once = estimate(values, identities, 0.95)
        thrice = estimate(np.tile(values, 3), np.tile(identities, 3), 0.95)
        assert thrice.low == pytest.approx(once.low)
        assert thrice.high == pytest.approx(once.high)


@pytest.mark.parametrize("icc", [0.0, 0.1, 0.3])
def test_intervals_of_50_identities_cover_the_truth_as_often_as_they_promise(icc):
    rng, runs, pairs = np.random.default_rng(2), 3000, 4
    identities = np.repeat(np.arange(50), pairs)
    mean_covers = median_covers = 0
    for _ in range(runs):
        of_identity = rng.normal(scale=math.sqrt(icc), size=50)[identities]
        values = of_identity + rng.normal(scale=math.sqrt(1 - icc), size=50 * pairs)
        found = mean_estimate(values, identities, 0.95)
        mean_covers += found.low <= 0.0 <= found.high
    assert 0.93 <= mean_covers / runs <= 0.97
    for _ in range(runs // 5):
        values = rng.normal(scale=math.sqrt(icc), size=50)[identities]
        values = values + rng.normal(scale=math.sqrt(1 - icc), size=50 * pairs)
        found = median_estimate(values, identities, 0.95)
        median_covers += found.low <= 0.0 <= found.high
    assert median_covers / (runs // 5) >= 0.94


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 30, 31, 50, 200, 1001])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_the_median_interval_is_the_narrowest_with_the_confidence(n, confidence):
    rank, coverage = median_rank(confidence, n)

    def exact(r):
        return 1.0 - 2.0 * stats.binom.cdf(r - 1, n, 0.5)

    if rank:
        assert coverage == pytest.approx(exact(rank), abs=1e-12)
        assert coverage >= confidence
    if rank + 1 <= n // 2:
        assert exact(rank + 1) < confidence


def test_a_worked_example_of_the_median():
    # 6 identity medians: the whole range covers the median with 1 - 2 / 64 = 96.9 %
    values = np.array([5.0, 1.0, 9.0, 3.0, 4.0, 2.0, 100.0, 3.0])
    found = median_estimate(values, np.array([0, 1, 2, 3, 4, 5, 5, 5]), 0.95)
    assert (found.value, found.low, found.high) == (3.5, 1.0, 9.0)
    assert found.method == (
        "median of identity medians, order statistics 1 and 6 of 6 (coverage at least 96.8 %)"
    )


def test_too_few_identities_have_no_interval():
    one = mean_estimate(np.array([1.0, 2.0]), np.array([3, 3]), 0.95)
    assert one.value == 1.5
    five = median_estimate(np.arange(5.0), np.arange(5), 0.95)
    assert five.value == 2.0
    assert "no interval with 5 identities" in five.method
    for found in (one, five):
        assert math.isnan(found.low)
        assert math.isnan(found.high)


@pytest.mark.parametrize("estimate", [mean_estimate, median_estimate])
@pytest.mark.parametrize(
    ("values", "identities", "confidence", "message"),
    [
        ([1.0, math.nan], [0, 1], 0.95, "1 of 2 NaN"),
        ([1.0, math.inf], [0, 1], 0.95, "NaN or infinite"),
        ([], [], 0.95, "one length"),
        ([1.0], [0, 1], 0.95, "one length"),
        ([[1.0]], [[0]], 0.95, "one length"),
        ([1.0], [0], 1.0, "confidence"),
        ([1.0], [0], math.nan, "confidence"),
    ],
)
def test_values_that_are_no_evidence_are_refused(estimate, values, identities, confidence, message):
    with pytest.raises(ValueError, match=message):
        estimate(np.array(values), np.array(identities), confidence)


def test_an_improvement_is_positive_where_the_explainer_is_better():
    values, control = np.array([0.2, 0.5, math.nan]), np.array([0.3, 0.1, 0.0])
    assert paired(values, control, "lower") == pytest.approx([0.1, -0.4, math.nan], nan_ok=True)
    assert paired(values, control, "higher") == pytest.approx([-0.1, 0.4, math.nan], nan_ok=True)
    with pytest.raises(ValueError, match="got 'less'"):
        paired(values, control, "less")
    with pytest.raises(ValueError, match="equal shapes"):
        paired(values, control[:2], "lower")

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.statistics.crossed import crossed
from fxeval.statistics.estimate import (
    Law,
    Sample,
    estimate,
    estimates,
    median_rank,
    paired,
    tails,
)
from fxeval.statistics.intervals import gaffke, interval, skew_t

LIGHT = Law("mean", "light", 0.0, 1.0)
RATE = Law("mean", "rate", 0.0, 1.0)
MEDIAN = Law("median", "light", 0.0, 1.0)
Y = np.arange(1, 31) / 31


def of(values, identities=None, is_mated=None):
    values = np.asarray(values, dtype=np.float64)
    people = np.arange(len(values)) if identities is None else np.asarray(identities)
    return Sample(values, people, is_mated)


def ends(found):
    return found.low, found.high


def test_a_mean_is_that_of_the_people_and_its_interval_that_of_their_means():
    # People of one to three rows, whose means are 1 / 31 to 30 / 31.
    sizes = np.arange(30) % 3 + 1
    people = np.repeat(np.arange(30), sizes)
    around = np.concatenate([np.arange(m) - (m - 1) / 2 for m in sizes]) / 1000
    found = estimate(of(Y[people] + around, people), LIGHT, 0.95)
    assert found.value == pytest.approx(0.5)
    assert ends(found) == pytest.approx((0.38086720, 0.61913280), abs=5e-9)
    assert (found.n_pairs, found.n_identities, found.confidence) == (60, 30, 0.95)
    assert found.spread == pytest.approx(Y.std(ddof=1))
    assert found.effective_identities == pytest.approx(60**2 / (10 * (1 + 4 + 9)))
    assert found.largest_share == 3 / 60
    assert found.method == (
        "skewness-corrected t at 96 % over 30 identities, 29 informative, skewness 0.00"
    )


@pytest.mark.parametrize(
    ("kind", "edges", "expected"),
    [
        ("light", (0.0, 1.0), (0.12668640, 0.38765383)),
        ("heavy", (0.0, 1.0), (0.09163331, 0.45516944)),
        ("heavy", (0.1, 1.0), None),
        ("rate", (0.0, 1.0), (0.14974350, 0.37802846)),
        ("rate", (-math.inf, 1.0), (-math.inf, 0.37802846)),
        ("rate", (0.0, math.inf), (0.14974350, math.inf)),
    ],
)
def test_the_kind_and_the_edges_decide_the_method(kind, edges, expected):
    law = Law("mean", kind, *edges)
    if expected is None:
        with pytest.raises(ValueError, match=r"expected values from 0\.1 to 1, got 3\.35"):
            estimate(of(Y**3), law, 0.95)
        return
    assert ends(estimate(of(Y**3), law, 0.95)) == pytest.approx(expected, abs=5e-9)


def test_a_value_beyond_an_edge_by_the_rounding_of_float32_counts_as_on_it():
    above = np.where(Y > 0.9, 1 + 1e-7, Y)
    found = estimate(of(above), LIGHT, 0.95)
    assert found == estimate(of(np.minimum(above, 1.0)), LIGHT, 0.95)


def test_what_never_varied_has_an_interval_only_between_edges():
    never = estimate(of(np.full(30, 0.2)), LIGHT, 0.95)
    assert ends(never) == pytest.approx((0.17685934, 0.29256265), abs=5e-9)
    assert (never.value, never.spread) == (0.2, 0.0)
    bare = estimate(of(np.full(30, 0.2)), Law(), 0.95)
    assert (math.isnan(bare.low), math.isnan(bare.high), bare.spread) == (True, True, 0.0)
    assert bare.method == (
        "no interval: all 30 identities have the same value, and the values have no edges"
    )


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_people_have_an_interval_only_between_edges(n):
    bare = estimate(of(Y[:n]), Law(), 0.95)
    assert math.isnan(bare.low)
    assert f"no interval: {n} identit" in bare.method
    assert "at least 3 needed" in bare.method
    low, high = ends(estimate(of(Y[:n]), RATE, 0.95))
    assert 0.0 <= low < Y[:n].mean() < high <= 1.0
    if n == 1:  # one imaginary person at the edge, weighed uniformly
        assert high == pytest.approx(Y[0] + 0.975 * (1 - Y[0]))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 11)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_estimates_do_not_depend_on_the_order_or_names_of_anything(rows, random):
    shuffled = random.sample(rows, len(rows))
    names = random.sample(range(100), 12)
    for law in (LIGHT, RATE, MEDIAN, Law("mean", "heavy")):
        one = estimate(of(*zip(*rows, strict=True)), law, 0.95)
        two = estimate(of([v for v, _ in shuffled], [names[i] for _, i in shuffled]), law, 0.95)
        for a, b in ((one.value, two.value), (one.low, two.low), (one.high, two.high)):
            assert a == pytest.approx(b, abs=1e-9, nan_ok=True)
        assert math.isnan(one.low) or one.low <= one.value <= one.high


def test_copying_every_row_adds_no_evidence():
    values, people = np.random.default_rng(1).random(40), np.repeat(np.arange(20), 2)
    for law in (LIGHT, RATE, MEDIAN):
        once = estimate(of(values, people), law, 0.95)
        thrice = estimate(of(np.tile(values, 3), np.tile(people, 3)), law, 0.95)
        assert ends(thrice) == pytest.approx(ends(once))


def test_many_samples_at_once_are_the_same_to_the_last_digit_as_one_by_one():
    rng = np.random.default_rng(2)
    pairs = np.array([(i, j) for i in range(12) for j in range(i, 12)])
    samples, laws = [], []
    for n in (1, 2, 5, 30, 30, 100, 100, 100):
        samples += [of(rng.random(n) ** 4), of(rng.random(n) < 0.1), of(rng.random(n))]
        laws += [Law("mean", "light", 0.0, 1.0), RATE, MEDIAN]
    samples += [of(rng.random(len(pairs)), pairs), of(rng.random(len(pairs)) < 0.3, pairs)]
    laws += [Law("mean", "heavy", 0.0, 1.0), RATE]
    for found, sample, law in zip(estimates(samples, laws, 0.95), samples, laws, strict=True):
        assert repr(found) == repr(estimate(sample, law, 0.95))


PAIRS = np.array([(i, j) for i in range(12) for j in range(i + 1, 12)])


def test_rows_of_two_people_count_one_pseudo_value_for_each():
    values = np.sin(np.arange(len(PAIRS)))
    found = estimate(of(values, PAIRS), Law("mean", "light", -1.0, 1.0), 0.95)
    z = crossed(values, *PAIRS.T)
    assert found.value == pytest.approx(values.mean())
    assert ends(found) == pytest.approx(tuple(float(one) for one in skew_t(z, 0.96)[:2]))
    assert (found.n_pairs, found.n_identities) == (66, 12)
    assert (found.effective_identities, found.largest_share) == (12, 11 / 66)
    assert found.method.startswith("one pseudo-value for each of two identities of a row: skewness")


def test_crossed_rows_that_do_not_vary_have_no_interval_even_between_edges():
    found = estimate(of(np.full(66, 0.5), PAIRS), LIGHT, 0.95)
    assert math.isnan(found.low)
    assert "all 12 identities have the same value" in found.method


def test_crossed_rates_count_effective_rows():
    hits = np.arange(66) % 5 == 0
    found = estimate(of(hits, PAIRS), RATE, 0.95)
    assert 0.0 < found.low < found.value < found.high < 1.0
    assert "Clopper and Pearson's bounds for" in found.method
    assert "66 rows of 12 identities are worth" in found.method
    none = estimate(of(0 * hits, PAIRS), RATE, 0.95)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 6)))
    shares = estimate(of(hits / 2, PAIRS), RATE, 0.95)
    assert math.isnan(shares.low)
    assert "no interval: the values are shares, neither 0 nor 1" in shares.method


def test_rows_that_name_one_person_twice_are_rows_of_one_person():
    twice = np.stack([np.arange(30), np.arange(30)], axis=1)
    assert estimate(of(Y, twice), LIGHT, 0.95) == estimate(of(Y), LIGHT, 0.95)


def list_of(n):
    rng = np.random.default_rng(3)
    mated = np.stack([np.arange(n), np.arange(n)], axis=1)
    nonmated = np.stack([np.arange(n), np.roll(np.arange(n), 1)], axis=1)
    is_mated = np.repeat([True, False], n)
    values = rng.normal(size=2 * n) + is_mated
    return of(values, np.concatenate([mated, nonmated]), is_mated)


@pytest.mark.parametrize("name", ["auc", "eer"])
def test_a_figure_of_a_list_is_that_of_its_own_module(name):
    found = estimate(list_of(120), Law(name, "light", 0.0, 1.0), 0.95)
    assert 0.0 < found.low < found.value < found.high < 1.0
    assert "jackknife over identities" in found.method
    assert found.n_identities == 120
    assert found.spread > 0.0


def test_a_figure_of_a_list_needs_mated_and_nonmated_rows():
    with pytest.raises(ValueError, match=r"auc needs is_mated of \(30,\), got none"):
        estimate(of(Y), Law("auc"), 0.95)
    found = estimate(of(Y, None, np.ones(30, bool)), Law("auc"), 0.95)
    assert math.isnan(found.value)
    assert "no nonmated pairs" in found.method


@pytest.mark.parametrize("law", [LIGHT, MEDIAN, Law("mean", "heavy")])
@pytest.mark.parametrize(
    ("values", "identities", "confidence", "message"),
    [
        ([1.0, math.nan], [0, 1], 0.95, "1 of 2 NaN"),
        ([1.0, math.inf], [0, 1], 0.95, "NaN or infinite"),
        ([], [], 0.95, "one length"),
        ([1.0], [0, 1], 0.95, "one length"),
        ([[1.0]], [[0]], 0.95, "one length"),
        ([1.0], [[0, 1, 2]], 0.95, "one length"),
        ([1.0], [0], 1.0, "confidence"),
        ([1.0], [0], math.nan, "confidence"),
    ],
)
def test_values_that_are_no_evidence_are_refused(law, values, identities, confidence, message):
    with pytest.raises(ValueError, match=message):
        estimate(of(values, identities), law, confidence)


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
    found = estimate(of(values, [0, 1, 2, 3, 4, 5, 5, 5]), Law("median"), 0.95)
    assert (found.value, found.low, found.high) == (3.5, 1.0, 9.0)
    assert found.method == (
        "median of identity medians, order statistics 1 and 6 of 6 (coverage at least 96.8 %)"
    )
    five = estimate(of(np.arange(5.0)), Law("median"), 0.95)
    assert five.value == 2.0
    assert math.isnan(five.low)
    assert "no interval with 5 identities" in five.method


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=40),
    st.sampled_from([LIGHT, RATE, MEDIAN, Law("mean", "heavy"), Law("mean", "light", 0.0)]),
    st.sampled_from([0.8, 0.9, 0.95, 0.99]),
    st.sampled_from([1, 1, 3]),
)
def test_p_values_agree_with_the_interval(levels, law, confidence, rows):
    people = np.arange(len(levels)) // rows
    sample = of(np.array(levels) / 20, people)
    found = estimate(sample, law, confidence)
    alpha = 1 - confidence
    for end in (found.low, found.high):
        if not math.isfinite(end):
            continue
        for line in (end - 1e-7, end + 1e-7):
            above, below = tails(sample, law, line)
            assert (above <= alpha / 2) == (found.low >= line)
            assert (below <= alpha / 2) == (found.high <= line)
    if not math.isfinite(found.low):
        assert tails(sample, law, -100.0)[0] > alpha / 2
    if not math.isfinite(found.high):
        assert tails(sample, law, 100.0)[1] > alpha / 2


def test_p_values_of_crossed_rows_and_of_lists_agree_with_the_interval():
    hits = of(np.arange(66) % 5 == 0, PAIRS)
    values = of(np.sin(np.arange(66)) / 2 + 0.5, PAIRS)
    for sample, law in ((hits, RATE), (values, LIGHT), (list_of(120), Law("auc"))):
        for confidence in (0.9, 0.95):
            found, alpha = estimate(sample, law, confidence), 1 - confidence
            assert tails(sample, law, found.low - 1e-7)[0] < alpha / 2
            assert tails(sample, law, found.low + 1e-7)[0] > alpha / 2
            assert tails(sample, law, found.high + 1e-7)[1] < alpha / 2
            assert tails(sample, law, found.high - 1e-7)[1] > alpha / 2


def test_a_rate_of_two_people_on_each_side_is_mcnemars():
    # 7 better, 1 worse, 22 equal: one-sided exact McNemar, and the sign test of 8.
    d = of(np.repeat([1.0, -1.0, 0.0], [7, 1, 22]))
    above, below = tails(d, Law("mean", "rate", -1.0, 1.0), 0.0)
    assert above == pytest.approx(stats.binomtest(7, 8, alternative="greater").pvalue)
    assert below == pytest.approx(stats.binomtest(7, 8, alternative="less").pvalue)


def test_an_improvement_is_positive_where_the_explainer_is_better():
    values, control = np.array([0.2, 0.5, math.nan]), np.array([0.3, 0.1, 0.0])
    assert paired(values, control, "lower") == pytest.approx([0.1, -0.4, math.nan], nan_ok=True)
    assert paired(values, control, "higher") == pytest.approx([-0.1, 0.4, math.nan], nan_ok=True)
    with pytest.raises(ValueError, match="got 'less'"):
        paired(values, control, "less")
    with pytest.raises(ValueError, match="equal shapes"):
        paired(values, control[:2], "lower")


def test_the_methods_are_those_of_the_intervals_module():
    rng = np.random.default_rng(4)
    y = rng.beta(3, 9, 50)
    assert ends(estimate(of(y), LIGHT, 0.9)) == (
        float(interval(y, "light", 0.0, 1.0, 0.9).low),
        float(interval(y, "light", 0.0, 1.0, 0.9).high),
    )
    low, high = gaffke(y, 0.0, 1.0, 0.9)
    assert ends(estimate(of(y), RATE, 0.9)) == (float(low), float(high))

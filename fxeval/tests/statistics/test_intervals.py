import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.statistics.intervals import (
    clears,
    crossed,
    crossed_rate,
    gaffke,
    interval,
    interval_tails,
    race,
    rarest_seen,
    skew_t,
    spread_of,
)

Y = np.arange(1, 31) / 31
PAIRS = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)])
PRODUCTS = ((PAIRS[:, 0] + 1) * (PAIRS[:, 1] + 1) % 7) / 7


def assert_digits(found, *expected):
    """Eight digits behind the point."""
    assert [float(one) for one in np.ravel(found)] == pytest.approx(expected, abs=5.1e-9)


def ones(n, of=30):
    return np.repeat([1.0, 0.0], [n, of - n])


@pytest.mark.parametrize(
    ("y", "confidence", "expected"),
    [
        (Y, 0.96, (0.38086720, 0.61913280)),
        (Y, 0.99, (0.34463287, 0.65536713)),
        (Y**3, 0.96, (0.12668640, 0.38765383)),
        (Y**3, 0.99, (0.09163331, 0.45516944)),
        (np.arange(1, 11) / 11, 0.96, (0.23327638, 0.76672362)),
    ],
)
def test_golden_numbers_of_s(y, confidence, expected):
    assert_digits(skew_t(y, confidence)[:2], *expected)


def test_golden_number_of_the_skewness():
    assert_digits(skew_t(Y**3, 0.96)[2], 1.08829360)


@pytest.mark.parametrize(
    ("y", "edges", "expected"),
    [
        (Y, (0, 1), (0.38404546, 0.61595454)),
        (Y**3, (0, 1), (0.14974350, 0.37802846)),
        (ones(3), (0, 1), (0.02111714, 0.26528845)),
        (ones(0), (0, 1), (0.0, 0.11570331)),
        (np.full(30, 0.2), (0, 1), (0.17685934, 0.29256265)),
        (np.repeat([1.0, -1.0, 0.0], [7, 1, 22]), (-1, 1), (-0.01434757, 0.40298675)),
    ],
)
def test_golden_numbers_of_b(y, edges, expected):
    assert_digits(gaffke(y, *edges), *expected)


def test_golden_numbers_of_the_race():
    assert_digits(race(np.repeat([1.0, -1.0, 0.0, -1.0], [7, 1, 22, 1]), 0.0), 0.03515625)
    assert_digits(race(np.repeat([1.0, -1.0, 0.0, -1.0], [9, 1, 20, 1]), 0.0), 0.01074219)
    assert_digits(race([0.0, 1.0, 2.0, 4.0], 1.5), 0.38020833)


LATE = np.where(np.arange(1, 31) > 24, Y, 0.0)


@pytest.mark.parametrize(
    ("y", "edges", "expected", "method"),
    [
        (Y**3, (0, 1), (0.12668640, 0.38765383),
         "skewness-corrected t at 96 % over 30 identities, 29 informative, skewness 1.09"),
        (1 - Y**8, (0, 1), (0.53657377, 1.0),
         "skewness-corrected t at 99 % over 30 identities, 29 informative, skewness -2.37"),
        (LATE, (0, 1), (0.06833239, 0.34905691),
         "Gaffke's bound on [0, 1] at 95 % over 30 identities, 6 informative, skewness 1.60"),
    ],
)  # fmt: skip
def test_golden_numbers_of_the_choice(y, edges, expected, method):
    found = interval(y, "light", *edges)
    assert_digits([found.low, found.high], *expected)
    assert found.method() == method


def test_too_few_informative_identities_without_edges_have_no_interval():
    found = interval(LATE, "light")
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.method() == (
        "no interval: only 6 of 30 identities have another than the commonest value, at least 8 "
        "needed, and the values have no edges"
    )


@pytest.mark.parametrize(
    ("v", "z", "bounds"),
    [
        (PRODUCTS,
         (0.68774162, 0.34032298, 0.57193540, 0.57193540, 0.34032298, 0.68774162),
         (-0.10490941, 0.92226847)),
        ((PAIRS[:, 0] ** 2 + PAIRS[:, 1]) / 30,
         (-0.03333333, 0.02000000, 0.15333333, 0.31333333, 0.44666667, 0.50000000),
         (-0.31196443, 0.77863109)),
    ],
)  # fmt: skip
def test_golden_numbers_of_c(v, z, bounds):
    found = crossed(v, *PAIRS.T)
    assert_digits(found, *z)
    assert_digits(skew_t(found, 0.96)[:2], *bounds)


def test_golden_numbers_of_crossed_rates():
    hits = (PRODUCTS > 0.5).astype(float)
    assert_digits(crossed_rate(hits, *PAIRS.T), 0.18141297, 0.86158722, 8.13881823)
    assert_digits(crossed_rate(0 * hits, *PAIRS.T), 0.0, 0.70759823, 3.0)


SAMPLES = st.lists(st.integers(0, 60).map(lambda k: k / 60), min_size=3, max_size=40)


@settings(deadline=None, max_examples=30)
@given(SAMPLES, st.sampled_from([0.8, 0.96, 0.99]))
def test_s_is_never_narrower_than_t_on_either_side(y, confidence):
    y = np.array(y)
    low, high, skewness = (float(one) for one in skew_t(y, confidence))
    if y.std() < 1e-12:
        assert math.isnan(low)
        return
    t = stats.t.ppf((1 + confidence) / 2, len(y) - 1) * stats.sem(y)
    assert low <= y.mean() - t + 1e-12
    assert high >= y.mean() + t - 1e-12
    assert skewness == pytest.approx(stats.skew(y, bias=False), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(SAMPLES, st.floats(-20, 20), st.floats(0.05, 100))
def test_s_moves_with_the_values(y, shift, scale):
    y = np.array(y)
    low, high, skewness = skew_t(y, 0.96)
    moved = np.array(skew_t(shift + scale * y, 0.96))
    expected = np.array([shift + scale * low, shift + scale * high, skewness])
    assert moved == pytest.approx(expected, abs=1e-9 * 120, nan_ok=True)
    turned = np.array(skew_t(-y, 0.96))
    assert turned == pytest.approx(-np.array([high, low, skewness]), abs=1e-9, nan_ok=True)


def test_s_reaches_farther_to_the_side_of_the_skewness():
    y = np.random.default_rng(0).lognormal(size=60)
    low, high, skewness = skew_t(y, 0.96)
    assert skewness > 1.0
    assert high - y.mean() > 1.2 * (y.mean() - low)


@pytest.mark.parametrize("scale", [1e300, 1e150, 1.0])
def test_s_of_huge_values_does_not_overflow(scale):
    y = np.array([1.0, 2.0, 4.0, 8.0, 9.0, 9.5, 3.0, 2.5])
    found = np.array(skew_t(y * scale, 0.99)) / [scale, scale, 1.0]
    assert found == pytest.approx(np.array(skew_t(y, 0.99)), rel=1e-12)


@pytest.mark.parametrize("y", [[0.1] * 30, [0.1] * 29 + [0.1 + 1e-16], [1e9] * 30, [1e-310, 0, 0]])
def test_what_varies_by_rounding_alone_does_not_vary(y):
    low, high, skewness = skew_t(y, 0.96)
    assert math.isnan(low)
    assert math.isnan(high)
    assert skewness == 0.0
    assert spread_of(y) == 0.0


def test_s_of_one_or_two_values_is_not_defined():
    for y in ([0.5], [0.5, 0.7]):
        assert math.isnan(skew_t(y, 0.96)[0])
    assert math.isnan(spread_of([0.5]))
    assert spread_of([0.5, 0.7]) == pytest.approx(0.2 / math.sqrt(2))


def test_the_promise_sets_the_level():
    y = Y**3
    for confidence, light, heavy in ((0.95, 0.96, 0.99), (0.9, 0.92, 0.98), (0.99, 0.992, 0.998)):
        for kind, level in (("light", light), ("heavy", heavy)):
            found = interval(y, kind, confidence=confidence)
            assert found.level == pytest.approx(level)
            low, high, _ = skew_t(y, level)
            assert (found.low, found.high) == pytest.approx((low, high))
        assert f"at {light * 100:g} %" in interval(y, "light", confidence=confidence).method()


def test_a_skewed_sample_may_only_widen_its_interval():
    rng = np.random.default_rng(1)
    y = rng.lognormal(0, 1, (400, 50))
    light, heavy = interval(y, "light"), interval(y, "heavy")
    stricter = (np.abs(light.skewness) > 2) & ~np.isnan(light.low)
    assert 0.2 < stricter.mean() < 0.9
    assert (light.low[stricter] == heavy.low[stricter]).all()
    others = ~stricter & ~np.isnan(light.low)
    assert (light.low[others] > heavy.low[others]).all()


def test_where_a_few_identities_decide_alone_only_edges_give_an_interval():
    y = np.append(np.arange(29) / 1e4, 1.0)
    bare = interval(y, "light")
    assert math.isnan(bare.low)
    assert bare.method().startswith("no interval: a few identities decide alone")
    assert interval(y, "light", 0.0, 1.0).method().startswith("Gaffke's bound on [0, 1] at 95 %")
    half = interval(y, "light", 0.0)
    assert half.method().startswith("Gaffke's bound on [0, inf) at 95 %")
    assert (half.low > 0.0, half.high) == (True, math.inf)
    rate = interval(np.arange(20) / 20, "rate")
    assert rate.method().startswith("no interval: a rate needs the edges of its values")


@settings(deadline=None, max_examples=30)
@given(SAMPLES, st.sampled_from(["light", "heavy", "rate"]), st.floats(-0.2, 1.2))
def test_without_solving_the_verdict_is_that_of_the_interval(y, kind, line):
    found = interval(y, kind, 0.0, 1.0)
    if min(abs(found.low - line), abs(found.high - line)) < 1e-9:
        return
    above, below = clears(y, kind, (0.0, 1.0), line)
    assert (above, below) == (found.low >= line, found.high <= line)
    p_above, p_below = interval_tails(y, kind, 0.0, 1.0, line)
    assert (p_above <= 0.025, p_below <= 0.025) == (above, below)
    assert p_above + p_below >= 0.9


def test_many_rows_of_every_kind_are_those_of_each_row():
    rng = np.random.default_rng(3)
    y = rng.random((30, 40)) ** rng.integers(1, 12, (30, 1))
    y[::3] = y[::3].round()
    kinds = ["light", "heavy", "rate"] * 10
    low_edge = np.where(np.arange(30) % 4 == 0, -math.inf, 0.0)
    found = interval(y, kinds, low_edge, 1.0)
    above, below = interval_tails(y, kinds, low_edge, 1.0, 0.4)
    for row in range(30):
        one = interval(y[row], kinds[row], low_edge[row], 1.0)
        assert repr((float(found.low[row]), float(found.high[row]))) == repr(
            (float(one.low), float(one.high))
        )
        assert found.method(row) == one.method()
        p = interval_tails(y[row], kinds[row], low_edge[row], 1.0, 0.4)
        assert (float(above[row]), float(below[row])) == (float(p[0]), float(p[1]))


@pytest.mark.parametrize("n", [30, 100])
def test_a_promise_of_95_percent_is_kept_where_t_breaks_it(n):
    # One-sided false passes at the boundary, 4,000 samples: standard error 0.25 points at 2.5 %.
    rng = np.random.default_rng(4)
    y = rng.lognormal(0, 1, (4000, n))
    truth = math.exp(0.5)
    found = clears(y, "heavy", (-math.inf, math.inf), truth)[1].mean()
    t = stats.t.ppf(0.975, n - 1) * stats.sem(y, axis=1)
    assert (y.mean(axis=1) + t < truth).mean() > 0.06
    assert found < 0.0325


def test_crossed_values_are_floored_by_independent_rows():
    # A cycle of alternating signs: every identity's sum is 0, and so would be the error.
    i = np.arange(12)
    cycle = np.stack([i, (i + 1) % 12], axis=1)
    signs = np.where(i % 2, 1.0, -1.0)
    assert np.ptp(crossed(signs, *cycle.T)) == 0.0
    signs[0] = 0.0
    z = crossed(signs, *cycle.T)
    floor = signs.std(ddof=1) / math.sqrt(12)
    assert z.std(ddof=1) / math.sqrt(12) >= floor - 1e-12


def test_the_error_of_crossed_values_is_the_dyadic_sum():
    # Cameron and Miller's sum over rows that share an identity, each row's own term counted twice.
    values = np.sin(np.arange(15) ** 2.0) + PAIRS[:, 0] / 3
    z, d = crossed(values, *PAIRS.T), values - values.mean()
    shared = [[len({*one} & {*two}) for two in PAIRS.tolist()] for one in PAIRS.tolist()]
    expected = float(d @ np.array(shared) @ d) / 15**2
    assert float(z.var(ddof=1)) / 6 == pytest.approx(expected * 6 / 5)
    assert z.mean() == pytest.approx(values.mean())


def test_a_group_that_a_sample_misses_in_one_of_forty_is_not_seen():
    for n, share in ((30, 0.116), (50, 0.071), (100, 0.036), (200, 0.018)):
        assert rarest_seen(n) == pytest.approx(share, abs=5e-4)
        assert stats.binom.pmf(0, n, rarest_seen(n)) == pytest.approx(0.025)

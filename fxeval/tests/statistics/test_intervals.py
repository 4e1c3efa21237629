import math

import numpy as np
import pytest

from fxeval.statistics.intervals import (
    crossed,
    crossed_rate,
    gaffke,
    interval,
    race,
    skew_t,
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

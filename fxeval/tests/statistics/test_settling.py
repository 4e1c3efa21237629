import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.statistics.estimate import Law, Sample, estimate
from fxeval.statistics.intervals import clears
from fxeval.statistics.settling import (
    MOST_IDENTITIES,
    detectable,
    hangs_on_one,
    settles,
)

LIGHT, HEAVY = Law("mean", "light", -1.0, 1.0), Law("mean", "heavy")
RATE, MEDIAN = Law("mean", "rate", 0.0, 1.0), Law("median", "light", -1.0, 1.0)
PAIRS = np.array([(i, j) for i in range(9) for j in range(i + 1, 9)])
RUNS = 1500


def of(values, identities=None):
    values = np.asarray(values, dtype=np.float64)
    return Sample(values, np.arange(len(values)) if identities is None else identities)


def normal(n, seed=0):
    """n values with mean 0 and standard deviation 0.1 exactly, about normal."""
    y = np.random.default_rng(seed).normal(size=n)
    return (y - y.mean()) / y.std(ddof=1) / 10


def power(draw, law, region, n):
    """Return how often the interval of n drawn values lies in the region."""
    y = draw(np.random.default_rng(5), (RUNS, n))
    side = 0 if math.isfinite(region[0]) else 1
    return clears(y, law.kind, (law.low, law.high), region[side])[side].mean()


@pytest.mark.parametrize("law", [LIGHT, HEAVY])
@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize(("region", "sign"), [((0.0, math.inf), 1), ((-math.inf, 0.0), -1)])
def test_a_detectable_difference_shows_in_four_of_five_samples(law, n, region, sign):
    found = estimate(of(normal(n)), law, 0.95)
    mean = sign * detectable(found, law, region)
    assert 0.72 < power(lambda g, size: g.normal(mean, 0.1, size), law, region, n) < 0.88


def test_a_detectable_rate_shows_in_four_of_five_samples():
    found = estimate(of(np.arange(100) < 20), RATE, 0.95)
    distance = detectable(found, RATE, (-math.inf, 0.3))
    shown = power(lambda g, size: g.random(size) < 0.3 - distance, RATE, (-math.inf, 0.3), 100)
    assert 0.72 < shown < 0.95


def test_between_two_ends_the_farther_one_counts():
    y = normal(50) ** 2
    found = estimate(of(y), LIGHT, 0.95)
    two = detectable(found, LIGHT, (0.0, 0.1))
    ones = [detectable(found, LIGHT, one) for one in ((0.0, math.inf), (-math.inf, 0.1))]
    assert two == max(ones)
    assert ones[0] != ones[1]


def test_nothing_is_detectable_without_an_end():
    found = estimate(of(np.full(30, 0.2)), HEAVY, 0.95)
    assert math.isnan(detectable(found, HEAVY, (0.0, math.inf)))
    half = Law("mean", "rate", -math.inf, 1.0)
    found = estimate(of(np.arange(30) < 3), half, 0.95)
    assert math.isnan(detectable(found, half, (0.0, math.inf)))
    assert detectable(found, half, (-math.inf, 0.5)) > 0.1


def number_in(text):
    words = text.split()
    assert (words[0], words[2:]) == ("about", ["more", "identities"]), text
    return int(words[1].replace(",", ""))


@pytest.mark.parametrize("law", [LIGHT, HEAVY])
@pytest.mark.parametrize("value", [0.02, -0.02])
def test_as_many_more_identities_settle_it_in_four_of_five_samples(law, value):
    region = (0.0, math.inf)
    sample = of(value + normal(40))
    found = estimate(sample, law, 0.95)
    assert found.low < 0.0 < found.high
    n = 40 + number_in(settles(sample, law, found, region))
    y = np.random.default_rng(6).normal(value, 0.1, (RUNS, n))
    above, below = clears(y, law.kind, (law.low, law.high), 0.0)
    assert 0.72 < (above if value > 0 else below).mean() < 0.9


def test_as_many_more_identities_settle_a_rate():
    sample = of(np.arange(60) < 3)
    found = estimate(sample, RATE, 0.95)
    assert found.low < 0.1 < found.high
    n = 60 + number_in(settles(sample, RATE, found, (-math.inf, 0.1)))
    y = (np.random.default_rng(7).random((RUNS, n)) < 0.05).astype(float)
    assert 0.7 < clears(y, "rate", (0.0, 1.0), 0.1)[1].mean() < 0.93


def test_no_event_is_settled_by_as_many_as_clopper_and_pearson_need():
    sample = of(np.zeros(40))
    found = estimate(sample, RATE, 0.95)
    exact = math.ceil(math.log(0.025) / math.log1p(-0.02)) - 40
    n = number_in(settles(sample, RATE, found, (-math.inf, 0.02)))
    assert n == pytest.approx(exact, rel=0.1)


def test_equivalence_needs_both_sides():
    sample = of(normal(40))
    found = estimate(sample, LIGHT, 0.95)
    narrow = number_in(settles(sample, LIGHT, found, (-0.01, 0.01)))
    lopsided = number_in(settles(sample, LIGHT, found, (-0.01, 0.5)))
    assert narrow >= lopsided > 500


@pytest.mark.parametrize(
    ("values", "law", "region", "floor", "expected"),
    [
        (normal(40) - normal(40).mean(), LIGHT, (0.5, math.inf), 0, ""),
        (0.2 + normal(12), LIGHT, (0.0, math.inf), 30, "about 18 more identities"),
        (np.full(40, 0.2), HEAVY, (0.0, math.inf), 30,
         "no number of identities like these settles it: all have the same value"),
        (np.arange(40) < 4, HEAVY, (0.0, math.inf), 30, "about 40 more identities"),
        ([0.1, 0.2], HEAVY, (0.0, math.inf), 30, "about 28 more identities"),
        (np.arange(4) / 10, MEDIAN, (0.0, math.inf), 0, "about 2 more identities"),
    ],
)  # fmt: skip
def test_what_settles_it_in_words(values, law, region, floor, expected):
    sample = of(values)
    assert settles(sample, law, estimate(sample, law, 0.95), region, floor) == expected


def test_a_value_on_the_limit_or_next_to_it_is_not_settled_by_size():
    sample = of(normal(40))
    found = estimate(sample, LIGHT, 0.95)
    on = settles(sample, LIGHT, found, (found.value, math.inf))
    assert on == "no number of identities settles it: the value lies on the limit"
    near = settles(sample, LIGHT, found, (found.value - 1e-5, math.inf))
    assert near == (
        f"more than {MOST_IDENTITIES:,} identities would be needed: the value lies too near the "
        "limit"
    )


def test_medians_crossed_rows_and_lists_can_be_settled_too():
    y = normal(40)
    found = estimate(of(y), MEDIAN, 0.95)
    line = found.value - 0.01
    assert number_in(settles(of(y), MEDIAN, found, (line, math.inf))) > 40
    crossed = of(np.sin(np.arange(36)) / 2, PAIRS)
    found = estimate(crossed, LIGHT, 0.95)
    assert number_in(settles(crossed, LIGHT, found, (found.value - 0.02, math.inf))) > 9


def said(sample, law, region):
    if not len(sample.values):
        return 0
    found = estimate(sample, law, 0.95)
    if found.low >= region[0] and found.high <= region[1]:
        return 1
    return -1 if found.high < region[0] or found.low > region[1] else 0


def by_leaving_out(sample, law, region):
    whole, columns = said(sample, law, region), sample.identities.reshape(len(sample.values), -1)
    for one in np.unique(columns):
        kept = (columns != one).all(axis=1)
        some = Sample(sample.values[kept], sample.identities[kept])
        if said(some, law, region) != whole:
            return True
    return False


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=25),
    st.sampled_from([LIGHT, RATE, MEDIAN, HEAVY]),
    st.sampled_from([(0.3, math.inf), (-math.inf, 0.5), (0.1, 0.8)]),
    st.sampled_from([1, 2]),
)
def test_whether_it_hangs_on_one_is_found_by_leaving_out_each(levels, law, region, rows):
    values = np.array(levels) / 40
    people = np.arange(len(values)) // rows
    if people[-1] == 0:
        return
    sample = of(values, people)
    assert hangs_on_one(sample, law, region, 0.95) == by_leaving_out(sample, law, region)


def test_one_person_far_off_is_what_a_verdict_hangs_on():
    together = 0.5 + normal(30) / 10
    for law in (LIGHT, HEAVY, RATE):
        assert hangs_on_one(of(together), law, (0.3, math.inf), 0.95) is False
    one_off = np.append(np.full(29, 0.04), 0.9)
    line = sum(estimate(of(y), RATE, 0.95).high for y in (one_off, one_off[:-1])) / 2
    assert hangs_on_one(of(one_off), RATE, (-math.inf, line), 0.95) is True
    assert hangs_on_one(of(one_off), RATE, (-math.inf, line + 0.1), 0.95) is False


@pytest.mark.parametrize("place", [0, 1, 15, 28, 29])
def test_it_hangs_on_one_person_wherever_she_stands_among_the_rows(place):
    values = np.insert(0.5 + 0.01 * np.sin(np.arange(29)), place, 0.4)

    def low_without(one):
        return estimate(of(np.delete(values, one)), LIGHT, 0.95).low

    others = max(low_without(one) for one in range(30) if one != place)
    line = (others + low_without(place)) / 2
    assert others < line < low_without(place)
    assert hangs_on_one(of(values), LIGHT, (line, math.inf), 0.95) is True


def test_crossed_rows_hang_on_one_as_by_leaving_out():
    values = np.sin(np.arange(36)) / 2
    answers = set()
    for line in np.linspace(-0.5, 0.5, 21):
        sample, region = of(values, PAIRS), (float(line), math.inf)
        found = hangs_on_one(sample, LIGHT, region, 0.95)
        assert found == by_leaving_out(sample, LIGHT, region)
        answers.add(found)
    assert answers == {True, False}


def test_whether_a_list_or_a_single_identity_hangs_on_one_is_not_known():
    assert hangs_on_one(of([0.5]), RATE, (0.0, math.inf), 0.95) is None
    assert hangs_on_one(of(normal(30)), Law("auc"), (0.5, math.inf), 0.95) is None

"""Figures of a list are those of its pairs counted one by one, also without each identity."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fxeval.statistics.disjoint_rows import disjoint_rows
from fxeval.statistics.list_figures import (
    LIST_FIGURES,
    RATE_OF,
    difference_without_each,
    value_of,
    without_each,
)
from fxeval.statistics.weighted_list import WeightedList


def slow(name, values, is_mated):
    """Every threshold and every comparison, one at a time."""
    mated, others = values[is_mated].tolist(), values[~is_mated].tolist()
    if not mated or not others:
        return math.nan
    if name == "auc":
        wins = sum((a > b) + (a == b) / 2 for a, b in product(mated, others))
        return wins / (len(mated) * len(others))

    def rates(threshold):
        return (
            sum(one >= threshold for one in others) / len(others),
            sum(one < threshold for one in mated) / len(mated),
        )

    if name == "eer":
        # Descending, so that of two thresholds that are as good the larger is taken.
        found = [rates(threshold) for threshold in sorted({*mated, *others}, reverse=True)]
        gaps = [round(abs(fmr - fnmr), 12) for fmr, fnmr in found]
        return sum(found[gaps.index(min(gaps))]) / 2
    allowed = math.floor(RATE_OF[name] * len(others) + 1e-9)
    fits = [t for t in {*mated, *others, math.inf} if rates(t)[0] * len(others) <= allowed + 1e-6]
    return 1 - rates(min(fits))[1]


@st.composite
def lists(draw):
    """Few distinct values and people, so that ties and empty rests abound; a row may be of two."""
    n = draw(st.integers(2, 24))

    def column(element):
        return np.array(draw(st.lists(element, min_size=n, max_size=n)))

    mated = column(st.booleans())
    assume(0 < mated.sum() < n)
    values = column(st.integers(-4, 4)) / draw(st.sampled_from([1.0, 3.0, 1e-9]))
    one, two = column(st.integers(0, 5)), column(st.integers(0, 5))
    return values, mated, np.stack([one, np.where(mated, one, two)], axis=1)


@settings(max_examples=60, deadline=None)
@given(lists(), st.sampled_from(LIST_FIGURES))
def test_a_figure_without_an_identity_is_that_of_the_rows_it_has_no_part_in(given_list, name):
    values, mated, people = given_list
    assert value_of(name, values, mated) == pytest.approx(slow(name, values, mated), abs=1e-12)
    found = without_each(name, values, mated, people)
    for who, one in zip(np.unique(people), found, strict=True):
        rest = (people != who).all(1)
        expected = slow(name, values[rest], mated[rest])
        assert one == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(lists())
def test_figures_are_those_of_a_list_whose_rows_weigh_one(given_list):
    """The resamples of verification and the jackknife speak of the same figures."""
    values, mated, _ = given_list
    rates = {name.removeprefix("tmr_at_fmr_"): rate for name, rate in RATE_OF.items()}
    found = WeightedList(values, mated).figures(np.ones((1, len(values))), rates)
    for name in LIST_FIGURES:
        assert value_of(name, values, mated) == pytest.approx(float(found[name][0]), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(lists(), st.sampled_from(LIST_FIGURES), st.randoms(use_true_random=False))
def test_order_names_and_scale_change_nothing(given_list, name, random):
    values, mated, people = given_list
    once, each = value_of(name, values, mated), without_each(name, values, mated, people)
    order = np.array(random.sample(range(len(values)), len(values)))
    steep = np.arctan(values)  # keeps the order
    assert value_of(name, steep[order], mated[order]) == once
    renamed = people[order][:, ::-1] * 7 - 100
    assert np.array_equal(
        without_each(name, steep[order], mated[order], renamed), each, equal_nan=True
    )
    if name == "auc":
        assert value_of("auc", -values, mated) == pytest.approx(1 - once)


def test_a_row_of_one_identity_may_be_named_once_or_twice():
    values, mated = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False])
    one = np.array([0, 1, 2, 3])
    for name in LIST_FIGURES:
        assert np.array_equal(
            without_each(name, values, mated, one),
            without_each(name, values, mated, np.stack([one, one], axis=1)),
        )


def test_the_golden_area():
    """The specification's list: 12 mated rows, and the 66 nonmated ones of all pairs."""
    two = [(i, i) for i in range(12)] + [(i, j) for j in range(12) for i in range(j)]
    values = np.array([1 + math.sin(i) if i == j else math.cos(3 * i * j + i) for i, j in two])
    mated = np.array([i == j for i, j in two])
    value = value_of("auc", values, mated)
    assert value == pytest.approx(0.74179293, abs=5e-9)
    assert value == pytest.approx(slow("auc", values, mated), abs=1e-12)


@pytest.mark.parametrize("name", LIST_FIGURES)
def test_equal_values_and_a_single_identity_have_the_figures_of_a_coin(name):
    mated, people = np.arange(6) < 3, np.zeros(6, np.int64)
    coin = 0.5 if name in ("auc", "eer") else 0.0
    assert value_of(name, np.full(6, 0.3), mated) == coin
    assert np.isnan(without_each(name, np.full(6, 0.3), mated, people)).tolist() == [True]


@pytest.mark.parametrize(
    ("values", "mated", "people", "words"),
    [
        ([1.0, math.inf], [True, False], [0, 1], "1 of 2 NaN or infinite"),
        ([1.0, math.nan], [True, False], [0, 1], "1 of 2 NaN or infinite"),
        ([1.0, 2.0], [True, True], [0, 1], "expected mated and nonmated rows, got 2 and 0"),
        ([1.0, 2.0], [False, False], [0, 1], "expected mated and nonmated rows, got 0 and 2"),
        ([1.0, 2.0], [True, False], [0], "of one length"),
        ([], [], [], "expected mated and nonmated rows, got 0 and 0"),
    ],
)
def test_a_list_without_a_figure_is_refused(values, mated, people, words):
    with pytest.raises(ValueError, match=words):
        without_each("auc", np.array(values), np.array(mated, bool), np.array(people))


def test_an_unknown_figure_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of .*'auc'.* got 'gini'"):
        value_of("gini", np.array([1.0, 0.0]), np.array([True, False]))


def test_a_difference_is_that_of_the_figures_of_the_same_rows():
    generator = np.random.default_rng(2)
    mated, people = np.arange(60) % 2 == 0, generator.integers(0, 12, (60, 2))
    one, two = generator.normal(mated * 1.0), generator.normal(mated * 0.2)
    value, without = difference_without_each("auc", one, two, mated, people)
    assert value == value_of("auc", one, mated) - value_of("auc", two, mated)
    each = (without_each("auc", column, mated, people) for column in (one, two))
    assert np.array_equal(without, next(each) - next(each))


def largest_disjoint(rows, mated=None):
    """The largest number of rows that share nobody, of all choices."""
    best = 0
    for place, pair in enumerate(rows):
        rest = [other for other in rows[place + 1 :] if not {*other} & {*pair}]
        for own in [()] if mated is None else [(one,) for one in mated if one not in pair]:
            left = [other for other in rest if not {*other} & {*own}]
            more = None if mated is None else [m for m in mated if m not in (*pair, *own)]
            best = max(best, 1 + largest_disjoint(left, more))
    return best


@settings(max_examples=40, deadline=None)
@given(lists())
def test_rows_that_share_nobody_are_never_overcounted(given_list):
    _, mated, people = given_list
    found = disjoint_rows(mated, people)
    rows = sorted({tuple(sorted({*pair})) for pair in people[~mated].tolist()})
    own = sorted({*people[mated, 0].tolist()})
    assert found.mated == len(own)
    if len(rows) < 7:
        assert found.nonmated <= largest_disjoint(rows) <= 2 * found.nonmated
        most = largest_disjoint(rows, own)
        assert found.comparisons <= most
        assert bool(found.comparisons) == bool(most)


def test_rows_that_share_nobody_are_counted_by_hand():
    hub = np.array([[i, i] for i in range(20)] + [[0, i] for i in range(1, 20)])
    star = disjoint_rows(np.arange(39) < 20, hub)
    assert (star.mated, star.nonmated, star.comparisons) == (20, 1, 1)  # all look like one person
    ring = np.array([[i, i] for i in range(30)] + [[i, (i + 1) % 30] for i in range(30)])
    found = disjoint_rows(np.arange(60) < 30, ring)
    assert (found.mated, found.nonmated) == (30, 15)
    assert found.comparisons in (9, 10)

"""Intervals of figures of a list keep their promise, and say where they cannot."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.statistics.distributions import beta_quantile
from fxeval.statistics.estimate import Law, Sample, estimate, tails
from fxeval.statistics.list_figures import value_of, without_each
from fxeval.statistics.list_intervals import (
    Drawn,
    Jackknife,
    ListEvidence,
    Trials,
    Wider,
    difference_evidence,
    list_evidence,
    why_no_value,
)
from fxeval.statistics.weighted_list import drawn_figure, resampled


def rows_of(generator, n_people, each, n_nonmated):
    """Mated rows of everybody and nonmated rows of random pairs: identities (N, 2) and is_mated."""
    mated = np.repeat(np.arange(n_people), each)
    first = generator.integers(0, n_people, n_nonmated)
    other = (first + generator.integers(1, n_people, n_nonmated)) % n_people
    people = np.stack([np.append(mated, first), np.append(mated, other)], axis=1)
    return people, np.arange(len(people)) < len(mated)


def similarities(generator, people, is_mated, *, apart=2.0, effect=0.3, odd="", share=0.0):
    """Normal similarities with an effect of each person, of whom some are odd.

    ``goat``: mated rows of the odd fall below all others; ``wolf``: nonmated rows of the odd rise
    above all others; ``both``.
    """
    own = generator.normal(0, effect, int(people.max()) + 1)
    is_odd = generator.random(len(own)) < share
    first, second = people.T
    values = apart * is_mated + own[first] + own[second] * ~is_mated
    values += generator.normal(0, 1, len(values))
    if odd in ("goat", "both"):
        values = np.where(is_mated & is_odd[first], values - 99, values)
    if odd in ("wolf", "both"):
        values = np.where(~is_mated & (is_odd[first] | is_odd[second]), values + 99, values)
    return values


def false_passes(name, size, law, runs=1000, columns=1, **change):
    """Return the shares of runs whose interval lies wholly above, and below, the true figure."""
    n_people, each, n_nonmated = size

    def drawn(seed, factor=1):
        generator = np.random.default_rng(seed)
        people, is_mated = rows_of(generator, factor * n_people, each, factor * n_nonmated)
        laws = (law, {**law, **change})[:columns]
        return [similarities(generator, people, is_mated, **one) for one in laws], is_mated, people

    def figure(values, is_mated):
        found = [value_of(name, column, is_mated) for column in values]
        return found[0] - (found[1] if columns == 2 else 0.0)

    truth = np.mean([figure(*drawn(9_000_000 + k, 20_000 // n_people)[:2]) for k in range(8)])
    above = below = 0
    for seed in range(runs):
        values, is_mated, people = drawn(seed)
        if columns == 2:
            evidence = difference_evidence(name, tuple(values), is_mated, people, 300)
        else:
            evidence = list_evidence(name, values[0], is_mated, people, 300)
        low, high = evidence.interval(0.95)
        above, below = above + (low > truth), below + (high < truth)
    return above / runs, below / runs


SEPARATE = {"apart": 200.0, "effect": 0.0}
"""A law under which nobody but the odd is ever misjudged."""


def sure(runs, promised=0.03):
    """The largest share of false passes that a method which keeps its promise shows, +3 SE."""
    return promised + 3 * math.sqrt(promised * (1 - promised) / runs)


@pytest.fixture
def a_list():
    generator = np.random.default_rng(5)
    people, is_mated = rows_of(generator, 40, 3, 200)
    return similarities(generator, people, is_mated), is_mated, people


def test_the_golden_intervals_of_areas():
    """Those of the specification: t at 96 % for a promise of 95 %."""
    without = np.array([0.90, 0.91, 0.92, 0.93, 0.94])
    found = Jackknife(0.92, "", without, on_logit=True).interval(0.95)
    assert found == pytest.approx((0.78415079, 0.97326474), abs=5e-9)
    two = [(i, i) for i in range(12)] + [(i, j) for j in range(12) for i in range(j)]
    values = np.array([1 + math.sin(i) if i == j else math.cos(3 * i * j + i) for i, j in two])
    people, mated = np.array(two), np.array([i == j for i, j in two])
    evidence = list_evidence("auc", values, mated, people)
    assert evidence.interval(0.95) == pytest.approx((0.46949710, 0.90315477), abs=5e-9)
    assert evidence.method == "jackknife over identities on the logit, t at 96 % for 95 %, G = 12"


def test_the_interval_of_a_difference_is_the_jackknife_s_written_out(a_list):
    values, is_mated, people = a_list
    others = values + np.random.default_rng(1).normal(0, 1, len(values))
    found = difference_evidence("auc", (values, others), is_mated, people)
    each = without_each("auc", values, is_mated, people)
    each -= without_each("auc", others, is_mated, people)
    error = math.sqrt(39 / 40 * ((each - each.mean()) ** 2).sum())
    low, high = found.interval(0.95)
    assert found.value == pytest.approx((low + high) / 2)
    assert high - low == pytest.approx(2 * 2.12465 * error, rel=1e-4)  # t of 39 degrees, 96 %
    assert found.spread == pytest.approx(error * math.sqrt(40))
    swapped = difference_evidence("auc", (others, values), is_mated, people)
    assert swapped.interval(0.95) == pytest.approx((-high, -low))


def test_the_interval_of_a_true_match_rate_is_that_of_lists_written_out():
    generator = np.random.default_rng(3)
    people, is_mated = rows_of(generator, 30, 2, 60)
    values = similarities(generator, people, is_mated)
    found = drawn_figure("tmr_at_fmr_1e-1", values, is_mated, people, 40)
    for weights, one in zip(np.concatenate(list(resampled(30, 40, 7))), found, strict=True):
        own = weights[people[:, 0]] * np.where(is_mated, 1, weights[people[:, 1]])
        rows = np.repeat(np.arange(len(values)), own.astype(int))
        assert one == pytest.approx(value_of("tmr_at_fmr_1e-1", values[rows], is_mated[rows]))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["auc", "eer", "tmr_at_fmr_1e-1", "perfect", "difference", "rates"]),
    st.floats(0, 1) | st.sampled_from([0.0, 1.0, -0.1, 1.2]),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_p_values_agree_with_the_interval(kind, line, confidence):
    evidence = EVIDENCE[kind]
    low, high = evidence.interval(confidence)
    above, below = evidence.tails(line)
    assert low <= evidence.value <= high
    alpha = (1 - confidence) / 2
    if abs(line - low) > 1e-9:
        assert (above <= alpha) == (low > line)
    if abs(line - high) > 1e-9:
        assert (below <= alpha) == (high < line)


def _evidence():
    generator = np.random.default_rng(5)
    people, is_mated = rows_of(generator, 40, 3, 200)
    values = similarities(generator, people, is_mated)
    others = similarities(generator, people, is_mated, apart=0.5)
    found = {
        name: list_evidence(name, values, is_mated, people)
        for name in ("auc", "eer", "tmr_at_fmr_1e-1")
    }
    found["perfect"] = list_evidence("auc", values + 99 * is_mated, is_mated, people)
    found["difference"] = difference_evidence("auc", (values, others), is_mated, people)
    found["rates"] = difference_evidence("tmr_at_fmr_1e-1", (values, others), is_mated, people)
    return found


EVIDENCE = _evidence()


def test_each_kind_of_evidence_is_used():
    kinds = {name: type(one) for name, one in EVIDENCE.items()}
    assert kinds == {
        "auc": Jackknife, "eer": Wider, "tmr_at_fmr_1e-1": Drawn, "perfect": Trials,
        "difference": Jackknife, "rates": Drawn,
    }  # fmt: skip


def test_a_list_without_an_error_is_as_certain_as_its_people_are_many(a_list):
    values, is_mated, people = a_list
    evidence = list_evidence("auc", values + 99 * is_mated, is_mated, people)
    assert evidence.value == 1.0
    assert evidence.interval(0.95) == (pytest.approx(0.025 ** (1 / 13), abs=1e-9), 1.0)
    assert evidence.method == "Clopper and Pearson, 13 pairs or comparisons that share nobody"
    wrong = list_evidence("auc", values - 99 * is_mated, is_mated, people)
    assert wrong.interval(0.95) == (0.0, pytest.approx(1 - 0.025 ** (1 / 13), abs=1e-9))
    eer = list_evidence("eer", values + 99 * is_mated, is_mated, people)
    assert eer.interval(0.95) == (0.0, pytest.approx(1 - 0.0125 ** (1 / 20), abs=1e-9))
    one_person = np.where(people[:, 0] == 7, -50, 99) * is_mated
    nearly = list_evidence("auc", values + one_person, is_mated, people)
    assert isinstance(nearly, Trials)  # without one of the identities, nothing is misjudged
    assert nearly.interval(0.95)[0] < nearly.value < nearly.interval(0.95)[1] < 1


def test_where_every_comparison_shares_somebody_nothing_is_known():
    people = np.array([[0, 0], [1, 1], [0, 1]])
    is_mated = np.array([True, True, False])
    for values in ([0.5, 0.5, 0.5], [1.0, 0.0, 0.5], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]):
        evidence = list_evidence("auc", np.array(values), is_mated, people)
        assert evidence.interval(0.95) == (0.0, 1.0)
        assert evidence.tails(0.6) == (1.0, 1.0)


def test_equal_scores_are_a_coin_that_nobody_has_tossed(a_list):
    values, is_mated, people = a_list
    constant = np.zeros(len(values))
    for name in ("auc", "eer"):
        low, high = list_evidence(name, constant, is_mated, people).interval(0.95)
        assert low < 0.25
        assert high > 0.75
        same = difference_evidence(name, (constant, constant), is_mated, people)
        assert type(same) is ListEvidence
        assert np.isnan(same.interval(0.95)).all()
        assert same.tails(-0.1) == (1.0, 1.0)
    assert difference_evidence("auc", (values, values), is_mated, people).why_open == (
        "the difference is the same without each of the identities"
    )


def test_an_estimate_of_two_columns_is_that_of_the_difference(a_list):
    values, is_mated, people = a_list
    others = values + np.random.default_rng(1).normal(0, 1, len(values))
    sample, law = Sample(values, people, is_mated, others), Law("auc")
    found = difference_evidence("auc", (values, others), is_mated, people)
    estimated = estimate(sample, law, 0.95)
    assert (estimated.value, (estimated.low, estimated.high)) == (found.value, found.interval(0.95))
    assert tails(sample, law, 0.05) == found.tails(0.05)
    assert estimated.spread == found.spread


def test_what_a_list_cannot_show_is_said():
    generator = np.random.default_rng(0)
    people, is_mated = rows_of(generator, 99, 1, 499)
    values = similarities(generator, people, is_mated)
    eer = list_evidence("eer", values, is_mated, people)
    assert eer.why_open == "99 mated pairs, at least 100 needed for the interval of an EER"
    assert np.isnan(eer.interval(0.95)).all()
    rate = list_evidence("tmr_at_fmr_1e-2", values, is_mated, people)
    assert rate.why_open == (
        "499 nonmated pairs, at least 500 needed for a lower end at this false match rate"
    )
    assert rate.interval(0.95)[0] == -math.inf
    assert rate.value < rate.interval(0.95)[1] <= 1
    assert rate.tails(0.0)[0] == 1.0
    assert list_evidence("tmr_at_fmr_1e-1", values, is_mated, people).why_open == ""
    assert why_no_value("tmr_at_fmr_1e-3", 10, 999) == (
        "too few nonmated pairs: 999, at least 1,000 needed"
    )
    assert why_no_value("auc", 10, 0) == "no nonmated pairs"
    assert why_no_value("auc", 10, 1) == ""
    alone = np.array([[0, 0], [1, 1], [2, 3]])
    only = list_evidence("auc", np.array([3.0, 1.0, 2.0]), np.array([True, True, False]), alone)
    assert only.interval(0.95) == pytest.approx(
        (beta_quantile(0.025, 0.5, 1.5), beta_quantile(0.975, 1.5, 0.5)), abs=1e-9
    )


def test_noise_and_a_constant_map_are_never_shown_to_be_better(a_list):
    """A hundred pairs of columns that know equally much: 2.5 % a side, so hardly ever 9."""
    _, is_mated, people = a_list
    wins = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        one, two = (similarities(generator, people, is_mated, apart=1.0) for _ in range(2))
        wins += difference_evidence("auc", (one, two), is_mated, people).interval(0.95)[0] > 0
    assert wins <= 8
    constant = np.full(len(is_mated), 0.5)
    noise = np.random.default_rng(0).normal(size=len(is_mated))
    assert difference_evidence("auc", (constant, noise), is_mated, people).interval(0.95)[0] < 0


# --- simulations: how often an interval lies wholly on one side of the truth


@pytest.mark.slow
@pytest.mark.parametrize("size", [(30, 1, 60), (30, 5, 150), (50, 2, 150), (100, 2, 200)])
@pytest.mark.parametrize("law", [{"apart": 2.0}, {"apart": 3.0, "effect": 0.5}])
def test_false_passes_of_areas_are_at_most_those_promised(size, law):
    assert max(false_passes("auc", size, law)) <= sure(1000)


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["goat", "wolf", "both"])
@pytest.mark.parametrize("share", [0.01, 0.02, 0.04, 0.08])
@pytest.mark.parametrize("n_people", [30, 100])
def test_near_1_no_false_pass_comes_of_people_whom_the_list_may_lack(odd, share, n_people):
    """Wilson's interval over the identities passed falsely in up to 28 % of these lists."""
    law = {**SEPARATE, "odd": odd, "share": share}
    assert false_passes("auc", (n_people, 1, 2 * n_people), law)[0] <= sure(1000)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(100, 1, 200), (100, 2, 200), (30, 5, 150)])
@pytest.mark.parametrize("law", [{"apart": 2.0}, {"apart": 4.0, "effect": 0.7}])
def test_false_passes_of_equal_error_rates_are_at_most_those_promised(size, law):
    assert max(false_passes("eer", size, law, runs=400)) <= sure(400)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auc", "eer"])
@pytest.mark.parametrize("apart", [2.0, 1.5])
def test_false_passes_of_differences_are_at_most_those_promised(name, apart):
    law, runs = {"apart": 2.0}, 1000 if name == "auc" else 200
    found = false_passes(name, (30, 4, 120), law, runs, columns=2, apart=apart)
    assert max(found) <= sure(runs)


@pytest.mark.slow
def test_an_interval_over_pairs_would_pass_falsely():
    """The same jackknife, had every pair been a person of its own."""
    generator, misses, runs = np.random.default_rng(0), 0, 400
    law = {"apart": 2.0, "effect": 0.7}
    big = rows_of(generator, 6000, 5, 20_000)
    truth = np.mean(
        [value_of("auc", similarities(generator, *big, **law), big[1]) for _ in "12345"]
    )
    for _ in range(runs):
        people, is_mated = rows_of(generator, 30, 5, 150)
        values = similarities(generator, people, is_mated, **law)
        rows = np.arange(len(values))
        misses += list_evidence("auc", values, is_mated, rows).interval(0.95)[0] > truth
    assert misses / runs > 0.06

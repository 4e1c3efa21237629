"""Similarities, and the accuracies, error rates and thresholds computed from them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import EvidenceError
from fxeval.functional.similarity import similarity, threshold_fault
from fxeval.tests.rounding import FLOAT64, assert_rounded
from fxeval.tests.slow_figures import auc, k_fold_accuracy, tau_acc, tau_eer, tau_fmr


@st.composite
def scored_pairs(draw):
    """Few distinct values, so that ties abound; midpoints are exact in binary."""
    n = draw(st.integers(2, 40))
    values = draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n))
    mated = [True, False, *draw(st.lists(st.booleans(), min_size=n - 2, max_size=n - 2))]
    return np.array(values) / 8, np.array(mated)


@pytest.fixture(scope="module")
def golden():
    """600 pairs in ten folds: mated similarities around 0.55, nonmated ones around 0.1."""
    generator = np.random.Generator(np.random.PCG64(7))
    mated = np.tile([True] * 30 + [False] * 30, 10)
    same, different = generator.normal(0.55, 0.15, 600), generator.normal(0.1, 0.15, 600)
    return np.clip(np.where(mated, same, different), -1, 1), mated


def test_cosine_is_that_of_numpy_and_is_not_clipped():
    a, b = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0))
    x, y = a.double().numpy(), b.double().numpy()
    expected = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    got = similarity("cosine", a, b)
    assert got.dtype == torch.float64
    assert_rounded(got, expected, terms=2 * 7, scale=1, unit=FLOAT64)
    assert (similarity("cosine", a, a) > 1).any()


def test_neg_l2_is_minus_the_distance_of_the_raw_embeddings():
    a, b = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0))
    expected = -np.linalg.norm(a.double().numpy() - b.double().numpy(), axis=1)
    assert_rounded(similarity("neg_l2", a, b), expected, terms=2 * 7, unit=FLOAT64)


def test_a_zero_embedding_is_like_nothing():
    assert similarity("cosine", torch.zeros(1, 4), torch.ones(1, 4)).item() == 0


def test_embeddings_of_different_shapes_are_never_broadcast():
    with pytest.raises(ValueError, match=r"\(1, 4\) and \(5, 4\)"):
        similarity("cosine", torch.ones(1, 4), torch.ones(5, 4))
    with pytest.raises(ValueError, match="'euclid'"):
        similarity("euclid", torch.ones(1, 4), torch.ones(1, 4))


def test_ten_folds_give_the_golden_figures(golden):
    result = k_fold_accuracy("cosine", *golden)
    assert result.mean == pytest.approx(0.93, abs=1e-9)
    assert result.std == pytest.approx(0.026667, abs=5e-7)
    expected = (1.42, 1.38, 1.42, 1.38, 1.42, 1.43, 1.38, 1.38, 1.42, 1.38)
    assert result.distances == pytest.approx(expected, abs=1e-9)


def test_folds_are_decided_by_the_other_folds_only(golden):
    values, mated = golden
    before = k_fold_accuracy("cosine", values, mated)
    spoiled = values.copy()
    spoiled[:60] = 0.65 - spoiled[:60]
    after = k_fold_accuracy("cosine", spoiled, mated)
    assert after.distances[0] == before.distances[0]
    assert after.accuracies[0] < 0.5 < before.accuracies[0]


@settings(deadline=None)
@given(scored_pairs(), st.integers(2, 7), st.sampled_from(["cosine", "neg_l2"]))
def test_fold_accuracy_is_that_of_a_slow_reference(pairs, n_folds, kind):
    values, mated = pairs
    if len(values) < n_folds:
        return
    distance = 2 - 2 * values if kind == "cosine" else -values
    result = k_fold_accuracy(kind, values, mated, n_folds=n_folds)
    for number, fold in enumerate(np.array_split(np.arange(len(values)), n_folds)):
        rest = np.setdiff1d(np.arange(len(values)), fold)
        seen = np.unique(distance[rest])
        midpoints = [-np.inf, *((seen[:-1] + seen[1:]) / 2), np.inf]
        candidates = np.arange(0, 4, 0.01) if kind == "cosine" else midpoints
        right = [((distance[rest] < t) == mated[rest]).sum() for t in candidates]
        threshold = candidates[int(np.argmax(right))]
        assert result.distances[number] == threshold
        assert result.accuracies[number] == ((distance[fold] < threshold) == mated[fold]).mean()


@settings(deadline=None)
@given(scored_pairs())
def test_tau_acc_is_that_of_a_slow_reference(pairs):
    values, mated = pairs
    seen = np.unique(values)
    candidates = [-np.inf, *((seen[:-1] + seen[1:]) / 2), np.inf]
    n_mated, n_nonmated = mated.sum(), (~mated).sum()

    def rank(tau: float) -> tuple[int, int, float]:
        misses, alarms = (values[mated] < tau).sum(), (values[~mated] >= tau).sum()
        return misses + alarms, abs(alarms * n_mated - misses * n_nonmated), -tau

    assert tau_acc(values, mated) == min(candidates, key=rank)


@settings(deadline=None)
@given(scored_pairs())
def test_tau_eer_is_that_of_a_slow_reference(pairs):
    values, mated = pairs
    n_mated, n_nonmated = mated.sum(), (~mated).sum()

    def rank(tau: float) -> tuple[int, float]:
        misses, alarms = (values[mated] < tau).sum(), (values[~mated] >= tau).sum()
        return abs(alarms * n_mated - misses * n_nonmated), -tau

    assert tau_eer(values, mated) == min(np.unique(values), key=rank)


def test_tau_fmr_gives_the_golden_figures(golden):
    values, mated = golden
    for fmr, matches, tau, tmr in ((0.01, 3, 0.44208347, 0.75), (0.001, 0, 0.48575033, 0.64)):
        got = tau_fmr(values, mated, fmr)
        assert got == pytest.approx(tau, abs=5e-9)
        assert (values[~mated] >= got).sum() == matches
        assert (values[mated] >= got).mean() == pytest.approx(tmr)


@settings(deadline=None)
@given(scored_pairs(), st.floats(0, 1))
def test_tau_fmr_keeps_the_rate_and_no_smaller_threshold_does(pairs, fmr):
    values, mated = pairs
    tau = tau_fmr(values, mated, fmr)
    assert (values[~mated] >= tau).mean() <= fmr + 1e-9
    if np.isfinite(tau):
        assert (values[~mated] >= np.nextafter(tau, -np.inf)).mean() > fmr


@settings(deadline=None)
@given(scored_pairs())
def test_auc_counts_ordered_pairs_of_pairs(pairs):
    values, mated = pairs
    wins = np.sign(values[mated][:, None] - values[~mated][None, :])
    assert auc(values, mated) == pytest.approx((wins.mean() + 1) / 2)


@pytest.mark.parametrize("decide", [tau_acc, tau_eer, auc, lambda *a: tau_fmr(*a, 0.1)])
def test_no_threshold_without_evidence(decide):
    with pytest.raises(EvidenceError, match="2 mated of 2"):
        decide([0.1, 0.2], [True, True])
    with pytest.raises(EvidenceError, match="1 of 2 are NaN"):
        decide([0.1, np.nan], [True, False])
    with pytest.raises(ValueError, match="columns"):
        decide([0.1, 0.2], [True, False, True])


def test_folds_and_rates_out_of_range_are_refused():
    with pytest.raises(ValueError, match="folds expected, got 3"):
        k_fold_accuracy("cosine", [0.1, 0.2], [True, False], n_folds=3)
    with pytest.raises(ValueError, match=r"got 1\.5"):
        tau_fmr([0.1, 0.2], [True, False], 1.5)


def test_neighbouring_floats_are_separated():
    low = 0.5
    high = np.nextafter(low, 1)
    tau = tau_acc([high, low], [True, False])
    assert low < tau <= high


@pytest.mark.parametrize(
    ("kind", "threshold", "words"),
    [
        ("cosine", 60.0, "got 60: for a similarity in percent write 0.6"),
        ("cosine", 1.4, "got 1.4: for a cosine distance d write 1 - d, -0.4"),
        ("cosine", -3, "expected -1 to 1 for cosine, got -3"),
        ("cosine", float("nan"), "got nan: write null (None) for a model without a threshold"),
        ("neg_l2", 1.1, "expected 0 or less (minus a distance) for neg_l2, got 1.1: write -1.1"),
        ("neg_l2", float("-inf"), "got -inf: write null (None)"),
        ("cosine", "0.4", "expected a number for cosine, -1 to 1, got str"),
        ("cosine", True, "expected a number for cosine, -1 to 1, got bool"),
    ],
)
def test_a_threshold_that_the_similarity_cannot_have_is_named_with_what_to_write(
    kind, threshold, words
):
    assert words in threshold_fault(kind, threshold)


@given(st.floats(-1, 1))
def test_any_threshold_within_the_range_of_the_similarity_is_possible(threshold):
    assert threshold_fault("cosine", threshold) == ""
    assert threshold_fault("neg_l2", min(-threshold, threshold)) == ""
    assert threshold_fault("cosine", None) == threshold_fault("neg_l2", None) == ""

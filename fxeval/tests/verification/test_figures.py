"""Verification figures are those of the list written out; their intervals cover the truth."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import EvidenceError
from fxeval.statistics.crossed import crossed_rate
from fxeval.statistics.disjoint_rows import disjoint_rows
from fxeval.statistics.distributions import beta_quantile
from fxeval.statistics.list_intervals import list_evidence
from fxeval.statistics.weighted_list import percentiles, resampled
from fxeval.tests.slow_figures import auc, k_fold_accuracy, tau_acc, tau_eer, tau_fmr
from fxeval.verification import figures as verification
from fxeval.verification.figures import (
    QUANTITIES,
    THRESHOLDS,
    ComparedPairs,
    Figure,
    folds_of,
    measure,
    point_figures,
    rate_of,
    why_unmeasurable,
)
from fxeval.verification.weighted_pairs import WeightedPairs

RATES = {"1e-1": 0.1, "4e-1": 0.4}


def made(n_people=60, n=200, *, seed=0, kind="cosine", effect=0.05, mean=0.5):
    """Pairs, half of them mated, whose similarities share an effect of each person."""
    generator = np.random.default_rng(seed)
    peculiar = generator.normal(0, effect, n_people)
    first = generator.integers(0, n_people, 2 * n)
    other = (first + generator.integers(1, n_people, 2 * n)) % n_people
    mated = np.arange(2 * n) % 2 == 0
    second = np.where(mated, first, other)
    noise = generator.normal(0, 0.1, 2 * n)
    values = np.where(mated, mean, 0.1) + peculiar[first] + peculiar[second] + noise
    return ComparedPairs(kind, values if kind == "cosine" else values - 2, mated, first, second)


def written_out(compared, weights, fold):
    """The rows of a list, each as often as its weight says, valued by the unweighted functions."""
    rows = np.repeat(np.arange(len(weights)), weights.astype(int))
    values, mated = compared.similarities[rows], compared.is_mated[rows]
    eer = tau_eer(values, mated)
    folds = k_fold_accuracy(compared.kind, values, mated, folds=fold[rows])
    found = {
        "verification_accuracy": folds.mean,
        "accuracy_std": folds.std,
        "verification_auc": auc(values, mated),
        "verification_eer": ((values[~mated] >= eer).mean() + (values[mated] < eer).mean()) / 2,
        "tau_acc": tau_acc(values, mated),
        "tau_eer": eer,
    }
    for name, rate in RATES.items():
        tau = found[f"tau_fmr_{name}"] = tau_fmr(values, mated, rate)
        found[f"tmr_at_fmr_{name}"] = (values[mated] >= tau).mean()
    return found


@st.composite
def weighted_lists(draw):
    """Few distinct similarities, so that ties abound, and weights of which many are 0."""
    n = draw(st.integers(6, 30))

    def column(element):
        return np.array(draw(st.lists(element, min_size=n, max_size=n)))

    values, weights = column(st.integers(-6, 6)) / 8, column(st.integers(0, 3)).astype(float)
    mated, fold = np.arange(n) % 2 == 0, np.arange(n) // 2 % 3
    weights[:6] = np.maximum(weights[:6], 1)  # every fold and class is there
    kind = draw(st.sampled_from(["cosine", "neg_l2"]))
    values = values if kind == "cosine" else values - 1
    return ComparedPairs(kind, values, mated, np.arange(n), np.arange(n)), weights, fold


@settings(deadline=None, max_examples=200)
@given(weighted_lists())
def test_weights_mean_that_a_pair_stands_so_often_in_the_list(given_list):
    compared, weights, fold = given_list
    pairs = WeightedPairs(compared.kind, compared.similarities, compared.is_mated, fold)
    both = pairs.statistics(np.stack([weights, np.ones_like(weights)]), RATES)
    for row, of_row in enumerate((weights, np.ones_like(weights))):
        for name, expected in written_out(compared, of_row, fold).items():
            assert both[name][row] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_the_intervals_are_those_of_resampled_identities_written_out(kind):
    """The slow reference draws the people, collects their pairs and measures them one by one."""
    compared = made(40, 60, kind=kind)
    fold = np.arange(120) // 2 % 5
    compared = replace(compared, fold=fold)
    found = measure(compared, resamples=60)
    people = np.unique([compared.probe_identity, compared.reference_identity])
    drawn = []
    for weights in np.concatenate(list(resampled(len(people), 60, 7))):
        of = dict(zip(people.tolist(), weights, strict=True))
        pairs = [
            of[a] if mated else of[a] * of[b]
            for a, b, mated in zip(
                compared.probe_identity, compared.reference_identity, compared.is_mated, strict=True
            )
        ]
        drawn.append(written_out(compared, np.array(pairs), fold))
    figure = found.figures["verification_accuracy"]
    accuracies = [one["verification_accuracy"] for one in drawn]
    low, high = np.quantile(accuracies, (0.025, 0.975), method="inverted_cdf")
    assert figure.low == pytest.approx(min(low, figure.value), abs=1e-12)
    assert figure.high == pytest.approx(max(high, figure.value), abs=1e-12)
    for name in ("tau_acc", "tau_eer"):
        figure = found.thresholds[name].similarity
        low, high = np.quantile([one[name] for one in drawn], (0.025, 0.975), method="inverted_cdf")
        assert (figure.low, figure.high) == (min(low, figure.value), max(high, figure.value))


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_the_figures_are_those_of_the_unweighted_functions(kind):
    compared = made(n=300, kind=kind)
    found = measure(compared, resamples=10)
    values, mated = compared.similarities, compared.is_mated
    folds = k_fold_accuracy(kind, values, mated)
    assert found.figures["verification_accuracy"].value == pytest.approx(folds.mean, abs=1e-12)
    assert found.accuracy_std == pytest.approx(folds.std, abs=1e-12)
    assert found.n_folds == 10
    assert found.figures["verification_auc"].value == pytest.approx(auc(values, mated), abs=1e-12)
    taus = {name: one.similarity.value for name, one in found.thresholds.items()}
    assert taus == {
        "tau_acc": tau_acc(values, mated), "tau_eer": tau_eer(values, mated),
        "tau_fmr_1e-2": tau_fmr(values, mated, 0.01),
    }  # fmt: skip
    assert found.thresholds["tau_fmr_1e-2"].fmr.value == 0.01
    assert found.figures["tmr_at_fmr_1e-2"].value == (values[mated] >= taus["tau_fmr_1e-2"]).mean()
    for name, tau in taus.items():  # tau_eer is a similarity of the list
        assert found.thresholds[name].fmr.value == (values[~mated] >= tau).mean()
        assert found.thresholds[name].fnmr.value == (values[mated] < tau).mean()


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_a_fold_that_a_resample_leaves_empty_counts_for_nothing(kind):
    compared, fold = made(kind=kind), np.arange(400) // 2 % 5
    weights = (fold != 3).astype(float)
    pairs = WeightedPairs(kind, compared.similarities, compared.is_mated, fold)
    found = pairs.statistics(weights[None], RATES)
    for name, expected in written_out(compared, weights, fold).items():
        assert found[name][0] == pytest.approx(expected, abs=1e-12), name


def test_a_distance_at_the_threshold_is_not_accepted():
    """Of the candidates 0.49 and 0.50 only 0.50 separates the distances 0.495 and 0.5."""
    compared = made()
    values = np.where(compared.is_mated, 1 - 0.495 / 2, 0.75)
    assert k_fold_accuracy("cosine", values, compared.is_mated).mean == 1
    found = measure(replace(compared, similarities=values), resamples=5)
    assert found.figures["verification_accuracy"].value == 1


def test_golden_folds_keep_their_figure():
    """600 seeded pairs whose figures are known, of 60 people, so that there are intervals."""
    generator = np.random.Generator(np.random.PCG64(7))
    mated = np.tile([True] * 30 + [False] * 30, 10)
    same, different = generator.normal(0.55, 0.15, 600), generator.normal(0.1, 0.15, 600)
    values = np.clip(np.where(mated, same, different), -1, 1)
    first = np.arange(600) % 60
    compared = ComparedPairs(
        "cosine", values, mated, first, np.where(mated, first, (first + 1) % 60)
    )
    found = measure(compared, resamples=100)
    accuracy = found.figures["verification_accuracy"]
    assert accuracy.value == pytest.approx(0.93, abs=1e-9)
    assert found.accuracy_std == pytest.approx(0.026667, abs=5e-7)
    assert found.figures["tmr_at_fmr_1e-2"].value == pytest.approx(0.75)
    assert accuracy.low < 0.93 < accuracy.high


def test_a_list_s_own_folds_are_used_and_a_single_one_is_none():
    compared = made()
    own = np.arange(400) // 2 % 4
    named = measure(replace(compared, fold=own * 7), resamples=5)
    expected = k_fold_accuracy("cosine", compared.similarities, compared.is_mated, folds=own)
    assert named.figures["verification_accuracy"].value == pytest.approx(expected.mean)
    assert named.n_folds == 4
    assert named.protocol.startswith("4 folds of the list, ")
    for fold in (None, np.zeros(400, np.int64)):
        assert measure(replace(compared, fold=fold), resamples=5).n_folds == 10


def test_folds_are_contiguous_tenths_where_those_are_balanced_and_balanced_where_not():
    tenths = np.repeat(np.arange(10), 60)
    like_lfw = np.tile([True] * 30 + [False] * 30, 10)
    assert folds_of(None, like_lfw)[0].tolist() == tenths.tolist()
    mated_first = np.arange(600) < 300
    fold, is_own = folds_of(None, mated_first)
    assert not is_own
    assert fold.tolist() == [*np.repeat(np.arange(10), 30)] * 2
    assert folds_of(None, np.arange(4) < 2)[0].tolist() == [0, 1, 0, 1]


@given(is_mated=st.lists(st.booleans(), min_size=4, max_size=60))
def test_folds_have_equal_contiguous_parts_of_either_kind(is_mated):
    found = folds_of(None, np.array(is_mated))[0]
    for kind in {*is_mated}:
        own = found[np.array(is_mated) == kind].tolist()
        sizes = [own.count(fold) for fold in range(int(found.max()) + 1)]
        assert own == sorted(own)
        assert max(sizes) - min(sizes) <= 1
    assert found.max() + 1 == max(2, min(10, is_mated.count(True), is_mated.count(False)))


def test_a_model_that_knows_nothing_is_a_coin_in_whatever_order_the_list_is():
    compared = made(n=300)
    order = np.argsort(~compared.is_mated, kind="stable")  # all mated pairs first
    first = ComparedPairs(
        "cosine", np.random.default_rng(0).normal(size=600), compared.is_mated[order],
        compared.probe_identity[order], compared.reference_identity[order],
    )  # fmt: skip
    found = measure(first, resamples=5).figures["verification_accuracy"].value
    assert found == pytest.approx(0.5, abs=0.06)


def test_the_vendor_s_threshold_is_held_against_the_list():
    compared = made()
    vendor = measure(compared, 0.3, resamples=5).thresholds["vendor"]
    matches = compared.similarities >= 0.3
    assert vendor.similarity.value == 0.3
    assert math.isnan(vendor.similarity.low)
    assert vendor.fmr.value == matches[~compared.is_mated].mean()
    assert vendor.fnmr.value == (~matches)[compared.is_mated].mean()
    assert vendor.fmr.low < vendor.fmr.value < vendor.fmr.high
    assert "vendor" not in measure(compared, resamples=5).thresholds


def test_errors_at_a_threshold_are_as_certain_as_the_people_are_many():
    """An interval over the 400 pairs of 30 people would claim too much."""
    few = measure(made(30, effect=0.2), 0.3, resamples=5)
    for name in ("fmr", "fnmr"):
        rate = getattr(few.thresholds["vendor"], name)
        hits = rate.value * 200
        over_pairs = beta_quantile(0.975, hits + 1, 200 - hits) - beta_quantile(
            0.025, hits, 201 - hits
        )
        assert rate.low < rate.value < rate.high
        assert rate.high - rate.low > 1.3 * over_pairs
    compared = made(30, effect=0.2)
    apart = ~compared.is_mated
    hits = compared.similarities[apart] >= 0.3
    people = compared.probe_identity[apart], compared.reference_identity[apart]
    fmr = few.thresholds["vendor"].fmr
    assert (fmr.low, fmr.high) == crossed_rate(hits.astype(float), *people)[:2]
    none = rate_of(np.zeros(200, bool), *people)
    assert (none.low, none.value) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 15))  # 30 people are in 15 disjoint pairs


def test_areas_and_equal_errors_have_the_jackknife_of_the_list_s_identities():
    compared = made(40, 60)
    found = measure(compared, resamples=5)
    value = [compared.similarities, compared.is_mated, compared.identities]
    auc_of_list = list_evidence("auc", *value)
    assert found.figures["verification_auc"] == Figure(
        auc_of_list.value, *auc_of_list.interval(0.95)
    )
    assert math.isnan(found.figures["verification_eer"].low)
    assert found.why_open == {
        "verification_eer": "60 mated pairs, at least 100 needed for the interval of an EER"
    }
    enough = measure(made(40, 100), resamples=5)
    assert enough.figures["verification_eer"].low < enough.figures["verification_eer"].value
    assert list(enough.why_open) == ["tmr_at_fmr_1e-2"]
    assert enough.figures["tmr_at_fmr_1e-2"].low == -math.inf
    assert enough.figures["tmr_at_fmr_1e-2"].high <= 1


@pytest.mark.parametrize(("n", "missing"), [(99, 3), (100, 2), (999, 2), (1000, 1), (10_000, 0)])
def test_a_rate_needs_nonmated_pairs_that_can_show_it(n, missing):
    found = measure(made(40, n, effect=0.0), resamples=3)
    assert len(found.missing) == missing
    assert all(f"too few nonmated pairs: {n:,}, at least" in why for why in found.missing.values())
    assert set(found.figures) | set(found.missing) == set(QUANTITIES)
    assert set(found.thresholds) <= set(THRESHOLDS)
    assert len(found.thresholds) == len(THRESHOLDS) - missing


def test_what_cannot_be_measured_is_refused_with_the_reason():
    compared = made()
    mated = compared.is_mated
    for change, words in (
        ({"is_mated": np.ones_like(mated)}, "no nonmated pairs"),
        ({"is_mated": np.zeros_like(mated)}, "no mated pairs"),
        ({"probe_identity": compared.probe_identity % 29,
          "reference_identity": compared.reference_identity % 29}, "29 identities, at least 30"),
        ({"similarities": np.where(mated, np.nan, 0.1)}, "NaN or infinite"),
    ):  # fmt: skip
        with pytest.raises(EvidenceError, match=words):
            measure(replace(compared, **change), resamples=3)
    assert why_unmeasurable(1, 1, 30) is None


def test_figures_follow_from_the_similarities_alone():
    compared = made(kind="neg_l2")
    once, again = measure(compared, resamples=50), measure(compared, resamples=50)
    assert once == again
    names = np.random.default_rng(1).permutation(1000)
    renamed = replace(
        compared,
        probe_identity=np.sort(names)[compared.probe_identity] + 5,
        reference_identity=np.sort(names)[compared.reference_identity] + 5,
    )
    assert measure(renamed, resamples=50) == once


def test_how_many_resamples_are_valued_at_once_changes_nothing(monkeypatch):
    compared = made()
    whole = measure(compared, resamples=30)
    monkeypatch.setattr(verification, "MAX_CELLS", 1)
    assert measure(compared, resamples=30) == whole


def test_a_model_without_an_error_is_as_certain_as_its_people_are_many():
    for n_people in (60, 600):
        compared = made(n_people, 2 * n_people, effect=0.0)
        similarities = compared.is_mated * 0.5 + 0.2
        perfect = measure(replace(compared, similarities=similarities), resamples=20)
        free = disjoint_rows(compared.is_mated, compared.identities)
        assert free.comparisons == perfect.n_disjoint == pytest.approx(n_people / 3, rel=0.15)
        both = min(free.mated, free.nonmated)
        for name, trials in (
            ("verification_accuracy", both), ("verification_auc", free.comparisons),
        ):  # fmt: skip
            found = perfect.figures[name]
            assert (found.value, found.high) == (1.0, 1.0)
            assert found.low == pytest.approx(0.025 ** (1 / trials), abs=1e-9)
        eer = perfect.figures["verification_eer"]
        assert (eer.value, eer.low) == (0.0, 0.0)
        assert eer.high == pytest.approx(1 - 0.0125 ** (1 / both), abs=1e-9)
        rate = perfect.figures["tmr_at_fmr_1e-2"]
        if n_people == 60:  # 120 nonmated pairs
            assert rate.low == -math.inf
        else:
            assert rate.low == pytest.approx(beta_quantile(0.025, free.mated, 1))


def test_a_model_that_knows_nothing_is_no_better_than_a_coin():
    generator = np.random.default_rng(3)
    found = measure(replace(made(n=400), similarities=generator.normal(size=800)))
    for name in ("verification_accuracy", "verification_auc", "verification_eer"):
        figure = found.figures[name]
        assert figure.value == pytest.approx(0.5, abs=0.06)
        assert figure.low < 0.5 < figure.high or name == "verification_accuracy"


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_lfw_s_size_takes_seconds(kind):
    compared = made(2086, 1500, kind=kind)
    started = time.process_time()
    found = measure(compared)
    assert time.process_time() - started < 5
    assert found.n_mated == found.n_nonmated == 1500


def test_pairs_that_share_people_make_the_interval_wider():
    """Had the pairs been resampled, both intervals would be as wide as the first."""
    alone = measure(made(600, 300, effect=0.0)).figures["verification_auc"]
    shared = measure(made(40, 300, effect=0.15, mean=0.45)).figures["verification_auc"]
    assert shared.high - shared.low > 2 * (alone.high - alone.low)


def test_neighbouring_floats_are_separated():
    low = 0.5
    values = np.array([np.nextafter(low, 1), low] * 2)
    pairs = WeightedPairs("cosine", values, np.array([True, False] * 2), np.array([0, 0, 1, 1]))
    tau = pairs.statistics(np.ones((1, 4)), {})["tau_acc"][0]
    assert low < tau <= values[0]


def test_an_interval_holds_its_value_and_needs_resamples_that_say_something():
    drawn = np.linspace(0.6, 0.7, 101)
    assert percentiles(0.5, drawn)[0] == 0.5
    assert percentiles(0.8, drawn)[1] == 0.8
    assert percentiles(0.65, drawn) == pytest.approx((0.602, 0.698), abs=1e-9)
    drawn[:5] = np.nan
    assert percentiles(0.65, drawn)[0] > 0.6
    drawn[:6] = np.nan
    assert math.isnan(percentiles(0.65, drawn)[0])
    infinite = np.array([-np.inf] * 10 + [0.5] * 90)
    assert percentiles(0.5, infinite)[0] == -np.inf


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 0.1])
def test_intervals_cover_the_truth_about_as_often_as_they_say(effect):
    """Truth: the same figures of a list of very many people.

    Vertex resampling errs to wide, percentiles near 1 err to high: an AUC of 0.998 was covered by
    90 %. What makes a claim false, an interval wholly on the bad side of the truth, stays rare.
    """
    truth = measure(made(200_000, 200_000, seed=9999, effect=effect), resamples=1).figures
    names = ("verification_accuracy", "verification_auc", "verification_eer")
    missed, wronged = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for seed in range(200):
        found = measure(made(60, 200, seed=seed, effect=effect), resamples=300).figures
        for name in names:
            figure, value = found[name], truth[name].value
            missed[name] += not figure.low <= value <= figure.high
            is_lower_better = QUANTITIES[name].better == "lower"
            wronged[name] += figure.low > value if is_lower_better else figure.high < value
    assert all(count <= 0.12 * 200 for count in missed.values()), missed
    assert all(count <= 0.03 * 200 for count in wronged.values()), wronged


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_the_figures_without_intervals_are_those_of_the_list(kind):
    generator = np.random.default_rng(3)
    mated = np.arange(300) % 3 == 0
    values = np.round(generator.normal(np.where(mated, -0.5, -0.9), 0.2), 2)
    fold = generator.integers(0, 4, 300)
    found = point_figures(kind, values, mated, fold)
    folds = k_fold_accuracy(kind, values, mated, folds=fold)
    assert found["verification_accuracy"] == pytest.approx(folds.mean, abs=1e-12)
    assert found["accuracy_std"] == pytest.approx(folds.std, abs=1e-12)
    assert found["verification_auc"] == pytest.approx(auc(values, mated), abs=1e-12)
    assert found["tau_acc"] == tau_acc(values, mated)
    assert found["tau_eer"] == tau_eer(values, mated)
    ten = point_figures(kind, values, mated)
    assert ten["verification_accuracy"] != found["verification_accuracy"]
    for odd, words in ((values * np.nan, "NaN"), (values, "no nonmated pairs")):
        with pytest.raises(EvidenceError, match=words):
            point_figures(kind, odd, mated | (words == "no nonmated pairs"))

"""Thresholds of all comparisons are those of the comparisons written out."""

import numpy as np
import pytest

from fxeval.tests.slow_figures import tau_fmr
from fxeval.verification import cross_pairs as crossing
from fxeval.verification.cross_pairs import comparisons_needed, cross_pairs


def people(n_people, each=3, dim=16, seed=0):
    """Embeddings of people who resemble themselves, some of them each other as well."""
    generator = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_people), each)
    centre = generator.normal(0, 1, (n_people, dim))
    return centre[who] + generator.normal(0, 0.5, (len(who), dim)), who


def written_out(kind, embeddings, who):
    one, two = np.triu_indices(len(who), 1)
    apart = who[one] != who[two]
    a, b = embeddings[one[apart]], embeddings[two[apart]]
    if kind == "neg_l2":
        return -np.linalg.norm(a - b, axis=1)
    a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (a, b))
    return (a * b).sum(1)


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("rows", [7, 256])
def test_thresholds_and_rates_are_those_of_the_comparisons_one_by_one(kind, rows, monkeypatch):
    monkeypatch.setattr(crossing, "_ROWS", rows)
    monkeypatch.setattr(crossing, "_MORE", 10)
    embeddings, who = people(100)
    mixed = np.random.default_rng(1).permutation(len(who))
    embeddings, who = embeddings[mixed], who[mixed]
    found, values = cross_pairs(kind, embeddings, who), written_out(kind, embeddings, who)
    assert found.n == len(values) == 44550
    thresholds = found.thresholds()
    assert list(thresholds) == ["tau_fmr_1e-2", "tau_fmr_1e-3"]
    for name, rate in (("tau_fmr_1e-2", 0.01), ("tau_fmr_1e-3", 0.001)):
        threshold, fmr = thresholds[name]
        exact = tau_fmr(np.append(values, 9.0), np.arange(len(values) + 1) == len(values), rate)
        assert exact <= threshold.value == pytest.approx(exact, abs=1e-11)
        assert fmr.value == (values >= threshold.value).mean() <= rate
        assert fmr.low < fmr.value < fmr.high
        assert threshold.low < threshold.value < threshold.high


def test_the_interval_covers_the_threshold_of_the_population():
    """60 lists of 40 people each; the truth is that of 1,500 people."""
    embeddings, who = people(1500, each=1)
    truth = np.quantile(written_out("cosine", embeddings, who), 0.99)
    covered = 0
    for seed in range(60):
        chosen = np.random.default_rng(seed).choice(1500, 80, replace=False)
        [(found, _)] = cross_pairs("cosine", embeddings[chosen], who[chosen]).thresholds().values()
        covered += found.low <= truth <= found.high
    assert covered >= 52  # 1 in 700 for a coverage of 95 %


def test_few_comparisons_set_no_threshold():
    embeddings, who = people(77, each=1)  # 2,926 comparisons
    assert cross_pairs("cosine", embeddings, who).thresholds() == {}
    assert [comparisons_needed(rate) for rate in (1e-2, 1e-3, 1e-4)] == [3000, 30_000, 300_000]


def test_more_images_than_can_be_compared_are_taken_in_equal_steps(monkeypatch):
    monkeypatch.setattr(crossing, "MAX_IMAGES", 150)
    embeddings, who = people(100)
    found = cross_pairs("cosine", embeddings, who)
    taken = np.linspace(0, 299, 150).round().astype(int)
    assert found.n_images == 150
    assert found.n == len(written_out("cosine", embeddings[taken], who[taken]))

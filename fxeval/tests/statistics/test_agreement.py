"""Do metrics rank explainers as known truth does?"""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import kendalltau

from fxeval.errors import EvidenceError, FxevalError, StoreError
from fxeval.records.judged import LimitEntry
from fxeval.statistics.agreement import agreements_of
from fxeval.statistics.rankings import chance_of, tau_b
from fxeval.tests.statistics.ranked_runs import LETTERS, PROXY, TRUTH, around, declared, run

MEANS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
MIXED = (0.2, 0.1, 0.3, 0.6, 0.4, 0.5)


def the_table(proxy, truth=MEANS, **more):
    """Compare one metric with the truth on one model."""
    metric = run(PROXY, {"m": around(proxy, seed=1)}, **more)
    return agreements_of([run(TRUTH, {"m": around(truth)}, name="two", pairs="t"), metric],
                         "top_precision", resamples=200)  # fmt: skip


def the_one(proxy, truth=MEANS, **more):
    return the_table(proxy, truth, **more).pooled()[0]


def test_tau_b_is_that_of_an_independent_implementation_with_and_without_ties():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 6, size=(200, 8)).astype(float)
    others = rng.integers(0, 6, size=(200, 8)).astype(float)
    found = tau_b(values, others)
    wanted = [kendalltau(one, two).statistic for one, two in zip(values, others, strict=True)]
    # Whole numbers of pairs over the root of a whole number: a few roundings of at most 1.
    assert np.abs(found - wanted).max() <= 8 * np.finfo(np.float64).eps


def test_values_that_differ_by_rounding_alone_are_tied():
    values = np.array([[1.0, 1.0 + 1e-9, 0.5, 0.2, 0.1]])
    tied = np.array([[1.0, 1.0, 0.5, 0.2, 0.1]])
    truth = np.array([[2.0, 1.0, 3.0, 4.0, 5.0]])
    apart = np.array([[1.0, 1.001, 0.5, 0.2, 0.1]])
    assert tau_b(values, truth) == tau_b(tied, truth) != tau_b(apart, truth)


def test_one_value_for_all_has_no_order():
    assert np.isnan(tau_b(np.ones((1, 5)), np.arange(5.0)[None]))


def test_identical_rankings_agree_and_reversed_ones_disagree():
    same, reversed_ = the_one(MEANS), the_one(MEANS[::-1])
    assert (same.tau, same.low, same.high, same.word) == (1.0, 1.0, 1.0, "agrees")
    assert (reversed_.tau, reversed_.high, reversed_.word) == (-1.0, -1.0, "disagrees")
    assert (same.is_supported, reversed_.is_supported) == (True, False)
    assert (same.n_people, same.explainers) == ((30, 30), tuple("abcdef"))


def test_where_lower_is_better_the_ranking_is_turned():
    assert the_one(MEANS[::-1], of=declared("m", "lower")).tau == 1.0
    assert the_one(MEANS, of=declared("m", "lower")).tau == -1.0


def test_a_mixed_ranking_has_the_tau_of_its_means():
    found = the_one(MIXED)
    assert found.tau == pytest.approx(kendalltau(MIXED, MEANS).statistic)
    assert found.tau == pytest.approx(9 / 15)


def test_noise_is_not_told_from_nothing():
    words = []
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(size=(8, 30))
        runs = [
            run(TRUTH, {"m": around(np.arange(8) / 10)}, pairs="t", name="two"),
            run(PROXY, {"m": dict(zip(LETTERS, noise, strict=False))}),
        ]
        found = agreements_of(runs, "top_precision", resamples=200).pooled()[0]
        words.append(found.word)
        assert found.low < 0.2
        assert found.high > -0.2
    assert words.count("cannot be told") >= 9


def test_resamples_draw_people_and_not_rows():
    # One person has all rows but eleven, and those say the opposite.
    who = [[0]] * 29 + [[place] for place in range(1, 12)]
    strong = {name: [value] * 29 + [1 - value] * 11
              for name, value in zip(LETTERS, MEANS, strict=False)}  # fmt: skip
    truth = run(TRUTH, {"m": around(MEANS)}, pairs="t", name="two")
    by_person = agreements_of([truth, run(PROXY, {"m": strong}, identities=who)], "top_precision")
    by_row = agreements_of([truth, run(PROXY, {"m": strong})], "top_precision")
    assert by_row.pooled()[0].word == "agrees"
    assert by_person.pooled()[0].word == "disagrees"  # eleven people of twelve
    assert by_person.pooled()[0].n_people == (12, 30)


def test_the_interval_is_that_of_a_slow_loop_over_people():
    rng = np.random.default_rng(7)
    who = [[int(one)] for one in rng.integers(0, 12, size=40)]
    columns = {name: rng.normal(mean, 1.0, size=40)
               for name, mean in zip(LETTERS, MEANS, strict=False)}  # fmt: skip
    truth = run(TRUTH, {"m": around(MEANS, by=0.0)}, pairs="t", name="two")
    found = agreements_of([truth, run(PROXY, {"m": columns}, identities=who)], "top_precision")
    names, numbers = sorted({one[0] for one in who}), np.array(who)[:, 0]
    means = np.array([[column[numbers == one].mean() for one in names]
                      for column in columns.values()])  # fmt: skip
    loop = np.random.default_rng(11)
    taus = []
    for _ in range(4000):
        drawn = loop.integers(len(names), size=len(names))
        taus.append(kendalltau(means[:, drawn].mean(axis=1), MEANS).statistic)
    one = found.pooled()[0]
    assert one.tau == pytest.approx(kendalltau(means.mean(axis=1), MEANS).statistic)
    wanted = np.quantile(taus, (0.025, 0.975))
    assert np.abs(np.array([one.low, one.high]) - wanted).max() <= 2 / 15 + 1e-9  # one pair's step


def test_medians_and_ratios_are_ranked_by_what_they_are():
    skewed = {name: [value] * 29 + [-100.0 * value]
              for name, value in zip(LETTERS, MEANS, strict=False)}  # fmt: skip
    truth = run(TRUTH, {"m": around(MEANS)}, pairs="t", name="two")
    of = declared("m", statistic="median")
    median, mean = (
        agreements_of([truth, run(PROXY, {"m": skewed}, of=one)], "top_precision").pooled()[0]
        for one in (of, declared("m"))
    )
    assert (median.tau, mean.tau) == (1.0, -1.0)
    below = {"m": {name: [value * value] * 30
                   for name, value in zip(LETTERS, MEANS, strict=False)}}  # fmt: skip
    of = declared("m", statistic="ratio", denominator="below", range=(None, None))
    above = {"m": {name: [value] * 30 for name, value in zip(LETTERS, MEANS, strict=False)}}
    runs = [truth, run(PROXY, above, of=of, below=below)]
    ratio = agreements_of(runs, "top_precision", ["m"]).pooled()[0]
    assert ratio.tau == -1.0  # v / v^2 falls where v rises


def test_the_mean_over_models_draws_the_same_people_for_all():
    models = {"m": around(MEANS), "w": around(MEANS[::-1])}
    truth = {"m": around(MEANS), "w": around(MEANS)}
    found = agreements_of([run(PROXY, models), run(TRUTH, truth, pairs="t", name="two")],
                          "top_precision", resamples=100).agreements  # fmt: skip
    assert [(one.model, one.tau) for one in found] == [("", 0.0), ("m", 1.0), ("w", -1.0)]
    assert (found[0].n_models, found[0].low, found[0].high) == (2, 0.0, 0.0)


def test_an_explainer_that_one_run_lacks_is_named_and_left_out():
    values = around(MEANS)
    del values["c"]
    found = agreements_of(
        [run(PROXY, {"m": values}), run(TRUTH, {"m": around(MEANS)}, pairs="t", name="two")],
        "top_precision",
    )
    assert found.pooled()[0].explainers == tuple("abdef")
    assert "c on m has no value of any other metric: it is not ranked" in found.remarks
    refused = the_table(MEANS, refused=("b",))
    assert "b on m is not ranked by deletion_insertion: no attention" in refused.remarks
    assert refused.pooled()[0].explainers == tuple("acdef")


def test_an_explainer_without_values_on_many_rows_is_not_ranked_by_the_others():
    values = around(MEANS)
    values["a"][:4] = np.nan
    values["b"][:1] = np.nan
    found = agreements_of(
        [run(PROXY, {"m": values}), run(TRUTH, {"m": around(MEANS)}, pairs="t", name="two")],
        "top_precision",
    )
    assert "a on m is not ranked by m: it has a value on 26 of 30 rows" in found.remarks
    assert found.pooled()[0].explainers == tuple("bcdef")
    assert found.pooled()[0].n_people == (29, 30)  # the rows that all have


def test_four_explainers_are_refused_with_the_reason():
    found = the_table(MEANS[:4], MEANS[:4])
    one = found.pooled()[0]
    assert math.isnan(one.tau)
    assert (one.word, found.is_told) == ("cannot be told", False)
    assert one.reason == "4 explainers have both values, fewer than 5"


def test_equal_values_of_all_explainers_are_no_agreement():
    flat = run(PROXY, {"m": dict.fromkeys("abcdef", [0.5] * 30)})
    truth = run(TRUTH, {"m": around(MEANS)}, pairs="t", name="two")
    one = agreements_of([flat, truth], "top_precision").pooled()[0]
    assert one.word == "cannot be told"
    assert "one value" in one.reason


def test_a_figure_of_the_whole_list_is_named_and_not_compared():
    found = the_table(MEANS, of=declared("m", statistic="auc"))
    assert (found.pooled(), found.is_told) == ([], False)
    assert "m: a figure of the whole list, which no row has" in found.remarks


def test_conditions_of_truth_and_metric_are_compared_each_with_each():
    runs = [
        run(TRUTH, {"m": around(MEANS)}, pairs="t", name="two", under={"question": "pairwise"}),
        run(PROXY, {"m": around(MIXED)}, under={"fill": "blur"}),
    ]
    one = agreements_of(runs, "top_precision").pooled()[0]
    assert one.truth.text == "top_precision (question pairwise)"
    assert one.quantity.text == "m (fill blur)"


def test_a_condition_that_no_limit_is_about_is_no_truth():
    """It stands among the metrics that are compared, as any other does."""
    under = {"question": "discriminative"}
    limit = LimitEntry(metric="top_precision", at_least=0.1, under=under, where="s.yaml:9:1")
    runs = []
    for question, values in (("discriminative", MEANS), ("pairwise", MIXED)):
        asked = {"question": question}
        name, record, rows = run(
            TRUTH, {"m": around(values)}, pairs=question, name=question, under=asked
        )
        cells = [cell.model_copy(update={"asked": [limit]}) for cell in record.cells]
        runs.append((name, record.model_copy(update={"cells": cells}), rows))
    (one,) = agreements_of(runs, "top_precision", resamples=200).pooled()
    assert one.truth.text == "top_precision (question discriminative)"
    assert one.quantity.text == "top_precision (question pairwise)"


def test_what_is_not_there_is_named():
    runs = [run(PROXY, {"m": around(MEANS)}), run(TRUTH, {"m": around(MEANS)}, name="two")]
    with pytest.raises(FxevalError, match=r"known truth, top_precision, got 'flip_share'"):
        agreements_of(runs, "flip_share")
    with pytest.raises(FxevalError, match=r"known truth, top_precision, got 'm'"):
        agreements_of(runs, "m")  # a proxy is no truth
    with pytest.raises(FxevalError, match=r"got 'deletion_auk'.*m, top_precision"):
        agreements_of(runs, "top_precision", ["deletion_auk"])
    with pytest.raises(EvidenceError, match=r"a kind truth\.\*, got none"):
        agreements_of(runs[:1], "top_precision")


def test_one_name_for_two_explainers_is_refused():
    name, record, rows = run(TRUTH, {"m": around(MEANS)}, name="two")
    known = record.subjects.explainers
    other = {**known, "a": known["a"].model_copy(update={"params": {"layer": "other"}})}
    subjects = record.subjects.model_copy(update={"explainers": other})
    changed = (name, record.model_copy(update={"subjects": subjects}), rows)
    with pytest.raises(StoreError, match="explainer 'a': expected the same in all runs"):
        agreements_of([run(PROXY, {"m": around(MEANS)}), changed], "top_precision")


def test_the_same_cell_twice_and_missing_rows_are_refused():
    one, truth = run(PROXY, {"m": around(MEANS)}), run(TRUTH, {"m": around(MEANS)}, name="two")
    with pytest.raises(StoreError, match="each cell in one run"):
        agreements_of([one, truth, ("again", *one[1:])], "top_precision")
    with pytest.raises(StoreError, match="expected 30 rows, got 29"):
        agreements_of([(*one[:2], one[2][1:]), truth], "top_precision")


def test_rows_in_another_order_and_runs_in_another_order_give_the_same_table():
    one, truth = (
        run(PROXY, {"m": around(MIXED, by=0.3)}),
        run(TRUTH, {"m": around(MEANS, by=0.3)}, name="two", pairs="t"),
    )
    before = agreements_of([one, truth], "top_precision")
    turned = [(*truth[:2], truth[2][::-1]), (*one[:2], one[2][::-1])]
    assert agreements_of(turned, "top_precision").agreements == before.agreements


def test_chance_is_the_share_of_orders_that_agree_as_strongly():
    values, names = np.arange(5.0), [*"abcde"]
    assert chance_of([(names, values, values)]) == pytest.approx(1 / 120, abs=0.004)
    assert chance_of([(names, -values, values)]) == pytest.approx(1 / 120, abs=0.004)
    swapped = np.array([1.0, 0.0, 2.0, 3.0, 4.0])  # four neighbours to swap, and the order itself
    assert chance_of([(names, swapped, values)]) == pytest.approx(5 / 120, abs=0.008)
    # One order for both models: agreement with both is as likely as with one.
    assert chance_of([(names, values, values)] * 2) == pytest.approx(1 / 120, abs=0.004)


def test_steady_agreement_that_chance_gives_often_supports_nothing():
    found = the_one((0.3, 0.1, 0.2, 0.5, 0.4), MEANS[:5], name="small")
    assert found.tau == pytest.approx(0.4)
    assert (found.word, found.is_supported) == ("agrees", False)
    assert found.chance > 0.2


@pytest.mark.slow
def test_unrelated_rankings_are_seldom_said_to_agree():
    rng, told = np.random.default_rng(13), []
    for _ in range(300):
        columns = [rng.normal(size=(12, 30)) for _ in range(2)]
        runs = [
            run(TRUTH, {"m": dict(zip(LETTERS, columns[0], strict=True))}, pairs="t", name="two"),
            run(PROXY, {"m": dict(zip(LETTERS, columns[1], strict=True))}),
        ]
        told.append(agreements_of(runs, "top_precision", resamples=500).pooled()[0].word)
    # 2.5 % on each side if the percentiles keep their promise; 300 runs have an error of 0.9 %.
    assert max(told.count("agrees"), told.count("disagrees")) <= 15


@pytest.mark.slow
def test_a_correction_of_the_bias_would_tell_too_much():
    rng, n, told = np.random.default_rng(17), 20, np.zeros(2)
    normal = NormalDist()
    for _ in range(400):
        truth = np.arange(12) / 12 + rng.normal(size=(n, 12))
        noise = rng.normal(size=(n, 12))
        at_list = tau_b(noise.mean(axis=0)[None], truth.mean(axis=0)[None])[0]
        weights = rng.multinomial(n, np.ones(n) / n, size=(2, 1000)) / n
        drawn = tau_b(weights[0] @ noise, weights[1] @ truth)
        below = (drawn < at_list).mean() + (drawn == at_list).mean() / 2
        shift = 2 * normal.inv_cdf(np.clip(below, 5e-4, 1 - 5e-4))
        levels = 0.025, normal.cdf(shift - 1.96)  # of percentiles, and corrected (BC)
        told += np.quantile(drawn, levels, method="inverted_cdf") > 0
    # 2.5 % of 400 lists are 10; by the normal quantile, 20 would be three standard errors above.
    assert told[0] <= 20 < told[1]

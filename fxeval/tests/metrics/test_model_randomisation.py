"""The check must tell a map that follows the weights from one that doesn't."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fxeval.contracts import RowState, SaliencyMaps
from fxeval.metrics.model_randomisation import Parameters, measure
from fxeval.results import Outcome
from fxeval.statistics.redrawn import network_objection
from fxeval.tests.evidence import evidence_of, series_of
from fxeval.tests.rounding import FLOAT64, assert_rounded
from fxeval.tests.subjects import make_pairs

N = 40


def maps_of(seed, *, states=()):
    maps = torch.rand(N, 8, 8, generator=torch.Generator().manual_seed(seed))
    return SaliencyMaps(maps, None, tuple(states))


def run(before, *after, spread=0.5, share=1.0):
    evidence = evidence_of(
        make_pairs(N), maps={"probe": before}, after=after, spread=spread, share=share
    )
    ledger = measure(evidence, Parameters(redraws=len(after)))
    rows = ledger.rows("cell")
    objection = network_objection(ledger.networks, rows)
    return objection, {metric: one for (metric, *_), one in series_of(ledger).items()}, rows


def test_the_values_are_spearmans_correlations_pair_by_pair():
    before, after = maps_of(1), maps_of(2)
    _, series, rows = run(before, after)
    expected = [
        spearmanr(one.flatten(), two.flatten()).statistic
        for one, two in zip(before.positive, after.positive, strict=True)
    ]
    signed = series["rank_correlation_fully_randomised"].values
    absolute = series["absolute_rank_correlation_fully_randomised"].values
    # Correlations are sums of 64 products, as large together as 1.
    assert_rounded(signed, expected, terms=64, scale=1, unit=FLOAT64)
    assert_rounded(absolute, np.abs(expected), terms=64, scale=1, unit=FLOAT64)
    assert len(rows) == N


def test_several_redraws_are_averaged():
    before = maps_of(1)
    _, series, _ = run(before, before, SaliencyMaps(-before.positive))
    assert series["rank_correlation_fully_randomised"].values.tolist() == [0.0] * N
    assert series["absolute_rank_correlation_fully_randomised"].values.tolist() == [1.0] * N


def test_a_constant_map_counts_as_a_random_order():
    flat = SaliencyMaps(torch.zeros(N, 8, 8), None, (RowState.DEGENERATE_MAP,) * N)
    objection, series, _ = run(flat, maps_of(2))
    values = series["rank_correlation_fully_randomised"].values
    assert np.isfinite(values).all()
    assert abs(np.median(values)) < 0.1
    assert set(series["rank_correlation_fully_randomised"].states) == {RowState.DEGENERATE_MAP}
    assert objection is None


@pytest.mark.parametrize(("flat", "objects"), [(8, False), (9, True)])
def test_many_constant_maps_of_the_redrawn_network_teach_nothing(flat, objects):
    after = maps_of(2, states=[RowState.DEGENERATE_MAP] * flat + [RowState.OK] * (N - flat))
    objection, series, _ = run(maps_of(1), after)
    assert (objection is not None) == objects
    if objects:
        assert objection.outcome is Outcome.INCONCLUSIVE
    assert set(series["rank_correlation_fully_randomised"].states) == {RowState.OK}


def test_a_collapsed_network_makes_the_check_invalid():
    objection, _, _ = run(maps_of(1), maps_of(2), spread=1e-5)
    assert objection.outcome is Outcome.INVALID
    assert "collapsed" in objection.reason


def test_a_broken_map_before_or_after_has_no_value():
    before = maps_of(1, states=[RowState.EXPLAINER_RAISED] + [RowState.OK] * (N - 1))
    after = maps_of(2, states=[RowState.OK, RowState.NAN_MAP] + [RowState.OK] * (N - 2))
    after.positive[1] = torch.nan
    _, series, _ = run(before, after)
    one = series["absolute_rank_correlation_fully_randomised"]
    assert np.flatnonzero(np.isnan(one.values)).tolist() == [0, 1]
    assert one.states[:3] == (RowState.EXPLAINER_RAISED, RowState.NAN_MAP, RowState.OK)


def test_a_network_that_keeps_its_weights_makes_the_check_invalid():
    objection, _, _ = run(maps_of(1), maps_of(2), share=0.4)
    assert objection.outcome is Outcome.INVALID
    assert "only 40% of the parameters" in objection.reason

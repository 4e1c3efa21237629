"""The check must tell a map that follows the weights from one that doesn't."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fxeval.cells import Outcome
from fxeval.contracts import RowState, SaliencyMaps
from fxeval.metrics.evidence import Evidence, Redrawn
from fxeval.metrics.model_randomisation import Parameters, measure
from fxeval.tests.rounding import FLOAT64, assert_rounded
from fxeval.tests.subjects import make_pairs

N = 40


def maps_of(seed, *, states=()):
    maps = torch.rand(N, 8, 8, generator=torch.Generator().manual_seed(seed))
    return SaliencyMaps(maps, None, tuple(states))


def run(before, *after, spread=0.5):
    rows = []
    evidence = Evidence(
        pairs=make_pairs(N), similarity="cosine", operating_threshold=None, seed=1,
        clean=None, embed=None,
        explain=lambda side: before,
        redraw=lambda index: Redrawn(after[index], spread, 1.0),
        emit=rows.extend,
    )  # fmt: skip
    found = measure(evidence, Parameters(redraws=len(after)))
    return found, {one.metric: one for one in found.series}, rows


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
    found, series, _ = run(flat, maps_of(2))
    values = series["rank_correlation_fully_randomised"].values
    assert np.isfinite(values).all()
    assert abs(np.median(values)) < 0.1
    assert set(series["rank_correlation_fully_randomised"].states) == {RowState.DEGENERATE_MAP}
    assert found.objection is None


@pytest.mark.parametrize(("flat", "objects"), [(8, False), (9, True)])
def test_many_constant_maps_of_the_redrawn_network_teach_nothing(flat, objects):
    after = maps_of(2, states=[RowState.DEGENERATE_MAP] * flat + [RowState.OK] * (N - flat))
    found, series, _ = run(maps_of(1), after)
    assert (found.objection is not None) == objects
    if objects:
        assert found.objection.outcome is Outcome.INCONCLUSIVE
    assert set(series["rank_correlation_fully_randomised"].states) == {RowState.OK}


def test_a_collapsed_network_makes_the_check_invalid():
    found, _, _ = run(maps_of(1), maps_of(2), spread=1e-5)
    assert found.objection.outcome is Outcome.INVALID
    assert "collapsed" in found.objection.reason


def test_a_broken_map_before_or_after_has_no_value():
    before = maps_of(1, states=[RowState.EXPLAINER_RAISED] + [RowState.OK] * (N - 1))
    after = maps_of(2, states=[RowState.OK, RowState.NAN_MAP] + [RowState.OK] * (N - 2))
    after.positive[1] = torch.nan
    _, series, _ = run(before, after)
    one = series["absolute_rank_correlation_fully_randomised"]
    assert np.flatnonzero(np.isnan(one.values)).tolist() == [0, 1]
    assert one.states[:3] == (RowState.EXPLAINER_RAISED, RowState.NAN_MAP, RowState.OK)

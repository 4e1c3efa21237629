"""Every shipped explainer repeats its maps, and only those that draw depend on their seed."""

from dataclasses import replace

import pytest
import torch

from fxeval.contracts import RowState, SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import explain
from fxeval.engine.repetition import ROWS_AGAIN, SAME, repeated, rows_again, together
from fxeval.records.schema import Repeatability
from fxeval.seeding import seed_of
from fxeval.tests.evidence import comparison
from fxeval.tests.explained import IDS, few, network_of, small
from fxeval.tests.subjects import make_pairs

N = 18  # more than one group
DRAWS = {"corrrise", "rise", "smoothgrad", "srise"}


@pytest.mark.parametrize("id", IDS)
def test_a_shipped_explainer_repeats_and_is_stochastic_only_if_it_draws(id):
    explainer, asked = few(id), comparison(make_pairs(N))
    model = PooledModel(small(by=network_of(id)), ForwardPool(batch_size=16), "key")

    def again(asked):
        return explain(explainer, model, asked, seed=3, progress=lambda *_: None)

    maps = again(asked)
    found = repeated(again, asked, maps, 3)
    assert found.n_rows == ROWS_AGAIN
    assert found.repeats, found.reason
    assert found.change <= SAME
    assert found.depends_on_seed is (id in DRAWS)


def maps_of(states):
    return SaliencyMaps(torch.rand(len(states), 4, 4), None, tuple(states), ("",) * len(states))


def test_the_pairs_that_are_asked_again_are_chosen_by_the_seed_among_maps_that_have_an_order():
    asked = comparison(make_pairs(N))
    states = [RowState.OK] * N
    chosen = [tuple(rows_again(asked, maps_of(states), seed).tolist()) for seed in range(9)]
    assert len(set(chosen)) > 5
    for rows in chosen:
        assert list(rows) == sorted(rows, reverse=True)
        assert len(rows) == ROWS_AGAIN
    drawn = sorted(range(N), key=lambda row: seed_of(0, "again", asked.id[row]))
    assert sorted(chosen[0]) == sorted(drawn[:ROWS_AGAIN])
    for row in chosen[0][:3]:
        states[row] = RowState.NAN_MAP
    kept = rows_again(asked, maps_of(states), 0).tolist()
    assert not {*chosen[0][:3]} & {*kept}
    assert rows_again(asked, maps_of([RowState.NAN_MAP] * N), 0).tolist() == []


def test_of_some_pairs_only_those_are_asked_again():
    """A look asks for some of all pairs: places among these, and names of these."""
    rows = torch.tensor([17, 3, 11, 5, 8, 2, 14])
    asked = replace(comparison(make_pairs(N)), rows=rows)
    chosen = rows_again(asked, maps_of([RowState.OK] * len(rows)), 0)
    drawn = sorted(rows.tolist(), key=lambda row: seed_of(0, "again", asked.id[row]))
    assert sorted(rows[chosen].tolist()) == sorted(drawn[:ROWS_AGAIN])


def test_some_of_all_pairs_repeat_as_all_do():
    explainer, rows = few("srise"), torch.tensor([17, 3, 11, 5, 8, 2, 14])
    asked = replace(comparison(make_pairs(N)), rows=rows)
    model = PooledModel(small(by=network_of("srise")), ForwardPool(batch_size=16), "key")

    def again(asked):
        return explain(explainer, model, asked, seed=3, progress=lambda *_: None)

    maps = again(asked)
    assert len(maps.states) == len(rows)
    found = repeated(again, asked, maps, 3)
    assert (found.n_rows, found.repeats, found.depends_on_seed) == (ROWS_AGAIN, True, True)


def test_findings_about_several_sets_of_maps_are_those_of_the_worst():
    good = Repeatability(n_rows=4, repeats=True, depends_on_seed=True, change=1e-5)
    bad = Repeatability(n_rows=4, repeats=False, depends_on_seed=False, change=0.5, reason="why")
    none = Repeatability(n_rows=0, repeats=True, depends_on_seed=False, change=0.0)
    assert together([good, none, bad]) == Repeatability(
        n_rows=8, repeats=False, depends_on_seed=True, change=0.5, reason="why"
    )
    assert together([none]) is None

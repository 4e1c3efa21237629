"""Several orders for maps with many ties: means, shared points, and how much chance is left."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import RowState, SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool
from fxeval.functional.ranking import orders_needed, ranks, step_counts
from fxeval.metrics.deletion_insertion import METRICS, Parameters, measure
from fxeval.metrics.orders import Order, answers, orders
from fxeval.metrics.removal_curves import Removal, area, trace
from fxeval.metrics.threshold_crossings import crossings
from fxeval.seeding import seed_of
from fxeval.tests.evidence import evidence_of, series_of
from fxeval.tests.rounding import FLOAT64, assert_rounded
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

N, STEPS, SIZE = 6, 8, 16


def tied_maps(*, share: float, n: int = N, seed: int = 0) -> torch.Tensor:
    """Maps of different values, of which the given share of pixels is 0."""
    values = torch.rand(n, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) + 0.1
    place = torch.rand(n, SIZE * SIZE, generator=torch.Generator().manual_seed(seed + 1))
    zero = place.argsort(dim=1).argsort(dim=1) < share * SIZE * SIZE
    return values.masked_fill(zero.view(n, SIZE, SIZE), 0.0)


def evidence(maps, *, threshold=None, seed=5, states=(), pool=None):
    given = {"probe": SaliencyMaps(maps, None, states)}
    model = CountingModel(ConvNet().eval())
    pool = pool or ForwardPool(batch_size=16)  # every batch is filled up: rows are independent
    return evidence_of(
        make_pairs(len(maps)), model, maps=given, threshold=threshold, pool=pool, seed=seed
    )


def order_of(given, maps, states=None) -> Order:
    found = SaliencyMaps(maps, None, states or (RowState.OK,) * len(maps))
    return next(iter(orders(given, given.subject, found)))


def one_by_one(given, order: Order) -> list[list[Order]]:
    """The orders of each row as if each were a row's only one."""
    return [
        [Order("one", np.array([row]), order.ranks[[entry]], order.states)
         for entry in np.flatnonzero(order.kept == row)]
        for row in range(len(order.states))
    ]  # fmt: skip


def test_the_first_order_is_the_one_of_old_and_the_others_are_seeded_by_row_and_turn():
    maps = tied_maps(share=0.9)
    given = evidence(maps)
    order = order_of(given, maps)
    assert order.per_row.tolist() == orders_needed(maps).tolist() == [7] * N
    for row in range(N):
        name = given.rows.id[row]
        labels = ["probe", *(f"probe {turn}" for turn in range(1, 7))]
        seeds = [seed_of(5, "ties", name, label) for label in labels]
        expected = ranks(maps[[row] * 7], seeds)
        assert torch.equal(order.ranks[order.kept == row], expected)
        assert len(expected.unique(dim=0)) == 7


def test_values_curves_and_fractions_are_means_over_the_orders_and_states_the_worst():
    maps = torch.cat([tied_maps(share=0.95), tied_maps(share=0.2, n=2)])
    threshold = 0.96
    given = evidence(maps, threshold=threshold)
    found = measure(given, Parameters(steps=STEPS, fills=("mean",)))
    series, rows = series_of(found), found.rows("cell")
    mixed = 0
    for row, separate in enumerate(one_by_one(given, order_of(given, maps))):
        assert len(separate) == (8 if row < N else 1)
        removals = [Removal(given, given.subject, one, "mean") for one in separate]
        curves = [trace(one, STEPS) for one in removals]
        areas = np.mean([area(one.fraction, one.answer[0]) for one in curves], axis=0)
        flips = [crossings(*pair, None)[0] for pair in zip(removals, curves, strict=True)]
        for way in (0, 1):
            name, at = METRICS[way].name, METRICS[way + 2].name
            value = series[name, "explainer", "mean"].values[row]
            assert_rounded(value, areas[way], terms=2 * STEPS, unit=FLOAT64, scale=1)
            expected = np.mean([flip[way][0] for flip in flips])
            one = series[at, "explainer", "mean"]
            assert_rounded(one.values[row], expected, terms=9, unit=FLOAT64)
            states = {flip[way][1] for flip in flips}
            mixed += states == {RowState.OK, RowState.NOT_CROSSED}
            worst = RowState.NOT_CROSSED if RowState.NOT_CROSSED in states else min(states)
            assert one.states[row] is worst
        curve = np.mean([one.answer[0, 0] for one in curves], axis=0)
        kept = rows[row].measured[0].curves["deletion"]
        assert_rounded(np.array(kept), curve, terms=9, unit=FLOAT64, scale=1)
    assert mixed > 0


def test_a_row_has_the_same_value_alone_and_in_company():
    maps = torch.cat([tied_maps(share=0.9, n=3), torch.rand(3, SIZE, SIZE)])
    given = evidence(maps)
    parameters = Parameters(steps=STEPS, controls=("inverse", "centre", "random_pixels"))
    together = measure(given, parameters).rows("cell")
    for row in range(N):
        (alone,) = measure(given.take(torch.tensor([row])), parameters).rows("cell")
        assert alone.measured == together[row].measured  # to the last bit


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=9, max_size=9), st.data())
def test_what_is_the_same_set_of_pixels_is_described_by_the_first_order(values, data):
    maps = torch.tensor(values).float().view(1, 3, 3)
    table = ranks(maps.expand(3, 3, 3), [1, 2, 3])
    order = Order("any", np.zeros(3, dtype=np.int64), table, (RowState.OK,))
    entry = torch.arange(3)
    first = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3)))
    last = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3)))
    found = order.removed(torch.tensor([4]), entry, first, last, "blur")
    assert found.image.tolist() == [4, 4, 4]
    for one in range(3):
        sets, bounds = [], (first[one], last[one])
        for ranking in (one, int(found.ranking[one])):
            sets.append((table[ranking] >= bounds[0]) & (table[ranking] < bounds[1]))
        assert torch.equal(*sets)
        begin_alike = all(torch.equal(table[0] < bound, table[one] < bound) for bound in bounds)
        assert int(found.ranking[one]) == (0 if begin_alike else one)


def test_only_points_inside_the_ties_are_embedded_again():
    maps = tied_maps(share=0.5, n=3)
    pool = ForwardPool(batch_size=16)
    given = evidence(maps, pool=pool)
    order = order_of(given, maps)
    assert order.per_row.tolist() == [2, 2, 2]
    trace(Removal(given, given.subject, order, "mean"), STEPS)
    inside = sum(SIZE**2 / 2 < k < SIZE**2 for k in step_counts(SIZE**2, STEPS))
    assert inside == 3
    once = 2 * (STEPS - 1)  # points of two curves without their ends
    assert pool.forwards == 3 * (once + 2 * inside) + 6 + 3  # clean images, filled probes


def test_the_question_after_one_removal_is_answered_by_the_mean_too():
    maps = tied_maps(share=0.9)
    given = evidence(maps)
    order = order_of(given, maps)
    for retains in (False, True):
        found = answers(given, given.subject, order, 0.3, "mean", retains=retains)
        for row, separate in enumerate(one_by_one(given, order)):
            each = [answers(given, given.subject, one, 0.3, "mean", retains=retains)[row]
                    for one in separate]  # fmt: skip
            assert len(set(each)) > 1
            assert_rounded(found[row], np.mean(each), terms=9, unit=FLOAT64, scale=1)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_chance_is_left_in_a_value_as_in_a_map_with_few_ties(share):
    """Over suites that differ in their seed alone, an area moves as little as its bound says."""

    def spread(maps, *, single: bool) -> float:
        areas = []
        for seed in range(12):
            given = evidence(maps, seed=seed)
            order = order_of(given, maps)
            if single:
                first = np.unique(order.kept, return_index=True)[1]
                order = Order("one", order.kept[first], order.ranks[first], order.states)
            found = trace(Removal(given, given.subject, order, "black"), STEPS)
            areas.append(order.means(area(found.fraction, found.answer)))
        return float(np.sqrt(np.var(areas, axis=0, ddof=1).mean()))

    maps = tied_maps(share=share, n=4)
    several = int(orders_needed(maps)[0])
    one, mean = spread(maps, single=True), spread(maps, single=False)
    # 96 variances of 11 degrees of freedom each: their mean is known to about 15 %.
    assert mean < 1.3 * one / several**0.5
    assert one > 0


def test_constant_maps_and_maps_without_ties_have_one_order_and_broken_ones_none():
    maps = torch.rand(4, SIZE, SIZE)
    maps[0], maps[2], maps[3:] = 0.3, torch.nan, tied_maps(share=0.995, n=1)
    states = (RowState.DEGENERATE_MAP, RowState.OK, RowState.NAN_MAP, RowState.OK)
    given = evidence(maps, states=states)
    assert order_of(given, maps, states).per_row.tolist() == [1, 1, 0, 8]
    rows = measure(given, Parameters(steps=STEPS)).rows("cell")
    told = [row.diagnostics["probe"] for row in rows]
    assert [one["orders_of_ties"] for one in told] == [1, 1, 0, 8]
    assert [one["tied_share"] for one in told] == [1, 0, None, 255 / 256]


def test_controls_have_orders_of_their_own_ties():
    maps = torch.rand(N, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    given = evidence(maps)
    found = SaliencyMaps(maps, None, (RowState.OK,) * N)
    names = ("random_pixels", "random_blobs", "centre", "edge", "mean_map", "inverse")
    assert [order.per_row.tolist() for order in orders(given, given.subject, found, names)] == [
        [1] * N
    ] * 7
    sparse = tied_maps(share=0.9)
    _, inverse = orders(given, given.subject, SaliencyMaps(sparse, None, found.states), ["inverse"])
    assert inverse.per_row.tolist() == [7] * N

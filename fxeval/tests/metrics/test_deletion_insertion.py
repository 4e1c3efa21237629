"""The check as a whole: sides, controls, states and rows."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fxeval.contracts import RowState, SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool
from fxeval.functional.controls import ControlInputs, control_maps
from fxeval.functional.ranking import ranks
from fxeval.metrics.deletion_insertion import METRICS, Parameters, measure
from fxeval.metrics.orders import Order
from fxeval.metrics.removal_curves import Removal, area, trace
from fxeval.seeding import seed_of
from fxeval.tests.evidence import evidence_of, series_of
from fxeval.tests.rounding import FLOAT64, assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

N, STEPS = 20, 6
NAMES = [metric.name for metric in METRICS]
ALWAYS = [metric.name for metric in METRICS if not metric.void_if]


def assert_areas(found, expected):
    exact = ConvNet().eval().double()
    condition = condition_of(exact, make_pairs(N).images / 255, module=exact)
    terms = 2 * terms_of(exact)  # both are rounded, in batches of their own
    # Cosines are sums of products that may be as large together as 1.
    assert_rounded(found, expected, terms=terms, condition=condition, scale=1)


class Scene:
    """Evidence on random images with given maps."""

    def __init__(self, maps=None, *, threshold=-1.0, states=(), reference_maps=None, n=N):
        self.pairs = make_pairs(n)
        self.model = CountingModel(ConvNet().eval())
        self.pool = ForwardPool()
        generator = torch.Generator().manual_seed(3)
        maps = torch.rand(n, 16, 16, generator=generator) if maps is None else maps
        other = torch.rand(n, 16, 16, generator=generator)
        self.maps = {
            "probe": SaliencyMaps(maps, None, tuple(states)),
            "reference": SaliencyMaps(other if reference_maps is None else reference_maps),
        }
        self.evidence = evidence_of(
            self.pairs, self.model, maps=self.maps, threshold=threshold, pool=self.pool
        )

    def measure(self, **parameters):
        found = measure(
            self.evidence, Parameters(**{"steps": STEPS, "fills": ("mean",), **parameters})
        )
        return found, series_of(found)

    def area(self, maps, *, side="probe", fill="mean"):
        """Deletion and insertion areas of given maps, straight from the curves."""
        pairs, evidence = self.pairs, self.evidence.on(side)
        seeds = [seed_of(5, "ties", pairs.row_id(row), side) for row in range(len(pairs))]
        order = Order("any", np.arange(len(pairs)), ranks(maps, seeds), ())
        found = trace(Removal(evidence, evidence.subject, order, fill), STEPS)
        return area(found.fraction, found.answer)


def test_every_metric_map_and_fill_has_a_series_and_every_map_two_curves():
    scene = Scene()
    found, series = scene.measure(fills=("mean", "black"), controls=("centre", "inverse"))
    maps = ["explainer", "control.centre", "control.inverse"]
    assert set(series) == {(n, m, f) for n in NAMES for m in maps for f in ("mean", "black")}
    rows = found.rows("cell")
    assert len(rows) == N
    curves = [(one.map, one.under["fill"], *sorted(one.curves)) for one in rows[0].measured]
    assert sorted(curves) == sorted(
        (m, f, "deletion", "insertion", "outside") for m in maps for f in ("mean", "black")
    )
    assert {len(c) for one in rows[0].measured for c in one.curves.values()} == {STEPS + 1}


def test_values_are_the_areas_of_the_curves_of_each_map():
    scene = Scene()
    _, series = scene.measure(controls=("inverse",))
    own = scene.area(scene.maps["probe"].positive)
    for name, expected in (("deletion_auc", own[:, 0]), ("insertion_auc", own[:, 1])):
        assert_areas(series[name, "explainer", "mean"].values, expected)
    turned = scene.area(-scene.maps["probe"].positive)
    assert_areas(series["deletion_auc", "control.inverse", "mean"].values, turned[:, 0])


def test_both_sides_are_the_mean_of_one_side_and_the_other():
    values = {}
    for side in ("probe", "reference", "both"):
        _, series = Scene().measure(side=side)
        values[side] = series["deletion_auc", "explainer", "mean"].values
    # The same batches: only the mean is rounded.
    expected = (values["probe"] + values["reference"]) / 2
    assert_rounded(values["both"], expected, terms=2, unit=FLOAT64)
    scene = Scene()
    own = scene.area(scene.maps["reference"].positive, side="reference")
    assert_areas(values["reference"], own[:, 0])


def test_controls_are_made_of_the_row_not_of_the_group_it_is_in():
    scene = Scene()
    _, series = scene.measure(controls=("random_blobs", "edge", "mean_map"))
    pairs = scene.pairs
    seeds = [seed_of(5, "control", pairs.row_id(row), "probe") for row in range(N)]
    inputs = ControlInputs(
        pairs.images[pairs.probe].float() / 255, seeds, pairs.probe_identity.tolist(),
        scene.maps["probe"].positive,
    )  # fmt: skip
    for name in ("random_blobs", "edge", "mean_map"):
        expected = scene.area(control_maps(name, inputs))[:, 0]
        found = series["deletion_auc", f"control.{name}", "mean"].values
        assert_areas(found, expected)


def test_a_map_without_an_order_has_no_value_and_its_controls_have():
    maps = torch.rand(N, 16, 16)
    maps[4] = torch.nan
    states = [RowState.OK] * N
    states[4] = RowState.NAN_MAP
    scene = Scene(maps, states=states)
    _, series = scene.measure(controls=("random_pixels", "inverse", "mean_map"))
    for name in ALWAYS:
        assert np.flatnonzero(np.isnan(series[name, "explainer", "mean"].values)).tolist() == [4]
        assert series[name, "explainer", "mean"].states[4] is RowState.NAN_MAP
        assert np.isnan(series[name, "control.inverse", "mean"].values[4])
        assert np.isfinite(series[name, "control.random_pixels", "mean"].values).all()
        assert np.isfinite(series[name, "control.mean_map", "mean"].values).all()


def test_a_constant_map_is_valued_under_a_random_order_and_flagged():
    states = (RowState.DEGENERATE_MAP,) * N
    scene = Scene(torch.zeros(N, 16, 16), states=states)
    _, series = scene.measure(controls=("mean_map",))
    one = series["deletion_auc", "explainer", "mean"]
    assert np.isfinite(one.values).all()
    assert set(one.states) == {RowState.DEGENERATE_MAP}
    mean = series["deletion_auc", "control.mean_map", "mean"]
    assert np.isnan(mean.values).all()
    assert set(mean.states) == {RowState.EXCLUDED}


def test_a_threshold_never_crossed_and_one_crossed_at_the_start_have_their_states():
    _, low = Scene(threshold=-1.0).measure()
    assert set(low["deletion_fraction_to_nonmatch", "explainer", "mean"].states) == {
        RowState.NOT_CROSSED}  # fmt: skip
    assert (low["deletion_fraction_to_nonmatch", "explainer", "mean"].values == 1.0).all()
    assert set(low["insertion_fraction_to_match", "explainer", "mean"].states) == {
        RowState.START_BEYOND}  # fmt: skip
    _, high = Scene(threshold=1.1).measure()
    assert set(high["deletion_fraction_to_nonmatch", "explainer", "mean"].states) == {
        RowState.EXCLUDED}  # fmt: skip
    assert np.isfinite(high["deletion_auc", "explainer", "mean"].values).all()
    found, none = Scene(threshold=None).measure()
    assert np.isnan(none["insertion_fraction_to_match", "explainer", "mean"].values).all()
    assert "no operating threshold" in found.remarks[0]


def test_rows_come_in_order_with_their_curves():
    scene = Scene()
    found, series = scene.measure(controls=("centre",))
    rows = found.rows("cell")
    assert [row.row for row in rows] == [scene.pairs.row_id(row) for row in range(N)]
    first = rows[7].measured[0]
    assert first.values["deletion_auc"] == series["deletion_auc", "explainer", "mean"].values[7]
    assert len(first.curves["deletion"]) == STEPS + 1


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"steps": 1.5}, {"steps": True}, {"fills": ()}, {"fills": ("blur", "blur")},
     {"fills": ("sepia",)}, {"side": "left"}, {"controls": ("oracle",)}, {"crossing_step": 0},
     {"stps": 3}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        Parameters(**wrong)


def test_what_the_start_decides_is_stated_of_constant_maps_too_and_keeps_the_published_value():
    states = (RowState.DEGENERATE_MAP,) * N
    scene = Scene(torch.zeros(N, 16, 16), states=states, threshold=-1.0)
    _, series = scene.measure(controls=("centre",))
    for map_ in ("explainer", "control.centre"):
        one = series["insertion_fraction_to_match", map_, "mean"]
        assert set(one.states) == {RowState.START_BEYOND}
        assert (one.values == 0.0).all()
    assert set(series["deletion_fraction_to_nonmatch", "explainer", "mean"].states) == set(states)
    _, rejected = Scene(torch.zeros(N, 16, 16), states=states, threshold=1.1).measure()
    for name in NAMES[2:4]:
        assert set(rejected[name, "explainer", "mean"].states) == {RowState.EXCLUDED}


def test_a_start_that_decides_one_side_decides_the_row():
    """Which pairs the fill alone matches depends on the side that is filled."""
    found = {}
    for side in ("probe", "reference", "both"):
        _, series = Scene(threshold=0.98).measure(side=side)
        states = series["insertion_fraction_to_match", "explainer", "mean"].states
        found[side] = np.array([state is RowState.START_BEYOND for state in states])
    assert (found["probe"] != found["reference"]).any()
    np.testing.assert_array_equal(found["both"], found["probe"] | found["reference"])


def test_the_start_is_the_same_for_every_map_and_the_end_of_deletion_is_no_start():
    scene = Scene(threshold=0.98)
    _, series = scene.measure(side="reference", controls=("centre", "random_pixels"))
    insertion, deletion = "insertion_fraction_to_match", "deletion_fraction_to_nonmatch"
    own = series[insertion, "explainer", "mean"].states
    assert {RowState.START_BEYOND, RowState.OK} <= set(own)
    for control in ("control.centre", "control.random_pixels"):
        assert series[insertion, control, "mean"].states == own
    # With everything filled these pairs match, but an order may flip the decision before that.
    matched = [state is RowState.START_BEYOND for state in own]
    one = series[deletion, "explainer", "mean"]
    found = {state for state, is_matched in zip(one.states, matched, strict=True) if is_matched}
    assert found <= {RowState.OK, RowState.NOT_CROSSED}
    assert np.isfinite(one.values[matched]).all()

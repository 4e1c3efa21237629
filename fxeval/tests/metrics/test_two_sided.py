"""The sanity verdict with two sides: what it must stop, what it must pass, and what it cannot see.

What needs a network is measured on the bundled one and its faces. Each control takes the place of
the explainer behind the evidence of one prepared cell.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fxeval.explainers.excitation_backprop import EBP
from fxeval.functional.controls import random_blobs
from fxeval.functional.map_similarity import POOLED
from fxeval.metrics import deletion_insertion, impostor_swap, two_sided
from fxeval.metrics.protocol import OtherExplainer
from fxeval.metrics.two_sided import Parameters, measure
from fxeval.records.schema import CellFacts
from fxeval.results import RowState
from fxeval.run.evaluation import shipped
from fxeval.run.measure import plan_of
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.limits import BetterThan
from fxeval.statistics.results import results_of
from fxeval.suite.cells import Cell, Use
from fxeval.tests.sanity_controls import (
    CONTROLS,
    LIMITS,
    failing,
    measured_with,
    with_networks_kept,
)

N = 30
AXES = {limit.metric for limit in LIMITS}


def cell_of(explainer: str, kind: str = "sanity.two_sided", parameters=None) -> Cell:
    limits = LIMITS if kind == "sanity.two_sided" else (LIMITS[0], LIMITS[2])
    return Cell(
        f"sanity[mini_resnet-{explainer}-rendered]", "s", "sanity", kind, "", Use("mini_resnet"),
        Use(explainer), Use("rendered"), N, parameters or Parameters(), limits, 5, 0.95, "fail",
        "fail", "cpu", "s.yaml:1:1",
    )  # fmt: skip


DELETION = replace(
    cell_of("gradcam", "faithfulness.deletion_insertion",
            deletion_insertion.Parameters(steps=24, controls=("random_blobs",))),
    limits=(
        BetterThan("deletion_auc", better_than="control.random_blobs"),
        BetterThan("insertion_auc", better_than="control.random_blobs"),
    ),
)  # fmt: skip
"""What certification asks for beside the sanity verdict."""


@pytest.fixture(scope="module")
def evidence():
    """Evidence of all pairs, with Grad-CAM behind it."""
    shop = Workshop(batch_size=64, emit=lambda rows: None, progress=lambda *_: None)
    model = shipped("model", "mini_resnet").load()
    subjects = Subjects(model, shipped("explainer", "gradcam"), shipped("pairs", "rendered"))
    found = shop.prepare(cell_of("gradcam"), subjects).evidence
    return with_networks_kept(found.take(torch.arange(N)))


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_fails_the_axes_that_are_known_to_stop_it(name, evidence):
    control, axes = CONTROLS[name]
    result = measured_with(control, cell_of("gradcam"), evidence, measure)
    assert failing(result) == axes
    # Those that no axis stops: they recognise the trained network by what it does, or show half a
    # map that is honest. Removal of pixels must stop them.
    assert (result.verdict.outcome == "pass") == (not axes)


def own_map(asked):
    return asked.own()


def test_grad_cam_passes_every_axis(evidence):
    result = measured_with(own_map, cell_of("gradcam"), evidence, measure)
    assert result.verdict.outcome == "pass"
    assert {limit.metric for limit in result.limits} == AXES
    assert all(limit.estimate.n_identities == N for limit in result.limits)


@pytest.mark.slow  # several minutes of backward passes
@pytest.mark.parametrize(
    ("name", "explainer", "fails"),
    [
        ("leam", None, set()),
        ("gradient", None, set()),
        ("input_x_gradient", None, set()),
        ("ebp", EBP(), {"compare"}),  # the map of a nonmate is the map of the mate
        ("contrastive", EBP(variant="contrastive"), set()),
    ],
)
def test_published_methods_pass_but_for_one_that_does_not_compare(name, explainer, fails, evidence):
    by = OtherExplainer(name, explainer or shipped("explainer", name))
    ledger = measure(evidence.by(by), Parameters())
    facts = CellFacts(networks=ledger.networks)
    result = results_of(plan_of(cell_of(name)), facts, ledger.rows("cell"))
    assert failing(result) == fails
    assert result.verdict.outcome == ("fail" if fails else "pass")
    parts = {limit.under["part"] for limit in result.limits}
    assert parts == ({"positive", "signed"} if name == "input_x_gradient" else {"positive"})


def constant_in(where: str, n: int):
    """Grad-CAM, but for constant maps of the first n pairs under a condition."""

    def control(asked):
        maps = asked.own().clone()
        is_there = where in (asked.rows.side, asked.subject.name)
        if is_there and (where != "probe" or asked.subject is asked.evidence.subject):
            maps[:n] = 0.5
        return maps

    return control


@pytest.mark.parametrize(
    ("where", "axes"),
    [("re-drawn network 2", {"change"}), ("impostor", {"compare"}), ("probe", AXES)],
)
def test_more_than_a_fifth_of_constant_maps_stop_a_pass(where, axes, evidence):
    few = measured_with(constant_in(where, 6), cell_of("gradcam"), evidence, measure)
    assert few.verdict.outcome == "pass"
    many = measured_with(constant_in(where, 7), cell_of("gradcam"), evidence, measure)
    assert many.verdict.outcome == "inconclusive"
    assert "7 of 30" in many.verdict.reason
    if where != "probe":
        open_ = {one.metric for one in many.limits if one.verdict.outcome == "inconclusive"}
        assert open_ == axes
        assert all(one.verdict.outcome == "pass" for one in many.limits if one.metric not in axes)


def test_a_constant_map_that_fails_in_spite_of_its_random_order_fails(evidence):
    control, _ = CONTROLS["constant"]
    result = measured_with(control, cell_of("gradcam"), evidence, measure)
    assert result.verdict.outcome == "fail"
    assert result.states == {RowState.DEGENERATE_MAP: N}


def test_a_broken_map_under_any_condition_leaves_the_row_no_value(evidence):
    def control(asked):
        maps = asked.own().clone()
        if asked.rows.side == "shifted":
            maps[3] = torch.nan
        return maps

    result = measured_with(control, cell_of("gradcam"), evidence, measure)
    assert result.states == {RowState.NAN_MAP: 1, RowState.OK: N - 1}
    assert {one.n_pairs for one in result.estimates} == {N - 1}
    assert result.verdict.outcome == "fail"  # 1 of 30 is more than 1 %


def plain_pooled(map_):
    """Mean over 4 x 4 blocks of a 112 x 112 map, scaled to 0..1, one cell after the other."""
    cells = np.array(
        [[map_[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for x in range(POOLED)]
         for y in range(POOLED)]
    )  # fmt: skip
    return (cells - cells.min()) / (cells.max() - cells.min())


def plain_residual(cells, row):
    others = [one for place, one in enumerate(cells) if place != row]
    return np.round(cells[row] - sum(others) / len(others), 7), sum(others) / len(others)


def rho(one, other):
    return spearmanr(np.round(one, 9).ravel(), np.round(other, 9).ravel()).statistic


def test_the_values_are_those_of_plain_loops(evidence):
    conditions = {}

    def control(asked):
        seeds = [len(str(name)) + 7 * row for row, name in enumerate(asked.faces())]
        blobs = random_blobs([seed + 1 for seed in seeds], asked.size)
        key = asked.rows.side, asked.subject.name, asked.draw
        noise = random_blobs([seed + 1000 + hash_of(key) for seed in seeds], asked.size)
        conditions[key] = (blobs + 0.7 * noise).numpy().astype(np.float64)
        return torch.from_numpy(conditions[key])

    def hash_of(key):
        return sum(map(ord, "".join(map(str, key))))

    result = measured_with(control, cell_of("gradcam", parameters=Parameters(redraws=2)), evidence,
                           measure)  # fmt: skip
    cells = {key: [plain_pooled(one) for one in maps] for key, maps in conditions.items()}
    own, trained = cells["probe", "mini_resnet", 0], "mini_resnet"
    found = {name: [] for name in ("repeat", "change", "compare", "input", "nudge")}
    for row in range(N):
        mine, mean = plain_residual(own, row)

        def s(*key, row=row, mine=mine):
            return rho(mine, plain_residual(cells[key], row)[0])

        again = [("probe", trained, 1), ("noisy", trained, 0), ("shifted", trained, 0)]
        repeat = min(s(*key) for key in again)
        redrawn = [abs(s("probe", f"re-drawn network {k}", 0)) for k in (1, 2)]
        raw = min(rho(own[row], cells[key][row]) for key in again)
        found["repeat"].append(repeat)
        found["change"].append(repeat - sum(redrawn) / 2)
        found["compare"].append(repeat - abs(s("impostor", trained, 0)))
        found["input"].append(raw - abs(rho(own[row], mean)))
        found["nudge"].append(s("probe", "nudged network 1", 0))
    for one in result.estimates:
        if one.metric in found:
            assert one.value == pytest.approx(np.median(found[one.metric]), abs=1e-6)


def test_the_impostor_swap_alone_finds_what_does_not_compare(evidence):
    cell = cell_of("gradcam", "sanity.impostor_swap", impostor_swap.Parameters())
    for name, fails in (("edges", {"compare"}), ("centre", {"repeat", "compare"})):
        result = measured_with(CONTROLS[name][0], cell, evidence, impostor_swap.measure)
        assert failing(result) == fails
        assert not result.networks
    whole = measured_with(own_map, cell_of("gradcam"), evidence, measure)
    alone = measured_with(own_map, cell, evidence, impostor_swap.measure)
    assert alone.verdict.outcome == "pass"
    ours, theirs = ({(one.metric, one.value) for one in some.estimates} for some in (alone, whole))
    assert ours <= theirs


def test_both_checks_draw_a_second_bank_themselves():
    assert plan_of(cell_of("srise")).draws_itself
    assert two_sided.DRAWS_ITSELF
    assert impostor_swap.DRAWS_ITSELF


@pytest.mark.slow  # 1,500 forward passes a control
@pytest.mark.parametrize("name", [name for name, (_, axes) in CONTROLS.items() if not axes])
def test_removal_stops_what_no_axis_can_see(name, evidence):
    result = measured_with(CONTROLS[name][0], DELETION, evidence, deletion_insertion.measure)
    # Grad-CAM of a random network likes the middle of the face a little: two of nine random
    # networks beat blobs on these pairs, and this is one of them (docs/method.md).
    known = name == "another network for each behaviour"
    assert (result.verdict.outcome == "pass") == known

"""The sanity verdict with two sides: what it must stop, what it must pass, and what it cannot see.

Everything here is measured on the bundled network and faces; each control takes the place of the
explainer behind the evidence of one prepared cell.
"""

from dataclasses import replace

import pytest
import torch

from fxeval.metrics.two_sided import Parameters, measure
from fxeval.run.evaluation import shipped
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite.cells import Cell, Use
from fxeval.tests.sanity_controls import (
    CONTROLS,
    LIMITS,
    failing,
    measured_with,
    with_networks_kept,
)

N = 30


def cell_of(explainer: str) -> Cell:
    return Cell(
        "sanity[mini_resnet-x-rendered]", "s", "sanity", "sanity.two_sided", "", Use("mini_resnet"),
        Use(explainer), Use("rendered"), N, Parameters(), LIMITS, 5, 0.95, "fail", "fail", "cpu",
        "s.yaml:1:1",
    )  # fmt: skip


@pytest.fixture(scope="module")
def shop():
    return Workshop(batch_size=64, emit=lambda rows: None, progress=lambda *_: None)


@pytest.fixture(scope="module")
def model():
    return shipped("model", "mini_resnet").load()


@pytest.fixture(scope="module")
def evidence(shop, model):
    """Evidence of all pairs, with Grad-CAM behind it."""
    subjects = Subjects(model, shipped("explainer", "gradcam"), shipped("pairs", "rendered"))
    found = shop.prepare(cell_of("gradcam"), subjects).evidence
    return with_networks_kept(found.take(torch.arange(N)))


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_fails_the_axes_that_are_known_to_stop_it(name, evidence):
    control, axes = CONTROLS[name]
    result = measured_with(control, cell_of("gradcam"), evidence, measure)
    print(
        name,
        [
            (one.metric, round(one.estimate.value, 2), one.verdict.outcome.value)
            for one in result.limits
        ],
    )
    assert failing(result) == axes
    assert (result.verdict.outcome == "pass") == (not axes)

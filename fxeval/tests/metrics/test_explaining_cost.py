"""What maps cost: passes, time and memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fxeval.engine import metering
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.metering import metered
from fxeval.explainers.mask_banks import masked_embeddings
from fxeval.explainers.s_rise import SRISE, mask_bank
from fxeval.metrics import explaining_cost, explaining_resources, two_sided
from fxeval.metrics.protocol import MapCost
from fxeval.records.schema import Explaining
from fxeval.results import RowState
from fxeval.run.workshop import Workshop
from fxeval.statistics.limits import AtMost
from fxeval.tests.toy_world import Occlusion, People, measured, model
from fxeval.traits import ExplainerTraits

COST, RESOURCES = "cost.explaining", "cost.resources"
OF_OCCLUSION = 1 + 1 + 16  # the reference, the probe, and the probe without one of 4 x 4 cells


def run(kind=COST, **more):
    protocol = {COST: explaining_cost, RESOURCES: explaining_resources}[kind]
    return measured(kind, protocol.Parameters(), **more)


def values(rows, metric):
    return [row.measured[0].values[metric] for row in rows]


class Gradient:
    """Two backward passes for each image."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        probes = probes.clone().requires_grad_()
        target, found = model.embed(references), 0.0
        for _ in range(2):
            cosine = torch.cosine_similarity(model.module(probes), target).sum()
            found = found + torch.autograd.grad(cosine, probes)[0].abs().sum(1)
        return found


def test_counts_are_those_that_a_reader_of_the_explainer_expects():
    _, rows = run()
    assert values(rows, "forwards_per_map") == [OF_OCCLUSION] * 20
    assert values(rows, "backwards_per_map") == [0.0] * 20
    _, rows = run(explainer=Gradient())
    assert values(rows, "forwards_per_map") == [3.0] * 20
    assert values(rows, "backwards_per_map") == [2.0] * 20


@pytest.mark.parametrize(("at_most", "outcome"), [(18.5, "pass"), (17.5, "fail")])
def test_a_suite_may_limit_them_on_its_list(at_most, outcome):
    limits = [AtMost("forwards_per_map", at_most=at_most, over="list")]
    result, _ = run(limits=limits)
    assert result.verdict.outcome == outcome


def test_equal_counts_of_a_list_prove_nothing_about_other_people():
    limits = [AtMost("forwards_per_map", at_most=18.5)]
    result, _ = run(limits=limits, source=People(32))
    assert result.verdict.outcome == "inconclusive"


def test_answers_from_memory_count_as_if_nothing_had_been_asked_before():
    network, pool = model(), ForwardPool(batch_size=16)
    pooled = PooledModel(network, pool, "key")
    image = People().images(["0-0"], network.crop)[0].float() / 255
    bank = mask_bank(np.random.default_rng(0), SRISE(masks=30), (16, 16))
    costs = []
    for _ in range(2):
        with metered(network.module, pool) as cost:
            masked_embeddings(pooled, image, bank)
        costs.append(cost)
    first, second = costs
    assert (first.forwards, first.answered) == (30, 0)
    assert (second.forwards, second.answered) == (0, 30)


def test_time_and_memory_are_taken():
    class Greedy(Occlusion):
        """Holds 64 MiB while the network is asked."""

        def explain(self, model, probes, references, **more):
            held = torch.ones(16 << 20)
            return super().explain(model, probes, references, **more) + 0 * held[0]

    _, rows = run(RESOURCES, explainer=Greedy())
    [seconds] = {*values(rows, "seconds_per_map")}
    [peak] = {*values(rows, "peak_memory")}
    assert 0.0 < seconds < 60.0
    assert peak >= 60.0


def test_where_the_system_tells_no_memory_there_is_no_value_and_a_remark(monkeypatch):
    monkeypatch.setattr(metering, "_STATM", Path("/nowhere"))
    result, rows = run(RESOURCES)
    assert values(rows, "peak_memory") == [None] * 20
    assert any("does not say how much memory" in one for one in result.remarks)


def test_the_cost_of_maps_that_an_earlier_cell_made_is_that_of_their_making():
    workshop = Workshop(batch_size=16, emit=lambda _: None, progress=lambda *_: None)
    _, first = run(workshop=workshop)
    result, second = run(workshop=workshop)
    assert result.explaining[0].was_shared
    assert values(second, "forwards_per_map") == values(first, "forwards_per_map")


def test_the_parts_of_a_set_of_maps_are_added_and_the_largest_peak_counts():
    one, other = (
        Explaining(
            network="trained", side="sources", n_maps=maps, was_shared=False, forwards=10,
            backwards=2, seconds=0.5, answered=5, peak_memory=peak,
        )
        for maps, peak in ((3, 700), (4, None))
    )  # fmt: skip
    assert MapCost.of([one, other]) == MapCost(7, 30, 4, 1.0, 700)
    assert MapCost.of([other]).peak_memory is None


def test_broken_maps_have_no_cost_and_are_never_a_pass():
    class Broken(Occlusion):
        def explain(self, model, probes, references, **more):
            return super().explain(model, probes, references, **more) * torch.nan

    result, rows = run(explainer=Broken())
    assert values(rows, "forwards_per_map") == [None] * 20
    assert {row.state for row in rows} == {RowState.NAN_MAP}
    assert result.verdict.outcome == "fail"


def test_a_cell_with_made_images_and_nonmates_shares_the_maps_of_the_plain_pairs():
    class Contrasting(Occlusion):
        """The same, but it asks for a nonmate."""

        traits = ExplainerTraits(needs={"contrast"})

    for explainer, is_shared in ((Occlusion(), True), (Contrasting(), False)):
        workshop = Workshop(batch_size=16, emit=lambda _: None, progress=lambda *_: None)
        measured(
            "sanity.two_sided",
            two_sided.Parameters(redraws=1),
            explainer=explainer,
            workshop=workshop,
        )
        result, _ = run(explainer=explainer, workshop=workshop)
        assert result.explaining[0].was_shared == is_shared

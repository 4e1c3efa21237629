"""The contract holds for protocols with many models, explainers, questions and label maps."""

import numpy as np
import pytest
import torch

from fxeval.metrics import add_metrics
from fxeval.results import Outcome, RowState
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.tests.protocols import KINDS, agreement, occlusion, regions, retention
from fxeval.tests.toy_world import PARTS, Occlusion, People, Ramp, measured, model


@pytest.fixture(autouse=True)
def catalogue():
    add_metrics(KINDS)
    yield
    add_metrics({})


def values(rows, metric, map_="explainer", **under):
    found = [
        one.values[metric]
        for row in rows
        for one in row.measured
        if one.map == map_ and under.items() <= one.under.items() and metric in one.values
    ]
    return np.array([np.nan if value is None else value for value in found])


def test_maps_of_an_identity_are_carried_to_two_models_with_two_crops():
    evaluators = {"evaluators": {"b": model("b", large=True, seed=1)}}
    limits = [
        AtLeast("similarity_drop_under_occlusion", at_least=-1.0, under={"evaluator": "b"}),
        BetterThan("similarity_drop_under_occlusion", better_than="control.random_pixels",
                   under={"fraction": 0.2}),
    ]  # fmt: skip
    parameters = occlusion.Parameters(evaluators=("b",))
    result, rows = measured("toy.occlusion", parameters, others=evaluators, limits=limits)
    assert len(rows) == 20  # ten people, two held-out images each
    conditions = {tuple(one.under.items()) for one in rows[0].measured}
    assert len(conditions) == 2 * 2
    assert {one.under["evaluator"] for one in rows[0].measured} == {"a", "b"}
    assert {one.network for one in result.explaining} == {"trained"}  # no map was made on b
    for evaluator in "ab":
        few, many = (
            values(rows, "similarity_drop_under_occlusion", evaluator=evaluator, fraction=fraction)
            for fraction in (0.02, 0.2)
        )
        assert np.isfinite(many).all()
        assert many.mean() > few.mean()
    judged = [(limit.under["evaluator"], limit.under["fraction"]) for limit in result.limits]
    assert judged == [("b", 0.02), ("b", 0.2), ("a", 0.2), ("b", 0.2)]


def test_the_image_that_is_judged_is_no_part_of_its_map():
    seen = []

    class Noting(Occlusion):
        def explain(self, model, probes, references, **more):
            seen.extend((probes * 255).round().to(torch.uint8))
            return super().explain(model, probes, references, **more)

    _, rows = measured("toy.occlusion", occlusion.Parameters(), explainer=Noting())
    people = People()
    ids = [f"{who}-{number}" for who in range(10) for number in range(4)]
    images = people.images(ids, model().crop)
    explained = {one.numpy().tobytes() for one in seen}
    shown = [any(image.numpy().tobytes() == one for one in explained) for image in images]
    assert sum(shown) == 20  # two of four images of each person
    assert len({row.row for row in rows}) == 20


def test_two_explainers_in_one_cell():
    others = {"others": {"ramp": Ramp(), "again": Occlusion()}}
    parameters = agreement.Parameters(others=("ramp", "again"))
    _, rows = measured("toy.agreement", parameters, others=others)
    assert values(rows, "rank_correlation_with_other", other="again").tolist() == [1.0] * 20
    assert np.abs(values(rows, "rank_correlation_with_other", other="ramp")).max() < 0.9


@pytest.mark.parametrize(
    ("kind", "identities"),
    [("toy.retention", 1), ("toy.retention_of_pairs", 2), ("toy.retention_of_triplets", 1)],
)
def test_one_protocol_asks_classes_pairs_and_triplets(kind, identities):
    limits = [BetterThan("deletion_drop", better_than="control.random_pixels")]
    result, rows = measured(kind, retention.Parameters(), limits=limits)
    assert len(rows) == 20
    assert {len(row.identities) for row in rows} == {identities}
    drops = values(rows, "deletion_drop")
    assert np.isfinite(drops).all()
    assert drops.mean() > values(rows, "deletion_drop", "control.random_pixels").mean()
    assert result.verdict.outcome is Outcome.INCONCLUSIVE  # ten people decide nothing


def test_label_maps_divide_a_map_among_parts_of_the_face():
    _, rows = measured("toy.regions", regions.Parameters(), explainer=Ramp())
    density = np.stack([values(rows, "region_density", region=part) for part in PARTS])
    assert np.allclose(density, 1, atol=0.2)  # a ramp from left to right knows no rows


def test_a_source_without_label_maps_is_told_what_is_missing():
    class Plain:
        name, banner = "plain", None
        listing, images = People().listing, People().images

    with pytest.raises(Exception, match="have no label maps, which toy"):
        measured("toy.regions", regions.Parameters(), source=Plain())


def test_one_broken_map_of_an_identity_breaks_its_rows_and_no_others():
    class Breaking(Occlusion):
        def explain(self, model, probes, references, **more):
            maps = super().explain(model, probes, references, **more)
            people = People()
            for number in range(4):
                image = people.images([f"3-{number}"], model.crop)[0] / 255
                maps[[torch.allclose(one, image, atol=1e-3) for one in probes]] = torch.nan
            return maps

    _, rows = measured("toy.occlusion", occlusion.Parameters(), explainer=Breaking())
    broken = [row.state is RowState.NAN_MAP for row in rows]
    assert sum(broken) == 2
    drops = values(rows, "similarity_drop_under_occlusion", fraction=0.2)
    assert np.isnan(drops).tolist() == broken

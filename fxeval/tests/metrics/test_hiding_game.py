"""The hiding game with people who are known by one square: plain loops, and who passes."""

import itertools

import numpy as np
import pytest
import torch

from fxeval.errors import EvidenceError
from fxeval.metrics.deletion_insertion import Parameters as DeletionInsertion
from fxeval.metrics.hiding_game import METRICS, Parameters
from fxeval.results import RowState
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.tests.planted_orders import IGNORANT, descending, filled, without
from fxeval.tests.planted_people import Knowing, Planted, cosine, digest, pixels
from fxeval.tests.toy_world import SMALL, measured

KIND = "faithfulness.hiding_game"
STEPS = 8
RANDOM = ("random_pixels", "random_blobs")
WORLD = Planted(n=40, images_each=2)


def run(explainer=None, source=WORLD, limits=(), threshold=0.5, **more):
    parameters = {"steps": STEPS, "fills": ("black",), "controls": RANDOM, **more}
    return measured(
        KIND, Parameters(**parameters), explainer=explainer or Knowing(), limits=limits,
        source=source, network=pixels(threshold=threshold),
    )  # fmt: skip


def of_explainer(row, fill="black"):
    return next(
        one for one in row.measured if one.map == "explainer" and one.under == {"fill": fill}
    )


def trapezoid(points):
    return sum((a + b) / 2 for a, b in itertools.pairwise(points)) / (len(points) - 1)


@pytest.mark.parametrize("fill", ["black", "blur", "mean"])
def test_values_are_those_of_a_plain_loop(fill):
    world = Planted(n=10)
    _, rows = run(source=world, fills=(fill,), hide_from_max=True, controls=())
    listing = world.listing()
    mated = [pair for pair, is_mated in zip(
        zip(listing.probe, listing.reference, strict=True), listing.is_mated, strict=True)
        if is_mated]  # fmt: skip
    ids = sorted({one for pair in mated for one in pair})
    faces = dict(zip(ids, world.images(ids, SMALL).numpy(), strict=True))
    by_id = {"-".join(digest(faces[one])[:12] for one in pair): pair for pair in mated}
    assert {row.row for row in rows} == set(by_id)
    references = {b: b.split("-")[0] for _, b in mated}
    for row in rows:
        probe, reference = by_id[row.row]
        who, image = probe.split("-")[0], faces[probe]
        one = torch.from_numpy(image)[None].float() / 255
        order = descending(Knowing().explain(None, one, None, generator=None)[0])
        for prefix, turned in (("", order[::-1]), ("reverse_", order)):
            accepted, first, alike = [], [], []
            for step in range(STEPS + 1):
                shown = without(image, filled(image, fill), turned[: step * 256 // STEPS])
                similar = {
                    id: cosine(shown.ravel(), faces[id].astype(float).ravel())
                    if shown.any() else 0.0
                    for id in references
                }  # fmt: skip
                alike.append(similar[reference])
                accepted.append(similar[reference] >= 0.5)
                own = max(value for id, value in similar.items() if references[id] == who)
                other = max(value for id, value in similar.items() if references[id] != who)
                first.append(own > other)
            found = of_explainer(row, fill)
            way = f"{prefix}hiding"
            assert found.values[f"{way}_similarity_auc"] == pytest.approx(
                trapezoid(alike), abs=1e-6
            )
            for name, points in (("acceptance", accepted), ("rank1", first)):
                expected = pytest.approx(trapezoid(points), abs=1e-6) if points[0] else None
                assert found.values[f"{way}_{name}_auc"] == expected
                assert (found.states[f"{way}_{name}_auc"] is RowState.START_BEYOND) == (
                    points[0] and points[-1]
                )


def test_its_similarity_is_that_of_insertion_and_in_reverse_that_of_deletion():
    more = {"explainer": Knowing(), "source": Planted(n=6), "network": pixels()}
    _, hidden = run(source=Planted(n=6), fills=("blur",), hide_from_max=True, steps=16)
    _, removed = measured(
        "faithfulness.deletion_insertion", DeletionInsertion(steps=16, fills=("blur",)), **more
    )
    others = {row.row: row.measured[0].values for row in removed}
    for row in hidden:
        values, theirs = of_explainer(row, "blur").values, others[row.row]
        assert values["hiding_similarity_auc"] == pytest.approx(theirs["insertion_auc"], abs=1e-9)
        assert values["reverse_hiding_similarity_auc"] == pytest.approx(
            theirs["deletion_auc"], abs=1e-9
        )


# Of the two random orders that which does better in this world: the other one loses to it.
LIMITS = tuple(
    BetterThan(f"{prefix}hiding_{name}_auc", better_than=f"control.{control}")
    for prefix, control in (("", "random_pixels"), ("reverse_", "random_blobs"))
    for name in ("acceptance", "rank1", "similarity")
)


def test_who_knows_the_squares_passes():
    result, _ = run(limits=LIMITS, hide_from_max=True)
    assert result.verdict.outcome == "pass", result.verdict.reason


@pytest.mark.parametrize("name", IGNORANT)
def test_who_does_not_passes_no_limit(name):
    result, _ = run(IGNORANT[name], limits=LIMITS, hide_from_max=True)
    assert result.verdict.outcome in ("fail", "inconclusive")
    assert "pass" not in {one.verdict.outcome for one in result.limits}


def test_a_limit_that_noise_meets_says_nothing_of_the_map():
    limit = AtLeast("hiding_acceptance_auc", at_least=0.01)
    result, _ = run(limits=(limit,))
    assert result.verdict.outcome == "invalid"
    assert "know nothing of the face" in result.verdict.reason


def test_without_an_operating_threshold_nothing_is_accepted_and_it_says_so():
    limit = AtLeast("hiding_acceptance_auc", at_least=0.0)
    result, rows = run(threshold=None, limits=(limit,))
    assert result.verdict.outcome == "invalid"
    assert any("declares no operating threshold" in note for note in result.notes)
    for row in rows:
        found = of_explainer(row)
        assert found.values["hiding_acceptance_auc"] is None
        assert found.states["hiding_acceptance_auc"] is RowState.EXCLUDED
        assert found.values["hiding_similarity_auc"] is not None


def test_the_pairs_of_one_person_have_no_rank_and_it_says_so():
    result, rows = run(source=Planted(n=1))
    assert any("All pairs are of one person" in note for note in result.notes)
    assert all(of_explainer(row).values["hiding_rank1_auc"] is None for row in rows)


def test_a_pair_that_is_rejected_as_it_is_leaves_the_estimate():
    limit = BetterThan("hiding_acceptance_auc", better_than="control.random_blobs")
    result, rows = run(threshold=0.999, limits=(limit,))
    assert {of_explainer(row).states["hiding_acceptance_auc"] for row in rows} == {
        RowState.EXCLUDED
    }
    assert result.verdict.outcome == "invalid"
    assert "none of 40 pairs matches to begin with" in result.verdict.reason


def test_the_reverse_is_played_if_asked_for_alone():
    _, rows = run(source=Planted(n=3))
    played = {metric for row in rows for one in row.measured for metric in one.values}
    assert played == {one.name for one in METRICS if not one.name.startswith("reverse_")}


def test_more_steps_than_pixels_are_refused():
    with pytest.raises(EvidenceError, match="expected at most 256 steps"):
        run(source=Planted(n=3), steps=300)
    assert np.isclose(trapezoid([1.0, 0.0]), 0.5)

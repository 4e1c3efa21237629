"""Searches for people who are known by one square: plain loops, and who passes."""

import itertools

import numpy as np
import pytest
import torch

from fxeval.errors import DataContractError, EvidenceError
from fxeval.metrics.identification import Parameters
from fxeval.results import RowState
from fxeval.seeding import seed_of
from fxeval.statistics.limits import AtMost, BetterThan
from fxeval.tests.planted_orders import IGNORANT, descending, filled, without
from fxeval.tests.planted_people import Constant, Knowing, Planted, cosine, digest, pixels
from fxeval.tests.toy_world import SMALL, measured

KIND = "identification.deletion_insertion"
STEPS, SEED = 8, 5
ALL = ("random_pixels", "random_blobs")


def run(explainer=None, source=None, limits=(), **more):
    parameters = {"steps": STEPS, "fills": ("black",), "controls": ALL, "fpirs": (0.2,), **more}
    return measured(
        KIND, Parameters(**parameters), explainer=explainer or Knowing(), limits=limits,
        source=source or Planted(n=40), network=pixels(),
    )  # fmt: skip


def found_in(row, map_="explainer", fill="black"):
    """Return values, states and curves of one map under a fill, whatever else they are under."""
    values, states, curves = {}, {}, {}
    for one in row.measured:
        if one.map == map_ and one.under["fill"] == fill:
            values |= one.values
            states |= one.states
            curves |= one.curves
    return values, states, curves


def mean(rows, metric, map_="explainer", fill="black"):
    return float(np.mean([found_in(row, map_, fill)[0][metric] for row in rows]))


# A reference of plain loops: one image at a time, numpy alone.


def gallery_of(world, n_enrolled_each, unenrolled):
    """Return {person: enrolled images}, {probe: person}, unenrolled: all by digests."""
    ids = [f"{who}-{image}" for who in range(world.n) for image in range(world.images_each)]
    faces = dict(zip(ids, world.images(ids, SMALL).numpy(), strict=True))
    people = {}
    for id in sorted(ids, key=lambda id: digest(faces[id])):
        people.setdefault(int(id.split("-")[0]), []).append(id)
    first = {who: digest(faces[images[0]]) for who, images in people.items()}
    drawn = sorted(people, key=lambda who: seed_of(SEED, "unenrolled", first[who]))
    out = drawn[: int(unenrolled * len(people) + 0.5)]
    enrolled = {who: ids[:n_enrolled_each] for who, ids in people.items() if who not in out}
    probes = {id: who for who in enrolled for id in people[who][n_enrolled_each:]}
    return faces, enrolled, probes, [id for who in out for id in people[who]]


def best_of(image, faces, enrolled):
    if not image.any():
        return dict.fromkeys(enrolled, 0.0)  # black has no direction
    return {
        who: max(cosine(image.ravel(), faces[id].astype(float).ravel()) for id in images)
        for who, images in enrolled.items()
    }


def trapezoid(points):
    return sum((a + b) / 2 for a, b in itertools.pairwise(points)) / (len(points) - 1)


@pytest.mark.parametrize("fill", ["black", "blur"])
def test_values_are_those_of_a_plain_loop(fill):
    world = Planted(n=14)
    _, rows = run(
        source=world, fills=(fill,), gallery_images=2, unenrolled=0.4, fpirs=(0.5,), controls=()
    )
    faces, enrolled, probes, unenrolled = gallery_of(world, 2, 0.4)
    best = sorted(
        (max(best_of(faces[id].astype(float), faces, enrolled).values()) for id in unenrolled),
        reverse=True,
    )
    refused = best[int(0.5 * len(best))]
    by_id = {f"{digest(faces[id])[:12]}-{digest(faces[enrolled[who][0]])[:12]}": (id, who)
             for id, who in probes.items()}  # fmt: skip
    assert {row.row for row in rows} == set(by_id)
    assert len(unenrolled) == 24
    for row in rows:
        id, who = by_id[row.row]
        image = faces[id]
        map_ = Knowing().explain(
            None, torch.from_numpy(image)[None].float() / 255, None, generator=None
        )[0]
        order, filler = descending(map_), filled(image, fill)
        values, states, _ = found_in(row, fill=fill)
        for way in ("deletion", "insertion"):
            reciprocal, firsts, identified = [], [], []
            for step in range(STEPS + 1):
                k = step * 256 // STEPS
                gone = order[:k] if way == "deletion" else order[k:]
                similar = best_of(without(image, filler, gone), faces, enrolled)
                others = [value for other, value in similar.items() if other != who]
                reciprocal.append(1 / (1 + sum(value >= similar[who] for value in others)))
                firsts.append(similar[who] > max(others))
                identified.append(firsts[-1] and similar[who] > refused)
            assert values[f"{way}_reciprocal_rank_auc"] == pytest.approx(
                trapezoid(reciprocal), abs=1e-6
            )
            assert values[f"{way}_rank1_auc"] == pytest.approx(trapezoid(firsts), abs=1e-6)
            assert values[f"{way}_tpir_auc"] == pytest.approx(trapezoid(identified), abs=1e-6)
            if way == "deletion":
                lost = firsts.index(False) / STEPS if False in firsts else 1.0
                expected = lost if firsts[0] else None
                assert values["deletion_fraction_to_rank1_loss"] == expected
            else:
                at = firsts.index(True) / STEPS if True in firsts else 1.0
                is_first = firsts[-1]
                assert values["insertion_fraction_to_rank1"] == (at if is_first else None)
                assert (states["insertion_fraction_to_rank1"] is RowState.START_BEYOND) == (
                    is_first and firsts[0]
                )


# Of the two random orders that which does better in this world: the other one loses to it.
LIMITS = tuple(
    BetterThan(metric, better_than=f"control.{control}", under=under)
    for metric, control, under in (
        ("deletion_rank1_auc", "random_blobs", {}),
        ("insertion_rank1_auc", "random_pixels", {}),
        ("deletion_reciprocal_rank_auc", "random_blobs", {}),
        ("insertion_reciprocal_rank_auc", "random_pixels", {}),
        ("deletion_tpir_auc", "random_blobs", {"fpir": 0.2}),
        ("insertion_tpir_auc", "random_pixels", {"fpir": 0.2}),
        ("deletion_fraction_to_rank1_loss", "random_blobs", {}),
    )
)
WORLD = Planted(n=60)
MORE = {"probes_each": 1, "unenrolled": 0.3}


def test_who_knows_the_squares_passes():
    result, rows = run(source=WORLD, limits=LIMITS, **MORE)
    assert result.verdict.outcome == "pass", result.verdict.reason
    assert len(rows) == 42
    assert (
        mean(rows, "insertion_rank1_auc")
        > 0.9
        > mean(rows, "insertion_rank1_auc", "control.random_blobs")
    )


@pytest.mark.parametrize("name", IGNORANT)
def test_who_does_not_passes_no_limit(name):
    result, _ = run(IGNORANT[name], source=WORLD, limits=LIMITS, **MORE)
    assert result.verdict.outcome in ("fail", "inconclusive")
    assert "pass" not in {one.verdict.outcome for one in result.limits}


def test_too_few_nonmated_searches_leave_the_open_set_without_a_value():
    limit = BetterThan("deletion_tpir_auc", better_than="control.random_blobs")
    result, rows = run(source=WORLD, fpirs=(0.01,), limits=(limit,), **MORE)
    assert result.verdict.outcome == "invalid"
    # The list is to blame, and neither the pairs nor the model's operating threshold.
    assert "too few nonmated searches to set the threshold" in result.verdict.reason
    assert "matches to begin with" not in result.verdict.reason
    assert any(
        "FPIR of 0.01 has no value: too few nonmated searches, 72 of at least 1,000" in note
        for note in result.notes
    )
    for row in rows:
        values, states, _ = found_in(row)
        assert values["deletion_tpir_auc"] is None
        assert values["deletion_rank1_auc"] is not None
        assert states["deletion_tpir_auc"] is RowState.EXCLUDED


def test_a_limit_that_noise_meets_says_nothing_of_the_map():
    limit = AtMost("deletion_rank1_auc", at_most=0.99)
    result, _ = run(source=WORLD, limits=(limit,), **MORE)
    assert result.verdict.outcome == "invalid"
    assert "know nothing of the face" in result.verdict.reason


def test_people_with_one_image_are_nonmated_searches():
    class Alone(Planted):
        def listing(self):
            listing = super().listing()
            kept = [
                row for row in range(len(listing))
                if int(listing.probe_identity[row]) >= 8
                or (not listing.is_mated[row] and listing.probe[row].endswith("-0")
                    and int(listing.reference_identity[row]) >= 8)
            ]  # fmt: skip
            return listing.take(kept)

    result, _ = run(source=Alone(n=30), unenrolled=0.0, fpirs=(0.5,))
    enrolled = next(note for note in result.notes if "are enrolled" in note)
    # Of person 7 the list has one image, in a pair with person 8; of person 0 two, with person 29.
    assert enrolled.startswith("23 people are enrolled with 23 images")


def test_a_gallery_of_one_person_is_refused():
    for source, more in ((Planted(n=1), {}), (Planted(n=3), {"unenrolled": 0.7})):
        with pytest.raises(DataContractError, match="at least 2 people to enrol"):
            run(source=source, **more)
    with pytest.raises(DataContractError, match="more than 4 images each, got 0"):
        run(source=Planted(n=5), gallery_images=4)


def test_more_steps_than_pixels_are_refused():
    with pytest.raises(EvidenceError, match="expected at most 256 steps"):
        run(steps=300)


def test_constant_maps_are_ranked_at_random_and_say_so():
    _, rows = run(Constant(), source=Planted(n=5), unenrolled=0.0)
    assert {row.state for row in rows} == {RowState.DEGENERATE_MAP}
    assert all(found_in(row)[0]["deletion_rank1_auc"] is not None for row in rows)

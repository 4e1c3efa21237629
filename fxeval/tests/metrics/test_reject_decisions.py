"""Rejections of people who are known by one square: plain loops, and who passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fxeval.contracts import SaliencyMaps
from fxeval.errors import DataContractError, EvidenceError, UnsupportedError
from fxeval.metrics.evidence_against import turned
from fxeval.metrics.reject_decisions import Parameters
from fxeval.results import RowState
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.tests.planted_orders import IGNORANT, Noise, Signed, descending, filled, without
from fxeval.tests.planted_people import Constant, Knowing, Planted, cosine, digest, pixels
from fxeval.tests.toy_world import SMALL, measured

KIND = "faithfulness.reject_decisions"
WORLD = Planted(n=40, images_each=2)
SQUARE = 1 / 16  # of the pixels
CONTROLS = ("random_pixels", "random_blobs", "centre", "mean_map", "inverse", "positive_map")
# Under ``mean`` a probe is rejected by its square, and is accepted without it.
THRESHOLD = 0.38


def run(explainer=None, source=WORLD, limits=(), threshold=THRESHOLD, **more):
    parameters = {
        "fractions": (SQUARE,), "fills": ("mean",), "steps": 16, "controls": CONTROLS, **more,
    }  # fmt: skip
    return measured(
        KIND, Parameters(**parameters), explainer=explainer or Signed(Knowing()), limits=limits,
        source=source, network=pixels(threshold=threshold),
    )  # fmt: skip


def values(row, map_="explainer", fill="mean"):
    found = {}
    for one in row.measured:
        if one.map == map_ and one.under["fill"] == fill:
            found |= one.values
    return found


def mean(rows, metric, map_="explainer"):
    return float(np.mean([values(row, map_)[metric] for row in rows if values(row, map_)]))


def nonmated(world):
    listing = world.listing()
    every = zip(listing.probe, listing.reference, listing.is_mated, strict=True)
    return [(a, b) for a, b, is_mated in every if not is_mated]


@pytest.mark.parametrize("fill", ["mean", "blur", "black"])
def test_values_are_those_of_a_plain_loop(fill):
    world, steps = Planted(n=10), 8
    _, rows = run(source=world, fills=(fill,), fractions=(SQUARE, 0.3), steps=steps, controls=())
    pairs = nonmated(world)
    ids = sorted({one for pair in pairs for one in pair})
    faces = dict(zip(ids, world.images(ids, SMALL).numpy(), strict=True))
    by_id = {"-".join(digest(faces[one])[:12] for one in pair): pair for pair in pairs}
    assert {row.row for row in rows} == set(by_id)
    for row in rows:
        probe, reference = by_id[row.row]
        image, other = faces[probe], faces[reference].astype(float).ravel()
        one = torch.from_numpy(image)[None].float() / 255
        order = descending(Knowing().explain(None, one, None, generator=None)[0])

        def alike(gone, image=image, other=other):
            shown = without(image, filled(image, fill), gone)
            return cosine(shown.ravel(), other) if shown.any() else 0.0

        clean = alike(())
        by_fraction = {
            one.under["fraction"]: one.values for one in row.measured if "fraction" in one.under
        }
        for fraction, k in ((SQUARE, 16), (0.3, 77)):
            found = by_fraction[fraction]
            rise = alike(order[:k]) - clean
            assert found["rejection_similarity_rise"] == pytest.approx(rise, abs=1e-6)
            assert found["rejection_retention"] == float(alike(order[k:]) < THRESHOLD)
        matches = [alike(order[: 32 * step]) >= THRESHOLD for step in range(steps + 1)]
        at = matches.index(True) / steps if True in matches else 1.0
        assert values(row, fill=fill)["rejection_fraction_to_match"] == at


LIMITS = tuple(
    BetterThan(metric, better_than=f"control.{control}")
    for metric, control in (
        # Of the two random orders that which does better in this world: the other one loses to it.
        ("rejection_similarity_rise", "random_pixels"),
        ("rejection_similarity_rise", "random_blobs"),
        ("rejection_similarity_rise", "positive_map"),
        ("rejection_retention", "random_blobs"),
        ("rejection_fraction_to_match", "random_blobs"),
    )
)


def test_who_knows_what_speaks_against_a_pair_passes():
    result, rows = run(limits=LIMITS)
    assert result.verdict.outcome == "pass", result.verdict.reason
    assert all(len(row.identities) == 2 and not row.is_mated for row in rows)
    assert mean(rows, "rejection_retention") == 1.0
    assert mean(rows, "rejection_retention", "control.random_blobs") < 0.2
    # The inverse and the mean map are of the maps against.
    assert mean(rows, "rejection_similarity_rise") > 0.15
    for control in ("inverse", "mean_map", "centre", "positive_map"):
        assert mean(rows, "rejection_similarity_rise", f"control.{control}") < 0.05


@pytest.mark.parametrize("name", IGNORANT)
@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_who_does_not_passes_no_limit_though_the_pair_becomes_more_alike(name, fill):
    result, rows = run(Signed(IGNORANT[name]), limits=LIMITS, fills=(fill,))
    assert result.verdict.outcome != "pass"
    assert "pass" not in {
        one.verdict.outcome for one in result.limits if one.better_than != "control.positive_map"
    }
    if name == "noise" and fill == "blur":  # blurring anything makes two faces more alike
        assert np.mean([values(row, fill=fill)["rejection_similarity_rise"] for row in rows]) > 0


def test_an_absolute_limit_that_noise_meets_says_nothing_of_the_map():
    limit = AtLeast("rejection_retention", at_least=0.5)
    result, _ = run(Signed(Knowing()), fills=("black",), limits=(limit,))
    assert result.verdict.outcome == "invalid"
    assert "know nothing of the face" in result.verdict.reason


def test_an_explainer_without_a_negative_map_is_refused_unless_the_inverted_one_is_asked_for():
    with pytest.raises(UnsupportedError, match=r"no negative map.*set map: positive_inverted"):
        run(Knowing())
    _, rows = run(Knowing(), map="positive_inverted")
    _, others = run(Signed(Inverted()), controls=("inverse",))
    assert [values(row) for row in rows] == [values(row) for row in others]


class Inverted(Knowing):
    def explain(self, *given, **more):
        return -super().explain(*given, **more)


def test_pairs_that_are_accepted_have_no_value_and_too_many_are_refused():
    result, rows = run(threshold=0.25)
    accepted = [row for row in rows if not values(row)]
    assert 0 < len(accepted) <= 8
    assert any(f"{len(accepted)} of 40 nonmated pairs are accepted" in one for one in result.notes)
    with pytest.raises(EvidenceError, match="of 40 nonmated pairs as they are; at most 20%"):
        run(threshold=0.235)


def test_without_an_operating_threshold_there_is_no_decision_and_it_says_so():
    result, rows = run(threshold=None, limits=(LIMITS[-1],))
    assert result.verdict.outcome == "invalid"
    assert any("declares no operating threshold" in note for note in result.notes)
    for row in rows:
        found = values(row)
        assert found["rejection_retention"] is found["rejection_fraction_to_match"] is None
        assert found["rejection_similarity_rise"] is not None


def test_a_list_without_nonmated_pairs_is_refused():
    class Mated(Planted):
        def listing(self):
            listing = super().listing()
            kept = [row for row, is_mated in enumerate(listing.is_mated) if is_mated]
            return listing.take(kept)

    with pytest.raises(DataContractError, match="at least 1 nonmated pairs, the list holds 0"):
        run(source=Mated(n=4))


def test_more_steps_than_pixels_are_refused():
    with pytest.raises(EvidenceError, match="expected at most 256 steps"):
        run(steps=300)


def test_a_negative_map_has_a_state_of_its_own():
    flat, uneven = torch.zeros(1, 2, 2), torch.arange(4.0).view(1, 2, 2)
    of = SaliencyMaps(
        torch.cat([flat, uneven, uneven]),
        torch.cat([uneven, flat, uneven]),
        (RowState.DEGENERATE_MAP, RowState.OK, RowState.NAN_MAP),
        ("flat", "", "broken"),
    )
    found = turned(of, "negative")
    assert found.states == (RowState.OK, RowState.DEGENERATE_MAP, RowState.NAN_MAP)
    assert found.reasons == ("", "every pixel of the negative map is 0", "broken")
    assert torch.equal(found.positive[0], uneven[0])
    assert found.negative is None
    assert turned(of, "positive_inverted").states == of.states
    _, rows = run(Signed(Constant()), source=Planted(n=4))
    assert {row.state for row in rows} == {RowState.DEGENERATE_MAP}
    with pytest.raises(UnsupportedError):
        turned(replace(of, negative=None), "negative")


def test_noise_for_the_similarity_is_no_part_of_the_map_against():
    assert mean(run()[1], "rejection_similarity_rise") > 3 * mean(
        run(Signed(Noise()))[1], "rejection_similarity_rise"
    )


def test_the_positive_map_of_an_explainer_that_draws_is_measured_at_each_of_its_seeds():
    class Drawn:
        def explain(self, model, probes, references, *, contrast=None, generator):
            drawn = torch.from_numpy(generator.random((2, 1, *probes.shape[2:]))).float()
            return SaliencyMaps(*drawn.repeat(1, len(probes), 1, 1))

    _, rows = measured(
        KIND, Parameters(fractions=(SQUARE,), fills=("mean",), steps=4, controls=CONTROLS),
        explainer=Drawn(), source=Planted(n=10), network=pixels(threshold=THRESHOLD), seeds=2,
    )  # fmt: skip
    found = {
        one.seed: one.values
        for one in rows[0].measured
        if one.map == "control.positive_map" and "fraction" in one.under
    }
    assert found.keys() == {0, 1}
    assert found[0] != found[1]


def test_a_signed_explainer_that_raises_on_every_pair_fails_and_is_not_unsupported():
    class Raises:
        def explain(self, *given, **more):
            raise RuntimeError("no map today")

    limits = (BetterThan("rejection_similarity_rise", better_than="control.random_pixels"),)
    result, rows = run(explainer=Raises(), limits=limits, source=Planted(n=10))
    assert {row.state for row in rows} == {RowState.EXPLAINER_RAISED}
    assert result.verdict.outcome == "fail"
    assert "explainer_raised" in result.verdict.reason

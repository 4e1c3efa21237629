"""The accuracy of a list while pixels go or come, against a plain loop over the whole list."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from fxeval.contracts import SaliencyMaps
from fxeval.errors import EvidenceError
from fxeval.metrics.accuracy_curves import BY_NEGATIVE, BY_POSITIVE, METRICS, Parameters
from fxeval.results import RowState
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.tests.planted_people import SIDE, Constant, Knowing, Planted, pixels
from fxeval.tests.toy_world import SMALL, measured

KIND = "faithfulness.accuracy_curves"
PEOPLE = Planted(n=32)
THRESHOLD = 0.6


def run(explainer=None, *, threshold=THRESHOLD, limits=(), source=PEOPLE, **parameters):
    given = Parameters(**{"steps": 4, "fills": ("black",), **parameters})
    network = pixels(threshold=threshold)
    more = {"explainer": explainer or Knowing(), "source": source, "network": network}
    return measured(KIND, given, limits=limits, **more)


def of(rows, map_="explainer", fill="black"):
    """The measured part of each row under one map."""
    return [
        next(one for one in row.measured if (one.map, one.under["fill"]) == (map_, fill))
        for row in rows
    ]


def curves(rows, kind, map_="explainer"):
    return np.array([one.curves[kind] for one in of(rows, map_)], dtype=np.float64)


class Signed:
    """The brightest square for a match, the darkest pixels of the image against it."""

    def explain(self, model, probes, references, **more):
        positive = Knowing().explain(model, probes, references, **more)
        return SaliencyMaps(positive, -positive.flip(2))


def slow_accuracy(rows, maps, steps, *, keeps):
    """Decide the whole list anew at every fraction; maps are by probe, none of whose pixels tie."""
    listing = PEOPLE.listing()
    images = dict.fromkeys(listing.probe + listing.reference)
    pixels_of = {name: PEOPLE.images([name], SMALL)[0].double().numpy() / 255 for name in images}
    found = []
    for step in range(steps + 1):
        gone = int(step * 256 / steps + 0.5)
        right = []
        for probe, reference, is_mated in zip(
            listing.probe, listing.reference, listing.is_mated, strict=True
        ):
            ranked = np.argsort(-maps[probe, reference].ravel())
            image = pixels_of[probe].reshape(3, 256).copy()
            image[:, ranked[gone:] if keeps else ranked[:gone]] = 0.0
            one, other = image.ravel(), pixels_of[reference].ravel()
            length = max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12)
            right.append((float(one @ other) / length >= THRESHOLD) == is_mated)
        found.append(sum(right) / len(right))
    return found


def trapezoid(curve):
    return sum((a + b) / 2 for a, b in pairwise(curve)) / (len(curve) - 1)


def maps_by_probe(explainer, *, negative):
    """The map that each pair of the list is expected to lose its pixels by."""
    listing, found = PEOPLE.listing(), {}
    for probe, reference, is_mated in zip(
        listing.probe, listing.reference, listing.is_mated, strict=True
    ):
        shown = (PEOPLE.images([one], SMALL).float() / 255 for one in (probe, reference))
        made = explainer.explain(None, *shown, generator=None)
        made = made if isinstance(made, SaliencyMaps) else SaliencyMaps(made)
        found[probe, reference] = (made.positive if is_mated or not negative else made.negative)[0]
    return {pair: map_.double().numpy() for pair, map_ in found.items()}


@pytest.mark.parametrize("explainer", [Knowing(), Signed()], ids=["unsigned", "signed"])
def test_the_mean_of_the_areas_is_the_area_of_the_accuracy_of_the_list(explainer):
    _, rows = run(explainer)
    assert len(rows) == len(PEOPLE.listing()) == 128
    maps = maps_by_probe(explainer, negative=isinstance(explainer, Signed))
    for way, keeps in (("deletion", False), ("insertion", True)):
        expected = slow_accuracy(rows, maps, 4, keeps=keeps)
        assert curves(rows, f"{way}_accuracy").mean(axis=0) == pytest.approx(expected, abs=1e-12)
        areas = [one.values[f"{way}_accuracy_auc"] for one in of(rows)]
        assert np.mean(areas) == pytest.approx(trapezoid(expected), abs=1e-12)
        assert 0.1 < trapezoid(expected) < 0.98  # both decisions occur


def test_the_curve_begins_with_the_clean_accuracy_and_ends_with_that_of_the_fill():
    maps = ("explainer", "control.random_pixels", "control.centre", "control.inverse")
    _, rows = run(controls=("random_pixels", "centre", "inverse"))
    clean = slow_accuracy(rows, maps_by_probe(Knowing(), negative=False), 1, keeps=False)
    assert clean[0] > clean[1]
    for map_ in maps:
        deletion, insertion = (
            curves(rows, f"{way}_accuracy", map_) for way in ("deletion", "insertion")
        )
        assert deletion[:, 0].mean() == insertion[:, -1].mean() == clean[0]
        assert deletion[:, -1].mean() == insertion[:, 0].mean() == clean[1]
        np.testing.assert_array_equal(
            deletion[:, [0, -1]], curves(rows, "deletion_accuracy")[:, [0, -1]]
        )


def test_mated_pairs_alone_are_asked_for_the_rate_of_accepted_pairs():
    result, rows = run()
    for row, one in zip(rows, of(rows), strict=True):
        assert ("deletion_tmr_auc" in one.values) == row.is_mated
        if row.is_mated:  # right means accepted
            assert one.values["deletion_tmr_auc"] == one.values["deletion_accuracy_auc"]
    [shown] = [
        one
        for one in result.estimates
        if (one.metric, one.map) == ("deletion_tmr_auc", "explainer")
    ]
    assert shown.n_pairs == 64
    assert shown.value < 0.3  # while half of the accuracy remains, as rejected pairs stay right
    [whole] = [
        one
        for one in result.estimates
        if (one.metric, one.map) == ("deletion_accuracy_auc", "explainer")
    ]
    assert whole.value > 0.5


@dataclass(frozen=True)
class Against:
    """For a match speaks the middle, against it whatever is brightest."""

    keeps: bool = True

    def explain(self, model, probes, references, **more):
        middle = torch.zeros_like(probes[:, 0])
        middle[:, 6:10, 6:10] = 1.0
        ramp = torch.arange(256.0).view(16, 16) * 1e-4
        against = probes.mean(1) if self.keeps else torch.zeros_like(middle)
        return SaliencyMaps(middle + ramp, against)


@dataclass(frozen=True)
class Shared(Planted):
    """All people have nearly one pattern in the middle, and a brighter square in a corner.

    Without the square of its own, a probe is like everybody.
    """

    def images(self, image_ids, crop):
        found = torch.zeros(len(image_ids), 3, *SMALL.size, dtype=torch.uint8)
        pattern = torch.from_numpy(np.random.default_rng(1).integers(60, 160, (3, SIDE, SIDE)))
        for row, image_id in enumerate(image_ids):
            who, number = map(int, image_id.split("-"))
            found[row, :, 6:10, 6:10] = pattern.to(torch.uint8) + who
            y, x = ((0, 0), (0, 12), (12, 0), (12, 12))[who % 4]
            found[row, :, y : y + SIDE, x : x + SIDE] = 250 - number
        return found


def test_without_what_speaks_against_it_a_rejected_pair_becomes_a_match():
    more = {"source": Shared(n=32), "threshold": 0.35, "controls": ("random_pixels",)}
    result, rows = run(Against(), steps=16, **more)
    nonmated = np.array([not row.is_mated for row in rows])
    right = curves(rows, "deletion_accuracy")[nonmated]
    assert right[:, 0].mean() > 0.7  # pairs whose squares lie in one corner are alike
    assert right[:, 1].mean() < 0.2  # 16 of 256 pixels are gone: the square
    random = curves(rows, "deletion_accuracy", "control.random_pixels")[nonmated]
    assert random[:, 1].mean() > 0.7
    assert BY_NEGATIVE in result.remarks
    assert BY_POSITIVE not in result.remarks


def test_unsigned_explainers_are_told_that_nonmated_pairs_follow_positive_maps():
    result, _ = run(Knowing())
    assert BY_POSITIVE in result.remarks


def test_a_constant_negative_map_is_flagged_and_its_order_random():
    _, rows = run(Against(keeps=False), source=Shared(n=32))
    for row, one in zip(rows, of(rows), strict=True):
        state = RowState.OK if row.is_mated else RowState.DEGENERATE_MAP
        assert one.states["deletion_accuracy_auc"] == state
        assert one.values["deletion_accuracy_auc"] is not None


def test_without_a_threshold_nothing_is_decided_and_the_page_says_so():
    result, rows = run(threshold=None)
    for one in of(rows):
        assert set(one.states.values()) == {RowState.EXCLUDED}
        assert set(one.values.values()) == {None}
    assert any("operating threshold" in one for one in result.remarks)


def judged(explainer, *limits):
    controls = ("random_blobs", "random_pixels")
    found, _ = run(explainer, steps=8, controls=controls, limits=limits)
    return [one.verdict.outcome for one in found.limits]


class Noise:
    def explain(self, model, probes, references, *, generator, **more):
        return torch.from_numpy(generator.random(tuple(probes[:, 0].shape))).float()


class Hashed:
    """Noise that is the same whenever an image is explained."""

    def explain(self, model, probes, references, **more):
        seeds = (probes * 255).sum((1, 2, 3)).round().long().tolist()
        maps = [np.random.default_rng(seed).random(SMALL.size) for seed in seeds]
        return torch.from_numpy(np.stack(maps)).float()


class Inverse(Knowing):
    def explain(self, *args, **more):
        return -super().explain(*args, **more)


LIMITS = [
    BetterThan("deletion_tmr_auc", better_than="control.random_blobs"),
    BetterThan("insertion_tmr_auc", better_than="control.random_blobs"),
]


def test_the_planted_truth_passes_and_controls_do_not():
    assert judged(Knowing(), *LIMITS) == ["pass", "pass"]
    for wrong in (Noise(), Constant(), Inverse()):
        assert "pass" not in judged(wrong, *LIMITS)


def test_a_limit_that_random_orders_pass_too_says_nothing():
    """Half of a balanced list is right whatever is removed: so at least 0.4 of it is."""
    loose = AtLeast("insertion_accuracy_auc", at_least=0.4)
    assert judged(Hashed(), loose) == ["invalid"]
    assert all(metric.is_decision for metric in METRICS)


def test_more_steps_than_pixels_are_refused():
    with pytest.raises(EvidenceError, match="at most 256 steps"):
        run(steps=257)

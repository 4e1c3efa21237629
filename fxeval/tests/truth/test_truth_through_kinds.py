"""Planted truth through the kinds of checks: what a map that is right must get from each."""

from functools import cache

import pytest

import fxeval
from fxeval.tests.truth.planted_lists import Additive, Textures
from fxeval.truth.planted import planted_model

PEOPLE = Textures(32)
REJECTING = "faithfulness.reject_decisions"  # asks what speaks against a similarity
METRICS = {
    "faithfulness.deletion_insertion": ("deletion_auc", "insertion_auc", "relevance_gain"),
    "faithfulness.hiding_game": ("hiding_acceptance_auc", "hiding_rank1_auc"),
    REJECTING: ("rejection_similarity_rise",),
    "identification.deletion_insertion": ("deletion_rank1_auc", "insertion_rank1_auc"),
    "faithfulness.accuracy_curves": ("deletion_tmr_auc", "insertion_tmr_auc"),
}
"""Metrics that tell the truth from maps that know nothing."""

SLOW = {"identification.deletion_insertion", "faithfulness.accuracy_curves"}
KINDS = [
    pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else [], id=kind)
    for kind in METRICS
]  # fmt: skip


@cache
def estimates(kind: str):
    """The estimates of the exact contributions and of controls, by map and metric."""
    controls = ["random_blobs", "random_pixels"]
    signed = kind == REJECTING
    record = fxeval.evaluate(
        planted_model(), Additive(signed=signed), PEOPLE, check=kind, seeds=1, fills=["black"],
        controls=controls if signed else [*controls, "inverse"], steps=6,
        n=None if kind == "faithfulness.accuracy_curves" else 32,
    )  # fmt: skip
    (cell,) = record.cells
    assert set(cell.states) == {"ok"}
    better = {metric.name: metric.better for metric in cell.metrics}
    return better, {
        (one.map, one.metric): one
        for one in cell.estimates
        if one.under.get("fraction", 0.1) == 0.1 and "fpir" not in one.under
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_beats_blobs_pixels_and_its_own_inverse_by_whole_intervals(kind):
    better, found = estimates(kind)
    controls = {name for name, _ in found} - {"explainer"}
    assert len(controls) == (2 if kind == REJECTING else 3)
    for metric in METRICS[kind]:
        truth = found["explainer", metric]
        for control in controls:
            other = found[control, metric]
            if better[metric] == "higher":
                assert truth.low > other.high, (metric, control)
            else:
                assert truth.high < other.low, (metric, control)


@pytest.mark.slow
def test_the_truth_of_a_pair_also_makes_strangers_alike_so_accuracy_does_not_tell():
    """What restores a mated pair's similarity restores that of a nonmated pair as well."""
    _, found = estimates("faithfulness.accuracy_curves")
    truth, pixels = (
        found[name, "insertion_accuracy_auc"] for name in ("explainer", "control.random_pixels")
    )
    assert found["explainer", "insertion_tmr_auc"].value > 0.85
    assert truth.value < pixels.value


def of_explainer(kind: str, **parameters):
    record = fxeval.evaluate(
        planted_model(), Additive(), PEOPLE, check=kind, n=32, seeds=1, **parameters
    )  # fmt: skip
    (cell,) = record.cells
    return cell, {one.metric: one for one in cell.estimates if one.map == "explainer"}


def test_the_truth_repeats_under_noise_and_drawing_again():
    _, found = of_explainer("stability.repetition", fill="black", steps=4, noisy=2)
    assert found["draw_correlation"].low > 0.999
    assert found["draw_area_spread"].value == 0.0
    assert found["noise_correlation"].low > 0.99
    assert found["half_pixel_correlation"].low > 0.98


def test_the_truth_follows_the_person_and_the_network():
    _, swapped = of_explainer("sanity.impostor_swap")
    assert swapped["repeat"].low > 0.98
    assert swapped["compare"].low > 0.6
    _, redrawn = of_explainer("sanity.model_randomisation")
    assert redrawn["rank_correlation_fully_randomised"].high < 0.35
    assert redrawn["rank_correlation_of_other_identities"].high < 0.2


LIMITS = [
    {"metric": metric, "at_least": limit}
    for metric, limit in (
        ("repeat", 0.5), ("change", 0.3), ("compare", 0.1), ("input", 0.05), ("nudge", 0.5),
    )
]  # fmt: skip
"""Those of ``suites/sanity.yaml``."""


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "outcome"), [("truth", "pass"), ("random", "fail")])
def test_the_truth_passes_the_two_sided_verdict_and_noise_of_the_image_fails_it(answer, outcome):
    record = fxeval.evaluate(
        planted_model(), Additive(answer), PEOPLE, check="sanity.two_sided", n=32, seeds=1,
        limits=LIMITS,
    )  # fmt: skip
    verdict = record.cells[0].verdict
    assert verdict.outcome == outcome, verdict.reason

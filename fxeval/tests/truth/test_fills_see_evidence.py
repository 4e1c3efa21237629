"""Which fill sees which evidence: deletion of maps that know it, by the metric itself."""

from dataclasses import replace

import pytest
import torch

import fxeval
from fxeval.tests.truth.planted_lists import Known, Painted
from fxeval.truth.evidence_regions import (
    EvidenceFace,
    KnownPairs,
    evidence_model,
    pixels_of,
    region_pairs,
)

PLACE = (1, 4)
ANSWERS = ("truth", "random", "inverse")
FILLS = ("black", "white", "mean", "blur")


def evenly_grey(pairs: KnownPairs) -> KnownPairs:
    """The pairs with evenly grey probes, each of its own level."""
    level = (153 + 2 * torch.arange(len(pairs.probes))) / 255
    return replace(pairs, probes=level[:, None, None, None].expand_as(pairs.probes).clone())


def deletion(surroundings: str, n: int = 8, steps: int = 8) -> dict[tuple[str, str], float]:
    """The mean deletion AUC of each map under each fill."""
    kind = "brightness" if surroundings == "grey" else surroundings
    model = evidence_model(EvidenceFace([PLACE], kind), kind)
    pairs = region_pairs(model, PLACE, n, kind)
    if surroundings == "grey":
        pairs = evenly_grey(pairs)
    found = {}
    for answer in ANSWERS:
        record = fxeval.evaluate(
            model, Painted(pixels_of(PLACE).float(), answer), Known(pairs), fills=list(FILLS),
            steps=steps, seeds=1,
        )  # fmt: skip
        for one in record.cells[0].estimates:
            if (one.map, one.metric) == ("explainer", "deletion_auc"):
                assert one.n_pairs == n
                found[answer, one.under["fill"]] = one.value
    assert len(found) == len(ANSWERS) * len(FILLS)
    return found


def in_order(found, fill: str) -> tuple[float, float]:
    """Differences from the truth to random pixels, and from these to the inverse."""
    truth, random, inverse = (found[answer, fill] for answer in ANSWERS)
    return random - truth, inverse - random


def test_black_orders_maps_of_bright_evidence_rightly_and_white_turns_them_round():
    found = deletion("brightness")
    assert min(in_order(found, "black")) > 0.2
    assert max(in_order(found, "white")) < -0.005
    assert min(in_order(found, "mean")) > 0.1  # most of these images is darker than the evidence


def test_mean_and_blur_are_blind_where_the_surroundings_are_as_bright_as_the_evidence():
    found = deletion("grey")
    assert min(in_order(found, "black")) > 0.2
    assert max(in_order(found, "white")) < -0.005
    for fill in ("mean", "blur"):
        assert in_order(found, fill) == pytest.approx((0, 0), abs=1e-3)


@pytest.mark.parametrize("kind", ["contrast", "texture"])
def test_every_fill_sees_evidence_that_no_flat_or_smooth_picture_has(kind):
    found = deletion(kind)
    for fill in FILLS:
        assert min(in_order(found, fill)) > 0.1

"""A protocol may ask how well the model verifies without the pixels that a map names."""

from dataclasses import dataclass

import numpy as np
import pytest

from fxeval.contracts import PairListing
from fxeval.metrics import add_metrics
from fxeval.results import Outcome
from fxeval.statistics.limits import AtLeast, AtMost, BetterThan
from fxeval.tests.protocols import KINDS, verification_under_occlusion
from fxeval.tests.slow_figures import auc
from fxeval.tests.toy_world import People, Ramp, measured


@pytest.fixture(autouse=True)
def catalogue():
    add_metrics(KINDS)
    yield
    add_metrics({})


@dataclass(frozen=True)
class Crossed(People):
    """Two mated and two nonmated pairs a person, who differ in the upper left quarter alone."""

    n: int = 36

    def listing(self):
        rows = [(f"{who}-{a}", f"{who}-{a + 1}") for who in range(self.n) for a in (0, 2)]
        rows += [
            (f"{who}-0", f"{(who + step) % self.n}-1") for who in range(self.n) for step in (1, 5)
        ]
        one, two = zip(*rows, strict=True)
        who, other = (tuple(image.split("-")[0] for image in side) for side in (one, two))
        same = tuple(a == b for a, b in zip(who, other, strict=True))
        return PairListing(one, two, same, who, other)

    def images(self, image_ids, crop):
        found = super().images(image_ids, crop)
        height, width = (side // 2 for side in crop.size)
        found[:, :, height:], found[:, :, :, width:] = 90, 160
        return found


@dataclass(frozen=True)
class Corner:
    """Knows where people differ, or, turned round, where they do not."""

    sign: int = 1

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = probes.mean(1) * 1e-3
        maps[:, :8, :8] += self.sign
        return maps


AREA = "auc_under_occlusion"
WITHOUT = {"fraction": 0.25}
LIMITS = (
    AtLeast(AREA, at_least=0.7, under={"fraction": 0.0}),
    BetterThan(AREA, better_than="control.random_pixels", under=WITHOUT),
    AtMost("eer_under_occlusion", at_most=0.9, under=WITHOUT),
)


def run(explainer):
    parameters = verification_under_occlusion.Parameters(fraction=0.25)
    return measured(
        "toy.verification", parameters, explainer=explainer, source=Crossed(), limits=LIMITS
    )


@pytest.fixture(scope="module")
def knowing():
    add_metrics(KINDS)
    return run(Corner())


def test_an_area_is_judged_from_the_rows_and_against_a_control(knowing):
    result, rows = knowing
    first, second, _ = result.limits
    assert [one.verdict.outcome for one in (first, second)] == [Outcome.PASS] * 2
    # Without pixels removed no pair is misjudged; 12 comparisons share nobody, of 36 people.
    assert (first.estimate.value, first.estimate.high) == (1.0, 1.0)
    assert first.estimate.low == pytest.approx(0.025 ** (1 / 12))
    assert second.estimate.method == "jackknife over identities, t at 96 % for 95 %, G = 36"
    assert (first.estimate.n_pairs, first.estimate.n_identities) == (144, 36)
    mated = np.array([row.is_mated for row in rows])
    assert mated.sum() == 72
    values = {
        (one.map, one.under["fraction"]): np.array(
            [next(m.values[AREA] for m in row.measured if (m.map, m.under) == (one.map, one.under))
             for row in rows]
        )
        for one in rows[0].measured
    }  # fmt: skip
    areas = {key: auc(column, mated) for key, column in values.items()}
    assert first.estimate.value == pytest.approx(areas["explainer", 0.0])
    gain = areas["control.random_pixels", 0.25] - areas["explainer", 0.25]
    assert second.estimate.value == pytest.approx(gain)
    assert gain > 0.2


def test_what_the_list_cannot_show_is_no_verdict(knowing):
    """Of 72 mated pairs an equal error rate has no interval, whatever its value."""
    result, _ = knowing
    verdict = result.limits[2].verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    [shown] = [
        one
        for one in result.estimates
        if (one.metric, one.map) == ("eer_under_occlusion", "explainer") and one.under["fraction"]
    ]
    assert shown.low is None
    assert shown.method == (
        "no interval: 72 mated pairs, at least 100 needed for the interval of an EER"
    )


@pytest.mark.parametrize("explainer", [Ramp(), Corner(-1)])
def test_a_map_that_knows_nothing_of_the_people_is_never_better(explainer):
    result, _ = run(explainer)
    assert result.limits[0].verdict.outcome is Outcome.PASS
    assert result.limits[1].verdict.outcome is not Outcome.PASS

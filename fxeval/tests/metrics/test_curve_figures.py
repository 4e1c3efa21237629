"""Figures of the curves of deletion and insertion, and what fills do to them."""

from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fxeval.contracts import Crop, PairListing
from fxeval.functional.ranking import ranks, step_counts
from fxeval.metrics.curve_figures import FIGURES, LEAST_CONTRAST, figures
from fxeval.metrics.deletion_insertion import CURVES, Parameters
from fxeval.metrics.removal_curves import Curves, area, trace
from fxeval.results import RowState
from fxeval.statistics.limits import AtMost, BetterThan
from fxeval.tests import evidence
from fxeval.tests.metrics.test_removal_curves import pairs_of, slow_curves
from fxeval.tests.planted_people import Constant, Knowing, Planted, pixels
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs
from fxeval.tests.toy_world import measured

KIND = "faithfulness.deletion_insertion"
NAMES = [metric.name for metric in FIGURES]


def mean(curve):
    """The trapezoidal rule at equal steps."""
    return sum((a + b) / 2 for a, b in pairwise(curve)) / (len(curve) - 1)


def by_hand(deletion, insertion):
    """The figures of one pair of curves at equal steps, by plain loops."""

    clean, filled = deletion[0], deletion[-1]
    found = []
    for curve in (deletion, insertion):
        void = clean - filled < LEAST_CONTRAST
        scaled = [np.nan if void else (one - filled) / (clean - filled) for one in curve]
        found.append(mean(scaled))
    # The least relevant pixels first: what is left after k is what insertion has after n - k.
    found.append(mean(insertion[::-1]) - mean(deletion))
    found += [mean([min(max(one, 0.0), 1.0) for one in curve]) for curve in (deletion, insertion)]
    return found


cosines = st.lists(st.floats(-1, 1), min_size=4, max_size=30)


@settings(deadline=None, max_examples=80)
@given(cosines, cosines)
def test_figures_are_those_of_plain_loops(deletion, insertion):
    n = min(len(deletion), len(insertion)) - 1
    deletion = deletion[: n + 1]
    insertion = [deletion[-1], *insertion[1:n], deletion[0]]
    answer = np.array([[deletion, insertion]])
    found = figures(Curves(np.arange(n + 1), answer, answer))[0]
    expected = by_hand(deletion, insertion)
    assert found[:5].tolist() == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert np.isnan(found[5])  # no cloud was asked for
    for value, metric in zip(found, FIGURES, strict=True):
        low, high = metric.range
        assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9


def test_every_value_of_a_row_follows_from_the_curves_that_are_kept_with_it():
    parameters = Parameters(steps=8, fills=("black", "mean"), controls=("random_pixels",))
    _, rows = measured(KIND, parameters, source=Planted(n=8), network=pixels())
    assert {*rows[0].measured[0].curves} == {*CURVES}
    for row in rows:
        for one in row.measured:
            expected = by_hand(one.curves["deletion"], one.curves["insertion"])
            expected.append(mean(one.curves["outside"]))
            found = [np.nan if one.values[name] is None else one.values[name] for name in NAMES]
            assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)
            for name, value in zip(NAMES, expected, strict=True):
                state = RowState.EXCLUDED if np.isnan(value) else RowState.OK
                assert one.states[name] == state
    kinds = {state for row in rows for one in row.measured for state in one.states.values()}
    assert RowState.OK in kinds


def test_removing_the_least_relevant_first_is_insertion_backwards():
    """Image by image: so its area is that of insertion, and costs nothing."""
    pairs, net = make_pairs(2), deepcopy(ConvNet().eval()).double()
    order = ranks(torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(9)), None)
    for steps in (4, 7):  # 7: counts that are rounded
        counts = step_counts(256, steps)
        fraction = np.array(counts) / 256
        for row in range(2):
            own = slow_curves(net, pairs, row, order[row], "blur", steps)
            backwards = slow_curves(net, pairs, row, 255 - order[row], "blur", steps)
            if [256 - k for k in reversed(counts)] == counts:
                np.testing.assert_array_equal(backwards[0], own[1, ::-1])
            answer = own[None]
            gain = figures(Curves(np.array(counts), answer, answer))[0, 2]
            kept = area(1.0 - fraction[::-1], own[1, ::-1])
            assert gain == pytest.approx(float(kept - area(fraction, own[0])), abs=1e-12)
    curves = trace(evidence.removal(evidence.evidence_of(pairs, CountingModel(ConvNet().eval())),
                                    order, "blur"), 8)  # fmt: skip
    reverse = trace(evidence.removal(evidence.evidence_of(pairs, CountingModel(ConvNet().eval())),
                                     255 - order, "blur"), 8)  # fmt: skip
    assert reverse.answer[:, 0] == pytest.approx(curves.answer[:, 1, ::-1], abs=1e-4)
    gain = figures(curves)[:, 2]
    assert figures(reverse)[:, 2] == pytest.approx(-gain, abs=1e-4)


class Disc(nn.Module):
    """Looks at how bright a disc in the middle is, and at nothing else."""

    def __init__(self):
        super().__init__()
        y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
        self.register_buffer("disc", ((y - 9.5) ** 2 + (x - 9.5) ** 2 <= 16).float())

    def forward(self, images):
        bright = (images.mean(dim=1) * self.disc).sum((1, 2)) / self.disc.sum()
        return torch.stack([bright, torch.full_like(bright, 0.3)], dim=1)


@pytest.mark.parametrize(
    ("fill", "verdict"), [("black", "right"), ("white", "inverted"), ("mean", "blind"),
                          ("blur", "blind")],
)  # fmt: skip
def test_the_colour_of_the_fill_can_invert_a_verdict_or_blind_it(fill, verdict):
    """Evidence is brightness in a disc: removal must take it away, or deletion says nothing."""
    generator = torch.Generator().manual_seed(1)
    disc = Disc()
    # Grey noise of one mean everywhere: a blurred or mean disc is as bright as the disc itself.
    noise = torch.randint(96, 160, (20, 20), generator=generator)
    pairs = pairs_of(noise, torch.full((20, 20), 255))
    crop = Crop("disc", (20, 20), ((0.0, 0.0),) * 5)
    given_ = evidence.evidence_of(pairs, CountingModel(disc, crop=crop))
    maps = {
        "oracle": disc.disc[None] + torch.rand(1, 20, 20, generator=generator) * 0.01,
        "random": torch.rand(1, 20, 20, generator=generator),
    }
    maps["inverse"] = -maps["oracle"]
    curves = {
        name: trace(evidence.removal(given_, ranks(map_, None), fill), 20)
        for name, map_ in maps.items()
    }
    deletion = {name: area(one.fraction, one.answer)[0, 0] for name, one in curves.items()}
    void = {name: np.isnan(figures(one)[0, 0]) for name, one in curves.items()}
    if verdict == "right":
        assert deletion["oracle"] + 0.1 < deletion["random"] < deletion["inverse"] - 0.1
    elif verdict == "inverted":
        assert deletion["oracle"] > deletion["random"] > deletion["inverse"]
    else:
        assert max(deletion.values()) - min(deletion.values()) < 0.02
    # Where the fill leaves the evidence or adds to it, normalised areas are void for every map.
    assert set(void.values()) == {verdict != "right"}
    gain = {name: figures(one)[0, 2] for name, one in curves.items()}
    if verdict == "right":
        assert gain["oracle"] > 0.1 > gain["random"] > gain["inverse"]
        assert gain["inverse"] == pytest.approx(-gain["oracle"], abs=1e-4)


@dataclass(frozen=True)
class Noise:
    seeded: bool = False

    def explain(self, model, probes, references, *, generator, **more):
        if not self.seeded:
            return torch.from_numpy(generator.random(tuple(probes[:, 0].shape))).float()
        seeds = (probes * 255).sum((1, 2, 3)).round().long().tolist()
        found = [np.random.default_rng(seed).random(probes.shape[-2:]) for seed in seeds]
        return torch.from_numpy(np.stack(found)).float()


class Centre:
    def explain(self, model, probes, references, **more):
        at = torch.arange(16.0) - 7.5
        return torch.exp(-(at[:, None] ** 2 + at**2) / 32).expand(len(probes), 16, 16).clone()


class Inverse(Knowing):
    def explain(self, *args, **more):
        return -super().explain(*args, **more)


LIMITS = [
    BetterThan(name, better_than="control.random_blobs")
    for name in ("deletion_auc", "insertion_auc", "relevance_gain", "deletion_auc_normalised",
                 "insertion_auc_normalised", "deletion_auc_clipped", "insertion_auc_clipped")
]  # fmt: skip


@dataclass(frozen=True)
class Mated(Planted):
    """The mated pairs alone."""

    def listing(self) -> PairListing:
        listing = super().listing()
        return listing.take([row for row, mated in enumerate(listing.is_mated) if mated])


def judged(explainer):
    parameters = Parameters(steps=8, fills=("black",), controls=("random_blobs", "random_pixels"))
    found, rows = measured(KIND, parameters, explainer=explainer, source=Mated(n=34, images_each=2),
                           network=pixels(), limits=LIMITS)  # fmt: skip
    assert len(rows) == 34
    return {one.metric: one.verdict.outcome for one in found.limits}


def test_the_planted_truth_passes_every_figure():
    assert set(judged(Knowing()).values()) == {"pass"}


@pytest.mark.parametrize(
    "wrong", [Noise(), Noise(seeded=True), Constant(), Centre(), Inverse()],
    ids=["noise", "seeded_noise", "constant", "centre", "inverse"],
)  # fmt: skip
def test_what_knows_nothing_passes_no_figure(wrong):
    assert "pass" not in judged(wrong).values()


def test_a_limit_may_ask_how_much_of_the_curve_is_outside_the_clean_images():
    parameters = Parameters(steps=8, fills=("black",))
    limits = [AtMost("deletion_outside_share", at_most=0.2)]
    found, rows = measured(KIND, parameters, explainer=Knowing(), source=Mated(n=34, images_each=2),
                           network=pixels(), limits=limits)  # fmt: skip
    # Without its square, a face is like none: all of the curve but its beginning.
    shares = [one.values["deletion_outside_share"] for row in rows for one in row.measured]
    assert min(shares) > 0.8
    assert found.limits[0].verdict.outcome == "fail"

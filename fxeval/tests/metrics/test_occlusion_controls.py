"""What occlusion says of explainers that know nothing, that game it, and that know the truth.

A person is recognised by three red cells of 64, which no two people share. Green cells, drawn anew
for each image, are brighter and have stronger edges, and the network does not see them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxeval.contracts import Crop, PairListing
from fxeval.functional.controls import centre, edge, random_pixels
from fxeval.functional.fill_images import fill_images
from fxeval.functional.ranking import ranks
from fxeval.metrics import add_metrics
from fxeval.metrics.occlusion import (
    ACCURACY,
    AREA,
    CONDITIONS,
    COSINE_DROP,
    EER,
    TMR,
    UNOCCLUDED,
    HeldOutParameters,
    occlude,
)
from fxeval.metrics.orders import orders
from fxeval.metrics.protocol import Ledger
from fxeval.models.loading import TorchFaceModel
from fxeval.results import EXPLAINER
from fxeval.statistics.limits import AtMost, BetterThan
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.toy_world import measured

SIDE, CELL, PEOPLE = 32, 4, 32
KIND = "toy.held_out_occlusion"
METRICS = (COSINE_DROP, TMR, ACCURACY, EER, AREA)
CONTROLS = ("random_pixels", "random_blobs", "mean_map", "shuffled_identity")
FILLS = ("black", "blur")
OPENED = 0.25


seen = []
"""Evidence of the groups that were measured last."""


def measure(evidence, parameters):
    seen.append(evidence)
    ledger = Ledger(evidence, METRICS)
    maps = ledger.watch("sources", evidence.explain(evidence.subject))
    occlude(evidence, ledger, evidence.subject, maps, parameters)
    return ledger


PROTOCOL = SimpleNamespace(
    __name__="held_out", ROWS="held-out pairs", METRICS=METRICS, Parameters=HeldOutParameters,
    CONDITIONS=CONDITIONS, measure=measure,
)  # fmt: skip


def cells_of(who):
    """Three cells of a person, none of them among the 4 x 4 in the middle."""
    outer = [(y, x) for y in range(8) for x in range(8) if {y, x} - {2, 3, 4, 5}]
    chosen = np.random.default_rng([7, who]).choice(len(outer), 3, replace=False)
    return [outer[place] for place in chosen.tolist()]


@dataclass(frozen=True)
class Faces:
    """People of four images each: a mated pair of the first two, nonmated ones of the others."""

    name: str = "people"
    banner: str | None = None

    def listing(self):
        mated = [(f"{who}-0", f"{who}-1") for who in range(PEOPLE)]
        other = [(f"{who}-2", f"{(who + 1) % PEOPLE}-3") for who in range(PEOPLE)]
        one, two = zip(*mated, *other, strict=True)
        who, whom = (tuple(image.split("-")[0] for image in side) for side in (one, two))
        return PairListing(one, two, (True,) * len(mated) + (False,) * len(other), who, whom)

    def images(self, image_ids, crop):
        return torch.stack([face(*map(int, image_id.split("-"))) for image_id in image_ids])


def face(who, number):
    drawn = np.random.default_rng([who, number])
    image = drawn.uniform(0.0, 0.15, (3, SIDE, SIDE))
    for y, x in cells_of(who):
        own = slice(y * CELL, y * CELL + CELL), slice(x * CELL, x * CELL + CELL)
        image[0][own] = drawn.uniform(0.65, 0.85) + drawn.uniform(-0.05, 0.05, (CELL, CELL))
    for place in drawn.choice(64, 8, replace=False).tolist():
        y, x = divmod(place, 8)
        image[1:, y * CELL : y * CELL + CELL, x * CELL : x * CELL + CELL : 2] = 1.0
    return torch.from_numpy(np.round(image * 255)).to(torch.uint8)


def shown(images):
    """Return how far each red cell is open, (N, 8, 8)."""
    return F.relu(F.avg_pool2d(images[:, 0], CELL) - OPENED)


class Cells(nn.Module):
    """A dimension for each red cell, and one that is the same for all faces."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        found = shown(images).flatten(1) * self.scale
        return F.pad(found, (0, 1), value=0.3)


MODEL = TorchFaceModel(
    "a", Crop("toy32", (SIDE, SIDE), ()), Cells().eval(), "cosine", 0.6, "c" * 64
)


@dataclass(frozen=True)
class Explain:
    """Explains by a function of probes and references."""

    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def explain(self, model, probes, references, *, contrast=None, generator):
        return self.function(probes, references)


def truth(probes, references):
    parts = (shown(probes) * shown(references)).repeat_interleave(CELL, 1)
    return parts.repeat_interleave(CELL, 2) + 1e-4 * probes[:, 0]


def the_same(map_):
    return lambda probes, references: map_.expand(len(probes), SIDE, SIDE).clone()


def keyed(probes, references):
    """Noise that is drawn from the content of the image."""
    seeds = [hashlib.sha256(one.numpy().tobytes()).digest() for one in probes]
    drawn = [np.random.default_rng([*seed]).random((SIDE, SIDE)) for seed in seeds]
    return torch.from_numpy(np.stack(drawn)).float()


def mean_face():
    every = [face(who, number) for who in range(PEOPLE) for number in range(4)]
    return torch.stack(every).float().mean((0, 1)) / 255


ONE_HOT = torch.zeros(SIDE, SIDE)
ONE_HOT[0, 0] = 1.0
EXPLAINERS = {
    "truth": truth,
    "constant": the_same(torch.full((SIDE, SIDE), 0.5)),
    "nan": the_same(torch.full((SIDE, SIDE), torch.nan)),
    "one_hot": the_same(ONE_HOT),
    "mean_face": the_same(mean_face()),
    "centre": the_same(centre(1, (SIDE, SIDE))[0]),
    "edge": lambda probes, references: edge(probes),
    "inverse": lambda probes, references: -truth(probes, references),
    "keyed": keyed,
}
PARAMETERS = HeldOutParameters(
    fractions=(0.05,), fills=FILLS, controls=(*CONTROLS, "unoccluded"), repeats=3
)
LIMITS = tuple(
    BetterThan(COSINE_DROP.name, better_than=f"control.{control}", under={"fill": fill})
    for control in CONTROLS
    for fill in FILLS
)


@pytest.fixture(autouse=True, scope="module")
def catalogue():
    add_metrics({KIND: PROTOCOL})
    yield
    add_metrics({})


def run(explainer, parameters=PARAMETERS, limits=LIMITS, **settings):
    seen.clear()
    return measured(
        KIND, parameters, explainer=Explain(explainer), source=Faces(), limits=limits,
        network=MODEL, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(catalogue):
    return {name: run(function) for name, function in EXPLAINERS.items()}


def beaten(cell):
    return {
        (one.better_than.removeprefix("control."), one.under["fill"])
        for one in cell.limits
        if one.verdict.outcome == "pass"
    }


def values(rows, metric, map_=EXPLAINER, fill="black", fraction=0.05):
    """Return the values of a metric under one condition, one for each row that has one."""
    found = [
        one.values[metric.name]
        for row in rows
        for one in row.measured
        if one.map == map_ and one.under == {"fill": fill, "fraction": fraction}
        if metric.name in one.values
    ]
    return np.array(found, dtype=float)


def comparable(rows):
    return [[one.model_dump(mode="json") for one in row.measured] for row in rows]


# What each explainer gets


def test_the_truth_beats_every_control_under_every_fill(results):
    cell, rows = results["truth"]
    assert cell.verdict.outcome == "pass"
    assert beaten(cell) == {(control, fill) for control in CONTROLS for fill in FILLS}
    # Black cells: nobody is recognised, and nonmated pairs are still told apart.
    assert values(rows, TMR).max() == 0.0
    assert len(values(rows, TMR)) == PEOPLE
    assert values(rows, ACCURACY).mean() == 0.5
    assert len(values(rows, ACCURACY)) == 2 * PEOPLE
    for control in CONTROLS:
        assert values(rows, TMR, f"control.{control}").mean() > 0.9


@pytest.mark.parametrize("name", [name for name in EXPLAINERS if name != "truth"])
def test_no_other_explainer_passes_and_none_beats_its_own_maps_of_other_people(results, name):
    cell, _ = results[name]
    assert cell.verdict.outcome == "fail" or (name, cell.verdict.outcome) == (
        "edge",
        "inconclusive",
    )
    beats = beaten(cell)
    assert not {control for control, _ in beats} & {"mean_map", "shuffled_identity"}
    # Where people have their cells on average is worth something; so is any edge of a red cell.
    assert not beats or name in {"mean_face", "edge"}


@pytest.mark.parametrize("name", ["centre", "inverse"])
def test_a_map_of_what_does_not_matter_is_worse_than_random(results, name):
    for one in results[name][0].limits:
        if "random" in one.better_than:
            assert one.estimate.value < 0.0
            assert one.verdict.outcome == "fail" or one.under["fill"] == "blur"


@pytest.mark.parametrize("name", ["one_hot", "mean_face", "centre"])
def test_one_map_for_all_is_neither_better_nor_worse_than_that_of_others(results, name):
    cell, rows = results[name]
    for control in ("mean_map", "shuffled_identity"):
        for fill in FILLS:
            other = values(rows, COSINE_DROP, f"control.{control}", fill)
            assert np.array_equal(values(rows, COSINE_DROP, EXPLAINER, fill), other)
    for one in cell.limits:
        if "random" not in one.better_than:
            assert one.verdict.outcome == "fail"
            assert "the differences do not vary, which never passes" in one.verdict.reason


def test_a_constant_map_is_no_evidence_and_has_no_map_of_others(results):
    cell, rows = results["constant"]
    assert f"{2 * PEOPLE} of {2 * PEOPLE} saliency maps are degenerate" in cell.verdict.reason
    outcomes = {one.verdict.outcome for one in cell.limits if "random" not in one.better_than}
    assert outcomes == {"invalid"}
    assert np.isnan(values(rows, COSINE_DROP, "control.shuffled_identity")).all()


def test_broken_maps_have_no_value_and_controls_keep_theirs(results):
    cell, rows = results["nan"]
    assert f"{2 * PEOPLE} of {2 * PEOPLE} rows have no usable saliency map" in cell.verdict.reason
    assert {one.verdict.outcome for one in cell.limits} == {"invalid"}
    for metric in METRICS:
        assert np.isnan(values(rows, metric)).all()
        assert np.isfinite(values(rows, metric, "control.random_pixels")).all()


def test_no_row_drops_out_of_the_rate_of_broken_maps(results):
    """The truth, but NaN for every fifth image: a row is broken if one of its images is."""

    def sparing(probes, references):
        maps = truth(probes, references)
        maps[(probes * 255).round().sum((1, 2, 3)) % 5 == 0] = torch.nan
        return maps

    cell, rows = run(sparing)
    broken = [row for row in rows if row.state == "nan_map"]
    assert 3 <= len(broken) <= len(rows) - 3
    assert f"{len(broken)} of {len(rows)} rows have no usable saliency map" in cell.verdict.reason
    assert cell.verdict.outcome == "fail"
    whole = {row.row: row for row in results["truth"][1]}
    for row in rows:
        mine, truly = (
            [one for one in of.measured if one.map == EXPLAINER] for of in (row, whole[row.row])
        )
        if row in broken:
            assert all(
                value is None or np.isnan(value) for one in mine for value in one.values.values()
            )
        else:
            assert mine == truly


@pytest.mark.parametrize("name", ["truth", "centre", "keyed"])
def test_a_limit_on_decisions_is_passed_by_the_truth_and_void_where_noise_passes_it(name):
    parameters = HeldOutParameters(
        fractions=(0.05, 0.4),
        fills=("black", "white"),
        controls=("random_pixels", "random_blobs"),
        repeats=2,
    )
    few, many = {"fill": "black", "fraction": 0.05}, {"fill": "white", "fraction": 0.4}
    limits = [AtMost(TMR.name, at_most=0.5, under=under) for under in (few, many)]
    cell, _ = run(EXPLAINERS[name], parameters, limits)
    black, white = cell.limits
    assert black.verdict.outcome == ("pass" if name == "truth" else "fail")
    # White opens every red cell that it covers: any 40 % of the pixels change anybody.
    assert white.verdict.outcome == ("fail" if name == "truth" else "invalid")
    assert name == "truth" or "random pixels, which know nothing of the face, pass it too" in (
        white.verdict.reason
    )


# The controls


def test_the_map_of_another_identity_is_of_another_person_for_every_row():
    run(truth)
    checked = 0
    for evidence in seen:
        maps = evidence.explain(evidence.subject)
        everyone, identities = evidence.reference_maps(evidence.subject)
        own, _, other = orders(
            evidence, evidence.subject, maps, ("random_pixels", "shuffled_identity")
        )
        for row, place in enumerate(evidence.places().tolist()):
            assert not torch.equal(other.maps[row], own.maps[row])
            of = [
                identities[one]
                for one, map_ in enumerate(everyone.positive)
                if torch.equal(map_, other.maps[row])
            ]
            assert of
            assert identities[place] not in of
            checked += 1
    assert checked == 2 * PEOPLE


def test_repeats_are_the_mean_of_their_draws_vary_less_and_do_not_move_the_mean():
    found = {}
    for repeats in (1, 4, 16):
        parameters = HeldOutParameters(
            fractions=(0.5,), controls=("random_pixels",), repeats=repeats
        )
        _, rows = run(EXPLAINERS["centre"], parameters, limits=())
        found[repeats] = values(rows, COSINE_DROP, "control.random_pixels", "black", 0.5)
    once, several, many = found.values()
    drops = np.array([by_hand(evidence, row, 16) for evidence in seen for row in mated(evidence)])
    for draws, means in found.items():
        assert_rounded(means, drops[:, :draws].mean(axis=1), terms=SIDE * SIDE, scale=1.0)
    of_one = drops.var(axis=1, ddof=1).mean()
    # The mean of 4 of 16 draws is off by 3/16 of the variance of one draw, that of one by 15/16.
    assert (several - many).var() < 0.4 * of_one < (once - many).var()
    error = np.sqrt(of_one / PEOPLE)
    assert abs(once.mean() - many.mean()) < 3 * error
    assert abs(several.mean() - many.mean()) < 3 * error / 2


def mated(evidence):
    return torch.nonzero(evidence.rows.is_mated)[:, 0].tolist()


def by_hand(evidence, row, draws):
    """Return the drop of a row's cosine without half of its pixels, drawn several times."""
    rows, size = evidence.rows, evidence.subject.size
    image = evidence.subject.pixels(rows.image[row : row + 1])
    target = MODEL.embed(evidence.subject.pixels(rows.question.reference[row]))
    clean, found = torch.cosine_similarity(MODEL.embed(image), target), []
    for turn in range(draws):
        label = f"{rows.side} draw {turn}" if turn else rows.side
        noise = random_pixels([evidence.seed("control", row, label)], size)
        rank = ranks(noise, [evidence.seed("ties", row, label)]).view(1, 1, *size)
        left = image * (rank >= SIDE * SIDE // 2)
        found.append(float(clean - torch.cosine_similarity(MODEL.embed(left), target)))
    return found


def test_the_clean_image_costs_no_forward_pass_and_loses_nothing():
    found = {}
    for controls in (("random_pixels",), ("random_pixels", "unoccluded")):
        parameters = HeldOutParameters(fractions=(0.05, 0.2), fills=FILLS, controls=controls)
        found[controls] = run(truth, parameters, limits=())
    (alone, _), (beside, rows) = found.values()
    assert beside.forwards == alone.forwards
    assert alone.forwards > 0
    for fill in FILLS:
        for fraction in (0.05, 0.2):
            where = UNOCCLUDED, fill, fraction
            assert not values(rows, COSINE_DROP, *where).any()
            assert not values(rows, AREA, *where).any()
            assert values(rows, TMR, *where).all()
            assert values(rows, ACCURACY, *where).all()


@pytest.mark.parametrize("explainer", ["truth", "inverse"])
def test_with_every_pixel_gone_all_maps_are_alike(explainer):
    fills = ("black", "white", "mean", "blur", "random")
    parameters = HeldOutParameters(
        fractions=(1.0,),
        fills=fills,
        controls=("random_pixels", "random_blobs", "mean_map"),
        repeats=2,
    )
    _, rows = run(EXPLAINERS[explainer], parameters, limits=())
    for fill in fills:
        for metric in METRICS:
            own = values(rows, metric, EXPLAINER, fill, 1.0)
            assert np.isfinite(own).all()
            for control in parameters.controls:
                assert np.array_equal(values(rows, metric, f"control.{control}", fill, 1.0), own)
        assert (values(rows, AREA, EXPLAINER, fill, 1.0) == 1.0).all()


# The fills


def test_random_fill_is_of_the_image_alone_and_white_is_white():
    images = torch.stack([face(who, 0) for who in range(4)]).float() / 255
    noise = fill_images(images, "random")
    for row in range(4):
        assert torch.equal(noise[row], fill_images(images[row : row + 1], "random")[0])
        assert not torch.equal(noise[row], noise[(row + 1) % 4])
    levels = noise * 255
    assert torch.equal(levels.round() / 255, noise)
    assert len(levels.round().unique()) == 256
    assert bool((fill_images(images, "white") == 1.0).all())


def test_rows_do_not_depend_on_the_size_of_the_batches():
    parameters = HeldOutParameters(
        fractions=(0.05, 0.3), fills=("random", "white"), controls=CONTROLS, repeats=2
    )
    found = [comparable(run(truth, parameters, limits=(), batch=size)[1]) for size in (1, 64)]
    assert found[0] == found[1]

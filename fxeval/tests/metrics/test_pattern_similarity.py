"""Patterns of two images each: a plain reference, what noise and games get, planted people."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import sparse
from scipy.optimize import linprog
from torch import nn

from fxeval.contracts import Faces, SaliencyMaps
from fxeval.functional.controls import edge
from fxeval.metrics.kept import Kept
from fxeval.metrics.pattern_similarity import (
    DIFFERENT,
    EMD_DIFFERENT,
    EMD_SAME,
    EMD_SEPARATION,
    METRICS,
    SAME,
    SEPARATION,
    Parameters,
    measure,
)
from fxeval.metrics.protocol import Evidence, Rows
from fxeval.metrics.questions import Likeness
from fxeval.models.loading import TorchFaceModel
from fxeval.results import Outcome, RowState
from fxeval.seeding import seed_of
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.statistics.list_figures import value_of
from fxeval.tests.evidence import GivenMaps, series_of, subject_of
from fxeval.tests.planted_people import Planted
from fxeval.tests.toy_world import SMALL
from fxeval.tests.toy_world import measured as run_cell

SIZE = (28, 28)
FRACTIONS = (0.05, 1.0)
PEOPLE = [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 2), (2, 3), (3, 0)]
CONTROLS = Parameters().controls


def maps_of(values, states=None) -> SaliencyMaps:
    found = ["ok" if one.isfinite().all() else "nan_map" for one in values]
    found = ["degenerate_map" if one.min() == one.max() else state
             for one, state in zip(values, found, strict=True)]  # fmt: skip
    states = tuple(RowState(one) for one in found)
    return SaliencyMaps(values, None, states, tuple("" if s == "ok" else "why" for s in states))


def evidence_of(first, second, people=PEOPLE, images=None, seed=5) -> Evidence:
    """Pairs whose first image is ``row`` and whose second one is ``N + row``, with given maps."""
    n = len(people)
    if images is None:
        draw = torch.Generator().manual_seed(9)
        images = torch.randint(0, 256, (2 * n, 3, *first.shape[1:]), generator=draw)
    people = torch.tensor(people)
    faces = Faces("made", images.to(torch.uint8), ("",) * (2 * n), people.T.flatten())
    places = torch.arange(2 * n).view(2, n)
    rows, turned = (
        Rows(
            kind="map pairs", id=tuple(f"{row}" for row in range(n)), image=image,
            source=image[:, None], against=image[:, None], identities=people,
            is_mated=people[:, 0] == people[:, 1], question=Likeness(other[:, None]), side=side,
        )
        for side, image, other in (
            ("probe", places[0], places[1]), ("reference", places[1], places[0]),
        )
    )  # fmt: skip
    given = {("own", "probe"): maps_of(first), ("own", "reference"): maps_of(second)}
    return Evidence(
        rows=rows, everyone=rows, versions={"reference": turned}, subject=subject_of(None, faces),
        engine=GivenMaps(given), seed_of=lambda *what: seed_of(seed, *what),
    ).take(torch.arange(n))  # fmt: skip


def noise(n=8, seed=1, size=SIZE) -> torch.Tensor:
    return torch.rand((n, *size), generator=torch.Generator().manual_seed(seed))


def found_in(evidence, **parameters):
    return series_of(measure(evidence, Parameters(fractions=FRACTIONS, **parameters)))


# A reference of plain loops, without ties.


def plain_pattern(map_, fraction):
    map_ = np.asarray(map_, dtype=np.float64)
    if fraction == 1.0:
        scaled = (map_ - map_.min()) / (map_.max() - map_.min())
        return scaled / scaled.sum()
    k = max(1, math.floor(fraction * map_.size + 0.5))
    order = sorted(range(map_.size), key=lambda pixel: -map_.ravel()[pixel])
    pattern = np.zeros(map_.size)
    pattern[order[:k]] = 1 / k
    return pattern.reshape(map_.shape)


def plain_distance(p, q):
    """The transport plan as a linear programme, in pixels of a crop 112 high."""
    cells = [one.reshape(14, SIZE[0] // 14, 14, SIZE[1] // 14).sum((1, 3)) for one in (p, q)]
    (ay, ax), (by, bx) = (np.nonzero(one) for one in cells)
    ground = np.hypot(ay[:, None] - by, ax[:, None] - bx) * 8
    n, m = ground.shape
    sums = sparse.vstack([
        sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m)),
    ]).tocsr()  # fmt: skip
    wanted = np.concatenate([cells[0][ay, ax], cells[1][by, bx]])
    return linprog(ground.ravel(), A_eq=sums[:-1], b_eq=wanted[:-1]).fun  # one sum follows


def plain_luma(image):
    red, green, blue = image.double().numpy() / 255
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_a_reference_of_plain_loops_agrees():
    people = [(0, 0), (1, 1), (0, 1)]
    images = (noise(6, 3)[:, None] * 200 + noise(6, 4)[:, None] * 50).expand(-1, 3, -1, -1)
    evidence = evidence_of(noise(3, 1) ** 4, noise(3, 2), people, images)
    found = found_in(evidence, controls=("image",))
    pixels = images.to(torch.uint8)
    luma = [plain_luma(image) for image in pixels]
    given = {
        "explainer": zip(noise(3, 1) ** 4, noise(3, 2), strict=True),
        "control.image": zip(luma[:3], luma[3:], strict=True),
    }
    for map_, pairs in given.items():
        pairs = list(pairs)
        for fraction in FRACTIONS:
            if map_ == "control.image" and fraction < 1:
                continue  # its pixels tie: the next test
            both = [[plain_pattern(one, fraction) for one in pair] for pair in pairs]
            likeness = [np.sqrt(p * q).sum() for p, q in both]
            distance = [plain_distance(p, q) for p, q in both]
            for metric, values, part in (
                (SAME, likeness, slice(0, 2)), (DIFFERENT, likeness, slice(2, 3)),
                (SEPARATION, likeness, slice(0, 3)), (EMD_SAME, distance, slice(0, 2)),
                (EMD_DIFFERENT, distance, slice(2, 3)),
                (EMD_SEPARATION, [-one for one in distance], slice(0, 3)),
            ):  # fmt: skip
                ours = found[metric.name, map_, fraction]
                assert ours.values == pytest.approx(values[part], rel=2e-6, abs=6e-5), metric.name
                assert {*ours.states} == {"ok"}


def test_the_image_is_compared_by_its_brightness_and_a_map_that_is_the_image_gains_nothing():
    images = torch.randint(0, 9, (16, 3, *SIZE), generator=torch.Generator().manual_seed(2))
    luma = torch.from_numpy(np.stack([plain_luma(one) for one in images.to(torch.uint8)]))
    found = found_in(evidence_of(luma[:8], luma[8:], images=images))
    scaled = found_in(evidence_of(3 * luma[:8] + 1, 3 * luma[8:] + 1, images=images))
    for metric in METRICS:
        for fraction in FRACTIONS:
            image = found[metric.name, "control.image", fraction].values
            for one in (found, scaled):
                ours = one[metric.name, "explainer", fraction].values
                assert ours == pytest.approx(image, abs=2e-4)


def test_an_edge_detector_gains_nothing_over_the_edges_of_the_images():
    images = torch.randint(0, 256, (16, 3, *SIZE), generator=torch.Generator().manual_seed(6))
    edges = edge(images.to(torch.uint8).float() / 255)
    found = found_in(evidence_of(edges[:8], edges[8:], images=images), controls=("edge", "image"))
    for metric in METRICS:
        for fraction in FRACTIONS:
            ours, theirs, bright = (
                found[metric.name, map_, fraction].values.tolist()
                for map_ in ("explainer", "control.edge", "control.image")
            )
            assert ours == theirs
            assert ours != bright


def separation(found, map_, fraction, metric=SEPARATION, people=PEOPLE):
    is_mated = np.array([a == b for a, b in people])
    return value_of("auc", found[metric.name, map_, fraction].values, is_mated)


def test_a_pattern_that_is_the_same_for_everybody_separates_nobody():
    found = found_in(evidence_of(noise(seed=3), noise(seed=4)))
    for map_ in ("control.centre", "control.mean_map"):
        assert found[SAME.name, map_, 1.0].values == pytest.approx([1.0] * 4)
        assert found[DIFFERENT.name, map_, 1.0].values == pytest.approx([1.0] * 4)
        assert found[EMD_SAME.name, map_, 1.0].values.tolist() == [0.0] * 4
        for metric in (SEPARATION, EMD_SEPARATION):
            assert separation(found, map_, 1.0, metric) == 0.5
    # The few pixels of the centre that tie are ordered anew for each image.
    assert found[SAME.name, "control.centre", 0.05].values.min() > 0.85
    assert found[SAME.name, "control.mean_map", 0.05].values.tolist() == [1.0] * 4


def test_maps_of_the_persons_own_kind_are_told_apart_and_another_persons_are_not():
    people = [(who, who) for who in range(20)] + [(who, (who + 1) % 20) for who in range(20)]
    own = noise(20, 7) ** 6
    first, second = (
        torch.stack([own[pair[side]] for pair in people]) + 0.1 * noise(40, side + 8)
        for side in (0, 1)
    )
    found = found_in(evidence_of(first, second, people), controls=("shuffled_identity",))
    for fraction in FRACTIONS:
        for metric in (SEPARATION, EMD_SEPARATION):
            assert separation(found, "explainer", fraction, metric, people) == 1.0
            other = separation(found, "control.shuffled_identity", fraction, metric, people)
            assert 0.25 < other < 0.75
        same = found[SAME.name, "explainer", fraction].values
        shuffled = found[SAME.name, "control.shuffled_identity", fraction].values
        assert same.min() > shuffled.max() + 0.1


def test_the_map_of_another_person_is_of_neither_image():
    """Every map is a point that says whose it is."""
    first, second = torch.zeros(8, *SIZE), torch.zeros(8, *SIZE)
    for row, (one, other) in enumerate(PEOPLE):
        first[row, 0, 7 * one] = second[row, 0, 7 * other] = 1.0
    draws = [
        found_in(evidence_of(first, second, seed=seed), controls=("shuffled_identity", "mean_map"))
        for seed in range(5)
    ]
    for found in draws:
        distance = found[EMD_SEPARATION.name, "control.shuffled_identity", 1.0].values
        assert distance.max() < -10  # never the person of the first image
        assert found[SAME.name, "control.shuffled_identity", 1.0].values.tolist() == [0.0] * 4
    assert len({tuple(found[EMD_SEPARATION.name, "control.shuffled_identity", 1.0].values)
                for found in draws}) > 1  # fmt: skip


def test_noise_has_alike_whole_maps_but_separates_nobody():
    people = [(who, who) for who in range(30)] + [(who, (who + 1) % 30) for who in range(30)]
    found = found_in(evidence_of(noise(60, 5), noise(60, 6), people), controls=("random_pixels",))
    is_mated = np.arange(60) < 30
    for map_ in ("explainer", "control.random_pixels"):
        assert found[SAME.name, map_, 1.0].values.mean() == pytest.approx(8 / 9, abs=0.01)
        assert found[SAME.name, map_, 0.05].values.mean() == pytest.approx(0.05, abs=0.02)
        assert found[EMD_SAME.name, map_, 1.0].values.max() < 6
        for metric in (SEPARATION, EMD_SEPARATION):
            value = value_of("auc", found[metric.name, map_, 1.0].values, is_mated)
            assert 0.3 < value < 0.7


def test_constant_maps_are_flagged_and_as_alike_as_noise():
    first, second = noise(seed=1), noise(seed=2)
    first[:2] = second[:2] = 0.5
    found = found_in(evidence_of(first, second))
    ours = found[SAME.name, "explainer", 1.0]
    assert ours.states == ("degenerate_map", "degenerate_map", "ok", "ok")
    assert ours.values[:2] == pytest.approx([8 / 9] * 2, abs=0.03)
    assert found[EMD_SAME.name, "explainer", 1.0].values.min() > 0.5
    assert found[SAME.name, "explainer", 0.05].values[:2].max() < 0.3


def test_a_broken_map_breaks_its_row_and_no_other():
    first, second = noise(seed=1), noise(seed=2)
    whole = found_in(evidence_of(first, second), controls=("image", "centre"))
    first[0, 3, 4], second[5, 1, 1] = math.nan, math.inf
    found = found_in(evidence_of(first, second), controls=("image", "centre"))
    ours = found[SEPARATION.name, "explainer", 1.0]
    assert np.isnan(ours.values).nonzero()[0].tolist() == [0, 5]
    assert [row for row, state in enumerate(ours.states) if state == "nan_map"] == [0, 5]
    before = whole[SEPARATION.name, "explainer", 1.0].values
    kept = [1, 2, 3, 4, 6, 7]
    assert ours.values[kept].tolist() == before[kept].tolist()
    for control in ("control.image", "control.centre"):
        of = found[SEPARATION.name, control, 1.0]
        assert of.values.tolist() == whole[SEPARATION.name, control, 1.0].values.tolist()
        assert {*of.states} == {"ok"}


def test_controls_that_know_no_explainer_are_compared_once_for_all_explainers():
    kept = Kept()
    one, other, apart = (
        found_in(replace(evidence_of(noise(seed=seed), noise(seed=seed + 1)), kept=kept))
        for seed, kept in ((1, kept), (3, kept), (3, Kept()))
    )
    assert other.keys() == apart.keys()
    for key, found in other.items():
        assert found.values.tolist() == apart[key].values.tolist()
    key = (SEPARATION.name, "control.random_blobs", 0.05)
    assert one[key].values.tolist() == other[key].values.tolist()
    assert one[SEPARATION.name, "explainer", 1.0].values[0] != other[
        SEPARATION.name, "explainer", 1.0
    ].values[0]  # fmt: skip
    assert len(kept.entries) == 10  # five controls under two fractions


def test_without_another_person_there_is_no_mean_map_and_no_map_of_another():
    found = found_in(evidence_of(noise(2, 1), noise(2, 2), [(0, 0), (0, 1)]))
    for control in ("control.mean_map", "control.shuffled_identity"):
        of = found[SEPARATION.name, control, 1.0]
        assert np.isnan(of.values).all()
        assert {*of.states} == {"excluded"}
    assert {*found[SEPARATION.name, "explainer", 1.0].states} == {"ok"}


def test_rows_of_one_person_and_of_two_have_the_metrics_that_they_are_about():
    ledger = measure(evidence_of(noise(seed=1), noise(seed=2)), Parameters(controls=()))
    for row, (one, other) in zip(ledger.rows("cell"), PEOPLE, strict=True):
        for entry in row.measured:
            about = (SAME, EMD_SAME) if one == other else (DIFFERENT, EMD_DIFFERENT)
            assert {*entry.values} == {
                SEPARATION.name,
                EMD_SEPARATION.name,
                *(a.name for a in about),
            }


def test_the_defaults_are_those_of_the_specification():
    assert Parameters().fractions == (0.01, 0.05, 1.0)
    assert CONTROLS == (
        "random_pixels", "random_blobs", "centre", "edge", "mean_map", "shuffled_identity", "image",
    )  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [{"fractions": (0.0,)}, {"fractions": ()}, {"controls": ("inverse",)}, {"fills": ("blur",)},
     {"fractions": (0.1, 0.1)}, {"controls": ("image", "image")}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(given):
    with pytest.raises(ValidationError):
        Parameters(**given)


# People whose pattern is known, with the verdicts of whole cells.


@dataclass(frozen=True)
class Coloured(Planted):
    """Everybody's three squares are redder by so much that the brightness stays; it is noise.

    Photographs of one person are no more alike in brightness than those of two.
    """

    def images(self, image_ids, crop):
        found = []
        for image_id in image_ids:
            who, image = map(int, image_id.split("-"))
            grey = np.random.default_rng([who, image]).integers(80, 120, (4, 4))
            face = grey.repeat(4, 0).repeat(4, 1)[None].repeat(3, 0)
            for square in np.random.default_rng(who).permutation(16)[:3]:
                y, x = square // 4 * 4, square % 4 * 4
                face[0, y : y + 4, x : x + 4] += 24
                face[2, y : y + 4, x : x + 4] -= 63  # 24 * 0.299 / 0.114
            found.append(face)
        return torch.from_numpy(np.stack(found)).to(torch.uint8)


class Redness(nn.Module):
    """The difference of red and blue is the embedding."""

    def forward(self, images):
        return (images[:, 0] - images[:, 2]).flatten(1)


@dataclass(frozen=True)
class Made:
    """Makes its map of the image by a function."""

    of: Callable

    def explain(self, model, probes, references, *, contrast=None, generator):
        return self.of(probes, generator)


def red(images, generator):
    return images[:, 0] - images[:, 2]


def bright(images, generator):
    return torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]), images)


def brighter_squared(images, generator):
    return (bright(images, generator) + 1) ** 2


def noisy(images, generator):
    return torch.from_numpy(generator.random(tuple(images[:, 0].shape))).float()


def central(images, generator):
    line = torch.exp(-((torch.arange(16) - 7.5) ** 2) / 32)
    return torch.outer(line, line).expand(len(images), 16, 16)


BETTER = [
    BetterThan(metric.name, better_than=f"control.{control}")
    for metric in (SEPARATION, EMD_SEPARATION)
    for control in ("image", "shuffled_identity", "centre")
] + [AtLeast(SEPARATION.name, at_least=0.55), AtLeast(EMD_SEPARATION.name, at_least=0.55)]


def verdicts(explainer, source, fractions=(0.1,)):
    network = TorchFaceModel("red", SMALL, Redness().eval(), "cosine", 0.5, "red".ljust(64, "0"))
    result, _ = run_cell(
        "patterns.similarity",
        Parameters(fractions=fractions, controls=("image", "shuffled_identity", "centre")),
        explainer=Made(explainer), source=source, network=network, limits=BETTER,
    )  # fmt: skip
    values = {(one.metric, one.map, *one.under.values()): one.value for one in result.estimates}
    return [limit.verdict.outcome for limit in result.limits], values, result


def test_planted_patterns_pass_and_the_photographs_explain_none_of_it():
    outcomes, values, _ = verdicts(red, Coloured())
    assert {*outcomes} == {Outcome.PASS}
    assert values[SEPARATION.name, "explainer", 0.1] > 0.95
    assert values[SEPARATION.name, "control.image", 0.1] < 0.65


@pytest.mark.parametrize("game", [bright, brighter_squared], ids=lambda game: game.__name__)
def test_a_map_that_is_the_image_separates_people_but_is_no_better_than_the_image(game):
    """Planted squares are bright, so that photographs of one person are alike."""
    outcomes, values, result = verdicts(game, Planted())
    separation = values[SEPARATION.name, "explainer", 0.1]
    assert separation == pytest.approx(values[SEPARATION.name, "control.image", 0.1], abs=0.01)
    assert separation > 0.8
    of_image = [
        outcome for outcome, limit in zip(outcomes, result.limits, strict=True)
        if limit.better_than == "control.image"
    ]  # fmt: skip
    assert len(of_image) == 2
    assert Outcome.PASS not in of_image


@pytest.mark.parametrize("game", [noisy, central], ids=lambda game: game.__name__)
@pytest.mark.parametrize("source", [Coloured(), Planted()], ids=["coloured", "planted"])
def test_noise_and_a_pattern_of_everybody_pass_nothing(game, source):
    outcomes, values, _ = verdicts(game, source)
    assert Outcome.PASS not in outcomes
    assert 0.35 < values[SEPARATION.name, "explainer", 0.1] < 0.65


def test_noise_is_as_unlike_in_two_images_of_one_person_as_of_two_people():
    """It is drawn by the place of a row, which both of its images have."""
    _, values, _ = verdicts(noisy, Coloured())
    for metric in (SAME, DIFFERENT):
        assert values[metric.name, "explainer", 0.1] == pytest.approx(0.1, abs=0.03)


def test_whole_maps_of_one_pattern_tie_although_they_are_sums():
    outcomes, values, _ = verdicts(central, Planted(), fractions=(1.0,))
    assert values[SAME.name, "explainer", 1.0] == values[DIFFERENT.name, "explainer", 1.0] == 1.0
    assert values[SEPARATION.name, "explainer", 1.0] == 0.5
    assert values[EMD_SEPARATION.name, "explainer", 1.0] == 0.5
    assert Outcome.PASS not in outcomes


def test_constant_maps_fail():
    _, _, result = verdicts(lambda images, generator: images[:, 0] * 0, Planted())
    assert result.verdict.outcome == "fail"
    assert "72 of 72 saliency maps are degenerate" in result.verdict.reason

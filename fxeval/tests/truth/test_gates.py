"""Gated evidence against formulas over the pixels' means, and against finite changes."""

import itertools

import numpy as np
import pytest
import torch

from fxeval.models.loading import check_loaded
from fxeval.seeding import generator_of
from fxeval.tests.rounding import assert_rounded, terms_of
from fxeval.truth.behaviours import effects
from fxeval.truth.evidence_regions import CROP, cells_of, cosine_of
from fxeval.truth.gates import AGAINST, LEVELS, TEETH, gated_pair, places_at
from fxeval.truth.planted import CELL, textures

FORMULAS = {
    "conflict": lambda a, b: a - AGAINST * b,
    "both": lambda a, b: max(0.0, a + b - 1),
    "either": lambda a, b: min(1.0, max(0, 2 * a - 0.7) + max(0, 2 * b - 0.7)),
    "absence": lambda a: 1 - a,
}
SEEDS = range(6)


def where(pairs) -> list[torch.Tensor]:
    found = list(pairs.places[0])
    return [*found, pairs.against[0]] if bool(pairs.against.any()) else found


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_strength_is_the_formula_of_the_places_brightness(kind):
    for seed in SEEDS:
        model, pairs = gated_pair(kind, seed)
        check_loaded(model)
        images = torch.cat([pairs.probes, pairs.references, pairs.nonmates, pairs.without])
        found = model.module.strength(images)[:, 0]
        expected = []
        for image in images.double():
            expected.append(FORMULAS[kind](*(float(image[:, at].mean()) for at in where(pairs))))
        assert_rounded(found, expected, terms=terms_of(model.module), condition=3)
        target = model.embed(pairs.references)
        shown = torch.nn.functional.cosine_similarity(model.embed(images), target)
        closed = [cosine_of(one, expected[1]) for one in expected]
        assert_rounded(shown, closed, terms=terms_of(model.module), condition=8)


@pytest.mark.parametrize("kind", LEVELS)
def test_places_are_apart_off_the_middle_and_all_that_the_evidence_is(kind):
    seen = set()
    for seed in SEEDS:
        model, pairs = gated_pair(kind, seed)
        places = where(pairs)
        seen.add(tuple(int(place.flatten().int().argmax()) for place in places))
        assert len(places) == len(LEVELS[kind])
        together = torch.stack(places).sum(0)
        assert int(together.max()) == 1
        assert int(together.sum()) == pairs.pixels * len(places)
        assert not bool(together[42:70, 42:70].any())
        differs = (pairs.probes != pairs.without)[0].any(dim=0)
        assert torch.equal(differs, together.bool())
        assert bool((effects(model, pairs)[0, : len(pairs.places[0])] > 0.05).all())
    assert len(seen) >= len(SEEDS) - 1


def change(model, pairs, changed) -> float:
    """What a change of the probe does to the similarity."""
    target = model.embed(pairs.references)
    before, after = (
        torch.nn.functional.cosine_similarity(model.embed(images).double(), target.double())
        for images in (pairs.probes, changed)
    )
    return float(after - before)


def swapped(pairs, *places):
    found = pairs.probes.clone()
    for place in places:
        found[:, :, place] = pairs.without[:, :, place]
    return found


def test_one_of_two_needed_places_takes_nearly_all_and_one_of_two_enough_ones_nothing():
    for seed in SEEDS:
        model, pairs = gated_pair("both", seed)
        both = change(model, pairs, swapped(pairs, *pairs.places[0]))
        assert both < -0.5
        for place in pairs.places[0]:
            assert change(model, pairs, swapped(pairs, place)) == pytest.approx(both, abs=1e-6)
        model, pairs = gated_pair("either", seed)
        assert change(model, pairs, swapped(pairs, *pairs.places[0])) < -0.9
        for place in pairs.places[0]:
            assert change(model, pairs, swapped(pairs, place)) == pytest.approx(0, abs=1e-6)


def test_evidence_against_lowers_the_similarity_and_weighs_more_than_evidence_for():
    for seed in SEEDS:
        model, pairs = gated_pair("conflict", seed)
        good, bad = effects(model, pairs)[0].tolist()
        assert good > 0.05
        assert bad < -0.05
        images = pairs.probes.clone().requires_grad_()
        target = model.embed(pairs.references)
        torch.cosine_similarity(model.module(images), target).sum().backward()
        slope = images.grad[0].mean(0)
        ratio = slope[pairs.against[0]].mean() / slope[pairs.places[0, 0]].mean()
        assert float(ratio) == pytest.approx(-AGAINST, rel=1e-3)


def test_the_absent_matters_when_it_appears_and_hardly_when_it_is_blackened():
    for seed in SEEDS:
        model, pairs = gated_pair("absence", seed)
        black, white = pairs.probes.clone(), pairs.probes.clone()
        black[:, :, pairs.places[0, 0]] = 0.0
        white[:, :, pairs.places[0, 0]] = 1.0
        assert abs(change(model, pairs, black)) < 0.06
        assert change(model, pairs, white) < -0.9


def test_a_shattered_gradient_is_larger_elsewhere_where_finite_changes_do_nothing():
    for seed in SEEDS:
        model, pairs = gated_pair("shattered", seed)
        check_loaded(model)
        inside = pairs.places[0, 0]
        images = pairs.probes.clone().requires_grad_()
        torch.cosine_similarity(model.module(images), model.embed(pairs.references)).backward()
        size = images.grad[0].abs().mean(0)
        assert float(size[~inside].quantile(0.05)) > 1.5 * float(size[inside].max())
        signs = images.grad[0].mean(0)[~inside].sign()
        assert abs(float(signs.mean())) < 0.05
        whole = change(model, pairs, swapped(pairs, inside))
        assert whole < -0.5
        place = cells_of_place(inside)
        for row, column in itertools.product(range(8), range(8)):
            black = pairs.probes.clone()
            black[:, :, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 0.0
            if place[row, column]:
                assert change(model, pairs, black) < -0.05
            else:
                assert abs(change(model, pairs, black)) < 0.02


def cells_of_place(pixels: torch.Tensor) -> torch.Tensor:
    return pixels[::CELL, ::CELL]


def test_the_wave_climbs_and_falls_between_its_teeth():
    model, _ = gated_pair("shattered", 0)
    wave = model.module.cells[0]
    grey = torch.linspace(0, 1, 17)  # in steps of half a tooth
    images = grey[:, None, None, None].expand(-1, 3, *CROP.size)
    found = (wave(images) - images[:, :1])[:, 0]
    height = wave.heights[0, 0].detach()
    at = tuple((height != 0).nonzero()[0].tolist())
    ups = torch.tensor([0, 1, 2, 1] * 4 + [0]) / 16  # a tooth up, a tooth down
    assert_rounded(found[(slice(None), *at)], height[at] * ups, terms=3 * TEETH, condition=TEETH)
    assert not bool(height[cells_of_first(model)].any())


def cells_of_first(model) -> torch.Tensor:
    """Pixels of the place, from the weights of the cells."""
    cells = model.module.places.weight.view(8, 8) > 0.1
    return cells.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)


def test_places_are_drawn_where_they_may_be():
    generator = generator_of("any")
    for _ in range(200):
        one, two = places_at(generator, 2)
        assert max(abs(one[0] - two[0]), abs(one[1] - two[1])) >= 3
        for place in (one, two):
            assert not bool(cells_of(place)[3:5, 3:5].any())
    drawn = {place for _ in range(200) for place in places_at(generator, 1)}
    assert len(drawn) == 40


def test_no_global_generator_is_touched():
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    for kind in LEVELS:
        gated_pair(kind, 9)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert torch.equal(textures(1, "x"), textures(1, "x"))

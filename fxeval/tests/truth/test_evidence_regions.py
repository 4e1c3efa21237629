"""Models of one place against plain loops over its pixels; nothing else matters."""

import math

import numpy as np
import pytest
import torch

from fxeval.functional.similarity import similarity
from fxeval.models.loading import check_loaded
from fxeval.tests.rounding import assert_rounded, terms_of
from fxeval.truth.evidence_regions import (
    SHOWN,
    EvidenceFace,
    cells_of,
    cosine_of,
    evidence_model,
    pixels_of,
    region_pairs,
    with_evidence,
)
from fxeval.truth.planted import CELL, SIDE, textures

KINDS = ("brightness", "contrast", "texture")
PLACE = (1, 4)


@pytest.fixture(scope="module", params=KINDS)
def world(request):
    model = evidence_model(EvidenceFace([PLACE], request.param), request.param)
    return request.param, model, region_pairs(model, PLACE, 4, request.param)


def strength(image: np.ndarray, kind: str) -> float:
    """What a place shows, cell by cell, from its pixels."""
    grey, shown = image.astype(np.float64).mean(axis=0), []
    for row, column in ((1, 4), (1, 5), (2, 4), (2, 5)):
        cell = grey[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        if kind == "brightness":
            shown.append(cell.mean())
        elif kind == "contrast":
            shown.append(abs(cell[:, :7].mean() - cell[:, 7:].mean()))
        else:
            squares = [cell[y : y + 2, x : x + 2] for y in range(0, 14, 2) for x in range(0, 14, 2)]
            shown.append(
                np.mean([abs(a + d - b - c) / 2 for (a, b), (c, d) in squares])
            )  # fmt: skip
    return float(np.mean(shown))


def cosine(one: float, other: float) -> float:
    """The cosine of the vectors (2 z - 1, 1)."""
    a, b = 2 * one - 1, 2 * other - 1
    return (a * b + 1) / (math.hypot(a, 1) * math.hypot(b, 1))


def test_the_similarity_is_the_formula_of_what_the_place_shows(world):
    kind, model, pairs = world
    found = similarity("cosine", model.embed(pairs.probes), model.embed(pairs.references))
    strengths = [
        [strength(image, kind) for image in images.numpy()]
        for images in (pairs.probes, pairs.references)
    ]
    expected = [cosine(a, b) for a, b in zip(*strengths, strict=True)]
    # The slope of the cosine over the strength is at most 2.
    assert_rounded(found, expected, terms=terms_of(model.module), condition=4)
    assert [cosine_of(a, b) for a, b in zip(*strengths, strict=True)] == pytest.approx(expected)
    assert all(SHOWN[0] - 0.01 < one < SHOWN[1] + 0.01 for one in strengths[0])
    assert strengths[1] == pytest.approx([1.0] * 4)


def test_nothing_outside_the_place_changes_the_similarity_and_every_cell_inside_does(world):
    _, model, pairs = world
    before = model.module.strength(pairs.probes)
    inside = cells_of(PLACE)
    for row in range(8):
        for column in range(8):
            changed = pairs.probes.clone()
            changed[:, :, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 0.0
            after = model.module.strength(changed)
            if inside[row, column]:
                assert bool((after < before - 0.05).all())
            else:
                assert torch.equal(after, before)


def test_without_its_evidence_a_probe_shows_nothing_and_is_the_same_elsewhere(world):
    kind, model, pairs = world
    assert model.module.strength(pairs.without).tolist() == [[pytest.approx(0, abs=1e-6)]] * 4
    differs = (pairs.without != pairs.probes).any(dim=1)
    assert torch.equal(differs, pixels_of(PLACE).expand(4, -1, -1))
    assert torch.equal(pairs.places[:, 0], pixels_of(PLACE).expand(4, -1, -1))
    assert not bool(pairs.against.any())
    assert pairs.pixels == int(pixels_of(PLACE).sum()) == 28 * 28
    nonmated = similarity("cosine", model.embed(pairs.probes), model.embed(pairs.nonmates))
    mated = similarity("cosine", model.embed(pairs.probes), model.embed(pairs.references))
    assert float(mated.min()) > model.operating_threshold
    assert bool((mated > nonmated).all())
    few = region_pairs(model, PLACE, 2, kind)
    assert torch.equal(few.probes, pairs.probes[:2])
    assert torch.equal(few.references, pairs.references[:2])
    assert not torch.equal(region_pairs(model, PLACE, 2, kind, seed=1).probes, few.probes)


def test_the_model_keeps_the_contract_and_its_seed_turns_its_embeddings_only(world):
    kind, model, pairs = world
    check_loaded(model)
    other = evidence_model(EvidenceFace([PLACE], kind, seed=1), kind)
    assert other.digest != model.digest
    one, two = model.embed(pairs.probes), other.embed(pairs.probes)
    assert float((one - two).abs().max()) > 0.1
    assert_rounded(
        similarity("cosine", two, other.embed(pairs.references)),
        similarity("cosine", one, model.embed(pairs.references)),
        terms=terms_of(model.module), condition=4,
    )  # fmt: skip


def test_evidence_is_drawn_at_its_level_in_multiples_of_a_level():
    clean = textures(2, "any")
    for kind in KINDS:
        shown = with_evidence(clean, (0, 6), [0.25, 1.0], kind)
        assert torch.equal((shown * 255).round() / 255, shown)
        patch = shown[:, :, :28, 84:]
        assert float(patch[1].max()) == 1.0
        if kind == "brightness":
            assert patch[0].unique().tolist() == [pytest.approx(64 / 255)]
        else:
            assert sorted(patch[0].unique().tolist()) == pytest.approx([96 / 255, 159 / 255])
            assert sorted(patch[1].unique().tolist()) == [0.0, 1.0]
    assert torch.equal(with_evidence(clean, (0, 6), [0.3, 0.3])[:, :, 28:], clean[:, :, 28:])


@pytest.mark.parametrize("place", [(-1, 0), (0, 7), (7, 0)])
def test_a_place_outside_the_image_is_an_error(place):
    with pytest.raises(ValueError, match=r"expected a first cell in 0\.\.6, got"):
        cells_of(place)
    with pytest.raises(ValueError, match="expected a first cell"):
        EvidenceFace([place])


def test_no_global_generator_is_touched():
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    model = evidence_model(EvidenceFace([PLACE], "texture", seed=3))
    region_pairs(model, PLACE, 1, "texture")
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert model.crop.size == (SIDE, SIDE)

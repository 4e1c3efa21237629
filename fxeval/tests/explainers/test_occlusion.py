"""Occlusion explainers against explicit loops: coverage, quirks, sharing, signs, hostile values."""

from copy import deepcopy
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fxeval.explainers.occlusion as removal
from fxeval.contracts import Explainer
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.occlusion import OcclusionSensitivity, XFace, rows_by_image
from fxeval.functional.fill_images import fill_images
from fxeval.tests.black_boxes import InFloat64, with_condition
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.subjects import ConvNet, CountingModel, Patches


def images(n: int, seed: int, size: tuple[int, int] = (16, 16)) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def maps_of(explainer, model, probes, references, contrast=None) -> tuple[Tensor, Tensor]:
    found = explainer.explain(
        model, probes, references, contrast=contrast, generator=np.random.default_rng(0)
    )
    assert found.positive.dtype == found.negative.dtype == torch.float32
    return found.positive, found.negative


def net(module=None, similarity="cosine") -> CountingModel:
    return CountingModel(module if module is not None else ConvNet(), similarity=similarity)


def alike(kind: str, one: np.ndarray, two: np.ndarray) -> float:
    if kind == "cosine":
        return float(one @ two / np.sqrt((one @ one) * (two @ two)))
    return -float(np.sqrt(((one - two) ** 2).sum()))


def exact(model: CountingModel):
    """Return what embeds images in float64, as an array."""
    module = deepcopy(model.module).eval().double()

    def embedded(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            return module(images.double()).numpy()

    return embedded


def slow_drops(model, probe, occluded, reference, contrast) -> list[float]:
    """Similarity of the clean probe minus that of each occluded one, in float64."""
    embedded = exact(model)
    (target,) = embedded(reference[None])
    others = [] if contrast is None else embedded(contrast[None])
    clean, *hidden = embedded(torch.stack([probe, *occluded]))

    def value(one: np.ndarray) -> float:
        found = alike(model.similarity, one, target)
        return found - sum(alike(model.similarity, one, other) for other in others)

    return [value(clean) - value(one) for one in hidden]


def occluded(probe: Tensor, top: int, left: int, side: int, fill: str = "black") -> Tensor:
    image, filler = probe.clone(), fill_images(probe[None], fill)[0]
    patch = (slice(None), slice(top, top + side), slice(left, left + side))
    image[patch] = filler[patch]
    return image


def flush_starts(length: int, side: int, stride: int) -> list[int]:
    found = [0]
    while found[-1] + side < length:
        found.append(min(found[-1] + stride, length - side))
    return found


def slow_occlusion(model, probe, reference, contrast=None, *, side, stride, fill) -> np.ndarray:
    height, width = probe.shape[1:]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    places = list(product(flush_starts(height, side, stride), flush_starts(width, side, stride)))
    hidden = [occluded(probe, top, left, side, fill) for top, left in places]
    drops = slow_drops(model, probe, hidden, reference, contrast)
    for (top, left), drop in zip(places, drops, strict=True):
        total[top : top + side, left : left + side] += drop
        count[top : top + side, left : left + side] += 1
    assert count.min() >= 1
    return total / count


def slow_xface(model, probe, reference, contrast=None, *, faithful) -> np.ndarray:
    """At H = 48: patches 3, 6, 12, stride 2, a blur of 3 pixels with sigma 5 * 48 / 112."""
    size, stride, mean = 48, 2, np.zeros((48, 48))
    for p in (3, 6, 12):
        starts = list(range(0, size - p, stride)) if faithful else flush_starts(size, p, stride)
        side = p + 1 if faithful else p
        total = np.zeros((size, size))
        places = list(product(starts, starts))
        hidden = [occluded(probe, top, left, side) for top, left in places]
        drops = slow_drops(model, probe, hidden, reference, contrast)
        for (top, left), drop in zip(places, drops, strict=True):
            total[top : top + side, left : left + side] += drop / p**2
        mean += total / len(starts) ** 2 / 3
    blurred, sigma = np.zeros((size, size)), 5 * 48 / 112
    weights = {d: np.exp(-(d**2) / (2 * sigma**2)) for d in (-1, 0, 1)}
    for y in range(size):
        for x in range(size):
            for u, down in weights.items():
                for v, across in weights.items():
                    i, j = abs(y + u), abs(x + v)
                    i, j = (2 * size - 2 - k if k >= size else k for k in (i, j))
                    blurred[y, x] += down * across * mean[i, j]
    return blurred / sum(weights.values()) ** 2


def assert_equals_slow(found, terms: int, model, slow, *images, draws: int = 5) -> None:
    """Compare one row's map; ``terms`` is what is rounded: the model embeds in float64.

    A map is a small difference of similarities: a network that rounds each sum leaves too little.
    """
    positive, negative = found
    assert torch.equal(positive, (positive - negative).clamp_min(0))
    assert torch.equal(negative, (negative - positive).clamp_min(0))
    expected = with_condition(model, slow, *images, draws=draws)
    assert_rounded((positive - negative)[0], **expected, terms=terms)


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
@pytest.mark.parametrize("has_contrast", [False, True])
def test_occlusion_equals_explicit_loops(kind, fill, has_contrast):
    module, (probe, reference, contrast) = ConvNet(), images(3, 1, (16, 14))[:, None]
    module.fc.weight = torch.nn.Parameter(module.fc.weight[:, : 8 * 8 * 7])
    model = net(InFloat64(module), kind)
    nonmate = contrast if has_contrast else None
    explainer = OcclusionSensitivity(patch=35, stride=21, fill=fill)  # 5 and 3 pixels at H = 16
    slow = partial(slow_occlusion, side=5, stride=3, fill=fill)
    rows = (probe[0], reference[0], *([contrast[0]] if has_contrast else []))
    # A blur sums over columns and rows; the image and its embedding are rounded.
    terms = 16 + 14 + 2
    found = maps_of(explainer, model, probe, reference, nonmate)
    assert_equals_slow(found, terms, model, slow, *rows)


@pytest.mark.parametrize(
    ("kind", "faithful", "has_contrast"),
    [("cosine", False, True), ("cosine", True, False), ("neg_l2", False, False)],
)
def test_xface_equals_explicit_loops(kind, faithful, has_contrast):
    model = net(InFloat64(ConvNet(side=48)), kind)
    probe, reference, contrast = images(3, 2, (48, 48))[:, None]
    nonmate = contrast if has_contrast else None
    slow = partial(slow_xface, faithful=faithful)
    rows = (probe[0], reference[0], *([contrast[0]] if has_contrast else []))
    found = maps_of(XFace(faithful), model, probe, reference, nonmate)
    # Embeddings are rounded, and the map. Two draws: each shakes 1400 embeddings.
    assert_equals_slow(found, 2, model, slow, *rows, draws=2)


@pytest.mark.parametrize(
    ("explainer", "forwards"),
    [(OcclusionSensitivity(), 226), (XFace(), 1250), (XFace(faithful=True), 1131)],
)
def test_the_default_geometry_costs_what_it_says(explainer, forwards):
    model, pair = net(Patches((112, 112), dim=4)), images(2, 3, (112, 112))
    maps_of(explainer, model, pair[:1], pair[1:])
    assert sum(model.batches) == forwards + 1  # and the reference


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 60))
def test_every_pixel_is_covered_whatever_the_sizes(length, side, stride):
    side, stride = min(side, length), min(stride, side, length)
    grid = removal._grid(side, side, stride, (length, length), is_flush=True)
    covered = np.zeros(length, int)
    for start in grid.rows:
        assert start + side <= length
        covered[start : start + side] += 1
    assert covered.min() >= 1
    assert grid.rows[0] == 0
    assert grid.rows[-1] == length - side
    assert list(grid.rows) == flush_starts(length, side, stride)


@pytest.mark.parametrize("size", [(112, 112), (150, 150), (160, 160), (112, 96), (33, 20)])
@pytest.mark.parametrize("explainer", [OcclusionSensitivity(), XFace()])
def test_at_every_usual_crop_all_pixels_of_a_sensitive_model_are_important(explainer, size):
    # A model that sees brightness alone: whatever is blackened lowers the similarity.
    model = net(Patches(size, dim=1), "neg_l2")
    positive, negative = maps_of(
        explainer, model, images(1, 4, size) / 2 + 0.1, torch.ones(1, 3, *size)
    )
    assert bool((positive > 0).all())
    assert not negative.any()


def covering_pixels(faithful: bool, p: int) -> np.ndarray:
    """How many patches of side p cover each of 112 pixels of a row, by the rules of the paper."""
    if faithful:  # cv2.rectangle draws both ends; starts are arange(0, 112 - p, 5)
        return np.array([sum(s <= x <= s + p for s in range(0, 112 - p, 5)) for x in range(112)])
    starts = [*range(0, 112 - p, 5), 112 - p]
    return np.array([sum(s <= x < s + p for s in starts) for x in range(112)])


def test_the_published_quirks_are_repeated_on_request_only():
    unreached, patches, areas = {}, {}, {}
    for p in (7, 14, 28):
        grid = removal._grid(p, p + 1, 5, (112, 112), is_flush=False)
        hidden = 1 - grid.masks()
        unreached[p] = int(112 - hidden.amax(dim=(0, 2)).sum())
        patches[p] = len(hidden)
        (areas[p],) = set(hidden.sum(dim=(1, 2)).tolist())
        np.testing.assert_array_equal(
            hidden.sum(dim=0)[0] / hidden.sum(dim=0)[0, 0], covering_pixels(True, p)
        )
    assert unreached == {7: 4, 14: 2, 28: 3}  # rows after 107, 109 and 108
    assert patches == {7: 441, 14: 400, 28: 289}
    assert areas == {7: 8**2, 14: 15**2, 28: 29**2}


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("pixel", [(50, 50), (0, 0), (111, 111), (111, 60)])
def test_the_map_of_mere_brightness_counts_the_patches(faithful, pixel):
    # A pixel's loss is 1: before the blur, the map is mean_p n_p(x) area_p / p^2 / N_p.
    model = net(Patches((112, 112), dim=1), "neg_l2")
    model.module.weight = torch.ones(112 * 112, 1)
    ones = torch.ones(1, 3, 112, 112)
    positive, _ = maps_of(XFace(faithful), model, ones, 2 * ones)
    values = np.zeros((112, 112))
    for p, count in {7: 21, 14: 20, 28: 17}.items():
        over, area = covering_pixels(faithful, p), (p + 1) ** 2 if faithful else p**2
        values += np.outer(over, over) * area / p**2 / (count + (not faithful)) ** 2 / 3
    taps = np.exp(-(np.arange(-2, 3) ** 2) / 50)
    taps /= taps.sum()
    framed, (y, x) = np.pad(values, 2, mode="reflect"), pixel
    expected = taps @ framed[y : y + 5, x : x + 5] @ taps
    # Sums of ones are exact in float32.
    assert_rounded(positive[0, y, x], expected, terms=1)


@pytest.mark.parametrize("explainer", [OcclusionSensitivity(), XFace()])
def test_pairs_of_one_probe_cost_one_set_of_forwards(explainer):
    probes, references = images(2, 5, (32, 32)), images(4, 6, (32, 32))
    counts = {}
    for name, rows in {"one": [0], "same": [0, 0, 0], "two": [0, 1, 0]}.items():
        model = net(ConvNet(side=32))
        maps_of(explainer, model, probes[rows], references[: len(rows)])
        counts[name] = sum(model.batches) - len(rows)
    assert counts["same"] == counts["one"]
    assert counts["two"] == 2 * counts["one"]


def test_one_bank_serves_all_calls_and_is_handed_to_a_model_that_remembers():
    asked = []

    class Remembering(CountingModel):
        def embed_masked(self, image, bank, fill):
            asked.append((bank, fill))
            return self.embed(image * bank.masks[:, None])

    model, pair = Remembering(ConvNet()), images(2, 7)
    for _ in range(2):
        maps_of(OcclusionSensitivity(), model, pair[:1], pair[1:])
    maps_of(OcclusionSensitivity(fill="mean"), model, pair[:1], pair[1:])
    assert asked[0][0] is asked[1][0] is asked[2][0]
    assert [fill for _, fill in asked] == ["black", "black", "mean"]


@pytest.mark.parametrize("explainer", [OcclusionSensitivity(fill="mean"), XFace()])
def test_a_later_cell_costs_its_references_only(explainer):
    pool, probe, references = ForwardPool(), images(1, 7), images(3, 8)
    model = PooledModel(net(InFloat64(ConvNet())), pool, "key")
    first = maps_of(explainer, model, probe, references[:1])
    before = pool.forwards
    again = maps_of(explainer, model, probe.expand(3, -1, -1, -1), references)
    assert pool.forwards - before == 3
    assert_rounded(again[0][:1], first[0], terms=2)  # each is rounded once, at its end


@pytest.mark.parametrize("explainer", [OcclusionSensitivity(), XFace()])
def test_a_row_does_not_depend_on_its_company(explainer):
    model = net(InFloat64(ConvNet(side=32)))
    probes, references = images(5, 8, (32, 32)), images(5, 9, (32, 32))
    probes[3] = probes[1]
    together = maps_of(explainer, model, probes, references)
    for row in range(5):
        alone = maps_of(explainer, model, probes[row : row + 1], references[row : row + 1])
        for one, all_ in zip(alone, together, strict=True):
            assert_rounded(one[0], all_[row], terms=2)  # each is rounded once, at its end
    assert float((together[0][1] - together[0][3]).abs().max()) > 0  # other references, other maps


@pytest.mark.parametrize("explainer", [OcclusionSensitivity(35, 7), XFace()])
def test_what_harms_the_similarity_is_negative_evidence(explainer):
    # The probe's left half agrees with the reference; its right half is what makes it differ.
    size = (32, 32)
    model = net(Patches(size, dim=8))
    model.module.weight = torch.eye(32 * 32)
    reference, probe = torch.zeros(2, 1, 3, *size)
    reference[..., :16] = probe[...] = 1.0
    positive, negative = maps_of(explainer, model, probe, reference)
    assert bool((positive[0, :, :10] > 0).all())
    assert not positive[0, :, 22:].any()
    assert bool((negative[0, :, 22:] > 0).all())
    assert not negative[0, :, :10].any()
    assert not (positive * negative).any()


@pytest.mark.parametrize("explainer", [OcclusionSensitivity(), XFace()])
def test_a_planted_part_is_found(explainer):
    class Part(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, 20:30, 8:18].flatten(1) - 0.2

    pair = images(2, 10, (48, 48))
    pair[1, :, 20:30, 8:18] = pair[0, :, 20:30, 8:18]  # they agree there
    positive, _ = maps_of(explainer, net(Part()), pair[:1], pair[1:])
    inside = positive[0, 20:30, 8:18]
    assert float(inside.mean()) > 3 * float(positive.mean())
    top, left = divmod(int(positive[0].argmax()), 48)
    assert 20 <= top < 30
    assert 8 <= left < 18


def test_a_model_that_sees_nothing_gets_a_zero_map():
    model = net(ConvNet())
    for parameter in model.module.parameters():
        parameter.data.zero_()
    model.module.fc.bias.data.fill_(1.0)
    for explainer in (OcclusionSensitivity(), XFace()):
        positive, negative = maps_of(explainer, model, images(1, 11), images(1, 12))
        assert not positive.any()
        assert not negative.any()


def test_several_references_are_compared_as_their_centroid():
    model, probe, references = net(InFloat64(ConvNet())), images(1, 13), images(3, 14)[None]
    # A patch of 8 pixels: of a smaller drop, rounding would leave too little.
    several = maps_of(OcclusionSensitivity(patch=56), model, probe, references)

    def drop(model, probe, references) -> float:
        embedded = exact(model)
        rows = embedded(references)
        centre = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        clean, black = embedded(torch.stack([probe, occluded(probe, 0, 0, 8)]))
        return alike("cosine", clean, centre) - alike("cosine", black, centre)

    found = (several[0] - several[1])[0, 0, 0]  # patch 8, stride 1: one patch covers it
    # Embeddings are rounded, their 8 squares, the division by a length, and a mean of 3.
    expected = with_condition(model, drop, probe[0], references[0])
    assert_rounded(found, **expected, terms=1 + 8 + 1 + 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 0}, "occlusion: patch must be a whole number of at least 1, got 0"),
        ({"patch": 7.0}, "occlusion: patch must be a whole number"),
        ({"patch": True}, "occlusion: patch must be a whole number"),
        ({"stride": 0}, "occlusion: stride must be a whole number of at least 1, got 0"),
        ({"stride": -3}, "occlusion: stride must be"),
        ({"stride": 15}, "occlusion: stride must be at most the patch's side, 14"),
        (
            {"fill": "sepia"},
            "occlusion: fill must be one of blur, mean, black, white, random, got 'sepia'",
        ),
        ({"fill": None}, "occlusion: fill must be one of"),
    ],
)
def test_bad_values_are_refused_by_name(fields, message):
    with pytest.raises(ExplainerContractError, match=message):
        OcclusionSensitivity(**fields)


def test_xface_takes_true_or_false():
    with pytest.raises(ExplainerContractError, match="xface: faithful must be true or false"):
        XFace(faithful=1)


def test_a_patch_larger_than_the_image_is_refused():
    pair = images(2, 15)
    with pytest.raises(ExplainerContractError, match=r"occlusion: a patch of 17 x 17 .* 16 x 16"):
        maps_of(OcclusionSensitivity(patch=120), net(), pair[:1], pair[1:])
    pair = images(2, 15, (112, 20))
    with pytest.raises(ExplainerContractError, match=r"xface: patches of 28 pixels, .* 112 x 20"):
        maps_of(XFace(), net(), pair[:1], pair[1:])


def test_a_patch_as_large_as_the_image_has_one_place():
    model, pair = net(InFloat64(ConvNet())), images(2, 16)
    positive, negative = maps_of(OcclusionSensitivity(patch=112), model, pair[:1], pair[1:])

    def slow(model, probe, reference) -> np.ndarray:
        (drop,) = slow_drops(model, probe, [torch.zeros_like(probe)], reference, None)
        return np.full((16, 16), drop)

    # Embeddings are rounded, and the map.
    assert_rounded((positive - negative)[0], **with_condition(model, slow, *pair), terms=2)


@pytest.mark.parametrize("explainer", [OcclusionSensitivity(), XFace()])
def test_broken_embeddings_are_the_models_fault(explainer):
    model, pair = net(), images(2, 17)
    model.module.fc.bias.data[0] = torch.nan
    with pytest.raises(ModelContractError, match="NaN"):
        maps_of(explainer, model, pair[:1], pair[1:])


@pytest.mark.parametrize("explainer", [OcclusionSensitivity(), XFace()])
def test_they_keep_the_contract_and_draw_nothing(explainer):
    assert isinstance(explainer, Explainer)
    assert explainer.traits.needs == {"black_box"}
    generator = np.random.default_rng(3)
    model, pair = net(), images(2, 18)
    before = pair.clone()
    explainer.explain(model, pair[:1], pair[1:], generator=generator)
    assert generator.integers(1 << 40) == np.random.default_rng(3).integers(1 << 40)
    assert torch.equal(pair, before)


def test_rows_are_grouped_by_equal_images():
    distinct = images(2, 19)
    assert rows_by_image(distinct[[0, 1, 0, 0]]) == [[0, 2, 3], [1]]

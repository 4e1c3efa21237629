"""CorrRISE against scipy's correlations pixel by pixel: golden masks, geometry, noise, truth."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import fxeval.explainers.corr_rise as corr_rise
from fxeval.contracts import Explainer, RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.corr_rise import CorrRISE, average_ranks, occlusion_bank
from fxeval.functional.ranking import ranks
from fxeval.hooks.returned import check_maps
from fxeval.tests.black_boxes import (
    SIZE,
    BlackBox,
    InFloat64,
    images,
    pcg,
    planted,
    random_projection,
    slow_scores,
)
from fxeval.tests.rounding import allowance, assert_rounded

FACE = (112, 112)


def explain(explainer, model, probes, references, contrast=None, seed=0):
    return explainer.explain(model, probes, references, contrast=contrast, generator=pcg(seed))


def slow_bank(seed, masks, patches, side, size) -> np.ndarray:
    generator = pcg(seed)
    tops = generator.integers(0, size[0] - side, (masks, patches), endpoint=True)
    lefts = generator.integers(0, size[1] - side, (masks, patches), endpoint=True)
    bank = np.ones((masks, *size))
    for i, y, x in np.ndindex(masks, *size):
        for top, left in zip(tops[i], lefts[i], strict=True):
            if top <= y < top + side and left <= x < left + side:
                bank[i, y, x] = 0
    return bank


def slow_map(scores: list[float], bank: np.ndarray, rank_based: bool) -> np.ndarray:
    """One correlation per pixel; NaN where fewer than ten masks hide or keep it."""
    rho = np.full(bank.shape[1:], np.nan)
    for y, x in np.ndindex(*rho.shape):
        kept = bank[:, y, x]
        if min((kept == 0).sum(), (kept == 1).sum()) >= 10:
            correlate = stats.spearmanr if rank_based else stats.pearsonr
            rho[y, x] = correlate(kept, scores).statistic
    return rho


def test_the_first_masks_are_the_golden_ones():
    generator = pcg()
    bank = occlusion_bank(generator, 4, 3, 30, FACE).masks
    assert (bank == 0).sum((1, 2)).tolist() == [2448, 1877, 2546, 2412]
    assert set(bank.unique().tolist()) == {0.0, 1.0}
    assert generator.bit_generator.state == pcg().bit_generator.state


def test_pixels_are_hidden_as_often_as_the_table_says():
    def probability(y: int, x: int) -> float:
        covering = sum(
            top <= y < top + 30 and left <= x < left + 30
            for top, left in product(range(83), range(83))
        )
        return 1 - (1 - covering / 83**2) ** 3

    assert probability(56, 56) == pytest.approx(0.343, abs=5e-4)
    assert probability(0, 56) == probability(56, 111) == pytest.approx(0.013, abs=5e-4)
    assert probability(0, 0) == probability(111, 0) == pytest.approx(0.0004, abs=5e-5)
    hidden = 1 - occlusion_bank(pcg(), 2000, 3, 30, FACE).masks.mean(0)
    for y, x in [(56, 56), (0, 56), (56, 0), (111, 56), (0, 0), (111, 111), (20, 90), (83, 40)]:
        p = probability(y, x)
        assert float(hidden[y, x]) == pytest.approx(p, abs=4 * (p * (1 - p) / 2000) ** 0.5)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 99), st.integers(1, 4), st.integers(1, 4), st.integers(1, 12),
    st.tuples(st.integers(12, 17), st.integers(12, 17)),
)  # fmt: skip
def test_a_bank_equals_the_slow_one(seed, masks, patches, side, size):
    bank = corr_rise._draw(pcg(seed), masks, patches, side, size)
    np.testing.assert_array_equal(bank, slow_bank(seed, masks, patches, side, size))
    assert bank.dtype == np.float32


def test_the_squares_scale_with_the_height_of_the_crop():
    for size, side in [((112, 112), 30), ((150, 150), 40), ((56, 40), 15), ((63, 63), 17)]:
        bank = occlusion_bank(pcg(), 9, 1, 30, size).masks
        assert ((bank == 0).sum((1, 2)) == side**2).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=4))
def test_ranks_are_those_of_scipy(rows):
    found = average_ranks(torch.tensor(rows, dtype=torch.float64))
    np.testing.assert_array_equal(found, stats.rankdata(rows, axis=1))


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("rank_based", [True, False])
@pytest.mark.parametrize("with_contrast", [False, True])
def test_maps_equal_the_correlations_pixel_by_pixel(kind, rank_based, with_contrast):
    size = (28, 24)  # squares of 5 pixels
    # In float64, or rounding may swap two ranks: the embeddings alone are rounded, to float32.
    model = BlackBox(InFloat64(random_projection(size)), kind)
    probes, references, contrast = (images(2, seed, size) for seed in (1, 2, 3))
    explainer = CorrRISE(80, 4, 20, rank_based)
    maps = explain(explainer, model, probes, references, contrast if with_contrast else None)
    bank = slow_bank(0, 80, 4, 5, size)
    for row in range(2):
        against = contrast[row] if with_contrast else None
        scores = slow_scores(model, bank, probes[row], references[row], against)
        rho = slow_map(scores, bank, rank_based)
        # Both similarities of a score are of rounded embeddings: two of them, or four.
        parts = [slow_scores(model, bank, probes[row], one[row], None)
                 for one in (references, contrast)[: 1 + with_contrast]]  # fmt: skip
        rounded = allowance(4) * np.abs(parts).max(axis=1).sum()
        if rank_based:
            assert np.diff(sorted(scores)).min() > 2 * rounded  # no ranks are swapped
            terms, scale = 1, np.nanmax(np.abs(rho))
        else:  # what is rounded is large beside what is left when the mean is taken out
            terms, scale = 4, np.abs(parts).max(axis=1).sum() / np.std(scores)
        for map_, signed in ((maps.positive[row], rho), (maps.negative[row], -rho)):
            # Nothing is known of pixels without support: they come after all others, and so after
            # those that correlate the other way.
            lifted = np.maximum(signed, np.nanmax(signed) / 1e6)
            expected = np.where(np.isnan(rho), 0, lifted)
            assert_rounded(map_, expected, terms=terms, scale=scale)
        told, noise = maps.diagnostics["correlation_over_noise"][row], 80**-0.5
        assert_rounded(told, np.nanmax(np.abs(rho)) / noise, terms=terms, scale=scale / noise)
    hidden = (bank == 0).sum(0)
    supported = float(((hidden >= 10) & (hidden <= 70)).mean())
    assert 0.1 < supported < 0.9
    assert_rounded(maps.diagnostics["supported_share"], [supported] * 2, terms=1)
    assert maps.positive.dtype == maps.negative.dtype == torch.float32


def noise_model() -> BlackBox:
    """Embeddings that have nothing to do with the image."""
    generator = torch.Generator().manual_seed(4)
    return BlackBox(lambda batch: torch.randn(len(batch), 6, generator=generator))


def test_without_a_relation_correlations_are_the_noise_of_500_masks():
    maps = explain(CorrRISE(), noise_model(), images(60, 1, FACE), images(60, 2, FACE))
    rho = (maps.positive - maps.negative)[:, 30:82:4, 30:82:4]
    assert float(rho.mean()) == pytest.approx(0, abs=0.005)
    assert float(rho.std()) == pytest.approx(0.045, abs=0.002)
    assert maps.diagnostics["correlation_over_noise"].median() < 4
    assert maps.diagnostics["correlation_over_noise"].max() < 6


def test_pixels_without_support_are_ranked_last_below_those_that_speak_against():
    size = (56, 56)
    model = BlackBox(InFloat64(random_projection(size)))
    maps = explain(CorrRISE(masks=200), model, images(2, 1, size), images(2, 2, size))
    kept = occlusion_bank(pcg(), 200, 3, 30, size).masks.sum(0)
    supported = torch.minimum(kept, 200 - kept) >= 10
    n = int(supported.sum())
    assert 100 < n < 56 * 56 - 100
    assert not supported[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    for part in (maps.positive, maps.negative):
        assert torch.isfinite(part).all()
        order = ranks(part, [0, 1]).view(2, *size)
        assert int(order[:, supported].max()) == n - 1
        assert int(order[:, ~supported].min()) == n
        opposed = part == part[:, supported].amin(dim=1)[:, None, None]
        assert 0.1 < float(opposed.float().mean()) < 0.9
        assert not (opposed & ~supported).any()
    assert float(maps.diagnostics["supported_share"][0]) == pytest.approx(n / 56**2)


def test_support_alone_is_no_order_of_a_map():
    """Where no pixel speaks for the similarity, the positive map is constant, and is marked so."""
    rho = torch.full((1, 8, 8), -0.5)
    rho[0, 4, 4] = -0.2
    supported = torch.ones(8, 8, dtype=torch.bool)
    supported[0] = False
    found = corr_rise._part(rho * supported, supported)
    assert torch.equal(found, torch.zeros(1, 8, 8))
    assert check_maps("corrrise", found, 1, (8, 8)).states == (RowState.DEGENERATE_MAP,)
    against = corr_rise._part(-rho * supported, supported)
    assert torch.equal(against, -rho * supported)


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("rank_based", [True, False])
def test_what_speaks_for_and_what_against_come_in_maps_of_their_own(kind, rank_based):
    truth = torch.zeros(4, 4)
    truth[1, 1], truth[2, 2] = 1.0, -1.0
    white = torch.ones(1, 3, 56, 56)
    model = planted(truth, kind)
    # The most similar image to the reference shows the good cell and hides the bad one.
    best = white.clone()
    best[..., 28:42, 28:42] = 0.0
    maps = explain(CorrRISE(rank_based=rank_based), model, white, best)
    positive, negative = (
        nn.functional.adaptive_avg_pool2d(part, (4, 4))[0]
        for part in (maps.positive, maps.negative)
    )
    assert divmod(int(positive.argmax()), 4) == (1, 1)
    assert divmod(int(negative.argmax()), 4) == (2, 2)
    assert positive[2, 2] < 0.2 * positive[1, 1]
    assert negative[1, 1] < 0.2 * negative[2, 2]
    assert float(maps.diagnostics["correlation_over_noise"][0]) > 10


def test_planted_cells_are_ranked_by_their_importance():
    truth = torch.rand((4, 4), generator=torch.Generator().manual_seed(3)) + 0.05
    white = torch.ones(1, 3, 56, 56)
    maps = explain(CorrRISE(masks=4000), planted(truth), white, white).positive
    inner = nn.functional.adaptive_avg_pool2d(maps, (4, 4))[0, 1:3, 1:3]
    assert stats.spearmanr(inner.flatten(), truth[1:3, 1:3].flatten()).statistic == 1


def test_a_model_without_opinion_has_a_degenerate_map_not_one_of_rounding_noise():
    generator = torch.Generator().manual_seed(0)

    def hardly(batch: Tensor) -> Tensor:
        return torch.ones(len(batch), 4) + 1e-7 * torch.rand(len(batch), 4, generator=generator)

    for function in (lambda batch: torch.ones(len(batch), 4), hardly):
        for kind in ("cosine", "neg_l2"):
            if function is hardly and kind == "neg_l2":
                continue  # a distance of 1e-7 may be all there is
            maps = explain(CorrRISE(), BlackBox(function, kind), images(1, 1), images(1, 2))
            assert maps.positive.eq(0).all()
            assert maps.negative.eq(0).all()
            assert float(maps.diagnostics["correlation_over_noise"]) == 0
            assert check_maps("corrrise", maps, 1, SIZE).states == (RowState.DEGENERATE_MAP,)


def test_a_row_does_not_depend_on_its_company():
    model = BlackBox(InFloat64(random_projection()))
    probes, references = images(4, 1), images(4, 2)
    together = explain(CorrRISE(90), model, probes, references)
    alone = explain(CorrRISE(90), model, probes[2:3], references[2:3])
    # Each is rounded once, at its end.
    assert_rounded(together.positive[2:3], alone.positive, terms=2)
    assert explain(CorrRISE(90), model, probes[:0], references[:0]).positive.shape == (0, *SIZE)


@pytest.mark.parametrize(
    ("name", "value"),
    [("masks", 0), ("masks", 19), ("masks", True), ("masks", 2.5), ("patches", 0),
     ("patch_size", 0), ("patch_size", "30"), ("rank_based", 1), ("rank_based", None)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ExplainerContractError, match=f"corrrise: {name} must be"):
        CorrRISE(**{name: value})


def test_a_square_larger_than_the_image_is_refused():
    size = (112, 29)
    with pytest.raises(ExplainerContractError, match=r"corrrise: .* 30 x 30 .* 112 x 29.*patch_s"):
        explain(CorrRISE(), BlackBox(None), images(1, 1, size), images(1, 2, size))


def test_it_is_an_explainer_with_the_published_numbers():
    explainer = CorrRISE()
    assert isinstance(explainer, Explainer)
    assert (explainer.masks, explainer.patches, explainer.patch_size) == (500, 3, 30)
    assert explainer.rank_based
    assert CorrRISE.traits.needs == {"black_box"}
    assert CorrRISE.traits.takes_centroids

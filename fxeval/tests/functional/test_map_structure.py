import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from fxeval.errors import ExplainerContractError
from fxeval.functional.map_similarity import norm01, spearman
from fxeval.functional.map_structure import (
    SIMILARITIES,
    compared,
    describe,
    hog,
    hog_similarity,
    ssim,
)
from fxeval.functional.ranking import ranks
from fxeval.tests.functional.test_map_patterns import golden_maps


def drawn(n: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *size, generator=torch.Generator().manual_seed(seed)).double()


def plain_ssim(one: np.ndarray, other: np.ndarray) -> float:
    def mean(of: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(of, 1.5, truncate=3.5, mode="reflect")

    x, y = mean(one), mean(other)
    variances = mean(one * one) - x * x, mean(other * other) - y * y
    covariance = mean(one * other) - x * y
    quotient = (2 * x * y + 1e-4) * (2 * covariance + 9e-4)
    quotient /= (x * x + y * y + 1e-4) * (sum(variances) + 9e-4)
    return float(quotient[5:-5, 5:-5].mean())


def plain_hog(map_: np.ndarray, side: int) -> np.ndarray:
    height, width = map_.shape
    cells = np.zeros((height // side, width // side, 9))
    for row in range(cells.shape[0] * side):
        for column in range(cells.shape[1] * side):
            down = across = 0.0
            if 0 < row < height - 1:
                down = map_[row + 1, column] - map_[row - 1, column]
            if 0 < column < width - 1:
                across = map_[row, column + 1] - map_[row, column - 1]
            angle = np.rad2deg(np.arctan2(down, across)) % 180.0
            cells[row // side, column // side, int(angle // 20)] += np.hypot(down, across)
    cells /= side * side
    found = []
    for row in range(cells.shape[0] - 2):
        for column in range(cells.shape[1] - 2):
            block = cells[row : row + 3, column : column + 3].ravel()
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
            found.append(block / np.sqrt((block**2).sum() + 1e-10))
    return np.concatenate(found)


def test_the_golden_similarities_of_the_specification_are_met():
    a, b, c = golden_maps()
    one, other = torch.stack([a, a, a]), torch.stack([b, c, a])
    assert ssim(one, other) == pytest.approx([0.71953146, 0.01336973, 1.0], abs=5e-9)
    # The bumps are mirror images of themselves and the wave repeats: what ties, ties by rounding.
    assert hog_similarity(one, other) == pytest.approx([0.71346444, -0.01152427, 1.0], abs=5e-5)
    assert hog(a[None].numpy()).shape == (1, 2025)
    found = compared(describe(one, None, fraction=0.01), describe(other, None, fraction=0.01))
    assert found["rank_correlation"] == pytest.approx([0.91068340, -0.00012713, 1.0], abs=5e-9)
    assert found["top_overlap"] == pytest.approx([0.063830, 0.0, 1.0], abs=5e-7)
    assert found["ssim"].tolist() == ssim(one, other).tolist()
    assert found["hog_correlation"].tolist() == hog_similarity(one, other).tolist()


@pytest.mark.parametrize("size", [(112, 112), (112, 96), (28, 34), (21, 22), (11, 11)])
def test_plain_loops_give_the_same_windows_and_the_same_edges(size):
    maps = drawn(4, size)
    scaled, _ = norm01(maps)
    expected = [plain_ssim(one, other) for one, other in zip(scaled[:2], scaled[2:], strict=True)]
    # Windows at the border are never read, but scipy sums the others in another order.
    assert ssim(maps[:2], maps[2:]) == pytest.approx(expected, abs=1e-9)
    side = size[0] // 7
    vectors = np.stack([plain_hog(map_, side) for map_ in scaled.numpy()])
    # Sums in float32 of side**2 pixels, before blocks are scaled to a length of 1.
    assert np.abs(hog(scaled.numpy()) - vectors).max() < 1e-6
    expected = [
        stats.spearmanr(*pair).statistic
        for pair in zip(hog(scaled[:2].numpy()), hog(scaled[2:].numpy()), strict=True)
    ]
    assert hog_similarity(maps[:2], maps[2:]) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from([1e-3, 2.0, 1e4]), st.integers(-3, 3))
def test_no_similarity_depends_on_scale_offset_order_or_neighbours(seed, scale, offset):
    maps = drawn(3, (24, 24), seed)
    others = drawn(3, (24, 24), seed + 1)
    for measure in (ssim, hog_similarity):
        found = measure(maps, others)
        assert found == pytest.approx(measure(others, maps), abs=1e-12)
        assert measure(maps[1:2], others[1:2])[0] == pytest.approx(found[1], abs=1e-12)
        assert measure(maps * scale + offset, others) == pytest.approx(found, abs=1e-3)
        assert measure(maps, maps) == pytest.approx([1.0] * 3, abs=1e-12)
        assert (np.abs(found) <= 1.0).all()


def test_structure_sees_what_pixel_orders_do_not():
    a, b, _ = golden_maps()
    inverse = -a[None]
    assert spearman(a.reshape(1, -1), inverse.reshape(1, -1)) == [-1.0]
    assert hog_similarity(a[None], inverse)[0] > 0.95  # the same edges
    assert ssim(a[None], inverse)[0] < 0.0
    assert ssim(a[None], b[None])[0] < 0.8 < spearman(a.reshape(1, -1), b.reshape(1, -1))[0]
    noise = drawn(2, (112, 112))
    assert abs(ssim(noise[:1], noise[1:])[0]) < 0.05
    assert abs(hog_similarity(noise[:1], noise[1:])[0]) < 0.4  # edges of noise fill all bins alike


def test_a_constant_map_has_no_structure_and_is_described_by_its_random_order():
    maps = torch.stack([torch.full((24, 24), 0.3).double(), drawn(1, (24, 24))[0]])
    assert np.isnan(ssim(maps, maps)).tolist() == [True, False]
    assert np.isnan(hog_similarity(maps.flip(0), maps)).tolist() == [True, True]
    one, again, other = (describe(maps, seeds) for seeds in ([1, 2], [1, 9], [3, 4]))
    same, apart = compared(one, again), compared(one, other)
    for name in SIMILARITIES:
        assert same[name] == pytest.approx([1.0, 1.0])
        assert abs(apart[name][0]) < 0.3
        assert apart[name][1] == pytest.approx(1.0)
    # The most salient pixel of the random order is the first to be removed.
    places = ranks(maps[:1], [1])
    assert one.top[0].nonzero()[0].tolist() == (places[0] < 29).nonzero()[:, 0].tolist()
    assert int(one.order[0].argmax()) == int((places[0] == 0).nonzero()[0])


def test_the_most_salient_pixels_are_exactly_as_many_as_asked_for_whatever_ties():
    maps = torch.zeros(2, 20, 20)
    maps[:, 0, :3] = 1.0
    found = describe(maps, [1, 2])
    assert found.top.sum(1).tolist() == [20, 20]
    assert found.top[:, :3].all()
    # Three in common, and of the others what chance gives.
    shared = float(compared(found, found)["top_overlap"][0])
    assert shared == 1.0
    apart = compared(describe(maps[:1], [1]), describe(maps[1:], [2]))
    assert 3 / 37 <= apart["top_overlap"][0] < 0.4


def test_maps_too_small_for_a_window_have_ranks_alone():
    maps = drawn(2, (8, 8))
    found = compared(describe(maps, [1, 2]), describe(maps, [1, 2]))
    assert set(found) == {"rank_correlation", "top_overlap"}
    assert found["rank_correlation"].tolist() == found["top_overlap"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(maps, maps)
    with pytest.raises(ValueError, match="two"):
        hog_similarity(drawn(2, (12, 12)), drawn(2, (13, 12)))
    with pytest.raises(ValueError, match="cells of 4 pixels"):
        hog(np.zeros((1, 30, 11)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused(bad):
    maps = drawn(2, (12, 12))
    broken = maps.clone()
    broken[1, 3, 3] = bad
    for measure in (ssim, hog_similarity):
        for pair in ((maps, broken), (broken, maps)):
            with pytest.raises(ExplainerContractError, match="finite"):
                measure(*pair)
    with pytest.raises(ExplainerContractError):
        describe(broken, [1, 2])


@pytest.mark.oracle
@pytest.mark.parametrize("size", [(112, 112), (112, 128)])
def test_scikit_image_agrees(size):
    metrics = pytest.importorskip("skimage.metrics", reason="run .ci/oracles")
    feature = pytest.importorskip("skimage.feature", reason="run .ci/oracles")
    maps = torch.cat([drawn(2, size), golden_maps()]) if size == (112, 112) else drawn(4, size)
    maps, _ = norm01(maps)
    one, other = maps, maps.roll(1, 0)
    expected = [
        metrics.structural_similarity(
            a, b, data_range=1.0, gaussian_weights=True, use_sample_covariance=False
        )
        for a, b in zip(one.numpy(), other.numpy(), strict=True)
    ]
    assert ssim(one, other) == pytest.approx(expected, abs=1e-9)
    vectors = np.stack(
        [feature.hog(a, 9, (16, 16), (3, 3), block_norm="L2-Hys") for a in maps.numpy()]
    )
    # scikit-image sums in float32: one rounding, of values up to 1 that share a block.
    assert np.abs(hog(maps.numpy()) - vectors).max() < 1e-6

"""Patterns against goldens, plain loops and properties; the oracles are in their own module."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fxeval.errors import ExplainerContractError
from fxeval.functional.map_patterns import (
    area_shares,
    bhattacharyya,
    emd_2d,
    emd_flat,
    emd_marg,
    intersection_over_union,
    patterns,
    region_shares,
    variation,
    w1_values,
)
from fxeval.functional.ranking import count
from fxeval.tests.rounding import FLOAT64, assert_rounded

SEEDS = [11, 12, 13]
few = settings(deadline=None, max_examples=25)


def golden_maps() -> torch.Tensor:
    """A and B, bumps 10 pixels apart, and C, a wave; (3, 112, 112)."""
    y, x = np.mgrid[0:112, 0:112].astype(np.float64)
    bumps = [np.exp(-((y - 60) ** 2 + (x - x0) ** 2) / 450) for x0 in (56, 66)]
    wave = np.sin(2 * np.pi * x / 28) * np.cos(2 * np.pi * y / 16)
    maps = [(m - m.min()) / (m.max() - m.min()) for m in (*bumps, wave)]
    return torch.from_numpy(np.stack(maps))


FIRST, OTHERS = [0, 0, 0], [1, 2, 0]  # A with B, A with C, A with A


def golden_patterns(fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
    found = patterns(golden_maps(), fraction, None)  # their ties by index, as in the specification
    return found[FIRST], found[OTHERS]


def test_the_golden_coefficients_of_the_specification_are_met():
    assert bhattacharyya(*golden_patterns(1.0)) == pytest.approx([0.94624395, 0.63168975, 1.0])
    assert bhattacharyya(*golden_patterns(0.01)) == pytest.approx([15 / 125, 0.0, 1.0])
    assert intersection_over_union(*golden_patterns(0.01)).tolist() == [
        pytest.approx(0.063830, abs=5e-7), 0.0, 1.0,
    ]  # fmt: skip


def test_the_golden_distances_of_the_specification_are_met():
    one, other = golden_patterns(1.0)
    assert emd_flat(one, other) == pytest.approx([9.940532, 1827.6279, 0.0], rel=5e-8)
    down, across = emd_marg(one, other).T
    assert down == pytest.approx([0.000043, 16.3187, 0.0], abs=5e-5)
    assert across == pytest.approx([9.941624, 16.0453, 0.0], abs=5e-5)
    values = golden_maps()
    assert w1_values(values[FIRST], values[OTHERS]) == pytest.approx(
        [0.00011510, 0.38735767, 0.0], abs=5e-9
    )
    # OpenCV alone gives 9.940164 and 24.093456: its float32 cannot hold the tails of the bumps.
    found = emd_2d(one, other)
    assert found == pytest.approx([9.940164, 24.093456, 0.0], abs=2e-4)
    assert found == pytest.approx([9.9403155, 24.0934528, 0.0], abs=6e-5)
    assert found[2] == 0.0


def test_opencv_alone_gives_the_numbers_of_the_specification():
    cells = torch.nn.functional.avg_pool2d(golden_maps()[:, None], 8)[:, 0].numpy()
    rows, columns = np.mgrid[0:14, 0:14].astype(np.float32)

    def signature(cell):
        flat = [cell / cell.sum(), rows, columns]
        return np.stack([part.ravel() for part in flat], axis=1).astype(np.float32)

    found = [
        8 * cv2.EMD(signature(cells[a]), signature(cells[b]), cv2.DIST_L2)[0]
        for a, b in zip(FIRST, OTHERS, strict=True)
    ]
    assert found == pytest.approx([9.940164, 24.093456, 0.0], abs=2e-5)


def plain_coefficient(p, q):
    return sum(math.sqrt(a * b) for a, b in zip(p.ravel(), q.ravel(), strict=True))


def test_plain_loops_and_scipy_agree_on_maps_of_any_size():
    maps = torch.rand(3, 9, 17, generator=torch.Generator().manual_seed(2))
    one = patterns(maps, 1.0, SEEDS)
    other = one.roll(1, dims=0)
    p, q = one.numpy(), other.numpy()
    plain = [plain_coefficient(a, b) for a, b in zip(p, q, strict=True)]
    assert bhattacharyya(one, other) == pytest.approx(plain, abs=6e-10)  # rounded to 1e-9

    def along(a, b):
        places = np.arange(a.size)
        return stats.wasserstein_distance(places, places, a.ravel(), b.ravel())

    pairs = list(zip(p, q, strict=True))
    flat = [along(a, b) for a, b in pairs]
    assert_rounded(emd_flat(one, other), flat, terms=9 * 17, unit=FLOAT64, condition=17 * 9)
    margins = [[along(a.sum(axis), b.sum(axis)) for axis in (1, 0)] for a, b in pairs]
    assert_rounded(emd_marg(one, other), margins, terms=9 * 17, unit=FLOAT64, condition=17)
    scaled = [(map_ - map_.min()) / (map_.max() - map_.min()) for map_ in maps.double().numpy()]
    values = [
        stats.wasserstein_distance(a.ravel(), scaled[row - 1].ravel())
        for row, a in enumerate(scaled)
    ]
    assert_rounded(w1_values(maps, maps.roll(1, dims=0)), values, terms=9 * 17, unit=FLOAT64)


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("kind", ["distinct", "ties", "constant"])
def test_the_most_salient_pixels_are_exactly_as_many_as_the_fraction(fraction, kind):
    values = torch.rand(3, 20, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    maps = {"distinct": values, "ties": values.clamp(max=0.2), "constant": values * 0 + 7}[kind]
    found = patterns(maps, fraction, SEEDS)
    k = count(fraction, 320)
    assert ((found > 0).flatten(1).sum(1) == k).all()
    assert (found[found > 0] == 1 / k).all()
    again = patterns(maps, fraction, SEEDS)
    assert torch.equal(found, again)
    if kind == "distinct":
        top = values.flatten(1).topk(k).indices
        assert torch.equal((found > 0).flatten(1).nonzero()[:, 1], top.sort(1).values.flatten())


@pytest.mark.parametrize("fraction", [0.05, 1.0])
def test_two_constant_maps_are_as_alike_as_noise_and_not_the_same(fraction):
    one = patterns(torch.full((20, 28, 28), 0.5), fraction, range(20))
    other = patterns(torch.full((20, 28, 28), 0.5), fraction, range(20, 40))
    noise = torch.rand(40, 28, 28, generator=torch.Generator().manual_seed(4))
    drawn = patterns(noise, fraction, range(40))
    alike, of_noise = bhattacharyya(one, other), bhattacharyya(drawn[:20], drawn[20:])
    assert alike.max() < 0.95
    assert alike.mean() == pytest.approx(of_noise.mean(), abs=0.03)
    # Ranks are uniform, as this noise is: both far from what two whole maps have by chance alone.
    assert alike.mean() == pytest.approx(0.05 if fraction < 1 else 8 / 9, abs=0.03)
    distances = emd_2d(one, other)
    assert distances.min() > 0
    assert distances.mean() == pytest.approx(emd_2d(drawn[:20], drawn[20:]).mean(), rel=0.2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("fraction", [0.05, 1.0])
def test_a_map_that_is_not_finite_is_refused(bad, fraction):
    maps = torch.rand(2, 8, 8)
    maps[1, 2, 3] = bad
    with pytest.raises(ExplainerContractError, match="nan_map"):
        patterns(maps, fraction, [1, 2])


def test_values_of_a_constant_or_broken_map_have_no_distance():
    maps = torch.rand(3, 4, 4)
    others = maps.clone()
    others[0], others[1, 0, 0] = 1.0, math.nan
    found = w1_values(maps, others)
    assert np.isnan(found).tolist() == [True, True, False]
    assert np.isnan(w1_values(others, maps)).tolist() == [True, True, False]


def test_patterns_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="two"):
        bhattacharyya(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))


def drawn(seed: int, n: int = 3, size: tuple[int, int] = (28, 28)) -> torch.Tensor:
    """Maps between noise and smooth, some of them with ties."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        side = int(generator.integers(2, 8))
        coarse = torch.from_numpy(generator.random((1, 1, side, side)))
        one = torch.nn.functional.interpolate(coarse, size, mode="bilinear")[0, 0]
        found.append((one - float(generator.random()) * one.max()).clamp(min=0) ** 2)
    return torch.stack(found)


@few
@given(st.integers(0, 2**20), st.sampled_from([0.05, 0.3, 1.0]))
def test_a_coefficient_is_symmetric_and_one_for_proportional_maps_alone(seed, fraction):
    maps = drawn(seed)
    found = patterns(maps, fraction, SEEDS)
    one, other = found[[0, 1]], found[[1, 2]]
    forth, back = bhattacharyya(one, other), bhattacharyya(other, one)
    assert forth.tolist() == back.tolist()
    assert ((forth >= 0.0) & (forth <= 1.0)).all()
    scaled = patterns(maps * 8.0, fraction, SEEDS)  # an offset would round values into ties
    assert bhattacharyya(found, scaled).tolist() == [1.0] * 3
    # 1 - BC is half the squared distance of the roots: 0 for equal patterns alone.
    roots = ((one.sqrt() - other.sqrt()) ** 2).sum((1, 2)).numpy() / 2
    assert 1 - forth == pytest.approx(roots, abs=1e-9)


@few
@given(st.integers(0, 2**20), st.sampled_from([0.05, 1.0]))
def test_a_distance_is_zero_for_equal_cells_symmetric_and_no_longer_than_a_detour(seed, fraction):
    found = patterns(drawn(seed), fraction, SEEDS)
    assert emd_2d(found, found).tolist() == [0.0] * 3
    a, b, c = found[[0]], found[[1]], found[[2]]
    straight, first, second = (emd_2d(*pair)[0] for pair in ((a, c), (a, b), (b, c)))
    assert straight <= first + second + 1e-3
    assert emd_2d(b, a)[0] == pytest.approx(first, abs=1e-3)
    cells = torch.nn.functional.avg_pool2d(found[:2, None], 2)
    gap = float((cells[0] - cells[1]).abs().sum()) * 4 / 2  # moved by one cell at least
    assert first >= 8 * gap - 1e-3
    margins = emd_marg(a, b)[0] * 112 / 28
    assert first >= margins.max() - 4  # a cell blurs what lies within it


def bump(row: float, column: float, size: tuple[int, int] = (112, 112)) -> torch.Tensor:
    """A bump of width 60 that ends within the image, so that nothing of it is cut off."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    distance = np.hypot(y - row, x - column) / 30
    return torch.from_numpy(np.where(distance < 1, np.cos(distance * np.pi / 2) ** 2, 0.0))


@few
@given(st.floats(0, 20), st.floats(0, 2 * math.pi))
def test_a_shift_by_some_pixels_is_that_far(pixels, angle):
    row, column = 55.5 - pixels / 2 * math.sin(angle), 55.5 - pixels / 2 * math.cos(angle)
    moved = bump(row + pixels * math.sin(angle), column + pixels * math.cos(angle))
    one, other = patterns(torch.stack([bump(row, column), moved]), 1.0, [1, 2])
    assert emd_2d(one[None], other[None])[0] == pytest.approx(pixels, abs=0.1)
    down, across = emd_marg(one[None], other[None])[0]
    assert down == pytest.approx(abs(pixels * math.sin(angle)), abs=0.02)
    assert across == pytest.approx(abs(pixels * math.cos(angle)), abs=0.02)


@pytest.mark.parametrize(("size", "pixels"), [((112, 96), 16), ((150, 150), 15), ((160, 160), 20)])
def test_distances_are_in_pixels_of_a_crop_112_high(size, pixels):
    middle = (size[0] / 2 - 0.5, size[1] / 2 - 0.5 - pixels / 2)
    maps = torch.stack([bump(*middle, size), bump(middle[0], middle[1] + pixels, size)])
    one, other = patterns(maps, 1.0, [1, 2])
    expected = pixels * 112 / size[0]
    assert emd_2d(one[None], other[None])[0] == pytest.approx(expected, abs=0.1)


def test_a_point_moves_as_far_as_its_cell():
    maps = torch.zeros(2, 112, 112)
    maps[0, 4, 4] = maps[1, 107, 107] = 1.0  # first and last cell
    one, other = patterns(maps, 1 / 112**2, [1, 2])
    assert emd_2d(one[None], other[None])[0] == pytest.approx(104 * math.sqrt(2), abs=1e-4)


LABELS = torch.tensor([[[0, 0, 1, 1], [2, 2, -1, 7]]])


def test_shares_of_regions_are_those_of_a_plain_loop():
    maps = drawn(5, n=4, size=(12, 10))
    labels = torch.randint(-1, 5, (4, 12, 10), generator=torch.Generator().manual_seed(1))
    regions = [(0,), (1, 3), (4,), (2, 9)]
    for fraction in (0.05, 1.0):
        pattern = patterns(maps, fraction, range(4))
        expected = [
            [
                sum(
                    pattern[row, y, x].item()
                    for y in range(12)
                    for x in range(10)
                    if int(labels[row, y, x]) in region
                )
                for region in regions
            ]
            for row in range(4)
        ]
        found = region_shares(pattern, labels, regions)
        assert_rounded(found, expected, terms=120, unit=FLOAT64)


def test_pixels_of_no_part_belong_to_no_region():
    even = torch.full((1, 2, 4), 0.125)
    assert region_shares(even, LABELS, [(0,), (1,), (2,), (0, 1), (3,)]).tolist() == [
        [0.25, 0.25, 0.25, 0.5, 0.0]
    ]
    assert area_shares(LABELS, [(0,), (7,)]).tolist() == [[0.25, 0.125]]
    assert area_shares(LABELS * 0 - 1, [(0,), (1, 2)]).tolist() == [[0.0, 0.0]]


def test_an_even_map_has_its_share_of_every_region_and_a_point_all_of_one():
    point = torch.zeros(1, 2, 4)
    point[0, 0, 2] = 1.0
    assert region_shares(point, LABELS, [(0,), (1,)]).tolist() == [[0.0, 1.0]]
    areas = area_shares(LABELS, [(0,), (1,), (2,)])
    even = region_shares(torch.full((1, 2, 4), 0.125), LABELS, [(0,), (1,), (2,)])
    assert (even / areas).tolist() == [[1.0, 1.0, 1.0]]


def test_variation_is_that_of_numpy_and_has_no_value_where_nothing_is_there():
    shares = np.random.default_rng(1).random((5, 3))
    expected = shares.std(axis=0, ddof=1) / shares.mean(axis=0)
    assert_rounded(variation(shares), expected, terms=15, unit=FLOAT64, condition=4)
    assert variation(np.full((4, 1), 0.2)).tolist() == [0.0]
    lone = np.array([[0.5, 0.5], [np.nan, 0.7]])
    assert np.isnan(variation(lone)).tolist() == [True, False]
    assert np.isnan(variation(np.array([[0.0], [0.0019]]))).tolist() == [True]
    assert np.isfinite(variation(np.array([[0.0], [0.0021]]))).tolist() == [True]
    assert np.isnan(variation(np.full((3, 2), np.nan))).all()

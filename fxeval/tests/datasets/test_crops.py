"""Maps moved between crops, and dlib's chip."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import (
    ARCFACE_112,
    CROPS,
    DLIB_150,
    align,
    similarity_transform,
)
from fxeval.datasets.faces.crops import DLIB_CHIP, between, move_maps
from fxeval.errors import ExplainerContractError
from fxeval.tests.rounding import assert_rounded

OTHERS = [crop for crop in CROPS.values() if crop is not ARCFACE_112]


def smooth(crop: Crop, seed: int = 0, sigma: float = 6.0) -> torch.Tensor:
    """One map with bumps, in [0, 1]."""
    values = np.random.Generator(np.random.PCG64(seed)).normal(size=crop.size)
    values = cv2.GaussianBlur(values, (0, 0), sigma)
    return torch.from_numpy((values - values.min()) / np.ptp(values))[None].float()


def scaled(crop: Crop, size: int) -> Crop:
    """The same crop as an image of another size."""
    ratio = size / crop.size[0]
    template = tuple(((x + 0.5) * ratio - 0.5, (y + 0.5) * ratio - 0.5) for x, y in crop.template)
    return Crop(f"{crop.name}@{size}", (size, size), template)


def turned(crop: Crop, size: int, scale: float, angle: float) -> Crop:
    """A square crop of another size, scale and angle, with the same centre."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centred = np.array(crop.template) - (np.array(crop.size[::-1]) - 1) / 2
    points = centred @ turn.T + (size - 1) / 2
    return Crop("turned", (size, size), tuple((float(x), float(y)) for x, y in points))


def by_samples(maps: torch.Tensor, source: Crop, target: Crop, n: int = 60) -> np.ndarray:
    """Slow area means: average the source pixels under n x n points of a target pixel."""
    matrix = between(target, source)
    height, width = target.size
    moved = np.zeros(target.size)
    steps = (np.arange(n) + 0.5) / n - 0.5
    for row in range(height):
        for column in range(width):
            xs, ys = np.meshgrid(column + steps, row + steps)
            at = matrix @ np.stack([xs.ravel(), ys.ravel(), np.ones(n * n)])
            x, y = np.floor(at + 0.5).astype(int)
            ok = (x >= 0) & (x < source.size[1]) & (y >= 0) & (y < source.size[0])
            if ok.any():
                moved[row, column] = maps[0].numpy()[y[ok], x[ok]].mean()
    return moved


def bilinear(maps: torch.Tensor, source: Crop, target: Crop) -> np.ndarray:
    """Slow bilinear values with extended border pixels; 0 where a centre lies outside."""
    matrix = between(target, source)
    height, width = source.size
    values, moved = maps[0].double().numpy(), np.zeros(target.size)
    for row in range(target.size[0]):
        for column in range(target.size[1]):
            x, y = matrix @ (column, row, 1)
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                continue
            for i in range(height):
                for j in range(width):
                    near = (1 - abs(np.clip(x, 0, width - 1) - j), 1 - abs(
                        np.clip(y, 0, height - 1) - i))  # fmt: skip
                    if min(near) > 0:
                        moved[row, column] += near[0] * near[1] * values[i, j]
    return moved


def test_a_map_in_a_crop_of_another_size_is_resized_as_images_are():
    maps = torch.cat([smooth(ARCFACE_112, seed) for seed in range(3)])
    up = move_maps(maps, ARCFACE_112, CROPS["facenet160"])
    expected = F.interpolate(maps[:, None].double(), (160, 160), mode="bilinear")[:, 0]
    assert_rounded(up.maps, expected, terms=1)
    assert up.covered.all()
    down = move_maps(up.maps, CROPS["facenet160"], ARCFACE_112).maps
    expected = cv2.resize(up.maps[1].double().numpy(), (112, 112), interpolation=cv2.INTER_AREA)
    assert_rounded(down[1], expected, terms=1)
    half = move_maps(maps, ARCFACE_112, scaled(ARCFACE_112, 56)).maps
    assert_rounded(half, F.adaptive_avg_pool2d(maps.double(), 56), terms=1)


def test_a_narrow_crop_is_a_cut():
    maps = smooth(ARCFACE_112)
    narrow = move_maps(maps, ARCFACE_112, CROPS["arcface112x96"])
    assert_rounded(narrow.maps, maps[:, :, 8:104], terms=1)
    assert narrow.covered.all()
    back = move_maps(narrow.maps, CROPS["arcface112x96"], ARCFACE_112)
    assert back.covered[:, 8:104].all()
    assert int(back.covered.sum()) == 112 * 96
    assert_rounded(back.maps[:, :, 8:104], maps[:, :, 8:104], terms=1)
    assert not back.maps[:, ~back.covered].any()


@pytest.mark.parametrize("angle", [0.0, 0.1, -0.7, np.pi / 2])
def test_a_coarser_crop_holds_the_mean_over_each_pixels_area(angle):
    source = scaled(ARCFACE_112, 40)
    target = turned(source, 21, 0.55, angle)
    maps = torch.rand((1, 40, 40), generator=torch.Generator().manual_seed(3))
    moved = move_maps(maps, source, target)
    expected = by_samples(maps, source, target)
    assert np.abs(moved.maps[0].numpy() - expected)[moved.covered.numpy()].max() < 0.02
    control = move_maps(maps, source, turned(source, 21, 0.55, angle + 0.1))
    assert np.abs(control.maps[0].numpy() - expected)[control.covered.numpy()].max() > 0.1


@pytest.mark.parametrize("angle", [0.0, 0.1, -0.7])
def test_a_finer_crop_holds_bilinear_values(angle):
    source = scaled(ARCFACE_112, 14)
    target = turned(source, 24, 1.4, angle)
    maps = torch.rand((1, 14, 14), generator=torch.Generator().manual_seed(3))
    moved = move_maps(maps, source, target)
    assert_rounded(moved.maps[0], bilinear(maps, source, target), terms=1)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(0.2, 3),
    st.floats(-3.2, 3.2),
    st.integers(8, 60),
    st.floats(-5, 5).map(np.float32),
)
def test_a_constant_stays_that_constant_where_it_is_covered(scale, angle, size, value):
    source = scaled(ARCFACE_112, 30)
    moved = move_maps(
        torch.full((1, 30, 30), float(value)), source, turned(source, size, scale, angle)
    )
    found = moved.maps[:, moved.covered]
    assert_rounded(found, torch.full_like(found, float(value)), terms=1)
    assert not moved.maps[:, ~moved.covered].any()


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 1.0), st.floats(-3.2, 3.2))
def test_the_mass_of_a_map_inside_the_target_is_kept(scale, angle):
    source = scaled(ARCFACE_112, 40)
    ys, xs = np.mgrid[:40, :40] - 19.5
    maps = torch.from_numpy(np.exp(-(xs**2 + ys**2) / 18))[None]
    moved = move_maps(maps, source, turned(source, 60, scale, angle)).maps
    assert float(moved.sum()) == pytest.approx(float(maps.sum()) * scale**2, rel=1e-3)


@pytest.mark.parametrize("crop", OTHERS, ids=lambda crop: crop.name)
def test_a_smooth_map_comes_back_where_both_crops_reach(crop):
    maps = smooth(ARCFACE_112)
    there = move_maps(maps, ARCFACE_112, crop)
    back = move_maps(there.maps, crop, ARCFACE_112)
    known = move_maps(there.covered[None].float(), crop, ARCFACE_112).maps[0] > 0.999
    both = known & back.covered
    assert both.float().mean() > 0.7
    # Bilinear values have kinks, and the mean over an area blurs.
    error = (back.maps - maps).abs()[0][both]
    assert error.mean() < 0.002
    assert error.max() < 0.02


@pytest.mark.parametrize("crop", OTHERS, ids=lambda crop: crop.name)
def test_what_lies_on_a_landmark_lands_where_the_landmark_goes(crop):
    matrix = between(ARCFACE_112, crop)
    ys, xs = np.mgrid[:112, :112]
    for (x, y), (to_x, to_y) in zip(ARCFACE_112.template, crop.template, strict=True):
        peak = torch.from_numpy(np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 8))[None].float()
        moved = move_maps(peak, ARCFACE_112, crop).maps[0].double().numpy()
        rows, columns = np.mgrid[: crop.size[0], : crop.size[1]]
        centre = np.array([(columns * moved).sum(), (rows * moved).sum()]) / moved.sum()
        assert np.abs(centre - matrix @ (x, y, 1)).max() <= 0.05
        assert np.hypot(*(centre - (to_x, to_y))) < 3.5  # neither template is a copy of the other


def test_maps_move_as_images_do():
    """The geometry is that of the alignment: one image aligned to either crop agrees."""
    picture = (smooth(Crop("scene", (250, 250), ()), sigma=5.0)[0].numpy() * 255).astype(np.uint8)
    scene = np.repeat(picture[..., None], 3, axis=2)
    landmarks = np.array(ARCFACE_112.template) * 1.2 + 60
    narrow = align(scene, landmarks, ARCFACE_112)[None, ..., 0]
    matrix = between(ARCFACE_112, DLIB_150)
    by_arcface = (np.array(ARCFACE_112.template) @ matrix[:, :2].T) + matrix[:, 2]
    crop = Crop("dlib, by the same five points", (150, 150), tuple(map(tuple, by_arcface)))
    moved = move_maps(torch.from_numpy(narrow).float(), ARCFACE_112, crop)
    direct = align(scene, landmarks, crop)[..., 0].astype(float)
    # Maps extend the last pixels of a crop to its border, but the scene changes there.
    inner = cv2.erode(moved.covered.numpy().astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(moved.maps[0].numpy() - direct)[inner].max() < 2


def test_dtype_batch_and_gradient_pass_through():
    maps = torch.rand((2, 112, 112), dtype=torch.float64, requires_grad=True)
    moved = move_maps(maps, ARCFACE_112, DLIB_150).maps
    assert moved.shape == (2, 150, 150)
    assert moved.dtype == torch.float64
    moved.sum().backward()
    assert maps.grad is not None
    assert move_maps(torch.zeros((0, 112, 112)), ARCFACE_112, DLIB_150).maps.shape == (0, 150, 150)
    assert move_maps(maps, ARCFACE_112, ARCFACE_112).maps is maps


@pytest.mark.parametrize("shape", [(112, 112), (1, 150, 150), (1, 1, 112, 112)])
def test_maps_of_another_size_are_refused(shape):
    with pytest.raises(ExplainerContractError, match="arcface112"):
        move_maps(torch.zeros(shape), ARCFACE_112, DLIB_150)


def test_dlibs_own_five_points_go_to_its_own_targets():
    """The mean face of dlib's chips, from its source code, with padding 0.25 and 150 pixels."""
    mean_face = np.array(
        [
            (0.8595674595992, 0.2134981538014),
            (0.6460604764104, 0.2289674387677),
            (0.1205750620789, 0.2137274526848),
            (0.3340850613712, 0.2290642403242),
            (0.4901123135679, 0.6277975316475),
        ]
    )
    # The template has three decimals.
    assert np.abs((mean_face + 0.25) / 1.5 * 150 - DLIB_CHIP.template).max() <= 0.0005 + 1e-9
    image = np.zeros((250, 250, 3), np.uint8)
    landmarks = np.array(DLIB_CHIP.template) * 0.8 + 50
    for x, y in np.round(landmarks).astype(int):
        cv2.circle(image, (int(x), int(y)), 2, (255, 255, 255), -1)
    chip = align(image, landmarks, DLIB_CHIP)
    assert all(chip[round(y), round(x)].min() > 200 for x, y in DLIB_CHIP.template)


def test_the_chip_covers_the_known_part_of_the_arcface_crop():
    points = np.array(DLIB_CHIP.template)
    right, left = points[:2].mean(axis=0), points[2:4].mean(axis=0)
    eyes = np.array(ARCFACE_112.template[:2])
    scale = np.hypot(*(right - left)) / np.hypot(*(eyes[1] - eyes[0]))
    shift = (right + left) / 2 - scale * eyes.mean(axis=0)
    assert scale == pytest.approx(1.49125, abs=1e-5)
    assert shift == pytest.approx([-9.374, -29.816], abs=2e-3)
    assert (0 - shift) / scale == pytest.approx([6.29, 19.99], abs=0.005)
    assert (150 - shift) / scale == pytest.approx([106.87, 120.58], abs=0.005)
    # The landmarks used here put the chip at nearly the same place.
    ours = similarity_transform(ARCFACE_112.template, DLIB_150.template)
    assert np.hypot(*ours[:, 0]) == pytest.approx(scale, rel=0.01)

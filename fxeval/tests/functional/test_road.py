"""Noisy linear imputation, the fill of ROAD."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from fxeval.engine.forward_pool import ForwardPool
from fxeval.errors import FillContractError
from fxeval.functional import road
from fxeval.functional.fills import SHIPPED_FILLS
from fxeval.functional.perturbations import Perturbations
from fxeval.functional.ranking import ranks as rank_maps
from fxeval.functional.road import NOISE, RESIDUAL, Road, imputed
from fxeval.metrics.deletion_insertion import Parameters
from fxeval.run import measure as measuring
from fxeval.tests.run.test_workshop import tiny
from fxeval.tests.subjects import make_pairs
from fxeval.tests.toy_world import People, measured

DIRECT, DIAGONAL = 1 / 6, 1 / 12


def drawn(n, height, width, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, height, width, generator=generator, dtype=dtype)


def faces(n, side, seed=0):
    """Smooth pictures with some grain."""
    coarse = drawn(n, 8, 8, seed)
    grain = drawn(n, side, side, seed + 1) - 0.5
    return (interpolate(coarse, (side, side), mode="bicubic") + 0.1 * grain).clamp(0, 1)


def removed_of(shape, share, n, side):
    """Which pixels are removed: a share of them, scattered or as one disc or as smooth regions."""
    generator = torch.Generator().manual_seed(7)
    if shape == "scattered":
        order = torch.rand(n, side, side, generator=generator)
    elif shape == "disc":
        place = torch.arange(side) - side / 2
        order = (place[:, None] ** 2 + place**2).expand(n, side, side)
    else:
        coarse = torch.rand(n, 1, 8, 8, generator=generator)
        order = interpolate(coarse, (side, side), mode="bilinear")[:, 0]
    first = order.flatten(1).argsort(dim=1)[:, : round(share * side * side)]
    found = torch.zeros(n, side * side, dtype=torch.bool)
    return found.scatter_(1, first, True).view(n, side, side)


def dense(image, removed):
    """Solve for one image, (C, H, W), pixel by pixel; return it and the inverse of the matrix."""
    height, width = removed.shape
    unknown = {place: index for index, place in enumerate(map(tuple, np.argwhere(removed)))}
    matrix, right = np.zeros((len(unknown),) * 2), np.zeros((len(unknown), len(image)))
    for (y, x), row in unknown.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                beside = y + down, x + across
                inside = 0 <= beside[0] < height and 0 <= beside[1] < width
                if not inside or (down == 0 and across == 0):
                    continue
                weight = DIRECT if down == 0 or across == 0 else DIAGONAL
                matrix[row, row] += weight
                if beside in unknown:
                    matrix[row, unknown[beside]] -= weight
                else:
                    right[row] += weight * image[:, beside[0], beside[1]]
    inverse = np.linalg.inv(matrix)
    found = image.copy()
    found[:, removed] = (inverse @ right).T
    return found, inverse


def residual_of(images, removed):
    """Largest difference of a removed pixel from the weighted mean of its neighbours."""
    wide, sums, weights = images.double(), 0.0, 0.0
    padded = torch.nn.functional.pad(wide, (1, 1, 1, 1))
    there = torch.nn.functional.pad(torch.ones_like(wide), (1, 1, 1, 1))
    height, width = wide.shape[2:]
    for down in range(3):
        for across in range(3):
            if (down, across) == (1, 1):
                continue
            weight = DIRECT if 1 in (down, across) else DIAGONAL
            place = (..., slice(down, down + height), slice(across, across + width))
            sums, weights = sums + weight * padded[place], weights + weight * there[place]
    return float((wide - sums / weights).abs()[removed[:, None].expand_as(wide)].max())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 0.99))
def test_it_agrees_with_a_dense_solution_in_float64(seed, height, width, share):
    images = drawn(2, height, width, seed, torch.float64)
    removed = drawn(2, height, width, seed + 1)[:, 0] < share
    removed[:, 0, 0] = False
    found = imputed(images, removed)
    for image, gone, ours in zip(images.numpy(), removed.numpy(), found.numpy(), strict=True):
        assert np.abs(dense(image, gone)[0] - ours).max() <= 1e-6


@pytest.mark.parametrize("shape", ["scattered", "disc", "regions"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_it_agrees_with_a_dense_solution_within_its_residual_in_float32(shape, share):
    images, removed = faces(2, 24), removed_of(shape, share, 2, 24)
    found = imputed(images, removed)
    assert found.dtype == torch.float32
    for image, gone, ours in zip(images.double().numpy(), removed, found, strict=True):
        expected, inverse = dense(image, gone.numpy())
        # The error is the inverse times the residual, which rounding adds to.
        bound = np.abs(inverse).sum(axis=1).max() * (RESIDUAL[torch.float32] + 1e-6)
        assert np.abs(expected - ours.double().numpy()).max() <= bound


@pytest.mark.parametrize("shape", ["scattered", "disc", "regions"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_few_cycles_reach_the_residual_at_full_size(shape, share, monkeypatch):
    images, removed, cycles = faces(1, 112), removed_of(shape, share, 1, 112), []
    cycle = road._cycle
    monkeypatch.setattr(
        road, "_cycle", lambda grids, b: cycles.append(b.shape[-1]) or cycle(grids, b)
    )
    found = imputed(images, removed)
    # Values are rounded to 6e-8, so sums of eight may be off by 5e-7.
    assert residual_of(found, removed) <= 2.4 * RESIDUAL[torch.float32] + 1e-6
    assert 0 < cycles.count(112) <= 12


def test_the_preconditioner_is_symmetric_and_positive():
    removed = removed_of("regions", 0.7, 3, 27)[:, None]
    grids = road._grids(removed, torch.float64)
    one, other = (drawn(3, 27, 27, seed, torch.float64) * removed for seed in (1, 2))
    of_one, of_other = road._cycle(grids, one), road._cycle(grids, other)
    assert torch.allclose((of_one * other).sum(), (one * of_other).sum(), rtol=1e-12)
    assert bool(((of_one * one).sum((1, 2, 3)) > 0).all())
    assert not bool(of_one[~removed.expand_as(of_one)].any())


def test_a_row_is_the_same_bit_for_bit_in_every_batch(monkeypatch):
    images = torch.cat([faces(3, 40), faces(3, 40, seed=5)])
    removed = torch.cat([removed_of("disc", 0.9, 3, 40), removed_of("scattered", 0.2, 3, 40)])
    removed[1], removed[4] = True, False  # everything, and nothing
    noise, threads = Road().prepare(images), torch.get_num_threads()
    expected = Road().apply(images, noise, removed)
    turned = torch.tensor([4, 2, 0, 5, 1, 3])
    assert torch.equal(Road().apply(images[turned], noise[turned], removed[turned])[2], expected[0])
    for at_once in (1, 3 * 40 * 40 * 2, 10**9):
        monkeypatch.setattr(road, "AT_ONCE", at_once)
        assert torch.equal(Road().apply(images, noise, removed), expected)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for row in range(6):
                alone = slice(row, row + 1)
                ours = Road().apply(images[alone], Road().prepare(images[alone]), removed[alone])
                assert torch.equal(ours[0], expected[row])
    finally:
        torch.set_num_threads(threads)


def test_kept_pixels_stay_bit_for_bit_and_none_leaves_the_range():
    images, removed = faces(4, 33), removed_of("regions", 0.6, 4, 33)
    images[0], images[1] = 0.0, 1.0  # where the noise would leave it
    found = Road().apply(images, Road().prepare(images), removed)
    kept = ~removed[:, None].expand_as(found)
    assert torch.equal(found[kept], images[kept])
    assert not torch.equal(found, images)
    assert 0.0 <= float(found.min()) <= float(found.max()) <= 1.0


def test_what_is_imputed_lies_between_the_kept_pixels():
    images, removed = faces(3, 33), removed_of("disc", 0.8, 3, 33)
    found = imputed(images, removed)
    for image, gone, ours in zip(images, removed, found, strict=True):
        kept = image[:, ~gone]
        assert bool((ours[:, gone] <= kept.amax(1)[:, None] + 1e-3).all())
        assert bool((ours[:, gone] >= kept.amin(1)[:, None] - 1e-3).all())


def test_a_slope_is_restored_from_its_ends():
    slope = torch.linspace(0.1, 0.9, 41).expand(1, 3, 30, 41)
    removed = torch.zeros(1, 30, 41, dtype=torch.bool)
    removed[:, :, 3:38] = True
    assert torch.allclose(imputed(slope, removed), slope, atol=2e-3)
    wide = imputed(slope.double(), removed)
    assert torch.allclose(wide, slope.double(), atol=1e-6)


def test_a_single_kept_pixel_fills_the_image():
    images = faces(1, 21)
    removed = torch.ones(1, 21, 21, dtype=torch.bool)
    removed[0, 6, 13] = False
    expected = images[:, :, 6, 13][..., None, None].expand_as(images)
    assert torch.allclose(imputed(images, removed), expected, atol=1e-2)
    assert torch.allclose(imputed(images.double(), removed), expected.double(), atol=1e-6)


def test_everything_removed_is_the_mean_with_the_noise_and_nothing_the_image():
    images = faces(2, 20)
    noise = Road().prepare(images)
    all_, none = torch.ones(2, 20, 20, dtype=torch.bool), torch.zeros(2, 20, 20, dtype=torch.bool)
    mean = images.double().mean((2, 3), keepdim=True)
    found = Road().apply(images, noise, all_)
    assert torch.allclose(found.double(), (mean + noise).clamp(0, 1), atol=1e-6)
    assert torch.equal(Road().apply(images, noise, none), images)


def test_the_noise_is_of_the_content_alone_and_of_no_global_generator():
    images = faces(3, 64)
    noise, state = Road().prepare(images), torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert torch.equal(Road().prepare(images[1:2])[0], noise[1])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert not torch.equal(noise[0], noise[1])
    # 12,288 draws: the standard error of their deviation is 0.6 %.
    assert np.allclose(noise.std((1, 2, 3)), NOISE, rtol=0.04)
    few, many = removed_of("disc", 0.1, 3, 64), removed_of("disc", 0.5, 3, 64)
    for removed in (few, many):
        made = Road().apply(images, noise, removed) - imputed(images, removed)
        inside = removed[:, None] & ((imputed(images, removed) - 0.5).abs() < 0.4)
        assert torch.allclose(made[inside], noise[inside], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (7, 1), (5, 3)])
def test_images_of_any_size(size):
    images = drawn(2, *size)
    removed = torch.ones(2, *size, dtype=torch.bool)
    removed[1, 0, 0] = False
    found = imputed(images, removed)
    expected = torch.stack([images[0].mean((1, 2)), images[1, :, 0, 0]])
    assert torch.allclose(found, expected[..., None, None].expand_as(found), atol=1e-3)


def test_no_images_are_no_images():
    none, nothing = torch.empty(0, 3, 8, 8), torch.empty(0, 8, 8, dtype=torch.bool)
    assert Road().apply(none, Road().prepare(none), nothing).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("shape", [(2, 8, 7), (1, 8, 8), (2, 1, 8, 8)])
def test_what_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="imputed: expected images"):
        imputed(drawn(2, 8, 8), torch.ones(shape, dtype=torch.bool))


def test_a_system_that_is_not_solved_is_said_and_not_blamed_on_the_model(monkeypatch):
    monkeypatch.setattr(road, "CYCLES", 1)
    with pytest.raises(FillContractError, match="fill 'road': expected a solution after 1 cycles"):
        imputed(faces(1, 40), removed_of("disc", 0.9, 1, 40))


def test_the_pool_removes_pixels_by_it():
    pairs, model = make_pairs(), tiny()
    images = pairs.faces()
    size = tuple(images.images.shape[2:])
    ranks = rank_maps(torch.rand(3, *size, generator=torch.Generator().manual_seed(0)), [1, 2, 3])
    counts = torch.tensor([0, 5, 40, size[0] * size[1]])
    image, count = torch.arange(3).repeat_interleave(4), counts.repeat(3)
    embed = partial(ForwardPool(batch_size=16).embed, model, images)
    found = embed(Perturbations(image, ranks, image, torch.zeros_like(count), count, "road"))
    pixels = images.images[image].float() / 255
    removed = ranks[image].view(-1, *size) < count[:, None, None]
    fill = SHIPPED_FILLS["road"]
    expected = model.embed(fill.apply(pixels, fill.prepare(pixels), removed))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_check_has_the_same_rows_in_groups_of_any_size(monkeypatch):
    parameters = Parameters(steps=2, fills=("road",), controls=("random_blobs",))
    source, found = People(5), []
    for size in (16, 3):
        monkeypatch.setattr(measuring, "ROWS_AT_ONCE", size)
        _, rows = measured("faithfulness.deletion_insertion", parameters, source=source)
        found.append(rows)
    assert found[0] == found[1]
    values = [one.values["deletion_auc"] for row in found[0] for one in row.measured]
    assert len(values) == 20
    assert all(-1 <= value <= 1 for value in values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same():
    images, removed = faces(4, 64), removed_of("regions", 0.6, 4, 64)
    found = imputed(images.cuda(), removed.cuda())
    assert float((found.cpu() - imputed(images, removed)).abs().max()) <= 1e-4
    for row in range(4):
        alone = slice(row, row + 1)
        assert torch.equal(imputed(images[alone].cuda(), removed[alone].cuda())[0], found[row])

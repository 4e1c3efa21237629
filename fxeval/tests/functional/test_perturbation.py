import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.functional.perturbation import fill_images, remove
from fxeval.functional.ranking import ranks as rank_maps
from fxeval.tests.rounding import assert_rounded


def _images(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(112, 112), (150, 150), (112, 96), (40, 7), (5, 9), (1, 4)])
def test_the_blur_is_opencvs_gaussian(size):
    images = _images(2, *size)
    sigma = 5.0 * size[0] / 112.0
    kernel = 2 * int(np.ceil(3.0 * sigma)) + 1
    for image, blurred in zip(images, fill_images(images, "blur"), strict=True):
        expected = cv2.GaussianBlur(
            image.permute(1, 2, 0).double().numpy(), (kernel, kernel), sigma,
            borderType=cv2.BORDER_REFLECT_101,
        )  # fmt: skip
        assert_rounded(blurred.permute(1, 2, 0), expected, terms=2 * kernel)


def test_a_constant_image_is_its_own_blur_and_mean():
    images = torch.full((1, 3, 20, 20), 0.7)
    # A kernel of 2 * 3 + 1 pixels, down and across.
    assert_rounded(fill_images(images, "blur"), images, terms=14)
    assert_rounded(fill_images(images, "mean"), images, terms=1)


def test_the_mean_is_per_image_and_channel():
    images = _images(3, 10, 12)
    filled = fill_images(images, "mean")
    assert_rounded(filled[:, :, 4, 5], images.double().mean((2, 3)), terms=1)
    assert torch.equal(filled, filled[:, :, :1, :1].expand_as(filled))


def test_black_is_zero():
    assert not fill_images(_images(2, 5, 5), "black").any()


def test_fills_keep_form_range_and_their_input():
    images = _images(2, 9, 11)
    before = images.clone()
    for fill in ("blur", "mean", "black"):
        filled = fill_images(images, fill)
        assert (filled.shape, filled.dtype) == (images.shape, images.dtype)
        assert 0.0 <= float(filled.min()) <= float(filled.max()) <= 1.0
        filled.zero_()
    assert torch.equal(images, before)


def test_the_fill_of_an_image_does_not_depend_on_its_neighbours():
    images = _images(4, 30, 30)
    for fill in ("blur", "mean", "black"):
        alone = torch.cat([fill_images(image[None], fill) for image in images])
        # A blur's kernel of 2 * 5 + 1 pixels, down and across; both are rounded.
        assert_rounded(fill_images(images, fill), alone, terms=2 * 22)


@pytest.mark.parametrize(
    ("images", "fill", "message"),
    [
        (torch.zeros(1, 3, 4, 4), "white", "got 'white'"),
        (torch.zeros(3, 4, 4), "blur", r"\(N, 3, H, W\)"),
        (torch.zeros(1, 1, 4, 4), "blur", r"\(N, 3, H, W\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "mean", "uint8"),
    ],
)
def test_bad_fills_are_refused(images, fill, message):
    with pytest.raises(ValueError, match=message):
        fill_images(images, fill)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.data())
def test_removal_agrees_with_a_loop_over_pixels(seed, height, width, data):
    n = height * width
    images, fillers = _images(2, height, width, seed), _images(2, height, width, seed + 1)
    ranks = rank_maps(torch.zeros(2, height, width), [seed, seed + 1])
    first = torch.tensor(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
    last = torch.tensor(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
    expected = images.clone()
    for row in range(2):
        for pixel in range(n):
            if int(first[row]) <= int(ranks[row, pixel]) < int(last[row]):
                y, x = divmod(pixel, width)
                expected[row, :, y, x] = fillers[row, :, y, x]
    assert torch.equal(remove(images, fillers, ranks, first, last), expected)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_removing_nothing_is_the_image_and_everything_the_filler_bit_for_bit(dtype):
    images, fillers = _images(3, 13, 11), _images(3, 13, 11, seed=1)
    ranks = rank_maps(images[:, 0], [1, 2, 3]).to(dtype)
    none, all_ = torch.zeros(3, dtype=torch.int64), torch.full((3,), 143)
    assert torch.equal(remove(images, fillers, ranks, none, none), images)
    assert torch.equal(remove(images, fillers, ranks, none, all_), fillers)
    assert torch.equal(remove(images, fillers, ranks, all_, all_), images)


def test_deletion_and_insertion_of_k_pixels_are_complements():
    images, fillers = _images(1, 8, 8), _images(1, 8, 8, seed=1)
    ranks = rank_maps(images[:, 0], [0])
    zero, k, n = (torch.tensor([value]) for value in (0, 20, 64))
    deleted = remove(images, fillers, ranks, zero, k)
    inserted = remove(images, fillers, ranks, k, n)
    assert int((deleted != images).any(1).sum()) == 20
    assert int((inserted != fillers).any(1).sum()) == 20
    assert torch.equal(torch.where(deleted == images, fillers, images), inserted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fillers": torch.zeros(2, 3, 4, 5)}, "fillers like the images"),
        ({"fillers": torch.zeros(2, 3, 4, 4).double()}, "fillers like the images"),
        ({"ranks": torch.zeros(2, 15, dtype=torch.int32)}, "ranks"),
        ({"ranks": torch.zeros(2, 16)}, "integers"),
        ({"first": torch.zeros(1, dtype=torch.int64)}, "first and last"),
        ({"last": torch.zeros(2)}, "integers"),
        ({"images": torch.zeros(2, 16)}, r"\(N, 3, H, W\)"),
    ],
)
def test_bad_removals_are_refused(change, message):
    arguments = {
        "images": torch.zeros(2, 3, 4, 4),
        "fillers": torch.zeros(2, 3, 4, 4),
        "ranks": torch.zeros(2, 16, dtype=torch.int32),
        "first": torch.zeros(2, dtype=torch.int64),
        "last": torch.zeros(2, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=message):
        remove(**(arguments | change))

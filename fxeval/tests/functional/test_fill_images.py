import cv2
import numpy as np
import pytest
import torch

from fxeval.functional.fill_images import fill_images
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
        (torch.zeros(1, 3, 4, 4), "sepia", "got 'sepia'"),
        (torch.zeros(3, 4, 4), "blur", r"\(N, 3, H, W\)"),
        (torch.zeros(1, 1, 4, 4), "blur", r"\(N, 3, H, W\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "mean", "uint8"),
    ],
)
def test_bad_fills_are_refused(images, fill, message):
    with pytest.raises(ValueError, match=message):
        fill_images(images, fill)

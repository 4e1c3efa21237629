"""Removing pixels, and the fills of plug-ins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fxeval.engine.forward_pool import ForwardPool
from fxeval.errors import FillContractError, FxevalError, ModelContractError
from fxeval.functional.fill_images import fill_images
from fxeval.functional.fills import (
    OF_THE_IMAGE,
    SHIPPED_FILLS,
    FillName,
    add_fills,
    applied,
    fills,
    prepared,
    removed_pixels,
)
from fxeval.functional.perturbations import Perturbations
from fxeval.functional.ranking import ranks as rank_maps
from fxeval.tests.run.test_workshop import tiny
from fxeval.tests.subjects import make_pairs


def _images(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def remove(images, fillers, ranks, first, last):
    removed = removed_pixels(ranks, first, last, (images.shape[2], images.shape[3]))
    return SHIPPED_FILLS["blur"].apply(images, fillers, removed)


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
        ({"ranks": torch.zeros(2, 15, dtype=torch.int32)}, "expected ranks"),
        ({"ranks": torch.zeros(2, 16)}, "expected integer"),
        ({"first": torch.zeros(1, dtype=torch.int64)}, "first and last"),
        ({"last": torch.zeros(2)}, "expected integer"),
    ],
)
def test_bad_removals_are_refused(change, message):
    arguments = {
        "ranks": torch.zeros(2, 16, dtype=torch.int32),
        "first": torch.zeros(2, dtype=torch.int64),
        "last": torch.zeros(2, dtype=torch.int64),
        "size": (4, 4),
    }
    with pytest.raises(ValueError, match=message):
        removed_pixels(**(arguments | change))


@pytest.mark.parametrize("name", OF_THE_IMAGE)
def test_a_shipped_fill_of_the_image_replaces_by_the_filled_image(name):
    images = _images(2, 16, 12)
    removed = _images(2, 16, 12, seed=3)[:, 0] < 0.5
    fill = SHIPPED_FILLS[name]
    expected = torch.where(removed[:, None], fill_images(images, name), images)
    assert torch.equal(fill.apply(images, fill.prepare(images), removed), expected)


class Rest:
    """The mean of what is kept: it depends on what is removed."""

    def prepare(self, images):
        return images

    def apply(self, images, prepared, removed):
        kept = (~removed)[:, None]
        count = kept.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        return torch.where(kept, images, (images * kept).sum(dim=(2, 3), keepdim=True) / count)


@pytest.fixture
def rest():
    add_fills({"rest": Rest()})
    yield fills()["rest"]
    add_fills({})


def test_the_pool_asks_a_fill_of_a_plug_in_for_every_removal(rest):
    pairs = make_pairs()
    faces, model = pairs.faces(), tiny()
    size = tuple(faces.images.shape[2:])
    ranks = rank_maps(torch.rand(3, *size, generator=torch.Generator().manual_seed(0)), [1, 2, 3])
    counts = torch.tensor([0, 5, 40, size[0] * size[1]])
    image, count = torch.arange(3).repeat_interleave(4), counts.repeat(3)
    wanted = Perturbations(image, ranks, image, torch.zeros_like(count), count, "rest")
    found = ForwardPool(batch_size=16).embed(model, faces, wanted)
    for row, (face, k) in enumerate(zip(image.tolist(), count.tolist(), strict=True)):
        pixels = faces.images[face].float().div(255)
        gone = (ranks[face] < k).view(size)
        kept = pixels[:, ~gone]
        mean = kept.mean(1) if kept.numel() else torch.zeros(3)
        made = torch.where(gone, mean[:, None, None], pixels)
        expected = model.embed(made[None])[0]
        assert float((found[row] - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_a_fill_of_a_plug_in_is_a_name_that_a_check_may_use(rest):
    names = TypeAdapter(FillName)
    assert names.validate_python("rest") == "rest"
    assert names.json_schema()["enum"] == ["blur", "mean", "black", "white", "random", "road"]
    add_fills({})
    expected = "'blur', 'mean', 'black', 'white', 'random' or 'road'"
    with pytest.raises(ValidationError, match=expected):
        names.validate_python("rest")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"blur": Rest()}, "expected a new name"),
        ({"a fill": Rest()}, "expected a name"),
        ({"rest": Rest}, "expected an object with prepare"),
        ({"rest": 3}, "expected an object with prepare"),
    ],
)
def test_what_is_no_fill_is_refused(more, words):
    with pytest.raises(FxevalError, match=words):
        add_fills(more)
    assert fills() == SHIPPED_FILLS


class Wrong(Rest):
    def __init__(self, change):
        self.change = change

    def apply(self, images, prepared, removed):
        return self.change(super().apply(images, prepared, removed))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images[:, :1], "expected .* from apply"),
        (lambda images: images.double(), "expected .* from apply"),
        (lambda images: None, "expected .* from apply"),
        (lambda images: images * torch.nan, "NaN"),
        (lambda images: images * 0.99, "kept pixels"),
    ],
)
def test_what_a_fill_returns_is_checked(change, words):
    images = _images(2, 4, 4)
    removed = torch.zeros(2, 4, 4, dtype=torch.bool)
    removed[:, 0] = True
    with pytest.raises(FxevalError, match=f"fill 'wrong'.*{words}"):
        applied("wrong", Wrong(change), images, images, removed)


def test_a_fill_that_raises_is_blamed_and_not_the_model():
    class Raising(Rest):
        def __init__(self, method, error):
            setattr(self, method, lambda *_: self.fail(error))

        @staticmethod
        def fail(error):
            raise error

    pairs, model = make_pairs(), tiny()
    ranks = rank_maps(torch.rand(1, *pairs.images.shape[2:]), [1])
    zero = torch.zeros(1, dtype=torch.int64)
    for method, count in (("prepare", 5), ("apply", 5), ("apply", ranks.shape[1])):
        add_fills({"rest": Raising(method, KeyError("Ann Lee"))})
        wanted = Perturbations(zero, ranks, zero, zero, zero + count, "rest")
        with pytest.raises(FillContractError, match=f"fill 'rest': {method} raised KeyError") as it:
            ForwardPool(batch_size=16).embed(model, pairs.faces(), wanted)
        assert "Ann Lee" not in it.value.public
        assert "test_fills.py" in it.value.public
    add_fills({"rest": Raising("apply", RuntimeError("CUDA out of memory"))})
    pool = ForwardPool(batch_size=4)
    with pytest.raises(ModelContractError, match="out of memory with a single image"):
        pool.embed(model, pairs.faces(), wanted)
    assert len(pool.notes) == 2
    add_fills({})


@pytest.mark.parametrize("found", [None, torch.zeros(()), torch.zeros(3, 2)])
def test_prepare_gives_a_row_for_each_image(found):
    class Odd(Rest):
        def prepare(self, images):
            return found

    with pytest.raises(FillContractError, match="fill 'odd': expected 2 rows from prepare, got"):
        prepared("odd", Odd(), _images(2, 4, 4))

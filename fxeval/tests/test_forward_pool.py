"""The pool embeds every described image once, exactly, whatever the batch size."""

import pytest
import torch
from torch import nn

from fxeval.contracts import Perturbations
from fxeval.errors import ModelContractError
from fxeval.forward_pool import ForwardPool, PooledModel
from fxeval.perturbation import fill_images
from fxeval.ranking import ranks
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

N = 16 * 16


def described(pairs, bounds, *, fill="blur", images=None, seed=0):
    """The same bounds for each of the given images, every image under its own random ranking."""
    images = range(len(pairs)) if images is None else images
    order = ranks(
        torch.rand(len(pairs), 16, 16, generator=torch.Generator().manual_seed(seed)), None
    )
    rows = [(image, image, first, last) for image in images for first, last in bounds]
    image, ranking, first, last = torch.tensor(rows).unbind(1)
    return Perturbations(image, order, ranking, first, last, fill)


def one_by_one(model, pairs, wanted):
    """The slow reference: build every image by a loop over its pixels, embed it alone."""
    results = []
    for row in range(len(wanted)):
        image = pairs.images[wanted.image[row]].float() / 255
        filler = fill_images(image[None], wanted.fill)[0]
        made = image.clone()
        for pixel in range(N):
            rank = int(wanted.ranks[wanted.ranking[row], pixel])
            if wanted.first[row] <= rank < wanted.last[row]:
                made[:, pixel // 16, pixel % 16] = filler[:, pixel // 16, pixel % 16]
        with torch.inference_mode():
            results.append(model.module(made[None])[0])
    return torch.stack(results)


@pytest.fixture
def model():
    return CountingModel(ConvNet().eval())


@pytest.fixture
def pairs():
    return make_pairs(4)


@pytest.mark.parametrize("fill", ["blur", "mean", "black"])
def test_embeddings_equal_those_of_images_made_pixel_by_pixel(model, pairs, fill):
    wanted = described(pairs, [(0, 0), (0, 40), (0, N), (40, N), (N, N)], fill=fill)
    found = ForwardPool(batch_size=7).embed(model, pairs, wanted)
    torch.testing.assert_close(found, one_by_one(model, pairs, wanted), rtol=1e-5, atol=1e-6)


def test_the_batch_size_changes_no_embedding_beyond_rounding(model, pairs):
    wanted = described(pairs, [(0, k) for k in range(0, N + 1, 16)])
    one = ForwardPool(batch_size=1).embed(model, pairs, wanted)
    many = ForwardPool(batch_size=64).embed(model, pairs, wanted)
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


def test_end_points_are_shared_and_equal_descriptions_cost_one_pass(model, pairs):
    pool = ForwardPool(batch_size=64)
    bounds = [(0, 0), (N, N), (0, N), (0, 10), (0, 10), (10, N)]
    pool.embed(model, pairs, described(pairs, bounds))
    distinct_images, filled, partial = len(pairs.images), len(pairs), 2 * len(pairs)
    assert pool.forwards == distinct_images + filled + partial
    pool.embed(model, pairs, described(pairs, bounds))
    assert pool.forwards == distinct_images + filled + partial
    pool.embed(model, pairs, described(pairs, [(0, 0), (0, N)], seed=1))
    assert pool.forwards == distinct_images + filled + partial


def test_another_model_fill_or_ranking_is_another_answer(model, pairs):
    pool = ForwardPool()
    first = pool.embed(model, pairs, described(pairs, [(0, 99)]))
    for other in (
        pool.embed(model, pairs, described(pairs, [(0, 99)], fill="black")),
        pool.embed(model, pairs, described(pairs, [(0, 99)], seed=1)),
        pool.embed(CountingModel(ConvNet(seed=1).eval(), digest="e" * 64), pairs,
                   described(pairs, [(0, 99)])),
    ):  # fmt: skip
        assert not torch.allclose(first, other, atol=1e-4)


def test_what_was_computed_before_does_not_change_a_batch(model, pairs):
    wanted = described(pairs, [(0, k) for k in (0, 5, 50, N)])
    fresh = ForwardPool(batch_size=5)
    alone = fresh.embed(model, pairs, wanted)
    used = ForwardPool(batch_size=5)
    used.embed(model, pairs, described(pairs, [(0, 5), (3, 9)], images=[1, 2]))
    assert torch.equal(alone, used.embed(model, pairs, wanted))


def test_out_of_memory_halves_the_batch_and_says_so(model, pairs):
    model.limit = 5
    pool = ForwardPool(batch_size=16)
    wanted = described(pairs, [(0, k) for k in range(0, N, 32)])
    found = pool.embed(model, pairs, wanted)
    assert pool.batch_size == 4
    assert len(pool.halvings) == 2
    torch.testing.assert_close(found, one_by_one(model, pairs, wanted), rtol=1e-5, atol=1e-6)


def test_out_of_memory_with_one_image_is_an_error(model, pairs):
    model.limit = 0
    with pytest.raises(ModelContractError, match="out of memory with a single image"):
        ForwardPool().clean(model, pairs)


class Broken(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, images):
        if isinstance(self.what, Exception):
            raise self.what
        return self.what(images)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (ValueError("no such face"), "embed raised ValueError: no such face"),
        (lambda x: x.flatten(1) * torch.nan, "NaN or infinite"),
        (lambda x: x, r"must return \(\d+, D\)"),
        (lambda x: x.flatten(1)[:1], r"must return \(\d+, D\)"),
        (lambda x: x.flatten(1).long(), "must be float"),
        (lambda x: [1.0], "must return a torch.Tensor"),
    ],
)
def test_a_model_that_breaks_its_promise_is_named(pairs, what, message):
    with pytest.raises(ModelContractError, match=message) as error:
        ForwardPool().clean(CountingModel(Broken(what), name="vendor-x"), pairs)
    assert "vendor-x" in str(error.value)


def test_memory_is_bounded_and_forgetting_changes_nothing(model, pairs):
    pool = ForwardPool(batch_size=8, memory_bytes=1)
    wanted = described(pairs, [(0, 0), (0, 9), (0, N)])
    torch.testing.assert_close(
        pool.embed(model, pairs, wanted), ForwardPool(batch_size=8).embed(model, pairs, wanted)
    )
    assert len(pool._memory) == 1


def test_a_pooled_model_embeds_in_the_pools_batches(model, pairs):
    pool = ForwardPool(batch_size=3)
    images = torch.rand(8, 3, 16, 16)
    pooled = PooledModel(model, pool, "key")
    torch.testing.assert_close(pooled.embed(images), model.module(images).detach())
    assert model.batches == [3, 3, 2]
    assert pool.forwards == 8
    assert (pooled.name, pooled.crop, pooled.digest) == (model.name, model.crop, model.digest)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        ForwardPool(batch_size=0)

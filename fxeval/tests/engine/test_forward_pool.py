"""The pool embeds every described image once, exactly, whatever the batch size."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import MaskBank, RowState
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import explain
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.functional.fill_images import fill_images
from fxeval.functional.masking import bank_of
from fxeval.functional.perturbations import DONOR, Perturbations
from fxeval.functional.ranking import ranks
from fxeval.tests.evidence import comparison
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of
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
    """The slow reference, in float64: build every image pixel by pixel, embed it alone."""
    module, results = deepcopy(model.module).double(), []
    for row in range(len(wanted)):
        image = pairs.images[wanted.image[row]].double() / 255
        if wanted.donor is None:
            filler = fill_images(image[None], wanted.fill)[0]
        else:
            filler = pairs.images[wanted.donor[row]].double() / 255
        made = image.clone()
        for pixel in range(N):
            rank = int(wanted.ranks[wanted.ranking[row], pixel])
            if wanted.first[row] <= rank < wanted.last[row]:
                made[:, pixel // 16, pixel % 16] = filler[:, pixel // 16, pixel % 16]
        with torch.inference_mode():
            results.append(module(made[None])[0])
    return torch.stack(results)


def assert_embedded(found: Tensor, expected: Tensor, net: ConvNet, images: Tensor, times=1) -> None:
    """Compare embeddings of which one was rounded, or both (``times=2``)."""
    exact = deepcopy(net).double()
    assert_rounded(
        found,
        expected,
        terms=times * (terms_of(net) + 14),  # the blur has a kernel of 7 pixels, down and across
        condition=condition_of(exact, images, module=exact),
    )


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
    expected = one_by_one(model, pairs, wanted)
    assert_embedded(found, expected, model.module, pairs.images / 255)


def test_a_donor_lends_its_pixels_at_the_same_places(model, pairs):
    wanted = described(pairs, [(0, 0), (0, 7), (30, 200), (0, N)])
    donors = (wanted.image + torch.arange(len(wanted)) % 2 + 1) % len(pairs.images)
    wanted = replace(wanted, fill=DONOR, donor=donors)
    pool = ForwardPool(batch_size=5)
    found = pool.embed(model, pairs.faces(), wanted)
    assert_embedded(found, one_by_one(model, pairs, wanted), model.module, pairs.images)
    # Nothing and everything replaced are images that were loaded.
    assert pool.forwards == len(pairs.images) + 2 * len(pairs)
    clean = pool.clean(model, pairs.faces())
    whole = wanted.last - wanted.first == N
    assert torch.equal(found[whole], clean[donors[whole]])


def test_another_donor_is_another_answer(model, pairs):
    pool, faces = ForwardPool(), pairs.faces()
    wanted = described(pairs, [(0, 99)])
    found = [
        pool.embed(
            model, faces, replace(wanted, fill=DONOR, donor=torch.full_like(wanted.image, donor))
        )
        for donor in (0, 1, 0)
    ]
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_donors_and_the_fill_of_their_name_come_together(pairs):
    wanted = described(pairs, [(0, 7)])
    with pytest.raises(ValueError, match="donors for the fill 'donor' alone"):
        replace(wanted, fill=DONOR)
    with pytest.raises(ValueError, match="donors for the fill 'donor' alone"):
        replace(wanted, donor=wanted.image)


def test_a_fill_that_nobody_knows_is_an_error_and_never_the_image_as_it_is(model, pairs):
    wanted = replace(described(pairs, [(0, 7)]), fill="blurr")
    with pytest.raises(KeyError, match="blurr"):
        ForwardPool().embed(model, pairs.faces(), wanted)


def test_the_batch_size_changes_no_embedding_beyond_rounding(model, pairs):
    wanted = described(pairs, [(0, k) for k in range(0, N + 1, 16)])
    one = ForwardPool(batch_size=1).embed(model, pairs, wanted)
    many = ForwardPool(batch_size=64).embed(model, pairs, wanted)
    assert_embedded(one, many, model.module, pairs.images / 255, times=2)


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
    assert len(pool.notes) == 2
    expected = one_by_one(model, pairs, wanted)
    assert_embedded(found, expected, model.module, pairs.images / 255)


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


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 15, 16, 17, 31])
def test_an_image_has_the_same_embedding_whatever_it_is_asked_for_with(model, n):
    images = torch.rand(31, 3, 16, 16, generator=torch.Generator().manual_seed(n))
    together = ForwardPool(batch_size=16).embed_images(model, images)
    turned = torch.randperm(31, generator=torch.Generator().manual_seed(n))
    parts = [ForwardPool(batch_size=16).embed_images(model, images[one])
             for one in turned.split(n)]  # fmt: skip
    assert torch.equal(torch.cat(parts), together[turned])


def test_memory_is_bounded_and_forgetting_changes_nothing(model, pairs):
    pool = ForwardPool(batch_size=8, memory_bytes=1)
    wanted = described(pairs, [(0, 0), (0, 9), (0, N)])
    again = ForwardPool(batch_size=8).embed(model, pairs, wanted)
    assert torch.equal(pool.embed(model, pairs, wanted), again)
    assert len(pool._memory) == 1


def test_a_pooled_model_embeds_in_the_pools_batches(model, pairs):
    pool = ForwardPool(batch_size=3)
    images = torch.rand(8, 3, 16, 16)
    pooled = PooledModel(model, pool, "key")
    expected = deepcopy(model.module).double()(images.double())
    assert_embedded(pooled.embed(images), expected, model.module, images)
    assert model.batches == [3, 3, 3]  # the last is filled up
    assert pool.forwards == 8
    assert pool.forwards == 8
    assert (pooled.name, pooled.crop, pooled.digest) == (model.name, model.crop, model.digest)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        ForwardPool(batch_size=0)


def bank(n=7, seed=0):
    return bank_of(torch.rand(n, 16, 16, generator=torch.Generator().manual_seed(seed)))


def masked_one_by_one(module, image, masks, fill):
    """The slow reference: one masked image in a forward pass, pixel values by definition."""
    module, image, masks = deepcopy(module).double(), image.double(), masks.double()
    filler = fill_images(image[None], fill)[0]
    with torch.inference_mode():
        return torch.stack(
            [module((image * mask + filler * (1 - mask))[None])[0] for mask in masks]
        )


@pytest.mark.parametrize("fill", ["blur", "mean", "black"])
def test_masked_embeddings_equal_those_of_images_masked_one_by_one(model, fill):
    image, masks = torch.rand(3, 16, 16), bank()
    found = PooledModel(model, ForwardPool(batch_size=3), "key").embed_masked(image, masks, fill)
    expected = masked_one_by_one(model.module, image, masks.masks, fill)
    assert_embedded(found, expected, model.module, image[None])
    assert model.batches == [3, 3, 3]


def test_masked_embeddings_are_paid_for_once_per_model_image_bank_and_fill(model):
    pool = ForwardPool(batch_size=64)
    pooled = PooledModel(model, pool, "key")
    image, other = torch.rand(2, 3, 16, 16)
    first = pooled.embed_masked(image, bank(), "black")
    for _ in range(2):  # equal banks are one bank, equal images one image
        assert torch.equal(pooled.embed_masked(image.clone(), bank(), "black"), first)
    assert pool.forwards == 7
    for row, call in enumerate([
        lambda: pooled.embed_masked(other, bank(), "black"),
        lambda: pooled.embed_masked(image, bank(seed=1), "black"),
        lambda: pooled.embed_masked(image, bank(), "mean"),
        lambda: PooledModel(model, pool, "another key").embed_masked(image, bank(), "black"),
    ]):  # fmt: skip
        call()
        assert pool.forwards == 7 * (row + 2)


def test_a_batch_of_masked_images_depends_on_the_request_alone(model):
    image, other = torch.rand(2, 3, 16, 16)
    fresh = PooledModel(model, ForwardPool(batch_size=5), "key")
    used = PooledModel(model, ForwardPool(batch_size=5), "key")
    used.embed_masked(other, bank(9), "black")
    used.embed_masked(image, bank(3), "black")
    model.batches.clear()
    found = used.embed_masked(image, bank(8), "black")
    assert model.batches == [5, 5]
    assert torch.equal(found, fresh.embed_masked(image, bank(8), "black"))


def test_what_an_explainer_writes_over_its_embeddings_stays_with_it(model):
    pooled = PooledModel(model, ForwardPool(), "key")
    image = torch.rand(3, 16, 16)
    first = pooled.embed_masked(image, bank(), "black")
    kept = first.clone()
    first.zero_()
    assert torch.equal(pooled.embed_masked(image, bank(), "black"), kept)


def test_a_bank_must_be_what_its_digest_says(model):
    pooled = PooledModel(model, ForwardPool(), "key")
    image, honest = torch.rand(3, 16, 16), bank()
    pooled.embed_masked(image, honest, "black")
    for lie in (MaskBank(honest.masks * 0.5, honest.digest), MaskBank(honest.masks, "mine")):
        with pytest.raises(ExplainerContractError, match="the digest is not that of the masks"):
            pooled.embed_masked(image, lie, "black")
    honest.masks[0] = 0.0
    with pytest.raises(ExplainerContractError, match="do not write to them"):
        pooled.embed_masked(image, honest, "black")
    for wrong in (torch.ones(2, 15, 16), torch.ones(2, 16, 16).double(), torch.ones(16, 16)):
        with pytest.raises(ExplainerContractError, match=r"expected masks \(N, 16, 16\) float32"):
            pooled.embed_masked(image, bank_of(wrong), "black")


class Vandal:
    """Embeds a masked image of its own while the model is changed; its maps don't matter."""

    def __init__(self, change, undo=None, before=lambda model: None):
        self.change, self.undo, self.before = change, undo, before
        self.met = []

    def explain(self, model, probes, references, *, contrast=None, generator):
        self.before(model)
        handle = self.change(model.module)
        self.met.append(model.embed_masked(IMAGE, bank(), "black"))
        if self.undo is None:
            raise RuntimeError("half way")
        self.undo(model.module, handle)
        return probes.mean(1)


IMAGE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(3))


def louder(module):
    module.conv1.weight.data.mul_(2.0)


def hooked(module):
    return module.conv1.register_forward_hook(lambda _module, _inputs, output: output * 2)


@pytest.mark.parametrize(
    ("change", "undo", "state"),
    [
        (louder, None, RowState.MODEL_CHANGED),
        (louder, lambda module, _: None, RowState.MODEL_CHANGED),
        # Undone before the check: the model is as before, but the embeddings are not its own.
        (louder, lambda module, _: module.conv1.weight.data.mul_(0.5), RowState.OK),
        (hooked, lambda module, handle: handle.remove(), RowState.OK),
    ],
)
@pytest.mark.parametrize("is_remembered_before", [False, True])
def test_a_vandal_cannot_poison_the_memory(model, pairs, change, undo, state, is_remembered_before):
    honest = ForwardPool().masked(model, IMAGE, bank(), "black")
    pooled = PooledModel(model, ForwardPool(), "key")
    if is_remembered_before:
        pooled.embed_masked(IMAGE, bank(), "black")
    vandal = Vandal(change, undo)
    maps = explain(vandal, pooled, comparison(pairs), seed=0, progress=lambda *_: None)
    assert set(maps.states) == {state}
    assert all(not torch.allclose(met, honest, atol=1e-3) for met in vandal.met)  # it did change
    assert torch.equal(pooled.embed_masked(IMAGE, bank(), "black"), honest)


def test_what_a_vandal_embeds_before_its_deed_is_remembered_and_right(model, pairs):
    honest = ForwardPool().masked(model, IMAGE, bank(), "black")
    pool = ForwardPool()
    pooled = PooledModel(model, pool, "key")
    vandal = Vandal(louder, before=lambda model: model.embed_masked(IMAGE, bank(), "black"))
    explain(vandal, pooled, comparison(pairs), seed=0, progress=lambda *_: None)
    paid = pool.forwards
    assert torch.equal(pooled.embed_masked(IMAGE, bank(), "black"), honest)
    assert pool.forwards == paid

"""Banks are drawn once, images are masked once: counts through a pool, values against loops."""

import weakref
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fxeval.explainers.mask_banks as mask_banks
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import explain
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.corr_rise import CorrRISE
from fxeval.explainers.mask_banks import (
    CHUNK,
    coverage,
    drawn_bank,
    masked_embeddings,
    masked_similarities,
    weighted_sum,
)
from fxeval.explainers.rise import RISE
from fxeval.explainers.s_rise import SRISE, mask_bank
from fxeval.functional.fill_images import fill_images
from fxeval.functional.masking import bank_of
from fxeval.tests.black_boxes import (
    SIZE,
    BlackBox,
    InFloat64,
    images,
    pcg,
    random_projection,
    slow_scores,
    with_condition,
)
from fxeval.tests.evidence import comparison
from fxeval.tests.rounding import FLOAT64, assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

N = 30
EXPLAINERS = (SRISE(masks=N, patches=4), CorrRISE(masks=N), RISE(masks=N, cells=3))


@pytest.fixture
def pooled():
    return PooledModel(CountingModel(ConvNet().eval()), ForwardPool(batch_size=16), "key")


@pytest.fixture
def no_banks(monkeypatch):
    monkeypatch.setattr(mask_banks, "_banks", type(mask_banks._banks)())


def any_bank(masks=5, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return bank_of(torch.rand((masks, *size), generator=generator))


def uniform(generator, masks, size):
    return generator.random((masks, *size), dtype=np.float32)


def test_a_bank_is_drawn_once_per_state_and_geometry_and_no_generator_moves(no_banks):
    drawn = []

    def draw(generator, *geometry):
        drawn.append(geometry)
        return uniform(generator, *geometry)

    generator = pcg(11)
    first = drawn_bank(generator, draw, 3, SIZE)
    for _ in range(9):
        assert drawn_bank(pcg(11), draw, 3, SIZE) is first
        assert drawn_bank(generator, draw, 3, SIZE) is first
    assert drawn == [(3, SIZE)]
    assert torch.equal(drawn_bank(generator, draw, 4, SIZE).masks[:3], first.masks)
    assert torch.equal(drawn_bank(generator, uniform, 3, SIZE).masks, first.masks)
    generator.integers(0, 9)
    assert drawn_bank(generator, draw, 3, SIZE).digest != first.digest
    assert len(drawn) == 3


def test_the_banks_used_last_are_kept_within_the_budget(no_banks, monkeypatch):
    of_one = 4 * SIZE[0] * SIZE[1]
    monkeypatch.setattr(mask_banks, "_KEPT_BYTES", 3 * of_one)
    first = drawn_bank(pcg(0), uniform, 1, SIZE)
    for seed in range(1, 9):
        drawn_bank(pcg(seed), uniform, 1, SIZE)
        assert drawn_bank(pcg(0), uniform, 1, SIZE) is first
        assert sum(bank.masks.nbytes for bank in mask_banks._banks.values()) <= 3 * of_one
    big = drawn_bank(pcg(0), uniform, 9, SIZE)
    assert list(mask_banks._banks.values()) == [big]


def test_generators_with_states_in_arrays_have_banks_too():
    one, same, other = (
        drawn_bank(np.random.Generator(np.random.MT19937(seed)), uniform, 2, SIZE)
        for seed in (1, 1, 2)
    )
    assert one is same
    assert one.digest != other.digest


def test_the_digest_names_the_masks_and_their_form():
    masks = torch.rand(4, 6, 8)
    assert bank_of(masks).digest == bank_of(masks.clone()).digest
    transposed = masks.mT.contiguous().mT
    assert bank_of(transposed).digest == bank_of(masks).digest
    for other in (masks.view(4, 8, 6), masks.double(), masks + 1e-7, masks[:3]):
        assert bank_of(other).digest != bank_of(masks).digest


def test_a_bank_that_is_no_longer_used_is_not_kept_alive():
    bank = any_bank()
    masked_embeddings(BlackBox(random_projection()), images(1, 1)[0], bank)
    watched = weakref.ref(bank)
    del bank
    assert watched() is None


def test_banks_made_in_inference_mode_are_checked_as_well():
    with torch.inference_mode():
        bank = any_bank()
        image = images(1, 1)[0]
        model = BlackBox(random_projection())
        masked_embeddings(model, image, bank)
        bank.masks[0] = 0
        with pytest.raises(ExplainerContractError, match="digest"):
            masked_embeddings(model, image, bank)


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_a_model_without_memory_is_asked_in_chunks(fill):
    model = BlackBox(random_projection())
    image, bank = images(1, 1)[0], any_bank(CHUNK + 5)
    found = masked_embeddings(model, image, bank, fill)
    assert model.passes == [CHUNK, 5]
    net = deepcopy(model.function).double()

    def compute(image):
        filler = fill_images(image[None], fill)[0]
        masked = [image * mask + filler * (1 - mask) for mask in bank.masks.double()]
        return torch.cat([net(one[None]) for one in masked])

    assert_rounded(
        found,
        compute(image.double()),
        terms=terms_of(net) + sum(SIZE),  # a blur sums over columns and rows
        condition=condition_of(compute, image, module=net),
    )


def test_embeddings_that_are_not_numbers_are_the_models_fault():
    model = BlackBox(lambda batch: torch.full((len(batch), 2), torch.nan))
    with pytest.raises(ModelContractError, match="box"):
        masked_embeddings(model, images(1, 1)[0], any_bank())


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_similarities_equal_the_slow_ones_with_centroids_and_contrast(kind):
    model = BlackBox(random_projection(), kind)
    probes, contrast = images(3, 1), images(3, 3)
    several = images(6, 2).view(3, 2, 3, *SIZE)
    bank = any_bank()
    alone, _ = masked_similarities(model, probes, several[:, 0], None, bank)
    with_contrast, _ = masked_similarities(model, probes, several[:, 0], contrast, bank)
    doubled = several[:, :1].expand(-1, 4, -1, -1, -1)
    of_one_reference_often, _ = masked_similarities(model, probes, doubled, None, bank)
    assert alone.dtype == torch.float64
    centroid, _ = masked_similarities(model, probes, several, None, bank)

    def slow(model, probe, reference, contrast=None):
        return slow_scores(model, bank.masks.numpy(), probe, reference, contrast)

    def slow_centroid(model, probe, two):
        net = deepcopy(model.function)
        embedded = net(two)
        if kind == "cosine":
            embedded = embedded / embedded.norm(dim=1, keepdim=True)
        middle, scores = (embedded[0] + embedded[1]) / 2, []
        for mask in bank.masks.double():
            hidden = net((probe * mask)[None])[0]
            score = -(hidden - middle).norm()
            if kind == "cosine":
                score = hidden @ middle / (hidden.norm() * middle.norm())
            scores.append(float(score))
        return scores

    terms = terms_of(model.function) + 2  # the mean of two
    for row in range(3):
        pair = (probes[row], several[row, 0])
        exact = with_condition(model, slow, *pair)
        assert_rounded(alone[row], **exact, terms=terms)
        assert_rounded(of_one_reference_often[row], **exact, terms=terms + 2)  # of four
        exact = with_condition(model, slow, *pair, contrast[row])
        assert_rounded(with_contrast[row], **exact, terms=terms)
        exact = with_condition(model, slow_centroid, probes[row], several[row])
        assert_rounded(centroid[row], **exact, terms=terms)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 150))
def test_weighted_sums_equal_those_mask_by_mask(seed, rows, masks):
    bank = any_bank(masks, (5, 4), seed)
    weights = torch.from_numpy(pcg(seed).normal(size=(rows, masks)))
    found = weighted_sum(weights, bank)
    for row in range(rows):
        expected = sum(
            float(weight) * mask.double()
            for weight, mask in zip(weights[row], bank.masks, strict=True)
        )
        largest = float(weights[row].abs().sum())  # no mask is above 1
        assert_rounded(found[row], expected, terms=masks, scale=largest, unit=FLOAT64)
    assert_rounded(coverage(bank), bank.masks.double().sum(0), terms=masks, unit=FLOAT64)


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_an_image_is_masked_once_whatever_pairs_and_triplets_it_is_in(pooled, explainer):
    size = (16, 16)
    anchor, mate, nonmate, other = (images(2, seed, size) for seed in range(4))
    pool, generator = pooled.pool, pcg(5)

    def cost(probes, references, contrast=None, by=explainer):
        before = pool.forwards
        by.explain(pooled, probes, references, contrast=contrast, generator=generator)
        return pool.forwards - before

    rows = len(anchor)
    assert cost(anchor, mate) == rows * N + rows
    assert cost(anchor, nonmate) == rows  # the same anchor: its masked embeddings are known
    assert cost(mate, anchor) == rows * N + rows
    assert cost(nonmate, anchor) == rows * N + rows  # 3 N for four maps of a triplet
    assert cost(anchor, mate, other) == 2 * rows  # a contrast costs its own embedding
    assert cost(anchor.flip(0), mate) == rows
    recurring = torch.cat([other, other, other[:1]])
    assert cost(recurring, torch.cat([mate, nonmate, mate[:1]])) == rows * N + 5
    assert cost(other, torch.stack([mate, nonmate], dim=1)) == 2 * rows


def test_cells_of_one_geometry_share_and_others_do_not(pooled):
    probes, references, pool = images(2, 1, (16, 16)), images(2, 2, (16, 16)), pooled.pool
    costs = []
    for explainer in (
        SRISE(masks=N, patches=4),
        SRISE(masks=N, patches=4, coverage_corrected=True),
        SRISE(masks=N, patches=4, combination="sum_clipped"),
        SRISE(masks=N, patches=4, placement="inside"),
        CorrRISE(masks=N),
        CorrRISE(masks=N, rank_based=False),
        RISE(masks=N, cells=3),
        RISE(masks=N, cells=3, coverage_corrected=True),
    ):
        before = pool.forwards
        explainer.explain(pooled, probes, references, generator=pcg())
        costs.append(pool.forwards - before)
    new, known = 2 * N + 2, 2
    assert costs == [new, known, new, new, new, known, new, known]


def test_both_sides_of_a_list_share_the_images_that_recur(pooled):
    pairs = make_pairs(20, shared_probe=True)  # twenty pairs of one probe, and their references
    explainer = EXPLAINERS[0]
    for side, distinct in (("probe", 1), ("reference", 20)):
        before = pooled.pool.forwards
        explain(explainer, pooled, comparison(pairs, side), seed=1, progress=lambda *_: None)
        assert pooled.pool.forwards - before == distinct * N + len(pairs)
    again = pooled.pool.forwards
    explain(explainer, pooled, comparison(pairs), seed=1, progress=lambda *_: None)
    assert pooled.pool.forwards - again == len(pairs)  # the references alone
    explain(explainer, pooled, comparison(pairs), seed=2, progress=lambda *_: None)
    assert pooled.pool.forwards - again == 2 * len(pairs) + N  # another suite, another bank


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_memory_changes_no_map(explainer):
    probes, references = images(3, 1, (16, 16)), images(3, 2, (16, 16))
    # In float64, or rounding may swap two ranks.
    model = CountingModel(InFloat64(ConvNet()).eval())
    alone = explainer.explain(model, probes, references, generator=pcg()).positive
    remembering = PooledModel(model, ForwardPool(batch_size=16), "key")
    first, second = (
        explainer.explain(remembering, probes, references, generator=pcg()).positive
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert_rounded(first, alone, terms=2)  # each is rounded once, at its end


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_no_more_than_one_images_embeddings_are_in_memory(explainer):
    alive = []

    class Watched(BlackBox):
        def embed_masked(self, image, bank, fill):
            assert all(one() is None for one in alive)
            found = self.function(image * bank.masks[:, None])
            alive.append(weakref.ref(found))
            return found.to(image.device)

    size = (16, 16)
    model = Watched(random_projection(size))
    explainer.explain(model, images(6, 1, size), images(6, 2, size), generator=pcg())
    assert len(alive) == 6


def test_the_bank_of_a_call_is_the_same_object_every_time():
    assert mask_bank(pcg(3), SRISE(masks=2), (40, 40)) is mask_bank(
        pcg(3), SRISE(masks=2, coverage_corrected=True), (40, 40)
    )

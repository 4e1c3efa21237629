"""S-RISE against explicit loops: golden mask, count of forward passes, planted truth."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fxeval.explainers.s_rise as masking
from fxeval.contracts import Explainer, RowState
from fxeval.errors import ExplainerContractError, FxevalError, ModelContractError
from fxeval.explainers.mask_banks import unsupported_last
from fxeval.explainers.s_rise import SRISE, mask_bank
from fxeval.functional.ranking import ranks
from fxeval.tests.black_boxes import (
    SIZE,
    BlackBox,
    InFloat64,
    images,
    pcg,
    planted,
    random_projection,
    slow_scores,
    with_condition,
)
from fxeval.tests.rounding import allowance, assert_rounded


def explain(explainer, model, probes, references, contrast=None, seed=0) -> Tensor:
    return explainer.explain(
        model, probes, references, contrast=contrast, generator=pcg(seed)
    ).positive


def slow_bank(seed, masks, patches, side, sigma, size, how="max", where="anywhere") -> np.ndarray:
    """Every pixel of every patch in a loop of its own."""
    generator, (height, width) = pcg(seed), size
    bank = np.zeros((masks, height, width))
    for mask in bank:
        if where == "anywhere":
            tops = generator.integers(0, height, patches) - side // 2
            lefts = generator.integers(0, width, patches) - side // 2
        else:
            tops = generator.integers(0, height - side, patches, endpoint=True)
            lefts = generator.integers(0, width - side, patches, endpoint=True)
        for i, j in np.ndindex(height, width):
            shown = [
                np.exp(-((i - y - (side - 1) / 2) ** 2 + (j - x - (side - 1) / 2) ** 2)
                       / (2 * sigma**2))
                for y, x in zip(tops, lefts, strict=True)
                if y <= i < y + side and x <= j < x + side
            ]  # fmt: skip
            mask[i, j] = max(shown, default=0.0) if how == "max" else sum(shown)
        if how == "sum_stretched" and mask.max() > mask.min():
            mask[:] = (mask - mask.min()) / (mask.max() - mask.min())
    return bank if how == "sum" else bank.clip(0, 1)


def slow_srise(model: BlackBox, probe, reference, contrast=None, *, bank, corrected):
    scores = slow_scores(model, bank, probe, reference, contrast)
    if model.similarity == "neg_l2":
        scores = [score - min(scores) for score in scores]
    total = sum(score * mask for score, mask in zip(scores, bank, strict=True))
    return total / np.maximum(bank.sum(axis=0), 1e-9) if corrected else total


def test_the_first_default_mask_is_the_golden_one():
    generator = pcg()
    bank = mask_bank(generator, SRISE(masks=2), (112, 112)).masks
    # Half a unit of the last digit, and values of at most 1 that are rounded once.
    of_all = 5e-7 + allowance(112 * 112)
    assert float(bank[0].double().sum()) == pytest.approx(8490.720725, abs=of_all)
    assert float(bank[0, 0, 0]) == pytest.approx(0.73254941, abs=5e-9 + allowance(1))
    assert float(bank[0, 56, 56]) == pytest.approx(0.86246632, abs=5e-9 + allowance(1))
    assert generator.integers(0, 112, 100)[:3].tolist() == [95, 71, 57]  # and it was not advanced
    assert generator.integers(0, 112, 100)[:3].tolist() == [44, 88, 35]


@pytest.mark.parametrize(
    ("combination", "mean", "centre", "corner"),
    [("max", 0.70, 0.705, 0.679), ("sum_clipped", 0.95, 0.98, 0.86),
     ("sum_stretched", 0.38, 0.405, 0.264)],
)  # fmt: skip
def test_each_reading_keeps_what_the_table_says(combination, mean, centre, corner):
    geometry = SRISE(masks=100, combination=combination)
    bank = mask_bank(pcg(), geometry, (112, 112)).masks.double()  # means have digits to spare
    assert float(bank.mean()) == pytest.approx(mean, abs=0.005)
    # The table's places: the middle 12 x 12 pixels, and 8 x 8 at the upper left.
    digits = 0.005 if combination == "sum_clipped" else 0.0005
    assert float(bank[:, 50:62, 50:62].mean()) == pytest.approx(centre, abs=digits)
    assert float(bank[:, :8, :8].mean()) == pytest.approx(corner, abs=digits)


def test_patches_inside_show_the_centre_and_never_a_corner():
    kept = {}
    for combination in ("max", "sum_clipped", "sum_stretched"):
        geometry = SRISE(masks=100, combination=combination, placement="inside")
        bank = mask_bank(pcg(), geometry, (112, 112)).masks
        kept[combination] = round(float(bank.mean()), 2)
        centre = float(bank[:, 50:62, 50:62].mean())
        assert 0.595 <= centre <= 1.0
        assert float(bank[:, :8, :8].mean()) < 0.005
    assert min(kept.values()) == 0.26
    assert max(kept.values()) == 0.65


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 99), st.integers(1, 3), st.integers(1, 5), st.integers(1, 12),
    st.floats(0.5, 6), st.tuples(st.integers(12, 17), st.integers(12, 17)),
    st.sampled_from(["max", "sum_clipped", "sum_stretched"]),
    st.sampled_from(["anywhere", "inside"]),
)  # fmt: skip
def test_a_bank_equals_the_slow_one(seed, masks, patches, side, sigma, size, how, where):
    bank = masking._draw(pcg(seed), masks, patches, side, sigma, how, where, size)
    expected = slow_bank(seed, masks, patches, side, sigma, size, how, where)
    condition = 1.0
    if how == "sum_stretched":  # by taking the smallest value from the largest
        sums = slow_bank(seed, masks, patches, side, sigma, size, "sum", where)
        condition = max(mask.max() / np.ptp(mask) for mask in sums)
    # A patch is rounded, added to others, and its smallest value and its scale are taken out.
    assert_rounded(bank, expected, terms=patches + 4, condition=condition)
    assert bank.dtype == np.float32
    assert bank.min() >= 0
    assert bank.max() <= 1


def test_a_flat_mask_is_not_stretched():
    bank = masking._draw(pcg(), 2, 3, 12, 1e9, "sum_stretched", "inside", (12, 12))
    assert (bank == 1).all()


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(
    ("with_contrast", "reading"),
    [(False, ("max", "anywhere")), (True, ("sum_stretched", "anywhere")),
     (True, ("sum_clipped", "inside"))],
)  # fmt: skip
def test_maps_equal_the_slow_ones(kind, corrected, with_contrast, reading):
    size = (112, 96)
    # Of 32256 products that a tanh flattens, float32 leaves too little.
    model = BlackBox(InFloat64(random_projection(size)), kind)
    probes, references, contrast = (images(2, seed, size) for seed in (1, 2, 3))
    explainer = SRISE(5, 3, 20, 6.0, corrected, *reading)
    maps = explain(explainer, model, probes, references, contrast if with_contrast else None)
    slow = partial(
        slow_srise, bank=slow_bank(0, 5, 3, 20, 6.0, size, *reading), corrected=corrected
    )
    for row in range(2):
        of_row = (probes[row], references[row], *([contrast[row]] if with_contrast else []))
        exact = with_condition(model, slow, *of_row)
        # Rounded are the masks of 3 patches, as above, the images behind them and embeddings.
        assert_rounded(maps[row], **exact, terms=3 + 4 + 2)
    assert maps.dtype == torch.float32


def test_the_geometry_scales_with_the_height_of_the_crop(monkeypatch):
    asked = []
    draw = masking._draw
    monkeypatch.setattr(masking, "_draw", lambda *a: asked.append(a[3:5]) or draw(*a))
    for size in [(112, 112), (150, 150), (56, 40), (63, 63)]:
        mask_bank(pcg(), SRISE(masks=2), size)
    assert [side for side, _ in asked] == [40, 54, 20, 23]  # 53.6, and 22.5 goes up
    assert [sigma for _, sigma in asked] == [7.0, 9.375, 3.5, 3.9375]


def test_rows_do_not_depend_on_their_batch_nor_on_the_rows_that_share_their_probe():
    model = BlackBox(InFloat64(random_projection()))
    probes, references = images(6, 1), images(6, 2)
    probes[3] = probes[0]
    explainer = SRISE(90, 4)
    together = explain(explainer, model, probes, references)
    for row in range(6):
        alone = explain(explainer, model, probes[row : row + 1], references[row : row + 1])[0]
        assert_rounded(together[row], alone, terms=2)  # each is rounded once, at its end
    assert not torch.equal(together[0], together[3])


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("is_corrected", [False, True])
def test_a_model_without_opinion_has_no_map_and_the_state_says_so(kind, is_corrected):
    generator = torch.Generator().manual_seed(0)

    def rounded(batch):
        return torch.ones(len(batch), 4) + 1e-7 * torch.rand(len(batch), 4, generator=generator)

    explainer = SRISE(50, 4, 20, 7.0, is_corrected)
    found = explainer.explain(BlackBox(rounded, kind), images(1, 1), images(1, 2), generator=pcg())
    assert not found.positive.any()
    assert found.states == (RowState.DEGENERATE_MAP,)
    assert "for rounding" in found.reasons[0]


def test_the_published_form_of_a_nearly_constant_model_draws_its_masks():
    model = BlackBox(lambda batch: torch.ones(len(batch), 4) + 0.2 * batch.mean((1, 2, 3))[:, None]
                     * torch.tensor([1.0, 0, 0, 0]))  # fmt: skip
    published = explain(SRISE(50, 4, 20), model, images(1, 1), images(1, 2))
    bank = mask_bank(pcg(), SRISE(50, 4, 20), SIZE).masks
    # No similarity is below 0.98: far more than rounding, and far less than in any other map.
    assert bool(((published[0] - bank.sum(0)).abs() <= 0.02 * bank.sum(0)).all())


def spearman(one: Tensor, two: Tensor) -> float:
    ranked = torch.stack([one.flatten().argsort().argsort(), two.flatten().argsort().argsort()])
    return float(torch.corrcoef(ranked.double())[0, 1])


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_planted_cells_are_ranked_by_their_importance(kind):
    truth = torch.rand((4, 4), generator=torch.Generator().manual_seed(3)) + 0.05
    white = torch.ones(1, 3, 56, 56)
    map_ = explain(SRISE(4000, coverage_corrected=True), planted(truth, kind), white, white)
    cells = nn.functional.adaptive_avg_pool2d(map_, (4, 4))[0]
    assert spearman(cells, truth) > 0.9
    assert spearman(cells, 1 / truth) < -0.9


def test_the_published_form_draws_its_coverage_into_the_map():
    truth = torch.rand((4, 4), generator=torch.Generator().manual_seed(3)) + 0.05
    white = torch.ones(1, 3, 56, 56)
    agreement = []
    for corrected in (True, False):
        explainer = SRISE(4000, patches=10, coverage_corrected=corrected)
        map_ = explain(explainer, planted(truth, "cosine"), white, white)
        agreement.append(spearman(nn.functional.adaptive_avg_pool2d(map_, (4, 4))[0], truth))
    assert agreement[0] > 0.9
    assert agreement[1] < 0.6


def test_once_corrected_what_too_few_masks_show_is_ranked_last():
    """A corner that is hardly ever shown would have the mean of a few noisy similarities."""
    truth = torch.ones(4, 4)
    truth[0, 0] = 9.0
    white = torch.ones(1, 3, 56, 56)
    explainer = SRISE(200, 10, coverage_corrected=True, placement="inside")
    map_ = explain(explainer, planted(truth, "cosine"), white, white)
    supported = mask_bank(pcg(0), explainer, (56, 56)).masks.sum(0) >= 10
    n = int(supported.sum())
    assert 0 < n < 56 * 56
    assert not supported[0, 0]
    order = ranks(map_, [0]).view(56, 56)
    assert int(order[supported].max()) == n - 1
    assert int(order[~supported].min()) == n


def test_support_alone_is_no_order_and_without_any_the_map_stays():
    supported = torch.ones(8, 8, dtype=torch.bool)
    supported[0] = False
    maps = torch.full((2, 8, 8), 0.5)
    maps[0, 0] = 9.0
    maps[1, 4, 4] = 2.5
    found = unsupported_last(maps, supported)
    assert torch.equal(found[0], torch.full((8, 8), 0.5))
    assert found[1, 0].unique().tolist() == pytest.approx([0.498])
    assert torch.equal(found[1, 1:], maps[1, 1:])
    assert torch.equal(unsupported_last(maps, ~supported & supported), maps)
    assert unsupported_last(maps[:0], supported).shape == (0, 8, 8)


def test_a_contrast_shows_what_speaks_for_one_and_against_the_other():
    def embed(batch: Tensor) -> Tensor:
        quarters = nn.functional.adaptive_avg_pool2d(batch.mean(1), (1, 4))[:, 0]
        return quarters[:, [0, 3]]  # light at the far left, light at the far right

    white = torch.ones(1, 3, 56, 56)
    left, right = white.clone(), white.clone()
    left[..., 28:], right[..., :28] = 0, 0
    explainer = SRISE(500, patches=10, coverage_corrected=True)
    map_ = explain(explainer, BlackBox(embed), white, left, right)[0]
    assert map_[:, :14].mean() > map_[:, 14:42].mean() > map_[:, 42:].mean()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("masks", 0), ("masks", True), ("masks", 2.5), ("patches", 0), ("kernel_size", 0),
        ("sigma", 0.0), ("sigma", -1.0), ("sigma", float("nan")), ("sigma", float("inf")),
        ("sigma", "7"), ("coverage_corrected", 1), ("combination", "mean"), ("placement", None),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ExplainerContractError, match=f"srise: {name} must be"):
        SRISE(**{name: value})


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(ExplainerContractError, match=r"113 x 113 pixels does not fit.*112 x 112"):
        mask_bank(pcg(), SRISE(masks=1, kernel_size=113), (112, 112))
    with pytest.raises(ExplainerContractError, match=r"40 x 40 .*112 x 39.*Lower kernel_size"):
        explain(SRISE(2), BlackBox(None), images(1, 1, (112, 39)), images(1, 2, (112, 39)))


def test_how_much_of_the_image_the_masks_show_is_told():
    model, (probes, references) = BlackBox(random_projection()), (images(3, 1), images(3, 2))
    for explainer in (SRISE(12, 2, 30), SRISE(400, 9), SRISE(9, 9)):
        maps = explainer.explain(model, probes, references, generator=pcg())
        kept = np.sum(
            [mask.astype(float) for mask in mask_bank(pcg(), explainer, SIZE).masks.numpy()], 0
        )
        shown = float(np.mean(kept >= 10))
        assert_rounded(maps.diagnostics["supported_share"], [shown] * 3, terms=1)
    assert shown == 0  # nine masks are never ten


def test_embeddings_that_are_not_numbers_are_the_models_fault():
    model = BlackBox(lambda batch: torch.full((len(batch), 2), torch.nan))
    with pytest.raises(ModelContractError, match="box"):
        explain(SRISE(3, 2), model, images(1, 1), images(1, 2))


def test_no_trace_is_left_in_the_images_the_model_or_the_generators():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3 * 14 * 12, 3)).eval()
    model = BlackBox(net, module=net)
    probes, references = images(3, 1), images(3, 2)
    before = [tensor.clone() for tensor in (probes, references, *net.state_dict().values())]
    state, generator = torch.get_rng_state(), pcg(5)
    drawn = generator.bit_generator.state
    maps = SRISE(9, 2).explain(model, probes, references, generator=generator).positive
    assert not maps.requires_grad
    after = [probes, references, *net.state_dict().values()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert generator.bit_generator.state == drawn
    assert all(p.grad is None for p in net.parameters())


def test_a_model_that_writes_into_its_input_spoils_nothing():
    project = random_projection()
    model = BlackBox(lambda batch: project(batch) + 0 * batch.zero_().sum())
    honest = BlackBox(project)
    probes, references = images(3, 1), images(3, 2)
    expected = explain(SRISE(150, 2), honest, probes, references)
    assert torch.equal(explain(SRISE(150, 2), model, probes, references.clone()), expected)


def test_no_pairs_give_no_maps():
    maps = explain(SRISE(3, 2), BlackBox(random_projection()), images(1, 1)[:0], images(1, 2)[:0])
    assert maps.shape == (0, *SIZE)


def test_it_is_an_explainer_that_needs_embeddings_only():
    assert isinstance(SRISE(), Explainer)
    assert SRISE.traits.needs == {"black_box"}
    assert SRISE.traits.takes_centroids
    assert "2023" in SRISE.traits.source


def test_errors_are_fxevals_own():
    with pytest.raises(FxevalError):
        SRISE(masks=-1)

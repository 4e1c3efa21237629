"""S-RISE against explicit loops: golden mask, count of forward passes, planted truth."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fxeval.explainers.masking as masking
from fxeval.contracts import Crop, Explainer
from fxeval.errors import ExplainerContractError, FxevalError, ModelContractError
from fxeval.explainers import SHIPPED, check_params, shipped
from fxeval.explainers.masking import CHUNK, SRISE, mask_bank
from fxeval.fixtures.explainers import explainer_gradcam, explainer_srise  # noqa: F401

SIZE = (14, 12)
CROP = Crop("tiny", SIZE, ())


def pcg(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@dataclass(eq=False)
class BlackBox:
    """A face model without a module; notes how many images each forward pass has."""

    function: object
    similarity: str = "cosine"
    name: str = "box"
    crop: Crop = CROP
    operating_threshold: float | None = None
    digest: str = "0"
    module: nn.Module | None = None
    passes: list[int] = field(default_factory=list)

    def embed(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return self.function(images)


def random_projection(size: tuple[int, int] = SIZE, dimensions: int = 6):
    weights = torch.randn(
        (3 * size[0] * size[1], dimensions), generator=torch.Generator().manual_seed(7)
    )
    return lambda images: torch.tanh((images.flatten(1) - 0.4) @ weights / 10)


def images(n: int, seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def explain(explainer, model, probes, references, contrast=None, seed=0) -> Tensor:
    return explainer.explain(
        model, probes, references, contrast=contrast, generator=pcg(seed)
    ).positive


def slow_bank(seed, masks, patches, side, sigma, size) -> np.ndarray:
    """Every pixel of every patch in a loop of its own."""
    generator, (height, width) = pcg(seed), size
    bank = np.zeros((masks, height, width))
    for mask in bank:
        ys = generator.integers(0, height, patches)
        xs = generator.integers(0, width, patches)
        for y, x in zip(ys, xs, strict=True):
            for u in range(side):
                for v in range(side):
                    i, j = y - side // 2 + u, x - side // 2 + v
                    if 0 <= i < height and 0 <= j < width:
                        square = (u - (side - 1) / 2) ** 2 + (v - (side - 1) / 2) ** 2
                        mask[i, j] = max(mask[i, j], np.exp(-square / (2 * sigma**2)))
    return bank


def slow_similarity(kind: str, one: np.ndarray, two: np.ndarray) -> float:
    if kind == "cosine":
        return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))
    return -float(np.linalg.norm(one - two))


def slow_srise(model: BlackBox, bank: np.ndarray, probe, reference, contrast, corrected):
    def f(image: Tensor) -> np.ndarray:
        return model.function(image[None].float())[0].double().numpy()

    scores = []
    for mask in bank:
        masked = f(probe * torch.from_numpy(mask))
        score = slow_similarity(model.similarity, masked, f(reference))
        if contrast is not None:
            score -= slow_similarity(model.similarity, masked, f(contrast))
        scores.append(score)
    if model.similarity == "neg_l2":
        scores = [score - min(scores) for score in scores]
    total = sum(score * mask for score, mask in zip(scores, bank, strict=True))
    return total / np.maximum(bank.sum(axis=0), 1e-9) if corrected else total


def test_the_first_default_mask_is_the_golden_one():
    generator = pcg()
    bank = mask_bank(generator, 2, 100, 40, 7.0, (112, 112))
    assert float(bank[0].double().sum()) == pytest.approx(8490.720725, abs=5e-6)
    assert float(bank[0, 0, 0]) == pytest.approx(0.73254941, abs=5e-8)
    assert float(bank[0, 56, 56]) == pytest.approx(0.86246632, abs=5e-8)
    assert generator.integers(0, 112, 100)[:3].tolist() == [95, 71, 57]  # and it was not advanced
    assert generator.integers(0, 112, 100)[:3].tolist() == [44, 88, 35]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 99), st.integers(1, 3), st.integers(1, 5), st.integers(1, 12),
    st.floats(0.5, 6), st.tuples(st.integers(12, 17), st.integers(12, 17)),
)  # fmt: skip
def test_a_bank_equals_the_slow_one(seed, masks, patches, side, sigma, size):
    bank = mask_bank(pcg(seed), masks, patches, side, sigma, size)
    expected = slow_bank(seed, masks, patches, side, sigma, size)
    np.testing.assert_allclose(bank.numpy(), expected, atol=1e-7)
    assert bank.dtype == torch.float32


def test_a_bank_is_drawn_once_per_state_parameters_and_size(monkeypatch):
    drawn = []
    draw = masking._draw_bank
    monkeypatch.setattr(masking, "_draw_bank", lambda *a: drawn.append(1) or draw(*a))
    monkeypatch.setattr(masking, "_banks", type(masking._banks)())
    generator = pcg(11)
    first = mask_bank(generator, 3, 4, 5, 2.0, SIZE)
    for _ in range(40):
        assert mask_bank(pcg(11), 3, 4, 5, 2.0, SIZE) is first
    assert len(drawn) == 1
    for other in [(3, 4, 5, 2.5, SIZE), (3, 4, 6, 2.0, SIZE), (4, 4, 5, 2.0, SIZE)]:
        assert mask_bank(generator, *other).shape[0] == other[0]
    generator.integers(0, 9)
    assert not torch.equal(mask_bank(generator, 3, 4, 5, 2.0, SIZE), first)
    assert len(drawn) == 5
    assert len(masking._banks) == masking._KEPT_BANKS


def test_the_bank_that_was_used_last_is_kept_longest():
    first = mask_bank(pcg(0), 1, 1, 3, 2.0, SIZE)
    for seed in range(1, 9):
        mask_bank(pcg(seed), 1, 1, 3, 2.0, SIZE)
        assert mask_bank(pcg(0), 1, 1, 3, 2.0, SIZE) is first


def test_generators_with_states_in_arrays_have_banks_too():
    banks = [
        mask_bank(np.random.Generator(np.random.MT19937(seed)), 2, 3, 4, 2.0, SIZE)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("with_contrast", [False, True])
def test_maps_equal_the_slow_ones(kind, corrected, with_contrast):
    size = (112, 96)
    model = BlackBox(random_projection(size), kind)
    probes, references, contrast = (images(2, seed, size) for seed in (1, 2, 3))
    explainer = SRISE(5, 3, 20, 6.0, corrected)
    maps = explain(explainer, model, probes, references, contrast if with_contrast else None)
    bank = slow_bank(0, 5, 3, 20, 6.0, size)
    for row in range(2):
        against = contrast[row] if with_contrast else None
        expected = slow_srise(model, bank, probes[row], references[row], against, corrected)
        np.testing.assert_allclose(
            maps[row], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
        )
    assert maps.dtype == torch.float32


def test_the_geometry_scales_with_the_height_of_the_crop(monkeypatch):
    asked = []
    bank = masking.mask_bank
    monkeypatch.setattr(masking, "mask_bank", lambda *a: asked.append(a[1:]) or bank(*a))
    for size in [(112, 112), (150, 150), (56, 40), (63, 63)]:
        model = BlackBox(lambda batch: batch.mean((2, 3)) + 1)
        explain(SRISE(masks=2), model, images(1, 1, size), images(1, 2, size))
    assert [geometry[2] for geometry in asked] == [40, 54, 20, 23]  # 53.6, and 22.5 goes up
    assert [geometry[3] for geometry in asked] == [7.0, 9.375, 3.5, 3.9375]


def test_no_forward_pass_is_wasted():
    masks, rows = 100, 7
    probes, references = images(rows, 1), images(rows, 2)
    probes[4], probes[6] = probes[1], probes[1]  # five distinct probes
    model = BlackBox(random_projection())
    contrast = images(rows, 3)
    explain(SRISE(masks, 4), model, probes, references, contrast)
    assert model.passes == [rows, rows, CHUNK, 500 - CHUNK]
    assert sum(model.passes) == 2 * rows + 5 * masks
    many = BlackBox(random_projection())
    explain(SRISE(1, 4), many, images(300, 1), images(300, 2))
    assert many.passes == [CHUNK, 300 - CHUNK, CHUNK, 300 - CHUNK]


def test_rows_do_not_depend_on_their_batch_nor_on_the_rows_that_share_their_probe():
    model = BlackBox(random_projection())
    probes, references = images(6, 1), images(6, 2)
    probes[3] = probes[0]
    explainer = SRISE(90, 4)
    together = explain(explainer, model, probes, references)
    for row in range(6):
        alone = explain(explainer, model, probes[row : row + 1], references[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-5)
    assert not torch.equal(together[0], together[3])


def test_only_the_corrected_form_of_a_model_without_opinion_is_flat():
    model = BlackBox(lambda batch: torch.ones(len(batch), 4))
    published = explain(SRISE(50, 4, 20), model, images(1, 1), images(1, 2))
    corrected = explain(SRISE(50, 4, 20, 7.0, True), model, images(1, 1), images(1, 2))
    bank = mask_bank(pcg(), 50, 4, 3, 7.0 * 14 / 112, SIZE)
    torch.testing.assert_close(published[0], bank.sum(0))
    covered = bank.sum(0) > 0
    torch.testing.assert_close(corrected[0][covered], torch.ones(int(covered.sum())))
    assert corrected[0][~covered].eq(0).all()


def spearman(one: Tensor, two: Tensor) -> float:
    ranked = torch.stack([one.flatten().argsort().argsort(), two.flatten().argsort().argsort()])
    return float(torch.corrcoef(ranked.double())[0, 1])


def planted(truth: Tensor, kind: str) -> BlackBox:
    """The embedding is a sum over cells: light times importance along one axis, plus a constant.

    Seen against an all-white reference, a cell's light is worth its importance, exactly.
    """
    constant = 3 * truth.sum()

    def embed(batch: Tensor) -> Tensor:
        light = nn.functional.adaptive_avg_pool2d(batch.mean(1), truth.shape)
        evidence = (light * truth).sum((1, 2))
        return torch.stack([evidence, constant.expand(len(batch))], 1)

    return BlackBox(embed, kind)


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
        ("sigma", "7"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ExplainerContractError, match=f"srise: {name} must be"):
        SRISE(**{name: value})


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(ExplainerContractError, match=r"113 x 113 pixels does not fit.*112 x 112"):
        mask_bank(pcg(), 1, 1, 113, 7.0, (112, 112))
    with pytest.raises(ExplainerContractError, match=r"40 x 40 .*112 x 39.*Lower kernel_size"):
        explain(SRISE(2), BlackBox(None), images(1, 1, (112, 39)), images(1, 2, (112, 39)))
    with pytest.raises(ExplainerContractError, match="masks"):
        mask_bank(pcg(), 0, 1, 3, 7.0, (112, 112))


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
    assert SRISE.needs == {"black_box"}


@pytest.mark.parametrize("id", SHIPPED)
def test_every_shipped_explainer_works_with_its_defaults(id):
    explainer = shipped(id)()
    assert isinstance(explainer, Explainer)
    assert explainer.needs
    assert check_params(id, {}) == []
    with pytest.raises(AttributeError):
        explainer.layer = explainer.masks = 1


@pytest.mark.parametrize(
    ("id", "params", "faults"),
    [
        ("srise", {"masks": 10, "sigma": 7, "coverage_corrected": True}, {}),
        ("gradcam", {"layer": "conv1"}, {}),
        ("gradcam", {"layer": None}, {}),
        ("srise", {"maks": 10}, {"maks": "Did you mean 'masks'"}),
        ("gradcam", {"zzz": 1}, {"zzz": "Known: layer"}),
        ("srise", {"masks": "10"}, {"masks": "expected a whole number, got '10' (str)"}),
        ("srise", {"masks": True}, {"masks": "expected a whole number, got True (bool)"}),
        ("srise", {"masks": 1.0}, {"masks": "expected a whole number, got 1.0 (float)"}),
        ("srise", {"coverage_corrected": 1}, {"coverage_corrected": "expected true or false"}),
        ("gradcam", {"layer": 3}, {"layer": "expected text or null, got 3 (int)"}),
        (
            "srise",
            {"masks": 0, "patches": 5, "sigma": -1.0},
            {"masks": "at least 1", "sigma": "above 0"},
        ),
    ],
)
def test_faulty_parameters_are_found_all_at_once_and_by_key(id, params, faults):
    found = check_params(id, params)
    assert [key for key, _ in found] == list(faults)
    for key, message in found:
        assert faults[key] in message


def test_the_fixtures_give_the_shipped_explainers_with_their_defaults(
    explainer_gradcam,  # noqa: F811
    explainer_srise,  # noqa: F811
):
    assert explainer_gradcam == shipped("gradcam")()
    assert explainer_srise == shipped("srise")()


def test_errors_are_fxevals_own():
    with pytest.raises(FxevalError):
        SRISE(masks=-1)

"""The planted truth against loops that blacken one cell at a time; controls that must fail."""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats

from fxeval.contracts import ExplainerTraits, RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers import SHIPPED, shipped
from fxeval.explainers.s_rise import SRISE
from fxeval.functional.controls import centre
from fxeval.functional.map_similarity import spearman
from fxeval.functional.similarity import similarity
from fxeval.models.loading import check_loaded
from fxeval.suite.preflight import check_params
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of
from fxeval.truth.planted import (
    CELL,
    CELLS,
    AdditiveFace,
    contributions,
    planted_model,
    planted_pairs,
    rank_correlation,
    textures,
    truth,
)
from fxeval.truth.table import SETTINGS, as_markdown, planted_table


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def pairs(model):
    return planted_pairs(model, 24)


@pytest.fixture(scope="module")
def true_maps(model, pairs):
    return truth(model, pairs.probes, pairs.references)


def blackened(image, row: int, column: int):
    image = image.clone()
    for y in range(CELL):
        for x in range(CELL):
            image[:, row * CELL + y, column * CELL + x] = 0.0
    return image


def native(kind: str, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    if kind == "neg_l2":
        return -((one - two) ** 2).sum().sqrt()
    return one @ two / ((one @ one) * (two @ two)).sqrt()


def exact(model):
    """The network in float64; it embeds one image."""
    net = deepcopy(model.module).double()
    return net, lambda image: net(image[None].double())[0].detach()


def drops(probe, of) -> torch.Tensor:
    """The loss by blackening each cell of a number that is ``of`` the image."""
    cells = [[blackened(probe, row, column) for column in range(CELLS)] for row in range(CELLS)]
    return of(probe) - torch.stack([torch.stack([of(one) for one in line]) for line in cells])


def test_the_inner_product_is_the_sum_of_the_cells_contributions(model, pairs):
    parts = contributions(model.module, pairs.probes, pairs.references)
    assert parts.shape == (24, CELLS, CELLS)
    net, embedding = exact(model)

    def products(probes, references) -> torch.Tensor:
        return (net(probes) * net(references)).sum(dim=1)

    bias = model.module.head.bias.detach().double()
    targets = torch.stack([embedding(one) for one in pairs.references])
    assert_rounded(
        targets @ bias + parts.sum(dim=(1, 2)),
        products(pairs.probes.double(), pairs.references.double()),
        terms=terms_of(net),
        condition=condition_of(products, pairs.probes, pairs.references, module=net),
    )


def test_blackening_a_cell_takes_exactly_its_contribution_away(model, pairs):
    probe, reference = pairs.probes[3], pairs.references[3]
    parts = contributions(model.module, probe[None], reference[None])[0]
    net, embedding = exact(model)

    def compute(probe, reference) -> torch.Tensor:
        target = embedding(reference)
        return drops(probe, lambda image: embedding(image) @ target)

    assert_rounded(
        parts,
        compute(probe, reference),
        terms=terms_of(net),
        condition=condition_of(compute, probe, reference, module=net),
    )


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_the_truth_is_the_drop_of_the_native_similarity(kind):
    model = planted_model(kind=kind)
    pairs = planted_pairs(model, 2)
    found = truth(model, pairs.probes, pairs.references)
    against = truth(model, pairs.probes, pairs.references, pairs.nonmates)
    net, embedding = exact(model)

    def drop(probe, mate) -> torch.Tensor:
        target = embedding(mate)
        return drops(probe, lambda image: native(kind, embedding(image), target))

    def contrasted(probe, mate, nonmate) -> torch.Tensor:
        return drop(probe, mate) - drop(probe, nonmate)

    given = pairs.probes[1], pairs.references[1], pairs.nonmates[1]
    for maps, compute, images in ((found, drop, given[:2]), (against, contrasted, given)):
        assert_rounded(
            maps[1],
            compute(*images),
            terms=terms_of(net),
            condition=condition_of(compute, *images, module=net),
        )


def test_a_cells_contribution_depends_on_nothing_outside_it(model, pairs):
    probe = pairs.probes[0].clone()
    probe[:, 2 * CELL : 3 * CELL, 5 * CELL : 6 * CELL] = 0.7
    before = contributions(model.module, pairs.probes[:1], pairs.references[:1])[0]
    after = contributions(model.module, probe[None], pairs.references[:1])[0]
    changed = (before - after).abs() > 1e-9
    assert changed.nonzero().tolist() == [[2, 5]]


def test_cells_matter_very_differently_and_differently_in_every_pair(true_maps):
    flat = true_maps.flatten(1)
    peak_to_median = flat.abs().amax(1) / flat.abs().median(1).values
    assert float(peak_to_median.median()) > 5
    assert 0.2 < float((flat < 0).double().mean()) < 0.5
    strengths = planted_model().module.head.weight.detach().norm(dim=0)
    assert float(strengths.max() / strengths.median()) > 3
    assert float(strengths.median() / strengths.min()) > 3
    assert abs(np.mean(spearman(flat, flat.roll(1, 0)))) < 0.15


def test_the_model_verifies_and_keeps_the_contract(model):
    check_loaded(model)
    pairs = planted_pairs(model, 60, seed=11)
    first, second, third = (
        model.embed(images) for images in (pairs.probes, pairs.references, pairs.nonmates)
    )
    mated = similarity(model.similarity, first, second) >= model.operating_threshold
    nonmated = similarity(model.similarity, first, third) >= model.operating_threshold
    assert float(mated.double().mean()) > 0.85
    assert float(nonmated.double().mean()) < 0.15
    assert planted_model().digest == model.digest != planted_model(1).digest


def test_faces_repeat_with_their_address_and_do_not_depend_on_each_other(model, pairs):
    few = planted_pairs(model, 3)
    assert torch.equal(few.probes, pairs.probes[:3])
    assert torch.equal(few.references, pairs.references[:3])
    assert torch.equal(few.nonmates, few.references[[2, 0, 1]])
    assert not torch.equal(planted_pairs(model, 3, seed=1).probes, few.probes)
    images = textures(3, "any", 5)
    assert torch.equal(images[:2], textures(2, "any", 5))
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert torch.equal((images * 255).round() / 255, images)
    steps = (images[..., 1:] - images[..., :-1]).abs()
    assert float(steps.amax()) < 0.35  # smooth: noise would jump by nearly 1
    assert few.gallery.probe_identity.tolist() == [0, 1, 2]
    assert len(few.gallery.embeddings) == 3 + 64
    with pytest.raises(ValueError, match="at least 2 pairs"):
        planted_pairs(model, 1)


def test_no_global_generator_is_touched():
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    planted_pairs(planted_model(5), 2)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_the_correlation_is_scipys_on_means_of_cells(true_maps):
    maps = torch.rand((24, CELLS * CELL, CELLS * CELL), generator=torch.Generator().manual_seed(0))
    found = rank_correlation(maps, true_maps)
    for row in range(24):
        means = np.zeros((CELLS, CELLS))
        for i in range(CELLS):
            for j in range(CELLS):
                tile = maps[row, i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL]
                means[i, j] = float(tile.double().mean())
        expected = stats.spearmanr(means.ravel(), true_maps[row].flatten().numpy()).statistic
        assert found[row] == pytest.approx(expected, abs=1e-9)


def upscaled(cells):
    return cells.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2).float()


def test_the_truth_itself_has_correlation_one_and_signed_maps_are_put_together(true_maps):
    maps = upscaled(true_maps)
    assert rank_correlation(maps, true_maps) == pytest.approx(1.0)
    assert rank_correlation(-maps, true_maps) == pytest.approx(-1.0)
    signed = SaliencyMaps(maps.clamp_min(0), (-maps).clamp_min(0))
    assert rank_correlation(signed, true_maps) == pytest.approx(1.0)
    half = rank_correlation(maps.clamp_min(0), true_maps)
    assert (half < 0.999).all()


def test_maps_without_an_order_have_no_correlation(true_maps):
    maps = upscaled(true_maps[:5])
    maps[0] = 0.1
    maps[1, 0, 0] = float("nan")
    maps[2] = 0.1 + 1e-14 * maps[2]  # constant as the admission of maps sees it
    states = (RowState.OK,) * 3 + (RowState.NO_GRADIENT, RowState.OK)
    found = rank_correlation(SaliencyMaps(maps, None, states), true_maps[:5])
    assert np.isnan(found).tolist() == [True] * 4 + [False]


@dataclass(frozen=True)
class Oracle:
    """The exact contributions; with a contrast, those to both."""

    contrastive: bool = False
    wanting: str = ""

    @property
    def traits(self):
        return ExplainerTraits({"contrast"} if self.contrastive else ())

    def explain(self, model, probes, references, *, contrast=None, generator):
        if self.wanting:
            raise ExplainerContractError(self.wanting)
        parts = contributions(model.module, probes, references)
        if contrast is not None:
            parts = parts - contributions(model.module, probes, contrast)
        return upscaled(parts)


@dataclass(frozen=True)
class SometimesFlat:
    traits: ClassVar[ExplainerTraits] = ExplainerTraits()

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = upscaled(contributions(model.module, probes, references))
        maps[0], maps[1] = 3.0, float("nan")
        return maps


def test_the_table_separates_who_knows_the_truth_from_who_does_not():
    table = planted_table(
        24,
        explainers={
            "oracle": Oracle(), "triplets": Oracle(contrastive=True), "few": SRISE(masks=20),
            "flat": SometimesFlat(), "refused": Oracle(wanting="no such layer"),
        },
    )  # fmt: skip
    rows = {row.name: row for row in table}
    assert rows["oracle"].correlation.low > 0.8
    assert rows["triplets"].correlation.low > 0.8
    assert rows["oracle"].correlation == rows["contribution to the inner product"].correlation
    for name in ("random_pixels", "random_blobs", "random_rectangle", "centre", "edge"):
        assert abs(rows[f"control.{name}"].correlation.value) < 0.15
    assert rows["a constant"].correlation.value == 0.0
    assert rows["a constant"].degenerate == 24
    assert rows["few"].forwards == 20 + 1
    assert rows["oracle"].forwards == 1  # it reads the cells, and embeds the reference
    assert (rows["flat"].degenerate, rows["flat"].broken) == (1, 1)
    assert rows["flat"].correlation.n_pairs == 23
    assert rows["refused"].correlation is None
    assert rows["refused"].broken == 24
    markdown = as_markdown(table)
    assert len(markdown.splitlines()) == 2 + len(table)
    assert "| refused | no such layer | | | 24 | |" in markdown
    assert len({line.count("|") for line in markdown.splitlines()}) == 1


def test_the_middle_of_the_crop_knows_nothing_of_the_pair(true_maps):
    maps = centre(24, (CELLS * CELL, CELLS * CELL))
    assert abs(rank_correlation(maps, true_maps).mean()) < 0.1


def test_every_seed_is_a_model_of_its_own():
    one, two = AdditiveFace(0), AdditiveFace(1)
    assert torch.equal(one.cells.weight, two.cells.weight)
    assert not torch.equal(one.head.weight, two.head.weight)


# Lower bounds with 12 pairs: correlation with the truth, and with its magnitude.
TOLD = {
    "InputXGradient": (0.8, 0), "IntegratedGradients": (0.8, 0), "CAM": (0.65, 0),
    "SDDCAM": (0.6, 0), "LayerCAM": (0.35, 0.25), "LEAM": (0.35, 0.25), "RISE": (0.3, 0),
    "OcclusionSensitivity": (0.75, 0), "XFace": (0.45, 0), "CorrRISE": (0.25, 0),
    "MinPlus": (0.4, 0), "EBP": (-1, 0.35), "Gradient": (-1, 0.2), "SmoothGrad": (-1, 0.2),
    "GradCAMpp": (-1, 0.2),
}  # fmt: skip


@pytest.mark.parametrize("id", [id for id in SHIPPED if id not in ("precomputed", "rollout")])
def test_shipped_explainers_know_more_of_the_pair_than_controls(id):
    explainer = shipped(id)(**{"minplus": {"step": 14}}.get(id, {}))
    found, *others = planted_table(12, explainers={id: explainer})
    assert found.broken == 0
    assert found.correlation is not None
    signed, size = TOLD.get(type(explainer).__name__, (-1, -1))
    assert found.correlation.low > signed
    assert found.with_magnitude.low > size
    if signed > 0:
        controls = [row for row in others if row.name.startswith("control.")]
        assert len(controls) == 5
        assert all(row.correlation.high < found.correlation.low for row in controls)


def test_attention_rollout_has_nothing_to_say_of_a_model_without_attention():
    found, *_ = planted_table(4, explainers={"rollout": shipped("rollout")()})
    assert (found.correlation, found.broken) == (None, 4)
    assert found.note.startswith("the model shows no attention")


def test_settings_name_what_is_shipped_and_what_it_takes():
    assert {"srise", "rise", "minplus"} <= SETTINGS.keys() & SHIPPED.keys()
    for id in SETTINGS.keys() & SHIPPED.keys():
        for params in SETTINGS[id]:
            assert check_params("explainer", id, params) == []

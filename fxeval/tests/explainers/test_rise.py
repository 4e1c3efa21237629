"""RISE against scipy's enlargement and loops over masks; planted truth; controls that fail."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch import nn

import fxeval.explainers.rise as rise
from fxeval.contracts import Explainer, RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.rise import RISE, grid_bank
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
from fxeval.tests.rounding import assert_rounded, terms_of


def explain(explainer, model, probes, references, contrast=None):
    return explainer.explain(model, probes, references, contrast=contrast, generator=pcg())


def slow_bank(seed, masks, cells, p, size) -> np.ndarray:
    """Enlarge each grid as skimage's ``resize(order=1, mode="reflect")`` does, then cut."""
    generator = pcg(seed)
    numbers = generator.random((masks, cells, cells))
    cell = [math.ceil(side / cells) for side in size]
    down = generator.integers(0, cell[0], masks)
    right = generator.integers(0, cell[1], masks)
    bank = np.zeros((masks, *size))
    for i, grid in enumerate((numbers < p).astype(float)):
        factors = [(cells + 1) * side / cells for side in cell]
        large = ndimage.zoom(grid, factors, order=1, mode="mirror", grid_mode=True)
        assert large.shape == tuple((cells + 1) * side for side in cell)
        bank[i] = large[down[i] : down[i] + size[0], right[i] : right[i] + size[1]]
    return bank


def slow_rise(model, probe, reference, contrast=None, *, bank, p, corrected):
    scores = slow_scores(model, bank, probe, reference, contrast)
    if model.similarity == "neg_l2":
        scores = [score - min(scores) for score in scores]
    total = sum(score * mask for score, mask in zip(scores, bank, strict=True))
    return total / np.maximum(bank.sum(0), 1e-9) if corrected else total / (len(bank) * p)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 99), st.integers(1, 4), st.integers(2, 9), st.floats(0.1, 0.9),
    st.tuples(st.integers(9, 23), st.integers(9, 23)),
)  # fmt: skip
def test_a_bank_equals_the_slow_one(seed, masks, cells, p, size):
    bank = rise._draw(pcg(seed), masks, cells, p, size)
    # A pixel is a sum over the cells of a column, then over those of a row.
    assert_rounded(bank, slow_bank(seed, masks, cells, p, size), terms=2 * cells)
    assert bank.dtype == np.float32
    assert bank.min() >= 0
    assert bank.max() <= 1


def test_a_single_cell_is_kept_or_not_as_a_whole():
    bank = grid_bank(pcg(), 50, 1, 0.5, (9, 12)).masks.flatten(1)
    assert (bank == bank[:, :1]).all()
    assert set(bank[:, 0].tolist()) == {0.0, 1.0}


def test_masks_keep_their_probability_at_every_place():
    for p in (0.3, 0.5):
        kept = grid_bank(pcg(), 2000, 7, p, (112, 112)).masks.mean(0)
        assert float(kept.mean()) == pytest.approx(p, abs=0.01)
        # 4 standard deviations of a mean of 2000 at the places where a mask is 0 or 1.
        assert float((kept - p).abs().max()) < 4 * (p * (1 - p) / 2000) ** 0.5


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("with_contrast", [False, True])
def test_maps_equal_the_slow_ones(kind, corrected, with_contrast):
    model = BlackBox(random_projection(), kind)
    probes, references, contrast = (images(2, seed) for seed in (1, 2, 3))
    explainer = RISE(9, 4, 0.4, corrected)
    maps = explain(explainer, model, probes, references, contrast if with_contrast else None)
    bank = slow_bank(0, 9, 4, 0.4, SIZE)
    slow = partial(slow_rise, bank=bank, p=0.4, corrected=corrected)
    for row in range(2):
        of_row = (probes[row], references[row], *([contrast[row]] if with_contrast else []))
        exact = with_condition(model, slow, *of_row)
        # And a mask is a sum over its cells, as above.
        assert_rounded(maps.positive[row], **exact, terms=terms_of(model.function) + 2 * 4)
    assert maps.positive.dtype == torch.float32
    shown = float(np.mean(bank.sum(0) >= 10))
    assert_rounded(maps.diagnostics["supported_share"], [shown] * 2, terms=1)


def test_the_share_of_pixels_with_support_follows_the_masks():
    model = BlackBox(random_projection())
    for masks, share in ((9, 0.0), (500, 1.0)):
        maps = explain(RISE(masks), model, images(1, 1), images(1, 2))
        assert maps.diagnostics["supported_share"].tolist() == [share]


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_planted_cells_are_ranked_by_their_importance(kind):
    truth = torch.rand((4, 4), generator=torch.Generator().manual_seed(3)) + 0.05
    white = torch.ones(1, 3, 56, 56)
    explainer = RISE(coverage_corrected=True)
    map_ = explain(explainer, planted(truth, kind), white, white).positive
    cells = nn.functional.adaptive_avg_pool2d(map_, (4, 4))[0]
    assert stats.spearmanr(cells.flatten(), truth.flatten()).statistic > 0.8
    assert stats.spearmanr(cells.flatten(), -truth.flatten()).statistic < -0.8


@pytest.mark.parametrize("is_corrected", [False, True])
def test_a_model_without_opinion_has_no_map(is_corrected):
    model = BlackBox(lambda batch: torch.ones(len(batch), 4))
    explainer = RISE(200, 4, coverage_corrected=is_corrected)
    found = explain(explainer, model, images(1, 1), images(1, 2))
    assert found.states == (RowState.DEGENERATE_MAP,)
    assert not found.positive.any()


def test_a_row_does_not_depend_on_its_company():
    model = BlackBox(InFloat64(random_projection()))
    probes, references = images(4, 1), images(4, 2)
    together = explain(RISE(90), model, probes, references).positive
    alone = explain(RISE(90), model, probes[2:3], references[2:3]).positive
    assert_rounded(together[2:3], alone, terms=2)  # each is rounded once, at its end
    assert explain(RISE(9), model, probes[:0], references[:0]).positive.shape == (0, *SIZE)


@pytest.mark.parametrize(
    ("name", "value"),
    [("masks", 0), ("masks", True), ("cells", 0), ("cells", 7.0), ("keep_probability", 0.0),
     ("keep_probability", 1), ("keep_probability", float("nan")), ("keep_probability", "0.5"),
     ("keep_probability", True), ("coverage_corrected", 0)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ExplainerContractError, match=f"rise: {name} must be"):
        RISE(**{name: value})


def test_more_cells_than_pixels_are_refused():
    with pytest.raises(ExplainerContractError, match=r"13 x 13 cells .* 14 x 12.*Lower cells"):
        explain(RISE(cells=13), BlackBox(None), images(1, 1), images(1, 2))


def test_it_is_an_explainer_with_the_published_numbers():
    explainer = RISE()
    assert isinstance(explainer, Explainer)
    assert (explainer.masks, explainer.cells, explainer.keep_probability) == (2000, 7, 0.5)
    assert not explainer.coverage_corrected
    assert RISE.traits.needs == {"black_box"}
    assert RISE.traits.takes_centroids

"""The patch-additive truth against patches swapped one at a time; the order of planted maps."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from fxeval.contracts import traits_of
from fxeval.datasets.faces.alignment import ARCFACE_112, align
from fxeval.datasets.faces.images import read_image
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.errors import ExplainerContractError
from fxeval.fixtures.synthetic.evaluate import PACK
from fxeval.functional.similarity import similarity
from fxeval.models.loading import check_loaded
from fxeval.models.networks.mini_patch import GRID, PATCH
from fxeval.tests.black_boxes import BlackBox
from fxeval.tests.rounding import FLOAT64, allowance, assert_rounded
from fxeval.truth.patch_additive import (
    PatchExplainer,
    contributions,
    patch_model,
    untrained_patch_model,
)
from fxeval.truth.planted import planted_model, rank_correlation

KINDS = ("oracle", "blurred_oracle", "random", "inverse")


@pytest.fixture(scope="module", params=["trained", "untrained"])
def model(request):
    return patch_model() if request.param == "trained" else untrained_patch_model()


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """(2, 6, 3, 112, 112): probes and references of six mated pairs of rendered faces."""
    pack = FacePack(PACK)
    pairs = pack.listing()
    mated = np.flatnonzero(pairs.is_mated)[::60][:6]
    ids = [[side[row] for row in mated] for side in (pairs.probe, pairs.reference)]
    images = [pack.images(one, ARCFACE_112).float() / 255 for one in ids]
    return torch.stack(images)


def maps(model, which: str, faces: Tensor, contrast: Tensor | None = None) -> Tensor:
    found = PatchExplainer(which).explain(
        model, *faces, contrast=contrast, generator=np.random.default_rng(0)
    )
    assert found.negative is None
    return found.positive


def blocks(maps: Tensor) -> Tensor:
    """Return (N, 64, 196) the pixels of each patch."""
    cut = maps.view(len(maps), GRID, PATCH, GRID, PATCH).transpose(2, 3)
    return cut.reshape(len(maps), GRID**2, PATCH**2)


def swapped(image: Tensor, other: Tensor, row: int, column: int) -> Tensor:
    image = image.clone()
    for y in range(row * PATCH, row * PATCH + PATCH):
        for x in range(column * PATCH, column * PATCH + PATCH):
            image[:, y, x] = other[:, y, x]
    return image


def test_contributions_add_up_to_the_cosine(model, faces):
    parts = contributions(model, *faces)
    assert (parts.shape, parts.dtype) == ((6, GRID, GRID), torch.float64)
    whole = similarity("cosine", *map(model.embed, faces))
    assert_rounded(parts.sum((1, 2)), whole, terms=1024, unit=FLOAT64)
    # The sum is of unlike terms: none of them is the cosine shared out.
    assert float((parts.amax((1, 2)) / parts.mean((1, 2))).min()) > 1.2


def test_a_swapped_patch_changes_its_own_term_alone(model, faces):
    probe, reference, other = faces[0, 0], faces[1, 0], faces[0, 1]
    places = [(0, 0), (3, 4), (7, 2)]
    images = torch.stack([swapped(probe, other, *place) for place in places])
    references = reference.expand_as(images)
    before = contributions(model, probe[None], reference[None])[0]
    donor = contributions(model, other[None], reference[None])[0]
    after = contributions(model, images, references)
    changes = similarity("cosine", model.embed(images), model.embed(references)) - before.sum()
    for one, (row, column), change in zip(after, places, changes, strict=True):
        is_own = torch.zeros(GRID, GRID, dtype=torch.bool)
        is_own[row, column] = True
        assert_rounded(one, torch.where(is_own, donor, before), terms=1024)
        # What the patch did to the cosine is the difference of two terms, and not small.
        own = donor[row, column] - before[row, column]
        assert abs(float(own)) > 1e-4
        assert abs(float(change - own)) < allowance(1024)


def test_contributions_are_exact_on_photographs(model, data_root):
    images = json.loads((data_root / "faces_manifest.json").read_text())["images"]
    faces = sorted(images, key=lambda face: face["file"])[:2]
    aligned = [
        align(read_image(data_root / face["file"]), face["landmarks5"], ARCFACE_112)
        for face in faces
    ]
    one, two = (torch.from_numpy(one).permute(2, 0, 1)[None].float() / 255 for one in aligned)
    whole = similarity("cosine", model.embed(one), model.embed(two))
    assert_rounded(contributions(model, one, two).sum((1, 2)), whole, terms=1024, unit=FLOAT64)


def test_the_oracle_ranks_patches_by_their_contributions_and_pixels_within_them(model, faces):
    parts = contributions(model, *faces).flatten(1)
    found = blocks(maps(model, "oracle", faces))
    for own, pixels in zip(parts, found, strict=True):
        order = own.argsort(descending=True)
        ranked = pixels[order].flatten()  # patch by patch, row by row
        assert bool((ranked[:-1] > ranked[1:]).all())
    # Nearly the contribution itself.
    largest = parts.abs().amax(1).view(-1, 1, 1)
    assert float(((found - parts[..., None]).abs() / largest).max()) < GRID**2 / 4096


def test_patches_that_contribute_the_same_are_ranked_from_the_first():
    class Flat:
        """The network, of whose embeddings all patches are alike."""

        def __init__(self, inner):
            self.module, self.name = inner.module, "flat"

        def embed(self, images):
            return torch.full((len(images), 1024), 1 / 32)

    images = torch.rand(2, 1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    flat = Flat(untrained_patch_model())
    found = blocks(maps(flat, "oracle", images))[0].flatten()
    assert bool((found[:-1] > found[1:]).all())
    against = blocks(maps(flat, "oracle", images, contrast=images[1]))[0].flatten()
    assert bool((against[:-1] > against[1:]).all())


def test_the_known_maps_are_ordered_by_their_agreement_with_the_truth(model, faces):
    truth = contributions(model, *faces)
    found = {which: rank_correlation(maps(model, which, faces), truth) for which in KINDS}
    assert found["oracle"] == pytest.approx(1)
    assert found["inverse"] == pytest.approx(-1)
    assert 0.15 < found["blurred_oracle"].mean() < 0.9
    assert (found["blurred_oracle"] < 0.98).all()
    assert abs(found["random"].mean()) < 0.15


def test_the_blurred_oracle_is_a_mean_with_gaussian_weights(model, faces):
    parts = contributions(model, *faces)[:1]
    pixels = parts.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[0].numpy()
    at = np.arange(112)
    found = maps(model, "blurred_oracle", faces)[0]
    for y, x in [(0, 0), (5, 100), (56, 56), (111, 60)]:
        weights = np.exp(-((at - y)[:, None] ** 2 + (at - x)[None] ** 2) / (2 * 14.0**2))
        expected = (weights * pixels).sum() / weights.sum()
        assert_rounded(found[y, x].double(), torch.tensor(expected), terms=2)


def test_the_inverse_is_minus_the_oracle(model, faces):
    assert torch.equal(maps(model, "inverse", faces), -maps(model, "oracle", faces))


def test_random_maps_depend_on_the_probe_and_on_nothing_else(model, faces):
    found = maps(model, "random", faces)
    alone = maps(model, "random", torch.stack([faces[0, 2:3], faces[1, 4:5]]))
    assert torch.equal(alone[0], found[2])
    other = PatchExplainer("random").explain(
        model, faces[0], faces[1], generator=np.random.default_rng(9)
    )
    assert torch.equal(other.positive, found)
    assert len({map_.numpy().tobytes() for map_ in found}) == len(found)
    assert stats.kstest(found[0].flatten().numpy(), "uniform").pvalue > 1e-4
    assert abs(stats.spearmanr(found[0].flatten(), found[1].flatten()).statistic) < 0.05
    near = stats.spearmanr(found[0, :, 1:].flatten(), found[0, :, :-1].flatten()).statistic
    assert abs(near) < 0.05


@pytest.mark.parametrize("which", KINDS)
def test_a_map_does_not_depend_on_the_other_rows(model, faces, which):
    together = maps(model, which, faces)
    alone = maps(model, which, faces[:, 3:4])
    # Contributions of at most 1, summed in float32 in the network.
    assert float((together[3:4] - alone).abs().max()) <= allowance(1024)


def test_a_contrast_takes_away_what_speaks_for_another_person(model, faces):
    contrast = faces[1].roll(1, 0)
    expected = contributions(model, *faces) - contributions(model, faces[0], contrast)
    found = maps(model, "oracle", faces, contrast)
    assert rank_correlation(found, expected) == pytest.approx(1)
    plain = rank_correlation(maps(model, "oracle", faces), expected)
    assert (plain < 0.95).all()


def test_other_models_are_refused(faces):
    planted, box = planted_model(), BlackBox(untrained_patch_model().embed)
    for other, seen in ((planted, "AdditiveFace"), (box, "a black box")):
        for which in KINDS:
            explainer = PatchExplainer(which)
            assert f"got model '{other.name}', {seen}" in explainer.unsupported(other)
            with pytest.raises(ExplainerContractError, match=f"patch explainer '{which}': expl"):
                explainer.explain(other, *faces, generator=np.random.default_rng(0))
        with pytest.raises(ExplainerContractError, match="contributions: explains the patch-add"):
            contributions(other, *faces)


def test_bad_input_is_refused(model, faces):
    with pytest.raises(ExplainerContractError, match="expected one of oracle, blurred_oracle,"):
        PatchExplainer("orakel")
    with pytest.raises(ExplainerContractError, match="a reference for each probe"):
        contributions(model, faces[0], faces[1, :2])


def test_an_untrained_model_is_drawn_from_its_seed_alone():
    state = torch.random.get_rng_state()
    one, again, other = (untrained_patch_model(seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.digest == again.digest != other.digest
    check_loaded(one)
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert F.cosine_similarity(one.embed(image), other.embed(image)) < 0.9


def test_the_explainer_names_its_source():
    assert "Planted" in traits_of(PatchExplainer()).source

"""Scaled Directed Divergence against its golden numbers and explicit loops."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fxeval.contracts import Explainer, Gallery, RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.cam_exact import CAM
from fxeval.explainers.grad_cam import GradCAM
from fxeval.explainers.objectives import FLAT_REASON
from fxeval.explainers.sdd_cam import SDDCAM, divergences, exponentiated
from fxeval.functional.map_similarity import spearman
from fxeval.tests.cam_subjects import exact_model
from fxeval.tests.explainers.test_cam_exact import (
    SIDE,
    body_of,
    face_net,
    faces,
    flatten_cam,
    images,
    mini_resnet,
    with_head,
)
from fxeval.tests.rounding import assert_rounded, condition_of
from fxeval.tests.subjects import CountingModel

__all__ = ["faces", "mini_resnet"]  # fixtures
RNG = np.random.default_rng(0)
TARGET = torch.tensor([[[1, 0.5], [0.2, 0]]], dtype=torch.float64)
OTHERS = torch.tensor([[[[0.8, 0.6], [0.1, 0.1]], [[0.9, 0.2], [0.3, 0]]]], dtype=torch.float64)
BOTH = torch.tensor([[True, True]])
# Divergences cancel and exponents amplify the rest, so networks are compared in float64. Then only
# the embeddings of references (by the formula and by loops) and the map are rounded to float32.
ENDS = 2


def gallery_of(model, identities: int = 7, each: int = 3, probe_identity=(0, 1)) -> Gallery:
    side = model.crop.size[0]
    identity = torch.arange(identities).repeat(each)
    embeddings = model.embed(images(len(identity), 9, side))
    return Gallery(embeddings, identity, torch.tensor(probe_identity))


def explain(model, probes, references, gallery, **fields):
    return SDDCAM(**fields).explain(model, probes, references, generator=RNG, gallery=gallery)


def test_the_golden_numbers():
    divergence = divergences(TARGET, OTHERS, BOTH, k=1.0)
    expected = [[0.06470588, 0.08235294], [-0.04705882, -0.1]]
    assert divergence.sum(dim=1)[0].numpy() == pytest.approx(np.array(expected), abs=5e-9)
    alpha = (divergence[0, 0] + OTHERS[0, 0])[0, 0] / TARGET[0, 0, 0]
    assert float(alpha) == pytest.approx(0.88235294, abs=5e-9)
    # The largest |D| is 0.1: with sigma = 10 the exponents are D itself, unscaled.
    maps, is_usable = exponentiated(divergence, 10.0, "A")
    golden = [[0.8950629, 1], [0.27178693, 0]]
    assert maps[0].numpy() == pytest.approx(np.array(golden), abs=5e-8)
    assert is_usable.tolist() == [True]


def norm01(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def sdd_by_loops(target, others, k: float, sigma: float, variant: str) -> np.ndarray:
    """Pixel by pixel, from the formula."""
    height, width = target.shape
    n = height * width
    own = sum(abs(v) for v in target.flatten()) / n
    alpha = (
        k * sum(sum(abs(v) for v in other.flatten()) / n for other in others) / len(others) / own
    )
    d = [[[alpha * target[i, j] - other[i, j] for j in range(width)] for i in range(height)]
         for other in others]  # fmt: skip
    summed = [[sum(one[i][j] for one in d) for j in range(width)] for i in range(height)]
    stack = [summed] if variant == "A" else d
    peak = max(abs(v) for one in stack for row in one for v in row)
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for one in stack:
                result[i, j] += math.exp(min(60.0, max(-60.0, one[i][j] / peak / sigma)))
    return norm01(result)


def rounded(model, reference: Tensor) -> Tensor:
    """The embedding of a reference as explainers take it, whatever the model's precision."""
    return model.embed(reference[None])[0].float().double()


def expected_map(model, row: int, probe, reference, gallery, *, identities=5, **settings):
    """From centroids and class maps by explicit loops; the maps need no upsampling."""
    unit = F.normalize(gallery.embeddings.double(), dim=1).numpy()
    centroids = {}
    for name in sorted(set(gallery.identity.tolist())):
        total = sum(unit[i] for i in range(len(unit)) if int(gallery.identity[i]) == name)
        centroids[name] = total / np.linalg.norm(total)
    e = model.embed(probe[None])[0].double().numpy()
    e = e / np.linalg.norm(e)
    logits = {name: 64 * float(e @ centroid) for name, centroid in centroids.items()}
    logits.pop(int(gallery.probe_identity[row]), None)
    nearest = sorted(logits, key=logits.get, reverse=True)[: identities - 1]
    r = F.normalize(rounded(model, reference)[None])[0].numpy()
    target = flatten_cam(model, probe, r)[0]
    others = [flatten_cam(model, probe, centroids[name])[0] for name in nearest]
    return sdd_by_loops(target, others, **settings)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize(
    ("k", "sigma", "identities"), [(1, 1, 5), (3.5, 0.2, 3), (50, 4.0, 2), (1, 0.01, 20)]
)
def test_maps_equal_the_formula_by_explicit_loops(variant, k, sigma, identities):
    model, probes, references = exact_model(face_net(seed=5)), images(2, 1), images(2, 2)
    gallery = gallery_of(model)
    ours = explain(
        model, probes, references, gallery, variant=variant, k=k, sigma=sigma, identities=identities
    )
    for row in range(2):
        expected = expected_map(
            model, row, probes[row], references[row], gallery,
            identities=identities, k=k, sigma=sigma, variant=variant,
        )  # fmt: skip
        assert_rounded(ours.positive[row], expected, terms=ENDS)
    assert ours.states == ("ok", "ok")
    assert ours.diagnostics["identities"].tolist() == [min(identities, 7)] * 2
    assert ours.positive.dtype == torch.float32


@given(
    values=st.lists(st.floats(-1, 1), min_size=4 * 9, max_size=4 * 9),
    sigma=st.floats(0.05, 50),
    k=st.floats(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_under_a_the_order_of_the_pixels_depends_on_k_alone(values, sigma, k):
    maps = torch.tensor(values, dtype=torch.float64).round(decimals=3).view(1, 4, 3, 3)
    if not maps[:, 0].any():
        return
    counts = torch.ones(1, 3, dtype=torch.bool)
    divergence = divergences(maps[:, 0], maps[:, 1:], counts, k)
    raised, is_usable = exponentiated(divergence, sigma, "A")
    if not is_usable:
        return
    plain = divergence.sum(dim=1).flatten()
    for i in range(9):
        larger = plain > plain[i] + 1e-6
        assert bool((raised.flatten()[larger] > raised.flatten()[i]).all())


def ranked(model, probes, references, gallery, **fields) -> Tensor:
    return explain(model, probes, references, gallery, **fields).positive.flatten(1).double()


def test_sigma_changes_the_order_under_b_and_not_under_a():
    model, probes, references = face_net(), images(2, 1), images(2, 2)
    gallery = gallery_of(model)
    for variant, same in [("A", True), ("B", False)]:
        one, other = (
            ranked(model, probes, references, gallery, variant=variant, sigma=sigma)
            for sigma in (1.0, 0.1)
        )
        assert not torch.equal(one, other)
        agreement = spearman(one, other)
        assert (agreement > 1 - 1e-6).all() if same else (agreement < 0.999).all()


def test_a_large_k_tends_to_the_order_of_the_plain_map():
    model, probes, references = face_net(), images(2, 1), images(2, 2)
    gallery = gallery_of(model)
    plain = CAM().explain(model, probes, references, generator=RNG).positive.flatten(1)
    agreement = [
        spearman(ranked(model, probes, references, gallery, k=k), plain)
        for k in (1, 2, 5, 10, 50)
    ]  # fmt: skip
    assert (agreement[-1] > 0.99).all()
    assert (agreement[0] < 0.9).all()
    assert all((one <= other + 1e-9).all() for one, other in pairwise(agreement))


def test_the_softmax_scale_and_the_length_of_embeddings_change_nothing():
    model, longer = exact_model(face_net("gap")), exact_model(face_net("gap"))
    with torch.no_grad():
        for parameter in longer.module.head[-1].parameters():
            parameter.mul_(7)

    def found(each, *pairs: Tensor) -> Tensor:
        return explain(each, *pairs, gallery_of(each)).positive

    pairs = images(2, 1), images(2, 2)
    condition = condition_of(partial(found, model), *pairs, module=model.module)
    # The references' embeddings are of another length, and so are rounded otherwise.
    assert_rounded(found(model, *pairs), found(longer, *pairs), terms=2 * ENDS, condition=condition)


def test_the_probes_own_identity_is_no_rival():
    model, probes, references = face_net(), images(2, 1), images(2, 2)
    gallery = gallery_of(model)
    maps = explain(model, probes, references, gallery, identities=2).positive
    mine = torch.cat([gallery.embeddings, model.embed(probes)])
    with_me = Gallery(
        mine, torch.cat([gallery.identity, torch.tensor([50, 51])]), torch.tensor([50, 51])
    )
    without = Gallery(gallery.embeddings, gallery.identity, torch.tensor([50, 51]))
    as_rival = Gallery(mine, with_me.identity, torch.tensor([60, 61]))
    excluded, absent, included = (
        explain(model, probes, references, each, identities=2).positive
        for each in (with_me, without, as_rival)
    )
    assert torch.equal(excluded, absent)
    assert (included - excluded).abs().amax(dim=(1, 2)).min() > 0.01
    assert maps.shape == excluded.shape


def test_rows_may_have_different_numbers_of_rivals():
    model, probes, references = exact_model(face_net()), images(2, 1), images(2, 2)
    own, stranger = gallery_of(model, 3, probe_identity=(0, 9)), gallery_of(model, 3)
    both = explain(model, probes, references, own)
    assert both.diagnostics["identities"].tolist() == [3, 4]
    for row, probe_identity in enumerate((0, 9)):
        alone = Gallery(stranger.embeddings, stranger.identity, torch.tensor([probe_identity]))
        one = explain(model, probes[row : row + 1], references[row : row + 1], alone)
        assert_rounded(both.positive[row], one.positive[0], terms=2 * ENDS)
        for variant in ("A", "B"):
            expected = expected_map(
                model, row, probes[row], references[row], own, k=1, sigma=1, variant=variant
            )
            ours = explain(model, probes, references, own, variant=variant).positive[row]
            assert_rounded(ours, expected, terms=ENDS)


def test_fewer_than_two_identities_and_missing_galleries_are_refused():
    model, probes, references = face_net(), images(2, 1), images(2, 2)
    alone = gallery_of(model, 1, probe_identity=(0, 0))
    with pytest.raises(ExplainerContractError, match="only the probe's own identity"):
        explain(model, probes, references, alone)
    with pytest.raises(ExplainerContractError, match="only the probe's own identity"):
        explain(model, probes, references, gallery_of(model, 1, probe_identity=(9, 0)))
    one_rival = gallery_of(model, 1, probe_identity=(8, 9))
    counted = explain(model, probes, references, one_rival).diagnostics["identities"]
    assert counted.tolist() == [2, 2]
    with pytest.raises(ExplainerContractError, match=r"expected a gallery for 2 probes.*got none"):
        explain(model, probes, references, None)
    with pytest.raises(ExplainerContractError, match="got one for 1 probes"):
        explain(model, probes, references, gallery_of(model, probe_identity=(0,)))


def test_an_empty_target_map_and_maps_that_agree_are_degenerate():
    model, probes, references = face_net("gap"), images(2, 1), images(2, 2)
    gallery = gallery_of(model)
    twin = Gallery(3 * model.embed(references), torch.tensor([5, 6]), torch.tensor([6, 5]))
    maps = explain(model, probes, references, twin)
    assert maps.states == (RowState.DEGENERATE_MAP,) * 2
    assert "nothing sets the map" in maps.reasons[0]
    with torch.no_grad():
        model.module.head[-1].weight.zero_()
    maps = explain(model, probes, references, gallery)
    assert maps.states == (RowState.DEGENERATE_MAP,) * 2
    assert maps.reasons == ("the map of the reference's identity is zero everywhere",) * 2
    assert not maps.positive.any()


def test_divergences_stay_finite_where_a_map_is_zero():
    nothing = torch.zeros_like(TARGET)
    assert not divergences(nothing, OTHERS, BOTH, 1.0).any()
    assert not divergences(TARGET, torch.zeros_like(OTHERS), BOTH, 1.0).any()
    maps, is_usable = exponentiated(divergences(nothing, OTHERS, BOTH, 1.0), 1.0, "B")
    assert not maps.any()
    assert is_usable.tolist() == [False]


@pytest.mark.parametrize("variant", ["A", "B"])
def test_rounding_is_not_blown_up_to_a_map(variant):
    alike = OTHERS[:, :1].expand(1, 2, 2, 2) * (1 + 1e-9)
    divergence = divergences(OTHERS[:, 0] * 2 + 1e-8, alike, BOTH, 1.0)
    assert divergence.any()
    assert exponentiated(divergence, 1.0, variant)[1].item()
    assert not exponentiated(divergence, 1.0, variant, 1e-5 * alike.amax())[1].item()


def test_a_tiny_sigma_is_cut_and_not_infinite():
    for variant in ("A", "B"):
        maps, is_usable = exponentiated(divergences(TARGET, OTHERS, BOTH, 1.0), 1e-300, variant)
        assert bool(torch.isfinite(maps).all())
        assert float(maps.max()) == 1
        assert is_usable.all()


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_with_grad_cam_as_base_any_network_can_be_explained(kind):
    model = with_head(
        torch.nn.Conv2d(4, 4, 1), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(4 * SIDE * SIDE, 8), torch.nn.LayerNorm(8), similarity=kind,
    )  # fmt: skip
    probes, references = images(2, 1), images(2, 2)
    exact, gallery = exact_model(model), gallery_of(model, 4)
    ours = explain(exact, probes, references, gallery, base="gradcam", layer="body.3", identities=3)

    def by_loops(row: int, probe: Tensor, reference: Tensor, enrolled: Tensor) -> np.ndarray:
        e = exact.embed(probe[None])
        centres = []
        for name in range(4):
            own = enrolled[gallery.identity == name].double()
            centre = own.mean(dim=0) if kind == "neg_l2" else F.normalize(own).mean(dim=0)
            alike = (
                -(e[0] - centre).norm()
                if kind == "neg_l2"
                else F.cosine_similarity(e[0], centre, 0)
            )
            if name != row:
                centres.append((float(alike), centre.float()))
        centres = [centre for _, centre in sorted(centres, key=lambda pair: -pair[0])[:2]]
        own, *others = (
            grad_cam_to(exact, probe, target)
            for target in (exact.embed(reference[None])[0], *centres)
        )
        return sdd_by_loops(own, others, 1.0, 1.0, "A")

    for row in range(2):
        given = probes[row], references[row], gallery.embeddings
        compute = partial(by_loops, row)
        # Grad-CAM to a centroid rounds it, and every map, before they are compared.
        assert_rounded(
            ours.positive[row],
            compute(*given),
            terms=2 * ENDS,
            condition=condition_of(compute, *given, module=exact.module),
        )
    assert SDDCAM(base="gradcam").unsupported(model) is None
    assert "not an affine function" in SDDCAM().unsupported(model)
    with pytest.raises(ExplainerContractError, match="sddcam: the embedding of model"):
        explain(model, probes, references, gallery)


class Enrolled(CountingModel):
    """Embeds a reference of zeros to a given vector."""

    def embed(self, batch: Tensor) -> Tensor:
        return self.vector[None] if not batch.any() else super().embed(batch)


def grad_cam_to(model, probe: Tensor, target: Tensor) -> np.ndarray:
    enrolled = Enrolled(model.module, similarity=model.similarity, crop=model.crop)
    enrolled.vector = target
    nothing = torch.zeros_like(probe)[None]
    maps = GradCAM(layer="body.3").explain(enrolled, probe[None], nothing, generator=RNG)
    return maps.positive[0].double().numpy()


def test_with_grad_cam_a_reference_that_is_the_probe_has_no_gradient_but_an_exact_map():
    model, probes = face_net(), images(2, 1)
    gallery = gallery_of(model)
    flat = explain(model, probes, probes, gallery, base="gradcam")
    assert flat.states == (RowState.NO_GRADIENT,) * 2
    assert flat.reasons == (FLAT_REASON,) * 2
    assert not flat.positive.any()
    assert explain(model, probes, probes, gallery).states == ("ok", "ok")
    again = torch.stack([probes, probes], dim=1)  # centroids, never compared pixel by pixel
    assert explain(model, probes, again, gallery, base="gradcam").states == flat.states
    honest = model.embed
    model.embed = lambda batch: honest(batch) * (1 + 1e-3 * torch.arange(5))  # of another rounding
    assert explain(model, probes, probes, gallery, base="gradcam").states == flat.states


def test_a_euclidean_model_compares_raw_centroids():
    model = exact_model(face_net(similarity="neg_l2"))
    probes, references = images(1, 1), images(1, 2)
    gallery = gallery_of(model, 3, probe_identity=(7,))
    e = model.embed(probes)[0]
    centroids = [gallery.embeddings[gallery.identity == i].double().mean(dim=0) for i in range(3)]
    nearest = min(centroids, key=lambda centroid: float((centroid - e).norm()))
    maps = [
        flatten_cam(model, probes[0], 2 * r.numpy())[0]
        for r in (rounded(model, references[0]), nearest)
    ]
    expected = sdd_by_loops(maps[0], maps[1:], 1, 1, "A")
    ours = explain(model, probes, references, gallery, identities=2).positive[0]
    assert_rounded(ours, expected, terms=ENDS)


def test_the_shipped_network_is_explained_at_the_size_of_its_images(mini_resnet, faces):
    probes, references = faces[:4], faces[4:]
    gallery = Gallery(mini_resnet.embed(faces), torch.arange(4).repeat(2), torch.arange(4))
    maps = explain(mini_resnet, probes, references, gallery)
    assert maps.positive.shape == (4, 112, 112)
    assert maps.states == ("ok",) * 4
    assert maps.positive.amax(dim=(1, 2)).tolist() == [1] * 4
    assert maps.positive.amin(dim=(1, 2)).tolist() == [0] * 4
    assert maps.diagnostics["identities"].tolist() == [4] * 4
    # Brought to size before the exponential: sigma moves no pixel in the order.
    for sigma in (0.3, 3.0):
        other = explain(mini_resnet, probes, references, gallery, sigma=sigma)
        agreement = spearman(maps.positive.flatten(1), other.positive.flatten(1))
        assert (agreement > 1 - 1e-6).all()


def test_rows_do_not_depend_on_their_batch(monkeypatch):
    model, probes, references = exact_model(face_net()), images(7, 1), images(7, 2)
    gallery = gallery_of(model, probe_identity=range(7))
    together = explain(model, probes, references, gallery).positive
    for row in range(7):
        only = Gallery(gallery.embeddings, gallery.identity, torch.tensor([row]))
        alone = explain(model, probes[row : row + 1], references[row : row + 1], only)
        assert_rounded(together[row], alone.positive[0], terms=2 * ENDS)
    monkeypatch.setattr("fxeval.explainers.sdd_cam.MAPS", 12)
    chunked = explain(model, probes, references, gallery).positive
    assert_rounded(together, chunked, terms=2 * ENDS)
    none = Gallery(gallery.embeddings, gallery.identity, torch.tensor([], dtype=torch.int64))
    assert explain(model, probes[:0], references[:0], none).positive.shape == (0, SIDE, SIDE)


@pytest.mark.parametrize("base", ["cam", "gradcam"])
def test_the_model_comes_back_as_it_was(base):
    model = face_net()
    gallery = gallery_of(model)
    module = model.module
    state = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.inference_mode():
        explain(model, images(2, 1), images(2, 2), gallery, base=base)
    for name, value in module.state_dict().items():
        assert value.numpy().tobytes() == state[name].numpy().tobytes(), name
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("variant", ["C", 1, None]),
        ("k", [0.99, 50.1, math.nan, "1", True]),
        ("sigma", [0, -1, math.inf, math.nan, "1"]),
        ("identities", [1, 0, 2.0, True, "5"]),
        ("base", ["srise", None]),
        ("layer", ["", 3]),
    ],
)
def test_parameters_out_of_range_are_refused(field, values):
    for value in values:
        with pytest.raises(ExplainerContractError, match=f"sddcam: {field} must be"):
            SDDCAM(**{field: value})


def test_a_black_box_is_declared_and_refused():
    box = CountingModel(None, name="box")
    for base in ("cam", "gradcam"):
        assert "black box" in SDDCAM(base=base).unsupported(box)
        gallery = Gallery(torch.rand(2, 3), torch.arange(2), torch.tensor([0]))
        with pytest.raises(ExplainerContractError, match=r"sddcam: needs gradients.*black box"):
            explain(box, images(1, 1), images(1, 2), gallery, base=base)


def test_it_is_an_explainer_with_declared_needs():
    assert isinstance(SDDCAM(), Explainer)
    assert SDDCAM.traits.needs == {"gradients", "layers", "gallery"}
    assert SDDCAM() == SDDCAM("A", 1.0, 1.0, 5, "cam", None)
    assert body_of(face_net(), images(1, 1)[0]).shape[1:] == (
        SIDE,
        SIDE,
    )  # nothing to bring to size

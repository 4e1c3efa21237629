"""CAMs against autograd and explicit loops."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import Explainer, Gallery, RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.grad_cam import GradCAM, GradCAMpp, LayerCAM
from fxeval.tests.cam_subjects import (
    SIZE,
    FaceNet,
    Net,
    cosine,
    embedded,
    exact,
    explain,
    images,
    neg_l2,
    norm01,
    upsampled,
)
from fxeval.tests.rounding import FLOAT64, assert_rounded, condition_of, terms_of


def grad_cam(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    coarse = np.zeros(a.shape[1:])
    for k in range(len(a)):
        coarse += g[k].sum() / g[k].size * a[k]
    return np.maximum(coarse, 0)


def grad_cam_pp(a: np.ndarray, g: np.ndarray, *, authors: bool = False) -> np.ndarray:
    coarse = np.zeros(a.shape[1:])
    for k in range(len(a)):
        weight, norm = 0.0, 0.0
        for i, j in np.ndindex(coarse.shape):
            one = g[k, i, j]
            below = 2 * one**2 + a[k].sum() * one**3
            share = one**2 / ((below or 1.0) if authors else below + 1e-6)
            if one > 0:
                weight, norm = weight + share * one, norm + share
        coarse += weight / ((norm or 1.0) if authors else 1.0) * a[k]
    return np.maximum(coarse, 0)


def layer_cam(a: np.ndarray, g: np.ndarray, *, outer_relu: bool = True) -> np.ndarray:
    coarse = np.zeros(a.shape[1:])
    for k, i, j in np.ndindex(a.shape):
        if g[k, i, j] > 0:
            coarse[i, j] += g[k, i, j] * a[k, i, j]
    return np.maximum(coarse, 0) if outer_relu else coarse


METHODS = {
    "gradcam": (GradCAM, {}, grad_cam),
    "gradcampp": (GradCAMpp, {}, grad_cam_pp),
    "authors": (GradCAMpp, {"variant": "authors"}, partial(grad_cam_pp, authors=True)),
    "layercam": (LayerCAM, {}, layer_cam),
    "signed": (LayerCAM, {"outer_relu": False}, partial(layer_cam, outer_relu=False)),
}
each_method = pytest.mark.parametrize("method", METHODS)


def by_hand(net: Net, probe: Tensor, objective, formula) -> np.ndarray:
    """One row at a time, in float64, without a hook: the net is cut open at conv2."""
    activation = net.conv2(net.before(probe[None].double())).detach().requires_grad_()
    value = objective(net.after(activation.clone())[0])
    (gradient,) = torch.autograd.grad(value, activation)
    return upsampled(formula(activation.detach()[0].numpy(), gradient[0].numpy()), SIZE)


def assert_equals_by_hand(found: Tensor, net: Net, probe: Tensor, objective, formula) -> None:
    """Compare a map with the one of the network in float64; ``objective`` is asked anew of it."""
    net = exact(net)

    def compute(probe: Tensor) -> np.ndarray:
        return by_hand(net, probe, objective(net), formula)

    assert_rounded(
        found,
        compute(probe),
        terms=terms_of(net, passes=2),
        condition=condition_of(compute, probe, module=net),
    )


# 2 g^2 + S g^3 of the authors' form nearly cancels under neg_l2: float32 may be off by 6e-4. Every
# formula is compared in float64 below, and what surrounds it is the same for every method.
WELL_CONDITIONED = [
    pytest.param(method, *objective, id=f"{method}-{objective[0]}")
    for method in METHODS
    for objective in (("cosine", cosine), ("neg_l2", neg_l2))
    if (method, objective[0]) != ("authors", "neg_l2")
]


@pytest.mark.parametrize(("method", "kind", "objective"), WELL_CONDITIONED)
@pytest.mark.parametrize("with_contrast", [False, True])
def test_maps_equal_explicit_loops_by_hand(method, kind, objective, with_contrast):
    by, parameters, formula = METHODS[method]
    net = Net()
    probes, references, contrast = images(4, 1), images(4, 2), images(4, 3)
    maps = explain(
        FaceNet(net, kind), probes, references, by=by,
        contrast=contrast if with_contrast else None, **parameters,
    )  # fmt: skip
    for row in range(4):

        def of(net, row=row):
            r, c = embedded(net, references[row]), embedded(net, contrast[row])
            return lambda e: objective(e, r) - (objective(e, c) if with_contrast else 0.0)

        assert maps.positive[row].max() > 0
        assert_equals_by_hand(maps.positive[row], net, probes[row], of, formula)
    assert set(maps.states) == {RowState.OK}
    assert maps.positive.dtype == torch.float32
    assert not maps.positive.requires_grad
    assert (maps.positive >= 0).all() or method == "signed"


@pytest.mark.parametrize("layer", ["conv2", ("act", "conv2")])
def test_an_in_place_relu_after_the_layer_does_not_reach_the_activations(layer):
    net = Net()
    with_relu, without = Net(), Net()
    without.relu = nn.ReLU()
    probes, references = images(2, 1), images(2, 2)
    maps = explain(FaceNet(with_relu), probes, references, layer=layer).positive
    assert torch.equal(maps, explain(FaceNet(without), probes, references, layer=layer).positive)
    assert (net.conv2(net.before(probes)) < 0).any()


def stretched(method: str, a: Tensor, g: Tensor) -> np.ndarray:
    by, parameters, _ = METHODS[method]
    return norm01(by(**parameters).coarse(a, g)[0])


def toy(seed: int, mean: float = 0.5) -> tuple[Tensor, Tensor]:
    """Activations, partly negative, and gradients of the size of a face network's; float64."""
    generator = torch.Generator().manual_seed(seed)
    a, g = torch.randn((2, 1, 6, 5, 4), generator=generator, dtype=torch.float64)
    return a + mean, g / 10


@each_method
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([-1.0, -0.5, 0.5, 1.0]), st.sampled_from([0.1, 1, 9]))
def test_every_formula_equals_explicit_loops_in_float64(method, seed, mean, scale):
    a, g = toy(seed, mean)
    by, parameters, formula = METHODS[method]
    found = by(**parameters).coarse(a, scale * g)[0]
    expected = formula(a[0].numpy(), scale * g[0].numpy())
    # Denominators of Grad-CAM++ may cancel: far more than the six channels' 120 terms.
    assert_rounded(found, expected, terms=120, condition=1e9, unit=FLOAT64)


SCALES = {  # dJ/dc of increasing transforms of the cosine, at c = 0.6
    "arc_pair 0.2": np.sin(np.arccos(0.6) + 0.2) / 0.8,
    "exp": np.exp(0.6),
    "times 10": 10.0,
    "64 arc_pair 0.3": 64 * np.sin(np.arccos(0.6) + 0.3) / 0.8,
}


@pytest.mark.parametrize("method", ["gradcam", "layercam", "signed"])
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([*SCALES.values(), 1e-9, 1e9]))
def test_increasing_transforms_change_neither_grad_cam_nor_layer_cam(method, seed, scale):
    a, g = toy(seed, mean=1.0)
    if not METHODS[method][0]().coarse(a, g).any():
        return
    difference = stretched(method, a, g) - stretched(method, a, scale * g)
    assert np.abs(difference).max() <= 1e-10


def test_grad_cam_pp_of_the_library_depends_on_the_scale_the_more_the_larger_it_is():
    """Its authors' normalisation removes most of that."""

    def change(method: str, scale: float) -> float:
        found = []
        for seed in range(20):
            a, g = toy(seed)
            found.append(np.abs(stretched(method, a, g) - stretched(method, a, scale * g)).max())
        return float(np.mean(found))

    changes = [change("gradcampp", scale) for scale in SCALES.values()]
    assert changes == sorted(changes)
    assert changes[0] > 1e-4
    assert changes[-1] > 0.1


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
@pytest.mark.parametrize("objective", ["one_minus_cos", "arc_pair(m=0.2)", "arc_pair(m=0.5)"])
def test_the_form_of_the_objective_changes_no_scaled_map(method, objective):
    by, model, probe, reference = METHODS[method][0], FaceNet(Net()), images(1, 1), images(1, 2)
    ours = explain(model, probe, reference, by=by).positive[0]
    other = explain(model, probe, reference, by=by, objective=objective).positive[0]
    assert_rounded(norm01(ours), norm01(other), terms=terms_of(Net(), passes=2))
    assert torch.equal(ours, other) == (objective == "one_minus_cos")


def test_grad_cam_pp_does_see_a_margin():
    model, probe, reference = FaceNet(Net()), images(1, 1), images(1, 2)
    maps = [
        norm01(explain(model, probe, reference, by=GradCAMpp, objective=one).positive[0])
        for one in ("cos", "arc_pair(m=0.5)")
    ]
    assert np.abs(maps[0] - maps[1]).max() > 1e-4


@each_method
def test_the_scale_of_the_embedding_does_not_matter_but_the_sign_of_the_objective_does(method):
    by, parameters, _ = METHODS[method]
    probe, reference = images(1, 1), images(1, 2)

    def found(scale: float, objective: str) -> np.ndarray:
        maps = explain(
            FaceNet(Net(scale=scale)), probe, reference, by=by, objective=objective, **parameters
        )
        return norm01(maps.positive[0])

    assert_rounded(found(1.0, "cos"), found(8.0, "cos"), terms=terms_of(Net(), passes=2))
    assert np.abs(found(1.0, "cos") - found(1.0, "-cos")).max() > 0.2


def test_a_softmax_over_a_gallery_equals_explicit_loops():
    net, probes, references = Net(), images(2, 1), images(2, 2)
    enrolled = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    gallery = Gallery(enrolled, torch.arange(7), torch.tensor([3, 5]))
    maps = LayerCAM("conv2", objective="arc_softmax(s=8,m=0.3)").explain(
        FaceNet(net), probes, references, generator=np.random.default_rng(0), gallery=gallery
    )
    for row, own in enumerate([3, 5]):

        def of(net, row=row, own=own):
            r = embedded(net, references[row])

            def softmax(e):
                others = [one.double() for i, one in enumerate(enrolled) if i != own]
                logits = [8 * torch.cos(torch.arccos(cosine(e, r)) + 0.3)]
                logits += [8 * cosine(e, one) for one in others]
                return torch.stack(logits).log_softmax(0)[0]

            return softmax

        assert_equals_by_hand(maps.positive[row], net, probes[row], of, layer_cam)


def test_several_references_are_compared_by_their_centroid():
    net, probe, references = Net(), images(1, 1), images(3, 2)

    def of(net):
        units = [embedded(net, one) / embedded(net, one).norm() for one in references]
        return lambda e: cosine(e, torch.stack(units).mean(0))

    maps = explain(FaceNet(net), probe, references[None])
    assert_equals_by_hand(maps.positive[0], net, probe[0], of, grad_cam)


def test_the_authors_form_puts_one_for_a_denominator_of_zero():
    """One channel: g = 1 where A = -4, then S = -2 and 2 g^2 + S g^3 = 0, so a = 1 and w = 1."""
    a = torch.tensor([[[[-4.0, 2.0]]]], dtype=torch.float64)
    g = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    assert GradCAMpp(variant="authors").coarse(a, g).tolist() == [[[0.0, 2.0]]]
    nothing = GradCAMpp(variant="authors").coarse(a, -g)  # no gradient is positive: 0 / 1
    assert nothing.eq(0).all()


def test_a_negative_sum_of_activations_can_empty_grad_cam_pp_but_not_layer_cam():
    """2 g^2 + S g^3 < 0: a channel that is wanted gets a negative weight, and the ReLU cuts it."""
    a = torch.full((1, 1, 4, 4), -1.0, dtype=torch.float64)
    a[0, 0, 1, 1] = 2.0
    g = torch.full_like(a, 0.5)
    assert GradCAM().coarse(a, g).any()
    assert LayerCAM().coarse(a, g).any()
    found = GradCAMpp().coarse(a, g)
    assert found[0, 1, 1] == 0
    assert found[0, 0, 0] > 0


def test_without_the_outer_relu_layer_cam_keeps_negative_sums():
    a, g = toy(0, mean=-0.5)
    kept, cut = LayerCAM(outer_relu=False).coarse(a, g), LayerCAM().coarse(a, g)
    assert (kept < 0).any()
    assert torch.equal(kept.relu(), cut)


@pytest.mark.parametrize("variant", ["library", "authors"])
def test_small_gradients_do_not_vanish_in_their_powers(variant):
    a, g = toy(0)
    found = GradCAMpp(variant=variant).coarse(a, 1e-14 * g)  # g^3 is below float32's smallest
    assert found.max() > 0
    assert found.isfinite().all()


def test_layers_before_and_after_a_skip_connection_keep_their_own_gradient():
    class Skip(Net):
        def forward(self, batch: Tensor) -> Tensor:
            x = self.conv2(self.before(batch))
            return self.after(x + torch.tanh(x))

    class Cut(Net):  # what stands after conv2 in one function
        def after(self, x: Tensor) -> Tensor:
            return super().after(x + torch.tanh(x))

    net, probe, reference = Skip(), images(1, 1), images(1, 2)
    ours = explain(FaceNet(net), probe, reference).positive[0]

    def of(net):
        r = embedded(net, reference[0])
        return lambda e: cosine(e, r)

    assert_equals_by_hand(ours, Cut(), probe[0], of, grad_cam)


@pytest.mark.parametrize("by", [GradCAM, GradCAMpp, LayerCAM])
def test_they_are_explainers_with_declared_needs(by):
    assert isinstance(by(), Explainer)
    assert by().traits.needs == {"gradients", "layers"}
    assert by(objective="triplet").traits.needs == {"gradients", "layers", "contrast"}
    assert by(objective="arc_softmax").traits.needs == {"gradients", "layers", "gallery"}
    assert by().traits.takes_centroids
    assert by("a") != by("b")
    assert "black box" in by().unsupported(FaceNet(None))
    assert by().unsupported(FaceNet(Net())) is None


@pytest.mark.parametrize(
    ("by", "parameters", "message"),
    [
        (GradCAM, {"layer": "conv[x]"}, "gradcam: layer must be"),
        (LayerCAM, {"objective": "cosine"}, "layercam: objective must be one of"),
        (GradCAMpp, {"variant": "paper"}, "gradcampp: variant must be library or authors"),
        (GradCAMpp, {"objective": "cos(m=1)"}, "gradcampp: objective 'cos' takes no numbers"),
    ],
)
def test_bad_parameters_are_refused_at_once(by, parameters, message):
    with pytest.raises(ExplainerContractError, match=message):
        by(**parameters)


def test_the_slow_upsampling_is_itself_right():
    ramp = upsampled(np.array([[0.0, 1.0]]), (1, 4))[0]
    assert_rounded(ramp, [0, 0.25, 0.75, 1], terms=4)
    assert all(a <= b for a, b in pairwise(ramp))

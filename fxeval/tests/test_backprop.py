"""Gradients at the image against numpy by hand, and a model that comes back as it was lent."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import Gallery, RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.backprop import Gradient, InputXGradient, IntegratedGradients, SmoothGrad
from fxeval.perturbation import fill_images
from fxeval.tests.subjects import ConvNet, CountingModel

SIZE = (16, 16)
ALL = [Gradient(), InputXGradient(), IntegratedGradients(steps=3), SmoothGrad(draws=3)]
each = pytest.mark.parametrize("explainer", ALL, ids=lambda one: one.id)


class Linear(nn.Module):
    """e = W x, nothing else."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


class Smooth(nn.Module):
    """A network without kinks, so that integrals converge."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(torch.randn(20, 3 * 16 * 16, generator=generator) * 0.06)
        self.last = nn.Parameter(torch.randn(6, 20, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh((images - 0.3).flatten(1) @ self.first.T + 0.1) @ self.last.T + 0.2


def images(n: int, seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(seed))


def explain(explainer, model, probes, references, contrast=None, seed=0, **given_):
    generator = np.random.default_rng(seed)
    return explainer.explain(
        model, probes, references, contrast=contrast, generator=generator, **given_
    )


def signed(maps) -> np.ndarray:
    return (maps.positive.double() - maps.negative.double()).numpy()


def cosine(e: Tensor, r: Tensor) -> Tensor:
    return e @ r / (e.norm() * r.norm())


def neg_l2(e: Tensor, r: Tensor) -> Tensor:
    return -((e - r) ** 2).sum()


OBJECTIVES = {"cosine": cosine, "neg_l2": neg_l2}


def slope(net: nn.Module, kind: str, image: Tensor, *others: Tensor) -> np.ndarray:
    """The gradient at one image in float64: of the reference, minus that of a contrast."""
    net = deepcopy(net).double().eval()
    x = image.double().clone().requires_grad_()
    value = 0.0
    for sign, other in zip((1, -1), others, strict=False):
        value = value + sign * OBJECTIVES[kind](
            net(x[None])[0], net(other[None].double())[0].detach()
        )
    value.backward()
    return x.grad.numpy()


def by_hand(explainer, net: nn.Module, kind: str, image: Tensor, *others: Tensor) -> np.ndarray:
    """One image, one point at a time; unsigned maps, or signed ones before they are split."""
    x = image.double().numpy()
    if isinstance(explainer, IntegratedGradients):
        assert explainer.steps == 3
        # The three-point rule of every textbook: 0 and +-sqrt(3/5), weights 8/9 and 5/9 over 2.
        start = fill_images(image[None].double(), explainer.baseline)[0].numpy()
        total = np.zeros_like(x)
        for place, weight in ((-np.sqrt(0.6), 5 / 18), (0.0, 8 / 18), (np.sqrt(0.6), 5 / 18)):
            point = start + (place + 1) / 2 * (x - start)
            total += weight * slope(net, kind, torch.from_numpy(point), *others)
        return ((x - start) * total).sum(axis=0)
    if isinstance(explainer, SmoothGrad):
        noise = np.random.default_rng(0).standard_normal((3, *x.shape), dtype=np.float32)
        sigma = explainer.noise * (x.max() - x.min())
        noisy = [torch.from_numpy(x + sigma * one) for one in noise]
        return np.abs(np.mean([slope(net, kind, one, *others) for one in noisy], axis=0)).mean(
            axis=0
        )
    gradient = slope(net, kind, image, *others)
    if isinstance(explainer, InputXGradient):
        return (x * gradient).sum(axis=0)
    size = np.abs(gradient)
    return size.mean(axis=0) if explainer.channels == "mean" else size.max(axis=0)


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("with_contrast", [False, True])
@pytest.mark.parametrize(
    "explainer",
    [
        *ALL, Gradient(channels="max"), SmoothGrad(draws=3, noise=0.4),
        IntegratedGradients(steps=3, baseline="blur"),
        IntegratedGradients(steps=3, baseline="mean"),
    ],
    ids=lambda one: f"{one.id}-{getattr(one, 'channels', getattr(one, 'baseline', ''))}",
)  # fmt: skip
def test_maps_equal_autograd_by_hand(explainer, kind, with_contrast):
    net = ConvNet(seed=1).eval()
    probes, references, contrast = images(3, 1), images(3, 2), images(3, 3)
    given_ = contrast if with_contrast else None
    maps = explain(explainer, CountingModel(net, similarity=kind), probes, references, given_)
    found = maps.positive.numpy() if maps.negative is None else signed(maps)
    for row in range(3):
        others = [references[row]] + ([contrast[row]] if with_contrast else [])
        expected = by_hand(explainer, net, kind, probes[row], *others)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(
            found[row], expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max()
        )
    assert set(maps.states) == {RowState.OK}
    assert maps.positive.dtype == torch.float32
    assert not maps.positive.requires_grad


def test_the_gradient_is_what_small_steps_of_a_pixel_do():
    net = Smooth().double()
    probe, reference = images(1, 1).double(), images(1, 2).double()
    r = net(reference)[0].detach()
    found = explain(
        Gradient(channels="max"), CountingModel(Smooth()), probe.float(), reference.float()
    )
    for i, j in ((0, 0), (3, 11), (15, 7)):
        sizes = []
        for channel in range(3):
            step = torch.zeros_like(probe)
            step[0, channel, i, j] = 1e-5
            up, down = (cosine(net(probe + s)[0].detach(), r) for s in (step, -step))
            sizes.append(abs(float(up - down)) / 2e-5)
        assert float(found.positive[0, i, j]) == pytest.approx(max(sizes), rel=1e-3)


def linear(seed: int = 0) -> tuple[np.ndarray, CountingModel, Tensor, Tensor]:
    weight = torch.randn(5, 3 * 4 * 4, generator=torch.Generator().manual_seed(seed))
    return (
        weight.double().numpy(),
        CountingModel(Linear(weight)),
        images(2, 1, (4, 4)),
        images(2, 2, (4, 4)),
    )


def test_golden_gradient_of_the_cosine_on_a_linear_model():
    W, model, probes, references = linear()
    maps = explain(Gradient(), model, probes, references)
    for row in range(2):
        e, r = (W @ one[row].double().numpy().ravel() for one in (probes, references))
        u, v = e / np.linalg.norm(e), r / np.linalg.norm(r)
        gradient = (W.T @ (v - (u @ v) * u) / np.linalg.norm(e)).reshape(3, 4, 4)
        np.testing.assert_allclose(maps.positive[row], np.abs(gradient).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 32])
def test_golden_integral_of_the_squared_distance_on_a_linear_model(steps):
    """The gradient is linear along the way: one Gauss point is exact. 2 W'(r - W x / 2)."""
    W, model, probes, references = linear()
    model.similarity = "neg_l2"
    maps = explain(IntegratedGradients(steps=steps), model, probes, references)
    for row in range(2):
        x, y = (one[row].double().numpy().ravel() for one in (probes, references))
        expected = x * (2 * W.T @ (W @ y - W @ x / 2))
        expected = expected.reshape(3, 4, 4).sum(axis=0)
        np.testing.assert_allclose(signed(maps)[row], expected, rtol=1e-4, atol=1e-4)
    assert float(maps.diagnostics["completeness_gap"].max()) < 1e-5


def test_brightening_a_linear_model_changes_no_cosine_so_both_signs_of_input_x_gradient_cancel():
    _, model, probes, references = linear()
    maps = explain(InputXGradient(), model, probes, references)
    total = signed(maps).sum(axis=(1, 2))
    assert np.abs(total).max() < 1e-5 * float(maps.positive.sum())


@pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
@pytest.mark.parametrize("with_contrast", [False, True])
def test_integrated_gradients_add_up_to_what_the_way_changes(baseline, with_contrast):
    net, probes, references, contrast = Smooth(), images(4, 1), images(4, 2), images(4, 3)
    given_ = contrast if with_contrast else None
    explainer = IntegratedGradients(baseline=baseline)
    maps = explain(explainer, CountingModel(net), probes, references, given_)
    starts = fill_images(probes, baseline)
    with torch.no_grad():
        differences = []
        for x, start, r, c in zip(probes, starts, references, contrast, strict=True):
            e, f, r, c = (net(one[None])[0].double() for one in (x, start, r, c))
            difference = cosine(e, r) - cosine(f, r)
            if with_contrast:
                difference = difference - (cosine(e, c) - cosine(f, c))
            differences.append(float(difference))
    np.testing.assert_allclose(signed(maps).sum(axis=(1, 2)), differences, rtol=2e-4)
    assert float(maps.diagnostics["completeness_gap"].max()) < 2e-4


def test_the_completeness_gap_shows_a_sum_of_too_few_points():
    net, probes, references = Smooth(), images(4, 1), images(4, 2)
    found = {
        steps: explain(IntegratedGradients(steps=steps), CountingModel(net), probes, references)
        for steps in (1, 32)
    }
    with torch.no_grad():
        e, f, r = (net(one).double() for one in (probes, torch.zeros_like(probes), references))
    difference = np.array([float(cosine(e[i], r[i]) - cosine(f[i], r[i])) for i in range(4)])
    gap = np.abs(signed(found[1]).sum(axis=(1, 2)) - difference) / np.abs(difference)
    np.testing.assert_allclose(found[1].diagnostics["completeness_gap"], gap, rtol=1e-2)
    assert gap.min() > 20 * float(found[32].diagnostics["completeness_gap"].max())


@each
def test_descending_the_objective_exchanges_what_is_for_and_against(explainer):
    model = CountingModel(ConvNet(seed=1))
    probes, references = images(2, 1), images(2, 2)
    up = explain(explainer, model, probes, references)
    down = explain(
        type(explainer)(**{**vars(explainer), "objective": "-cos"}), model, probes, references
    )
    if up.negative is None:
        assert torch.equal(up.positive, down.positive)
    else:
        assert torch.equal(up.positive, down.negative)
        assert torch.equal(up.negative, down.positive)
        assert float(up.positive.amax(dim=(1, 2)).min()) > 0
        assert float((up.positive * up.negative).max()) == 0  # a pixel is for or against


@pytest.mark.parametrize("objective", ["one_minus_cos", "arc_pair(m=0.2)", "arc_pair(m=0.5)"])
@pytest.mark.parametrize("kind", [Gradient, InputXGradient])
def test_increasing_transforms_of_the_cosine_scale_a_map_and_no_more(kind, objective):
    model = CountingModel(ConvNet(seed=1))
    probes, references = images(2, 1), images(2, 2)
    one = explain(kind(), model, probes, references).positive
    two = explain(kind(objective=objective), model, probes, references).positive
    one, two = (maps / maps.amax(dim=(1, 2), keepdim=True) for maps in (one, two))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_a_softmax_over_a_gallery_is_another_question():
    net = ConvNet(seed=1).eval()
    model, probes, references = CountingModel(net), images(2, 1), images(2, 2)
    gallery = Gallery(net(images(6, 4)).detach(), torch.arange(6), torch.tensor([0, 1]))
    explainer = InputXGradient(objective="arc_softmax(s=8, m=0)")
    assert explainer.needs == {"gradients", "gallery"}
    maps = signed(explain(explainer, model, probes, references, gallery=gallery))
    twin = deepcopy(net).double()
    for row in range(2):
        x = probes[row].double().clone().requires_grad_()
        e = twin(x[None])[0]
        bank = [twin(references[row : row + 1].double())[0].detach()]
        bank += [one.double() for who, one in enumerate(gallery.embeddings) if who != row]
        torch.stack([8 * cosine(e, one) for one in bank]).log_softmax(0)[0].backward()
        expected = (x * x.grad).sum(dim=0).detach().numpy()
        np.testing.assert_allclose(
            maps[row], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
        )


@each
def test_a_reference_that_is_the_probe_has_no_gradient_and_no_map(explainer):
    probes, references = images(3, 1), images(3, 2)
    references[1] = probes[1]
    for kind in ("cosine", "neg_l2"):
        maps = explain(explainer, CountingModel(ConvNet(), similarity=kind), probes, references)
        assert maps.states == (RowState.OK, RowState.NO_GRADIENT, RowState.OK)
        assert "flat" in maps.reasons[1]
        assert float(maps.positive[1].abs().max()) == 0
        assert float(maps.positive[[0, 2]].amax(dim=(1, 2)).min()) > 0


@each
def test_with_a_contrast_even_twins_have_a_gradient(explainer):
    probes, contrast = images(2, 1), images(2, 3)
    maps = explain(explainer, CountingModel(ConvNet()), probes, probes.clone(), contrast)
    assert set(maps.states) == {RowState.OK}


def test_every_pair_and_every_call_meets_the_same_noise():
    model, generator = CountingModel(ConvNet()), np.random.default_rng(3)
    probes, references = images(1, 1).repeat(2, 1, 1, 1), images(1, 2).repeat(2, 1, 1, 1)
    state = deepcopy(generator.bit_generator.state)
    one, two = (
        SmoothGrad().explain(model, probes, references, generator=generator) for _ in range(2)
    )
    assert generator.bit_generator.state == state
    torch.testing.assert_close(one.positive[0], one.positive[1], rtol=1e-5, atol=1e-7)
    assert torch.equal(one.positive, two.positive)
    other = explain(SmoothGrad(), model, probes, references, seed=4)
    assert not torch.allclose(one.positive, other.positive, rtol=1e-2)


def test_noise_is_a_fraction_of_the_range_of_the_probe():
    _, model, probes, references = linear()
    flat = probes.clone()
    flat[:] = 0.5  # a range of 0: no noise, the plain gradient
    smooth = explain(SmoothGrad(), model, flat, references)
    torch.testing.assert_close(
        smooth.positive, explain(Gradient(), model, flat, references).positive
    )


@pytest.mark.parametrize(
    ("kind", "given_", "message"),
    [
        (Gradient, {"objective": "cosin"}, "gradient: objective must be one of"),
        (Gradient, {"channels": "median"}, "gradient: channels must be one of mean, max"),
        (IntegratedGradients, {"steps": 0}, "integrated_gradients: steps must be a whole number"),
        (IntegratedGradients, {"steps": 2.5}, "integrated_gradients: steps must be a whole number"),
        (IntegratedGradients, {"baseline": "white"}, "baseline must be one of blur, mean, black"),
        (SmoothGrad, {"draws": True}, "smoothgrad: draws must be a whole number"),
        (SmoothGrad, {"noise": 0.0}, "smoothgrad: noise must be a finite fraction"),
        (SmoothGrad, {"noise": float("nan")}, "smoothgrad: noise must be a finite fraction"),
        (SmoothGrad, {"objective": "cos(m=1)"}, "smoothgrad: objective 'cos' takes no numbers"),
    ],
)
def test_bad_parameters_are_refused(kind, given_, message):
    with pytest.raises(ExplainerContractError, match=message):
        kind(**given_)


def test_several_references_are_explained_by_their_centroid():
    net = ConvNet(seed=1).eval()
    probes, references = images(2, 1), images(6, 2).view(2, 3, 3, *SIZE)
    found = explain(Gradient(), CountingModel(net), probes, references).positive
    for row in range(2):
        units = nn.functional.normalize(net.double()(references[row].double()), dim=1)
        x = probes[row].double().requires_grad_()
        cosine(net(x[None])[0], units.mean(dim=0).detach()).backward()
        net.float()
        torch.testing.assert_close(
            found[row], x.grad.abs().mean(dim=0).float(), rtol=1e-3, atol=1e-7
        )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([(1, 7), (9, 2), (5, 5)]))
def test_maps_are_finite_of_the_probes_size_and_not_negative(seed, size):
    weight = torch.randn(4, 3 * size[0] * size[1], generator=torch.Generator().manual_seed(seed))
    model = CountingModel(Linear(weight))
    probes, references = images(2, seed, size), images(2, seed + 1, size)
    for explainer in ALL:
        maps = explain(explainer, model, probes, references)
        for part in (maps.positive, maps.negative):
            if part is not None:
                assert part.shape == (2, *size)
                assert bool(torch.isfinite(part).all())
                assert float(part.min()) >= 0

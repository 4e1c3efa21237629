"""Gradients at the image against numpy by hand, and a lent model that is restored."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import Gallery, RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.gradients import Gradient, InputXGradient, IntegratedGradients, SmoothGrad
from fxeval.functional.fill_images import fill_images
from fxeval.tests.rounding import FLOAT64, assert_rounded, condition_of, terms_of
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
    """A network without kinks, so that integrals converge; in double it takes float images too."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(torch.randn(20, 3 * 16 * 16, generator=generator) * 0.06)
        self.last = nn.Parameter(torch.randn(6, 20, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        images = images.to(self.first.dtype)
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
        shape = (explainer.draws, *x.shape)
        noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
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


def rounding(explainer, net: nn.Module, kind: str, *images: Tensor) -> dict[str, float]:
    """Terms of the rounding of a map of the probe, the reference and perhaps a contrast."""
    net = deepcopy(net).double().eval()
    condition = condition_of(partial(by_hand, explainer, net, kind), *images, module=net)
    return {"terms": terms_of(net, passes=2), "condition": condition}


def twice(terms: float, condition: float) -> dict[str, float]:
    """Terms of the rounding of two maps that are compared."""
    return {"terms": 2 * terms, "condition": condition}


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
        assert_rounded(found[row], expected, **rounding(explainer, net, kind, probes[row], *others))
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
    places, largest = ((0, 0), (3, 11), (15, 7)), []
    for i, j in places:
        sizes = []
        for channel in range(3):
            step = torch.zeros_like(probe)
            step[0, channel, i, j] = 1e-5
            up, down = (cosine(net(probe + s)[0].detach(), r) for s in (step, -step))
            sizes.append(abs(float(up - down)) / 2e-5)
        largest.append(max(sizes))
    # The steps, in float64, are wrong by 1e-9 at most: by their square, and by rounding over them.
    assert_rounded(
        [found.positive[0, i, j] for i, j in places],
        largest,
        **rounding(Gradient(channels="max"), net, "cosine", probe[0], reference[0]),
    )


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
        assert_rounded(
            maps.positive[row],
            np.abs(gradient).mean(axis=0),
            **rounding(Gradient(), model.module, "cosine", probes[row], references[row]),
        )


@pytest.mark.parametrize("steps", [1, 2, 32])
def test_golden_integral_of_the_squared_distance_on_a_linear_model(steps):
    """The gradient is linear along the way: one Gauss point is exact. 2 W'(r - W x / 2)."""
    W, model, probes, references = linear()
    model.similarity = "neg_l2"
    maps = explain(IntegratedGradients(steps=steps), model, probes, references)
    exact = deepcopy(model.module).double()
    for row in range(2):
        x, y = (one[row].double().numpy().ravel() for one in (probes, references))
        expected = x * (2 * W.T @ (W @ y - W @ x / 2))
        expected = expected.reshape(3, 4, 4).sum(axis=0)
        pair = probes[row], references[row]
        three = IntegratedGradients(steps=3)  # as exact, and written by hand above
        assert_rounded(
            signed(maps)[row], expected, **rounding(three, model.module, "neg_l2", *pair)
        )

        def difference(x: Tensor, y: Tensor) -> Tensor:
            e, r = exact(torch.stack([x, y]))
            return neg_l2(e, r) - neg_l2(torch.zeros_like(e), r)

        # Map and difference add up to each other, but for the rounding of both.
        assert_rounded(
            1 + maps.diagnostics["completeness_gap"][row],
            1,
            terms=2 * terms_of(exact, passes=2),
            condition=condition_of(difference, *pair, module=exact),
        )


def test_brightening_a_linear_model_changes_no_cosine_so_both_signs_of_input_x_gradient_cancel():
    _, model, probes, references = linear()
    maps = explain(InputXGradient(), model, probes, references)
    assert_rounded(
        maps.positive.sum(dim=(1, 2)),
        maps.negative.sum(dim=(1, 2)),
        **twice(**rounding(InputXGradient(), model.module, "cosine", probes[0], references[0])),
    )


@pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
@pytest.mark.parametrize("with_contrast", [False, True])
def test_integrated_gradients_add_up_to_what_the_way_changes(baseline, with_contrast):
    net, probes, references, contrast = Smooth(), images(4, 1), images(4, 2), images(4, 3)
    given_ = contrast if with_contrast else None
    explainer = IntegratedGradients(baseline=baseline)
    maps = explain(explainer, CountingModel(net), probes, references, given_)
    exact = deepcopy(net).double()

    def differences(probes: Tensor, references: Tensor, contrast: Tensor) -> Tensor:
        all_of = (probes, fill_images(probes, baseline), references, contrast)
        found = []
        for e, f, r, c in zip(*(exact(some).detach() for some in all_of), strict=True):
            difference = cosine(e, r) - cosine(f, r)
            if with_contrast:
                difference = difference - (cosine(e, c) - cosine(f, c))
            found.append(difference)
        return torch.stack(found)

    given_ = probes, references, contrast
    expected = differences(*(some.double() for some in given_))
    # With 32 points the integral is exact. Twice the terms: map and difference are rounded.
    bound = {
        "terms": 2 * terms_of(net, passes=2),
        "condition": condition_of(differences, *given_, module=exact),
    }
    assert_rounded(signed(maps).sum(axis=(1, 2)), expected, **bound)
    gaps = maps.diagnostics["completeness_gap"]
    assert_rounded((1 + gaps) * expected, expected, **bound)


def test_the_completeness_gap_shows_a_sum_of_too_few_points():
    net, probes, references = Smooth().double(), images(4, 1), images(4, 2)
    found = {
        steps: explain(IntegratedGradients(steps=steps), CountingModel(net), probes, references)
        for steps in (1, 32)
    }
    with torch.no_grad():
        e, f, r = (net(one) for one in (probes, torch.zeros_like(probes), references))
    r = r.float().double()  # as a model hands it over
    difference = np.array([float(cosine(e[i], r[i]) - cosine(f[i], r[i])) for i in range(4)])
    total = signed(found[1]).sum(axis=(1, 2))
    gap = np.abs(total - difference) / np.abs(difference)
    # A difference of float64 numbers: of cosines of up to 1, and of the map's sum from theirs.
    condition = 1 / np.abs(difference).min() / gap.max()
    gaps = found[1].diagnostics["completeness_gap"]
    assert_rounded(gaps, gap, terms=terms_of(net), condition=condition, unit=FLOAT64)
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
    for row in range(2):
        pair = probes[row], references[row]
        assert_rounded(
            one[row], two[row], **twice(**rounding(kind(), model.module, "cosine", *pair))
        )


def test_a_softmax_over_a_gallery_is_another_question():
    net = ConvNet(seed=1).eval()
    model, probes, references = CountingModel(net), images(2, 1), images(2, 2)
    gallery = Gallery(net(images(6, 4)).detach(), torch.arange(6), torch.tensor([0, 1]))
    explainer = InputXGradient(objective="arc_softmax(s=8, m=0)")
    assert explainer.traits.needs == {"gradients", "gallery"}
    maps = signed(explain(explainer, model, probes, references, gallery=gallery))
    twin = deepcopy(net).double()
    for row in range(2):

        def compute(probe: Tensor, reference: Tensor, row=row) -> Tensor:
            x = probe.clone().requires_grad_()
            e = twin(x[None])[0]
            bank = [twin(reference[None])[0].detach()]
            bank += [one.double() for who, one in enumerate(gallery.embeddings) if who != row]
            value = torch.stack([8 * cosine(e, one) for one in bank]).log_softmax(0)[0]
            return (x * torch.autograd.grad(value, x)[0]).sum(dim=0)

        pair = probes[row], references[row]
        assert_rounded(
            maps[row],
            compute(*(one.double() for one in pair)),
            terms=terms_of(twin, passes=2),
            condition=condition_of(compute, *pair, module=twin),
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
    assert_rounded(  # in two chunks of copies: both are rounded
        one.positive[0],
        one.positive[1],
        **twice(**rounding(SmoothGrad(), model.module, "cosine", probes[0], references[0])),
    )
    assert torch.equal(one.positive, two.positive)
    other = explain(SmoothGrad(), model, probes, references, seed=4)
    assert not torch.allclose(one.positive, other.positive, rtol=1e-2)


def test_noise_is_a_fraction_of_the_range_of_the_probe():
    _, model, probes, references = linear()
    flat = probes.clone()
    flat[:] = 0.5  # a range of 0: no noise, the plain gradient
    smooth = explain(SmoothGrad(), model, flat, references).positive
    plain = explain(Gradient(), model, flat, references).positive
    for row in range(2):
        given_ = Gradient(), model.module, "cosine", flat[row], references[row]
        assert_rounded(smooth[row], plain[row], **twice(**rounding(*given_)))


@pytest.mark.parametrize(
    ("kind", "given_", "message"),
    [
        (Gradient, {"objective": "cosin"}, "gradient: objective must be one of"),
        (Gradient, {"channels": "median"}, "gradient: channels must be one of mean, max"),
        (IntegratedGradients, {"steps": 0}, "integrated_gradients: steps must be a whole number"),
        (IntegratedGradients, {"steps": 2.5}, "integrated_gradients: steps must be a whole number"),
        (IntegratedGradients, {"baseline": "sepia"}, "baseline must be one of blur, mean, black"),
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
    exact = deepcopy(net).double()

    def compute(probe: Tensor, references: Tensor) -> Tensor:
        units = nn.functional.normalize(exact(references), dim=1)
        x = probe.clone().requires_grad_()
        value = cosine(exact(x[None])[0], units.mean(dim=0).detach())
        return torch.autograd.grad(value, x)[0].abs().mean(dim=0)

    for row in range(2):
        assert_rounded(
            found[row],
            compute(probes[row].double(), references[row].double()),
            terms=terms_of(exact, passes=2),
            condition=condition_of(compute, probes[row], references[row], module=exact),
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

"""Adapted explainers give the right maps of the right pairs, and leave nothing behind."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fxeval.contracts import Gallery, RowState, SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.maps import explain
from fxeval.errors import ExplainerContractError, FxevalError
from fxeval.explainers.adapters import from_captum, from_function, from_grad_cam
from fxeval.explainers.pair_module import ROWS
from fxeval.hooks.custody import Custody
from fxeval.tests.evidence import comparison
from fxeval.tests.rounding import allowance, assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

N = 5
PAIRS = make_pairs(N)
PROBES, REFERENCES = PAIRS.images[:N] / 255.0, PAIRS.images[N:] / 255.0
OTHERS = REFERENCES.roll(1, 0)


def ask(explainer: object, model: object = None, **given: object) -> SaliencyMaps:
    given = {"probes": PROBES, "references": REFERENCES, **given}
    probes, references = given.pop("probes"), given.pop("references")
    model = model or CountingModel(ConvNet())
    return explainer.explain(
        model, probes.clone(), references.clone(), generator=np.random.default_rng(0), **given
    )


def input_gradients(
    net: nn.Module, value: Callable[[Tensor, int], Tensor], probes: Tensor = PROBES
) -> Tensor:
    """The gradient of ``value(embedding, row)`` at each single probe, (N, 3, H, W).

    Like all references here, it is in the network's own precision.
    """
    found = []
    for row, probe in enumerate(probes):
        image = as_of(net, probe)[None].clone().requires_grad_()
        found += torch.autograd.grad(value(net(image)[0], row), image)
    return torch.cat(found)


def as_of(net: nn.Module, images: Tensor) -> Tensor:
    return images.to(net.fc.weight.dtype)


def cosine_of(net: nn.Module, references: Tensor = REFERENCES) -> Callable[[Tensor, int], Tensor]:
    with torch.no_grad():
        embedded = net(as_of(net, references))
    return lambda embedding, row: F.cosine_similarity(embedding, embedded[row], dim=0)


def saliency_of(net: nn.Module, probes: Tensor = PROBES, references: Tensor = REFERENCES) -> Tensor:
    return input_gradients(net, cosine_of(net, references), probes).abs().mean(1)


def rounding(compute: Callable[[nn.Module, Tensor], Tensor] = saliency_of) -> dict[str, float]:
    """Terms of the rounding of the maps that ``compute`` makes of a network and the probes."""
    net = ConvNet().double().eval()
    condition = condition_of(partial(compute, net), PROBES, module=net)
    return {"terms": terms_of(net, passes=2), "condition": condition}


def assert_equals(found: Tensor, compute: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Compare maps of the probes with those of the network in float64."""
    assert_rounded(found, compute(ConvNet().double().eval(), PROBES), **rounding(compute))


def assert_alike(
    one: Tensor, two: Tensor, compute: Callable[[nn.Module, Tensor], Tensor] = saliency_of
) -> None:
    """Compare two maps that are both rounded like those that ``compute`` makes."""
    bound = rounding(compute)
    assert_rounded(one, two, terms=2 * bound["terms"], condition=bound["condition"])


class Attribution:
    """Like captum's: a forward function, and ``attribute(inputs, additional_forward_args)``."""

    def __init__(self, forward_func: Callable[..., Tensor]) -> None:
        self.forward_func = forward_func

    def gradient(self, images: Tensor, arguments: tuple[Tensor, ...]) -> Tensor:
        values = self.forward_func(images, *arguments)
        assert values.shape == (len(images),)
        return torch.autograd.grad(torch.unbind(values), images)[0]


class Saliency(Attribution):
    def attribute(self, inputs: Tensor, additional_forward_args: tuple[Tensor, ...]) -> Tensor:
        return self.gradient(inputs, additional_forward_args)


class Tunnel(Attribution):
    """Repeats every image, interleaved, and cuts the whole into odd batches, as captum does."""

    def attribute(
        self, inputs: Tensor, additional_forward_args: tuple[Tensor, ...], n_samples: int = 3,
        internal_batch_size: int = 4, noise: float = 0.0,
    ) -> Tensor:  # fmt: skip
        images = inputs.detach().repeat_interleave(n_samples, dim=0)
        images = images + noise * torch.randn(images.shape)
        rows = additional_forward_args[0].repeat_interleave(n_samples, dim=0)
        parts = [
            self.gradient(some.requires_grad_(), (those,))
            for some, those in zip(
                images.split(internal_batch_size), rows.split(internal_batch_size), strict=True
            )
        ]
        return torch.cat(parts).unflatten(0, (len(inputs), n_samples)).mean(dim=1)


class Path(Attribution):
    """Integrated gradients, the steps one after another in one batch."""

    def attribute(
        self, inputs: Tensor, additional_forward_args: tuple[Tensor, ...], n_steps: int = 4,
        baselines: Tensor | float = 0.0,
    ) -> Tensor:  # fmt: skip
        steps = [(step + 0.5) / n_steps for step in range(n_steps)]
        images = torch.cat([baselines + step * (inputs.detach() - baselines) for step in steps])
        rows = torch.cat([additional_forward_args[0]] * n_steps)
        gradients = self.gradient(images.requires_grad_(), (rows,))
        mean = gradients.unflatten(0, (n_steps, len(inputs))).mean(dim=0)
        return mean * (inputs.detach() - baselines)


class Ablation(Attribution):
    """The similarity lost by removing the upper and the lower half of an image."""

    def attribute(self, inputs: Tensor, additional_forward_args: tuple[Tensor, ...]) -> Tensor:
        result = torch.zeros_like(inputs, dtype=torch.float64)
        with torch.no_grad():
            whole = self.forward_func(inputs, *additional_forward_args)
            for half in (slice(0, 8), slice(8, 16)):
                hidden = inputs.clone()
                hidden[:, :, half] = 0
                cost = whole - self.forward_func(hidden, *additional_forward_args)
                result[:, :, half] = cost[:, None, None, None]
        return result


class LayerGradients(Attribution):
    """A layer's activation times its gradient; leaves its hook if the network fails."""

    def __init__(self, forward_func: Callable[..., Tensor], layer: nn.Module) -> None:
        super().__init__(forward_func)
        self.layer = layer

    def attribute(self, inputs: Tensor, additional_forward_args: tuple[Tensor, ...]) -> Tensor:
        kept: list[Tensor] = []
        handle = self.layer.register_forward_hook(lambda *found: kept.append(found[2]))
        values = self.forward_func(inputs, *additional_forward_args)
        (gradients,) = torch.autograd.grad(torch.unbind(values), kept)
        handle.remove()
        return gradients * kept[0]


def test_saliency_of_every_pair_is_the_gradient_of_its_own_similarity():
    found = ask(from_captum(Saliency))
    assert found.positive.dtype == torch.float32
    assert_equals(found.positive, saliency_of)
    assert found.negative is None
    signed = ask(from_captum(Saliency, reduce="positive_sum"))

    def summed(net: nn.Module, probes: Tensor) -> Tensor:
        return input_gradients(net, cosine_of(net), probes).sum(1)

    assert_equals(signed.positive - signed.negative, summed)
    assert bool(((signed.positive == 0) | (signed.negative == 0)).all())


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("internal_batch_size", [1, 2, 4, 100])
def test_references_stay_with_their_probes_when_a_method_repeats_and_cuts_the_batch(
    n_samples: int, internal_batch_size: int
):
    arguments = {"n_samples": n_samples, "internal_batch_size": internal_batch_size}
    found = ask(from_captum(Tunnel, arguments=arguments)).positive
    assert_alike(found, ask(from_captum(Saliency)).positive)


def test_with_references_of_another_order_the_maps_differ():
    """The control of the tests above: a wrong reference shows far beyond the tolerance."""
    right = ask(from_captum(Saliency)).positive
    wrong = ask(from_captum(Saliency), references=REFERENCES.roll(1, 0)).positive
    rounded = allowance(**rounding()) * float(right.max())
    assert float((right - wrong).abs().amax(dim=(1, 2)).min()) > 100 * rounded


def test_steps_are_attributed_to_their_pairs_and_tensors_among_the_arguments_are_used():
    baseline = torch.full((1, 3, 16, 16), 0.25)

    def integrated(net: nn.Module, probes: Tensor) -> Tensor:
        found, way = [], as_of(net, probes) - as_of(net, baseline)
        for step in (0.125, 0.375, 0.625, 0.875):
            points = baseline + step * way
            found.append(input_gradients(net, cosine_of(net), points) / 4 * way)
        return sum(found).sum(1)

    found = ask(from_captum(Path, reduce="positive_sum", arguments={"baselines": baseline}))
    assert_equals(found.positive - found.negative, integrated)


def test_a_method_may_attribute_a_function_of_the_objective():
    class Tripled(Saliency):
        def __init__(self, forward_func: Callable[..., Tensor]) -> None:
            super().__init__(lambda images, rows: 3 * forward_func(images, rows))

    found, plain = ask(from_captum(Tripled)).positive, ask(from_captum(Saliency)).positive
    assert_alike(found, 3 * plain)


def test_a_layers_attribution_is_reduced_and_enlarged():
    explainer = from_captum(lambda f: LayerGradients(f, f.module.conv1), reduce="positive_sum")
    found = ask(explainer)

    def enlarged(net: nn.Module, probes: Tensor) -> Tensor:
        maps = []
        for row, image in enumerate(as_of(net, probes)):
            layer = net.conv1(image[None] * 2 - 1).detach().requires_grad_()
            embedding = net.fc(net.conv2(net.prelu(net.bn1(layer))).flatten(1))[0]
            (gradient,) = torch.autograd.grad(cosine_of(net)(embedding, row), layer)
            maps.append((gradient * layer.detach()).sum(1, keepdim=True))
        size = (16, 16)
        return F.interpolate(torch.cat(maps), size, mode="bilinear", align_corners=False)[:, 0]

    assert_equals(found.positive - found.negative, enlarged)


OBJECTIVES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "native": lambda e, r, c: F.cosine_similarity(e, r, dim=0) - F.cosine_similarity(e, c, dim=0),
    "-cos": lambda e, r, c: F.cosine_similarity(e, c, dim=0) - F.cosine_similarity(e, r, dim=0),
    "neg_l2": lambda e, r, c: (e - c).square().sum() - (e - r).square().sum(),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_and_contrasts_reach_captum_and_grad_cam(objective: str):

    def contrasted(net: nn.Module, probes: Tensor) -> Tensor:
        with torch.no_grad():
            references, others = net(as_of(net, REFERENCES)), net(as_of(net, OTHERS))

        def value(embedding: Tensor, row: int) -> Tensor:
            return OBJECTIVES[objective](embedding, references[row], others[row])

        return input_gradients(net, value, probes).abs().mean(1)

    found = ask(from_captum(Saliency, objective=objective), contrast=OTHERS)
    assert_equals(found.positive, contrasted)
    found = ask(from_grad_cam(PixelCAM, objective=objective), contrast=OTHERS)
    assert_equals(found.positive, lambda net, probes: stretched(contrasted(net, probes)))


def test_a_softmax_over_a_gallery_uses_each_probes_own_row():
    net = ConvNet().eval()
    with torch.no_grad():
        embedded = net(PAIRS.images / 255.0)
    gallery = Gallery(embedded, torch.arange(2 * N) % N, torch.arange(N))
    _, centroids = gallery.centroids()

    def softmax(net: nn.Module, probes: Tensor) -> Tensor:
        own_cosine = cosine_of(net)

        def value(embedding: Tensor, row: int) -> Tensor:
            cosines = centroids @ F.normalize(embedding, dim=0)
            logits = [torch.cos(torch.arccos(own_cosine(embedding, row)) + 0.3) * 8]
            logits += [8 * cosines[other] for other in range(N) if other != row]
            return torch.stack(logits).log_softmax(0)[0]

        return input_gradients(net, value, probes).abs().mean(1)

    objective = "arc_softmax(s=8, m=0.3)"
    explainer = from_captum(Tunnel, objective=objective)
    assert explainer.traits.needs == {"gradients", "gallery"}
    found = ask(explainer, gallery=gallery)
    assert_equals(found.positive, softmax)


def test_euclidean_models_and_centroids_of_references_are_explained():
    model = CountingModel(ConvNet(), similarity="neg_l2")
    several = torch.stack([REFERENCES, OTHERS], dim=1)

    def euclidean(net: nn.Module, probes: Tensor) -> Tensor:
        with torch.no_grad():
            centroid = (net(as_of(net, REFERENCES)) + net(as_of(net, OTHERS))) / 2

        def value(embedding: Tensor, row: int) -> Tensor:
            return -(embedding - centroid[row]).square().sum()

        return input_gradients(net, value, probes).abs().mean(1)

    assert_equals(ask(from_captum(Saliency), model, references=several).positive, euclidean)


def test_a_black_box_is_attributed_through_embed():
    model = CountingModel(ConvNet())
    white = ask(from_captum(Ablation), model)
    embeds = from_captum(Ablation, needs={"black_box"})
    black = CountingModel(ConvNet().eval())
    black_box = replace_module(black)
    found = ask(embeds, black_box)
    assert embeds.traits.needs == {"black_box"}
    assert embeds.unsupported(black_box) is None

    def ablated(net: nn.Module, probes: Tensor) -> Tensor:
        probes, cosine = as_of(net, probes), cosine_of(net)

        def cosines(images: Tensor) -> Tensor:
            return torch.stack([cosine(one, row) for row, one in enumerate(net(images))])

        hidden = torch.stack([probes, probes])
        hidden[0, :, :, :8] = hidden[1, :, :, 8:] = 0
        return torch.stack([cosines(probes) - cosines(images) for images in hidden])

    assert_alike(found.positive, white.positive, ablated)
    assert len(np.unique(found.positive[0])) == 2
    for explainer in (from_captum(Saliency), from_grad_cam(PixelCAM)):
        assert "black box" in explainer.unsupported(black_box)
        with pytest.raises(ExplainerContractError, match="needs gradients"):
            ask(explainer, black_box)


def replace_module(model: CountingModel) -> object:
    class BlackBox(CountingModel):
        def embed(self, images: Tensor) -> Tensor:
            return model.embed(images)

    return BlackBox(None)


def test_a_pair_of_one_image_has_no_gradient_but_an_ablation():
    references = REFERENCES.clone()
    references[[1, 3]] = PROBES[[1, 3]]
    for explainer in (from_captum(Saliency), from_captum(Tunnel), from_grad_cam(PixelCAM)):
        found = ask(explainer, references=references)
        flat = [state == RowState.NO_GRADIENT for state in found.states]
        assert flat == [False, True, False, True, False]
        assert found.reasons[1] == "the objective is flat: both embeddings agree"
        assert float(found.positive[[1, 3]].abs().max()) == 0
        assert float(found.positive[[0, 2, 4]].flatten(1).max(1).values.min()) > 0
    noisy = from_captum(Tunnel, arguments={"noise": 0.1})  # its gradients are not flat
    assert ask(noisy, references=references).states[1] == RowState.NO_GRADIENT
    found = ask(from_captum(Saliency), contrast=REFERENCES)  # flat, and no twin of the probe
    assert set(found.states) == {RowState.NO_GRADIENT}
    found = ask(from_captum(Ablation), references=references)
    assert set(found.states) == {RowState.OK}
    assert float(found.positive[1].max()) > 0


@pytest.mark.parametrize("library", ["captum", "grad-cam"])
def test_a_rows_map_does_not_depend_on_the_rows_beside_it(library: str):
    n = 2 * ROWS + 3
    pairs = make_pairs(n)
    probes, references = pairs.images[:n] / 255.0, pairs.images[n:] / 255.0
    explainer = from_captum(Saliency) if library == "captum" else from_grad_cam(PixelCAM)

    def compute(net: nn.Module, probes: Tensor, references: Tensor) -> Tensor:
        maps = saliency_of(net, probes, references)
        return maps if library == "captum" else stretched(maps)

    together = ask(explainer, probes=probes, references=references).positive
    for row in (0, ROWS - 1, ROWS, n - 1):
        one = slice(row, row + 1)
        alone = ask(explainer, probes=probes[one], references=references[one]).positive
        net, pair = ConvNet().double().eval(), (probes[one], references[one])
        condition = condition_of(partial(compute, net), *pair, module=net)
        assert_rounded(
            alone[0], together[row], terms=2 * terms_of(net, passes=2), condition=condition
        )
    assert ask(explainer, probes=probes[:0], references=references[:0]).positive.shape == (
        0,
        16,
        16,
    )


def test_random_methods_draw_the_same_for_every_row_and_leave_the_generators_alone():
    explainer, model = from_captum(Tunnel, arguments={"noise": 0.1}), CountingModel(ConvNet())
    before = torch.get_rng_state()
    together = ask(explainer, model).positive
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(ask(explainer).positive, together)
    row = slice(3, 4)
    alone = ask(explainer, probes=PROBES[row], references=REFERENCES[row]).positive
    assert_alike(alone[0], together[3])
    twice = ask(explainer, probes=PROBES[[2, 2]], references=REFERENCES[[2, 2]]).positive
    assert torch.equal(twice[0], twice[1])
    assert not torch.allclose(together, ask(from_captum(Tunnel)).positive, rtol=0, atol=1e-5)


def test_numpys_and_pythons_generators_count_as_random_too():
    for draw in ("np.random.rand()", "random.random()"):
        calls: list[int] = []

        class Draws(Saliency):
            def attribute(self, inputs: Tensor, additional_forward_args: tuple) -> Tensor:
                import random

                calls.append(len(inputs))  # noqa: B023
                drawn = eval(draw, {"np": np, "random": random})  # noqa: B023
                return super().attribute(inputs, additional_forward_args) * drawn

        ask(from_captum(Draws))
        assert calls == [N] + [1] * N


class PixelCAM:
    """Like pytorch-grad-cam's ``BaseCAM``, side effects included, but on the pixels."""

    layer = "conv1"

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self.activations_and_grads = Hooks(model.get_submodule(self.layer))

    def __call__(self, input_tensor: Tensor, targets: list[Callable[[Tensor], Tensor]]) -> object:
        image = input_tensor
        outputs = self.model(image)
        loss = sum(target(output) for target, output in zip(targets, outputs, strict=True))
        loss.backward(retain_graph=True)
        assert self.activations_and_grads.seen == [len(input_tensor)] * 2
        self.activations_and_grads.seen.clear()
        return stretched(image.grad.abs().mean(1)).numpy()


class Hooks:
    def __init__(self, layer: nn.Module) -> None:
        self.seen: list[int] = []
        self.is_released = False
        self.handles = [layer.register_forward_hook(self._see) for _ in range(2)]

    def _see(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        assert output.requires_grad
        self.seen.append(len(output))

    def release(self) -> None:
        self.is_released = True


def stretched(maps: Tensor) -> Tensor:
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(1, 2), keepdim=True))


class Swapping(PixelCAM):
    """Like AblationCAM: replaces a layer during the call, and fails before it restores it."""

    def __call__(self, input_tensor: Tensor, targets: list[Callable[[Tensor], Tensor]]) -> object:
        self.model.conv2 = nn.Identity()
        self.model.prelu.weight.grad = torch.ones(6)
        raise IndexError("list index out of range")


class HalfMade(PixelCAM):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        raise ValueError("no such layer")


def test_targets_belong_to_their_rows():
    found = ask(from_grad_cam(PixelCAM)).positive
    assert_equals(found, lambda net, probes: stretched(saliency_of(net, probes)))


@pytest.mark.parametrize("make", [PixelCAM, Swapping, HalfMade])
@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("has_gradients", [True, False])
def test_nothing_is_left_on_the_network_even_after_an_error(
    make: Callable[[nn.Module], object], is_frozen: bool, has_gradients: bool
):
    net = ConvNet().train()
    net.bn1.eval()
    net.requires_grad_(not is_frozen)
    if has_gradients:
        net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    handle = net.conv1.register_forward_hook(lambda *_: None)
    made: list[object] = []

    def remembered(network: nn.Module) -> object:
        made.append(make(network))
        return made[0]

    custody = Custody(net)
    model = CountingModel(net, name="net")
    model.embed = lambda images: net(images).detach()
    expected = {PixelCAM: None, Swapping: "list index out of range", HalfMade: "no such layer"}
    with raises(expected[make]):
        found = ask(from_grad_cam(remembered), model)
        assert float(found.positive.max()) > 0.9
    assert custody.changes() == []
    assert list(net.conv1._forward_hooks) == [handle.id]
    assert net.training
    assert not net.bn1.training
    if made:
        assert made[0].activations_and_grads.is_released


@contextmanager
def raises(message: str | None) -> Iterator[None]:
    if message is None:
        yield
    else:
        with pytest.raises((IndexError, ValueError), match=message):
            yield


def test_hooks_that_captum_leaves_after_an_error_are_taken_off():
    net = ConvNet()
    custody = Custody(net)

    class Failing(LayerGradients):
        def attribute(self, inputs: Tensor, additional_forward_args: tuple) -> Tensor:
            self.layer.register_forward_hook(lambda *_: None)
            raise RuntimeError("an error on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        ask(from_captum(lambda f: Failing(f, f.module.conv1)), CountingModel(net))
    assert custody.changes() == []


@pytest.mark.parametrize(
    "explainer",
    [from_captum(Saliency), from_grad_cam(PixelCAM), from_function(lambda m, p, r: p.mean(1))],
    ids=["captum", "grad-cam", "function"],
)
def test_adapters_pass_the_harness_and_its_custody(explainer: object):
    model = PooledModel(CountingModel(ConvNet().eval()), ForwardPool(), "key")
    found = explain(explainer, model, comparison(PAIRS), seed=0, progress=lambda done, of: None)
    assert set(found.states) == {RowState.OK}, found.reasons
    with torch.inference_mode():
        assert ask(explainer, model).positive.shape == (N, 16, 16)


def test_a_network_without_gradients_or_parameters_is_refused_with_the_reason():
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ConvNet()

        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                return self.net(images)

    with pytest.raises(ExplainerContractError, match="does not depend differentiably"):
        ask(from_captum(Saliency), CountingModel(Deaf()))
    with pytest.raises(ExplainerContractError, match="with parameters"):
        ask(from_grad_cam(PixelCAM), CountingModel(nn.Flatten()))


def maps_of(size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=size)


GOOD = maps_of((N, 16, 16))
WELCOME = {
    "float64": GOOD, "float16": GOOD.astype(np.float16), "big endian": GOOD.astype(">f4"),
    "bytes": np.arange(N * 256, dtype=np.uint8).reshape(N, 16, 16), "a view": GOOD[:, ::-1, ::-1],
    "transposed": np.asfortranarray(GOOD), "one channel": GOOD[:, None],
    "a tensor": torch.from_numpy(GOOD), "a graph": torch.from_numpy(GOOD).requires_grad_(),
    "integers": torch.ones(N, 16, 16, dtype=torch.int64), "half": torch.from_numpy(GOOD).half(),
}  # fmt: skip


@pytest.mark.parametrize("found", WELCOME.values(), ids=WELCOME.keys())
def test_maps_of_any_number_type_are_converted(found: np.ndarray | Tensor):
    maps = ask(from_function(lambda model, probes, references: found)).positive
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    same = np.asarray(found.detach() if isinstance(found, Tensor) else found)
    assert np.array_equal(maps.numpy(), same.reshape(N, 16, 16).astype(np.float32))


UNWELCOME = {
    "nothing": (None, "NoneType"), "a list": ([GOOD], "list"), "truth": (GOOD > 0, "bool"),
    "objects": (GOOD.astype(object), "object"), "complex": (GOOD.astype(complex), "complex128"),
    "text": (GOOD.astype(str), "<U"), "a bool tensor": (torch.ones(N, 16, 16) > 0, "torch.bool"),
    "a complex tensor": (torch.ones(N, 16, 16, dtype=torch.cfloat), "complex64"),
    "a row too few": (GOOD[1:], "(4, 16, 16)"), "turned": (maps_of((16, 16, N)), "(16, 16, 5)"),
    "channels": (maps_of((N, 3, 16, 16)), "(5, 3, 16, 16)"), "small": (GOOD[:, ::2], "(5, 8, 16)"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "named"), UNWELCOME.values(), ids=UNWELCOME.keys())
@pytest.mark.parametrize("library", ["function", "grad-cam"])
def test_what_are_no_maps_is_refused_by_name(found: object, named: str, library: str):
    def mine(model: object, probes: Tensor, references: Tensor) -> object:
        return found

    class Returns(PixelCAM):
        def __call__(self, input_tensor: Tensor, targets: list) -> object:
            return found

    explainer = from_function(mine) if library == "function" else from_grad_cam(Returns)
    with pytest.raises(ExplainerContractError) as error:
        ask(explainer)
    assert named in str(error.value)
    assert str(error.value).startswith("mine: " if library == "function" else "Returns: ")


@pytest.mark.parametrize(
    "found",
    [None, (torch.ones(N, 3, 4, 4), torch.ones(N)), torch.ones(N, 8), torch.ones(1, 3, 4, 4)],
)
def test_what_are_no_attributions_is_refused(found: object):
    class Returns(Saliency):
        def attribute(self, inputs: Tensor, additional_forward_args: tuple) -> object:
            return found

    with pytest.raises(ExplainerContractError, match="one tensor of attributions"):
        ask(from_captum(Returns))


@given(values=st.lists(st.floats(width=64), min_size=4, max_size=4))
@settings(max_examples=50)
def test_nan_and_infinite_values_stay_what_they_are(values: list[float]):
    maps = np.array(values).reshape(1, 2, 2)
    found = ask(
        from_function(lambda model, probes, references: maps),
        probes=torch.zeros(1, 3, 2, 2), references=torch.zeros(1, 3, 2, 2),
    ).positive  # fmt: skip
    with np.errstate(all="ignore"):
        assert np.array_equal(found.numpy(), maps.astype(np.float32), equal_nan=True)


def test_a_function_gets_the_keywords_it_has_and_no_others():
    seen: dict[str, object] = {}

    def plain(model: object, probes: Tensor, references: Tensor) -> Tensor:
        return probes.mean(1)

    def curious(
        model: object, probes: Tensor, references: Tensor, generator: object,
        contrast: Tensor | None = None, scale: float = 1.0, *, gallery: Gallery,
    ) -> SaliencyMaps:  # fmt: skip
        seen.update(generator=generator, contrast=contrast, gallery=gallery)
        return SaliencyMaps(probes.mean(1), probes.mean(1))

    assert from_function(plain).traits.needs == frozenset()
    assert from_function(plain, needs="black_box").traits.needs == {"black_box"}
    explainer = from_function(curious, needs=["gradients"])
    assert explainer.traits.needs == {"gradients", "gallery"}
    gallery = Gallery(torch.ones(1, 8), torch.zeros(1), torch.zeros(N))
    assert ask(explainer, gallery=gallery, contrast=OTHERS).negative is not None
    assert isinstance(seen["generator"], np.random.Generator)
    assert torch.equal(seen["contrast"], OTHERS)
    assert seen["gallery"] is gallery
    with pytest.raises(ExplainerContractError, match="takes no contrast"):
        ask(from_function(plain), contrast=OTHERS)
    assert from_function(plain).unsupported(CountingModel(None)) is None
    assert "black box" in explainer.unsupported(CountingModel(None))


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: from_function(3), "expected a function, got int"),
        (lambda: from_function(lambda model, probes: probes), "too many positional"),
        (lambda: from_function(lambda m, p, r, extra: p), "'extra'"),
        (lambda: from_function(lambda m, p, r, *, extra: p), "'extra'"),
        (lambda: from_function(lambda m, p, r: p, needs={"gradient"}), "mean 'gradients'"),
        (lambda: from_captum(Saliency, objective="cosine"), "Saliency: objective must be"),
        (lambda: from_captum(Saliency, reduce="max"), "abs_mean or positive_sum, got 'max'"),
        (lambda: from_captum(Saliency, needs="white_box"), "unknown need 'white_box'"),
        (lambda: from_grad_cam(PixelCAM, objective="cos(m=1)"), "takes no numbers"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make: Callable[[], object], fault: str):
    with pytest.raises(FxevalError) as error:
        make()
    assert fault in str(error.value)


def test_a_suite_may_set_the_objective_of_an_adapter():
    explainer = replace(from_captum(Saliency), objective="triplet")
    assert explainer.traits.needs == {"gradients", "contrast"}
    assert replace(from_grad_cam(PixelCAM), objective="triplet").traits.needs == {
        "gradients", "layers", "contrast",
    }  # fmt: skip

"""Excitation backprop and its variants, against loops over single neurons."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from fxeval.contracts import Crop, Explainer, RowState
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.excitation_backprop import EBP, ROWS
from fxeval.seeding import sealed
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import CountingModel

SIDE = 6
CROP = Crop("tiny", (SIDE, SIDE), ())
RNG = np.random.default_rng(0)
# With networks in float64, the references' embeddings are rounded once, in the same way for two
# maps of the same images, and so is each map.
ENDS = 2


@dataclass(eq=False)
class Function(nn.Module):
    """Any function of images as a module."""

    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


class Chain(nn.Module):
    """conv - ReLU - strided conv - ReLU - linear, with biases and weights of both signs."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 3, 2, stride=2)
        self.fc = nn.Linear(3 * (SIDE // 2) ** 2, 5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv2(self.conv1(images * 2 - 0.5).relu()).relu().flatten(1))


def pictures(n: int, seed: int, side: int = SIDE) -> Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(seed))


def model_of(module: nn.Module | Callable[[Tensor], Tensor], crop: Crop = CROP) -> CountingModel:
    module = module if isinstance(module, nn.Module) else Function(module)
    return CountingModel(module.eval(), crop=crop)


def explain(module, probes, references, contrast=None, **fields):
    model = module if isinstance(module, CountingModel) else model_of(module)
    return EBP(**fields).explain(model, probes, references, contrast=contrast, generator=RNG)


def raw(module, probes, references, contrast=None, **fields) -> np.ndarray:
    maps = explain(module, probes, references, contrast, post=False, **fields)
    return maps.positive.double().numpy()


def loops_down(p_out: np.ndarray, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """P(j) = sum_i a_j w+_ij P(i) / sum_k a_k w+_ik, one neuron after the other."""
    p_in = np.zeros(len(a))
    for i in range(len(p_out)):
        shares = [max(a[j], 0.0) * max(w[i, j], 0.0) for j in range(len(a))]
        if sum(shares) > 0:
            for j in range(len(a)):
                p_in[j] += p_out[i] * shares[j] / sum(shares)
    return p_in


def loops_conv(p_out: np.ndarray, a: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    """The same for a convolution: every output looks at its own window."""
    w = conv.weight.detach().double().numpy()
    pad, stride, side = conv.padding[0], conv.stride[0], conv.kernel_size[0]
    framed = np.pad(a, ((0, 0), (pad, pad), (pad, pad)))
    p_in = np.zeros_like(framed)
    for o, y, x in np.ndindex(*p_out.shape):
        window = (slice(None), slice(y * stride, y * stride + side),
                  slice(x * stride, x * stride + side))  # fmt: skip
        p_in[window] += loops_down(
            p_out[o, y, x][None], framed[window].ravel(), w[o].reshape(1, -1)
        ).reshape(w[o].shape)
    return p_in[:, pad : pad + a.shape[1], pad : pad + a.shape[2]]


def activations(net: Chain, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a0 = image[None] * 2 - 0.5
    a1 = net.conv1(a0).relu()
    a2 = net.conv2(a1).relu()
    return a0, a1, a2, net.fc(a2.flatten(1))


def loops_ebp(net: Chain, image: Tensor, reference: Tensor) -> list[np.ndarray]:
    """Return P at the embedding's inputs (C, h, w), at conv2's input and at the image."""
    with torch.no_grad():
        a0, a1, a2, e = (part[0].numpy() for part in activations(net, image.double()))
        r = net(reference[None].double())[0].numpy()
    p = loops_down(np.ones(1), e, r[None])
    p2 = loops_down(p, a2.ravel(), net.fc.weight.detach().double().numpy()).reshape(a2.shape)
    p1 = loops_conv(p2, a1, net.conv2)
    return [p2, p1, loops_conv(p1, a0, net.conv1)]


def assert_equals(found: np.ndarray, loops, net: Chain, *images: Tensor) -> None:
    """Compare a map of a network in float32 with ``loops(net, *images)`` in float64."""
    net = deepcopy(net).double()
    compute = partial(loops, net)
    assert_rounded(
        found,
        compute(*images),
        terms=terms_of(net, passes=2),
        condition=condition_of(compute, *images, module=net),
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_convolutional_network_is_as_loops_over_its_neurons(seed: int) -> None:
    net, probe, reference = Chain(seed), pictures(1, seed)[0], pictures(1, 50 + seed)[0]
    found = raw(net, probe[None], reference[None])[0]
    assert found.max() > 0.01
    assert_equals(
        found, lambda net, *pair: loops_ebp(net, *pair)[-1].sum(axis=0), net, probe, reference
    )


def test_two_layers_by_hand() -> None:
    w = torch.zeros(2, 12)
    w[0, :4] = torch.tensor([1.0, 2.0, -5.0, 0.0])
    w[1, :4] = torch.tensor([3.0, -1.0, 1.0, 0.0])
    net = model_of(lambda x: (x.flatten(1) @ w.T).relu())
    probe = torch.zeros(1, 12)
    probe[0, :4] = torch.tensor([0.8, 0.6, 0.2, 1.0])
    reference = torch.zeros(1, 12)
    reference[0, :4] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    probe, reference = probe.view(1, 3, 2, 2), reference.view(1, 3, 2, 2)
    # e = (0.8 + 1.2 - 1, 2.4 - 0.6 + 0.2) = (1, 2); r = (1, 3); head 1/7 and 6/7.
    # Neuron 0: 0.8 + 1.2 = 2: 0.4, 0.6. Neuron 1: 2.4 + 0.2 = 2.6.
    expected = [
        1 / 7 * 0.4 + 6 / 7 * 2.4 / 2.6, 1 / 7 * 0.6, 6 / 7 * 0.2 / 2.6, 0.0,
    ]  # fmt: skip
    found = EBP(post=False).explain(net, probe, reference, generator=RNG).positive
    # Up to 3 products, there and back, and 2 of the head; e0 = 1 is left of 0.8 + 1.2 + 1.
    assert_rounded(found.flatten(), expected, terms=2 * 3 + 2, condition=3)


def test_sums_divide_by_their_operands_and_maxima_give_all_to_the_winner() -> None:
    probe = torch.zeros(1, 3, 1, 2)
    probe[0, 0, 0] = torch.tensor([0.75, 0.25])
    weigh = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def sums(x: Tensor) -> Tensor:  # neuron 0: 3 x0 + x1, neuron 1: 3 x1 + x0
        x = x[:, 0, 0]
        return (3 * x + x.flip(1)) @ weigh

    one = torch.zeros(1, 3, 1, 2)
    one[0, 0, 0, 0] = 1.0  # r = (3, 1), e = (2.5, 1.5): head 7.5 and 1.5 of 9
    expected = [7.5 / 9 * 2.25 / 2.5 + 1.5 / 9 * 0.5, 7.5 / 9 * 0.25 / 2.5 + 1.5 / 9 * 0.5]
    # Nothing cancels: 2 terms of a sum and 2 of a product, there and back, and 2 of the head.
    assert_rounded(raw(sums, probe, one)[0, 0], expected, terms=10)
    winner = raw(lambda x: F.max_pool2d(x[:, :1], (1, 2)).flatten(1), probe, one)
    assert_rounded(winner[0, 0], [1, 0], terms=10)
    features = raw(lambda x: torch.maximum(x[:, 0, 0, :1], x[:, 0, 0, 1:]), probe, one)
    assert_rounded(features[0, 0], [1, 0], terms=10)
    mean = raw(lambda x: F.avg_pool2d(x[:, :1], (1, 2)).flatten(1), probe, one)
    assert_rounded(mean[0, 0], [0.75, 0.25], terms=10)


def contrastive_loops(
    mass: float | None, net: Chain, probe: Tensor, mate: Tensor, other: Tensor
) -> np.ndarray:
    p, q = (loops_ebp(net, probe, one)[-1] for one in (mate, other))
    p, q = p / p.sum(), q / q.sum()
    kept = np.ones_like(p)
    if mass is not None:
        total, kept = 0.0, np.zeros_like(p)
        for place in np.argsort(p.ravel(), kind="stable"):
            total += p.ravel()[place]
            kept.ravel()[place] = total >= mass
    return np.maximum(kept * p - kept * q, 0).sum(axis=0)


@pytest.mark.parametrize(("variant", "mass"), [("contrastive", None), ("truncated", 0.2)])
def test_the_contrast_is_taken_by_pixel_and_channel(variant: str, mass: float | None) -> None:
    net, images = Chain(7), (pictures(1, 1), pictures(1, 2), pictures(1, 3))
    arrived = loops_ebp(deepcopy(net).double(), images[0][0], images[1][0])[-1]
    assert arrived.sum() < 0.98  # some is lost on the way
    found = raw(net, *images, variant=variant)[0]
    assert_equals(found, partial(contrastive_loops, mass), net, *(one[0] for one in images))
    assert found.max() > 0.005


def test_truncation_cuts_a_part_off_and_none_of_it_leaves_the_contrast() -> None:
    images = (pictures(1, 1), pictures(1, 2), pictures(1, 3))
    whole = raw(Chain(), *images, variant="contrastive")
    assert np.array_equal(whole, raw(Chain(), *images, variant="truncated", mass=0.0))
    assert raw(Chain(), *images, variant="truncated", mass=0.6).sum() < whole.sum()


def stack(seed: int) -> nn.Sequential:
    """Five fully connected layers with ReLUs between them, for (3, 2, 2) images."""
    with sealed(seed):
        layers = [part for _ in range(4) for part in (nn.Linear(12, 12), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(12, 6)).eval()


def subtree_loops(net: nn.Sequential, images: tuple[Tensor, ...], top: int) -> np.ndarray:
    dense = [part for part in net if isinstance(part, nn.Linear)]
    weights = [part.weight.detach().double().numpy() for part in dense]
    inputs = [images[0].flatten(1)]
    for part in dense[:-1]:
        inputs.append(part(inputs[-1]).relu())
    e = dense[-1](inputs[-1])
    r = [net(one).detach().float().double() for one in images[1:]]  # as explainers take them
    up, down = (
        torch.autograd.grad(F.cosine_similarity(e, one), inputs[1:], retain_graph=True)
        for one in r
    )  # fmt: skip
    a = [part[0].detach().double().numpy() for part in inputs]
    p = loops_down(np.ones(1), e[0].detach().double().numpy(), r[0].double().numpy())
    found = []
    for layer in range(len(dense) - 1, 0, -1):
        p = loops_down(p, a[layer], weights[layer])
        value = np.where(up[layer - 1][0] >= 0, -down[layer - 1][0], 0.0)
        place = int(value.argmax())
        if value[place] > 0 and p[place] > 0:
            subtree = np.eye(12)[place]
            for below in range(layer - 1, -1, -1):
                subtree = loops_down(subtree, a[below], weights[below])
            subtree = subtree.reshape(3, 2, 2).sum(axis=0)
            found.append((value[place], subtree / subtree.max()))
    best = sorted(found, key=lambda one: -one[0])[:top]
    low, high = best[-1][0], best[0][0]
    scaled = [(v - low) / (high - low) if high > low else 1.0 for v, _ in best]
    return sum(weight * subtree for weight, (_, subtree) in zip(scaled, best, strict=True))


@pytest.mark.parametrize("seed", [6, 16, 25])
def test_subtrees_start_at_the_neurons_that_the_gradients_choose(seed: int) -> None:
    # In float64: weights are the small differences of large ones.
    net = stack(seed).double()
    images = tuple(pictures(1, 7 * seed + one, side=2).double() for one in range(3))
    counts = set()
    for top in (64, 2, 1):
        maps = explain(net, *images, variant="subtree", top=top, post=False)
        assert_rounded(maps.positive[0], subtree_loops(net, images, top), terms=1)
        counts.add(int(maps.diagnostics["subtrees"][0]))
    assert max(counts) >= 3


def test_a_nonmate_equal_to_the_mate_leaves_nothing() -> None:
    probe, mate = pictures(1, 1), pictures(1, 2)
    for variant in ("contrastive", "truncated", "subtree"):
        maps = explain(Chain(), probe, mate, mate, variant=variant)
        assert maps.positive.abs().max() == 0, variant
        assert maps.states == (RowState.DEGENERATE_MAP,)
        assert maps.reasons[0]


class Noisy(CountingModel):
    """Embeds slightly differently from its module, as a GPU may."""

    def embed(self, images: Tensor) -> Tensor:
        return super().embed(images) + 0.01


def test_a_probe_that_is_its_reference_has_no_subtrees_but_a_map_of_the_other_variants() -> None:
    probe, other = pictures(1, 1), pictures(1, 2)
    for model, mate, nonmate in (
        (model_of(Chain()), probe, other),
        (model_of(Chain()), other, probe),
        (Noisy(Chain()), probe, other),
    ):
        maps = explain(model, probe, mate, nonmate, variant="subtree")
        assert maps.states == (RowState.NO_GRADIENT,)
        assert maps.positive.abs().max() == 0
    assert explain(Chain(), probe, probe, other, variant="contrastive").states == (RowState.OK,)


def test_embeddings_without_a_common_positive_dimension_give_a_zero_map() -> None:
    weight = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    probe, reference = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    probe[:, 0], reference[:, 1] = 1.0, 1.0
    maps = explain(lambda x: x.mean((2, 3)) @ weight.T, probe, reference)
    assert maps.states == (RowState.DEGENERATE_MAP,)
    assert maps.positive.abs().max() == 0
    assert maps.diagnostics["mass_lost"].item() == 1


@pytest.mark.parametrize("variant", ["ebp", "contrastive", "truncated", "subtree"])
def test_a_row_does_not_depend_on_the_others(variant: str) -> None:
    n, net = ROWS + 3, Chain(5).double()
    images = tuple(pictures(n, seed).double() for seed in (1, 2, 3)[: 2 if variant == "ebp" else 3])
    together = explain(net, *images, variant=variant)
    for row in (0, ROWS - 1, ROWS, n - 1):
        one = [part[row : row + 1] for part in images]
        alone = explain(net, *one, variant=variant)
        assert_rounded(alone.positive[0], together.positive[row], terms=ENDS)
        assert alone.states[0] == together.states[row]
        for name, values in together.diagnostics.items():
            assert abs(alone.diagnostics[name][0] - values[row]) < 1e-12, name  # of float64
    assert not torch.allclose(together.positive[0], together.positive[1], atol=1e-4)


def test_the_plain_variant_takes_no_contrast() -> None:
    images = [pictures(1, seed) for seed in (1, 2, 3)]
    with pytest.raises(ExplainerContractError, match="'ebp' takes no contrast"):
        explain(Chain(), *images, variant="ebp")


def test_a_centroid_of_equal_references_is_the_reference() -> None:
    net, images = Chain().double(), [pictures(2, seed).double() for seed in (1, 2, 3)]
    probe, reference, other = images
    alone = raw(net, probe, reference, other, variant="contrastive")
    several = torch.stack([reference, reference], dim=1)
    found = raw(net, probe, several, other, variant="contrastive")
    for row in range(2):
        compute, given = partial(contrastive_loops, None, net), [one[row] for one in images]
        condition = condition_of(compute, *given, module=net)
        # The centroid is rounded where the reference is not: when it is given a length of 1.
        assert_rounded(found[row], alone[row], terms=ENDS + 1, condition=condition)


@pytest.mark.parametrize("side", [56, 112, 150])
def test_the_map_is_blurred_and_sums_to_one(side: int) -> None:
    weight = torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).double() - 0.5
    net = model_of(lambda x: F.conv2d(x, weight, stride=16).flatten(1))
    images = pictures(1, 1, side).double(), pictures(1, 2, side).double()
    arrived = raw(net, *images)[0]
    blurred = gaussian_filter(arrived, 2 * side / 112, mode="nearest", truncate=4)
    found = explain(net, *images).positive[0].double().numpy()
    assert_rounded(found, blurred / blurred.sum(), terms=ENDS)
    assert abs(found - arrived / arrived.sum()).max() > 0.5 * found.max()


def test_it_is_an_explainer_that_says_what_it_needs() -> None:
    assert isinstance(EBP(), Explainer)
    assert EBP().traits.needs == {"gradients", "layers"}
    for variant in ("contrastive", "truncated", "subtree"):
        assert EBP(variant=variant).traits.needs == {"gradients", "layers", "contrast"}
        with pytest.raises(ExplainerContractError, match=f"'{variant}' needs a contrast"):
            explain(Chain(), pictures(1, 1), pictures(1, 2), variant=variant)
    assert explain(Chain(), pictures(0, 1), pictures(0, 2)).positive.shape == (0, SIDE, SIDE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("variant", "cebp"), ("mass", -0.1), ("mass", 1.1), ("mass", True), ("mass", float("nan")),
        ("mass", "0.2"), ("top", 0), ("top", 2.0), ("top", True), ("post", 1),
    ],
)  # fmt: skip
def test_fields_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ExplainerContractError, match=f"ebp: {field} must be .*, got "):
        EBP(**{field: value})


def test_weights_are_read_at_every_call_and_inference_mode_does_not_matter() -> None:
    net, images = model_of(Chain()), (pictures(1, 1), pictures(1, 2), pictures(1, 3))
    first = explain(net, *images, variant="subtree").positive
    with torch.inference_mode():
        again = explain(net, *[one.clone() for one in images], variant="subtree").positive
    assert torch.equal(first, again)
    with torch.no_grad():
        net.module.conv1.weight.neg_()
    assert not torch.allclose(explain(net, *images, variant="subtree").positive, first, atol=1e-4)


def test_embeddings_that_are_not_finite_are_the_models_fault() -> None:
    model = model_of(lambda x: x.flatten(1) / 0)
    with pytest.raises(ModelContractError, match="NaN or infinite"):
        explain(model, pictures(1, 1), pictures(1, 2))

"""CAMs against autograd and explicit loops, and a model that comes back as it was lent."""

import random
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.admission import check_maps
from fxeval.contracts import Crop, Explainer, RowState
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.activation_maps import ROWS, ActivationMaps
from fxeval.explainers.cam import GradCAM, GradCAMpp, LayerCAM

SIZE = (12, 10)
CROP = Crop("tiny", SIZE, ())
RNG = np.random.default_rng(0)


@dataclass(eq=False)
class FaceNet:
    """A face model of the tests; counts the images it embeds."""

    module: nn.Module | None
    similarity: str = "cosine"
    name: str = "tiny"
    crop: Crop = CROP
    operating_threshold: float | None = None
    digest: str = "0"
    forwards: int = 0

    def embed(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        with torch.inference_mode():
            return self.module(images)


class Net(nn.Module):
    """conv - BN - PReLU - conv - ReLU in place - linear, seeded, with BN statistics."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.PReLU(4)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2)  # (5, 5, 4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(5 * 5 * 4, 6)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            self.bn.running_mean.copy_(0.2 * torch.randn(4, generator=generator))
            self.bn.running_var.copy_(0.5 + torch.rand(4, generator=generator))
            self.fc.weight.mul_(scale), self.fc.bias.mul_(scale)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.conv2(self.before(images)))

    def before(self, images: Tensor) -> Tensor:
        return self.act(self.bn(self.conv1(images)))

    def after(self, activations: Tensor) -> Tensor:
        return self.fc(self.drop(self.relu(activations)).flatten(1))


def images(n: int, seed: int) -> Tensor:
    return torch.rand((n, 3, *SIZE), generator=torch.Generator().manual_seed(seed))


def explain(
    model, probes, references, *, layer="conv2", contrast=None,
    by: type[ActivationMaps] = GradCAM, **parameters,
):  # fmt: skip
    explainer = by(layer, **parameters)
    return explainer.explain(model, probes, references, contrast=contrast, generator=RNG)


def cosine(e: Tensor, r: Tensor) -> Tensor:
    return e @ r / (e.norm() * r.norm())


def neg_l2(e: Tensor, r: Tensor) -> Tensor:
    return -((e - r) ** 2).sum()


def upsampled(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with half-pixel centres, one pixel at a time."""
    (h, w), (H, W) = coarse.shape, size
    fine = np.zeros(size)
    for i in range(H):
        for j in range(W):
            y = min(max((i + 0.5) * h / H - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / W - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            low, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = y - top, x - left
            fine[i, j] = (1 - a) * ((1 - b) * coarse[top, left] + b * coarse[top, right]) + a * (
                (1 - b) * coarse[low, left] + b * coarse[low, right]
            )
    return fine


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


def by_hand(net: Net, probe: Tensor, objective, formula=grad_cam) -> np.ndarray:
    """One row at a time, in float64, without a hook: the net is cut open at conv2."""
    net = net.double()
    try:
        activation = net.conv2(net.before(probe[None].double())).detach().requires_grad_()
        objective(net.after(activation.clone())[0]).backward()
        gradient = activation.grad[0].numpy()
        a = activation.detach()[0].numpy()
    finally:
        net.float()
        net.zero_grad()
    return upsampled(formula(a, gradient), SIZE)


def embedded(net: Net, image: Tensor) -> Tensor:
    with torch.no_grad():
        return net(image[None])[0].double()


def norm01(map_: np.ndarray | Tensor) -> np.ndarray:
    map_ = np.asarray(map_, dtype=np.float64)
    assert map_.max() > map_.min()
    return (map_ - map_.min()) / (map_.max() - map_.min())


@each_method
@pytest.mark.parametrize(("kind", "objective"), [("cosine", cosine), ("neg_l2", neg_l2)])
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
        r, c = embedded(net, references[row]), embedded(net, contrast[row])

        def of(e, r=r, c=c):
            return objective(e, r) - (objective(e, c) if with_contrast else 0.0)

        expected = by_hand(net, probes[row], of, formula)
        assert expected.max() > 0
        np.testing.assert_allclose(
            maps.positive[row], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
        )
    assert set(maps.states) == {RowState.OK}
    assert maps.positive.dtype == torch.float32
    assert not maps.positive.requires_grad
    assert (maps.positive >= 0).all() or method == "signed"


def test_an_in_place_relu_after_the_layer_does_not_reach_the_activations():
    net = Net()
    with_relu, without = Net(), Net()
    without.relu = nn.ReLU()
    probes, references = images(2, 1), images(2, 2)
    maps = explain(FaceNet(with_relu), probes, references).positive
    assert torch.equal(maps, explain(FaceNet(without), probes, references).positive)
    assert (net.conv2(net.before(probes)) < 0).any()


@pytest.mark.parametrize(
    "transform",
    [
        lambda c: 10 * c,
        lambda c: torch.exp(c),
        lambda c: torch.cos(torch.arccos(c) + 0.2),
        lambda c: 64 * torch.cos(torch.arccos(c) + 0.3),
    ],
    ids=["times 10", "exp", "arc_pair 0.2", "scaled arc_pair 0.3"],
)
def test_increasing_transforms_of_the_cosine_change_no_scaled_map(transform):
    net, probe, reference = Net(), images(1, 1), images(1, 2)
    r = embedded(net, reference[0])
    other = by_hand(net, probe[0], lambda e: transform(cosine(e, r)))
    ours = explain(FaceNet(net), probe, reference).positive[0]
    np.testing.assert_allclose(norm01(ours), norm01(other), atol=1e-5)


def test_the_scale_of_the_embedding_changes_no_scaled_map_but_the_sign_of_the_objective_does():
    probe, reference = images(1, 1), images(1, 2)
    ours = norm01(explain(FaceNet(Net()), probe, reference).positive[0])
    scaled = norm01(explain(FaceNet(Net(scale=8.0)), probe, reference).positive[0])
    np.testing.assert_allclose(ours, scaled, atol=1e-5)
    net = Net()
    r = embedded(net, reference[0])
    flipped = by_hand(net, probe[0], lambda e: -cosine(e, r))
    assert np.abs(ours - norm01(flipped)).max() > 0.2


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_a_reference_that_is_the_probe_has_no_gradient_and_no_map(kind):
    probes, references = images(3, 1), images(3, 2)
    references[1] = probes[1]
    maps = explain(FaceNet(Net(), kind), probes, references)
    assert maps.states == (RowState.OK, RowState.NO_GRADIENT, RowState.OK)
    assert maps.positive[1].eq(0).all()
    assert "flat" in maps.reasons[1]
    assert check_maps("gradcam", maps, 3, SIZE).states == maps.states


def test_a_reference_that_is_the_probe_is_noticed_whatever_the_rounding_of_the_model():
    net, probes = Net(), images(2, 1)
    model = FaceNet(net)
    model.embed = lambda batch: net(batch) + 1e-3 * torch.arange(6)  # another device, say
    references = torch.stack([probes[0], images(1, 2)[0]])
    maps = explain(model, probes, references)
    assert maps.states == (RowState.NO_GRADIENT, RowState.OK)


def test_a_contrast_gives_a_gradient_even_where_the_reference_is_the_probe():
    probes, contrast = images(2, 1), images(2, 3)
    maps = explain(FaceNet(Net()), probes, probes.clone(), contrast=contrast)
    assert set(maps.states) == {RowState.OK}
    maps = explain(FaceNet(Net()), probes, contrast, contrast=contrast.clone())
    assert set(maps.states) == {RowState.NO_GRADIENT}


def test_a_collapsed_network_has_no_gradient():
    net = Net()
    with torch.no_grad():
        net.fc.weight.mul_(1e-9)
    maps = explain(FaceNet(net), images(2, 1), images(2, 2))
    assert set(maps.states) == {RowState.NO_GRADIENT}


def test_activations_that_the_embedding_ignores_have_no_gradient():
    net = Net()
    with torch.no_grad():
        net.conv2.bias.fill_(-1e3)  # the ReLU after conv2 is dead
        net.fc.bias.copy_(torch.randn(6, generator=torch.Generator().manual_seed(1)))
    model = FaceNet(net)
    model.embed = lambda batch: torch.ones(len(batch), 6)
    maps = explain(model, images(2, 1), images(2, 2))
    assert set(maps.states) == {RowState.NO_GRADIENT}
    assert "no gradient at 'conv2'" in maps.reasons[0]


def test_a_map_that_the_relu_empties_stays_zero_and_is_flagged_by_the_harness():
    probe = images(1, 1)
    # One channel that is positive everywhere and whose mean gradient is negative: the reference
    # lies in the direction of less light.
    one = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.Flatten(), nn.Linear(120, 2))
    with torch.no_grad():
        one[0].weight.fill_(1.0)
        one[2].weight.copy_(torch.stack([torch.ones(120), -torch.ones(120)]) / 120)
        one[2].bias.copy_(torch.tensor([3.0, 0.0]))
    one.eval()
    maps = explain(FaceNet(one), probe, 0.1 * probe, layer="0")
    assert maps.states == (RowState.OK,)
    assert maps.positive.eq(0).all()
    assert check_maps("gradcam", maps, 1, SIZE).states == (RowState.DEGENERATE_MAP,)


def test_rows_do_not_depend_on_their_batch():
    n = ROWS + 3
    model, probes, references = FaceNet(Net()), images(n, 1), images(n, 2)
    together = explain(model, probes, references).positive
    assert model.forwards == n  # the references; the probes run through the module itself
    for row in (0, 5, ROWS - 1, ROWS, n - 1):
        alone = explain(model, probes[row : row + 1], references[row : row + 1]).positive[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-6)


def test_a_model_in_training_mode_is_explained_as_in_eval_mode():
    probes, references = images(3, 1), images(3, 2)
    expected = explain(FaceNet(Net()), probes, references).positive
    net = Net()
    net.train()
    assert torch.equal(explain(FaceNet(net), probes, references).positive, expected)
    assert net.training
    assert net.bn.training


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_frozen_parameters_and_callers_without_gradients_give_the_same_maps(mode):
    probes, references = images(3, 1), images(3, 2)
    expected = explain(FaceNet(Net()), probes, references).positive
    net = Net().requires_grad_(False)
    with mode():
        maps = explain(FaceNet(net), probes * 1, references * 1).positive
    assert torch.equal(maps, expected)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def fingerprint(net: nn.Module) -> tuple:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    return (
        {name: value.numpy().tobytes() for name, value in net.state_dict().items()},
        [module.training for module in net.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()],
        [parameter.requires_grad for parameter in net.parameters()],
        [None if p.grad is None else (id(p.grad), p.grad.sum().item()) for p in net.parameters()],
        torch.get_rng_state().numpy().tobytes(),
        (python, numpy[1].tobytes(), numpy[2]),
        torch.is_grad_enabled(),
    )


def used_net() -> Net:
    """A net as a stranger might hand it over: half in training, half frozen, with gradients."""
    net = Net()
    net.train()
    net.bn.eval()
    net.conv1.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    net.act.register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize("layer", ["conv2", None, "fc", "nothing"])
def test_the_model_and_all_generators_come_back_as_they_were_even_after_an_error(layer):
    net = used_net()
    before = fingerprint(net)
    if layer in ("conv2", None):
        explain(FaceNet(net), images(2, 1), images(2, 2), layer=layer)
    else:
        with pytest.raises(ExplainerContractError):
            explain(FaceNet(net), images(2, 1), images(2, 2), layer=layer)
    assert fingerprint(net) == before


def test_the_model_comes_back_after_its_own_error():
    net = used_net()
    model = FaceNet(net)
    before = fingerprint(net)

    def fail(*_):
        torch.rand(1)
        raise ZeroDivisionError

    model.embed = fail
    with pytest.raises(ZeroDivisionError):
        explain(model, images(2, 1), images(2, 2))
    assert fingerprint(net) == before


def test_a_model_that_changes_itself_is_named():
    class Counting(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, batch: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(batch)

    with pytest.raises(ExplainerContractError, match=r"changed while it was lent.*calls"):
        explain(FaceNet(Counting()), images(1, 1), images(1, 2))


class Odd(nn.Module):
    """Layers that Grad-CAM cannot use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.aside = nn.Conv2d(3, 2, 1)
        self.unused = nn.Conv2d(3, 2, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, batch: Tensor) -> Tensor:
        self.aside(batch)
        x = self.relu(self.relu(self.conv(batch)))
        return self.fc(self.pool(x).flatten(1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("pool", r"1 x 1 pixels and holds no place.*conv \(10 x 8\)"),
        ("relu", r"runs 2 times.*conv \(10 x 8\)"),
        ("unused", "runs 0 times"),
        ("aside", "does not depend differentiably on layer 'aside'"),
        ("fc", r"one \(N, C, h, w\) tensor, but this Linear does not"),
    ],
)
def test_a_layer_that_cannot_be_used_is_refused_with_the_reason(layer, message):
    with pytest.raises(ExplainerContractError, match=message):
        explain(FaceNet(Odd().eval()), images(2, 1), images(2, 2), layer=layer)


def test_a_module_that_detaches_is_refused():
    class Detached(Net):
        def forward(self, batch: Tensor) -> Tensor:
            return super().forward(batch).detach()

    with pytest.raises(ExplainerContractError, match="differentiably"):
        explain(FaceNet(Detached()), images(1, 1), images(1, 2))


def test_a_black_box_is_refused_and_broken_embeddings_are_the_models_fault():
    with pytest.raises(ExplainerContractError, match="black box"):
        explain(FaceNet(None), images(1, 1), images(1, 2))
    net = Net()
    with torch.no_grad():
        net.fc.bias.fill_(torch.nan)
    with pytest.raises(ModelContractError, match="NaN"):
        explain(FaceNet(net), images(1, 1), images(1, 2))


def test_the_default_layer_is_the_last_to_finish_with_4_by_4_pixels():
    net, probes, references = Net(), images(2, 1), images(2, 2)
    by_default = explain(FaceNet(net), probes, references, layer=None).positive
    assert torch.equal(by_default, explain(FaceNet(net), probes, references, layer="drop").positive)


def test_no_pairs_give_no_maps():
    maps = explain(FaceNet(Net()), images(1, 1)[:0], images(1, 2)[:0], layer="conv2")
    assert maps.positive.shape == (0, *SIZE)


@pytest.mark.parametrize("by", [GradCAM, GradCAMpp, LayerCAM])
def test_they_are_explainers_with_declared_needs(by):
    assert isinstance(by(), Explainer)
    assert by().needs == {"gradients", "layers"}
    assert by(objective="triplet").needs == {"gradients", "layers", "contrast"}
    assert by(objective="arc_softmax").needs == {"gradients", "layers", "gallery"}
    assert by.takes_centroids
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


def test_layers_before_and_after_a_skip_connection_keep_their_own_gradient():
    class Skip(Net):
        def forward(self, batch: Tensor) -> Tensor:
            x = self.conv2(self.before(batch))
            return self.after(x + torch.tanh(x))

    net, probe, reference = Skip(), images(1, 1), images(1, 2)
    with torch.no_grad():
        r = net(reference)[0].double()
    outer = Net.after
    net.after = lambda x: outer(net, x + torch.tanh(x))
    expected = by_hand(net, probe[0], lambda e: cosine(e, r))
    del net.after
    ours = explain(FaceNet(net), probe, reference).positive[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_the_slow_upsampling_is_itself_right():
    ramp = upsampled(np.array([[0.0, 1.0]]), (1, 4))[0]
    np.testing.assert_allclose(ramp, [0, 0.25, 0.75, 1])
    assert all(a <= b for a, b in pairwise(ramp))

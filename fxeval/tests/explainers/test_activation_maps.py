"""The machinery of the CAMs: states, batches, several layers, and a model that is restored."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import Gallery, RowState
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.activation_maps import ROWS
from fxeval.explainers.grad_cam import GradCAM, GradCAMpp, LayerCAM
from fxeval.hooks.returned import check_maps
from fxeval.seeding import sealed
from fxeval.tests.cam_subjects import SIZE, FaceNet, Net, exact, explain, images, norm01
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of

LAYERS = ("conv1", "act", "conv2")
# With a network in float64, only the returned map is rounded. Where two maps are compared, one is
# the mean of scaled maps, whose values and two ends are rounded: 1 + 3.
STRETCHED = 4


def unit(map_: Tensor) -> np.ndarray:
    """Stretch a map to [0, 1]; one that the ReLU emptied stays zero."""
    return norm01(map_) if map_.any() else map_.numpy()


def assert_equals_float64(found: Tensor, net: nn.Module, probes, references, **how) -> None:
    """Compare maps with those of the same network in float64."""
    net64 = exact(net)

    def compute(probes: Tensor, references: Tensor) -> Tensor:
        return explain(FaceNet(net64), probes, references, **how).positive

    assert_rounded(
        found,
        compute(probes, references),
        terms=terms_of(net, passes=2),
        condition=condition_of(compute, probes, references, module=net64),
    )


@pytest.mark.parametrize("by", [GradCAM, GradCAMpp, LayerCAM])
def test_several_layers_are_the_mean_of_their_stretched_maps(by):
    model, probes, references = FaceNet(exact(Net())), images(3, 1), images(3, 2)
    fused = explain(model, probes, references, by=by, layer=LAYERS)
    alone = [explain(model, probes, references, by=by, layer=one) for one in LAYERS]
    for row in range(3):
        expected = np.mean([unit(maps.positive[row]) for maps in alone], axis=0)
        assert_rounded(fused.positive[row], expected, terms=STRETCHED)
    name = "negative_activation_share"
    shares = torch.stack([maps.diagnostics[name] for maps in alone])
    assert_rounded(fused.diagnostics[name], shares.double().mean(0), terms=2)  # both rounded
    reordered = explain(model, probes, references, by=by, layer=LAYERS[::-1]).positive
    assert_rounded(fused.positive, reordered, terms=2)
    one = explain(model, probes, references, by=by, layer=("conv2",)).positive
    assert torch.equal(one, alone[2].positive)  # a single layer is not stretched


def test_a_layer_whose_map_is_constant_adds_nothing_and_a_broken_one_is_not_hidden():
    class Partial(GradCAM):
        filled = 0.0

        def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
            found = super().coarse(activations, gradients)
            return torch.full_like(found, self.filled) if activations.shape[1] == 4 else found

    model, probes, references = FaceNet(exact(Net())), images(2, 1), images(2, 2)
    alone = explain(model, probes, references)
    for Partial.filled in (0.0, 3.0):
        fused = explain(model, probes, references, by=Partial, layer=("conv1", "conv2"))
        for row in range(2):
            assert_rounded(fused.positive[row], norm01(alone.positive[row]) / 2, terms=STRETCHED)
        nothing = explain(model, probes, references, by=Partial, layer=("conv1", "act"))
        assert nothing.positive.eq(0).all()
        assert set(check_maps("x", nothing, 2, SIZE).states) == {RowState.DEGENERATE_MAP}
    Partial.filled = torch.nan
    broken = explain(model, probes, references, by=Partial, layer=("conv1", "conv2"))
    assert set(check_maps("x", broken, 2, SIZE).states) == {RowState.NAN_MAP}


def test_tiny_maps_of_several_layers_are_fused_like_large_ones():
    """Scaling is relative: the magnitude of an objective must not make a layer drop out."""

    class Faint(LayerCAM):
        def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
            assert activations.dtype == gradients.dtype == torch.float64
            return super().coarse(activations, 1e-20 * gradients)

    net, pairs = Net(), (images(2, 1), images(2, 2))
    for by in (LayerCAM, Faint):
        found = explain(FaceNet(net), *pairs, by=by, layer=LAYERS).positive
        assert_equals_float64(found, net, *pairs, by=LayerCAM, layer=LAYERS)


def test_a_layer_without_gradient_beside_one_with_does_not_void_the_row():
    net = Net()
    with torch.no_grad():
        net.conv2.weight.zero_()  # nothing before conv2 matters
    model = FaceNet(net)
    model.embed = lambda batch: FaceNet(Net()).embed(batch)
    for layer in (("conv2", "act"), ("act", "conv2")):
        assert set(explain(model, images(2, 1), images(2, 2), layer=layer).states) == {RowState.OK}
    alone = explain(model, images(2, 1), images(2, 2), layer="act")
    assert set(alone.states) == {RowState.NO_GRADIENT}


def test_a_softmax_has_a_direction_even_where_the_reference_is_the_probe():
    others = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    gallery = Gallery(others, torch.arange(4), torch.tensor([9, 9]))
    probes = images(2, 1)
    maps = GradCAM("conv2", objective="arc_softmax(m=0.3,s=4)").explain(
        FaceNet(Net()), probes, probes, generator=np.random.default_rng(0), gallery=gallery
    )
    assert set(maps.states) == {RowState.OK}


def test_the_share_of_negative_activations_is_told():
    net, probes, references = Net(), images(4, 1), images(4, 2)
    maps = explain(FaceNet(net), probes, references, layer="act")
    with torch.no_grad():
        expected = [(net.before(probe[None]) < 0).double().mean().item() for probe in probes]
    assert 0 < min(expected) < max(expected) < 1
    assert_rounded(maps.diagnostics["negative_activation_share"], expected, terms=1)
    after_relu = explain(FaceNet(net), probes, references, layer="relu")
    assert after_relu.diagnostics["negative_activation_share"].eq(0).all()


def test_nothing_before_the_first_layer_is_recorded_for_the_backward_pass():
    net, seen = Net(), {}
    for name in ("conv1", "bn", "act", "conv2", "relu", "fc"):
        net.get_submodule(name).register_forward_pre_hook(
            lambda _module, _inputs, name=name: seen.__setitem__(name, torch.is_grad_enabled())
        )
    explain(FaceNet(net), images(2, 1), images(2, 2), layer=("conv2", "act"))
    assert [name for name, grad in seen.items() if not grad] == ["conv1", "bn", "act"]


def test_layers_on_parallel_branches_keep_their_own_gradients():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4 * 80, 6)

        def forward(self, batch: Tensor) -> Tensor:
            return self.fc((self.left(batch) * torch.sigmoid(self.right(batch))).flatten(1))

    with sealed(0):
        net = Branches()
    model, probes, references = FaceNet(exact(net.eval())), images(2, 1), images(2, 2)
    fused = explain(model, probes, references, layer=("left", "right")).positive
    alone = [explain(model, probes, references, layer=one).positive for one in ("left", "right")]
    for row in range(2):
        expected = np.mean([unit(maps[row]) for maps in alone], axis=0)
        assert_rounded(fused[row], expected, terms=STRETCHED)


def test_a_forward_pass_without_gradients_of_its_own_is_explained_or_refused_never_made_up():
    model, probes, references = FaceNet(Net()), images(2, 1), images(2, 2)
    expected = explain(model, probes, references).positive

    class Frozen(Net):
        forward = torch.no_grad()(Net.forward)

    assert torch.equal(explain(FaceNet(Frozen()), probes, references).positive, expected)

    class Inference(Net):
        forward = torch.inference_mode()(Net.forward)

    with pytest.raises(ExplainerContractError, match="differentiably"):
        explain(FaceNet(Inference()), probes, references)


def test_a_layer_that_runs_once_for_one_image_and_more_often_for_two_is_refused():
    class OneByOne(Net):
        def forward(self, batch: Tensor) -> Tensor:
            return torch.cat([super(OneByOne, self).forward(one) for one in batch.split(1)])

    with pytest.raises(ExplainerContractError, match="ran once for one image, but 2 times for 2"):
        explain(FaceNet(OneByOne()), images(2, 1), images(2, 2))


def test_a_network_in_float64_gives_the_same_maps():
    probes, references = images(3, 1), images(3, 2)
    double = explain(FaceNet(Net().double()), probes.double(), references.double()).positive
    for row in range(3):
        pair = probes[row : row + 1], references[row : row + 1]
        single = explain(FaceNet(Net()), *pair).positive
        assert_equals_float64(single, Net(), *pair)
        assert_rounded(double[row], explain(FaceNet(exact(Net())), *pair).positive[0], terms=2)


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
    net, probes = Net(), images(ROWS + 3, 1)
    model = FaceNet(net)
    model.embed = lambda batch: net(batch) + 1e-3 * torch.arange(6)  # another device, say
    references = images(ROWS + 3, 2)
    twins = [0, ROWS + 1]
    references[twins] = probes[twins]
    states = explain(model, probes, references).states
    assert [row for row, state in enumerate(states) if state != RowState.OK] == twins


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
    model, probes, references = FaceNet(exact(Net())), images(n, 1), images(n, 2)
    together = explain(model, probes, references).positive
    assert model.forwards == n  # the references; the probes run through the module itself
    for row in (0, 5, ROWS - 1, ROWS, n - 1):
        alone = explain(model, probes[row : row + 1], references[row : row + 1]).positive[0]
        assert_rounded(together[row], alone, terms=2)  # both are rounded, at the end alone


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
    """A net as a user might pass it: half in training, half frozen, with gradients."""
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
        ("pool", r"1 x 1 pixels, fewer than 2 x 2.*conv \(10 x 8\)"),
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


@pytest.mark.parametrize(("layer", "spent"), [("act", 2), (("conv1", "act"), 2), ("conv[-1]", 3)])
def test_a_layer_given_by_name_costs_no_pass_to_find_it(layer, spent):
    net = Net()
    passes = []
    handle = net.register_forward_hook(lambda module, given, out: passes.append(len(out)))
    explain(FaceNet(net), images(1, 1), images(1, 2), layer=layer)
    handle.remove()
    assert sum(passes) == spent

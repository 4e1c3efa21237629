"""The rules of excitation backprop on whole networks: invariants, and refused operations."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import Crop, RowState
from fxeval.errors import ExplainerContractError
from fxeval.explainers.excitation_backprop import EBP
from fxeval.hooks.recording import record
from fxeval.models.networks.dlib_resnet import DlibResNet
from fxeval.models.networks.mini_inception import MiniInception
from fxeval.models.networks.mini_mobile import MiniMobile
from fxeval.models.networks.mini_resnet import MiniResNet
from fxeval.seeding import sealed
from fxeval.tests.explainers.test_excitation_backprop import (
    ENDS,
    RNG,
    SIDE,
    Chain,
    Function,
    explain,
    model_of,
    pictures,
    raw,
)
from fxeval.tests.rounding import allowance, assert_rounded, terms_of
from fxeval.tests.subjects import CountingModel


class Residual(nn.Module):
    """Sums, pools, padding, slices and concatenation; no weight and no bias is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(2 * 9 * 6, 5)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.rand(parameter.shape, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu6(self.conv1(images) / 10)
        y = F.pad(self.bn(self.conv2(x))[:, :4], (0, 0, 0, 0, 1, 1)) * 0.5
        x = F.max_pool2d(F.leaky_relu(x + y), 2)
        x = torch.cat([x, x + 0.1], dim=1).permute(0, 2, 3, 1).reshape(len(x), -1)
        return F.normalize(self.fc(x))


def test_no_mass_is_lost_without_negative_weights_and_activations() -> None:
    maps = explain(Residual(), pictures(3, 1), pictures(3, 2), post=False)
    # The layers' sums, to and fro, and that over the pixels' colours; nothing cancels.
    terms = terms_of(Residual(), passes=2) + 3 * SIDE**2
    assert_rounded(maps.positive.sum((1, 2)), np.ones(3), terms=terms)
    assert_rounded(1 - maps.diagnostics["mass_lost"], np.ones(3), terms=terms)
    assert maps.diagnostics["negative_activation_share"].abs().max() == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_no_mass_is_made_and_the_scale_of_the_embedding_does_not_matter(
    seed: int, scale: float
) -> None:  # fmt: skip
    images = pictures(1, seed).double(), pictures(1, seed + 1).double()
    net = Chain(seed).double()  # embeddings of some seeds are the rest of what cancels
    found = raw(net, *images)
    assert found.min() >= 0
    assert found.sum() <= 1 + allowance(1)
    scaled = raw(lambda x: scale * net(x), *images)
    # The references' embeddings are rounded, too. They only weigh nonnegative maps, so nothing
    # cancels from here on, whatever cancelled on the way to the embeddings.
    assert_rounded(scaled, found, terms=2 * ENDS)


def test_a_batch_norm_with_positive_scale_is_as_if_folded_into_the_convolution() -> None:
    generator = torch.Generator().manual_seed(3)
    net, folded, bn = (part.double() for part in (Chain(1), Chain(1), nn.BatchNorm2d(4).eval()))
    with torch.no_grad():
        for part in (bn.weight, bn.running_var):
            part.copy_(0.5 + torch.rand(4, generator=generator))
        for part in (bn.bias, bn.running_mean):
            part.copy_(torch.randn(4, generator=generator) * 0.3)
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        folded.conv1.weight.mul_(scale[:, None, None, None])
        folded.conv1.bias.sub_(bn.running_mean).mul_(scale).add_(bn.bias)
    net.conv1 = nn.Sequential(net.conv1, bn)
    images = pictures(1, 1).double(), pictures(1, 2).double()
    assert_rounded(raw(net, *images), raw(folded, *images), terms=ENDS)
    with torch.no_grad():
        bn.weight.neg_()
        bn.bias.add_(5)
    assert raw(net, *images).max() == 0
    assert explain(net, *images).diagnostics["mass_lost"].item() == 1


def test_the_negative_branch_of_a_prelu_carries_nothing_but_is_counted() -> None:
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 1, 4)
    prelu = nn.PReLU(init=-1.0)  # makes the negative branch positive
    net = model_of(lambda x: F.conv2d(prelu(x[:, :1] * signs.abs() - 0.5), torch.ones(2, 1, 1, 4))
                   .flatten(1))  # fmt: skip
    probe = torch.zeros(1, 3, 1, 4)
    probe[0, 0, 0] = torch.tensor([0.9, 0.1, 0.7, 0.3])  # minus 0.5: 0.4, -0.4, 0.2, -0.2
    maps = EBP(post=False).explain(net, probe, torch.ones(1, 3, 1, 4), generator=RNG)
    # A sum of 4, there and back, and 2 of the head; 0.2 is left of 0.7 - 0.5.
    bound = {"terms": 2 * 4 + 2, "condition": 6}
    assert_rounded(maps.positive[0, 0], [0.4 / 1.2, 0, 0.2 / 1.2, 0], **bound)
    assert_rounded(maps.diagnostics["mass_lost"], [0.5], **bound)
    prelu.weight.data.fill_(0.25)
    maps = EBP(post=False).explain(net, probe, torch.ones(1, 3, 1, 4), generator=RNG)
    assert_rounded(maps.positive[0, 0], [2 / 3, 0, 1 / 3, 0], **bound)
    assert maps.diagnostics["negative_activation_share"].item() == 0.5


def in_place(net: Chain) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        x = net.conv1(images.mul_(2).sub_(0.5)).relu_()
        y = x.flatten(1).mul_(0.5).view_as(x).clone()
        y += F.relu_(y)
        return net.fc(F.relu(net.conv2(y), inplace=True).flatten(1))

    return forward


def out_of_place(net: Chain) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        x = net.conv1(images * 2 - 0.5).relu() * 0.5
        return net.fc((net.conv2(x.relu() + x.relu()).relu()).flatten(1))

    return forward


@pytest.mark.parametrize("variant", ["ebp", "contrastive", "subtree"])
def test_changes_in_place_change_nothing(variant: str) -> None:
    net, seeds = Chain().double(), (1, 2, 3)[: 2 if variant == "ebp" else 3]
    images = tuple(pictures(2, seed).double() for seed in seeds)
    first = raw(in_place(net), *[one.clone() for one in images], variant=variant)
    assert_rounded(first, raw(out_of_place(net), *images, variant=variant), terms=ENDS)
    assert first.max() > 0


def test_activations_are_those_before_a_later_change_in_place() -> None:
    def forward(clamped: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            h = net.conv1(x).relu()
            y = net.conv2(h)
            return torch.cat([y.flatten(1), clamped(h).flatten(1)], dim=1)

        return run

    net, images = Chain(6).double(), (pictures(1, 1).double(), pictures(1, 2).double())
    in_place = raw(forward(lambda h: h.clamp_(0, 0.05)), *images)
    assert_rounded(in_place, raw(forward(lambda h: h.clamp(0, 0.05)), *images), terms=ENDS)
    assert in_place.max() > 0


def test_negative_factors_pass_nothing() -> None:
    probe, reference = (torch.rand(1, 3, 2, 2) + 0.1).double(), torch.ones(1, 3, 2, 2).double()
    signs = torch.tensor([1.0, -1.0, 0.5]).view(1, 3, 1, 1)
    red = 3 * torch.eye(3)[:, :1].view(1, 3, 1, 1) - 1  # (2, -1, -1)

    def through(function: Callable[[Tensor], Tensor]) -> list[float]:
        def forward(x: Tensor) -> Tensor:
            return F.conv2d(function(x) + 3.0, torch.ones(2, 3, 2, 2).double()).flatten(1)

        maps = explain(forward, probe, reference, post=False)
        return [maps.positive.double().sum().item(), maps.diagnostics["mass_lost"].item()]

    kept = 1 - through(lambda x: x * signs)[1]
    assert kept == pytest.approx(
        (1 - (3 - probe[0, 1]).sum() / ((probe * signs) + 3).sum()).item(), abs=1e-9
    )
    assert through(lambda x: x / signs)[1] > 0.2
    whole = through(lambda x: x)[0]
    assert_rounded(whole, 1.0, terms=1)  # each pixel once, at the end
    assert through(lambda x: x * red)[0] < whole
    assert through(lambda x: x * -0.5) == through(lambda x: x / -2) == [0, 1]


def test_a_recording_run_again_on_other_images_embeds_them() -> None:
    for net in (Function(in_place(Chain())), MiniResNet().eval()):
        side = SIDE if isinstance(net, Function) else 112
        recording = record(net, pictures(2, 1, side))
        others = pictures(2, 2, side)
        with torch.no_grad():
            again = recording.rerun(others.clone())[recording.output]
            assert torch.equal(again, net(others.clone()))


class Squeeze(nn.Module):
    """A block that weighs channels by their own content (squeeze and excitation)."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 1), act

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (x * self.act(x.mean((2, 3), keepdim=True))).flatten(1)


def hidden_write(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 0].mul_(3)
    return y.flatten(1)


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (nn.Sequential(Squeeze(nn.Sigmoid())), ["'sigmoid'", "'0.act' (Sigmoid)"]),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh(), nn.Flatten()), ["'tanh'", "'1' (Tanh)"]),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ELU(), nn.Flatten()), ["'elu'", "'1' (ELU)"]),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.GELU(), nn.Flatten()), ["'gelu'", "(GELU)"]),
        (Squeeze(nn.ReLU()), ["'mul'"]),
        (Function(lambda x: (1 - x).flatten(1)), ["'rsub'"]),
        (Function(lambda x: x.clamp(-1, 1).flatten(1)), ["'clamp'"]),
        (Function(lambda x: (x - x.flip(3)).flatten(1)), ["'sub'"]),
        (Function(lambda x: F.batch_norm(x, None, None, training=True).flatten(1)), ["batch_norm"]),
        (Function(hidden_write), ["in place", "another view"]),
        (Function(lambda x: torch.from_numpy(x.flatten(1).numpy() + 1)), ["not computed from"]),
        (nn.Sequential(nn.Hardswish(), nn.Flatten()), ["'hardswish'", "(Hardswish)"]),
    ],
)
def test_operations_without_a_rule_are_named(net: nn.Module, named: list[str]) -> None:
    model = model_of(net)
    reason = EBP().unsupported(model)
    assert reason is not None
    assert all(part in reason for part in named), reason
    assert ("in layer" in reason) == any("(" in part for part in named)
    with pytest.raises(ExplainerContractError, match="ebp: ") as caught:
        explain(model, pictures(1, 1), pictures(1, 2))
    assert reason in str(caught.value)


def test_operations_off_the_way_to_the_embedding_do_not_matter() -> None:
    def forward(x: Tensor) -> Tensor:
        torch.sigmoid(x).mean()
        return Chain()(x)

    images = pictures(1, 1), pictures(1, 2)
    assert EBP().unsupported(model_of(forward)) is None
    assert np.array_equal(raw(forward, *images), raw(Chain(), *images))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_torchscript_hides_is_unsupported() -> None:
    traced = nn.Sequential(torch.jit.trace(Chain(), pictures(1, 1)))
    assert "TorchScript" in (EBP().unsupported(model_of(traced)) or "")


def test_a_black_box_is_unsupported() -> None:
    black = CountingModel(None)
    assert "black box" in (EBP().unsupported(black) or "")
    with pytest.raises(ExplainerContractError, match="black box"):
        explain(black, pictures(1, 1), pictures(1, 2))


@pytest.mark.parametrize(
    ("net", "side"),
    [(MiniResNet, 112), (MiniInception, 112), (MiniMobile, 112), (DlibResNet, 150)],
)
def test_the_shipped_networks_are_explained_and_left_alone(net, side: int) -> None:
    with sealed(0):
        module = net().train()
    model = CountingModel(module, crop=Crop("shipped", (side, side), ()))
    images = [pictures(1, seed, side) for seed in (1, 2, 3)]
    model.embed(images[0])
    module.train()
    before = traces(module)
    assert EBP().unsupported(model) is None
    sums = {}
    for variant in ("ebp", "contrastive", "truncated", "subtree"):
        contrast = None if variant == "ebp" else images[2]
        maps = EBP(variant=variant).explain(model, *images[:2], contrast=contrast, generator=RNG)
        sums[variant] = maps.positive
        assert maps.states == (RowState.OK,)
        assert torch.isfinite(maps.positive).all()
        assert maps.positive.min() >= 0
        assert_rounded(maps.positive.double().sum(), 1.0, terms=1)  # each pixel once, at the end
        # Where nothing is lost, the difference from 1 is the rounding of the sums.
        assert -allowance(terms_of(module)) <= maps.diagnostics["mass_lost"].item() < 1
        assert 0 < maps.diagnostics["negative_activation_share"].item() < 1
    assert not torch.allclose(sums["ebp"], sums["contrastive"], atol=1e-6)
    assert traces(module) == before


def traces(module: nn.Module) -> list[object]:
    return [
        (name, hashlib.sha256(value.numpy().tobytes()).hexdigest(), value._version)
        for name, value in module.state_dict().items()
    ] + [
        (name, part.training, len(part._forward_hooks), len(part._forward_pre_hooks),
         [parameter.grad for parameter in part.parameters()])
        for name, part in module.named_modules()
    ]  # fmt: skip

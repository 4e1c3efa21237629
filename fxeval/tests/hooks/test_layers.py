"""Layers are found by name or by rule, in the order in which they run, without touching the net."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.errors import ExplainerContractError
from fxeval.hooks.layers import (
    borrowed,
    candidates,
    check_spelling,
    convolutions,
    layers_of,
    on_device_of,
    resolve,
    stages,
)
from fxeval.models.networks.dlib_resnet import DlibResNet
from fxeval.models.networks.mini_resnet import MiniResNet


class Backwards(nn.Module):
    """Registers its modules in another order than it runs them, and does odd things besides."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.late = nn.Conv2d(4, 4, 1)
        self.downsample = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()
        self.unused = nn.Conv2d(3, 2, 1)
        self.early = nn.Conv2d(3, 4, 3)
        self.tiny = nn.Conv2d(4, 4, (9, 6))
        self.split = Split()

    def forward(self, batch: Tensor) -> Tensor:
        x = self.relu(self.relu(self.early(batch)))  # 10 x 8
        x = self.late(x) + self.downsample(x)
        self.split(x)
        return self.fc(self.pool(self.tiny(x)).flatten(1))


class Split(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class IResNet(nn.Module):
    """The skeleton of insightface's iresnet18: stem at full size, four stages that halve it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.PReLU(),
        )
        for stage in range(1, 5):
            setattr(self, f"layer{stage}", nn.Sequential(IBlock(2), IBlock(1)))
        self.bn2, self.fc = nn.BatchNorm2d(4), nn.Linear(4 * 49, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.bn2(x).flatten(1))


class IBlock(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.prelu, self.conv2 = nn.PReLU(), nn.Conv2d(4, 4, 3, stride, 1)
        self.downsample = None
        if stride == 2:
            self.downsample = nn.Sequential(nn.Conv2d(4, 4, 1, 2), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.prelu(self.conv1(self.bn1(x))))
        return y + (x if self.downsample is None else self.downsample(x))


def layers(net: nn.Module, side: int = 112):
    return layers_of(net, torch.zeros(1, 3, side, side))


def named(layer, found, reading=None) -> tuple[str, ...]:
    return tuple(one.name for one in resolve(layer, found, "x", reading))


def odd():
    return layers_of(Backwards(), torch.rand(1, 3, 12, 10))


def on_meta(kind: type[nn.Module], side: int):
    with torch.device("meta"):
        return layers_of(kind(), torch.empty(1, 3, side, side))


@pytest.mark.parametrize("network", ["meta", "cpu"])
def test_dlib_has_the_layers_of_the_table(network):
    """The last convolution, the one before, and a stage at each size."""
    found = on_meta(DlibResNet, 150) if network == "meta" else layers(DlibResNet(), 150)
    assert named(("conv[-1]", "conv[-2]"), found) == ("blocks.12.conv2", "blocks.12.conv1")
    assert [(one.name, one.height) for one in stages(found)] == [
        ("blocks.2", 35), ("blocks.6", 17), ("blocks.9", 8), ("blocks.12", 4),
    ]  # fmt: skip
    assert convolutions(found)[0].name == "conv"
    assert len(convolutions(found)) == 27  # of 29: those of blocks[13] are smaller than 3 x 3


def test_the_bundled_network_has_four_stages_and_no_shortcut_among_its_convolutions():
    found = on_meta(MiniResNet, 112)
    assert [(one.name, one.channels, one.height, one.width) for one in stages(found)] == [
        ("stage1", 24, 56, 56), ("stage2", 48, 28, 28), ("stage3", 96, 14, 14),
        ("stage4", 128, 7, 7),
    ]  # fmt: skip
    names = [one.name for one in convolutions(found)]
    assert names[0] == "stem.0"
    assert "head.1" in names  # 1 x 1, but on no shortcut
    assert not any("shortcut" in name for name in names)
    assert sum(one.is_shortcut for one in found) == 4
    assert named(None, found) == ("head.1",)


def test_iresnet_has_the_layers_of_the_table():
    found = layers(IResNet())
    assert [one.name for one in stages(found)] == ["layer1", "layer2", "layer3", "layer4"]
    assert named(("stage[-1]", "conv[-1]", "conv[-2]"), found) == (
        "layer4", "layer4.1.conv2", "layer4.1.conv1",
    )  # fmt: skip
    assert len(convolutions(found)) == 17  # the stem and two in each of eight blocks


def test_rules_count_in_the_order_of_running_not_of_registration():
    found = odd()
    assert [one.name for one in convolutions(found)] == ["early", "late"]
    assert named("conv[0]", found) == ("early",)
    assert [one.name for one in found if one.runs == 1][:3] == ["early", "late", "downsample"]
    assert [one.name for one in found if one.runs == 0] == ["unused"]
    assert next(one.runs for one in found if one.name == "relu") == 2


def test_only_a_convolution_of_1_by_1_counts_as_a_shortcut():
    net = nn.Sequential()
    net.add_module("skip", nn.Conv2d(3, 3, 3))
    net.add_module("other_skip", nn.Conv2d(3, 3, 1))
    assert [one.name for one in convolutions(layers(net, 8))] == ["skip"]


def test_a_network_without_containers_has_its_last_layer_of_each_size_as_stage():
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), nn.PReLU(),
        nn.MaxPool2d(4), nn.Flatten(), nn.Linear(2, 3),
    )  # fmt: skip
    assert [one.name for one in stages(layers(net, 8))] == ["1", "4"]


@pytest.mark.parametrize("name", ["blocks.1.conv1", "blocks[1].conv1"])
def test_a_layer_is_named_with_dots_or_brackets(name):
    assert named(name, on_meta(DlibResNet, 150)) == ("blocks.1.conv1",)


def test_a_rule_goes_before_a_name_that_reads_alike():
    net = nn.Module()
    net.conv = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1))
    net.forward = lambda x: net.conv(x)
    found = layers_of(net, torch.rand(1, 3, 5, 5))
    assert named("conv[0]", found) == ("conv.1",)
    assert named("conv.0", found) == ("conv.0",)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("pool", r"x: layer 'pool' gives 1 x 1 pixels, fewer than 2 x 2.*early \(10 x 8\)"),
        ("relu", r"runs 2 times.*early \(10 x 8\)"),
        ("unused", "runs 0 times"),
        ("fc", r"one \(N, C, h, w\) tensor, but this Linear does not"),
        ("split", "this Split does not"),
        ("earl", r"no layer 'earl'. Did you mean 'early'\?.*early \(10 x 8\), late \(10 x 8\)"),
        ("zzzzzzz", r"no layer 'zzzzzzz'. Layers with a map: early"),
        ("conv[2]", r"2 layers conv\[i\] of at least 3 x 3 pixels: early \(10 x 8\)"),
        ("conv[-3]", "out of range"),
        ("stage[0]", None),
        ("stage[1]", r"1 layers stage\[i\]"),
        (("late", "conv[-1]"), "'late' and 'conv\\[-1\\]' are the same layer"),
    ],
)
def test_a_layer_that_cannot_be_used_is_refused_with_the_reason(layer, message):
    if message is None:
        assert named(layer, odd()) == ("downsample",)
        return
    with pytest.raises(ExplainerContractError, match=message):
        resolve(layer, odd(), "x")


@pytest.mark.parametrize(
    "layer",
    ["", (), ("a", ""), 3, ["a"], ("a", 1), "conv[x]", "conv[]", "stage[1.5]", "blocks[x]", "a b",
     "blocks[12", "a..b", "a.", ("a", "a"), "conv[1].bn", True],
)  # fmt: skip
def test_what_names_no_layer_of_any_network_is_refused_without_one(layer):
    if layer == "conv[1].bn":
        check_spelling(layer, "x")  # a name: only the whole rule is a rule
        return
    with pytest.raises(ExplainerContractError, match=r"^x: layer"):
        check_spelling(layer, "x")


def test_the_default_is_the_last_to_finish_with_4_by_4_pixels():
    assert named(None, odd()) == ("downsample",)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(ExplainerContractError, match=r"x: .*no default"):
        resolve(None, layers(flat, 2), "x")


def test_many_layers_are_named_with_the_deepest_last():
    text = candidates(on_meta(DlibResNet, 150))
    assert text.endswith("blocks.13 (2 x 2)")
    assert " more, " in text
    assert text.count("(") == 12
    assert candidates([]) == "none"


def used_net() -> Backwards:
    """A net as a user might pass it: half in training, half frozen, with gradients."""
    net = Backwards()
    net.train()
    net.late.eval()
    net.early.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    net.relu.register_forward_hook(lambda *_: None)
    return net


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


def test_looking_at_layers_leaves_no_trace_even_after_an_error():
    net = used_net()
    before = fingerprint(net)
    layers_of(net, torch.rand((1, 3, 12, 10), generator=torch.Generator()))
    assert fingerprint(net) == before
    with pytest.raises(RuntimeError):
        layers_of(net, torch.zeros(1, 1, 12, 10))
    assert fingerprint(net) == before


def test_a_borrowed_module_is_in_eval_mode_and_a_left_hook_is_noticed():
    net = used_net()
    with borrowed(net):
        assert not any(part.training for part in net.modules())
    with pytest.raises(ExplainerContractError, match="hooks of 'fc'"), borrowed(net):
        net.fc.register_forward_hook(lambda *_: None)


def test_a_forward_pass_that_counts_itself_is_named():
    class Counting(Backwards):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, batch: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(batch)

    with pytest.raises(ExplainerContractError, match=r"changed while it was lent.*calls"):
        layers_of(Counting(), torch.rand(1, 3, 12, 10))


def test_images_are_copied_and_serve_autograd_even_out_of_inference_mode():
    with torch.inference_mode():
        images = torch.rand(1, 3, 4, 4)
    copy = on_device_of(nn.ReLU(), images)
    assert not copy.is_inference()
    assert copy.data_ptr() != images.data_ptr()
    assert on_device_of(nn.Linear(1, 1, device="meta"), images).device.type == "meta"

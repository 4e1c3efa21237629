"""Layers are grouped in the order in which they work; every tensor is in exactly one group."""

import pytest
import torch
from torch import Tensor, nn

from fxeval.functional.randomisation import randomise
from fxeval.hooks.layer_groups import WHOLE, LayerGroup, layer_groups
from fxeval.models.networks.mini_resnet import MiniResNet
from fxeval.models.networks.mini_vit import MiniViT

IMAGE = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """A container with a parameter of its own, as in ArcFace heads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) @ self.weight


class Attention(nn.Module):
    """Reads the weights of a child that never runs, as ``nn.MultiheadAttention`` does."""

    def __init__(self) -> None:
        super().__init__()
        self.out_proj = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.out_proj.weight + self.out_proj.bias


class Odd(nn.Module):
    """Declares its layers in another order than it runs them, and hides weights."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.unused = nn.Conv2d(3, 2, 1)
        self.late = nn.Conv2d(4, 4, 3)
        self.attention = Attention()
        self.tied = nn.Linear(4, 4)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.PReLU()
        self.early = nn.Conv2d(3, 4, 3)
        self.first = nn.Linear(4, 4)
        self.first.weight = self.tied.weight

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.act(self.early(images - self.mean)))
        x = self.first(x.movedim(1, -1)).movedim(-1, 1)
        x = self.act(self.late(x)).mean((2, 3))
        return self.scale * self.head(self.tied(self.attention(x)))


def tensors_of(module: nn.Module, group: LayerGroup) -> list[int]:
    found = []
    for name in group.layers:
        part = module.get_submodule(name)
        own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        found += [id(one) for one in own]
    return found


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 100, None])
@pytest.mark.parametrize("network", [Odd, MiniResNet, MiniViT])
def test_every_tensor_is_in_exactly_one_group(network, steps):
    module = network().eval()
    image = IMAGE if network is Odd else torch.rand(1, 3, 112, 112)
    groups = layer_groups(module, image, steps)
    parts = [set(tensors_of(module, group)) for group in groups]
    everything = {id(one) for one in [*module.parameters(), *module.buffers()]}
    assert set.union(*parts) == everything
    assert sum(map(len, parts)) == len(everything)
    assert sum(group.parameters for group in groups) == sum(p.numel() for p in module.parameters())
    assert sum(group.buffers for group in groups) == sum(b.numel() for b in module.buffers())
    assert len({group.name for group in groups}) == len(groups)
    assert steps is None or len(groups) <= steps


def test_groups_follow_the_execution_and_not_the_declaration():
    module = Odd()
    order = [group.layers for group in layer_groups(module, IMAGE, None)]
    places = {name: place for place, some in enumerate(reversed(order)) for name in some}
    assert places["early"] < places["norm"] < places["late"]
    assert places["late"] < places["act"]  # it runs after both convolutions
    assert places["act"] < places["attention.out_proj"]  # it runs only as a part of its parent
    assert places["tied"] == places["first"]  # they own one weight
    assert places["attention.out_proj"] < places["tied"] < places["head.norm"] < places["head"]
    # What never runs has the place of what is around it: here, of the network.
    assert places["unused"] == places[""] == len(order) - 1
    assert layer_groups(module, IMAGE, 1)[0].name == f"early to {WHOLE}"


def test_groups_near_the_output_are_the_smallest_and_norms_stay_with_their_layer():
    module = MiniResNet().eval()
    groups = layer_groups(module, torch.rand(1, 3, 112, 112), 8)
    assert len(groups) == 8

    def has_matrix(name):
        return any(one.dim() > 1 for one in module.get_submodule(name).parameters(recurse=False))

    matrices = [sum(map(has_matrix, group.layers)) for group in groups]
    assert matrices == sorted(matrices)
    assert max(matrices) - min(matrices) <= 1
    for group in groups[:-1]:  # each begins with the layer that has the matrix
        assert has_matrix(group.layers[0])


def test_a_network_that_hooks_cannot_see_is_one_group_and_one_without_weights_none():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.inside.weight).flatten(1)

    assert [one.layers for one in layer_groups(Plain(), IMAGE, 8)] == [("inside",)]
    assert layer_groups(nn.Flatten(), IMAGE, 8) == ()


def test_finding_groups_leaves_no_trace_even_in_train_mode():
    module = Odd().train()
    before = {name: one.clone() for name, one in module.state_dict().items()}
    layer_groups(module, IMAGE, 3)
    assert module.training
    assert module.norm.training
    assert all(bool((before[name] == one).all()) for name, one in module.state_dict().items())
    assert not module.early._forward_hooks


def test_redrawing_one_group_after_the_other_is_redrawing_all():
    module = Odd().eval()
    images = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    groups = layer_groups(module, IMAGE, 3)
    whole = dict(randomise(module, images, 5, 0).named_parameters())
    for place, group in enumerate(groups):
        one = dict(randomise(module, images, 5, 0, group.layers).named_parameters())
        for name, parameter in module.named_parameters():
            inside = name.rpartition(".")[0] in group.layers
            expected = whole[name] if inside else parameter
            assert bool((one[name] == expected).all()), (place, name)
    everything = [name for group in groups for name in group.layers]
    cascade = dict(randomise(module, images, 5, 0, everything).named_parameters())
    assert all(bool((cascade[name] == one).all()) for name, one in whole.items())

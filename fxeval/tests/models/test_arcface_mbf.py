"""The MobileFaceNet of arcface_torch against its published structure and its original."""

import pytest
import torch
from torch import nn

from fxeval.hooks.layers import convolutions, layers_of
from fxeval.models.loading import fill_module
from fxeval.models.networks.arcface_mbf import arcface_mbf
from fxeval.tests import published
from fxeval.tests.published import Arithmetic, Shapes, batch_norm, convolution
from fxeval.tests.rounding import assert_rounded, terms_of

# before, inner, after, stride, number of residual bottlenecks (0 = one that is not residual)
STAGES = {
    2: (128, 128, 128, 2, 0),
    3: (128, 128, 128, 1, 4),
    4: (128, 256, 256, 2, 0),
    5: (256, 256, 256, 1, 6),
    6: (256, 512, 256, 2, 0),
    7: (256, 256, 256, 1, 2),
}
# First values of the embedding that the original implementation gives with the same weights.
ORIGINAL = [0.262691, -0.151574, -0.053397, -0.476729, -0.259359]


def unit(name: str, before: int, after: int, kernel: int, groups: int = 1) -> Shapes:
    """Convolution and batch norm."""
    return convolution(f"{name}.layers.0", before // groups, after, kernel) | batch_norm(
        f"{name}.layers.1", after
    )


def bent(name: str, width: int) -> Shapes:
    return {f"{name}.layers.2.weight": (width,)}


def bottleneck(name: str, before: int, inner: int, after: int) -> Shapes:
    first, second, third = (f"{name}.layers.{index}" for index in range(3))
    shapes = unit(first, before, inner, 1) | bent(first, inner)
    shapes |= unit(second, inner, inner, 3, groups=inner) | bent(second, inner)
    return shapes | unit(third, inner, after, 1)


def enumerated() -> Shapes:
    shapes = unit("layers.0", 3, 128, 3) | bent("layers.0", 128)
    shapes |= unit("layers.1", 128, 128, 3, groups=64) | bent("layers.1", 128)
    for index, (before, inner, after, _, depth) in STAGES.items():
        if depth == 0:
            shapes |= bottleneck(f"layers.{index}", before, inner, after)
        for part in range(depth):
            shapes |= bottleneck(f"layers.{index}.layers.{part}", before, inner, after)
    shapes |= unit("conv_sep", 256, 512, 1) | bent("conv_sep", 512)
    shapes |= unit("features.layers.0", 512, 512, 7, groups=512)
    return shapes | {"features.layers.2.weight": (512, 512)} | batch_norm("features.layers.3", 512)


def narrowed(net: Arithmetic, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    """A bottleneck in plain functions."""
    first, second, third = (f"{name}.layers.{index}.layers" for index in range(3))
    x = net.norm(f"{first}.1", net.conv(f"{first}.0", x))
    x = net.prelu(f"{first}.2", x)
    x = net.norm(f"{second}.1", net.conv(f"{second}.0", x, stride, 1, groups=x.shape[1]))
    x = net.prelu(f"{second}.2", x)
    return net.norm(f"{third}.1", net.conv(f"{third}.0", x))


def embedded(net: Arithmetic, images: torch.Tensor) -> torch.Tensor:
    """The network in plain functions, from the published order of operations."""
    x = (images.double() * 255 - 127.5) / 127.5
    for name, stride, groups in (("layers.0.layers", 2, 1), ("layers.1.layers", 1, 64)):
        x = net.norm(f"{name}.1", net.conv(f"{name}.0", x, stride, 1, groups))
        x = net.prelu(f"{name}.2", x)
    for index, (_, _, _, stride, depth) in STAGES.items():
        if depth == 0:
            x = narrowed(net, f"layers.{index}", x, stride)
        for part in range(depth):
            x = x + narrowed(net, f"layers.{index}.layers.{part}", x, 1)
    x = net.norm("conv_sep.layers.1", net.conv("conv_sep.layers.0", x))
    x = net.prelu("conv_sep.layers.2", x)
    name = "features.layers.0.layers"
    x = net.norm(f"{name}.1", net.conv(f"{name}.0", x, groups=512)).flatten(1)
    return net.norm("features.layers.3", x @ net["features.layers.2.weight"].T)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        module = arcface_mbf().eval()
    fill_module(module, published.drawn(enumerated()), "drawn weights")
    return module


def test_keys_and_shapes_are_those_published(network: nn.Module):
    expected = enumerated()
    assert published.listing(published.shapes_of(network)) == published.listing(expected)
    assert published.facts(expected) == published.golden("arcface_mbf")["arcface_mbf"]


def test_figures_are_those_measured_on_the_original(network: nn.Module):
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_059_520
    found = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert len(found) == 2 + 3 * (3 + 4 + 6 + 2) + 2
    # 64 groups of two channels; a depth-wise convolution would have 128 groups.
    assert network.layers[1].layers[0].weight.shape == (128, 2, 3, 3)
    assert network.layers[1].layers[0].groups == 64


def test_layers_to_hook_have_the_published_names_and_sizes(network: nn.Module):
    layers = layers_of(network, torch.zeros(1, 3, 112, 112))
    size = {one.name: (one.channels, one.height, one.width) for one in layers}
    halved = [(128, 56, 56)] * 2 + [(128, 28, 28)] * 2 + [(256, 14, 14)] * 2 + [(256, 7, 7)] * 2
    assert [size[f"layers.{index}"] for index in range(8)] == halved
    assert size["conv_sep.layers.0"] == (512, 7, 7)
    assert size["features.layers.0.layers.0"] == (512, 1, 1)  # one place: no spatial extent is left
    found = [one.name for one in convolutions(layers)]
    assert found[-2:] == ["layers.7.layers.1.layers.2.layers.0", "conv_sep.layers.0"]
    assert len(found) == 48


def test_the_whole_network_is_the_published_arithmetic(network: nn.Module):
    images = published.noise("faces", (1, 3, 112, 112))
    net = Arithmetic(network.state_dict())
    expected = embedded(net, images)
    with torch.no_grad():
        assert_rounded(network(images), expected, terms=terms_of(network))


def test_drawn_weights_embed_as_in_the_original(network: nn.Module):
    with torch.no_grad():
        embedding = network(published.noise("faces", (1, 3, 112, 112)))[0]
    published.assert_printed(embedding, ORIGINAL, 6, network)


def test_a_bottleneck_is_added_to_its_input_only_in_a_residual_stage(network: nn.Module):
    net = Arithmetic(network.state_dict())
    x = 4 * published.noise("map", (1, 128, 8, 8)) - 2
    with torch.no_grad():
        plain = network.layers[2](x)
        added = network.layers[3].layers[0](x)
    terms = terms_of(network.layers[2])
    assert_rounded(plain, narrowed(net, "layers.2", x.double(), 2), terms=terms)
    residual = narrowed(net, "layers.3.layers.0", x.double(), 1)
    assert_rounded(added, x.double() + residual, terms=terms)
    assert plain.shape == (1, 128, 4, 4)

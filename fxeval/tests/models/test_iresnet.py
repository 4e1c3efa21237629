"""IResNet against its published structure, its measured figures and its original's embeddings."""

import pytest
import torch
from torch import nn

from fxeval.hooks.layers import convolutions, layers_of, stages
from fxeval.models.loading import fill_module
from fxeval.models.networks.iresnet import Block, iresnet18, iresnet34, iresnet50, iresnet100
from fxeval.tests import published
from fxeval.tests.published import Arithmetic, batch_norm, convolution
from fxeval.tests.rounding import assert_rounded, terms_of

DEPTHS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
FACTORIES = {one.__name__: one for one in (iresnet18, iresnet34, iresnet50, iresnet100)}
WIDTHS = (64, 128, 256, 512)
# parameters, entries of the state dict, convolutions; measured on the original
MEASURED = {
    "iresnet18": (24_025_600, 187, 21),
    "iresnet34": (34_139_328, 331, 37),
    "iresnet50": (43_590_848, 475, 53),
    "iresnet100": (65_156_160, 925, 103),
}
# First values of the embedding that the original implementation gives with the same weights.
ORIGINAL = [0.67312, 0.779193, 1.857741, -0.187691, -0.921332]


def enumerated(depths: tuple[int, ...]) -> published.Shapes:
    shapes = convolution("conv1", 3, 64, 3) | batch_norm("bn1", 64) | {"prelu.weight": (64,)}
    before = 64
    for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), 1):
        for index in range(depth):
            name = f"layer{stage}.{index}"
            shapes |= batch_norm(f"{name}.bn1", before)
            shapes |= convolution(f"{name}.conv1", before, width, 3)
            shapes |= batch_norm(f"{name}.bn2", width) | {f"{name}.prelu.weight": (width,)}
            shapes |= convolution(f"{name}.conv2", width, width, 3)
            shapes |= batch_norm(f"{name}.bn3", width)
            if index == 0:
                shapes |= convolution(f"{name}.downsample.0", before, width, 1)
                shapes |= batch_norm(f"{name}.downsample.1", width)
            before = width
    shapes |= batch_norm("bn2", 512) | {"fc.weight": (512, 512 * 49), "fc.bias": (512,)}
    return shapes | batch_norm("features", 512)


def block(net: Arithmetic, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    y = net.conv(f"{name}.conv1", net.norm(f"{name}.bn1", x), padding=1)
    y = net.prelu(f"{name}.prelu", net.norm(f"{name}.bn2", y))
    y = net.norm(f"{name}.bn3", net.conv(f"{name}.conv2", y, stride, 1))
    if stride == 1:
        return y + x
    return y + net.norm(f"{name}.downsample.1", net.conv(f"{name}.downsample.0", x, stride))


def embedded(net: Arithmetic, images: torch.Tensor) -> torch.Tensor:
    """IResNet-18 in plain functions, from the published order of operations."""
    x = (images.double() * 255 - 127.5) / 127.5
    x = net.prelu("prelu", net.norm("bn1", net.conv("conv1", x, padding=1)))
    for stage in range(1, 5):
        x = block(net, f"layer{stage}.0", x, 2)
        x = block(net, f"layer{stage}.1", x, 1)
    x = net.norm("bn2", x).flatten(1) @ net["fc.weight"].T + net["fc.bias"]
    return net.norm("features", x)


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return FACTORIES[name]().eval()


@pytest.mark.parametrize("name", DEPTHS)
def test_keys_and_shapes_are_those_published(name: str):
    expected = enumerated(DEPTHS[name])
    assert published.listing(published.shapes_of(on_meta(name))) == published.listing(expected)
    assert published.facts(expected) == published.golden("iresnet")[name]


@pytest.mark.parametrize("name", DEPTHS)
def test_figures_are_those_measured_on_the_original(name: str):
    module = on_meta(name)
    found = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    assert MEASURED[name] == (
        sum(parameter.numel() for parameter in module.parameters()),
        len(module.state_dict()),
        len(found),
    )
    assert sum(part.kernel_size == (1, 1) for part in found) == 4  # shortcuts


@pytest.mark.parametrize("name", DEPTHS)
def test_layers_to_hook_have_the_published_names_and_sizes(name: str):
    layers = layers_of(on_meta(name), torch.zeros(1, 3, 112, 112))
    size = {one.name: (one.channels, one.height, one.width) for one in layers}
    assert size["prelu"] == (64, 112, 112)
    assert [(one.name, size[one.name]) for one in stages(layers)] == [
        ("layer1", (64, 56, 56)),
        ("layer2", (128, 28, 28)),
        ("layer3", (256, 14, 14)),
        ("layer4", (512, 7, 7)),
    ]
    last = f"layer4.{DEPTHS[name][3] - 1}"
    found = [one.name for one in convolutions(layers)]
    assert found[0] == "conv1"
    assert found[-2:] == [f"{last}.conv1", f"{last}.conv2"]
    assert size[f"{last}.conv1"] == size[f"{last}.conv2"] == (512, 7, 7)
    assert len(found) == MEASURED[name][2] - 4
    assert size["layer1.0.conv1"] == (64, 112, 112)  # the second convolution has the stride
    assert size["layer1.0.conv2"] == (64, 56, 56)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        module = iresnet18().eval()
    fill_module(module, published.drawn(enumerated(DEPTHS["iresnet18"])), "drawn weights")
    return module


def test_the_whole_network_is_the_published_arithmetic(network: nn.Module):
    images = published.noise("faces", (1, 3, 112, 112))
    expected = embedded(Arithmetic(network.state_dict()), images)
    with torch.no_grad():
        assert_rounded(network(images), expected, terms=terms_of(network))
    # Control: without the activations in its blocks it would be another network.
    other = {
        key: torch.ones_like(value) if key.endswith("prelu.weight") else value
        for key, value in network.state_dict().items()
    }
    assert (embedded(Arithmetic(other), images) - expected).abs().max() > 0.1


def test_drawn_weights_embed_as_in_the_original(network: nn.Module):
    with torch.no_grad():
        embedding = network(published.noise("faces", (1, 3, 112, 112)))[0]
    published.assert_printed(embedding, ORIGINAL, 6, network)


@pytest.mark.parametrize(("before", "after", "stride"), [(5, 5, 1), (4, 6, 2), (4, 4, 2)])
def test_a_block_is_the_published_arithmetic(before: int, after: int, stride: int):
    with torch.random.fork_rng(devices=[]):
        module = Block(before, after, stride).eval()
    module.load_state_dict(published.drawn(published.shapes_of(module)))
    net = Arithmetic({f"b.{key}": value for key, value in module.state_dict().items()})
    x = 4 * published.noise("map", (2, before, 8, 8)) - 2
    expected = block(net, "b", x.double(), stride)
    with torch.no_grad():
        assert_rounded(module(x), expected, terms=terms_of(module))
    assert expected.min() < 0 < expected.max()  # no activation after the sum
    assert expected.shape == (2, after, 8 // stride, 8 // stride)


def test_the_scale_of_the_last_batch_norm_is_one_and_frozen():
    with torch.random.fork_rng(devices=[]):
        module = iresnet18()
    assert torch.equal(module.features.weight, torch.ones(512))
    frozen = [name for name, one in module.named_parameters() if not one.requires_grad]
    assert frozen == ["features.weight"]

"""AdaFace's networks against their published structure and their original's embeddings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxeval.hooks.layers import convolutions, layers_of, stages
from fxeval.models.files.formats import selected
from fxeval.models.loading import fill_module
from fxeval.models.networks.adaface_ir import (
    Block,
    adaface_ir18,
    adaface_ir50,
    adaface_ir101,
)
from fxeval.tests import published
from fxeval.tests.published import Arithmetic, batch_norm, convolution
from fxeval.tests.rounding import assert_rounded, terms_of

# blocks by stage, and the last block of each
DEPTHS = {
    "adaface_ir18": (2, 2, 2, 2),
    "adaface_ir50": (3, 4, 14, 3),
    "adaface_ir101": (3, 13, 30, 3),
}
LAST = {
    "adaface_ir18": (1, 3, 5, 7),
    "adaface_ir50": (2, 6, 20, 23),
    "adaface_ir101": (2, 15, 45, 48),
}
FACTORIES = {one.__name__: one for one in (adaface_ir18, adaface_ir50, adaface_ir101)}
WIDTHS = (64, 128, 256, 512)
# Measured on the original; IR-18 is IResNet-18 without a shortcut and the scales of the last layer
PARAMETERS = {
    "adaface_ir18": 24_025_600 - 64 * 64 - 2 * 64 - 2 * 512,
    "adaface_ir50": 43_585_600,
    "adaface_ir101": 65_150_912,
}
# First values of the embedding that the original implementation gives with the same weights.
ORIGINAL = [0.031754, -0.033279, -0.016802, -0.060674, 0.074245]


def plan(depths: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Input width, output width and stride of every block of the body."""
    blocks, before = [], 64
    for width, depth in zip(WIDTHS, depths, strict=True):
        blocks += [(before, width, 2)] + [(width, width, 1)] * (depth - 1)
        before = width
    return blocks


def enumerated(depths: tuple[int, ...]) -> published.Shapes:
    shapes = convolution("input_layer.0", 3, 64, 3)
    shapes |= batch_norm("input_layer.1", 64) | {"input_layer.2.weight": (64,)}
    for index, (before, after, _) in enumerate(plan(depths)):
        name = f"body.{index}.res_layer"
        shapes |= batch_norm(f"{name}.0", before) | convolution(f"{name}.1", before, after, 3)
        shapes |= batch_norm(f"{name}.2", after) | {f"{name}.3.weight": (after,)}
        shapes |= convolution(f"{name}.4", after, after, 3) | batch_norm(f"{name}.5", after)
        if before != after:
            name = f"body.{index}.shortcut_layer"
            shapes |= convolution(f"{name}.0", before, after, 1) | batch_norm(f"{name}.1", after)
    shapes |= batch_norm("output_layer.0", 512)
    shapes |= {"output_layer.3.weight": (512, 512 * 49), "output_layer.3.bias": (512,)}
    return shapes | batch_norm("output_layer.4", 512, is_affine=False)


def block(net: Arithmetic, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    y = net.conv(f"{name}.res_layer.1", net.norm(f"{name}.res_layer.0", x), padding=1)
    y = net.prelu(f"{name}.res_layer.3", net.norm(f"{name}.res_layer.2", y))
    y = net.norm(f"{name}.res_layer.5", net.conv(f"{name}.res_layer.4", y, stride, 1))
    if f"{name}.shortcut_layer.0.weight" in net.state:
        skip = net.conv(f"{name}.shortcut_layer.0", x, stride)
        return y + net.norm(f"{name}.shortcut_layer.1", skip)
    return y + x[:, :, ::stride, ::stride]


def embedded(net: Arithmetic, images: torch.Tensor) -> torch.Tensor:
    """IR-18 in plain functions, from the published order of operations."""
    x = ((images.double() - 0.5) / 0.5)[:, [2, 1, 0]]
    x = net.norm("input_layer.1", net.conv("input_layer.0", x, padding=1))
    x = net.prelu("input_layer.2", x)
    for index, (_, _, stride) in enumerate(plan(DEPTHS["adaface_ir18"])):
        x = block(net, f"body.{index}", x, stride)
    x = net.norm("output_layer.0", x).flatten(1)
    x = net.norm("output_layer.4", x @ net["output_layer.3.weight"].T + net["output_layer.3.bias"])
    return x / x.square().sum(1, keepdim=True).sqrt()


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return FACTORIES[name]().eval()


@pytest.mark.parametrize("name", DEPTHS)
def test_keys_and_shapes_are_those_published(name: str):
    expected = enumerated(DEPTHS[name])
    assert published.listing(published.shapes_of(on_meta(name))) == published.listing(expected)
    assert published.facts(expected) == published.golden("adaface_ir")[name]


@pytest.mark.parametrize("name", DEPTHS)
def test_figures_are_those_measured_on_the_original(name: str):
    module = on_meta(name)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]
    found = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    blocks = sum(DEPTHS[name])
    assert len(found) == 1 + 2 * blocks + 3  # the first stage keeps its width: no convolution
    assert len(module.state_dict()) == 7 + blocks * 18 + 3 * 6 + 5 + 2 + 3


@pytest.mark.parametrize("name", DEPTHS)
def test_layers_to_hook_have_the_published_names_and_sizes(name: str):
    layers = layers_of(on_meta(name), torch.zeros(1, 3, 112, 112))
    size = {one.name: (one.channels, one.height, one.width) for one in layers}
    ends = [f"body.{index}" for index in LAST[name]]
    assert [size[end] for end in ends] == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    # The body ends with its last block, so both give the same map.
    assert [one.name for one in stages(layers)] == ["input_layer", *ends[:-1], "body"]
    found = [one.name for one in convolutions(layers)]
    assert found[-2:] == [f"{ends[-1]}.res_layer.1", f"{ends[-1]}.res_layer.4"]
    assert size[f"{ends[-1]}.res_layer.4"] == (512, 7, 7)
    assert len(found) == 1 + 2 * sum(DEPTHS[name])
    names = [one.name for one in layers]
    assert names.index("output_layer") > names.index("body")  # though registered before it


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        module = adaface_ir18().eval()
    fill_module(module, published.drawn(enumerated(DEPTHS["adaface_ir18"])), "drawn weights")
    return module


def test_the_whole_network_is_the_published_arithmetic(network: nn.Module):
    images = published.noise("faces", (1, 3, 112, 112))
    net = Arithmetic(network.state_dict())
    expected = embedded(net, images)
    with torch.no_grad():
        assert_rounded(network(images), expected, terms=terms_of(network))
    # Control: reversed channels give another embedding.
    assert (embedded(net, images.flip(1)) - expected).abs().max() > 1e-3


def test_drawn_weights_embed_as_in_the_original(network: nn.Module):
    with torch.no_grad():
        embedding = network(published.noise("faces", (1, 3, 112, 112)))[0]
    published.assert_printed(embedding, ORIGINAL, 6, network)


def test_the_embedding_is_what_the_output_layer_gives_at_length_one(network: nn.Module):
    seen = []
    hook = network.output_layer.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        embeddings = network(published.noise("two faces", (2, 3, 112, 112)))
    hook.remove()
    assert_rounded(embeddings.double().norm(dim=1), torch.ones(2), terms=512)
    assert (seen[0].norm(dim=1) - 1).abs().min() > 0.1
    assert_rounded(embeddings, F.normalize(seen[0].double()), terms=512)


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


def test_a_checkpoint_of_lightning_loads_by_its_prefix(network: nn.Module):
    checkpoint = {f"model.{key}": value for key, value in network.state_dict().items()}
    checkpoint |= {"head.kernel": torch.zeros(512, 3), "head.batch_mean": torch.ones(1)}
    with torch.random.fork_rng(devices=[]):
        other = adaface_ir18().eval()
    fill_module(other, selected(checkpoint, "model.", (), "checkpoint"), "checkpoint")
    for key, value in other.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])

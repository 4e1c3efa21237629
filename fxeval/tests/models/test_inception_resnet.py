"""FaceNet's Inception-ResNet v1 against its published structure and its original's embeddings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fxeval.errors import ModelContractError
from fxeval.hooks.layers import convolutions, layers_of
from fxeval.models import ARCHITECTURES
from fxeval.models.files.formats import selected
from fxeval.models.loading import fill_module
from fxeval.models.networks.inception_resnet import inception_resnet_v1
from fxeval.tests import published
from fxeval.tests.published import Arithmetic, Shapes, batch_norm, convolution
from fxeval.tests.rounding import assert_rounded, terms_of

# Convolutions by name: before, after, kernel (height, width), stride, padding (height, width).
# The units of a branch with several are numbered.
Unit = tuple[int, int, tuple[int, int], int, tuple[int, int]]
ONE, THREE, NONE, SAME = (1, 1), (3, 3), (0, 0), (1, 1)
STEM: dict[str, Unit] = {
    "conv2d_1a": (3, 32, THREE, 2, NONE),
    "conv2d_2a": (32, 32, THREE, 1, NONE),
    "conv2d_2b": (32, 64, THREE, 1, SAME),
    "conv2d_3b": (64, 80, ONE, 1, NONE),
    "conv2d_4a": (80, 192, THREE, 1, NONE),
    "conv2d_4b": (192, 256, THREE, 2, NONE),
}
BLOCK35: dict[str, Unit] = {
    "branch0": (256, 32, ONE, 1, NONE),
    "branch1.0": (256, 32, ONE, 1, NONE),
    "branch1.1": (32, 32, THREE, 1, SAME),
    "branch2.0": (256, 32, ONE, 1, NONE),
    "branch2.1": (32, 32, THREE, 1, SAME),
    "branch2.2": (32, 32, THREE, 1, SAME),
}
BLOCK17: dict[str, Unit] = {
    "branch0": (896, 128, ONE, 1, NONE),
    "branch1.0": (896, 128, ONE, 1, NONE),
    "branch1.1": (128, 128, (1, 7), 1, (0, 3)),
    "branch1.2": (128, 128, (7, 1), 1, (3, 0)),
}
BLOCK8: dict[str, Unit] = {
    "branch0": (1792, 192, ONE, 1, NONE),
    "branch1.0": (1792, 192, ONE, 1, NONE),
    "branch1.1": (192, 192, (1, 3), 1, (0, 1)),
    "branch1.2": (192, 192, (3, 1), 1, (1, 0)),
}
MIXED_6A: dict[str, Unit] = {
    "branch0": (256, 384, THREE, 2, NONE),
    "branch1.0": (256, 192, ONE, 1, NONE),
    "branch1.1": (192, 192, THREE, 1, SAME),
    "branch1.2": (192, 256, THREE, 2, NONE),
}
MIXED_7A: dict[str, Unit] = {
    "branch0.0": (896, 256, ONE, 1, NONE),
    "branch0.1": (256, 384, THREE, 2, NONE),
    "branch1.0": (896, 256, ONE, 1, NONE),
    "branch1.1": (256, 256, THREE, 2, NONE),
    "branch2.0": (896, 256, ONE, 1, NONE),
    "branch2.1": (256, 256, THREE, 1, SAME),
    "branch2.2": (256, 256, THREE, 2, NONE),
}
# name, units, channels of the joined branches, width, factor of the sum
RESIDUALS = [
    *((f"repeat_1.{index}", BLOCK35, 96, 256, 0.17) for index in range(5)),
    *((f"repeat_2.{index}", BLOCK17, 256, 896, 0.10) for index in range(10)),
    *((f"repeat_3.{index}", BLOCK8, 384, 1792, 0.20) for index in range(5)),
    ("block8", BLOCK8, 384, 1792, 1.0),
]
# First values of the embedding that the original implementation gives with the same weights.
ORIGINAL = [0.012406, -0.119831, 0.005261, 0.007464, 0.029158]


def enumerated() -> Shapes:
    units = dict(STEM)
    for name, block, *_ in (*RESIDUALS, ("mixed_6a", MIXED_6A), ("mixed_7a", MIXED_7A)):
        units |= {f"{name}.{part}": one for part, one in block.items()}
    shapes: Shapes = {}
    for name, (before, after, kernel, _, _) in units.items():
        shapes |= convolution(f"{name}.conv", before, after, *kernel)
        shapes |= batch_norm(f"{name}.bn", after)
    for name, _, joined, width, _ in RESIDUALS:
        shapes |= convolution(f"{name}.conv2d", joined, width, 1)
        shapes |= {f"{name}.conv2d.bias": (width,)}
    return shapes | {"last_linear.weight": (512, 1792)} | batch_norm("last_bn", 512)


def convolved(net: Arithmetic, name: str, one: Unit, x: torch.Tensor) -> torch.Tensor:
    _, _, _, stride, padding = one
    return net.norm(f"{name}.bn", net.conv(f"{name}.conv", x, stride, padding)).clamp_min(0)


def branches(net: Arithmetic, name: str, block: dict[str, Unit], x: torch.Tensor) -> torch.Tensor:
    """The concatenated outputs of all branches; a branch is a sequence of units."""
    outputs: dict[str, torch.Tensor] = {}
    for part, one in block.items():
        branch = part.partition(".")[0]
        outputs[branch] = convolved(net, f"{name}.{part}", one, outputs.get(branch, x))
    return torch.cat(list(outputs.values()), dim=1)


def residual(net: Arithmetic, index: int, x: torch.Tensor) -> torch.Tensor:
    name, block, _, _, scale = RESIDUALS[index]
    y = scale * net.conv(f"{name}.conv2d", branches(net, name, block, x)) + x
    return y if name == "block8" else y.clamp_min(0)


def reduced(net: Arithmetic, name: str, block: dict[str, Unit], x: torch.Tensor) -> torch.Tensor:
    return torch.cat([branches(net, name, block, x), F.max_pool2d(x, 3, 2)], dim=1)


def embedded(net: Arithmetic, images: torch.Tensor) -> torch.Tensor:
    """The network in plain functions, from the published order of operations."""
    x = (images.double() * 255 - 127.5) / 128
    for name, one in STEM.items():
        if name == "conv2d_3b":
            x = F.max_pool2d(x, 3, 2)
        x = convolved(net, name, one, x)
    for index in range(len(RESIDUALS)):
        if index == 5:
            x = reduced(net, "mixed_6a", MIXED_6A, x)
        if index == 15:
            x = reduced(net, "mixed_7a", MIXED_7A, x)
        x = residual(net, index, x)
    x = net.norm("last_bn", x.mean(dim=(2, 3)) @ net["last_linear.weight"].T)
    return x / x.square().sum(1, keepdim=True).sqrt()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        module = inception_resnet_v1().eval()
    fill_module(module, published.drawn(enumerated()), "drawn weights")
    return module


def test_keys_and_shapes_are_those_published(network: nn.Module):
    expected = enumerated()
    assert published.listing(published.shapes_of(network)) == published.listing(expected)
    assert published.facts(expected) == published.golden("inception_resnet")["inception_resnet_v1"]


def test_figures_are_those_measured_on_the_original(network: nn.Module):
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_482_624
    found = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert len(found) == 6 + 5 * 7 + 10 * 5 + 6 * 5 + 4 + 7
    assert {one.eps for one in network.modules() if isinstance(one, nn.BatchNorm2d)} == {1e-3}


def test_layers_to_hook_have_the_published_names_and_sizes(network: nn.Module):
    layers = layers_of(network, torch.zeros(1, 3, 160, 160))
    size = {one.name: (one.channels, one.height, one.width) for one in layers}
    expected = {
        (256, 17, 17): ("conv2d_4b", "repeat_1", "repeat_1.4"),
        (896, 8, 8): ("mixed_6a", "repeat_2", "repeat_2.9"),
        (1792, 3, 3): ("mixed_7a", "repeat_3", "repeat_3.4", "block8"),
    }
    for shape, names in expected.items():
        assert {name: size[name] for name in names} == dict.fromkeys(names, shape)
    found = [one.name for one in convolutions(layers)]
    assert found[-2:] == ["block8.branch1.2.conv", "block8.conv2d"]
    assert size["block8.branch1.2.conv"] == (192, 3, 3)
    assert size["block8.conv2d"] == (1792, 3, 3)
    assert len(found) == 132


def test_the_whole_network_is_the_published_arithmetic(network: nn.Module):
    images = published.noise("faces", (1, 3, 160, 160))
    expected = embedded(Arithmetic(network.state_dict(), eps=1e-3), images)
    with torch.no_grad():
        assert_rounded(network(images), expected, terms=terms_of(network))
    # Control: with torch's own eps it would be another network.
    other = embedded(Arithmetic(network.state_dict()), images)
    assert (other - expected).abs().max() > 1e-4


def test_drawn_weights_embed_as_in_the_original(network: nn.Module):
    with torch.no_grad():
        embedding = network(published.noise("faces", (1, 3, 160, 160)))[0]
    published.assert_printed(embedding, ORIGINAL, 6, network)


@pytest.mark.parametrize("index", [0, 5, 15, 20], ids=["35", "17", "8", "last"])
def test_a_block_is_the_published_arithmetic(network: nn.Module, index: int):
    name, _, _, width, _ = RESIDUALS[index]
    x = 4 * published.noise("map", (1, width, 7, 7)) - 2
    expected = residual(Arithmetic(network.state_dict(), eps=1e-3), index, x.double())
    with torch.no_grad():
        got = network.get_submodule(name)(x)
    assert_rounded(got, expected, terms=terms_of(network.get_submodule(name)))
    assert bool((got < 0).any()) == (name == "block8")  # only block8 has no activation


def test_the_embedding_is_the_last_batch_norm_at_length_one(network: nn.Module):
    seen = []
    hook = network.last_bn.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        embeddings = network(published.noise("two faces", (2, 3, 160, 160)))
    hook.remove()
    assert_rounded(embeddings.double().norm(dim=1), torch.ones(2), terms=512)
    assert_rounded(embeddings, F.normalize(seen[0].double()), terms=512)


@pytest.mark.parametrize("classes", [8631, 10575])
def test_a_checkpoint_loads_without_its_classifier_and_only_without(
    network: nn.Module, classes: int
):
    checkpoint = network.state_dict() | {
        "logits.weight": torch.zeros(classes, 512),
        "logits.bias": torch.zeros(classes),
    }
    with pytest.raises(ModelContractError, match=r"'logits\.weight' is not in the architecture"):
        fill_module(network, checkpoint, "checkpoint")
    ignored = ARCHITECTURES["inception_resnet_v1"].ignore
    fill_module(network, selected(checkpoint, "", ignored, "checkpoint"), "checkpoint")

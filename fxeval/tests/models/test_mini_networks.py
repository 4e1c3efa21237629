"""The small inception-residual and depth-wise networks, with weights as they are drawn."""

import pytest
import torch
from torch import Tensor, nn

from fxeval.hooks.layers import layers_of, stages
from fxeval.models import ARCHITECTURES, build
from fxeval.seeding import sealed
from fxeval.tests.rounding import assert_rounded

MAPS = {
    "mini_inception": {
        "stem.1": (32, 56, 56), "stage1": (64, 28, 28), "stage2": (192, 14, 14),
        "stage3": (288, 7, 7),
    },
    "mini_mobile": {
        "stage1.0.conv.0": (24, 56, 56), "stage2.0.conv.0": (144, 28, 28),
        "stage3.0.conv.0": (288, 14, 14), "neck": (320, 7, 7),
    },
}  # fmt: skip
SIZES = {"mini_inception": 817_808, "mini_mobile": 510_976}
EVERY_NETWORK = pytest.mark.parametrize("name", MAPS)


def drawn(name: str) -> nn.Module:
    """Return a network whose batch norms have seen noise, with the weights of a fixed seed."""
    with sealed(0):
        network = build(ARCHITECTURES[name].factory).train()
        network(torch.rand(8, 3, 112, 112))
    return network.eval()


def pictures(n: int) -> Tensor:
    return torch.rand(n, 3, 112, 112, generator=torch.Generator().manual_seed(1))


@EVERY_NETWORK
def test_it_has_a_stage_of_each_size_and_few_weights(name):
    network = build(ARCHITECTURES[name].factory)
    with torch.device("meta"):
        found = stages(layers_of(build(ARCHITECTURES[name].factory), torch.empty(1, 3, 112, 112)))
    assert {one.name: (one.channels, one.height, one.width) for one in found} == MAPS[name]
    assert sum(parameter.numel() for parameter in network.parameters()) == SIZES[name]
    assert 2 * sum(value.numel() for value in network.state_dict().values()) < 3_000_000


@EVERY_NETWORK
def test_an_embedding_does_not_depend_on_its_companions(name):
    network, images = drawn(name), pictures(3)
    with torch.no_grad():
        together, alone = network(images), network(images[1:2])
    assert together.shape == (3, 128)
    assert_rounded(together[1:2], alone, terms=200, scale=float(together.abs().max()))


@EVERY_NETWORK
def test_normalisation_is_part_of_the_network(name):
    network, seen = drawn(name), []
    network.stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    image = torch.linspace(0, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)
    network(image)
    # Five roundings of values up to 2, for a result of up to 1.
    assert_rounded(seen[0], (image.double() * 255 - 127.5) / 127.5, terms=5, scale=2)


@EVERY_NETWORK
def test_an_embedding_has_a_gradient_at_every_weight_and_pixel(name):
    network, image = drawn(name), pictures(1).requires_grad_()
    network(image).square().sum().backward()
    assert (image.grad != 0).float().mean() > 0.9
    for parameter, value in network.named_parameters():
        assert value.grad.abs().sum() > 0, parameter


def moved(network: nn.Module) -> float:
    """Return how far an embedding goes if the last maps are mirrored, relative to its length."""
    images = pictures(1)
    with torch.no_grad():
        plain = network(images)
        last = network.stage3 if not hasattr(network, "neck") else network.neck
        last.register_forward_hook(lambda _module, _inputs, output: output.flip(3))
        return float((network(images) - plain).norm() / plain.norm())


def test_the_inception_network_pools_its_last_maps_and_the_depth_wise_one_weighs_their_places():
    assert moved(drawn("mini_inception")) < 1e-5
    assert moved(drawn("mini_mobile")) > 1e-3


def test_the_inception_network_drops_features_in_training_only():
    network, images = drawn("mini_inception"), pictures(2)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        network.head[2].train()
        with sealed(1):
            assert not torch.equal(network(images), network(images))

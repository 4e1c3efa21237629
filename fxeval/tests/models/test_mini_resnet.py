"""The small residual network, with the weights that ship."""

import pytest
import torch
from torch import nn

from fxeval.fixtures.synthetic.evaluate import CARDS
from fxeval.models.from_card import load_card
from fxeval.models.networks.mini_resnet import Block, MiniResNet
from fxeval.tests.rounding import assert_rounded


@pytest.fixture(scope="module")
def model():
    return load_card(CARDS / "mini_resnet.yaml")


def test_stages_halve_the_maps_and_the_head_flattens_them(model):
    shapes = {}

    def keep(name):
        return lambda _module, _inputs, output: shapes.update({name: tuple(output.shape[1:])})

    names = ("stem", "stage1", "stage2", "stage3", "stage4")
    hooks = [getattr(model.module, name).register_forward_hook(keep(name)) for name in names]
    embeddings = model.embed(torch.rand(2, 3, 112, 112))
    for hook in hooks:
        hook.remove()
    assert embeddings.shape == (2, 128)
    assert shapes == {
        "stem": (16, 56, 56), "stage1": (24, 56, 56), "stage2": (48, 28, 28),
        "stage3": (96, 14, 14), "stage4": (128, 7, 7),
    }  # fmt: skip
    assert not any(isinstance(m, nn.AdaptiveAvgPool2d) for m in model.module.modules())


def test_a_block_adds_its_shortcut_and_applies_nothing_after_the_sum():
    with torch.random.fork_rng():
        block = Block(4, 4, 1).eval()
    last = block.residual[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)  # negative values included


def test_normalisation_is_part_of_the_network():
    with torch.random.fork_rng():
        network = MiniResNet().eval()
    seen = []
    network.stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    image = torch.linspace(0, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)
    network(image)
    # Five roundings of values up to 2, for a result of up to 1.
    assert_rounded(seen[0], (image.double() * 255 - 127.5) / 127.5, terms=5, scale=2)


def test_an_embedding_has_a_gradient_at_every_stage(model):
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    image.requires_grad_()
    model.module(image).square().sum().backward()
    assert bool((image.grad != 0).any())
    model.module.zero_grad(set_to_none=True)

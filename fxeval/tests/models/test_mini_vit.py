"""The small transformer: shapes, gradients, and the places of its tokens."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import MapLayer
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.explainers.cam_exact import CAM
from fxeval.explainers.excitation_backprop import EBP
from fxeval.explainers.grad_cam import GradCAM, GradCAMpp, LayerCAM
from fxeval.explainers.leam import LEAM
from fxeval.hooks.layers import layers_of, resolve
from fxeval.models import architecture
from fxeval.models.networks.mini_vit import Attention, MiniViT
from fxeval.tests.cam_subjects import RNG, FaceNet
from fxeval.tests.rounding import assert_rounded


@pytest.fixture(scope="module")
def network() -> MiniViT:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return MiniViT().eval()


def image(n: int = 1) -> Tensor:
    return torch.rand(n, 3, 112, 112, generator=torch.Generator().manual_seed(1))


def test_it_is_small(network):
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == 1_243_832
    assert 2 * parameters <= 2_600_000  # bytes in float16


def test_tokens_are_a_class_token_registers_and_places_row_by_row(network):
    layers = {layer.name: layer for layer in layers_of(network, image())}
    assert (layers["stem"].channels, layers["stem"].sized()) == (144, "7 x 7")
    names = [f"blocks.{block}" for block in range(6)] + [
        f"blocks.{block}.{part}"
        for block in range(6)
        for part in ("norm1", "attention", "norm2", "mlp")
    ]
    for name in (*names, "norm"):
        assert layers[name].shape == (1, 54, 144)
        assert layers[name].sized() == "tokens, 5 + 7 x 7"
    felt = {name for name in names if layers[name].found.is_felt}
    assert felt == {name for name in names if not name.startswith("blocks.5")} | {"blocks.5.norm1"}
    assert network(image(2)).shape == (2, 128)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (6, 6)])
def test_the_token_of_a_place_sees_the_image_around_it(network, row, column):
    tokens = []
    handle = network.blocks.register_forward_pre_hook(lambda _m, inputs: tokens.append(inputs[0]))
    changed = image()
    changed[..., 16 * row + 4 : 16 * row + 12, 16 * column + 4 : 16 * column + 12] = 0
    with torch.no_grad():
        network(image())
        network(changed)
    handle.remove()
    moved = (tokens[0] - tokens[1]).norm(dim=2)[0]
    assert not bool(moved[:5].any())
    assert bool(moved[5 + 7 * row + column] > 0)
    # Four 3 x 3 convolutions, each halving the image, see 15 pixels further than their place.
    near = torch.zeros(7, 7, dtype=torch.bool)
    near[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
    assert not bool(moved[5:].view(7, 7)[~near].any())


def test_its_default_layer_is_the_last_on_whose_places_the_embedding_depends(network):
    (layer,) = resolve(None, layers_of(network, image()), "gradcam")
    assert layer.name == "blocks.5.norm1"


def test_cams_take_that_layer_and_others_say_why_they_cannot(network):
    model = FaceNet(network, crop=ARCFACE_112)
    last = MapLayer("blocks.5.norm1", (54, 144), "tokens", (7, 7))
    for by in (GradCAM, GradCAMpp, LayerCAM):
        maps = by().explain(model, image(8), image(8).flip(0), generator=RNG)
        assert maps.layers == (last,)
        # Of untrained weights some maps are all zero, never all of them.
        assert bool(maps.positive.flatten(1).amax(dim=1).gt(0).any())
    assert LEAM(("blocks[0].norm1", "blocks[-1].norm1")).unsupported(model) is None
    assert LEAM().unsupported(model) is None  # it takes the convolutions of the stem
    assert "not an affine function of the output of layer 'stem'" in CAM().unsupported(model)
    assert "goes around layer 'blocks.5.norm1'" in CAM("blocks[-1].norm1").unsupported(model)
    assert "no rule for operation 'native_layer_norm'" in EBP().unsupported(model)


@pytest.mark.parametrize("layer", ["blocks[-1].norm1", "blocks[2]", "stem"])
def test_a_suite_may_name_its_layers_before_weights_are_loaded(layer):
    found = layers_of(architecture("mini_vit"), torch.empty((1, 3, 112, 112), device="meta"))
    (one,) = resolve(layer, found, "gradcam")
    assert (one.height, one.width) == (7, 7)


def test_every_block_and_every_token_in_front_has_a_gradient(network):
    network.zero_grad(set_to_none=True)
    # Not the sum, which is of parameters alone where a norm comes last.
    network(image()).pow(3).sum().backward()
    without = [name for name, value in network.named_parameters() if not bool(value.grad.any())]
    network.zero_grad(set_to_none=True)
    assert without == []


def test_attention_mixes_values_by_softmax():
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        attention = Attention(8, heads=2).double()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        q, k, v = F.linear(x, attention.qkv.weight, attention.qkv.bias).split(8, dim=2)
        mixed = torch.cat(
            [
                torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / 2, -1) @ v[..., head]
                for head in (slice(0, 4), slice(4, 8))
            ],
            dim=2,
        )
        assert_rounded(attention(x).float(), attention.projection(mixed), terms=64)


def test_normalisation_is_part_of_the_network(network):
    seen = []
    handle = network.stem.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(image())
    handle.remove()
    assert_rounded(seen[0], (image().double() * 255 - 127.5) / 127.5, terms=5, scale=2)

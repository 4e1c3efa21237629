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
    assert parameters == 1_243_280
    assert 2 * parameters <= 2_600_000  # bytes in float16


def test_tokens_are_a_class_token_registers_and_places_row_by_row(network):
    layers = {layer.name: layer for layer in layers_of(network, image())}
    assert (layers["patch"].channels, layers["patch"].sized()) == (144, "8 x 8")
    names = [f"blocks.{block}" for block in range(6)] + [
        f"blocks.{block}.{part}"
        for block in range(6)
        for part in ("norm1", "attention", "norm2", "mlp")
    ]
    for name in (*names, "norm"):
        assert layers[name].shape == (1, 69, 144)
        assert layers[name].sized() == "tokens, 5 + 8 x 8"
    felt = {name for name in names if layers[name].found.is_felt}
    assert felt == {name for name in names if not name.startswith("blocks.5")} | {"blocks.5.norm1"}
    assert network(image(2)).shape == (2, 128)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (7, 7)])
def test_a_patch_of_the_image_is_the_token_of_its_place(network, row, column):
    tokens = []
    handle = network.blocks.register_forward_pre_hook(lambda _m, inputs: tokens.append(inputs[0]))
    changed = image()
    changed[..., 14 * row : 14 * row + 14, 14 * column : 14 * column + 14] = 0
    with torch.no_grad():
        network(image())
        network(changed)
    handle.remove()
    moved = (tokens[0] != tokens[1]).any(dim=2)[0].nonzero().flatten()
    assert moved.tolist() == [5 + 8 * row + column]


def test_its_default_layer_is_the_last_on_whose_places_the_embedding_depends(network):
    (layer,) = resolve(None, layers_of(network, image()), "gradcam")
    assert layer.name == "blocks.5.norm1"


def test_cams_take_that_layer_and_others_say_why_they_cannot(network):
    model = FaceNet(network, crop=ARCFACE_112)
    last = MapLayer("blocks.5.norm1", (69, 144), "tokens", (8, 8))
    for by in (GradCAM, GradCAMpp, LayerCAM):
        maps = by().explain(model, image(2), image(2).flip(0), generator=RNG)
        assert maps.layers == (last,)
        assert bool(maps.positive.flatten(1).amax(dim=1).gt(0).any())
    assert LEAM(("blocks[0].norm1", "blocks[-1].norm1")).unsupported(model) is None
    assert LEAM().unsupported(model).endswith(" blocks.5.norm1 (tokens, 5 + 8 x 8).")
    assert "not an affine function of the output of layer 'patch'" in CAM().unsupported(model)
    assert "goes around layer 'blocks.5.norm1'" in CAM("blocks[-1].norm1").unsupported(model)
    assert "no rule for operation 'native_layer_norm'" in EBP().unsupported(model)


@pytest.mark.parametrize("layer", ["blocks[-1].norm1", "blocks[2]", "patch"])
def test_a_suite_may_name_its_layers_before_weights_are_loaded(layer):
    found = layers_of(architecture("mini_vit"), torch.empty((1, 3, 112, 112), device="meta"))
    (one,) = resolve(layer, found, "gradcam")
    assert (one.height, one.width) == (8, 8)


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


def test_the_parameters_that_are_no_weights_are_known_to_a_recipe(network):
    undecayed = {name for name, value in network.named_parameters() if value.ndim < 2}
    undecayed |= MiniViT.UNDECAYED
    weights = {name for name, _ in network.named_parameters()} - undecayed
    assert {name for name, _ in network.named_parameters()} >= MiniViT.UNDECAYED
    assert all(name.endswith(".weight") for name in weights)
    assert {"class_token", "registers", "places"} <= undecayed


def test_normalisation_is_part_of_the_network(network):
    seen = []
    handle = network.patch.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(image())
    handle.remove()
    assert_rounded(seen[0], (image().double() * 255 - 127.5) / 127.5, terms=5, scale=2)

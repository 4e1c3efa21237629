"""The patch-additive network: shapes, weights, and that a patch is seen by itself."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.hooks.layers import layers_of, resolve
from fxeval.models.networks.mini_patch import GRID, PATCH, MiniPatch, PatchConv
from fxeval.seeding import sealed
from fxeval.tests.rounding import FLOAT64, assert_rounded, condition_of, terms_of
from fxeval.truth.patch_additive import untrained_patch_model


@pytest.fixture(scope="module")
def network() -> MiniPatch:
    return untrained_patch_model().module


def pictures(n: int, seed: int = 1) -> Tensor:
    return torch.rand(n, 3, 112, 112, generator=torch.Generator().manual_seed(seed))


def vectors(network: MiniPatch, images: Tensor) -> Tensor:
    """Return (N, 64, 16) what the embedding holds of each patch."""
    with torch.no_grad():
        return network(images).view(len(images), -1, GRID**2).transpose(1, 2)


def test_it_is_small(network):
    assert sum(parameter.numel() for parameter in network.parameters()) == 648_480
    assert 2 * sum(value.numel() for value in network.state_dict().values()) < 2_000_000


def test_its_layers_give_maps_of_the_image_that_a_suite_may_name():
    with torch.device("meta"):
        found = layers_of(MiniPatch(), torch.empty(1, 3, 112, 112))
    shapes = {layer.name: layer.shape for layer in found if len(layer.shape or ()) == 4}
    assert shapes["stem.0"] == shapes["stem"] == (1, 32, 56, 56)
    assert shapes["stage1.0"] == shapes["stage2.0"] == (1, 64, 32, 32)
    assert shapes["neck"] == (1, 32, 32, 32)
    assert shapes["vectors"] == (1, 16, GRID, GRID)
    assert resolve(None, found, "gradcam")[0].name == "vectors"


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_patches_is_one_of_every_patch_alone(stride):
    with sealed(0):
        layer = PatchConv(3, 5, 3, stride=stride, padding=1)
    images = pictures(2)
    with torch.no_grad():
        found = layer(images)
        side = found.shape[2] // GRID
        for row in range(GRID):
            for column in range(GRID):
                y, x = PATCH * row, PATCH * column
                alone = F.conv2d(
                    images[:, :, y : y + PATCH, x : x + PATCH].double(), layer.weight.double(),
                    layer.bias.double(), stride, 1,
                )  # fmt: skip
                own = found[..., row * side : (row + 1) * side, column * side : (column + 1) * side]
                assert_rounded(own, alone, terms=28)
        whole = F.conv2d(images, layer.weight, layer.bias, stride, 1)
    # An ordinary convolution looks across the edges of patches, and nowhere else differs.
    assert whole.shape == found.shape
    is_other = (whole - found).abs().amax((0, 1)) > 1e-3
    assert bool(is_other.any())
    assert bool(is_other.view(GRID, side, GRID, side)[:, 1:-1, :, 1:-1].logical_not().all())


@pytest.mark.parametrize("patch", [0, 7, 27, 63])
def test_nothing_outside_a_patch_changes_its_vector(network, patch):
    images, others = pictures(2), pictures(2, seed=2)
    y, x = PATCH * (patch // GRID), PATCH * (patch % GRID)
    others[:, :, y : y + PATCH, x : x + PATCH] = images[:, :, y : y + PATCH, x : x + PATCH]
    exact = deepcopy(network).double()
    before, after = (vectors(exact, one.double()) for one in (images, others))
    condition = condition_of(lambda x: exact(x).detach(), images, module=exact)
    assert_rounded(
        after[:, patch], before[:, patch], terms=terms_of(network), condition=condition,
        scale=float(before.abs().max()), unit=FLOAT64,
    )  # fmt: skip
    moved = (before - after).norm(dim=2)
    moved[:, patch] = 1
    assert bool((moved > 1e-3).all())


def test_a_patch_has_a_vector_whose_squared_length_is_its_weight(network):
    altered = deepcopy(network)
    with torch.no_grad():
        altered.importance.copy_(torch.linspace(-2, 2, GRID**2))
    weights = altered.weights().detach().flatten()
    assert_rounded(weights.sum(), torch.tensor(1.0), terms=GRID**2)
    assert float(weights[-1] / weights[0]) > 50
    lengths = vectors(altered, pictures(3)).square().sum(2)
    assert_rounded(lengths, weights.double().expand(3, -1), terms=64)


def test_an_embedding_has_a_gradient_at_every_weight_and_pixel(network):
    image = pictures(1).requires_grad_()
    network.zero_grad(set_to_none=True)
    (network(image) * pictures(1, 3).flatten()[:1024]).sum().backward()
    without = [name for name, one in network.named_parameters() if not bool(one.grad.any())]
    network.zero_grad(set_to_none=True)
    assert without == []
    assert float((image.grad != 0).float().mean()) > 0.9


def test_normalisation_is_part_of_the_network(network):
    seen = []
    handle = network.stem.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(pictures(1))
    handle.remove()
    assert_rounded(seen[0], (pictures(1).double() * 255 - 127.5) / 127.5, terms=5, scale=2)

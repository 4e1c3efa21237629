"""LEAM: where its layers lie, what its sign does, and that its map is a mean of LayerCAM maps."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fxeval.contracts import Crop, Explainer, RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.grad_cam import LayerCAM
from fxeval.explainers.leam import LEAM, spread
from fxeval.hooks.layers import convolutions, layers_of
from fxeval.models.networks.dlib_resnet import DlibResNet
from fxeval.models.networks.mini_inception import MiniInception
from fxeval.models.networks.mini_mobile import MiniMobile
from fxeval.models.networks.mini_resnet import MiniResNet
from fxeval.tests.cam_subjects import FaceNet, Net, exact, images, norm01
from fxeval.tests.rounding import assert_rounded

RNG = np.random.default_rng(0)


def leam(model, probes: Tensor, references: Tensor, **parameters) -> SaliencyMaps:
    return LEAM(**parameters).explain(model, probes, references, generator=RNG)


def test_its_map_is_the_mean_of_stretched_layer_cam_maps_of_the_cosine():
    net, probes, references = exact(Net()), images(3, 1), images(3, 2)
    ours = leam(
        FaceNet(net, "neg_l2"), probes, references
    )  # the loss is 1 - cos whatever is native
    alone = [
        LayerCAM(layer, objective="cos").explain(FaceNet(net), probes, references, generator=RNG)
        for layer in ("conv1", "conv2")
    ]
    for row in range(3):
        expected = np.mean([norm01(maps.positive[row]) for maps in alone], axis=0)
        # In float64 but for what is returned: ours, and a map's values and its two ends.
        assert_rounded(ours.positive[row], expected, terms=4)
    assert set(ours.states) == {RowState.OK}
    assert_rounded(ours.positive, leam(FaceNet(net), probes, references).positive, terms=2)


def test_a_single_layer_is_stretched_too():
    maps = leam(FaceNet(Net()), images(3, 1), images(3, 2), layer="conv2").positive
    assert maps.amax((1, 2)).tolist() == [1, 1, 1]
    assert maps.amin((1, 2)).tolist() == [0, 0, 0]


def test_the_sign_is_that_of_the_loss():
    model, probes, references = FaceNet(exact(Net())), images(1, 1), images(1, 2)
    rising = leam(model, probes, references).positive
    literal = leam(model, probes, references, sign=-1).positive
    assert (rising - literal).abs().max() > 0.2
    by_loss = LayerCAM(("conv1", "conv2"), objective="-one_minus_cos")
    expected = by_loss.explain(model, probes, references, generator=RNG).positive
    assert_rounded(literal, expected, terms=2)  # both are rounded, at the end alone


def test_a_reference_that_is_the_probe_has_no_gradient():
    probes = images(2, 1)
    references = torch.stack([probes[0], images(1, 2)[0]])
    maps = leam(FaceNet(Net()), probes, references)
    assert maps.states == (RowState.NO_GRADIENT, RowState.OK)
    assert maps.positive[0].eq(0).all()


@pytest.mark.parametrize(
    ("kind", "side", "first", "last"),
    [
        (MiniResNet, 112, "stem.0", "head.1"),
        (MiniInception, 112, "stem.0.conv", "stage3.1.conv2d"),
        (MiniMobile, 112, "stem.0", "neck.0"),
        (DlibResNet, 150, "conv", "blocks.12.conv2"),
    ],
)
def test_nine_convolutions_are_spread_over_a_network(kind, side, first, last):
    with torch.device("meta"):
        found = layers_of(kind(), torch.empty(1, 3, side, side))
    names = [one.name for one in convolutions(found)]
    chosen = [one.name for one in LEAM().chosen_layers(found)]
    assert (len(chosen), chosen[0], chosen[-1]) == (9, first, last)
    steps = [names.index(b) - names.index(a) for a, b in pairwise(chosen)]
    assert max(steps) - min(steps) <= 1
    assert LEAM(("conv[0]", "stage[-1]")).chosen_layers(found)[0].name == first


@given(st.integers(1, 200), st.integers(2, 20))
def test_a_spread_is_even_in_order_and_holds_both_ends(n, count):
    chosen = spread(range(n), count)
    assert len(chosen) == min(n, count)
    assert (chosen[0], chosen[-1]) == (0, n - 1)
    steps = [b - a for a, b in pairwise(chosen)]
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_the_bundled_network_is_explained_at_nine_layers():
    with torch.random.fork_rng():
        model = FaceNet(exact(MiniResNet().eval()), crop=Crop("large", (112, 112), ()))
    generator = torch.Generator().manual_seed(0)
    probes, references = torch.rand((2, 2, 3, 112, 112), generator=generator)
    maps = leam(model, probes, references)
    assert maps.positive.shape == (2, 112, 112)
    assert 0 <= maps.positive.min() < maps.positive.max() <= 1
    alone = leam(model, probes[1:], references[1:])
    assert_rounded(maps.positive[1:], alone.positive, terms=2)


def test_it_is_an_explainer_that_takes_centroids_and_no_black_box():
    assert isinstance(LEAM(), Explainer)
    assert LEAM().traits.needs == {"gradients", "layers"}
    assert LEAM().traits.takes_centroids
    assert "needs gradients" in LEAM().unsupported(FaceNet(None))
    with pytest.raises(ExplainerContractError, match=r"leam: .*black box"):
        leam(FaceNet(None), images(1, 1), images(1, 2))


@pytest.mark.parametrize("sign", [0, 2, True, "1", 0.5])
def test_a_sign_that_is_none_is_refused(sign):
    with pytest.raises(ExplainerContractError, match="leam: sign must be 1 or -1"):
        LEAM(sign=sign)


def test_a_network_without_convolutions_has_no_default():
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(360, 4))
    with pytest.raises(ExplainerContractError, match="leam: the model has no convolution"):
        leam(FaceNet(flat), images(1, 1), images(1, 2))

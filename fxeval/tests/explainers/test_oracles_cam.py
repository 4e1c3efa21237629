"""Grad-CAM, Grad-CAM++ and LayerCAM agree with pytorch-grad-cam 1.5.7, at one layer and several.

``.ci/oracles`` installs the peer; without it these tests skip. It stretches each map to [0, 1]
before it enlarges it and once more at the end; ours is stretched after enlarging. At one layer that
is the same thing, and maps are compared stretched. At several layers the means differ slightly, as
an enlarged map need not reach 0 and 1: there its order is replayed around our maps of each layer
at their own size. Networks run in float64: of deep ones the rounding would be what is compared.
"""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fxeval.explainers.activation_maps import ActivationMaps, upsampled
from fxeval.explainers.grad_cam import GradCAM, GradCAMpp, LayerCAM
from fxeval.explainers.leam import LEAM
from fxeval.models.networks.mini_resnet import MiniResNet
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.subjects import ConvNet, CountingModel

pytestmark = pytest.mark.oracle

PEERS = {GradCAM: "GradCAM", GradCAMpp: "GradCAMPlusPlus", LayerCAM: "LayerCAM"}
each_method = pytest.mark.parametrize("by", PEERS, ids=PEERS.values())
# Maps are handed over in float32, and the peer enlarges them in it, from four pixels each: both
# coordinates, the sum, and its stretching before and after it.
TERMS = 2 + 4 + 4


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The peer, with an empty stand-in for torchvision: it imports more than CAMs need."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        stand_in = ModuleType(name)
        stand_in.Compose = stand_in.Normalize = stand_in.ToTensor = stand_in.resize = None
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, stand_in)
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam is absent: run .ci/oracles")


def small() -> tuple[nn.Module, int]:
    return ConvNet(seed=3).double().eval(), 16


def bundled() -> tuple[nn.Module, int]:
    """The bundled architecture with seeded weights and PReLU slopes as after training."""
    net, generator = MiniResNet(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                scale = 1.4 / module.weight[0].numel() ** 0.5
                module.weight.copy_(scale * torch.randn(module.weight.shape, generator=generator))
            if isinstance(module, nn.Linear):
                module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                shape = module.running_mean.shape
                module.running_mean.copy_(0.3 * torch.randn(shape, generator=generator))
                module.bias.copy_(0.3 * torch.randn(shape, generator=generator))
    return net.double().eval(), 112


NETS = {
    "small": (small, ("conv1", "prelu", "conv2")),
    "bundled": (bundled, ("stem.0", "stage1", "stage2.0.residual.1", "stage3", "stage4.1")),
}
each_net = pytest.mark.parametrize("name", NETS)
NOTHING = np.random.default_rng(0)  # no CAM draws


def faces(side: int) -> tuple[Tensor, Tensor]:
    """Three smooth probes and three references."""
    rough = torch.rand((6, 3, side // 4, side // 4), generator=torch.Generator().manual_seed(9))
    smooth = F.interpolate(rough, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)
    return smooth[:3].double(), smooth[3:].double()


def ours(explainer: ActivationMaps, name: str) -> Tensor:
    net, side = NETS[name][0]()
    return explainer.explain(CountingModel(net), *faces(side), generator=NOTHING).positive


def theirs(peers: ModuleType, by: type, name: str, layers: tuple[str, ...]) -> Tensor:
    net, side = NETS[name][0]()  # of its own: the peer leaves gradients and hooks behind
    probes, references = faces(side)
    with torch.no_grad():
        embedded = net(references).float().double()  # what a model's contract leaves of it
    peer = getattr(peers, PEERS[by])(net, [net.get_submodule(layer) for layer in layers])
    found = peer(probes, [lambda e, r=r: F.cosine_similarity(e, r, dim=0) for r in embedded])
    peer.activations_and_grads.release()
    return torch.from_numpy(found)


def norm01(maps: Tensor) -> Tensor:
    """Stretch each (H, W) map to [0, 1]; one that the ReLU emptied stays zero."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1.0)


def stretching(maps: Tensor) -> float:
    """How much larger a map's values are than their range, which is stretched to 1."""
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    return max((high / (high - low))[high > low].tolist(), default=1.0)


@each_net
@each_method
def test_maps_of_one_layer_agree(peers, by, name):
    filled = 0
    for layer in NETS[name][1]:
        own, other = ours(by(layer), name), norm01(theirs(peers, by, name, (layer,)))
        mine = norm01(own)
        assert_rounded(mine, other, terms=TERMS, condition=stretching(own))
        filled += sum(bool(map_.any()) for map_ in mine)
    assert filled >= 2 * len(NETS[name][1])


@each_net
@each_method
def test_maps_of_several_layers_are_the_mean_of_the_peers_stretched_maps(peers, by, name):
    layers = NETS[name][1]
    each = [theirs(peers, by, name, (layer,)) for layer in layers]
    expected = torch.stack([norm01(one) for one in each]).mean(0)
    condition = max(stretching(one) for one in each)
    found = ours(by(layers), name)
    assert_rounded(found, expected, terms=TERMS + len(layers), condition=condition)


@each_net
@each_method
def test_maps_of_several_layers_agree_once_the_peers_order_is_replayed(peers, by, name):
    found: list[Tensor] = []

    class Recorded(by):
        def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
            found.append(super().coarse(activations, gradients))
            return found[-1]

    layers, (_, side) = NETS[name][1], NETS[name][0]()
    fused = ours(Recorded(layers), name)
    replayed = torch.stack([upsampled(_peers_scale(one), (side, side)) for one in found]).mean(0)
    other = theirs(peers, by, name, layers)
    terms, condition = TERMS + len(layers), stretching(replayed)
    assert_rounded(norm01(replayed.float()), norm01(other), terms=terms, condition=condition)
    # Without the replay they are not the same: the agreement above is one of order, too.
    assert float((norm01(fused) - norm01(other)).abs().max()) > 1e-3


def _peers_scale(maps: Tensor) -> Tensor:
    shifted = maps - maps.amin((1, 2), keepdim=True)
    return shifted / (1e-7 + shifted.amax((1, 2), keepdim=True))


@each_net
def test_leam_is_the_mean_of_the_peers_layer_cam_maps(peers, name):
    layers = NETS[name][1]
    each = [theirs(peers, LayerCAM, name, (layer,)) for layer in layers]
    expected = torch.stack([norm01(one) for one in each]).mean(0)
    condition = max(stretching(one) for one in each)
    found = ours(LEAM(layers), name)
    assert_rounded(found, expected, terms=TERMS + len(layers), condition=condition)

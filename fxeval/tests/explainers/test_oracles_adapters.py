"""The adapters run the real captum and pytorch-grad-cam, and give what these give pair by pair.

``.ci/oracles`` installs both; a test whose library is absent skips.
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fxeval.contracts import RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.adapters import from_captum, from_grad_cam
from fxeval.explainers.grad_cam import GradCAM
from fxeval.hooks.custody import Custody
from fxeval.seeding import sealed
from fxeval.tests.rounding import assert_rounded, condition_of
from fxeval.tests.subjects import CountingModel, make_pairs

pytestmark = [
    pytest.mark.oracle,
    # What the libraries warn of: hooks that DeepLift sets, progress bars, old spellings of torch.
    pytest.mark.filterwarnings("ignore"),
]

N = 5
PAIRS = make_pairs(N, seed=3)
PROBES, REFERENCES = PAIRS.images[:N] / 255.0, PAIRS.images[N:] / 255.0


class Net(nn.Module):
    """Convolutions and ReLUs, each run once, for methods that want layers they know.

    In float64, whatever images it gets: regressions, eigenvectors and cut sums of some methods make
    float32's rounding as large as what is looked for. Images, their gradients and maps are float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(8 * 64, 8)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu2(self.conv2(self.relu1(self.conv1(images.double()))))
        return self.fc(hidden.flatten(1))


def seeded_net() -> Net:
    with sealed(0):
        return Net().double().eval()


def ask(explainer: object, net: nn.Module, rows: slice = slice(None), **given: object):
    return explainer.explain(
        CountingModel(net), PROBES[rows], REFERENCES[rows], generator=np.random.default_rng(0),
        **given,
    )  # fmt: skip


class OnePair(nn.Module):
    """The similarity to one reference, as a user of captum would write it."""

    def __init__(self, net: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.module = net
        with torch.no_grad():
            # In float32, as a model hands it over.
            self.reference = net(reference[None]).float().double()

    def forward(self, images: Tensor) -> Tensor:
        return F.cosine_similarity(self.module(images), self.reference, dim=1)


def signed(maps: SaliencyMaps) -> Tensor:
    return maps.positive - maps.negative


# Sums that stay in float32: over three channels, seven steps, and four pixels of a coarser map.
TERMS = 3 * 7 + 4


def one_pair(
    make: Callable, arguments: dict, net: nn.Module, probe: Tensor, reference: Tensor
) -> Tensor:
    """The map of one pair by a captum method, (H, W), in float64, with the same random numbers."""
    given = {
        key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in arguments.items()
    }
    method = make(OnePair(net, reference.double()))
    image = probe.double()[None].clone().requires_grad_()
    with sealed(0):
        found = method.attribute(image, **given).detach().sum(1, keepdim=True)
    return F.interpolate(found, (16, 16), mode="bilinear", align_corners=False)[0, 0]


captum_methods: dict[str, tuple[Callable, dict]] = {
    "Saliency": (lambda c, f: c.Saliency(f), {"abs": False}),
    "InputXGradient": (lambda c, f: c.InputXGradient(f), {}),
    "IntegratedGradients": (
        lambda c, f: c.IntegratedGradients(f),
        {"n_steps": 7, "internal_batch_size": 4, "baselines": 0.5},
    ),
    "DeepLift": (lambda c, f: c.DeepLift(f), {"baselines": torch.full((1, 3, 16, 16), 0.5)}),
    "GuidedBackprop": (lambda c, f: c.GuidedBackprop(f), {}),
    "Deconvolution": (lambda c, f: c.Deconvolution(f), {}),
    "Occlusion": (
        lambda c, f: c.Occlusion(f),
        {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4), "perturbations_per_eval": 3},
    ),
    "FeatureAblation": (
        lambda c, f: c.FeatureAblation(f),
        {"feature_mask": torch.arange(16).reshape(1, 1, 16, 1) // 4, "perturbations_per_eval": 4},
    ),
    "LayerGradCam": (lambda c, f: c.LayerGradCam(f, f.module.conv2), {}),
    "LayerGradientXActivation": (
        lambda c, f: c.LayerGradientXActivation(f, f.module.relu1), {},
    ),
    "LayerIntegratedGradients": (
        lambda c, f: c.LayerIntegratedGradients(f, f.module.conv2),
        {"n_steps": 5, "internal_batch_size": 5},
    ),
    "LayerConductance": (
        lambda c, f: c.LayerConductance(f, f.module.conv2),
        {"n_steps": 5, "internal_batch_size": 5},
    ),
    "GuidedGradCam": (lambda c, f: c.GuidedGradCam(f, f.module.conv2), {}),
    "LRP": (lambda c, f: c.LRP(deepcopy(f)), {}),
}  # fmt: skip
random_methods: dict[str, tuple[Callable, dict]] = {
    "NoiseTunnel": (
        lambda c, f: c.NoiseTunnel(c.Saliency(f)),
        {"nt_samples": 4, "nt_samples_batch_size": 2, "stdevs": 0.1},
    ),
    "GradientShap": (
        lambda c, f: c.GradientShap(f), {"baselines": torch.zeros(2, 3, 16, 16), "n_samples": 3},
    ),
    "KernelShap": (
        lambda c, f: c.KernelShap(f),
        {"n_samples": 20, "feature_mask": torch.arange(16).reshape(1, 1, 16, 1) // 4},
    ),
    "ShapleyValueSampling": (
        lambda c, f: c.ShapleyValueSampling(f),
        {"n_samples": 3, "feature_mask": torch.arange(16).reshape(1, 1, 16, 1) // 4},
    ),
}  # fmt: skip


@pytest.fixture
def captum() -> ModuleType:
    return pytest.importorskip("captum.attr", reason="captum is absent: run .ci/oracles")


@pytest.mark.parametrize("name", captum_methods)
def test_captum_in_batches_of_pairs_gives_what_it_gives_pair_by_pair(captum: ModuleType, name: str):
    make, arguments = captum_methods[name]
    net = seeded_net()
    custody = Custody(net)
    explainer = from_captum(lambda f: make(captum, f), arguments=arguments, reduce="positive_sum")
    found = ask(explainer, net)
    assert custody.changes() == []
    assert set(found.states) == {RowState.OK}
    compute = partial(one_pair, partial(make, captum), arguments, seeded_net())
    for row in range(N):
        pair = PROBES[row], REFERENCES[row]
        condition = condition_of(compute, *pair)
        assert_rounded(signed(found)[row], compute(*pair), terms=TERMS, condition=condition)


def test_a_method_that_writes_to_the_weights_is_refused_without_a_copy(captum: ModuleType):
    net = seeded_net()
    with pytest.raises(ExplainerContractError, match="the model was changed"):
        ask(from_captum(captum.LRP), net)
    flat = from_captum(lambda f: captum.LRP(deepcopy(f)))
    found = flat.explain(CountingModel(net), PROBES, PROBES, generator=np.random.default_rng(0))
    assert set(found.states) == {RowState.NO_GRADIENT}


@pytest.mark.parametrize("name", random_methods)
def test_captums_random_methods_repeat_themselves_row_by_row(captum: ModuleType, name: str):
    make, arguments = random_methods[name]
    explainer = from_captum(lambda f: make(captum, f), arguments=arguments, reduce="positive_sum")
    net = seeded_net()
    together = signed(ask(explainer, net))
    assert torch.equal(signed(ask(explainer, net)), together)
    compute = partial(one_pair, partial(make, captum), arguments, seeded_net())
    for row in range(N):
        alone = signed(ask(explainer, net, slice(row, row + 1)))[0]
        condition = condition_of(compute, PROBES[row], REFERENCES[row])
        assert_rounded(alone, together[row], terms=2 * TERMS, condition=condition)
    assert float(together.flatten(1).std(1).min()) > 0


def test_a_black_box_is_occluded_through_embed(captum: ModuleType):
    make, arguments = captum_methods["Occlusion"]
    net, kind = seeded_net(), {"black_box"}
    explainer = from_captum(lambda f: make(captum, f), arguments=arguments, needs=kind)
    white = from_captum(lambda f: make(captum, f), arguments=arguments)

    class BlackBox(CountingModel):
        def embed(self, images: Tensor) -> Tensor:
            return net(images).detach()

    found = explainer.explain(
        BlackBox(None), PROBES, REFERENCES, generator=np.random.default_rng(0)
    )
    expected = ask(white, net).positive
    compute = partial(one_pair, partial(make, captum), arguments, net)
    for row in range(N):
        condition = condition_of(compute, PROBES[row], REFERENCES[row])
        assert_rounded(found.positive[row], expected[row], terms=2 * TERMS, condition=condition)


@pytest.fixture
def grad_cam(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The peer, with an empty stand-in for torchvision: it imports more than it needs."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        stand_in = ModuleType(name)
        stand_in.Compose = stand_in.Normalize = stand_in.ToTensor = stand_in.resize = None
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, stand_in)
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam is absent: run .ci/oracles")


# Not EigenGradCAM: the sign of its singular vectors turns with the last bit of a gradient.
CAMS = [
    "GradCAM", "GradCAMPlusPlus", "HiResCAM", "XGradCAM", "LayerCAM", "EigenCAM",
    "GradCAMElementWise", "ScoreCAM", "AblationCAM", "FullGrad", "KPCA_CAM",
]  # fmt: skip


@pytest.mark.parametrize("name", CAMS)
def test_grad_cam_in_batches_of_pairs_gives_what_it_gives_pair_by_pair(
    grad_cam: ModuleType, name: str
):
    net = seeded_net()
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    custody = Custody(net)
    kind = getattr(grad_cam, name)
    found = ask(from_grad_cam(lambda net: kind(net, [net.conv2])), net)
    assert custody.changes() == []
    assert set(found.states) == {RowState.OK}
    copy = seeded_net()

    def compute(probe: Tensor, reference: Tensor) -> np.ndarray:
        with torch.no_grad():
            embedded = copy(reference[None])[0].float().double()
        method = kind(copy, [copy.conv2])
        image = probe.double()[None].clone().requires_grad_()
        one = method(image, [lambda e: F.cosine_similarity(e, embedded, dim=0)])
        method.activations_and_grads.release()
        return one[0]

    for row in range(N):
        pair = PROBES[row], REFERENCES[row]
        expected = compute(*pair)
        if not expected.any():  # its ReLU has emptied it
            assert not found.positive[row].any()
            continue
        condition = condition_of(compute, *pair)
        assert_rounded(found.positive[row], expected, terms=TERMS, condition=condition)
    assert float(found.positive.max()) > 0.9


def test_grad_cam_shows_the_order_that_fxevals_own_shows(grad_cam: ModuleType):
    net = seeded_net()
    found = ask(from_grad_cam(lambda net: grad_cam.GradCAM(net, [net.conv2])), net).positive
    own = ask(GradCAM(layer="conv2"), net).positive
    for row in range(N):
        pair = torch.stack([found[row].flatten(), own[row].flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.97  # OpenCV enlarges after the stretching


def test_a_constant_map_is_zero_and_a_flat_objective_says_so(grad_cam: ModuleType):
    net = seeded_net()
    explainer = from_grad_cam(lambda net: grad_cam.GradCAM(net, [net.conv2]))
    found = explainer.explain(
        CountingModel(net), PROBES, PROBES, generator=np.random.default_rng(0)
    )
    assert set(found.states) == {RowState.NO_GRADIENT}
    assert float(found.positive.abs().max()) == 0
    with torch.no_grad():
        net.conv2.weight.zero_()
        net.conv2.bias.fill_(1.0)
    found = ask(explainer, net)
    assert float(found.positive.abs().max()) == 0


def test_an_ablation_that_fails_puts_the_layer_back(grad_cam: ModuleType):
    net = seeded_net()
    custody = Custody(net)

    class Failing(grad_cam.AblationCAM):
        def assemble_ablation_scores(self, *_: object) -> object:
            raise IndexError("list index out of range")

    with pytest.raises(IndexError):
        ask(from_grad_cam(lambda net: Failing(net, [net.conv2])), net)
    assert custody.changes() == []

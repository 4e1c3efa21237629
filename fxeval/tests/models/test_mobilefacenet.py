"""MobileFaceNet: golden embeddings, the same arithmetic in plain functions, and its layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.explainers.cam_exact import CAM
from fxeval.explainers.excitation_backprop import EBP
from fxeval.explainers.grad_cam import GradCAM
from fxeval.explainers.gradients import IntegratedGradients
from fxeval.explainers.leam import LEAM
from fxeval.hooks.layers import convolutions, layers_of
from fxeval.hooks.returned import check_maps
from fxeval.models.loading import TorchFaceModel, check_loaded, fill_module
from fxeval.models.networks.mobilefacenet import MobileFaceNet, mobilefacenet_ms1m
from fxeval.models.preprocessing import Preprocessing
from fxeval.tests.rounding import assert_rounded, terms_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDES = (2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1)
SHORTCUTS = {1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 13, 14}


def model_of(network: MobileFaceNet) -> TorchFaceModel:
    return TorchFaceModel("mobilefacenet", ARCFACE_112, network.eval(), "cosine", 0.25, "0" * 64)


@pytest.fixture(scope="module")
def golden(data_root: Path):
    return np.load(data_root / "weights" / "golden.npz")


@pytest.fixture(scope="module")
def crops(golden) -> Tensor:
    return torch.from_numpy(golden["crop_arcface112"]).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def real(data_root: Path) -> TorchFaceModel:
    path = data_root / "weights" / "mobilefacenet_ms1m.safetensors"
    network = mobilefacenet_ms1m()
    # The file leaves out the number of batches that each batch norm has seen.
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("_tracked")}
    fill_module(network, counters | load_file(path), str(path))
    return model_of(network)


@pytest.fixture(scope="module")
def seeded() -> TorchFaceModel:
    network, generator = mobilefacenet_ms1m(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)
            elif tensor.ndim == 1:
                spread = 0.2 * torch.rand(tensor.shape, generator=generator)
                tensor.copy_(spread + (0.9 if name.endswith(("weight", "var")) else -0.1))
    return model_of(network)


def plain(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The published description in float64, without a module."""
    state = {name: value.double() for name, value in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        scale, shift, mean, var = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(x: Tensor, name: str, stride: int = 1, padding: int | None = None) -> Tensor:
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        padding = weight.shape[2] // 2 if padding is None else padding
        groups = len(weight) if weight.shape[1] == 1 else 1
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    def cut(x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    x = cut(norm(conv((images.double() - mean) / std, "conv1.0", 2), "conv1.1"))
    x = norm(conv(x, "dw_conv.depthwise"), "dw_conv.bn1").clamp_min(0)
    x = norm(conv(x, "dw_conv.pointwise"), "dw_conv.bn2").clamp_min(0)
    for index, stride in enumerate(STRIDES):
        name = f"features.{index}.conv"
        y = cut(norm(conv(x, f"{name}.0.0"), f"{name}.0.1"))
        y = cut(norm(conv(y, f"{name}.1.0", stride), f"{name}.1.1"))
        y = norm(conv(y, f"{name}.2"), f"{name}.3")
        x = x + y if index in SHORTCUTS else y
    x = cut(norm(conv(x, "conv2.0"), "conv2.1"))
    x = norm(conv(x, "gdconv.depthwise", padding=0), "gdconv.bn")
    return norm(conv(x, "conv3"), "bn")[:, :, 0, 0]


def test_real_faces_have_the_golden_embeddings(real, crops, golden):
    expected = golden["emb_mobilefacenet_ms1m"]
    # Golden embeddings were rounded too.
    assert_rounded(real.embed(crops), expected, terms=2 * terms_of(real.module))
    check_loaded(real)


def test_the_network_does_what_its_description_says(seeded):
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    expected = plain(seeded.module.state_dict(), images)
    assert_rounded(seeded.embed(images), expected, terms=terms_of(seeded.module))
    assert float((expected[0] - expected[1]).abs().max()) > 1e-2 * float(expected.abs().max())


def test_the_preprocessing_can_be_another(seeded):
    images = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    other = mobilefacenet_ms1m(Preprocessing("BGR", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)))
    other.load_state_dict(seeded.module.state_dict())
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    normalised = ((images - mean) / std).flip(1)
    got, expected = model_of(other).embed(normalised), seeded.embed(images)
    assert_rounded(got, expected, terms=2 * terms_of(other))  # both are rounded
    assert float((model_of(other).embed(images) - expected).abs().max()) > 0.1


def test_maps_have_the_published_sizes():
    with torch.device("meta"):
        network = mobilefacenet_ms1m()
    assert sum(parameter.numel() for parameter in network.parameters()) == 999_936
    layers = layers_of(network, torch.zeros(1, 3, 112, 112))
    sizes = {layer.name: (layer.channels, layer.height, layer.width) for layer in layers}
    expected = {"conv1": (64, 56, 56), "dw_conv": (64, 56, 56), "conv2": (512, 7, 7)}
    for index in range(15):
        width, side = (64, 28) if index < 5 else (128, 14 if index < 12 else 7)
        expected[f"features.{index}"] = (width, side, side)
    assert {name: sizes[name] for name in expected} == expected
    assert sizes["gdconv"] == (512, 1, 1)
    assert convolutions(layers)[-1].name == "conv2.0"


@pytest.mark.parametrize(
    "explainer",
    [
        GradCAM("conv2"),
        GradCAM("features.14"),
        GradCAM("features.11"),
        LEAM(),
        CAM(),
        EBP(),
        IntegratedGradients(steps=8),
    ],
    ids=lambda explainer: "_".join(
        map(str, (type(explainer).__name__, getattr(explainer, "layer", None)))
    ),
)
def test_explainers_have_maps_of_real_faces(real, crops, explainer):
    assert explainer.unsupported(real) is None
    generator = np.random.default_rng(0)
    maps = explainer.explain(real, crops[6:7], crops[7:8], generator=generator)
    checked = check_maps("it", maps, 1, (112, 112))
    assert checked.states == ("ok",)
    assert float(checked.positive[0].std()) > 0.05 * float(checked.positive[0].abs().max())


def test_a_class_activation_map_of_a_real_face_adds_up_to_its_cosine(real, crops):
    maps = CAM("conv2").explain(real, crops[6:7], crops[7:8], generator=np.random.default_rng(0))
    placed = float(maps.positive.double().sum()) / 16**2  # 7 x 7 places, each 16 x 16 pixels
    e, r = real.embed(crops[6:8]).double()
    handle = real.module.conv2.register_forward_hook(lambda _m, _i, output: 0 * output)
    empty = real.embed(crops[6:7]).double()[0]
    handle.remove()
    constant = float(empty @ r / (e.norm() * r.norm()))
    cosine = float(F.cosine_similarity(e, r, dim=0))
    assert_rounded(placed + constant, cosine, terms=terms_of(real.module, passes=2))

"""EdgeFace: golden embeddings, each block compared with loops, its layers, and explanations."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.errors import ModelContractError
from fxeval.explainers.cam_exact import CAM
from fxeval.explainers.excitation_backprop import EBP
from fxeval.explainers.grad_cam import GradCAM
from fxeval.explainers.gradients import IntegratedGradients
from fxeval.explainers.leam import LEAM
from fxeval.hooks.layers import layers_of, resolve, stages
from fxeval.hooks.returned import check_maps
from fxeval.models.loading import TorchFaceModel, check_loaded, fill_module
from fxeval.models.networks import edgeface
from fxeval.models.preprocessing import Preprocessing
from fxeval.tests.published import assert_printed
from fxeval.tests.rounding import FLOAT64, allowance, assert_rounded, terms_of

FACTORIES = {
    "xxs": edgeface.edgeface_xxs,
    "xs": edgeface.edgeface_xs,
    "xs_gamma_06": edgeface.edgeface_xs_gamma_06,
    "s_gamma_05": edgeface.edgeface_s_gamma_05,
    "base": edgeface.edgeface_base,
}


def on_meta(name: str) -> edgeface.EdgeFace:
    with torch.device("meta"):
        return FACTORIES[name]()


def made_up(name: str) -> edgeface.EdgeFace:
    """A network with random weights, the same on every machine."""
    network = FACTORIES[name]().eval()
    with torch.no_grad():
        for index, (key, parameter) in enumerate(network.named_parameters()):
            order = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            noise = 2 * ((order * 12.9898 + index).sin() * 43758.5453).frac().view_as(parameter)
            if parameter.ndim > 1 and "temperature" not in key:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(0.1 * noise + (0.0 if key.endswith("bias") else 1.0))
    return network


def chequered() -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(112), torch.arange(112), indexing="ij")
    return torch.stack([(rows // step + columns // 9) % 2 for step in (5, 8, 13)])[None].float()


@pytest.fixture(scope="module")
def crops(data_root: Path) -> Tensor:
    golden = np.load(data_root / "weights" / "golden.npz")
    return torch.from_numpy(golden["crop_arcface112"]).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module", params=["xxs", "xs"])
def model(request, data_root: Path) -> TorchFaceModel:
    path = data_root / "weights" / f"edgeface_{request.param}.safetensors"
    network = FACTORIES[request.param]()
    fill_module(network, load_file(path), str(path))
    name = f"edgeface_{request.param}"
    return TorchFaceModel(name, ARCFACE_112, network.eval(), "cosine", 0.2, "0" * 64)


# --- the port


def test_real_faces_have_the_golden_embeddings(model, crops, data_root: Path):
    expected = np.load(data_root / "weights" / "golden.npz")[f"emb_{model.name}"]
    # Golden embeddings were rounded too.
    assert_rounded(model.embed(crops), expected, terms=2 * terms_of(model.module))
    check_loaded(model)


def test_another_order_of_channels_or_range_gives_other_embeddings(model, crops):
    network = model.module
    kept, expected = network.normalisation, network(crops[:2])
    try:
        for other in (Preprocessing("BGR"), Preprocessing(std=(128.0, 128.0, 128.0))):
            network.normalisation = type(kept)(other)
            assert (network(crops[:2]) - expected).abs().max() > 1e-4
    finally:
        network.normalisation = kept


@pytest.mark.parametrize(
    ("name", "length", "first"),
    [
        ("xxs", 24.017642, [1.695732, -1.593536, -0.169893]),
        ("s_gamma_05", 25.620789, [-1.168716, -0.408991, -0.637494]),
    ],
)
def test_made_up_weights_have_the_embedding_they_had_when_the_golden_ones_were_met(
    name, length, first
):
    network = made_up(name)
    with torch.inference_mode():
        embedding = network(chequered())[0]
    rounding = allowance(2 * terms_of(network))  # the printed length was rounded too
    assert float(embedding.norm()) == pytest.approx(length, rel=rounding)
    assert_printed(embedding, first, 6, network)


def test_parameters_are_as_many_as_published():
    counts = {
        name: sum(parameter.numel() for parameter in on_meta(name).parameters())
        for name in FACTORIES
    }
    assert counts == {
        "xxs": 1_244_744,
        "xs": 2_242_620,
        "xs_gamma_06": 1_770_492,
        "s_gamma_05": 3_652_520,
        "base": 18_225_812,
    }


def test_weights_of_another_size_are_refused_with_the_key():
    state = edgeface.edgeface_xxs().state_dict()
    with pytest.raises(ModelContractError, match="do not fit EdgeFace: 'stages"):
        fill_module(edgeface.edgeface_xs(), state, "file")


# --- the blocks, against loops


def double(block: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    block = block.double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return block


PLAN = edgeface._Plan((8, 10, 8, 8), (2, 2, 2, 2), 2)


def test_the_code_of_places_is_made_of_sines_and_cosines_of_row_and_column():
    code = double(edgeface.PlaceCode(5))
    got = code(torch.zeros(1, 5, 3, 4, dtype=torch.float64))[0]
    weight, bias = code.token_projection.weight[:, :, 0, 0], code.token_projection.bias
    for row in range(3):
        for column in range(4):
            waves = []
            for place, size in ((row, 3), (column, 4)):
                turn = 2 * math.pi * (place + 1) / (size + 1e-6)
                for index in range(32):
                    wave = math.sin if index % 2 == 0 else math.cos
                    waves.append(wave(turn / 10_000 ** (2 * (index // 2) / 32)))
            expected = weight @ torch.tensor(waves, dtype=torch.float64) + bias
            assert_rounded(got[:, row, column], expected, terms=terms_of(code), unit=FLOAT64)


def test_attention_mixes_the_channels_of_a_head_by_their_cosine():
    attention, x = double(edgeface.ChannelAttention(PLAN, 6)), double(nn.Linear(6, 7), 1).weight
    got = attention(x[None])[0]
    query, key, value = (x @ attention.qkv.weight.T + attention.qkv.bias).split(6, dim=1)
    mixed = torch.zeros_like(x)
    for head in range(2):
        for one in range(3):
            i, logits = 3 * head + one, []
            for other in range(3):
                j = 3 * head + other
                cosine = query[:, i] @ key[:, j] / (query[:, i].norm() * key[:, j].norm())
                logits.append(cosine * attention.temperature[head, 0, 0])
            shares = torch.stack(logits).softmax(0)
            mixed[:, i] = value[:, 3 * head : 3 * head + 3] @ shares
    expected = mixed @ attention.proj.weight.T + attention.proj.bias
    assert_rounded(got, expected, terms=terms_of(attention), unit=FLOAT64)


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    """Of (C,) values."""
    unit = (x - x.mean()) / (x.var(correction=0) + 1e-6).sqrt()
    return unit * layer.weight + layer.bias


def perceptron(x: Tensor, layers: nn.Sequential) -> Tensor:
    hidden = layers.fc1.weight @ x + layers.fc1.bias
    hidden = hidden * 0.5 * (1 + (hidden / math.sqrt(2)).erf())
    return layers.fc2.weight @ hidden + layers.fc2.bias


def by_channel(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Convolution of (C, h, w), each channel with its own kernel, zero padding."""
    out = torch.zeros_like(x)
    half = conv.kernel_size[0] // 2
    for c, i, j in np.ndindex(*x.shape):
        out[c, i, j] = conv.bias[c]
        for u, v in np.ndindex(*conv.kernel_size):
            a, b = i + u - half, j + v - half
            if 0 <= a < x.shape[1] and 0 <= b < x.shape[2]:
                out[c, i, j] += conv.weight[c, 0, u, v] * x[c, a, b]
    return out


@torch.no_grad()
def test_a_block_adds_what_it_makes_of_each_place():
    block = double(edgeface.ConvBlock(PLAN, edgeface._Stage(4, 1, 5)))
    x = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen, expected = by_channel(x, block.conv_dw), x.clone()
    for i, j in np.ndindex(3, 6):
        expected[:, i, j] += block.gamma * perceptron(norm(seen[:, i, j], block.norm), block.mlp)
    assert_rounded(block(x[None])[0], expected, terms=terms_of(block), unit=FLOAT64)


@torch.no_grad()
@pytest.mark.parametrize("has_places", [True, False])
def test_an_attention_block_hands_each_part_of_the_channels_on_to_the_next(has_places):
    stage = edgeface._Stage(10, 1, 5, parts=3, has_places=has_places)
    block = double(edgeface.AttentionBlock(PLAN, stage))
    x = torch.randn(10, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first = by_channel(x[:4], block.convs[0])
    second = by_channel(first + x[4:8], block.convs[1])
    y = torch.cat([first, second, x[8:]])
    if has_places:
        y = y + block.pos_embd(y[None])[0]
    rows = y.flatten(1).T
    looked = block.xca(torch.stack([norm(row, block.norm_xca) for row in rows])[None])[0]
    rows = rows + block.gamma_xca * looked
    made = torch.stack([block.gamma * perceptron(norm(row, block.norm), block.mlp) for row in rows])
    assert_rounded(block(x[None])[0], x + made.T.view_as(x), terms=terms_of(block), unit=FLOAT64)


@torch.no_grad()
def test_the_head_takes_the_mean_of_all_places_even_of_faint_maps():
    head = double(edgeface.edgeface_xxs().head)
    x = torch.randn(168, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = norm(1e-3 * x.flatten(1).mean(dim=1), head.norm)
    expected = head.fc.weight @ mean + head.fc.bias
    assert_rounded(head(1e-3 * x[None])[0], expected, terms=terms_of(head), unit=FLOAT64)


def test_low_ranks_are_two_layers_of_which_the_first_has_no_bias():
    keys = {name: set(on_meta(name).state_dict()) for name in ("xs", "xs_gamma_06")}
    full = {key.removesuffix(".weight") for key in keys["xs"] if key.endswith("fc1.weight")}
    full |= {f"stages.2.blocks.8.xca.{name}" for name in ("qkv", "proj")} | {"head.fc"}
    for name in full:
        assert {f"{name}.weight", f"{name}.bias"} <= keys["xs"]
        low = {key for key in keys["xs_gamma_06"] if key.startswith(f"{name}.")}
        assert low == {
            f"{name}.{key}" for key in ("linear1.weight", "linear2.weight", "linear2.bias")
        }
    assert on_meta("xs_gamma_06").head.fc.linear1.weight.shape == (115, 192)
    assert edgeface._Plan((8, 8, 8, 8), (2, 2, 2, 2), 2, 0.1).linear(4, 9)[0].out_features == 2


# --- layers and explainers


@pytest.mark.parametrize("name", FACTORIES)
def test_four_stages_can_be_hooked_and_nothing_else_looks_like_one(name):
    layers = layers_of(on_meta(name), torch.zeros(1, 3, 112, 112))
    sizes = {layer.name: (layer.height, layer.width) for layer in layers if layer.channels}
    expected = {f"stages.{i}": (side, side) for i, side in enumerate((28, 14, 7, 3))}
    assert {key: sizes[key] for key in expected} == expected
    assert [layer.name for layer in stages(layers)] == [*list(expected)[:3], "stages"]
    assert all(height == width for height, width in sizes.values())
    assert [one.name for one in resolve(None, layers, "gradcam")] == ["stages.3.downsample.0"]


@pytest.mark.parametrize(
    "explainer",
    [GradCAM("stages.1"), GradCAM("stages.2"), GradCAM("stages.3"), LEAM(), IntegratedGradients()],
    ids=["stages.1", "stages.2", "stages.3", "leam", "integrated_gradients"],
)
def test_explainers_have_maps_of_real_faces(model, crops, explainer):
    assert explainer.unsupported(model) is None
    generator = np.random.default_rng(0)
    maps = explainer.explain(model, crops[6:7], crops[7:8], generator=generator)
    checked = check_maps("it", maps, 1, (112, 112))
    assert checked.states == ("ok",)
    map_ = checked.positive[0]
    assert float(map_.min()) >= 0
    assert float(map_.std()) > 0.05 * float(map_.max())


def test_explainers_that_want_other_networks_say_so():
    model = TorchFaceModel("edge", ARCFACE_112, made_up("xxs"), "cosine", None, "0" * 64)
    assert "no rule for operation 'native_layer_norm'" in EBP().unsupported(model)
    assert "not an affine function" in CAM().unsupported(model)


def test_nothing_of_timm_is_imported():
    code = (
        "import sys, fxeval.models.networks.edgeface; "
        "print(any(m.startswith('timm') for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

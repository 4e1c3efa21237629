"""ONNX networks as PyTorch modules: they are the same networks, and can be explained."""

import contextlib
import re
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if find_spec("onnx2torch") is None:
    pytest.skip("onnx2torch is not installed", allow_module_level=True)

from fxeval.contracts import FaceModel  # noqa: E402
from fxeval.engine.maps import why_unsupported  # noqa: E402
from fxeval.errors import ModelContractError  # noqa: E402
from fxeval.explainers.excitation_backprop import EBP  # noqa: E402
from fxeval.explainers.grad_cam import GradCAM  # noqa: E402
from fxeval.explainers.gradients import Gradient  # noqa: E402
from fxeval.functional.randomisation import (  # noqa: E402
    embedding_spread,
    randomise,
    redrawn_share,
)
from fxeval.hooks.custody import Custody  # noqa: E402
from fxeval.hooks.layers import layers_of  # noqa: E402
from fxeval.models.files import onnx_gradients  # noqa: E402
from fxeval.models.files.onnx_gradients import ConvertedFaceModel, layer_names  # noqa: E402
from fxeval.models.files.onnx_loading import load_onnx  # noqa: E402
from fxeval.models.files.onnx_model import OnnxFaceModel  # noqa: E402
from fxeval.models.loading import TorchFaceModel  # noqa: E402
from fxeval.models.preprocessing import Preprocessed, Preprocessing  # noqa: E402
from fxeval.statistics.redrawn import COLLAPSED_BELOW  # noqa: E402
from fxeval.tests.models.test_onnx_model import assert_embedded, noise, relative  # noqa: E402
from fxeval.tests.onnx_subjects import (  # noqa: E402
    CROP,
    REAL,
    SIZE,
    UNIT,
    exported,
    facts,
    mutated,
    real,
    small,
    stand_in_for_torchvision,
)
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of  # noqa: E402
from fxeval.tests.subjects import ConvNet  # noqa: E402

CONVERTER = {}  # imported next to the stand-in, and not visible to other tests


@pytest.fixture
def torchvision():
    if find_spec("torchvision") is not None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        stand_in_for_torchvision(patch)
        sys.modules.update(CONVERTER)
        yield
        own = {name for name in sys.modules if name.partition(".")[0] == "onnx2torch"}
        CONVERTER.update({name: sys.modules.pop(name) for name in own})


@pytest.fixture(params=REAL)
def network(request, data_root: Path, torchvision):
    """A real network: its name, its module, eight faces, and the expected embeddings."""
    data, known, images, expected = real(data_root, request.param)
    known = facts("onnx2torch", known.crop, preprocessing=known.preprocessing)
    return request.param, load_onnx(data, request.param, known), images, expected


def pcg():
    return np.random.default_rng(3)


def test_real_networks_give_the_embeddings_that_were_measured(network):
    _, model, images, expected = network
    assert isinstance(model, FaceModel)
    assert isinstance(model, ConvertedFaceModel)
    assert model.traits.runtime.startswith("onnx2torch ")
    # The measured values were rounded too.
    assert_rounded(model.embed(images), expected, terms=2 * terms_of(model.module))


def test_real_networks_have_their_layers_and_finite_cams_there(network):
    name, model, images, _ = network
    custody = Custody(model.module)
    layers = {layer.name: layer for layer in layers_of(model.module, images[:1])}
    for layer, (channels, side) in REAL[name][2].items():
        found = layers[f"network.{layer}"]
        assert (found.channels, found.height, found.width) == (channels, side, side)
        assert found.runs == 1
        explainer = GradCAM(layer=found.name)
        maps = explainer.explain(model, images[:2], images[2:4], generator=pcg()).positive
        assert bool(maps.isfinite().all())
        assert bool((maps.amax((1, 2)) > maps.amin((1, 2))).all())
    assert not custody.changes()


def test_real_networks_say_whether_excitation_can_flow_back(network):
    name, model, _, _ = network
    reason = EBP().unsupported(model)
    if name == "mobilenetv2_se_ov0095":
        assert "sigmoid" in reason
    else:
        assert reason is None


def test_real_networks_can_be_randomised_whole(network):
    name, model, images, _ = network
    redrawn = randomise(model.module, images, 1, 0)
    assert redrawn_share(model.module, redrawn) > 0.99
    with torch.no_grad():
        spread = embedding_spread(redrawn(images))
        assert relative(redrawn(images), model.module(images)) > 0.1
    # Its batch norms are folded into the convolutions; without them 27 random layers collapse.
    assert (spread < COLLAPSED_BELOW) == (name == "mobilenetv1_hse_vggface2")


def test_gradients_are_those_of_the_network_that_was_exported(torchvision):
    original = Preprocessed(ConvNet(), UNIT).double().eval()
    model = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts("onnx2torch"))
    direction = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))

    def gradients(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
        images = images.clone().requires_grad_()
        return torch.autograd.grad((module(images) * direction).sum(), images)[0]

    expected = gradients(original, noise(3).double())
    assert float(expected.abs().max()) > 0
    assert_rounded(
        gradients(model.module, noise(3)),
        expected,
        terms=terms_of(original, passes=2),
        condition=condition_of(partial(gradients, original), noise(3), module=original),
    )


def test_a_cam_is_that_of_the_network_that_was_exported(torchvision):
    original = TorchFaceModel(
        "some", CROP, Preprocessed(ConvNet(), UNIT).eval(), "cosine", None, "0"
    )
    model = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts("onnx2torch"))
    maps = []
    for one in (original, model):
        convolutions = [x for x in layers_of(one.module, noise(1)) if x.kind == "Conv2d"]
        explainer = GradCAM(layer=convolutions[-1].name)
        maps.append(explainer.explain(one, noise(4), noise(4, seed=1), generator=pcg()).positive)
    assert float(maps[0].abs().max()) > 0
    exact = ConvNet().double().eval()

    def coarse(probes: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        with exact.conv2.register_forward_hook(lambda *seen: found.append(seen[2])):
            embedded = exact(probes)
        cosine = F.cosine_similarity(embedded, exact(references).detach())
        weights = torch.autograd.grad(cosine.sum(), found)[0].mean((2, 3), keepdim=True)
        return (weights * found[0]).sum(1).relu()

    assert_rounded(  # both are rounded
        maps[1],
        maps[0],
        terms=2 * terms_of(exact, passes=2),
        condition=condition_of(coarse, noise(4), noise(4, seed=1), module=exact),
    )


class Projection(nn.Module):
    """Weights outside of layers: a matrix product and a scale."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(3 * 16 * 16, 5, generator=generator))
        self.scale = nn.Parameter(torch.randn(5, generator=generator))

    def forward(self, images):
        return torch.matmul(images.flatten(1), self.weight) * self.scale


def test_weights_that_no_layer_owns_are_randomised_too(torchvision):
    model = load_onnx(exported(Projection(), SIZE), "net.onnx", facts("onnx2torch"))
    sizes = sorted(p.numel() for p in model.module.parameters())
    assert sizes == [5, 3840]
    redrawn = randomise(model.module, noise(4), 1, 0)
    assert redrawn_share(model.module, redrawn) > 0.99


def test_no_parameter_is_made_of_what_is_no_weight(torchvision):
    model = load_onnx(small().SerializeToString(), "net.onnx", facts("onnx2torch"))
    kept = dict(model.module.named_parameters())
    assert all(one.is_floating_point() and one.numel() > 1 for one in kept.values())
    statistics = [name for name in kept if "running" in name]
    assert not statistics
    assert sum(one.numel() for one in kept.values()) == 108 + 4 + 8 + 4 + 160 + 5


def test_what_computes_is_chosen_by_what_is_installed(torchvision, monkeypatch):
    data = exported(ConvNet(), SIZE)
    assert isinstance(load_onnx(data, "net.onnx", facts("auto")), ConvertedFaceModel)
    assert isinstance(load_onnx(data, "net.onnx", facts("onnxruntime")), OnnxFaceModel)
    take_away(monkeypatch)
    assert isinstance(load_onnx(data, "net.onnx", facts("auto")), OnnxFaceModel)


def take_away(monkeypatch) -> None:
    """Make onnx2torch unimportable."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx2torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)


def test_gradients_that_cannot_be_had_are_refused_with_what_to_install(monkeypatch):
    take_away(monkeypatch)
    with pytest.raises(ModelContractError, match="pip install onnx2torch torchvision"):
        load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts("onnx2torch"))


def test_a_torchvision_that_breaks_makes_a_black_box(monkeypatch):
    take_away(monkeypatch)

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    data = exported(ConvNet(), SIZE)
    model = load_onnx(data, "net.onnx", facts("auto"))
    assert isinstance(model, OnnxFaceModel)
    assert "without gradients, because onnx2torch and torchvision cannot" in model.traits.runtime
    with pytest.raises(ModelContractError, match="torchvision::nms does not exist"):
        load_onnx(data, "net.onnx", facts("onnx2torch"))


def test_an_operator_that_cannot_be_translated_makes_a_black_box_or_is_refused(torchvision):
    def hard(proto):
        clip = next(one for one in proto.graph.node if one.op_type == "Clip")
        clip.op_type = "Shrink"
        clip.attribute.append(onnx.helper.make_attribute("lambd", 0.0))
        del clip.input[1:]

    data = small(hard).SerializeToString()
    model = load_onnx(data, "net.onnx", facts("auto"))
    assert isinstance(model, OnnxFaceModel)
    assert model.traits.runtime.endswith(
        "; without gradients, because onnx2torch does not know Shrink of opset 13"
    )
    assert "without gradients, because onnx2torch does not" in why_unsupported(Gradient(), model)
    with pytest.raises(ModelContractError, match=r"does not know Shrink.*runtime: onnxruntime"):
        load_onnx(data, "net.onnx", facts("onnx2torch"))


def test_a_translation_into_another_network_is_refused_with_the_difference(
    torchvision, monkeypatch
):
    renamed = onnx_gradients._renamed

    def spoilt(proto):
        changed = renamed(proto)
        weight = next(one for one in changed.graph.initializer if one.name == "w2")
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.001)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, "w2"))
        return changed

    data = small().SerializeToString()
    assert load_onnx(data, "net.onnx", facts("onnx2torch")).traits.runtime
    monkeypatch.setattr(onnx_gradients, "_renamed", spoilt)
    with pytest.raises(ModelContractError, match=r"differs from ONNX Runtime by \d\.\de-04 "):
        load_onnx(data, "net.onnx", facts("onnx2torch"))
    box = load_onnx(data, "net.onnx", facts("auto"))
    assert isinstance(box, OnnxFaceModel)
    assert re.search(
        r"; without gradients, because .* differs from ONNX Runtime by \d\.\de-04",
        box.traits.runtime,
    )


def test_a_graph_for_one_image_at_a_time_runs_once_for_many_where_it_can(torchvision):
    model = load_onnx(exported(ConvNet(), SIZE, batch=1), "net.onnx", facts("onnx2torch"))
    plain = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts("onnx2torch"))
    assert model.traits.has_layers
    for one in (model, plain):
        assert_embedded(one.embed(noise(4)), ConvNet(), noise(4))

    def baked(proto):
        shape = next(one for one in proto.graph.initializer if one.name == "shape")
        shape.CopyFrom(onnx.numpy_helper.from_array(np.array([1, -1]), "shape"))
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    looped = load_onnx(small(baked).SerializeToString(), "net.onnx", facts("onnx2torch"))
    box = load_onnx(small(baked).SerializeToString(), "net.onnx", facts())
    assert not looped.traits.has_layers
    for one in (looped, box):
        assert_embedded(one.embed(noise(4)), looped.module, noise(4))


NAMES = [
    *("", "a", "/a", "a/b.c", "forward", "graph", "_modules", "training", "initializers", "655"),
    *("input_1", "a b[0]", "x'); raise SystemExit #", "Ünï", "\x1b", "_plus7", "__class__"),
]


@given(st.lists(st.sampled_from(NAMES) | st.text(max_size=8), max_size=30))
@settings(deadline=None)
def test_layers_have_distinct_names_that_a_suite_can_spell(names):
    found = layer_names([SimpleNamespace(name=name, op_type="Conv") for name in names])
    assert len(set(found)) == len(found) == len(names)
    root = nn.Module()
    for name in found:
        assert name.isascii()
        assert name.replace("_", "a").isalnum()
        root.add_module(name, nn.Identity())
    torch.fx.GraphModule(root, torch.fx.Graph())


def test_names_stay_what_they_are_where_they_can():
    nodes = [
        SimpleNamespace(name=name, op_type="Add") for name in ("_plus7", "/a/b.0/Conv", "655", "")
    ]
    assert layer_names(nodes) == ["_plus7", "a_b_0_Conv", "655", "Add_3"]


def test_hostile_and_equal_names_are_only_names(torchvision):
    def named(proto):
        for node, name in zip(proto.graph.node, reversed(NAMES), strict=False):
            node.name = name

    model = load_onnx(small(named).SerializeToString(), "net.onnx", facts("onnx2torch"))
    plain = load_onnx(small().SerializeToString(), "net.onnx", facts("onnx2torch"))
    assert torch.equal(model.embed(noise(2)), plain.embed(noise(2)))
    assert "network.forward_2" in dict(plain.module.named_modules())
    assert "network.bn_4" in dict(plain.module.named_modules())


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6))
def test_files_with_changed_fields_are_translated_or_refused(torchvision, seed: int):
    with contextlib.suppress(ModelContractError):
        model = load_onnx(mutated(seed), "net.onnx", facts("onnx2torch"))
        assert isinstance(model, ConvertedFaceModel)


def test_a_translation_takes_channels_last_and_a_grey_image(torchvision):
    def turned(proto):
        dims = ("n", "h", "w", "c")
        proto.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", 1, dims))
        before = onnx.helper.make_node("Transpose", ["x"], ["ready"], perm=[0, 3, 1, 2])
        rest = [type(one).FromString(one.SerializeToString()) for one in proto.graph.node]
        rest[0].input[0] = "ready"
        proto.graph.ClearField("node")
        proto.graph.node.extend([before, *rest])

    def grey(proto):
        turned(proto)
        kernel = next(one for one in proto.graph.initializer if one.name == "w1")
        values = onnx.numpy_helper.to_array(kernel)[:, :1].copy()
        kernel.CopyFrom(onnx.numpy_helper.from_array(values, "w1"))

    unit = Preprocessing("grey", (0.0,), (255.0,))
    for edit, preprocessing in ((turned, UNIT), (grey, unit)):
        data = small(edit).SerializeToString()
        model = load_onnx(data, "net.onnx", facts("onnx2torch", preprocessing=preprocessing))
        images = noise(2).requires_grad_()
        model.module(images).sum().backward()
        assert images.grad.shape == (2, 3, *SIZE)
        assert bool((images.grad != 0).any())

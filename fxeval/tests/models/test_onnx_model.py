"""Face models in ONNX as black boxes, compared with the networks they were exported from."""

import json
import math
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from fxeval.contracts import FaceModel  # noqa: E402
from fxeval.datasets.faces.alignment import ARCFACE_112  # noqa: E402
from fxeval.datasets.lists.face_pack import FacePack  # noqa: E402
from fxeval.engine.maps import why_unsupported  # noqa: E402
from fxeval.errors import ModelContractError  # noqa: E402
from fxeval.explainers.corr_rise import CorrRISE  # noqa: E402
from fxeval.explainers.grad_cam import GradCAM  # noqa: E402
from fxeval.explainers.s_rise import SRISE  # noqa: E402
from fxeval.functional.similarity import similarity  # noqa: E402
from fxeval.models.files.onnx_loading import load_onnx  # noqa: E402
from fxeval.models.files.onnx_model import OnnxFaceModel  # noqa: E402
from fxeval.models.loading import TorchFaceModel, fill_module  # noqa: E402
from fxeval.models.networks.mini_resnet import MiniResNet  # noqa: E402
from fxeval.models.preprocessing import InputNormalisation, Preprocessing  # noqa: E402
from fxeval.tests.onnx_subjects import (  # noqa: E402
    REAL,
    SIZE,
    exported,
    facts,
    real,
    small,
)
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of  # noqa: E402
from fxeval.tests.subjects import ConvNet  # noqa: E402

DATA = Path(__file__).parents[3] / "fixtures" / "data"


def noise(n: int, size=SIZE, seed: int = 0):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))


def relative(found, expected) -> float:
    """The largest difference, relative to the length of the longest embedding."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    return float((found - expected).abs().max() / expected.norm(dim=1).max())


def assert_embedded(found, network: nn.Module, images: torch.Tensor) -> None:
    """Compare embeddings with those of a network in float64."""
    exact = deepcopy(network).double().eval()
    condition = condition_of(exact, images, module=exact)
    assert_rounded(found, exact(images.double()), terms=terms_of(exact), condition=condition)


def products(data: bytes) -> int:
    """Count the products behind one output of a file's network, layer by layer."""
    stored = onnx.load_from_string(data).graph.initializer
    return sum(math.prod(one.dims[1:]) for one in stored if len(one.dims) > 1)


@pytest.mark.parametrize("name", REAL)
def test_real_networks_give_the_embeddings_that_were_measured(data_root: Path, name: str):
    data, known, images, expected = real(data_root, name)
    model = load_onnx(data, f"{name}.onnx", known)
    # The measured values were rounded too.
    assert_rounded(model.embed(images), expected, terms=2 * products(data))


@pytest.mark.parametrize("name", REAL)
def test_a_wrong_range_or_colour_order_gives_other_embeddings(data_root: Path, name: str):
    data, known, images, expected = real(data_root, name)
    right = known.preprocessing
    swapped = {"RGB": "BGR", "BGR": "RGB"}[right.colour]
    unit = tuple(255.0 * value for value in right.std)
    for wrong in (Preprocessing(swapped, right.mean, right.std), Preprocessing(std=unit)):
        changed = facts(crop=known.crop, preprocessing=wrong)
        assert relative(load_onnx(data, name, changed).embed(images), expected) > 1e-2


@pytest.mark.parametrize("name", REAL)
def test_an_embedding_does_not_depend_on_the_batch_in_a_single_bit(data_root: Path, name: str):
    data, known, images, _ = real(data_root, name)
    model = load_onnx(data, f"{name}.onnx", known)
    together = model.embed(images)
    assert torch.equal(together, model.embed(images))
    assert torch.equal(together, torch.cat([model.embed(image[None]) for image in images]))
    assert torch.equal(together, torch.cat([model.embed(some) for some in images.split(3)]))


def test_it_is_a_face_model_without_a_module_that_says_what_computes():
    model = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts())
    assert isinstance(model, FaceModel)
    assert isinstance(model, OnnxFaceModel)
    assert model.module is None
    assert model.traits.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert (model.name, model.similarity, model.operating_threshold) == ("some", "cosine", 0.3)
    assert model.digest == "0" * 64
    assert "gradients" in why_unsupported(GradCAM(), model)


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_images_are_prepared_as_for_a_module(colour: str):
    network = ConvNet()
    preparation = Preprocessing(colour, (100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
    known = facts(preprocessing=preparation)
    model = load_onnx(exported(network, SIZE), "net.onnx", known)
    prepared = nn.Sequential(InputNormalisation(preparation), network)
    images = noise(5)
    assert_embedded(model.embed(images), prepared, images)


def test_embedding_changes_neither_images_nor_the_caller_s_gradients():
    model = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts())
    images = noise(2).requires_grad_()
    kept = images.detach().clone()
    found = model.embed(images)
    assert torch.equal(images, kept)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    (found * torch.ones(8, requires_grad=True)).sum().backward()


def test_double_and_strided_images_are_taken():
    model = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts())
    images = noise(2)
    assert torch.equal(model.embed(images.double()), model.embed(images))
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(model.embed(strided), model.embed(images))


def test_a_graph_for_one_image_at_a_time_is_given_one_at_a_time():
    network = ConvNet()
    model = load_onnx(exported(network, SIZE, batch=1), "net.onnx", facts())
    assert model.batch == 1
    assert_embedded(model.embed(noise(5)), network, noise(5))


def test_a_graph_with_one_image_at_a_time_baked_in_is_refused():
    def baked(proto):
        shape = next(one for one in proto.graph.initializer if one.name == "shape")
        shape.CopyFrom(onnx.numpy_helper.from_array(np.array([1, -1]), "shape"))
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    one = small(baked)
    assert load_onnx(one.SerializeToString(), "net.onnx", facts()).embed(noise(3)).shape == (3, 5)
    one.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    with pytest.raises(ModelContractError, match="cannot embed"):
        load_onnx(one.SerializeToString(), "net.onnx", facts())


def test_the_output_that_is_named_is_taken():
    def two(proto):
        other = helper.make_tensor_value_info("r", TensorProto.FLOAT, ["n", 32])
        proto.graph.output.add().CopyFrom(other)

    data = small(two).SerializeToString()
    assert load_onnx(data, "net.onnx", facts(output="e")).embed(noise(2)).shape == (2, 5)
    assert load_onnx(data, "net.onnx", facts(output="r")).embed(noise(2)).shape == (2, 32)


def test_maps_of_one_pixel_are_embeddings():
    class Pooled(nn.Module):
        def forward(self, images):
            return images.mean((2, 3), keepdim=True)

    model = load_onnx(exported(Pooled(), SIZE), "net.onnx", facts())
    assert_rounded(model.embed(noise(3)), noise(3).double().mean((2, 3)), terms=math.prod(SIZE))


class Random(nn.Module):
    def forward(self, images):
        return torch.rand_like(images[:, :, 0, 0])


class Constant(nn.Module):
    def forward(self, images):
        return images[:, :, 0, 0] * 0 + 1


class Maps(nn.Module):
    def forward(self, images):
        return images[:, :, ::2]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Random(), "other embeddings at every call"),
        (Constant(), "got the same"),
        (Maps(), "must return"),
    ],
)
def test_a_network_that_is_not_alive_is_refused(network: nn.Module, words: str):
    with pytest.raises(ModelContractError, match=words):
        load_onnx(exported(network, SIZE), "net.onnx", facts())


def test_images_of_another_size_are_refused_in_words():
    model = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts())
    with pytest.raises(ModelContractError, match=r"cannot embed \(2, 3, 8, 8\) images"):
        model.embed(noise(2, (8, 8)))


def test_as_many_threads_as_torch_has():
    model = load_onnx(exported(ConvNet(), SIZE), "net.onnx", facts())
    options = model.session.get_session_options()
    assert options.intra_op_num_threads == torch.get_num_threads()
    assert options.inter_op_num_threads == 1
    assert model.session.get_providers() == ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def trained() -> tuple[TorchFaceModel, FaceModel]:
    """The shipped network, and its export to ONNX."""
    path = next(DATA.rglob("mini_resnet.safetensors"))
    network = MiniResNet()
    fill_module(network, safetensors.torch.load(path.read_bytes()), str(path))
    model = TorchFaceModel("mini", ARCFACE_112, network.eval(), "cosine", 0.3, "0" * 64)
    known = facts(crop=ARCFACE_112, name="mini")
    return model, load_onnx(exported(network, (112, 112)), "mini.onnx", known)


@pytest.fixture(scope="module")
def faces() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight pairs of rendered faces."""
    pack = FacePack(DATA / "rendered_faces")
    listing = pack.listing()
    mated = [row for row, is_mated in enumerate(listing.is_mated) if is_mated][:8]
    ids = [listing.probe[row] for row in mated] + [listing.reference[row] for row in mated]
    images = pack.images(ids, ARCFACE_112).float() / 255
    return images[:8], images[8:]


def test_the_shipped_network_embeds_alike_in_either_runtime(trained, faces):
    for model in trained:
        assert_embedded(model.embed(faces[0]), trained[0].module, faces[0])


@pytest.mark.parametrize(
    "explainer", [SRISE(masks=40), CorrRISE(masks=40)], ids=["srise", "corrrise"]
)
def test_black_box_maps_agree_in_either_runtime_within_the_second_tier(trained, faces, explainer):
    """Checks similarities, maps and their most salient tenths, as between two machines."""
    probes, references = faces
    maps, similarities = [], []
    for model in trained:
        generator = np.random.default_rng(5)
        maps.append(explainer.explain(model, probes, references, generator=generator).positive)
        similarities.append(similarity("cosine", model.embed(probes), model.embed(references)))
    assert float((similarities[0] - similarities[1]).abs().max()) < 1e-4
    first, second = (one.flatten(1).double() for one in maps)
    assert bool((first.amax(1) > first.amin(1)).all())
    assert bool(((first - second).abs().amax(1) <= 1e-3 * first.abs().amax(1)).all())
    tenth = first.shape[1] // 10
    for one, other in zip(first, second, strict=True):
        tops = [set(values.topk(tenth).indices.tolist()) for values in (one, other)]
        assert len(tops[0] & tops[1]) / len(tops[0] | tops[1]) >= 0.95


CONFTEST = """

@pytest.fixture(scope="session")
def model_exported():
    from fxeval.models.files.onnx_loading import load_onnx
    from fxeval.tests.onnx_subjects import exported, facts
    data = exported(ConvNet(), CROP.size)
    return load_onnx(data, "tiny.onnx", facts(crop=CROP, operating_threshold=0.5))


@pytest.fixture
def explainer_grad():
    from fxeval.explainers.grad_cam import GradCAM
    return GradCAM()
"""


SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7, on_unsupported: skip}
models: [tiny, exported]
explainers: [occlusion, constant, grad]
pairs: [{use: memory, n: 32}]
checks:
  - id: mean-fill
    kind: faithfulness.deletion_insertion
    steps: 8
    fills: [mean]
    controls: [random_blobs]
    limits: [{metric: deletion_auc, better_than: control.random_blobs}]
  - id: black-fill
    kind: faithfulness.deletion_insertion
    steps: 8
    fills: [black]
    controls: [random_blobs]
    limits: [{metric: insertion_auc, better_than: control.random_blobs}]
"""


def test_a_whole_run_judges_a_network_alike_in_either_runtime(world):
    conftest = world.path / "conftest.py"
    conftest.write_text(conftest.read_text() + CONFTEST)

    world("-q", edit=lambda text: SUITE)
    (path,) = world.path.glob("reports/*/small.json")
    cells = {cell["id"]: cell for cell in json.loads(path.read_text())["cells"]}
    assert len(cells) == 2 * 2 * 3
    for check in ("mean-fill", "black-fill"):
        verdicts = {}
        for explainer in ("occlusion", "constant"):
            of_torch, of_onnx = (
                cells[f"{check}[{model}-{explainer}-memory]"]["verdict"]
                for model in ("tiny", "exported")
            )
            assert of_torch["outcome"] == of_onnx["outcome"]
            verdicts[explainer] = of_onnx["outcome"]
        assert verdicts["occlusion"] != verdicts["constant"]
        assert cells[f"{check}[exported-grad-memory]"]["verdict"]["outcome"] == "unsupported"
        assert cells[f"{check}[tiny-grad-memory]"]["verdict"]["outcome"] != "unsupported"


def test_the_runtime_sends_nothing_and_leaves_no_id_at_home(tmp_path):
    code = (
        "import os, sys\n"
        "from fxeval.models.files.onnx_model import onnx_runtime\n"
        "before = dict(os.environ)\n"
        "assert onnx_runtime() is sys.modules['onnxruntime']\n"
        "assert before == dict(os.environ)\n"
    )
    kept_out = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME", "CI")
    around = {name: value for name, value in os.environ.items() if name not in kept_out}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**around, "HOME": str(tmp_path)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("*")) == []

"""From a card to a model: every check, and the cards that each one refuses."""

import copy
import hashlib
import io
import math
import shutil
import types
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from fxeval.contracts import FaceModel, ModelFile
from fxeval.datasets.faces.alignment import CROPS
from fxeval.errors import ModelContractError
from fxeval.fixtures.models import CARDS
from fxeval.models import ARCHITECTURES
from fxeval.models.cards import read_card
from fxeval.models.from_card import CardModel, ShippedModel, fitting, load_card, preview
from fxeval.models.preprocessing import Preprocessed
from fxeval.tests.rounding import allowance, assert_rounded, terms_of

OWN = "crop: {name: tiny, size: [16, 20], template: [[5, 6], [15, 6], [10, 9], [6, 12], [14, 12]]}"
FREE = f"{OWN}\ncolour: BGR\nmean: [100, 110, 120]\nstd: 128\nsimilarity: cosine\n"
REAL = sorted(path.stem for path in CARDS.glob("*.yaml") if not path.stem.startswith("mini_"))


class Net(nn.Module):
    """User code's network: expects BGR and returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def seeded(module: type[nn.Module] = Net) -> nn.Module:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        return module().eval()


@pytest.fixture(scope="module")
def net():
    return seeded()


@pytest.fixture(autouse=True)
def own_code(monkeypatch):
    """The module that the cards in these tests name: ``acme:make``."""
    module = types.ModuleType("acme")

    def broken():
        raise ValueError("no licence key")

    def leaving():
        raise SystemExit(0)

    module.leaving = leaving
    module.make, module.broken, module.junk, module.value = Net, broken, (lambda: 3), 4
    monkeypatch.setitem(__import__("sys").modules, "acme", module)
    return module


@pytest.fixture
def write(tmp_path: Path):
    """Returns a function that writes weights and their card, and returns the card's path."""

    def write(data: bytes, more: str, name: str = "acme.safetensors", sha256: str = "") -> Path:
        (tmp_path / name).write_bytes(data)
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        card = tmp_path / "card.yaml"
        card.write_text(f"card: 1\nname: acme\nweights: {name}\nsha256: {sha256}\n{more}")
        return card

    return write


@pytest.fixture
def own_card(write, net):
    return write(safetensors.torch.save(net.state_dict()), f"architecture: acme:make\n{FREE}")


TERMS = 27 + 6 + 7 * 9  # of the convolution and the linear layer of Net, and of its mean


def by_hand(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Embeddings in float64."""
    mean = torch.tensor([100.0, 110.0, 120.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    with torch.no_grad():
        return copy.deepcopy(net).double()((images.double().flip(1) * 255 - mean) / 128)


def pixels(n: int = 3, size: tuple[int, int] = (16, 20)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def as_images(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2) / 255


# what is loaded


def test_own_code_gets_the_preprocessing_of_the_card(own_card: Path, net):
    model = load_card(own_card)
    assert isinstance(model, FaceModel)
    assert isinstance(model.module, Preprocessed)
    images = as_images(pixels())
    assert_rounded(model.embed(images), by_hand(net, images), terms=TERMS)
    assert (model.name, model.crop.size, model.similarity) == ("acme", (16, 20), "cosine")
    assert model.digest == model.card.sha256
    assert model.traits.has_layers
    assert model.golden.state == "none"
    assert model.traits.runtime.startswith("torch 2.")


def test_own_code_that_takes_the_preprocessing_is_not_wrapped(write, net, own_code):
    given = []

    def make(preprocessing):
        given.append(preprocessing)
        return Net()

    own_code.make = make
    data = safetensors.torch.save(net.state_dict())
    model = load_card(write(data, f"architecture: acme:make\n{FREE}"))
    assert type(model.module) is Net
    assert given[-1] == model.card.preprocessing


def test_counters_of_training_steps_may_be_absent(write, net):
    state = {k: v for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
    card = write(safetensors.torch.save(state), f"architecture: acme:make\n{FREE}")
    images = as_images(pixels())
    assert_rounded(load_card(card).embed(images), by_hand(net, images), terms=TERMS)


def test_a_checkpoint_with_prefix_and_a_classifier_gives_the_same_model(write, net, own_card):
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    file = io.BytesIO()
    whole = state | {"model.logits.weight": torch.ones(2, 2), "head.kernel": torch.ones(2)}
    torch.save({"epoch": 3, "state_dict": whole}, file)
    expected = load_card(own_card).embed(as_images(pixels()))
    at = "state: {key: state_dict, prefix: model., ignore: [logits.]}\n"
    card = write(file.getvalue(), f"architecture: acme:make\n{at}{FREE}", "acme.ckpt")
    assert torch.equal(load_card(card).embed(as_images(pixels())), expected)


def test_weights_behind_a_prefix_are_recognised(write, net):
    state = {f"module.net.{name}": value for name, value in net.state_dict().items()}
    whole = state | {"module.head.weight": torch.ones(2, 2)}
    card = write(safetensors.torch.save(whole), f"architecture: acme:make\n{FREE}")
    with pytest.raises(
        ModelContractError, match=r"write 'state: \{prefix: module\.net\.\}' into the card"
    ):
        load_card(card)
    at = "state: {prefix: module.net.}\n"
    card = write(safetensors.torch.save(whole), f"architecture: acme:make\n{at}{FREE}")
    assert load_card(card).module is not None
    first = next(iter(state))
    del whole[first]
    card = write(safetensors.torch.save(whole), f"architecture: acme:make\n{FREE}")
    with pytest.raises(ModelContractError, match="is missing") as caught:
        load_card(card)
    assert "They fit" not in str(caught.value)


def test_torchscript_is_a_network_with_gradients_and_without_layers(write, net):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(net), file)
    card = write(file.getvalue(), FREE, "acme.ts")
    model = load_card(card)
    assert not model.traits.has_layers
    images = as_images(pixels())
    assert_rounded(model.embed(images), by_hand(net, images), terms=TERMS)
    images.requires_grad_()
    model.module(images).sum().backward()
    assert bool((images.grad != 0).any())
    assert preview(model.card)[:2] == (True, False)


def test_a_model_says_which_code_made_it(own_card: Path, own_code, tmp_path: Path):
    assert load_card(own_card).traits.code is None  # made in memory
    own_code.__file__ = str(tmp_path / "acme.py")
    (tmp_path / "acme.py").write_bytes(b"code")
    assert load_card(own_card).traits.code == hashlib.sha256(b"code").hexdigest()
    assert load_card(CARDS / "mini_resnet.yaml").traits.code


def test_loading_leaves_the_global_generator_alone(own_card: Path):
    before = torch.get_rng_state()
    load_card(own_card)
    load_card(CARDS / "mini_resnet.yaml")
    assert torch.equal(before, torch.get_rng_state())


# what is refused


@pytest.mark.parametrize("at", [0, 9, 100, -1])
def test_a_flipped_bit_is_refused_before_anything_is_parsed(own_card: Path, at: int):
    weights = own_card.with_name("acme.safetensors")
    data = bytearray(weights.read_bytes())
    data[at] ^= 16
    weights.write_bytes(data)
    with pytest.raises(ModelContractError, match=r"acme\.safetensors: expected SHA-256 .*, got"):
        load_card(own_card)


def test_swapped_and_truncated_weights_are_refused_by_digest(own_card: Path):
    weights = own_card.with_name("acme.safetensors")
    for data in (weights.read_bytes()[:-4], safetensors.torch.save(Net().state_dict()), b""):
        weights.write_bytes(data)
        with pytest.raises(ModelContractError, match="SHA-256"):
            load_card(own_card)


def test_nan_in_weights_of_the_right_digest_is_refused(write, net):
    state = {k: v.clone() for k, v in net.state_dict().items()}
    state["fc.bias"][2] = float("nan")
    card = write(safetensors.torch.save(state), f"architecture: acme:make\n{FREE}")
    with pytest.raises(ModelContractError, match=r"1 of 5 values of 'fc\.bias' are NaN"):
        load_card(card)


def test_weights_of_another_architecture_are_refused_with_the_one_they_fit(write):
    weights = (CARDS / "mini_resnet.safetensors").read_bytes()
    card = write(weights, "architecture: iresnet18\n")
    with pytest.raises(ModelContractError) as caught:
        load_card(card)
    message = str(caught.value)
    assert "do not fit IResNet" in message
    assert "'conv1.weight' is missing" in message
    assert message.endswith("They fit mini_resnet: is that the architecture?")


def test_each_architecture_is_told_from_all_others():
    for name in ("iresnet34", "adaface_ir50", "edgeface_xxs"):
        with torch.device("meta"):
            module, _, factory = ARCHITECTURES[name].factory.partition(":")
            network = getattr(__import__(module, fromlist=[factory]), factory)()
        assert fitting(network.state_dict()) == [name]
    assert fitting({"a": torch.ones(1)}) == []


def test_a_normalisation_that_is_written_into_the_network_cannot_be_changed(write):
    weights = (CARDS / "mini_resnet.safetensors").read_bytes()
    for line in ("mean: 0\n", "colour: BGR\n"):
        card = write(weights, f"architecture: mini_resnet\n{line}")
        with pytest.raises(ModelContractError, match="mini_resnet always normalises with RGB"):
            load_card(card)
    same = write(weights, "architecture: mini_resnet\nmean: 127.5\ncolour: RGB\n")
    assert load_card(same).name == "acme"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("acme:broken", "cannot be built: ValueError: no licence key"),
        ("acme:junk", "expected a torch.nn.Module, got int"),
        ("acme:value", "cannot be built: TypeError"),
        ("acme:leaving", "cannot be built: SystemExit"),
        ("acme:gone", "cannot be built: the module acme has no 'gone'"),
        (
            "acme_of_nobody:make",
            "cannot be built: there is no module 'acme_of_nobody' beside the card, ",
        ),
    ],
)
def test_own_code_that_makes_no_network_is_refused(write, net, factory: str, message: str):
    data = safetensors.torch.save(net.state_dict())
    card = write(data, f"architecture: {factory}\n{FREE}")
    with pytest.raises(ModelContractError, match=f"architecture '{factory}': {message}"):
        load_card(card)


def test_a_network_that_embeds_all_alike_is_refused(write, net):
    state = {k: torch.zeros_like(v) if "fc.weight" in k else v for k, v in net.state_dict().items()}
    card = write(safetensors.torch.save(state), f"architecture: acme:make\n{FREE}")
    with pytest.raises(ModelContractError, match="expected different embeddings of two different"):
        load_card(card)


def test_a_link_that_leads_out_of_the_folder_is_refused(own_card: Path, tmp_path: Path):
    weights = own_card.with_name("acme.safetensors")
    inner = tmp_path / "models"
    inner.mkdir()
    (inner / "acme.safetensors").symlink_to(weights)
    with pytest.raises(ModelContractError, match="is a link that leads out of"):
        load_card(own_card, inner)
    (inner / "acme.safetensors").unlink()
    shutil.copy(weights, inner / "real.safetensors")
    (inner / "acme.safetensors").symlink_to("real.safetensors")
    assert load_card(own_card, inner).digest == read_card(own_card).sha256
    (inner / "acme.safetensors").unlink()
    (inner / "acme.safetensors").symlink_to("acme.safetensors")
    with pytest.raises(ModelContractError, match="is a link that leads out of"):
        load_card(own_card, inner)


# subjects of a suite


def test_a_model_by_card_is_a_file_that_a_suite_names(own_card: Path, tmp_path: Path):
    assert isinstance(CardModel(), ModelFile)
    with pytest.raises(ModelContractError, match=r"params: \{file: my-model\.yaml\}"):
        CardModel().load()
    assert CardModel(own_card).load().name == "acme"
    with pytest.raises(ModelContractError, match="cannot be read"):
        CardModel(own_card, tmp_path / "elsewhere").load()


def test_a_shipped_model_without_a_folder_of_weights_says_what_to_do():
    model = ShippedModel(CARDS / "edgeface_xs.yaml", None)
    assert isinstance(model, ModelFile)
    assert model == ShippedModel(CARDS / "edgeface_xs.yaml", None)  # loaded once for all cells
    with pytest.raises(ModelContractError, match=r"--fx-weights DIR .*edgeface_xs\.safetensors"):
        model.load()


def test_a_preview_says_what_an_onnx_file_will_offer(tmp_path: Path, monkeypatch):
    path = tmp_path / "card.yaml"
    text = f"card: 1\nname: a\nweights: a.onnx\nsha256: {'a' * 64}\n{FREE}"
    path.write_text(text + "runtime: onnxruntime\n")
    assert preview(read_card(path))[:2] == (False, False)
    path.write_text(text)
    monkeypatch.setattr("fxeval.models.from_card.find_spec", lambda name: None)
    found = preview(read_card(path))
    assert found[:2] == (False, False)
    assert "onnx2torch and torchvision" in found.reason
    monkeypatch.setattr("fxeval.models.from_card.find_spec", lambda name: name)
    assert preview(read_card(path)) == (True, True, "")


# the shipped models, with their real weights


@pytest.mark.parametrize("id", REAL)
def test_a_shipped_model_gives_its_golden_embeddings(id: str, data_root: Path):
    card = read_card(CARDS / f"{id}.yaml")
    if card.format == "onnx" and not (find_spec("onnx") and find_spec("onnxruntime")):
        pytest.skip("onnx and onnxruntime are not installed")
    model = load_card(CARDS / f"{id}.yaml", data_root / "weights")
    assert model.golden.state == "agrees"
    assert model.golden.n_images == 8
    if card.format == "onnx":
        onnx = pytest.importorskip("onnx")
        weights = onnx.load(data_root / "weights" / card.weights).graph.initializer
        terms = sum(math.prod(one.dims[1:]) for one in weights if len(one.dims) > 1)
    else:
        terms = terms_of(model.module)
    golden = np.load(data_root / "weights" / card.golden.file)[card.golden.embeddings]
    scale = 1 if card.golden.relative else np.abs(golden).max()
    assert model.golden.largest <= allowance(2 * terms) * scale  # the golden ones are rounded too
    seen = preview(card)
    assert (model.module is not None, model.traits.has_layers) == (
        seen.has_gradients,
        seen.has_layers,
    )
    assert model.crop is CROPS[model.crop.name]

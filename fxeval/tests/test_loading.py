"""From weight files to models."""

import contextlib
import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from fxeval.contracts import FaceModel
from fxeval.datasets.alignment import ARCFACE_112
from fxeval.errors import ModelContractError
from fxeval.models.loading import (
    TorchFaceModel,
    check_loaded,
    file_digest,
    fill_module,
    load_card,
    load_safetensors_state,
    with_module,
)


class Tiny(nn.Module):
    """The mean of each channel, mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.mix = nn.Linear(3, 4)

    def forward(self, images):
        return self.mix(self.norm(images).mean((2, 3)))


def model_of(module: nn.Module) -> TorchFaceModel:
    return TorchFaceModel("tiny", ARCFACE_112, module, "cosine", 0.3, "0" * 64)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(Tiny().state_dict(), path)
    return path


@pytest.fixture
def card(weights: Path) -> Path:
    content = {"name": "tiny", "sha256": file_digest(weights), "similarity": "cosine"}
    path = weights.with_suffix(".json")
    path.write_text(json.dumps(content | {"operating_threshold": 0.25}))
    return path


def test_embedding_is_in_eval_mode_whatever_an_explainer_left_behind():
    model = model_of(Tiny())
    images = torch.rand(4, 3, 112, 112)
    model.module.train()
    first = model.embed(images)
    assert torch.equal(first, model.embed(images))
    assert not model.module.norm.num_batches_tracked


def test_embeddings_can_be_constants_of_an_objective():
    model = model_of(Tiny())
    images = torch.rand(2, 3, 8, 8)
    constant = model.embed(images)
    assert not constant.requires_grad
    (model.module(images) * constant).sum().backward()
    assert model.module.mix.weight.grad is not None


def test_a_torch_face_model_is_a_face_model():
    assert isinstance(model_of(Tiny()), FaceModel)


def test_a_randomised_copy_keeps_all_but_module_and_digest():
    model, other = model_of(Tiny()), Tiny()
    copy = with_module(model, other, digest="random-1")
    assert copy.module is other
    assert copy.digest == "random-1"
    assert (copy.name, copy.crop, copy.similarity) == (model.name, model.crop, model.similarity)
    assert copy.operating_threshold == model.operating_threshold


def test_a_state_comes_back_exactly_and_half_precision_as_float32(tmp_path: Path):
    state = {"a": torch.randn(3, 4), "b": torch.randn(5).half(), "n": torch.tensor(3)}
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(state, path)
    loaded = load_safetensors_state(path, file_digest(path).upper())
    assert torch.equal(loaded["a"], state["a"])
    assert loaded["b"].dtype == torch.float32
    assert torch.equal(loaded["b"], state["b"].float())
    assert loaded["n"].dtype == torch.int64


def test_another_digest_is_refused_before_the_file_is_parsed(tmp_path: Path):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ModelContractError, match=r"evil\.safetensors: SHA-256 0000.* got [0-9a-f]"):
        load_safetensors_state(path, "0" * 64)


def test_every_single_flipped_byte_is_refused(weights: Path):
    data, digest = weights.read_bytes(), file_digest(weights)
    for at in range(len(data)):
        weights.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ModelContractError, match="SHA-256"):
            load_safetensors_state(weights, digest)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ModelContractError, match=r"gone\.safetensors: .*cannot be read"):
        load_safetensors_state(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("kept", [0, 7, 8, 30, -1])
def test_truncated_weights_are_refused(weights: Path, kept: int):
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelContractError, match=r"tiny\.safetensors"):
        load_safetensors_state(weights)


def test_an_endless_header_is_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 5 << 20) + b" " * (6 << 20))
    with pytest.raises(ModelContractError, match="header of 5242880"):
        load_safetensors_state(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_weights_without_a_digest_load_or_are_refused(weights: Path, data):
    content = bytearray(safetensors.torch.save(Tiny().state_dict()))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    weights.write_bytes(content)
    with contextlib.suppress(ModelContractError):
        fill_module(Tiny(), load_safetensors_state(weights), "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_counted_and_named(tmp_path: Path, value: float):
    weight = torch.ones(3, 4)
    weight[1, :2] = value
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"fc.weight": weight}, path)
    with pytest.raises(ModelContractError, match=r"2 of 12 values of 'fc\.weight'"):
        load_safetensors_state(path)


def test_weights_of_another_architecture_are_refused_by_name():
    state = Tiny().state_dict()
    state["mix.weight"] = torch.zeros(4, 5)
    state["head"] = state.pop("mix.bias")
    with pytest.raises(ModelContractError) as caught:
        fill_module(Tiny(), state, "w.safetensors")
    message = str(caught.value)
    assert message.startswith("w.safetensors: the weights do not fit Tiny")
    assert "'mix.bias' is missing" in message
    assert "'head' is not in the architecture" in message
    assert "'mix.weight' is (4, 5) where (4, 3) is expected" in message


def test_only_the_first_differences_are_listed():
    with pytest.raises(ModelContractError, match="and 4 more"):
        fill_module(Tiny(), {}, "w")


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images):
        return torch.full((len(images), 4), self.value)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Constant(0.0), "length > 0"),
        (Constant(2.0), "the same embedding"),
        (Constant(float("nan")), "NaN"),
        (nn.Linear(7, 3), "cannot embed"),
        (nn.Flatten(0), "must return"),
    ],
)
def test_a_model_that_is_not_alive_is_refused(module: nn.Module, message: str):
    with pytest.raises(ModelContractError, match=message):
        check_loaded(model_of(module))


def test_loading_leaves_the_global_generator_alone(card: Path):
    before = torch.get_rng_state()
    model = load_card(card, Tiny, ARCFACE_112)
    assert torch.equal(before, torch.get_rng_state())
    assert (model.name, model.operating_threshold) == ("tiny", 0.25)
    assert model.digest == file_digest(card.with_suffix(".safetensors"))
    assert not model.module.training


@pytest.mark.parametrize(
    "change",
    [
        {"similarity": "euclid"},
        {"operating_threshold": "high"},
        {"operating_threshold": float("nan")},
        {"sha256": "f" * 64},
        {"name": None, "sha256": None},
    ],
)
def test_a_wrong_card_is_refused(card: Path, change: dict):
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(ModelContractError, match="tiny"):
        load_card(card, Tiny, ARCFACE_112)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"name": 1'])
def test_a_card_that_is_none_is_refused(card: Path, text: str):
    card.write_text(text)
    with pytest.raises(ModelContractError, match="a model card"):
        load_card(card, Tiny, ARCFACE_112)

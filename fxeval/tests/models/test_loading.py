"""Weight files that become models."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from fxeval.contracts import CardFacts, FaceModel, ModelTraits
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.errors import ModelContractError
from fxeval.models.loading import (
    TorchFaceModel,
    check_loaded,
    file_digest,
    fill_module,
    read_weights,
    with_module,
)


class Tiny(nn.Module):
    """A linear layer on the mean of each channel."""

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
    assert copy.traits == ModelTraits()
    scripted = ModelTraits(has_layers=False, card=CardFacts(), runtime="torch")
    copy = with_module(replace(model, traits=scripted), other, digest="x")
    assert copy.traits == ModelTraits(has_layers=False)  # the card does not describe its weights


def test_another_digest_is_refused_before_the_file_is_parsed(tmp_path: Path):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(
        ModelContractError, match=r"evil\.safetensors: expected SHA-256 0000.* got [0-9a-f]"
    ):
        read_weights(path, "0" * 64)


def test_every_single_flipped_byte_is_refused(weights: Path):
    data, digest = weights.read_bytes(), file_digest(weights)
    for at in range(len(data)):
        weights.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ModelContractError, match="SHA-256"):
            read_weights(weights, digest)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ModelContractError, match=r"gone\.safetensors: .*cannot be read"):
        read_weights(tmp_path / "gone.safetensors")


def test_what_is_no_plain_file_is_refused_unread(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name in ("pipe", "."):
        with pytest.raises(ModelContractError, match="expected a regular file"):
            read_weights(tmp_path / name)


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


def test_whole_numbers_are_no_weights():
    state = Tiny().state_dict()
    state["mix.bias"] = state["mix.bias"].to(torch.int8)
    with pytest.raises(ModelContractError, match=r"'mix\.bias' is \(4,\) of torch\.int8 where"):
        fill_module(Tiny(), state, "w")


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
        (Constant(2.0), "got the same"),
        (Constant(float("nan")), "NaN"),
        (nn.Linear(7, 3), "cannot embed"),
        (nn.Flatten(0), "must return"),
    ],
)
def test_a_model_that_is_not_alive_is_refused(module: nn.Module, message: str):
    with pytest.raises(ModelContractError, match=message):
        check_loaded(model_of(module))

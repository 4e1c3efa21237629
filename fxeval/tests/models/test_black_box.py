"""Face models that are functions."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from fxeval.contracts import FaceModel
from fxeval.errors import ModelContractError
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.loading import check_loaded
from fxeval.tests.subjects import CROP


def means(images):
    return images.mean(3).flatten(1)


def images(n: int = 5) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


BOX = EmbeddingFunction("box", CROP, means, "cosine", "acme 1.2")


def test_a_function_is_a_face_model_without_a_module():
    assert isinstance(BOX, FaceModel)
    assert BOX.module is None
    check_loaded(BOX)
    assert torch.equal(BOX.embed(images()), means(images()))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: means(x).numpy(),
        lambda x: means(x).numpy().astype(np.float64),
        lambda x: means(x).double(),
        lambda x: means(x * torch.ones(1, requires_grad=True)),
    ],
)
def test_arrays_and_tensors_of_any_precision_come_back_as_plain_float32(function):
    found = replace(BOX, function=function).embed(images())
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, means(images()))


def test_a_read_only_array_is_taken():
    def frozen(x):
        array = means(x).numpy()
        array.flags.writeable = False
        return array

    assert torch.equal(replace(BOX, function=frozen).embed(images()), means(images()))


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [5]), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_no_more_images_are_given_at_once_than_it_takes(batch_size, sizes):
    seen = []

    def count(x):
        seen.append(len(x))
        return means(x)

    found = replace(BOX, function=count, batch_size=batch_size).embed(images())
    assert seen == sizes
    assert torch.equal(found, means(images()))


def test_what_the_function_does_to_its_images_is_its_own_business():
    given = images()
    replace(BOX, function=lambda x: means(x.mul_(2))).embed(given)
    assert torch.equal(given, images())


def test_an_error_of_the_function_is_told_by_type_and_message():
    def broken(x):
        raise ConnectionError("licence server away")

    with pytest.raises(
        ModelContractError,
        match=r"'box': its function raised ConnectionError for \(5, 3, 16, 16\).*server away",
    ):
        replace(BOX, function=broken, backoff=0.0).embed(images())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "must return a torch.Tensor"),
        ([[1.0, 2.0]], r"must return \(5, D\)"),
        (np.ones((5, 4), int), "must return a torch.Tensor"),
        (np.ones((4, 4)), r"must return \(5, D\)"),
        (np.full((5, 4), np.nan), "NaN"),
        (torch.ones(5, 4, dtype=torch.int64), "must be float"),
        (torch.ones(5), r"must return \(5, D\)"),
    ],
)
def test_what_is_no_set_of_embeddings_is_refused(result, message: str):
    with pytest.raises(ModelContractError, match=message):
        replace(BOX, function=lambda _: result).embed(images())


def test_the_digest_tells_names_and_versions_apart():
    assert BOX.digest == hashlib.sha256(b"box\nacme 1.2").hexdigest()
    others = [replace(BOX, name="c"), replace(BOX, version="acme 1.3"), replace(BOX, batch_size=2)]
    assert [other.digest == BOX.digest for other in others] == [False, False, True]


@pytest.mark.parametrize("wrong", [{"version": " "}, {"function": 3}, {"batch_size": 0}])
def test_what_cannot_work_is_refused_at_once(wrong):
    with pytest.raises(ModelContractError, match="model 'box': "):
        replace(BOX, **wrong)

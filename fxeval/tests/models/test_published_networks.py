"""Common behaviour of all published networks: loading, input, explanation, randomisation."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import CROPS
from fxeval.errors import ModelContractError
from fxeval.functional.randomisation import embedding_spread, randomise, redrawn_share
from fxeval.hooks.custody import Custody
from fxeval.models import ARCHITECTURES
from fxeval.models.loading import TorchFaceModel, check_loaded, fill_module
from fxeval.models.networks.adaface_ir import adaface_ir18
from fxeval.models.networks.arcface_mbf import arcface_mbf
from fxeval.models.networks.inception_resnet import inception_resnet_v1
from fxeval.models.networks.iresnet import iresnet18, iresnet50
from fxeval.models.preprocessing import Preprocessing
from fxeval.statistics.redrawn import COLLAPSED_BELOW
from fxeval.tests import published
from fxeval.tests.rounding import assert_rounded

PUBLISHED = {
    **{f"iresnet{depth}": ("RGB", 127.5, "arcface112") for depth in (18, 34, 50, 100)},
    **{f"adaface_ir{depth}": ("BGR", 127.5, "arcface112") for depth in (18, 50, 101)},
    "arcface_mbf": ("RGB", 127.5, "arcface112"),
    "inception_resnet_v1": ("RGB", 128.0, "facenet160"),
}  # colours, standard deviation, crop; the mean is 127.5 of 255 everywhere


@dataclass(frozen=True)
class Case:
    """A network, its crop, its first convolution, and its preprocessing."""

    factory: Callable[..., nn.Module]
    crop: Crop
    first: str
    mean: float
    std: float
    is_bgr: bool = False


CASES = [
    Case(iresnet18, CROPS["arcface112"], "conv1", 127.5, 127.5),
    Case(adaface_ir18, CROPS["arcface112"], "input_layer.0", 127.5, 127.5, is_bgr=True),
    Case(arcface_mbf, CROPS["arcface112"], "layers.0.layers.0", 127.5, 127.5),
    Case(inception_resnet_v1, CROPS["facenet160"], "conv2d_1a.conv", 127.5, 128.0),
]


def built(factory: Callable[..., nn.Module], *preprocessing: Preprocessing) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return factory(*preprocessing).eval()


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.factory.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def model(case: Case) -> TorchFaceModel:
    module = built(case.factory)
    fill_module(module, published.drawn(published.shapes_of(module)), "drawn weights")
    return TorchFaceModel(case.factory.__name__, case.crop, module, "cosine", 0.3, "0" * 64)


def faces(case: Case, n: int, name: str = "faces") -> torch.Tensor:
    return published.noise(name, (n, 3, *case.crop.size))


class _SeenError(Exception):
    """Ends a forward pass."""


def seen_by(module: nn.Module, first: str, images: torch.Tensor) -> torch.Tensor:
    """Return the input of a network's first convolution."""

    def stop(_module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        raise _SeenError(inputs[0])

    handle = module.get_submodule(first).register_forward_pre_hook(stop)
    try:
        with pytest.raises(_SeenError) as caught:
            module(images)
    finally:
        handle.remove()
    return caught.value.args[0]


def test_all_grey_levels_are_normalised_as_published(case: Case, model: TorchFaceModel):
    levels = torch.arange(256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    expected = (levels.double() - case.mean) / case.std
    got = seen_by(model.module, case.first, levels.float() / 255)
    # Five roundings of values up to 2, for a result of up to 1.
    assert_rounded(got, expected, terms=5, scale=2)


def test_channels_come_in_the_published_order(case: Case, model: TorchFaceModel):
    image = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)  # mostly red
    got = seen_by(model.module, case.first, image)[0, :, 0, 0]
    red, blue = (255 - case.mean) / case.std, -case.mean / case.std
    expected = [blue, 0, red] if case.is_bgr else [red, 0, blue]
    assert_rounded(got, expected, terms=5, scale=2)  # as above


def test_another_preprocessing_replaces_the_published_one(case: Case):
    other = Preprocessing("RGB", (0, 0, 0), (1, 1, 1))
    with torch.device("meta"):
        case.factory(other)  # allocates no memory
    module = built(case.factory, other)
    image = published.noise("one", (1, 3, 4, 4))
    assert_rounded(seen_by(module, case.first, image), image.double() * 255, terms=1)
    assert list(module.state_dict()) == list(built(case.factory).state_dict())


def test_weights_survive_a_file(case: Case, model: TorchFaceModel, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(model.module.state_dict(), path)
    module = built(case.factory)
    images = faces(case, 2)
    with torch.no_grad():
        untrained = module(images)
    fill_module(module, safetensors.torch.load_file(path), str(path))
    copy = TorchFaceModel("copy", case.crop, module, "cosine", 0.3, "1" * 64)
    assert torch.equal(copy.embed(images), model.embed(images))
    assert not torch.allclose(untrained, model.embed(images), atol=1e-3)  # the file mattered
    counters = [one for key, one in module.state_dict().items() if key.endswith("_tracked")]
    assert {int(one) for one in counters} == {7}


def test_a_loaded_network_passes_the_checks_of_every_model(model: TorchFaceModel):
    check_loaded(model)
    assert model.embed(torch.rand(1, 3, *model.crop.size)).shape == (1, 512)


def test_gradients_reach_the_images(case: Case, model: TorchFaceModel):
    images = faces(case, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(model.module(images)[0, 0], images)
    assert bool(gradient.isfinite().all())
    assert float((gradient != 0).float().mean()) > 0.9


def test_embedding_and_differentiating_leave_a_network_as_it_was(case: Case, model: TorchFaceModel):
    custody = Custody(model.module)
    model.embed(faces(case, 2))
    images = faces(case, 1).requires_grad_()
    torch.autograd.grad(model.module(images).sum(), images)
    assert custody.changes() == []


def test_a_redrawn_network_still_tells_images_apart(case: Case, model: TorchFaceModel):
    calibration = faces(case, 8, "calibration")
    redrawn = randomise(model.module, calibration, 0, 0)
    assert redrawn_share(model.module, redrawn) > 0.9
    with torch.no_grad():
        spread = embedding_spread(redrawn(calibration))
    assert spread > COLLAPSED_BELOW
    frozen = [name for name, one in redrawn.named_parameters() if not one.requires_grad]
    assert frozen == (["features.weight"] if case.factory is iresnet18 else [])


def test_the_weights_of_a_deeper_network_are_refused_by_name():
    with torch.device("meta"):
        shallow, deep = iresnet18(), iresnet50()
    with pytest.raises(ModelContractError, match=r"r50\.pth.*IResNet") as refused:
        fill_module(shallow, deep.state_dict(), "r50.pth")
    first = ("weight", "bias", "running_mean")
    expected = "; ".join(f"'layer1.2.bn1.{one}' is not in the architecture" for one in first)
    assert f"{expected}; and 285 more" in str(refused.value)
    with pytest.raises(ModelContractError, match=r"'layer1\.2\.bn1\.weight' is missing"):
        fill_module(deep, shallow.state_dict(), "r18.pth")


def test_the_weights_of_another_family_are_refused_by_name():
    with torch.device("meta"):
        arcface, adaface = iresnet18(), adaface_ir18()
    with pytest.raises(ModelContractError, match=r"AdaFaceIR.*'input_layer\.0\.weight' is missing"):
        fill_module(adaface, arcface.state_dict(), "backbone.pth")


def test_a_tensor_of_another_shape_is_refused_with_both_shapes():
    with torch.device("meta"):
        module = arcface_mbf()
        state = module.state_dict()
        state["layers.1.layers.0.weight"] = torch.empty(128, 1, 3, 3)  # as if depth-wise
    message = r"'layers\.1\.layers\.0\.weight' is \(128, 1, 3, 3\) where \(128, 2, 3, 3\)"
    with pytest.raises(ModelContractError, match=message):
        fill_module(module, state, "mbf.pth")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_catalogue_and_the_network_agree_on_what_is_published(name: str):
    entry = ARCHITECTURES[name]
    place, _, factory = entry.factory.partition(":")
    default = inspect.signature(getattr(importlib.import_module(place), factory))
    colour, std, crop = PUBLISHED[name]
    expected = Preprocessing(colour, (127.5,) * 3, (std,) * 3)
    assert default.parameters["preprocessing"].default == expected
    assert Preprocessing(entry.colour, entry.mean, entry.std) == expected
    assert (entry.crop, entry.similarity) == (crop, "cosine")

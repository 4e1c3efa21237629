"""Networks with several outputs, other channels or other precision, loaded by their cards."""

import argparse
import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
from torch import nn

from fxeval.contracts import traits_of
from fxeval.errors import ModelContractError
from fxeval.explainers.gradients import Gradient
from fxeval.models.from_card import load_card
from fxeval.models.preprocessing import LUMA, InputNormalisation, Preprocessing
from fxeval.tests.models.test_from_card import FREE, Net, as_images, own_code, pixels, seeded, write
from fxeval.tests.rounding import assert_rounded

__all__ = ["own_code", "write"]  # fixtures
GREY = FREE.replace("BGR", "grey").replace("[100, 110, 120]", "110")


class Grey(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2)


class Both(NamedTuple):
    norm: torch.Tensor
    embedding: torch.Tensor


def returning(make: Callable[[torch.Tensor], object]) -> type[nn.Module]:
    class Returning(Net):
        def forward(self, x):
            return make(super().forward(x))

    return Returning


def norm(e: torch.Tensor) -> torch.Tensor:
    return e.norm(dim=1, keepdim=True)


@pytest.fixture
def load(write, own_code):
    """Loads the weights of ``Net`` into another network that has its names."""

    def load(network: type[nn.Module], more: str = "", state=None):
        own_code.make = network
        data = safetensors.torch.save(seeded().state_dict() if state is None else state)
        return load_card(write(data, f"architecture: acme:make\n{FREE}{more}"))

    return load


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda e: (norm(e), e), "1"),
        (lambda e: [e, norm(e)], "0"),
        (lambda e: {"norm": norm(e), "embedding": e}, "embedding"),
        (lambda e: {0: e, 1: norm(e)}, "'0'"),
        (lambda e: {"norm": norm(e), "embedding": e}, "1"),
        (lambda e: Both(norm(e), e), "embedding"),
        (lambda e: Both(norm(e), e), "1"),
        (lambda e: (e,), None),
        (lambda e: {"embedding": e}, None),
    ],
)
def test_the_output_that_the_card_names_or_the_only_one_is_the_embedding(load, make, output):
    images = as_images(pixels())
    expected = load(Net).embed(images)
    more = "" if output is None else f"output: {output}\n"
    assert torch.equal(load(returning(make), more).embed(images), expected)


def test_no_output_is_picked_and_all_are_listed_with_their_shapes(load):
    for make, listed in [
        (lambda e: (norm(e), e), r"0 \(1, 1\), 1 \(1, 5\)\..* 'output: 0' or 'output: 1'\.$"),
        (lambda e: {"a": e, "b": 3}, r"\"a\" \(1, 5\), \"b\" \(int\)\..* 'output: \"a\"' or "),
    ]:
        with pytest.raises(ModelContractError, match=f"model 'acme': .* has 2 outputs: {listed}"):
            load(returning(make))
    with pytest.raises(ModelContractError, match=r"has no output 2; it has 0 .*Correct 'output'"):
        load(returning(lambda e: (e, e)), "output: 2\n")
    with pytest.raises(ModelContractError, match=r"one tensor .* and no output 1\. Remove"):
        load(Net, "output: 1\n")
    with pytest.raises(ModelContractError, match="returns str: expected a tensor of embeddings"):
        load(returning(lambda e: "e"))
    with pytest.raises(ModelContractError, match="returns tuple where a tensor of embeddings is"):
        load(returning(lambda e: {"a": (e, e)}))


def test_an_output_is_taken_of_a_network_that_has_its_preprocessing_inside(load):
    class Own(returning(lambda e: (norm(e), e))):
        def __init__(self, preprocessing) -> None:
            super().__init__()
            self.normalisation = InputNormalisation(preprocessing)

        def forward(self, x):
            return super().forward(self.normalisation(x))

    images = as_images(pixels())
    assert torch.equal(load(Own, "output: 1\n").embed(images), load(Net).embed(images))
    with pytest.raises(ModelContractError, match="has 2 outputs"):
        load(Own)


def test_an_output_of_torchscript_is_taken(write):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = seeded()

        def forward(self, x):
            e = self.net(x)
            return e.norm(dim=1, keepdim=True), e

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(Two().eval(), torch.rand(1, 3, 16, 20)), file)
    with pytest.raises(ModelContractError, match="has 2 outputs"):
        load_card(write(file.getvalue(), FREE, "acme.ts"))
    model = load_card(write(file.getvalue(), f"{FREE}output: 1\n", "acme.ts"))
    assert model.embed(as_images(pixels())).shape == (3, 5)


# grey networks


def test_a_grey_network_sees_the_luma_of_the_image(write, own_code):
    own_code.make = Grey
    net = seeded(Grey)
    model = load_card(
        write(safetensors.torch.save(net.state_dict()), f"architecture: acme:make\n{GREY}")
    )
    images = as_images(pixels())
    luma = torch.tensor(LUMA, dtype=torch.float64).reshape(1, 3, 1, 1)
    grey = (images.double() * luma).sum(1, keepdim=True)
    with torch.no_grad():
        expected = net.double()((grey * 255 - 110) / 128)
    assert_rounded(model.embed(images), expected, terms=9 + 6 + 7 * 9 + 3)
    assert model.traits.card.preprocessing == {"colour": "grey", "mean": (110.0,), "std": (128.0,)}
    assert "gradients" in traits_of(Gradient()).needs
    maps = Gradient().explain(model, images, images.flip(0), generator=None)
    assert maps.positive.shape == (3, 16, 20)
    assert bool((maps.positive != 0).any())


def test_white_stays_white_and_colours_have_the_weights_of_bt601():
    unit = InputNormalisation(Preprocessing("grey", (0.0,), (255.0,)))
    colours = torch.cat([torch.eye(3), torch.ones(1, 3)]).reshape(4, 3, 1, 1)
    assert_rounded(unit(colours).flatten(), [0.299, 0.587, 0.114, 1.0], terms=3)


@pytest.mark.parametrize("is_script", [False, True])
def test_a_colour_of_other_channels_than_the_network_s_is_told_by_name(write, own_code, is_script):
    def card(network, more):
        if not is_script:
            own_code.make = network
            state = safetensors.torch.save(seeded(network).state_dict())
            return write(state, f"architecture: acme:make\n{more}")
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.script(seeded(network)), file)
        return write(file.getvalue(), more, "acme.ts")

    with pytest.raises(ModelContractError) as caught:
        load_card(card(Grey, FREE))
    assert str(caught.value) == (
        "model 'acme': the network takes 1 channel, and the colour BGR gives 3. Write "
        "'colour: grey' into the card."
    )
    with pytest.raises(ModelContractError, match="takes 3 channels, and the colour grey gives 1"):
        load_card(card(Net, GREY))


# checkpoints


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_computed_in_float32_and_that_is_said(load, kind):
    half = {k: v.to(kind) if v.is_floating_point() else v for k, v in seeded().state_dict().items()}
    model = load(Net, state=half)
    name = str(kind).removeprefix("torch.")
    assert model.traits.runtime == (
        f"torch {torch.__version__}; the weights are stored in {name} and computed in float32"
    )
    whole = {k: v.float() if v.is_floating_point() else v for k, v in half.items()}
    images = as_images(pixels())
    assert torch.equal(model.embed(images), load(Net, state=whole).embed(images))
    assert load(Net).traits.runtime == f"torch {torch.__version__}"


def test_half_precision_torchscript_is_computed_in_float32(write):
    file, net = io.BytesIO(), seeded()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(net.half()), file)
    model = load_card(write(file.getvalue(), FREE, "acme.ts"))
    assert "stored in float16 and computed in float32" in model.traits.runtime
    assert model.embed(as_images(pixels())).shape == (3, 5)


def test_a_head_that_the_network_lacks_can_be_left_out_as_the_message_says(load):
    state = seeded().state_dict() | {"head.weight": torch.ones(9, 5), "loss.s": torch.ones(1)}
    with pytest.raises(ModelContractError, match=r"'state: \{ignore: \[head\., loss\.\]\}' "):
        load(Net, state=state)
    assert (
        load(Net, "state: {ignore: [head., loss.]}\n", state=state).embed(as_images(pixels())).ndim
    )


def test_a_checkpoint_with_the_settings_of_its_training_gives_its_weights(write, tmp_path: Path):
    state = {f"model.{name}": value for name, value in seeded().state_dict().items()}
    file = io.BytesIO()
    settings = argparse.Namespace(lr=0.1)
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": settings}, file)
    own = f"architecture: acme:make\n{FREE}"
    with pytest.raises(ModelContractError, match=r"If it is the entry 'state_dict', name it: 's"):
        load_card(write(file.getvalue(), own, "acme.ckpt"))
    with pytest.raises(ModelContractError, match=r"'state: \{prefix: model\.\}' into the card"):
        load_card(write(file.getvalue(), f"{own}state: {{key: state_dict}}\n", "acme.ckpt"))
    at = "state: {key: state_dict, prefix: model.}\n"
    model = load_card(write(file.getvalue(), f"{own}{at}", "acme.ckpt"))
    assert hashlib.sha256(file.getvalue()).hexdigest() == model.digest

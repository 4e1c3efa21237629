"""The shipped network on rendered faces."""

import pytest
import torch
from torch import nn

from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.fixtures.synthetic.evaluate import CARDS, PACK, lists_of, verified, verify
from fxeval.models.from_card import load_card
from fxeval.models.loading import TorchFaceModel, file_digest
from fxeval.models.networks.mini_resnet import Block, MiniResNet
from fxeval.tests.rounding import assert_rounded

RENDERED = lists_of(PACK)["rendered"]


@pytest.fixture(scope="module")
def model():
    return load_card(CARDS / "mini_resnet.yaml")


@pytest.fixture(scope="module")
def verification(model):
    return verified(verify(model, RENDERED))


def test_the_card_describes_its_weights(model):
    card, weights = model.card, CARDS / model.card.weights
    assert file_digest(weights) == card.sha256 == model.digest
    assert weights.stat().st_size <= 3_000_000
    assert sum(parameter.numel() for parameter in model.module.parameters()) <= 1_500_000
    assert (model.name, model.crop, model.similarity) == ("mini_resnet", ARCFACE_112, "cosine")
    assert model.operating_threshold == card.operating_threshold is not None


def test_verification_of_held_out_identities_is_accurate(verification):
    is_mated = RENDERED.listing().is_mated
    assert verification.n_mated == sum(is_mated) >= 600
    assert verification.n_nonmated == len(is_mated) - sum(is_mated) >= 600
    assert verification.figures["verification_accuracy"].value >= 0.96
    assert verification.figures["verification_auc"].value >= 0.99


def test_the_card_states_the_accuracy_that_is_measured(model, verification):
    claims = {claim.metric: claim for claim in model.card.claims if claim.pairs == "rendered"}
    for name in ("verification_accuracy", "verification_auc"):
        found = verification.figures[name].value
        assert claims[name].value == pytest.approx(found, abs=claims[name].within)


def test_the_operating_threshold_balances_errors_on_other_identities(verification):
    vendor = verification.thresholds["vendor"]
    assert vendor.fmr.value < 0.06
    assert vendor.fnmr.value < 0.06


def test_an_untrained_network_verifies_far_worse(verification):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        untrained = MiniResNet().eval()
    model = TorchFaceModel("untrained", ARCFACE_112, untrained, "cosine", 0.0, "")
    name, result = "verification_accuracy", verified(verify(model, RENDERED))
    assert result.figures[name].value < verification.figures[name].value - 0.15


def test_stages_halve_the_maps_and_the_head_flattens_them(model):
    shapes = {}

    def keep(name):
        return lambda _module, _inputs, output: shapes.update({name: tuple(output.shape[1:])})

    names = ("stem", "stage1", "stage2", "stage3", "stage4")
    hooks = [getattr(model.module, name).register_forward_hook(keep(name)) for name in names]
    embeddings = model.embed(torch.rand(2, 3, 112, 112))
    for hook in hooks:
        hook.remove()
    assert embeddings.shape == (2, 128)
    assert shapes == {
        "stem": (16, 56, 56), "stage1": (24, 56, 56), "stage2": (48, 28, 28),
        "stage3": (96, 14, 14), "stage4": (128, 7, 7),
    }  # fmt: skip
    assert not any(isinstance(m, nn.AdaptiveAvgPool2d) for m in model.module.modules())


def test_a_block_adds_its_shortcut_and_applies_nothing_after_the_sum():
    with torch.random.fork_rng():
        block = Block(4, 4, 1).eval()
    last = block.residual[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)  # negative values included


def test_normalisation_is_part_of_the_network():
    with torch.random.fork_rng():
        network = MiniResNet().eval()
    seen = []
    network.stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    image = torch.linspace(0, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)
    network(image)
    # Five roundings of values up to 2, for a result of up to 1.
    assert_rounded(seen[0], (image.double() * 255 - 127.5) / 127.5, terms=5, scale=2)


def test_an_embedding_has_a_gradient_at_every_stage(model):
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    image.requires_grad_()
    model.module(image).square().sum().backward()
    assert bool((image.grad != 0).any())
    model.module.zero_grad(set_to_none=True)

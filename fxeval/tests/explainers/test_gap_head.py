"""A pooled head: the one solution of a convex problem, and maps that are exact."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxeval.contracts import Crop
from fxeval.errors import (
    EvidenceError,
    ExplainerContractError,
    ModelContractError,
    UnsupportedError,
)
from fxeval.explainers import gap_head as module
from fxeval.explainers.gap_head import gap_head
from fxeval.functional import class_heads
from fxeval.tests.cam_subjects import exact_model
from fxeval.tests.rounding import FLOAT64, assert_rounded, terms_of
from fxeval.tests.subjects import CountingModel

SIDE, CHANNELS = 6, 4
CROP = Crop("tiny", (SIDE, SIDE), ())
NAMES = ("ann", "bob", "cleo")
WHO = NAMES * 8


class Net(nn.Module):
    """(4, 3, 3) maps, with two nonlinear layers on the way to the embedding."""

    def __init__(self, gain: float = 1.0, is_dead: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1, stride=2)
        self.act = nn.PReLU(CHANNELS)
        self.fc = nn.Linear(CHANNELS * 9, 5)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.conv.weight.mul_(gain)
            self.conv.bias.mul_(gain)
            if is_dead:
                self.conv.weight[1] *= 1e-7  # rounding is left

    def forward(self, batch: Tensor) -> Tensor:
        return self.fc(self.act(self.conv(batch)).flatten(1)).tanh()


def small(**fields) -> CountingModel:
    return CountingModel(Net(**fields).eval(), crop=CROP)


def faces(seed: int = 1) -> Tensor:
    """24 images of three people in turn: noise, and for each person a colour of its own."""
    batch = 0.7 * torch.rand((24, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    for index in range(24):
        batch[index, index % 3] += 0.3
    return batch


def pooled(model: CountingModel, batch: Tensor) -> np.ndarray:
    """(N, C) means over the places of ``act``, one number at a time."""
    net = model.module
    with torch.no_grad():
        maps = net.act(net.conv(batch)).double().numpy()
    return np.array([[channel.sum() / channel.size for channel in image] for image in maps])


def objective(weight: np.ndarray, bias: np.ndarray, features: np.ndarray, penalty: float) -> float:
    """Mean cross-entropy and penalty on standardised features, of weights on raw ones."""
    spread = features.std(axis=0)
    loss = penalty / 2 * ((weight * spread) ** 2).sum()
    for row, feature in enumerate(features):
        logits = weight @ feature + bias
        loss += (np.log(np.exp(logits).sum()) - logits[row % 3]) / len(features)
    return loss


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_no_other_head_does_better_on_the_penalised_likelihood(penalty):
    model = small()
    head = gap_head(model, "act", faces(), WHO, penalty=penalty)
    features, rng = pooled(model, faces()), np.random.default_rng(0)
    weight, bias = head.weight.numpy(), head.bias.numpy()
    best = objective(weight, bias, features, penalty)
    assert best < np.log(3)  # that of a head of zeros
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            other = weight + size * rng.standard_normal(weight.shape)
            shifted = bias + size * rng.standard_normal(bias.shape)
            assert objective(other, shifted, features, penalty) > best
    for index in np.ndindex(*weight.shape):
        step = np.zeros_like(weight)
        step[index] = 1e-5
        up, down = (objective(weight + s * step, bias, features, penalty) for s in (1, -1))
        assert abs(up - down) / 2e-5 < 1e-5


def test_it_learns_what_can_be_learnt_and_a_smaller_penalty_is_surer():
    model = small()
    heads = [gap_head(model, "act", faces(), WHO, penalty=p) for p in (1.0, 1e-2, 1e-4)]
    assert heads[1].accuracy(faces(2), WHO) >= 0.8
    sure = [float(head.predicted(faces())[1].mean()) for head in heads]
    assert sure == sorted(sure)
    mixed = sorted(WHO)  # of each person's images, some have either name
    assert gap_head(model, "act", faces(), mixed).accuracy(faces(2), WHO) <= 0.6


def test_twice_the_same_is_the_same_bit_for_bit_and_draws_nothing():
    model, state = small(), torch.get_rng_state()
    with torch.inference_mode():
        one = gap_head(model, "act", faces(), WHO)
    other = gap_head(model, "act", faces(), WHO)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)
    assert torch.equal(torch.get_rng_state(), state)


@given(st.sampled_from([1e-4, 0.1, 30.0, 1e4]))
@settings(max_examples=4, deadline=None)
def test_the_size_of_the_features_changes_no_probability(gain):
    models = [exact_model(small(gain=one)) for one in (1.0, gain)]
    heads = [gap_head(model, "act", faces(), WHO, penalty=0.1) for model in models]
    one, other = (head.probabilities(faces(2)).numpy() for head in heads)
    # The solver stops at 15 slopes of 1e-7. The problem curves by at least the penalty, so both of
    # its answers lie within sqrt(15) * 1e-7 / 0.1 = 4e-6 of the solution.
    assert one == pytest.approx(other, abs=1e-5)


def test_a_channel_that_says_nothing_gets_no_weight():
    head = gap_head(small(is_dead=True), "act", faces(), WHO)
    assert head.weight[:, 1].abs().max() < 1e-3 * head.weight[:, [0, 2, 3]].abs().min()


def test_maps_are_the_weighted_channels_and_add_up_to_the_logits():
    model, probes = exact_model(small()), faces(2)[:4]
    head = gap_head(model, "act", faces(), WHO)
    assert head.no_cam() is None
    asked = torch.tensor([[0, 2], [1, 1], [2, 0], [0, 1]])
    parts, logits = head.parts(probes, asked), head.logits(probes)
    net = model.module
    with torch.no_grad():
        maps = net.act(net.conv(probes.double()))
    for row, place in np.ndindex(4, 2):
        name = int(asked[row, place])
        expected = torch.zeros(3, 3, dtype=torch.float64)
        size = torch.zeros(3, 3, dtype=torch.float64)  # of what is summed
        for channel in range(CHANNELS):
            expected += head.weight[name, channel] * maps[row, channel] / 9
            size += (head.weight[name, channel] * maps[row, channel] / 9).abs()
        assert_rounded(
            parts.coarse[row, place], expected,
            terms=terms_of(net.conv) + CHANNELS, scale=float(size.max()), unit=FLOAT64,
        )  # fmt: skip
        total = float(parts.coarse[row, place].sum() + parts.constant[row, place])
        assert total == pytest.approx(float(logits[row, name]), rel=1e-9)
    assert head.cam(probes, asked).shape == (4, 2, SIDE, SIDE)


def test_rows_do_not_depend_on_their_batch(monkeypatch):
    model, asked = exact_model(small()), torch.arange(24)[:, None] % 3
    head = gap_head(model, "act", faces(), WHO)
    together = head.parts(faces(2), asked), head.logits(faces(2))
    monkeypatch.setattr(module, "ROWS", 5)
    # Both are rounded. The terms of a logit add up to 8 times its value, those of the convolution
    # to about 10 times.
    bound = {"terms": 2 * (27 + 9 * CHANNELS), "condition": 100, "unit": FLOAT64}
    assert_rounded(head.parts(faces(2), asked).coarse, together[0].coarse, **bound)
    assert_rounded(head.logits(faces(2)), together[1], **bound)


def test_layers_can_be_named_by_rule_and_the_model_comes_back_as_it_was():
    model = small()
    net = model.module.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert gap_head(model, "conv[0]", faces(), WHO).layer == "conv"
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(part._forward_hooks for part in net.modules())


def test_what_cannot_be_trained_is_refused(monkeypatch):
    with pytest.raises(UnsupportedError, match="black box"):
        gap_head(CountingModel(None, crop=CROP), "act", faces(), WHO)
    for layer, message in (("nothing", "no layer 'nothing'"), ("fc", "this Linear does not")):
        with pytest.raises(ExplainerContractError, match=f"gap head: .*{message}"):
            gap_head(small(), layer, faces(), WHO)
    for penalty in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ModelContractError, match="expected a finite penalty above 0"):
            gap_head(small(), "act", faces(), WHO, penalty=penalty)
    broken = small()
    with torch.no_grad():
        broken.module.conv.bias[0] = torch.nan
    with pytest.raises(ModelContractError, match="the output of layer 'act' holds NaN"):
        gap_head(broken, "act", faces(), WHO)
    monkeypatch.setattr(class_heads, "ITERATIONS", 2)
    with pytest.raises(EvidenceError, match="no solution within 2 steps"):
        gap_head(small(), "act", faces(), WHO)

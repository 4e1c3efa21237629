import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from fxeval.errors import EvidenceError, ModelContractError
from fxeval.functional.randomisation import embedding_spread, nudged, randomise, redrawn_share
from fxeval.models.networks.dlib_resnet import DlibResNet
from fxeval.statistics.redrawn import COLLAPSED_BELOW
from fxeval.tests.rounding import assert_rounded


class Net(nn.Module):
    """Two equal convolutions, every kind of normalisation, and a parameter of no known layer."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(3)
        self.act = nn.PReLU(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.group = nn.GroupNorm(1, 3)
        self.dropout = nn.Dropout(0.9)
        self.scale = nn.Parameter(torch.arange(192.0) / 192.0 + 0.5)
        self.fc = nn.Linear(192, 16)
        self.bn2 = nn.BatchNorm1d(16)

    def forward(self, x):
        x = self.act(self.bn1(self.conv1(x)))
        x = self.dropout(self.group(self.conv2(x))).flatten(1)
        return self.bn2(self.fc(x * self.scale))


def _drawn(build, seed=0):
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        return build()


def _faces(n, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net():
    net = _drawn(Net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3
    net.fc.weight.requires_grad_(False)
    with torch.random.fork_rng(), torch.no_grad():
        net.train()(3.0 * _faces(20))  # statistics of its own
    return net


def _bytes(module):
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def test_the_original_and_the_global_generators_stay_as_they_are(net):
    before, modes = _bytes(net), [module.training for module in net.modules()]
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    randomise(net, _faces(10), 1, 0)
    assert _bytes(net) == before
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_the_copy_is_in_eval_mode_and_keeps_requires_grad_and_momentum(net):
    redrawn = randomise(net, _faces(10), 1, 0)
    assert not any(module.training for module in redrawn.modules())
    wanted = [parameter.requires_grad for parameter in net.parameters()]
    assert [parameter.requires_grad for parameter in redrawn.parameters()] == wanted
    assert redrawn.bn1.momentum == net.bn1.momentum
    assert all(parameter.grad is None for parameter in redrawn.parameters())


def test_the_same_seed_gives_the_same_copy_whatever_the_trained_weights_were(net):
    one = randomise(net, _faces(10), 1, 0)
    assert _bytes(one) == _bytes(randomise(net, _faces(10), 1, 0))
    other = _drawn(Net, seed=5)
    with torch.no_grad():
        other.scale.copy_(net.scale)
    assert _bytes(one) == _bytes(randomise(other, _faces(10), 1, 0))
    for different in (randomise(net, _faces(10), 2, 0), randomise(net, _faces(10), 1, 1)):
        assert not torch.equal(one.conv1.weight, different.conv1.weight)


def test_layers_of_equal_shape_get_different_weights(net):
    redrawn = randomise(net, _faces(10), 1, 0)
    assert redrawn.conv1.weight.shape == redrawn.conv2.weight.shape
    assert not torch.equal(redrawn.conv1.weight, redrawn.conv2.weight)
    assert not torch.equal(redrawn.conv1.bias, redrawn.conv2.bias)


def test_every_kind_of_layer_is_drawn_as_torch_draws_it(net):
    redrawn = randomise(net, _faces(10), 1, 0).requires_grad_(False)
    for layer, fan_in in ((redrawn.conv1, 27), (redrawn.fc, 192)):
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < float(layer.weight.abs().max()) <= bound
        assert float(layer.bias.abs().max()) <= bound
    weight = redrawn.fc.weight
    assert float(weight.std()) == pytest.approx(1 / math.sqrt(192 * 3), rel=0.03)
    assert abs(float(weight.mean())) < 4 / math.sqrt(192 * 3 * weight.numel())
    for norm in (redrawn.bn1, redrawn.group, redrawn.bn2):
        assert norm.weight.unique().tolist() == [1.0]
        assert norm.bias.unique().tolist() == [0.0]
    assert redrawn.act.weight.tolist() == [0.25] * 3
    assert not torch.equal(redrawn.scale, net.scale)
    assert torch.equal(redrawn.scale.sort().values, net.scale.sort().values)


def test_statistics_are_cumulative_averages_over_the_calibration_images(net):
    faces = _faces(130)
    redrawn = randomise(net, faces, 1, 0)
    exact = copy.deepcopy(redrawn.conv1).double()
    seen = [exact(part.double()).detach() for part in faces.tensor_split(3)]
    expected = torch.stack([part.mean((0, 2, 3)) for part in seen]).mean(0)
    terms = 27 + 44 * 64  # of the convolution, and of the mean over 44 images of 8 x 8 pixels
    scale = max(float(part.abs().max()) for part in seen)
    assert_rounded(redrawn.bn1.running_mean, expected, terms=terms, scale=scale)
    assert int(redrawn.bn1.num_batches_tracked) == 3
    with torch.no_grad():
        embeddings = redrawn(faces)
    assert embeddings.std(0).tolist() == pytest.approx([1.0] * 16, abs=0.05)


def test_65_images_are_not_split_into_a_batch_of_one(net):
    assert int(randomise(net, _faces(65), 1, 0).bn2.num_batches_tracked) == 2
    assert bool(torch.isfinite(randomise(net, _faces(2), 1, 0)(_faces(3))).all())


def test_a_network_with_frozen_affine_layers_of_no_eps_does_not_collapse():
    trained = _drawn(DlibResNet)
    faces = torch.nn.functional.interpolate(_faces(6, 10), size=(150, 150))
    redrawn = randomise(trained, faces, 1, 0)
    with torch.no_grad():
        embeddings = redrawn(faces)
    assert embedding_spread(embeddings) > 10 * COLLAPSED_BELOW
    assert trained.affine.eps == 1e-30


def test_a_constant_channel_divides_nothing_by_zero():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.0), nn.Flatten())
    redrawn = randomise(net, torch.full((4, 3, 2, 2), 0.5), 1, 0)
    with torch.no_grad():
        embeddings = redrawn(torch.full((4, 3, 2, 2), 0.5))
    assert bool(torch.isfinite(embeddings).all())
    assert embedding_spread(embeddings) < COLLAPSED_BELOW


def test_a_network_without_batch_norm_is_redrawn_too():
    net = _drawn(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
    assert redrawn_share(net, randomise(net, _faces(2), 1, 0)) == 1.0


def test_dropout_is_off_while_statistics_are_estimated(net):
    redrawn = randomise(net, _faces(40), 1, 0)
    kept = copy.deepcopy(redrawn)
    kept.dropout = nn.Identity()
    x = kept.group(kept.conv2(kept.act(kept.bn1(kept.conv1(_faces(40)))))).flatten(1) * kept.scale
    # bn1 normalised by the batch itself, which is what its statistics are, but for Bessel's factor
    assert redrawn.bn2.running_mean.tolist() == pytest.approx(kept.fc(x).mean(0).tolist(), abs=2e-3)


def test_the_share_of_changed_parameters_is_reported(net):
    assert redrawn_share(net, copy.deepcopy(net)) == 0.0
    assert redrawn_share(net, randomise(net, _faces(4), 1, 0)) > 0.99
    fresh = nn.BatchNorm2d(3)
    assert redrawn_share(fresh, randomise(fresh, _faces(4), 1, 0)) == 0.0
    assert redrawn_share(nn.Flatten(), nn.Flatten()) == 0.0
    with pytest.raises(ValueError, match="one architecture"):
        redrawn_share(net, fresh)


def test_the_spread_is_the_mean_over_pairs_of_one_minus_cosine():
    vectors = torch.randn(9, 5, generator=torch.Generator().manual_seed(3))
    pairs = [
        1 - float(torch.cosine_similarity(vectors[i].double(), vectors[j].double(), dim=0))
        for i in range(9)
        for j in range(i)
    ]
    assert embedding_spread(vectors) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert embedding_spread(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == 2.0


@pytest.mark.parametrize("answer", [0.0, 1e-30, 1.0])
def test_a_network_that_answers_the_same_to_all_has_no_spread(answer):
    assert embedding_spread(torch.full((6, 4), answer)) < COLLAPSED_BELOW


@pytest.mark.parametrize(
    "bad", [torch.zeros(1, 4), torch.zeros(4), torch.full((3, 2), float("nan"))]
)
def test_a_spread_of_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="embedding_spread"):
        embedding_spread(bad)


def test_what_cannot_be_redrawn_says_so(net):
    with pytest.raises(EvidenceError, match="at least 2 calibration images"):
        randomise(net, _faces(1), 1, 0)

    class Uncopyable(nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle a stream")

    with pytest.raises(ModelContractError, match="Uncopyable can't be copied"):
        randomise(Uncopyable(), _faces(2), 1, 0)


def test_a_network_that_keeps_results_of_a_computation_can_be_copied(net):
    images = _faces(4)
    expected = randomise(net, images, 0, 0)(images)
    kept = net.conv1(images)
    net.last, net.all, net.named = kept, [kept, 1], {"one": net.fc.weight * 2}
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(net)
    redrawn = randomise(net, images, 0, 0)
    assert torch.equal(redrawn(images), expected)
    assert redrawn.last is redrawn.all[0]
    assert not redrawn.last.requires_grad
    assert torch.equal(redrawn.last, net.last)
    assert net.last is kept


def test_only_the_named_layers_are_redrawn_and_get_the_weights_of_a_whole_redraw(net):
    whole = dict(randomise(net, _faces(8), 3, 0).named_parameters())
    some = dict(randomise(net, _faces(8), 3, 0, ("conv2", "")).named_parameters())
    for name, before in net.named_parameters():
        drawn = name.startswith("conv2.") or name == "scale"
        assert torch.equal(some[name], whole[name] if drawn else before), name


def test_a_nudge_changes_every_weight_by_about_its_share(net):
    before, copied = _bytes(net), nudged(net, 3, 0, 0.001)
    assert _bytes(net) == before
    after = dict(copied.named_parameters())
    changes = torch.cat(
        [(after[name] / one - 1.0).detach().flatten() for name, one in net.named_parameters()]
    )
    assert 0.0009 < float(changes.std()) < 0.0011
    assert float((changes == 0).float().mean()) < 0.01
    for name, buffer in net.named_buffers():
        assert torch.equal(dict(copied.named_buffers())[name], buffer)
    again, other = nudged(net, 3, 0, 0.001), nudged(net, 3, 1, 0.001)
    assert _bytes(again) == _bytes(copied) != _bytes(other)

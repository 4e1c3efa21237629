"""Properties of all explainers that go from an embedding down to the pixels."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import Explainer, RowState
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.explainers.gradients import Gradient, InputXGradient, IntegratedGradients, SmoothGrad
from fxeval.explainers.image_gradients import CHUNK
from fxeval.explainers.xssab_fggb import FGGB, XSSAB
from fxeval.tests.rounding import assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel

SIZE = (16, 16)
ALL = {
    "gradient": Gradient(),
    "input_x_gradient": InputXGradient(),
    "integrated_gradients": IntegratedGradients(steps=3),
    "smoothgrad": SmoothGrad(draws=3),
    "xssab": XSSAB(),
    "xssab-arguments": XSSAB(form="arguments"),
    "fggb": FGGB(),
    "fggb-blur": FGGB(post_blur=True),
}
each = pytest.mark.parametrize("explainer", ALL.values(), ids=ALL)


def images(n: int, seed: int) -> Tensor:
    return torch.rand((n, 3, *SIZE), generator=torch.Generator().manual_seed(seed))


def explain(explainer, model, probes, references):
    return explainer.explain(model, probes, references, generator=np.random.default_rng(0))


class Deaf(nn.Module):
    """Its embedding depends on the image's first row of pixels alone, and not at all if dark."""

    def forward(self, images: Tensor) -> Tensor:
        top = images[:, :, 0].flatten(1)
        return torch.relu(top - 0.5)[:, :9] + torch.linspace(1, 2, 9)


@each
def test_a_probe_without_any_gradient_says_so(explainer):
    probes, references = images(2, 1), images(2, 2)
    probes[1] = 0.1 * probes[1]
    maps = explain(explainer, CountingModel(Deaf()), probes, references)
    assert maps.states == (RowState.OK, RowState.NO_GRADIENT)
    assert maps.reasons[1] == "no gradient at the image"
    assert float(maps.positive[1].abs().max()) == 0
    assert float(maps.positive[0, 0].max()) > 0
    if not getattr(explainer, "post_blur", False):
        assert float(maps.positive[0, 1:].abs().max()) == 0  # where the model does not look


def cosine_gradients(net: nn.Module, probes: Tensor, references: Tensor) -> Tensor:
    """The gradient of the cosine, of which all these maps are made and in which terms cancel."""
    probes = probes.clone().requires_grad_()
    cosine = torch.cosine_similarity(net(probes), net(references).detach())
    return torch.autograd.grad(cosine.sum(), probes)[0]


@each
def test_a_row_does_not_depend_on_its_company(explainer):
    model = CountingModel(ConvNet(seed=2))
    probes, references = images(CHUNK + 5, 1), images(CHUNK + 5, 2)
    together = explain(explainer, model, probes, references)
    rows = [0, 7, CHUNK - 1, CHUNK + 4]
    net = deepcopy(model.module).double()
    condition = condition_of(
        partial(cosine_gradients, net), probes[rows], references[rows], module=net
    )
    for row in rows:
        alone = explain(explainer, model, probes[[row]], references[[row]])
        # Both are rounded: each may be off by what the other may.
        assert_rounded(
            alone.positive[0],
            together.positive[row],
            terms=2 * terms_of(net, passes=2),
            condition=condition,
        )


class Watched(nn.Module):
    """Counts the images of each call, and fails at one of them if asked to."""

    def __init__(self, net: nn.Module, fails_at: int = -1) -> None:
        super().__init__()
        self.net, self.fails_at = net, fails_at
        self.calls: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        if len(self.calls) - 1 == self.fails_at:
            raise RuntimeError("no")
        return self.net(images)


@pytest.mark.parametrize(
    ("explainer", "passes"),
    [
        (Gradient(), 1), (InputXGradient(), 1), (SmoothGrad(draws=7), 7),
        (IntegratedGradients(steps=5), 7),  # and both ends, for the completeness gap
    ],
    ids=lambda one: getattr(one, "id", ""),
)  # fmt: skip
def test_no_more_than_a_chunk_of_images_passes_the_model_at_once(explainer, passes):
    net = Watched(ConvNet())
    explain(explainer, CountingModel(net), images(CHUNK + 5, 1), images(CHUNK + 5, 2))
    assert net.calls[0] == CHUNK + 5  # the references, embedded by the model
    assert max(net.calls[1:]) == CHUNK
    assert sum(net.calls[1:]) == (CHUNK + 5) * passes


def left_behind(net: nn.Module) -> list[object]:
    tensors = [(name, one.detach().numpy().tobytes()) for name, one in net.state_dict().items()]
    flags = [(part.training, len(part._forward_hooks)) for part in net.modules()]
    return [tensors, flags, [(one.requires_grad, one.grad) for one in net.parameters()]]


@each
@pytest.mark.parametrize("fails_at", [-1, 1])
def test_the_model_comes_back_as_it_was_even_after_an_error(explainer, fails_at):
    net = Watched(ConvNet(), fails_at).train()
    net.net.conv1.weight.requires_grad_(False)
    before = left_behind(net)
    probes, references = images(2, 1), images(2, 2)
    kept = probes.clone()
    state = torch.random.get_rng_state()
    if fails_at >= 0:
        with pytest.raises(RuntimeError, match="no"):
            explain(explainer, CountingModel(net), probes, references)
    else:
        explain(explainer, CountingModel(net), probes, references)
    assert left_behind(net) == before
    assert torch.equal(probes, kept)
    assert probes.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


@each
def test_callers_in_inference_mode_and_frozen_models_get_the_same_maps(explainer):
    model = CountingModel(ConvNet().eval())
    expected = explain(explainer, model, images(2, 1), images(2, 2)).positive
    model.module.requires_grad_(False)
    with torch.inference_mode():
        found = explain(explainer, model, images(2, 1), images(2, 2)).positive
    assert torch.equal(found, expected)


@each
def test_a_black_box_is_refused_with_the_reason(explainer):
    model = CountingModel(None)
    reason = explainer.unsupported(model)
    assert "black box" in reason
    assert explainer.unsupported(CountingModel(ConvNet())) is None
    with pytest.raises(ExplainerContractError, match=f"{explainer.id}: needs gradients"):
        explain(explainer, model, images(1, 1), images(1, 2))


class Numb(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.detach().flatten(1)[:, :8]


class Nan(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :8] * torch.nan


class Writes(nn.Module):
    """Normalises its input in place, as careless models do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.mul_(2).sub_(1))


@each
def test_hostile_models(explainer):
    probes, references = images(2, 1), images(2, 2)
    with pytest.raises(ExplainerContractError, match="does not depend differentiably"):
        explain(explainer, CountingModel(Numb()), probes, references)
    with pytest.raises(ModelContractError, match="NaN"):
        explain(explainer, CountingModel(Nan()), probes, references)
    writes = explain(explainer, CountingModel(Writes(ConvNet())), probes, references.clone())
    assert set(writes.states) == {RowState.OK}


@each
def test_explainers_keep_the_contract(explainer):
    assert isinstance(explainer, Explainer)
    assert type(explainer)() == type(explainer)()  # constructible with defaults
    assert explainer.traits.needs == {"gradients"}
    if hasattr(explainer, "objective"):
        assert type(explainer)(objective="triplet").traits.needs == {"gradients", "contrast"}
    assert explainer.traits.takes_centroids
    assert explainer.traits.source


class Blind(nn.Module):
    """Learns, but never looks: its embedding has a graph that does not reach the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 2, 8))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight + images.detach().flatten(1)[:, :8]


@each
def test_an_embedding_that_the_image_does_not_reach_has_no_gradient(explainer):
    maps = explain(explainer, CountingModel(Blind()), images(2, 1), images(2, 2))
    assert set(maps.states) == {RowState.NO_GRADIENT}
    assert float(maps.positive.abs().max()) == 0


def test_an_objective_that_is_flat_at_some_points_of_the_way_alone_has_a_map():
    """The last point, alone in its batch, is the reference itself; the others are not."""
    model = CountingModel(ConvNet(seed=1), similarity="neg_l2")
    probe = images(1, 1)
    nodes, _ = np.polynomial.legendre.leggauss(CHUNK + 1)
    reference = probe * float(np.float32((1 + nodes[-1]) / 2))
    maps = explain(IntegratedGradients(steps=CHUNK + 1), model, probe, reference)
    assert maps.states == (RowState.OK,)
    assert float(maps.positive.max()) > 0

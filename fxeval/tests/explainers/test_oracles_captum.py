"""Gradients at the image agree with captum's, on a small network and on the shipped one.

``.ci/oracles`` installs captum; without it the tests skip. It explains a scalar, so it gets the
similarity of each probe with its reference, written down here once more. Networks run in float64:
of deep ones the rounding would be what is compared. Images and their gradients are float32.
"""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import Fill
from fxeval.explainers.gradients import Gradient, InputXGradient, IntegratedGradients, SmoothGrad
from fxeval.fixtures.synthetic.evaluate import DATA
from fxeval.functional.fill_images import fill_images
from fxeval.models.from_card import load_card
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.subjects import ConvNet, CountingModel

attr = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.oracle

N = 3
STEPS = 8  # at most so many gradients at float32 images are summed
ROWS = torch.arange(N)


class Wide(nn.Module):
    """Computes in float64, whatever images it gets."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = deepcopy(net).double().eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.double())


def _subjects() -> dict[str, tuple[nn.Module, int]]:
    shipped = load_card(DATA / "cards" / "mini_resnet.yaml").module
    return {"small": (Wide(ConvNet(seed=3)), 16), "mini_resnet": (Wide(shipped), 112)}


SUBJECTS = _subjects()
each_net = pytest.mark.parametrize("name", SUBJECTS)
each_kind = pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
contrasts = pytest.mark.parametrize("contrasted", [False, True], ids=["", "contrasted"])


class Case:
    """A network, its images, and the scalar that captum explains."""

    def __init__(self, name: str, kind: str, contrasted: bool = False) -> None:
        self.net, side = SUBJECTS[name]
        generator = torch.Generator().manual_seed(1)
        self.probes, self.references, contrast = torch.rand(
            3, N, 3, side, side, generator=generator
        )
        self.contrast = contrast if contrasted else None
        self.kind = kind
        with torch.no_grad():
            others = [self.references, contrast] if contrasted else [self.references]
            # In float32, as a model hands them over.
            self.targets = [self.net(some).float().double() for some in others]

    def scalar(self, images: Tensor, rows: Tensor) -> Tensor:
        """Take images in the place of the given rows: captum repeats both, each method its way."""
        embeddings = self.net(images)
        values = []
        for target in self.targets:
            other = target[rows]
            if self.kind == "cosine":
                values.append(nn.functional.cosine_similarity(embeddings, other, eps=1e-12))
            else:
                values.append(-(embeddings - other).square().sum(dim=1))
        return values[0] if len(values) == 1 else values[0] - values[1]

    def given(self) -> dict[str, object]:
        # A leaf of its own: captum warns of images that do not ask for a gradient.
        return {
            "inputs": self.probes.double().requires_grad_(),
            "additional_forward_args": (ROWS,),
        }

    def ours(self, explainer) -> tuple[Tensor, Tensor | None]:
        maps = explainer.explain(
            CountingModel(self.net, similarity=self.kind),
            self.probes,
            self.references,
            contrast=self.contrast,
            generator=np.random.default_rng(0),
        )
        return maps.positive, maps.negative


def assert_agree(case: Case, ours: Tensor, theirs: Tensor) -> None:
    """Compare maps whose terms were gradients times pixels, or times a way of at most 1."""
    gradients = attr.Saliency(case.scalar).attribute(**case.given(), abs=True).flatten(1)
    assert ours.shape == theirs.shape
    for one, other, terms in zip(ours, theirs, gradients, strict=True):
        assert other.any()
        largest = max(float(terms.max()), float(other.abs().max()))
        assert_rounded(one, other, terms=3 * STEPS, scale=largest)


@each_net
@each_kind
@contrasts
@pytest.mark.parametrize("channels", ["mean", "max"])
def test_the_gradient_is_captums_saliency(name, kind, contrasted, channels):
    case = Case(name, kind, contrasted)
    theirs = attr.Saliency(case.scalar).attribute(**case.given(), abs=True)
    theirs = theirs.mean(dim=1) if channels == "mean" else theirs.amax(dim=1)
    assert_agree(case, case.ours(Gradient(channels=channels))[0], theirs.detach())


@each_net
@each_kind
@contrasts
def test_input_x_gradient_is_captums(name, kind, contrasted):
    case = Case(name, kind, contrasted)
    theirs = attr.InputXGradient(case.scalar).attribute(**case.given()).sum(dim=1).detach()
    positive, negative = case.ours(InputXGradient())
    assert_agree(case, positive - negative, theirs)


@each_net
@each_kind
@contrasts
@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_integrated_gradients_are_captums(name, kind, contrasted, fill: Fill):
    case = Case(name, kind, contrasted)
    theirs, gap = attr.IntegratedGradients(case.scalar).attribute(
        **case.given(),
        baselines=fill_images(case.probes, fill).double(),
        n_steps=STEPS,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    explainer = IntegratedGradients(steps=STEPS, baseline=fill)
    positive, negative = case.ours(explainer)
    assert_agree(case, positive - negative, theirs.detach().sum(dim=1))
    maps = explainer.explain(
        CountingModel(case.net, similarity=kind),
        case.probes,
        case.references,
        contrast=case.contrast,
        generator=np.random.default_rng(0),
    )
    difference = case.scalar(case.probes, ROWS) - case.scalar(fill_images(case.probes, fill), ROWS)
    expected = (gap / difference).detach().abs()
    # A sum of rounded pixels: their errors add up as their squares do.
    sizes = (positive + negative).flatten(1).norm(dim=1) / difference.detach().abs()
    gaps = maps.diagnostics["completeness_gap"]
    # What the map adds up to is larger or smaller than the difference by this share of it.
    assert_rounded(1 + gaps, 1 + expected, terms=3 * STEPS, scale=float(sizes.max()))


@each_net
@each_kind
def test_smoothgrad_is_the_mean_of_captums_gradients_at_the_same_noisy_copies(name, kind):
    case = Case(name, kind)
    noise = np.random.default_rng(0).standard_normal((4, *case.probes.shape[1:]), dtype=np.float32)
    span = case.probes.flatten(1).amax(dim=1) - case.probes.flatten(1).amin(dim=1)
    sigma = 0.15 * span[:, None, None, None]
    saliency = attr.Saliency(case.scalar)
    theirs = [
        saliency.attribute(
            (case.probes + sigma * one).double().requires_grad_(),
            abs=False,
            additional_forward_args=(ROWS,),
        )
        for one in torch.from_numpy(noise)
    ]
    expected = torch.stack(theirs).mean(dim=0).abs().mean(dim=1).detach()
    assert_agree(case, case.ours(SmoothGrad(draws=4))[0], expected)


@each_kind
def test_captums_own_noise_gives_the_same_map_in_the_limit(kind):
    """Other noise, the same mean: 4,000 draws agree, 2 do not."""
    case = Case("small", kind)
    span = case.probes.flatten(1).amax(dim=1) - case.probes.flatten(1).amin(dim=1)
    theirs = []
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        for _ in range(40):
            tunnel = attr.NoiseTunnel(attr.Saliency(case.scalar))
            theirs.append(
                tunnel.attribute(
                    **case.given(),
                    nt_type="smoothgrad",
                    nt_samples=100,
                    stdevs=float(0.15 * span.mean()),
                    abs=False,
                ).detach()
            )
    expected = torch.stack(theirs).mean(dim=0).abs().mean(dim=1)

    def distance(draws: int) -> float:
        ours, _ = case.ours(SmoothGrad(draws=draws))
        return float((ours - expected).norm() / expected.norm())

    assert distance(4000) < 0.05
    assert distance(2) > 3 * distance(4000)

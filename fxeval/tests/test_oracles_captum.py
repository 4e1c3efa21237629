"""Gradients at the image agree with captum's, on a small network and on the shipped one.

``.ci/oracles`` installs captum; without it the tests skip. It explains a scalar, so it gets the
similarity of each probe with its reference, written down here once more.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxeval.contracts import Fill
from fxeval.explainers.backprop import Gradient, InputXGradient, IntegratedGradients, SmoothGrad
from fxeval.fixtures.synthetic.evaluate import DATA
from fxeval.models.carded import load_card_model
from fxeval.perturbation import fill_images
from fxeval.tests.subjects import ConvNet, CountingModel

attr = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.oracle

TOLERANCE = 1e-5  # of a map's largest value
N = 3
ROWS = torch.arange(N)


def _subjects() -> dict[str, tuple[nn.Module, int]]:
    shipped = load_card_model(DATA / "cards" / "mini_resnet.yaml").module
    return {"small": (ConvNet(seed=3).eval(), 16), "mini_resnet": (shipped, 112)}


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
            self.targets = [self.net(self.references)]
            if contrasted:
                self.targets.append(self.net(contrast))

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
            "inputs": self.probes.clone().requires_grad_(),
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


def assert_agree(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    for one, other in zip(ours, theirs.float(), strict=True):
        largest = float(other.abs().max())
        assert largest > 0
        torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE * largest)


@each_net
@each_kind
@contrasts
@pytest.mark.parametrize("channels", ["mean", "max"])
def test_the_gradient_is_captums_saliency(name, kind, contrasted, channels):
    case = Case(name, kind, contrasted)
    theirs = attr.Saliency(case.scalar).attribute(**case.given(), abs=True)
    theirs = theirs.mean(dim=1) if channels == "mean" else theirs.amax(dim=1)
    assert_agree(case.ours(Gradient(channels=channels))[0], theirs.detach())


@each_net
@each_kind
@contrasts
def test_input_x_gradient_is_captums(name, kind, contrasted):
    case = Case(name, kind, contrasted)
    theirs = attr.InputXGradient(case.scalar).attribute(**case.given()).sum(dim=1).detach()
    positive, negative = case.ours(InputXGradient())
    assert_agree(positive - negative, theirs)


@each_net
@each_kind
@contrasts
@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_integrated_gradients_are_captums(name, kind, contrasted, fill: Fill):
    case = Case(name, kind, contrasted)
    theirs, gap = attr.IntegratedGradients(case.scalar).attribute(
        **case.given(),
        baselines=fill_images(case.probes, fill),
        n_steps=8,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    explainer = IntegratedGradients(steps=8, baseline=fill)
    positive, negative = case.ours(explainer)
    assert_agree(positive - negative, theirs.detach().sum(dim=1))
    maps = explainer.explain(
        CountingModel(case.net, similarity=kind),
        case.probes,
        case.references,
        contrast=case.contrast,
        generator=np.random.default_rng(0),
    )
    difference = case.scalar(case.probes, ROWS) - case.scalar(fill_images(case.probes, fill), ROWS)
    expected = (gap.double() / difference.detach().double()).abs()
    torch.testing.assert_close(maps.diagnostics["completeness_gap"], expected, rtol=2e-2, atol=1e-4)


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
            (case.probes + sigma * one).requires_grad_(), abs=False, additional_forward_args=(ROWS,)
        )
        for one in torch.from_numpy(noise)
    ]
    expected = torch.stack(theirs).mean(dim=0).abs().mean(dim=1).detach()
    assert_agree(case.ours(SmoothGrad(draws=4))[0], expected)


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

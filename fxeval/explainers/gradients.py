"""The gradient of the similarity at the probe's own pixels, and three ways to steady it.

They name no layer and need nothing but autograd: the controls that every other gradient explainer
has to beat. Gradients are with respect to images in [0, 1], before the model's own normalisation.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import (
    ExplainerTraits,
    FaceModel,
    Fill,
    Gallery,
    Images,
    Maps,
    Need,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.image_gradients import (
    Slope,
    lent,
    split,
    summed,
    without_void,
)
from fxeval.explainers.objectives import Objective, targets_of, twins
from fxeval.functional.fill_images import fill_images
from fxeval.hooks.layers import black_box, borrowed, lent_module

Channels = Literal["mean", "max"]


@dataclass(frozen=True)
class _Backprop:
    """Base class: one objective, one gradient per pair, the mean of its absolute channels."""

    id: ClassVar[str]
    _source: ClassVar[str]

    objective: str = "native"

    def __post_init__(self) -> None:
        Objective.parse(self.objective, self.id)

    @property
    def traits(self) -> ExplainerTraits:
        """Gradients, and what the objective needs."""
        objective = Objective.parse(self.objective, self.id)
        return ExplainerTraits(
            frozenset[Need]({"gradients"}) | objective.needs,
            takes_centroids=True,
            takes_contrast=objective.takes_contrast,
            source=self._source,
        )

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why this kind of model cannot be explained, or None."""
        return black_box(model)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
        gallery: Gallery | None = None,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe; at most ``CHUNK`` images, of any pairs, pass the model at once.

        A row gets a map of zeros and the state ``no_gradient`` if the objective is flat wherever it
        is differentiated, if the reference is the probe itself, or if no pixel has a gradient.

        Args:
            model: Must have a module, which is restored afterwards.
            probes: (N, 3, H, W) in [0, 1].
            references: (N, 3, H, W), or (N, R, 3, H, W) for centroids.
            contrast: (N, 3, H, W) nonmates, or None.
            generator: Read by ``smoothgrad`` alone, never advanced.
            gallery: For objectives that need one.

        Returns:
            SaliencyMaps with (N, H, W) maps, not normalised.

        Raises:
            ExplainerContractError: If the model is a black box or not differentiable, or if the
                objective lacks what it needs.
            ModelContractError: If embeddings are not finite (n, D) tensors.
        """
        module = lent_module(self.id, model)
        objective = Objective.parse(self.objective, self.id)
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            targets = targets_of(model, references, contrast, gallery)
            slope = Slope(self.id, model, objective, targets)
            images = lent(model, probes)
            gradients, is_flat = self._gradients(slope, images, generator)
            if contrast is None and objective.name != "arc_softmax":
                is_flat = is_flat | twins(probes, references).to(is_flat.device)
            positive, negative = self._maps(gradients, images)
            diagnostics = self._diagnostics(slope, images, positive, negative)
        is_dead = (gradients == 0).flatten(1).all(dim=1)
        return without_void(positive, negative, is_flat, is_dead, diagnostics)

    def _gradients(
        self, slope: Slope, probes: Images, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return (n, 3, H, W) float64 gradients and, (n,) bool, where the objective is flat."""
        return summed(slope, probes, torch.ones(1), lambda pairs, _steps: probes[pairs])

    def _maps(self, gradients: Tensor, probes: Images) -> tuple[Maps, Maps | None]:
        return gradients.abs().mean(dim=1).float(), None

    def _diagnostics(
        self, slope: Slope, probes: Images, positive: Maps, negative: Maps | None
    ) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class Gradient(_Backprop):
    """The size of the similarity's gradient at each pixel.

    Attributes:
        objective: What is differentiated (:class:`fxeval.explainers.objectives.Objective`).
        channels: A pixel's value is the ``mean`` or the ``max`` of the absolute gradients of its
            three channels.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: gradient, params: {channels: max}}

    Source:
        Simonyan, Vedaldi and Zisserman, ICLR workshop 2014, sec. 3.1 (there: ``max``).
    """

    id: ClassVar[str] = "gradient"
    _source: ClassVar[str] = "Simonyan et al., ICLR workshop 2014, sec. 3.1"

    channels: Channels = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of(self.id, "channels", self.channels, get_args(Channels))

    def _maps(self, gradients: Tensor, probes: Images) -> tuple[Maps, Maps | None]:
        if self.channels == "mean":
            return super()._maps(gradients, probes)
        return gradients.abs().amax(dim=1).float(), None


@dataclass(frozen=True)
class InputXGradient(_Backprop):
    """Pixel times gradient, summed over the channels: each pixel's share in a linear model.

    Signed. A black pixel always gets 0.

    Attributes:
        objective: What is differentiated (:class:`fxeval.explainers.objectives.Objective`).

    Example:
        An entry under ``explainers`` in a suite::

            - {use: input_x_gradient, params: {objective: cos}}

    Source:
        Shrikumar et al., "Not just a black box", 2016, arXiv 1605.01713, sec. 2.
    """

    id: ClassVar[str] = "input_x_gradient"
    _source: ClassVar[str] = "Shrikumar et al., arXiv 1605.01713, 2016, sec. 2"

    def _maps(self, gradients: Tensor, probes: Images) -> tuple[Maps, Maps | None]:
        return split((probes * gradients).sum(dim=1))


@dataclass(frozen=True)
class IntegratedGradients(_Backprop):
    """Mean gradient on the line from a baseline to the probe, times the probe minus the baseline.

    Signed. The map's sum, positive minus negative, is ``J(probe) - J(baseline)`` up to the error of
    the Gauss-Legendre sum that approximates the integral. The diagnostic ``completeness_gap`` =
    ``|sum - difference| / |difference|`` reports that error.

    Attributes:
        objective: What is differentiated (:class:`fxeval.explainers.objectives.Objective`).
        steps: Points of the Gauss-Legendre sum.
        baseline: A fill (:func:`fxeval.functional.fill_images.fill_images`): the image without
            information.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: integrated_gradients, params: {steps: 50, baseline: blur}}

    Source:
        Sundararajan, Taly and Yan, ICML 2017, eq. 1 and 3.
    """

    id: ClassVar[str] = "integrated_gradients"
    _source: ClassVar[str] = "Sundararajan et al., ICML 2017, eq. 1"

    steps: int = 32
    baseline: Fill = "black"

    def __post_init__(self) -> None:
        super().__post_init__()
        _whole(self.id, "steps", self.steps)
        _one_of(self.id, "baseline", self.baseline, get_args(Fill))

    def _gradients(
        self, slope: Slope, probes: Images, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        along = torch.from_numpy((1 + nodes) / 2).to(probes)  # fractions of the way
        starts = fill_images(probes, self.baseline)

        def point(pairs: Tensor, steps: Tensor) -> Images:
            way = probes[pairs] - starts[pairs]
            return starts[pairs] + along[steps][:, None, None, None] * way

        return summed(slope, probes, torch.from_numpy(weights / 2), point)

    def _maps(self, gradients: Tensor, probes: Images) -> tuple[Maps, Maps | None]:
        way = probes - fill_images(probes, self.baseline)
        return split((way * gradients).sum(dim=1))

    def _diagnostics(
        self, slope: Slope, probes: Images, positive: Maps, negative: Maps | None
    ) -> dict[str, Tensor]:
        assert negative is not None
        starts = fill_images(probes, self.baseline)
        difference = slope.values(probes) - slope.values(starts)
        total = (positive.double() - negative.double()).sum(dim=(1, 2))
        # A flat objective has no difference to divide by.
        return {"completeness_gap": (total - difference).abs() / difference.abs().clamp_min(1e-12)}


@dataclass(frozen=True)
class SmoothGrad(_Backprop):
    """The mean gradient at noisy copies of the probe, and its size at each pixel.

    All pairs share the same noise; ``draws`` images of noise are held in memory. Noisy copies are
    not clipped to [0, 1]. A pixel's value is the mean of its channels' absolute values.

    Attributes:
        objective: What is differentiated (:class:`fxeval.explainers.objectives.Objective`).
        draws: Number of noisy copies of each probe.
        noise: Standard deviation of the Gaussian noise, as a fraction of the probe's range
            (largest minus smallest value).

    Example:
        An entry under ``explainers`` in a suite::

            - {use: smoothgrad, params: {draws: 50, noise: 0.1}}

    Source:
        Smilkov et al., "SmoothGrad", 2017, arXiv 1706.03825, sec. 3.
    """

    id: ClassVar[str] = "smoothgrad"
    _source: ClassVar[str] = "Smilkov et al., arXiv 1706.03825, 2017, sec. 3"

    draws: int = 25
    noise: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        _whole(self.id, "draws", self.draws)
        if (
            isinstance(self.noise, bool)
            or not isinstance(self.noise, int | float)
            or not 0 < self.noise < np.inf
        ):
            raise ExplainerContractError(
                f"{self.id}: noise must be a finite fraction of the probe's range above 0, got "
                f"{self.noise!r}."
            )

    def _gradients(
        self, slope: Slope, probes: Images, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        shape = (self.draws, *probes.shape[1:])
        # A copy: the next call must draw the same noise.
        drawn = deepcopy(generator).standard_normal(shape, dtype=np.float32)
        noise = torch.from_numpy(drawn).to(probes.device)
        flat = probes.flatten(1)
        sigma = (self.noise * (flat.amax(dim=1) - flat.amin(dim=1)))[:, None, None, None]

        def point(pairs: Tensor, steps: Tensor) -> Images:
            return probes[pairs] + sigma[pairs] * noise[steps]

        return summed(slope, probes, torch.full((self.draws,), 1 / self.draws), point)


def _one_of(id: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse a parameter that is not one of the allowed words."""
    if value not in allowed:
        raise ExplainerContractError(
            f"{id}: {name} must be one of {', '.join(allowed)}, got {value!r}."
        )


def _whole(id: str, name: str, value: object) -> None:
    """Refuse a parameter that is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ExplainerContractError(
            f"{id}: {name} must be a whole number of at least 1, got {value!r}."
        )

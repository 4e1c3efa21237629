"""xSSAB and FGGB: gradients of the embedding's dimensions, those for and those against a match.

Both decompose the similarity of unit embeddings, ``c = sum_k w_k`` with ``w_k = e1_k e2_k``, and
compare every term with its share of the operating threshold, tau / D: a dimension whose term is at
least that large argues for the match. Gradients pass through the L2 normalisation.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import Embeddings, ExplainerTraits, FaceModel, Images, Maps, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.image_gradients import (
    CHUNK,
    pulled_back,
    split,
    traced,
    without_void,
)
from fxeval.explainers.objectives import FLAT, targets_of, twins
from fxeval.hooks.layers import black_box, borrowed, lent_module

NATIVE_HEIGHT = 112  # the crop height that the blur's numbers are given for

Form = Literal["combined", "arguments"]


@dataclass(frozen=True)
class XSSAB:
    """xSSAB: gradients of the dimensions that argue for a match, and of those that argue against.

    ``G+ = d/dx sum_k w+_k e1_k`` with ``w+_k = e2_k`` where ``e1_k e2_k >= tau / D``, else 0, and
    ``G-`` of the other dimensions. An argument map is the mean of |G| over the channels. Signed:

    * ``combined``: ``d = |G+| - |G-|``; positive = max(d, 0), negative = max(-d, 0). The positive
      map ranks the pixels where the argument for the match outweighs the one against it.
    * ``arguments``: positive = |G+|, negative = |G-|, as they are.

    Where the reference is the probe, ``G+ = -G-``: ``combined`` is zero everywhere and gets the
    state ``no_gradient``; ``arguments`` is not. The paper differentiates at the normalised input,
    which gives the same maps up to a factor if all channels are scaled alike.

    Attributes:
        operating_threshold: tau, a cosine in [-1, 1]; None = the model's own. It must be given for
            models that compare by Euclidean distance, which have no cosine threshold.
        form: See above.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: xssab, params: {operating_threshold: 0.3, form: arguments}}

    Source:
        Huber et al., WACV 2024, sec. 3.
    """

    id: ClassVar[str] = "xssab"
    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"gradients"},
        takes_centroids=True,
        source="Huber et al., WACV 2024 (xSSAB), sec. 3",
    )

    operating_threshold: float | None = None
    form: Form = "combined"

    def __post_init__(self) -> None:
        _check_threshold(self.id, self.operating_threshold)
        if self.form not in get_args(Form):
            raise ExplainerContractError(
                f"{self.id}: form must be one of {', '.join(get_args(Form))}, got {self.form!r}."
            )

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why this kind of model cannot be explained, or None."""
        return black_box(model)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by two backward passes, ``CHUNK`` pairs at a time; nothing is drawn.

        Returns:
            SaliencyMaps with (N, H, W) positive and negative maps, not normalised, and the
            diagnostic ``supporting_share``, the share of dimensions that argue for the match.

        Raises:
            ExplainerContractError: If the model is a black box or not differentiable, if there is
                no operating threshold, or if a contrast is given.
            ModelContractError: If embeddings are not finite (n, D) tensors.
        """
        module, tau = _admitted(self.id, model, self.operating_threshold, contrast)
        parts = []
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            units = F.normalize(targets_of(model, references).reference.double(), dim=1, eps=1e-12)
            for start in range(0, max(1, len(probes)), CHUNK):
                rows = slice(start, start + CHUNK)
                parts.append(self._arguments(model, probes[rows], units[rows], tau))
        pro, contra, share = (torch.cat(one) for one in zip(*parts, strict=True))
        largest = torch.maximum(pro, contra).amax(dim=(1, 2))
        is_flat = torch.zeros_like(largest, dtype=torch.bool)
        if self.form == "combined":
            difference = pro - contra
            is_flat = difference.abs().amax(dim=(1, 2)) <= FLAT * largest
            is_flat |= twins(probes, references).to(is_flat.device)
            pro, contra = split(difference)
        return without_void(
            pro, contra, is_flat & (largest > 0), largest == 0, {"supporting_share": share}
        )

    def _arguments(
        self, model: FaceModel, probes: Images, units: Tensor, tau: float
    ) -> tuple[Maps, Maps, Tensor]:
        """Return |G+| and |G-|, both (n, H, W), and the share of supporting dimensions (n,)."""
        leaf, embeddings = traced(self.id, model, probes)
        units = units.to(embeddings.device)
        unit = F.normalize(embeddings.detach().double(), dim=1, eps=1e-12)
        supports = unit * units >= tau / units.shape[1]
        pro, contra = (
            pulled_back(leaf, embeddings, through_unit(embeddings, units * chosen), keep=True)
            .abs()
            .mean(dim=1)
            for chosen in (supports, ~supports)
        )
        return pro, contra, supports.float().mean(dim=1)


@dataclass(frozen=True)
class FGGB:
    """FGGB: one gradient map per dimension of the embedding, weighted by what it adds to a match.

    ``S = sum_k g_k (w_k - tau / D)``: ``g_k`` is the mean over the channels of ``|d e1_k / dx|``,
    divided by its L2 norm plus 1e-8, so that all dimensions contribute equally strong maps. Signed:
    positive = max(S, 0), negative = max(-S, 0). Where the reference is the probe,
    ``w_k = e1_k^2`` and the map is well defined: only a probe whose gradients are all zero gets
    ``no_gradient``.

    Attributes:
        operating_threshold: tau, a cosine in [-1, 1]; None = the model's own. It must be given for
            models that compare by Euclidean distance, which have no cosine threshold.
        post_blur: Blur S with a Gaussian before it is split, kernel 25 and sigma 5 pixels at
            H = 112; both scale with H / 112.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: fggb, params: {post_blur: true}}

    Source:
        Lu et al., FG 2024, arXiv 2403.04549, sec. 3; post-blur: FAME, CVPRW 2026.
    """

    id: ClassVar[str] = "fggb"
    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"gradients"},
        takes_centroids=True,
        source="Lu et al., FG 2024 (FGGB), arXiv 2403.04549, sec. 3",
    )

    operating_threshold: float | None = None
    post_blur: bool = False

    def __post_init__(self) -> None:
        _check_threshold(self.id, self.operating_threshold)
        if not isinstance(self.post_blur, bool):
            raise ExplainerContractError(
                f"{self.id}: post_blur must be true or false, got {self.post_blur!r}."
            )

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why this kind of model cannot be explained, or None."""
        return black_box(model)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by D gradients, ``CHUNK`` of them at a time; nothing is drawn.

        Memory: the graph of ``CHUNK`` images and their gradients, whatever N and D are.

        Returns:
            SaliencyMaps with (N, H, W) positive and negative maps, not normalised, and the
            diagnostic ``supporting_share``, the share of dimensions with ``w_k >= tau / D``.

        Raises:
            ExplainerContractError: If the model is a black box or not differentiable, if there is
                no operating threshold, or if a contrast is given.
            ModelContractError: If embeddings are not finite (n, D) tensors.
        """
        module, tau = _admitted(self.id, model, self.operating_threshold, contrast)
        parts = []
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            units = F.normalize(targets_of(model, references).reference.double(), dim=1, eps=1e-12)
            for start in range(0, max(1, len(probes)), CHUNK):
                rows = slice(start, start + CHUNK)
                parts.append(self._sums(model, probes[rows], units[rows], tau))
        sums, share, is_dead = (torch.cat(one) for one in zip(*parts, strict=True))
        if self.post_blur:
            sums = _blurred(sums)
        positive, negative = split(sums)
        is_flat = torch.zeros_like(is_dead)
        return without_void(positive, negative, is_flat, is_dead, {"supporting_share": share})

    def _sums(
        self, model: FaceModel, probes: Images, units: Tensor, tau: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return S (n, H, W), the share of supporting dimensions (n,), and no gradient (n,) bool.

        The batch holds several copies of each probe, and each copy carries a different dimension
        back. One ordinary backward pass then does what
        ``torch.autograd.grad(is_grads_batched=True)`` does, but also for modules that vmap cannot
        trace, and with faster kernels; one forward pass of the copies serves all D dimensions.
        """
        n, D = units.shape
        copies = min(D, max(1, CHUNK // max(1, n)))
        leaf, embeddings = traced(self.id, model, probes.repeat_interleave(copies, dim=0))
        units = units.to(embeddings.device)
        unit = F.normalize(embeddings.detach()[::copies].double(), dim=1, eps=1e-12)
        excess = unit * units - tau / D
        sums = excess.new_zeros((n, leaf.shape[2] * leaf.shape[3]))
        is_dead = torch.ones(n, dtype=torch.bool, device=leaf.device)
        each = torch.eye(D, dtype=torch.float64, device=leaf.device)
        for first in range(0, D, copies):
            # The last group may have fewer dimensions than copies: the others carry zeros.
            carried = F.pad(each[first : first + copies], (0, 0, 0, max(0, first + copies - D)))
            pull = through_unit(embeddings, carried.repeat(n, 1))
            gradient = pulled_back(leaf, embeddings, pull, keep=first + copies < D)
            maps = gradient.abs().mean(dim=1).view(n, copies, sums.shape[1])
            norms = torch.linalg.vector_norm(maps, dim=2, keepdim=True)
            is_dead &= (norms == 0).flatten(1).all(dim=1)
            weights = excess @ carried.T  # (n, copies)
            sums += torch.einsum("nc,ncp->np", weights, (maps / (norms + 1e-8)).double())
        share = (excess >= 0).float().mean(dim=1)
        return sums.view(n, *leaf.shape[2:]), share, is_dead


def through_unit(embeddings: Embeddings, pull: Tensor) -> Tensor:
    """Carry (n, D) pulls on the unit embeddings back to the raw ones; returns (n, D) float64.

    The Jacobian of ``u = e / |e|`` is ``(1 - u u^T) / |e|``.
    """
    raw = embeddings.detach().double()
    length = torch.linalg.vector_norm(raw, dim=1, keepdim=True).clamp_min(1e-12)
    unit = raw / length
    down: Tensor = (pull - unit * (unit * pull).sum(dim=1, keepdim=True)) / length
    return down


def _admitted(
    id: str, model: FaceModel, operating_threshold: float | None, contrast: Images | None
) -> tuple[torch.nn.Module, float]:
    """Return the module and tau, or refuse the model, the missing tau or the contrast."""
    module = lent_module(id, model)
    if contrast is not None:
        raise ExplainerContractError(
            f"{id}: explains one pair by its operating threshold and takes no contrast. Explain "
            "the nonmated pair separately, or use an explainer with an objective."
        )
    if operating_threshold is not None:
        return module, operating_threshold
    if model.similarity != "cosine":
        raise ExplainerContractError(
            f"{id}: operating_threshold must be given: model '{model.name}' is compared by "
            f"{model.similarity}, so its own operating threshold is not a cosine. Give a cosine."
        )
    if model.operating_threshold is None:
        raise ExplainerContractError(
            f"{id}: operating_threshold must be given: model '{model.name}' has none of its own. "
            "Give a cosine."
        )
    return module, model.operating_threshold


def _check_threshold(id: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise ExplainerContractError(
            f"{id}: operating_threshold must be a cosine in [-1, 1], or nothing for the model's "
            f"own, got {value!r}."
        )


def _blurred(maps: Maps) -> Maps:
    """Blur (n, H, W) maps, the border reflected about the outermost pixel as in the fills."""
    scale = maps.shape[1] / NATIVE_HEIGHT
    radius = min(max(1, math.floor(12 * scale + 0.5)), min(maps.shape[1:]) - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-(offsets**2) / (2 * (5.0 * scale) ** 2))
    kernel = kernel / kernel.sum()
    framed = F.pad(maps[:, None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(framed, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]

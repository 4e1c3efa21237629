"""Class activation maps for face verification: the parts of a layer that make two faces similar.

Activations are a layer's raw output, before any layer that follows. In networks with PReLU some are
negative, which the formulas of Grad-CAM++ and LayerCAM do not allow for: every map comes with the
share of negative activations.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fxeval.errors import ExplainerContractError
from fxeval.explainers.activation_maps import ActivationMaps
from fxeval.explainers.objectives import Objective

Variant = Literal["library", "authors"]
_EPSILON = 1e-6  # of pytorch-grad-cam's denominators


@dataclass(frozen=True)
class _OfObjective(ActivationMaps):
    """A CAM whose objective can be chosen."""

    objective: str = "native"

    def chosen_objective(self) -> Objective:
        """Return the objective, or refuse it."""
        return Objective.parse(self.objective, self.id)


@dataclass(frozen=True)
class GradCAM(_OfObjective):
    """Grad-CAM of the similarity: channels weighted by their mean gradient, summed, negatives cut.

    ``M = ReLU(sum_k alpha_k A^k)`` with ``alpha_k`` the spatial mean of ``dJ/dA^k`` and ``A`` the
    activations. Maps of one layer are not scaled. An increasing transform of the similarity does
    not change the order of the pixels.

    Attributes:
        layer: Name or rule of one layer or several; None = the last to finish whose map is at
            least 4 x 4 pixels.
        reading: How the named layers are read, such as ``tokens``; None = as found.
        objective: What is differentiated (:class:`fxeval.explainers.objectives.Objective`).

    Example:
        An entry under ``explainers`` in a suite::

            - {use: gradcam, params: {layer: "stage[-1]", objective: cos}}

    Source:
        Selvaraju et al., ICCV 2017, sec. 3.
    """

    id: ClassVar[str] = "gradcam"
    _source: ClassVar[str] = "Selvaraju et al., ICCV 2017, sec. 3"

    def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return (n, h, w) maps, >= 0."""
        alpha = gradients.mean(dim=(2, 3))  # (n, C)
        return torch.einsum("nc,nchw->nhw", alpha, activations).relu()


@dataclass(frozen=True)
class GradCAMpp(_OfObjective):
    """Grad-CAM++ of the similarity: channels weighted by a weighted sum of positive gradients.

    ``M = ReLU(sum_k w_k A^k)``, ``w_k = sum_ij a_ij ReLU(g_ij)``, ``a = g^2 / (2 g^2 + S_k g^3)``
    with ``g = dJ/dA^k`` and ``S_k`` the sum of ``A^k``; a is 0 where g is. The order of pixels
    depends on the scale of the objective, so a margin matters here. Where ``S_k < 0`` the
    denominator can be negative, and maps of zeros occur.

    Attributes:
        layer: Name or rule of one layer or several; None = the last to finish whose map is at
            least 4 x 4 pixels.
        reading: How the named layers are read, such as ``tokens``; None = as found.
        objective: What is differentiated (:class:`fxeval.explainers.objectives.Objective`).
        variant: ``library`` adds 1e-6 to the denominator, as pytorch-grad-cam does. ``authors``
            replaces a denominator of 0 by 1 and divides a by its sum over the places with g > 0;
            the paper's factor exp(J), one number per map, does not change the order of the pixels
            and is left out.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: gradcampp, params: {layer: "stage[-1]", variant: authors}}

    Source:
        Chattopadhyay et al., WACV 2018, eq. 19.
    """

    id: ClassVar[str] = "gradcampp"
    _source: ClassVar[str] = "Chattopadhyay et al., WACV 2018, eq. 19"

    variant: Variant = "library"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in get_args(Variant):
            raise ExplainerContractError(
                f"{self.id}: variant must be library or authors, got {self.variant!r}."
            )

    def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return (n, h, w) maps, >= 0."""
        rising = gradients.relu()
        square = gradients.square()
        total = activations.sum(dim=(2, 3), keepdim=True)
        denominator = 2 * square + total * square * gradients
        if self.variant == "library":
            share = square / (denominator + _EPSILON)
        else:
            share = torch.where(rising > 0, square / _or_one(denominator), 0.0)
            share = share / _or_one(share.sum(dim=(2, 3), keepdim=True))
        weights = (rising * share).sum(dim=(2, 3))  # (n, C)
        return torch.einsum("nc,nchw->nhw", weights, activations).relu()


@dataclass(frozen=True)
class LayerCAM(_OfObjective):
    """LayerCAM of the similarity: every activation weighted by its own positive gradient, summed.

    ``M = sum_k ReLU(dJ/dA^k) * A^k``, place by place. Maps of one layer are not scaled. An
    increasing transform of the similarity does not change the order of the pixels. The authors
    advise against layers right before a stride of 2, where grid patterns appear.

    Attributes:
        layer: Name or rule of one layer or several; None = the last to finish whose map is at
            least 4 x 4 pixels.
        reading: How the named layers are read, such as ``tokens``; None = as found.
        objective: What is differentiated (:class:`fxeval.explainers.objectives.Objective`).
        outer_relu: Cut off negative sums, as pytorch-grad-cam does. The authors' code does not; if
            activations are negative, the sums can be too.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: layercam, params: {layer: ["stage[-2]", "stage[-1]"]}}

    Source:
        Jiang et al., IEEE TIP 2021, sec. III.
    """

    id: ClassVar[str] = "layercam"
    _source: ClassVar[str] = "Jiang et al., IEEE TIP 2021, sec. III"

    outer_relu: bool = True

    def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return (n, h, w) maps, >= 0 with the outer ReLU."""
        sums = (gradients.relu() * activations).sum(dim=1)
        return sums.relu() if self.outer_relu else sums


def _or_one(tensor: Tensor) -> Tensor:
    return torch.where(tensor == 0, 1.0, tensor)

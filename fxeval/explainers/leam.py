"""LEAM: LayerCAM of the embedding distance at many layers, averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from fxeval.errors import ExplainerContractError
from fxeval.explainers.activation_maps import ActivationMaps
from fxeval.explainers.objectives import Objective
from fxeval.hooks.layer_info import LayerInfo
from fxeval.hooks.layers import NoDefaultError, candidates, convolutions, cut_patches_only, resolve

T = TypeVar("T")
LAYERS = 9  # layers of a model that are used by default


@dataclass(frozen=True)
class LEAM(ActivationMaps):
    """LEAM: the mean of the LayerCAM maps of many convolutions, each scaled to [0, 1].

    ``M = ReLU(sum_k ReLU(g^k) * A^k)`` at each layer, with ``g`` the gradient of the cosine of
    probe and reference, whatever the model's native similarity. The publication differentiates the
    loss ``L = 1 - cos`` and leaves its sign open.

    Attributes:
        layer: Names or rules; None = 9 convolutions spread evenly over the model's ``conv[i]``
            in order of execution, including the first and the last, or all if there are fewer.
        reading: How the named layers are read, such as ``tokens``; None = as found.
        sign: 1 ascends the similarity; -1 takes the gradient of L as it is, which shows what makes
            the two faces less alike.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: leam, params: {layer: ["conv[0]", "conv[-1]"]}}

    Source:
        LEAM, arXiv 2509.17457, 2025, which names nine layers per model; their even spread and the
        mean of scaled maps are this implementation's. LayerCAM: Jiang et al., IEEE TIP 2021.
    """

    id: ClassVar[str] = "leam"
    _source: ClassVar[str] = "LEAM, arXiv 2509.17457, 2025"
    is_scaled: ClassVar[bool] = True

    sign: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.sign, bool) or self.sign not in (1, -1):
            raise ExplainerContractError(f"leam: sign must be 1 or -1, got {self.sign!r}.")
        super().__post_init__()

    def chosen_objective(self) -> Objective:
        """Return the loss as an objective: descended for sign 1, ascended for -1."""
        return Objective("one_minus_cos", sign=self.sign)

    def chosen_layers(self, layers: Sequence[LayerInfo]) -> tuple[LayerInfo, ...]:
        """Return the layers asked for, or the spread."""
        if self.layer is not None:
            return resolve(self.layer, layers, self.id, self.reading)
        found = convolutions(layers)
        if not found:
            raise NoDefaultError(
                "leam: the model has no convolution of at least 3 x 3 pixels, so there is no "
                "default. Name layers, or use an explainer that only asks for embeddings."
            )
        if cut_patches_only(layers):
            raise NoDefaultError(
                f"leam: the convolutions of the model, {candidates(found)}, only cut the image "
                "into patches, so there is no default. Name layers, such as "
                f"{candidates([one for one in layers if one.may_be_meant(3)][-3:])}."
            )
        return spread(found)

    def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return (n, h, w) maps of one layer, >= 0."""
        return (gradients.relu() * activations).sum(dim=1).relu()


def spread(names: Sequence[T], count: int = LAYERS) -> tuple[T, ...]:
    """Return ``count`` items at even distances, rounded down, first and last included.

    >>> spread("abcdefghijklmnop", 4)
    ('a', 'f', 'k', 'p')

    Args:
        names: In order of execution.
        count: At least 2; all if there are no more.
    """
    if len(names) <= count:
        return tuple(names)
    return tuple(names[step * (len(names) - 1) // (count - 1)] for step in range(count))

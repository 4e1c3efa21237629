"""Attention rollout: how much each place of the image reaches the embedding through attention."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fxeval.contracts import ExplainerTraits, FaceModel, Images, MapLayer, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.activation_maps import upsampled
from fxeval.hooks.attention import (
    Attention,
    NoAttentionError,
    among_tokens,
    check_sequence,
    reading_of,
    rows_in_use,
    watch,
)
from fxeval.hooks.layers import black_box, borrowed, layers_of, lent_module, on_device_of
from fxeval.hooks.readings import Reading, check_reading
from fxeval.hooks.returned import check_embeddings

Heads = Literal["mean", "min", "max"]

_NEEDS = "attention"


@dataclass(frozen=True)
class Rollout:
    """Attention rollout: the attention matrices of all layers, multiplied.

    Of each layer, the heads are combined into one (T, T) matrix A, the identity is added for the
    shortcut, and the rows are divided by their sums: ``A' = (A + I) / rowsum(A + I)``. The product
    ``A'_L ... A'_1`` says how much of each token at the entrance reaches each token at the end. The
    map is the row of the class token, over the places; tokens in front (class, registers) are left
    out. In a network whose embedding is made of the places, it is the mean of the places' rows. A
    probe finds which it is: the mean of the rows of all tokens is taken on whose output of the last
    attention the embedding depends.

    **The reference is ignored**, and so is all that follows attention: the map explains what the
    probe's embedding is made of, not why two faces are alike, and it is the same for every
    reference. Perceptrons, values and projections do not count.

    It needs attention among all tokens, in any form: ``F.scaled_dot_product_attention``,
    ``nn.MultiheadAttention``, ``nn.TransformerEncoder``, or a softmax. Convolutional networks,
    attention within windows (Swin) or among channels, heads with a softmax each, and kernels that
    hide the matrix are not supported. Images pass the network one at a time.

    Diagnostic ``share_in_front``: in [0, 1], the share of the row that lies on tokens in front.

    Attributes:
        heads: How heads are combined: their ``mean``, as published, ``min`` or ``max``.
        reading: Which tokens are places, such as ``tokens 8x8``; None = as found.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: rollout, params: {heads: max}}

    Source:
        Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, sec. 3.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"layers"}, takes_centroids=True, source="Abnar and Zuidema, ACL 2020, sec. 3"
    )

    heads: Heads = "mean"
    reading: str | None = None

    def __post_init__(self) -> None:
        if self.heads not in get_args(Heads):
            raise ExplainerContractError(
                f"rollout: heads must be one of {', '.join(get_args(Heads))}, got {self.heads!r}."
            )
        check_reading(self.reading, "attention", "rollout")

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why the model cannot be explained: a black box, or no attention to be seen."""
        if model.module is None:
            return black_box(model, _NEEDS)
        try:
            # A copy: a forward pass that leaves traces is the network's fault, told by explain.
            copy = deepcopy(model.module)
            with borrowed(copy), torch.inference_mode(False):
                self._way(copy, on_device_of(copy, torch.zeros(1, 3, *model.crop.size)))
        except NoAttentionError as error:
            return error.detail.removeprefix("rollout: ")
        except Exception:  # a network that fails is not the explainer's fault
            return None
        return None

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe by itself; nothing is drawn from ``generator``.

        Args:
            model: Must have a module, which is restored afterwards.
            probes: (N, 3, H, W) in [0, 1].
            references: (N, 3, H, W) or (N, R, 3, H, W); ignored but for their shape.
            contrast: Not supported.
            generator: Not used.

        Returns:
            SaliencyMaps with (N, H, W) maps >= 0, upsampled from the grid of the places.

        Raises:
            ExplainerContractError: If the model is a black box or its attention cannot be seen, or
                if a contrast is given.
            ModelContractError: If embeddings are not finite (1, D) tensors.
        """
        module = lent_module("rollout", model, _NEEDS)
        if contrast is not None:
            raise ExplainerContractError(
                "rollout: it takes no contrast, as it explains the probe's embedding and no pair. "
                "Leave it out."
            )
        if references.shape[:1] + references.shape[-3:] != probes.shape:
            raise ExplainerContractError(
                f"rollout: expected references of the probes' shape {tuple(probes.shape)}, got "
                f"{tuple(references.shape)}."
            )
        size = probes.shape[2:]
        if len(probes) == 0:
            return SaliencyMaps(probes.new_zeros((0, *size)))
        with borrowed(module), torch.inference_mode(False), torch.no_grad():
            way = self._way(module, on_device_of(module, probes[:1]))
            rows = [
                self._row(model.name, module, on_device_of(module, probe[None]), way)
                for probe in probes
            ]
        kept = torch.stack(rows)
        places = kept[:, way.reading.in_front :]
        coarse = places.reshape(len(probes), way.reading.height, way.reading.width)
        return SaliencyMaps(
            upsampled(coarse, size).float(),
            diagnostics={"share_in_front": kept[:, : way.reading.in_front].sum(dim=1).float()},
            layers=way.layers,
        )

    def _way(self, module: nn.Module, like: Images) -> "_Way":
        """Find the attention of a borrowed network with an image of noise, never the caller's."""
        noise = torch.rand(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
        seen = watch(module, noise.clone())
        numbers = among_tokens("rollout", seen)
        check_sequence("rollout", module, noise, numbers)
        found = [seen.softmaxes[number] for number in numbers]
        tokens = found[0].weights.shape[-1]
        size = (int(like.shape[2]), int(like.shape[3]))
        reading = reading_of("rollout", tokens, layers_of(module, noise), size, self.reading)
        rows = rows_in_use("rollout", module, noise, numbers[-1], reading)
        grid = (reading.height, reading.width)
        names = dict.fromkeys((one.layer, tuple(one.matrices.shape)) for one in found)
        layers = tuple(MapLayer(name, shape, "tokens", grid) for name, shape in names)
        return _Way(tuple(numbers), reading, tuple(rows), layers)

    def _row(self, name: str, module: nn.Module, image: Images, way: "_Way") -> Tensor:
        seen = watch(module, image)
        check_embeddings(name, seen.embeddings, 1)
        if tuple(among_tokens("rollout", seen)) != way.numbers:
            raise ExplainerContractError(
                f"rollout: model '{name}' does not compute the same attention for every image."
            )
        rolled = rollout([self._combined(seen.softmaxes[number]) for number in way.numbers])
        return rolled[list(way.rows)].mean(dim=0)

    def _combined(self, attention: Attention) -> Tensor:
        matrices = attention.matrices.double()
        if self.heads == "mean":
            return matrices.mean(dim=0)
        return matrices.amin(dim=0) if self.heads == "min" else matrices.amax(dim=0)


def rollout(attention: Sequence[Tensor]) -> Tensor:
    """Return the (T, T) product of (T, T) attention matrices, each with the identity added.

    >>> rollout([torch.tensor([[0.0, 1.0], [1.0, 0.0]])] * 2).tolist()
    [[0.5, 0.5], [0.5, 0.5]]

    Args:
        attention: In the order of execution, >= 0.
    """
    found = torch.eye(attention[0].shape[-1]).to(attention[0])
    for one in attention:
        mixed = one + torch.eye(len(one)).to(one)
        found = mixed / mixed.sum(dim=1, keepdim=True) @ found
    return found


@dataclass(frozen=True)
class _Way:
    """What a network's attention is read by, the same for every image.

    Attributes:
        numbers: Which softmaxes are attention among all tokens, in order.
        reading: Which of them are places.
        rows: Which of them the embedding depends on after the last attention.
        layers: For the record.
    """

    numbers: tuple[int, ...]
    reading: Reading
    rows: tuple[int, ...]
    layers: tuple[MapLayer, ...]

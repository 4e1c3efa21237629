"""Gradients of an objective with respect to images: from the embedding down to the pixels.

They are with respect to images in [0, 1], before the model's own normalisation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fxeval.contracts import Embeddings, FaceModel, Images, Maps, RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.objectives import FLAT_REASON, Objective, Pull, Targets
from fxeval.hooks.returned import check_embeddings
from fxeval.models.loading import device_of

CHUNK = 32  # images in one forward and backward pass
DEAD_REASON = "no gradient at the image"


@dataclass(frozen=True, eq=False)
class Slope:
    """An objective of n probes, to be differentiated at images near them.

    Attributes:
        id: The explainer's id, for messages.
        model: Has a module.
        objective: The objective to ascend.
        targets: Of the n probes.
    """

    id: str
    model: FaceModel
    objective: Objective
    targets: Targets

    def at(self, images: Images, pairs: Tensor) -> tuple[Tensor, Pull]:
        """Differentiate at some images.

        Args:
            images: (b, 3, H, W), each in place of a probe; at most ``CHUNK`` for bounded memory.
            pairs: (b,) int64, the number of the probe that each image replaces.

        Returns:
            (b, 3, H, W) gradients, and the objective's values with its pull on the embeddings.
        """
        leaf, embeddings = traced(self.id, self.model, images)
        pull = self.objective.pull(self.model.similarity, embeddings, _rows(self.targets, pairs))
        return pulled_back(leaf, embeddings, pull.gradient), pull

    def values(self, images: Images) -> Tensor:
        """Return the objective's values (n,), float64, at n images in the place of the probes."""
        assert self.model.module is not None
        parts = []
        for rows in torch.split(torch.arange(len(images)), CHUNK):
            with torch.no_grad():
                found = self.model.module(lent(self.model, images[rows]))
            check_embeddings(self.model.name, found, len(rows))
            pull = self.objective.pull(self.model.similarity, found, _rows(self.targets, rows))
            parts.append(pull.value)
        return torch.cat(parts)


def summed(
    slope: Slope, probes: Images, weights: Tensor, point: Callable[[Tensor, Tensor], Images]
) -> tuple[Tensor, Tensor]:
    """Sum the gradients at K points of each probe, ``CHUNK`` images at a time across the pairs.

    Args:
        slope: Of the n probes.
        probes: (n, 3, H, W).
        weights: (K,) of the points.
        point: Takes (b,) numbers of pairs and (b,) numbers of points, int64; returns their
            (b, 3, H, W) images.

    Returns:
        (n, 3, H, W) float64, and (n,) bool: the objective is flat at every point.
    """
    sums = torch.zeros_like(probes, dtype=torch.float64)
    is_flat = torch.ones(len(probes), dtype=torch.bool, device=probes.device)
    per_pair = len(weights)
    weights = weights.to(probes.device, torch.float64)
    for numbers in torch.split(torch.arange(len(probes) * per_pair, device=probes.device), CHUNK):
        pairs, steps = numbers // per_pair, numbers % per_pair
        gradients, pull = slope.at(point(pairs, steps), pairs)
        # Pair by pair: index_add_ sums in no fixed order on a GPU.
        for pair in sorted(set(pairs.tolist())):
            mine = pairs == pair
            sums[pair] += torch.einsum(
                "k,kchw->chw", weights[steps[mine]], gradients[mine].double()
            )
            is_flat[pair] &= pull.is_flat[mine].all()
    return sums, is_flat


def traced(id: str, model: FaceModel, images: Images) -> tuple[Images, Embeddings]:
    """Embed with an autograd graph; returns its (n, 3, H, W) leaf and the (n, D) embeddings.

    Raises:
        ExplainerContractError: If the embeddings do not depend differentiably on the images.
        ModelContractError: If they are not a finite (n, D) tensor.
    """
    assert model.module is not None
    leaf = lent(model, images).requires_grad_()
    embeddings: Tensor = model.module(leaf.clone())  # a clone: the module may write to its input
    check_embeddings(model.name, embeddings, len(images))
    if not embeddings.requires_grad:
        raise ExplainerContractError(
            f"{id}: the embedding of model '{model.name}' does not depend differentiably on the "
            "image. Let the module compute with gradients."
        )
    return leaf, embeddings


def pulled_back(
    leaf: Images, embeddings: Embeddings, pull: Tensor, *, keep: bool = False
) -> Tensor:
    """Return the (n, 3, H, W) float32 gradient at the images of an (n, D) pull on the embeddings.

    Args:
        leaf: From :func:`traced`.
        embeddings: From :func:`traced`.
        pull: (n, D), the gradient of what is explained at the raw embeddings.
        keep: Keep the graph for another call.
    """
    (gradient,) = torch.autograd.grad(
        embeddings, leaf, pull.to(embeddings.dtype), retain_graph=keep, materialize_grads=True
    )
    return gradient


def split(signed: Tensor) -> tuple[Maps, Maps]:
    """Split signed maps into evidence for and against, both (n, H, W) float32 and >= 0."""
    return signed.clamp_min(0).float(), (-signed).clamp_min(0).float()


def without_void(
    positive: Maps, negative: Maps | None, is_flat: Tensor, is_dead: Tensor,
    diagnostics: dict[str, Tensor],
) -> SaliencyMaps:  # fmt: skip
    """Return the maps with rows that have no gradient set to zero, and the reason given."""
    reasons = tuple(
        FLAT_REASON if flat else DEAD_REASON if dead else ""
        for flat, dead in zip(is_flat.tolist(), is_dead.tolist(), strict=True)
    )
    states = tuple(RowState.NO_GRADIENT if reason else RowState.OK for reason in reasons)
    is_void = (is_flat | is_dead)[:, None, None]
    return SaliencyMaps(
        positive.masked_fill(is_void, 0.0),
        None if negative is None else negative.masked_fill(is_void, 0.0),
        states,
        reasons,
        diagnostics,
    )


def _rows(targets: Targets, rows: Tensor) -> Targets:
    """Return targets by number; :meth:`Targets.rows` takes slices."""

    def take(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[rows.to(part.device)]

    reference = targets.reference[rows.to(targets.reference.device)]
    return Targets(reference, take(targets.contrast), targets.others, take(targets.is_own))


def lent(model: FaceModel, images: Images) -> Images:
    """Return a float32 copy on the model's device, an ordinary tensor even in inference mode."""
    return images.detach().to(device_of(model), torch.float32, copy=True)

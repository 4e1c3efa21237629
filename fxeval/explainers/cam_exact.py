"""Class activation maps of identities: how much each place adds to the likeness to one of them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import (
    ExplainerTraits,
    FaceModel,
    Images,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.objectives import centroid_embeddings
from fxeval.hooks.layers import (
    borrowed,
    check_spelling,
    lent_module,
    on_device_of,
)
from fxeval.hooks.returned import check_embeddings
from fxeval.hooks.tails import Tail, class_weights, cut_at, divided, tail_of, upsampled, why_no_tail

ROWS = 64  # pairs in one forward pass


@dataclass(frozen=True)
class CAM:
    """Class activation map: the cosine to the reference, divided among the places of a layer.

    An identity is a class whose weight vector is its unit embedding r. Where the embedding e is an
    affine function of a layer's output A, the network's tail, the class's logit falls apart
    exactly: ``cos(e, r) = sum_ij M(i, j) + constant`` with ``M(i, j) = sum_k A_kij V_kij / |e|``
    and V = d(r . e)/dA, r pulled back through the tail. With a tail of global average pooling and a
    linear layer this is Zhou's map; with batch norm, flatten, linear and batch norm, every place
    has weights of its own. Maps are signed (nothing is cut off) and not normalised. That the tail
    is affine, and the only way to the embedding, is tried out on noise at every call.

    For ``neg_l2`` models the class is that of a nearest-centroid classifier, linear too:
    ``-|e - r|^2 + |e|^2 = 2 r . e - |r|^2``; |e|^2, common to all classes, is in no map. A module
    that normalises its embedding is followed up to what it normalises, for cosine models. With a
    contrast, the contrast's map is subtracted. A reference that is the probe has a map as well.

    Attributes:
        layer: A name or rule (:func:`fxeval.hooks.layers.resolve`), of an output of at least
            2 x 2 pixels. None = the last module to finish whose output is at least 3 x 3 pixels and
            has an affine tail.

    Source:
        Zhou et al. 2016, sec. 2; decomposition of flattened heads: algorithms.md 3.8.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"gradients", "layers"},
        takes_centroids=True,
        source="Zhou et al., CVPR 2016, sec. 2",
    )

    layer: str | None = None

    def __post_init__(self) -> None:
        check_spelling(self.layer, "cam")

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why the model has no exact map: a black box, or no layer with an affine tail."""
        return why_no_tail(model, self.layer)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe; ``generator`` is not used: the method draws nothing.

        Returns:
            SaliencyMaps with (N, H, W) signed maps as ``positive``, larger = adds more. Diagnostic
            ``unplaced_share``, 0 to 1: the constant's part of the sum of all absolute parts.

        Raises:
            ExplainerContractError: If the layer cannot be used, or for the reason ``unsupported``
                gives.
        """
        module = lent_module("cam", model)
        maps = [probes.new_zeros((0, *probes.shape[2:]))]
        shares = [probes.new_zeros(0)]
        # Even a caller in inference mode gets gradients; clones are ordinary tensors again.
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            tail = tail_of(model, self.layer, (probes.shape[2], probes.shape[3]), "cam")
            if isinstance(tail, str):
                raise ExplainerContractError(f"cam: {tail}")
            for start in range(0, len(probes), ROWS):
                rows = slice(start, start + ROWS)
                targets = [(1.0, references[rows])]
                if contrast is not None:
                    targets.append((-1.0, contrast[rows]))
                coarse, constant = _decomposed(model, tail, probes[rows], targets)
                maps.append(upsampled(coarse[:, None], probes)[:, 0].float())
                parts = coarse.abs().sum(dim=(1, 2)) + constant.abs()
                shares.append((constant.abs() / parts.clamp_min(1e-300)).float())
        device = maps[-1].device
        return SaliencyMaps(
            torch.cat([part.to(device) for part in maps]),
            diagnostics={"unplaced_share": torch.cat([part.to(device) for part in shares])},
        )


def _decomposed(
    model: FaceModel, tail: Tail, probes: Images, targets: list[tuple[float, Images]]
) -> tuple[Tensor, Tensor]:
    """Return (n, h, w) parts of the logit and the (n,) constant, float64.

    Args:
        model: In eval mode.
        tail: Of the model.
        probes: (n, 3, H, W).
        targets: Sign and images of the reference and, if given, of the contrast.
    """
    assert model.module is not None
    cut = cut_at(model.module, tail.layer, on_device_of(model.module, probes))
    raw = cut.vectors[tail.output].detach().double()
    check_embeddings(model.name, raw, len(probes))
    weights, constant = torch.zeros_like(raw), raw.new_zeros(len(raw))
    for sign, images in targets:
        embeddings = centroid_embeddings(model, images).to(raw)
        weights = weights + sign * class_weights(model.similarity, embeddings)
        if model.similarity == "neg_l2":
            constant = constant - sign * embeddings.square().sum(dim=1)
    coarse, rest = divided(cut, tail, weights, is_unit=model.similarity == "cosine")
    return coarse, constant + rest

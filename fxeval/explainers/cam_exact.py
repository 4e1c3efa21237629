"""Class activation maps of identities: how much each place adds to the similarity to one."""

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
from fxeval.functional.class_heads import class_weights
from fxeval.hooks.layers import (
    borrowed,
    check_spelling,
    lent_module,
    on_device_of,
)
from fxeval.hooks.readings import check_reading
from fxeval.hooks.returned import check_embeddings
from fxeval.hooks.tails import Tail, cut_at, divided, tail_of, upsampled, why_no_tail

ROWS = 64  # pairs in one forward pass


@dataclass(frozen=True)
class CAM:
    """Class activation map: the cosine to the reference, divided among the places of a layer.

    An identity is a class whose weight vector is its unit embedding r. If the embedding e is an
    affine function of a layer's output A (the network's tail is affine), the class's logit
    decomposes exactly: ``cos(e, r) = sum_ij M(i, j) + constant`` with
    ``M(i, j) = sum_k A_kij V_kij / |e|`` and V = d(r . e)/dA, r pulled back through the tail. If
    the tail is global average pooling and a linear layer, this is the map of Zhou et al.; if it is
    batch norm, flatten, linear and batch norm, every place has its own weights. Maps are signed
    (nothing is cut off) and not normalised. Every call tests on noise that the tail is affine and
    the only path to the embedding.

    For ``neg_l2`` models the classifier is nearest-centroid, which is linear too:
    ``-|e - r|^2 + |e|^2 = 2 r . e - |r|^2``; |e|^2 is common to all classes and appears in no map.
    If the module of a cosine model normalises its embedding, the tail ends before that step. With a
    contrast, the contrast's map is subtracted. A reference that is the probe has a map as well.

    Attributes:
        layer: A name or rule (:func:`fxeval.hooks.layers.resolve`) of a layer whose output is at
            least 2 x 2 pixels. None = the last module to finish whose output is at least 3 x 3
            pixels and has an affine tail.
        reading: How the named layer is read (:mod:`fxeval.hooks.readings`); None = as found.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: cam, params: {layer: "stage[-1]"}}

    Source:
        Zhou et al., CVPR 2016, sec. 2, extended to any affine tail.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"gradients", "layers"},
        takes_centroids=True,
        takes_contrast=True,
        source="Zhou et al., CVPR 2016, sec. 2",
    )

    layer: str | None = None
    reading: str | None = None

    def __post_init__(self) -> None:
        check_spelling(self.layer, "cam")
        check_reading(self.reading, self.layer, "cam")

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why the model has no exact map: a black box, or no layer with an affine tail."""
        return why_no_tail(model, self.layer, self.reading)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe; ``generator`` is not used: the method draws nothing.

        Returns:
            SaliencyMaps with (N, H, W) signed maps as ``positive``, larger = adds more. Diagnostic
            ``unplaced_share``, 0 to 1: the constant's share of the sum of all absolute parts.

        Raises:
            ExplainerContractError: If the layer cannot be used, or for the reason ``unsupported``
                gives.
        """
        module = lent_module("cam", model)
        maps = [probes.new_zeros((0, *probes.shape[2:]))]
        shares = [probes.new_zeros(0)]
        # Even a caller in inference mode gets gradients; clones are ordinary tensors again.
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            size = (probes.shape[2], probes.shape[3])
            tail = tail_of(model, self.layer, size, "cam", self.reading)
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
                # If all parts are zero, the share is 0, not 0 / 0.
                shares.append((constant.abs() / parts.clamp_min(1e-300)).float())
        device = maps[-1].device
        return SaliencyMaps(
            torch.cat([part.to(device) for part in maps]),
            diagnostics={"unplaced_share": torch.cat([part.to(device) for part in shares])},
            layers=(tail.entry,),
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
    images = on_device_of(model.module, probes)
    cut = cut_at(model.module, tail.layer, images, reading=tail.reading)
    raw = cut.vectors[tail.output].detach().double()
    check_embeddings(model.name, raw, len(probes))
    weights, constant = torch.zeros_like(raw), raw.new_zeros(len(raw))
    for sign, compared in targets:
        embeddings = centroid_embeddings(model, compared).to(raw)
        weights = weights + sign * class_weights(model.similarity, embeddings)
        if model.similarity == "neg_l2":
            constant = constant - sign * embeddings.square().sum(dim=1)
    coarse, rest = divided(cut, tail, weights, is_unit=model.similarity == "cosine")
    return coarse, constant + rest

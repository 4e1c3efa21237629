"""Grad-CAM for face verification: which activations of a layer pull two faces together."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.admission import check_embeddings
from fxeval.contracts import (
    Embeddings,
    FaceModel,
    Images,
    Need,
    RowState,
    SaliencyMaps,
    SimilarityKind,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.layers import borrowed as borrowed
from fxeval.similarity import similarity

ROWS = 64  # pairs in one backward pass
FLAT = 1e-5  # relative size under which an objective's gradient is rounding, not direction
_SHOWN = 12  # layer names in an error message


@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM of the similarity: channels weighted by their mean gradient, summed, negatives cut.

    ``M = ReLU(sum_k alpha_k A^k)`` with ``alpha_k`` the spatial mean of ``dJ/dA^k`` and ``A`` the
    output of the layer, before whatever follows it. ``J`` is the cosine of probe and reference, or
    minus their squared distance for ``neg_l2`` models; with a contrast, J of the reference minus J
    of the contrast. Maps are not normalised. A map that is zero everywhere stays zero; a row whose
    objective is flat (the reference is the probe) has no map, but the state ``no_gradient``.

    Attributes:
        layer: Name as in ``module.named_modules()``, also written ``blocks[12]``. None = the last
            module to finish in a forward pass whose output is at least 4 x 4 pixels.

    Source:
        Selvaraju et al. 2017, sec. 3; verification objectives: algorithms.md 3.0 and 3.1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients", "layers"})

    layer: str | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and not (isinstance(self.layer, str) and self.layer):
            raise ExplainerContractError(
                f"gradcam: layer must be the name of a module, or nothing for the default, got "
                f"{self.layer!r}."
            )

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe; ``generator`` is not used: the method draws nothing.

        Returns:
            SaliencyMaps with (N, H, W) positive maps, >= 0, larger = more important.

        Raises:
            ExplainerContractError: If the model has no module, or the layer cannot be used.
        """
        module = model.module
        if module is None:
            raise ExplainerContractError(
                f"gradcam: needs gradients, but model '{model.name}' is a black box (its module is "
                "None). Use an explainer that only asks for embeddings, such as srise."
            )
        maps: list[Tensor] = []
        reasons: list[str] = []
        # Even a caller in inference mode gets gradients; clones are ordinary tensors again.
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            first = _to_device(probes[:1], module)
            name = default_layer(module, first) if self.layer is None else self.layer
            name = check_layer(module, name)
            for start in range(0, len(probes), ROWS):
                rows = slice(start, start + ROWS)
                against = None if contrast is None else contrast[rows]
                part, why = _grad_cam(model, name, probes[rows], references[rows], against)
                maps.append(part)
                reasons.extend(why)
        states = tuple(RowState.NO_GRADIENT if reason else RowState.OK for reason in reasons)
        empty = probes.new_zeros((0, *probes.shape[2:]))
        return SaliencyMaps(torch.cat(maps) if maps else empty, None, states, tuple(reasons))


def check_layer(module: nn.Module, layer: str) -> str:
    """Return the dotted name of a layer, ``blocks.12`` for ``blocks[12]``.

    >>> check_layer(nn.Sequential(nn.Sequential(nn.ReLU())), "0[0]")
    '0.0'

    Raises:
        ExplainerContractError: If the module has no such layer; names the nearest.
    """
    dotted = re.sub(r"\[(\d+)\]", r".\1", layer).removeprefix(".")
    names = [name for name, _ in module.named_modules() if name]
    if dotted in names:
        return dotted
    near = difflib.get_close_matches(dotted, names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise ExplainerContractError(
        f"gradcam: the model has no layer '{layer}'. {hint}Its layers: {_listed(names)}."
    )


def spatial_layers(module: nn.Module, images: Images) -> dict[str, tuple[int, int]]:
    """Return (height, width) of every module's output that is a feature map, in order of finishing.

    Modules that run more than once in a forward pass are left out: their name means no one layer.

    Args:
        module: In eval mode (see :func:`borrowed`).
        images: (N, 3, H, W), one image is enough.
    """
    finished: list[tuple[str, tuple[int, ...]]] = []
    handles = []

    def watch(name: str, layer: nn.Module) -> None:
        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            finished.append((name, tuple(output.shape) if isinstance(output, Tensor) else ()))

        handles.append(layer.register_forward_hook(note))

    try:
        for name, layer in module.named_modules():
            if name:
                watch(name, layer)
        with torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    runs = [name for name, _ in finished]
    return {
        name: (shape[2], shape[3])
        for name, shape in finished
        if len(shape) == 4 and runs.count(name) == 1
    }


def default_layer(module: nn.Module, images: Images) -> str:
    """Return the last layer to finish whose output is at least 4 x 4 pixels.

    Raises:
        ExplainerContractError: If there is none.
    """
    layers = [name for name, size in spatial_layers(module, images).items() if min(size) >= 4]
    if not layers:
        raise ExplainerContractError(
            "gradcam: no layer of the model has an output of at least 4 x 4 pixels, so there is no "
            "default. Name a layer, or use an explainer that only asks for embeddings."
        )
    return layers[-1]


def _grad_cam(
    model: FaceModel, layer: str, probes: Images, references: Images, contrast: Images | None
) -> tuple[Tensor, list[str]]:
    """Return (n, H, W) maps, zero where there is no gradient, and the reason for each such row."""
    anchor = probes if contrast is None else contrast
    twins = (references == anchor).flatten(1).all(dim=1)
    targets = [_embedded(model, references)]
    if contrast is not None:
        targets.append(_embedded(model, contrast))
    assert model.module is not None
    images = _to_device(probes, model.module)
    with _cut(model.module, layer) as taken:
        embeddings = model.module(images)
    activations = _one_activation(taken, layer, model.module, images)
    check_embeddings(model.name, embeddings, len(probes))
    pull, is_flat = _pull(model.similarity, embeddings, targets)
    if not embeddings.requires_grad:
        gradients = None
    else:
        (gradients,) = torch.autograd.grad(
            embeddings, activations, pull.to(embeddings.dtype), allow_unused=True
        )
    if gradients is None:
        raise ExplainerContractError(
            f"gradcam: the embedding of model '{model.name}' does not depend differentiably on "
            f"layer '{layer}'. Name a layer on the way to the embedding, and let the module "
            "compute with gradients."
        )
    with torch.no_grad():
        alpha = gradients.float().mean(dim=(2, 3))  # (n, C)
        coarse = torch.einsum("nc,nchw->nhw", alpha, activations.float()).relu()
        size = (probes.shape[2], probes.shape[3])
        maps = F.interpolate(coarse[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        is_dead = (gradients == 0).flatten(1).all(dim=1)
        is_flat = is_flat | twins.to(is_flat.device)
        maps[is_flat | is_dead] = 0.0
    flat, dead = "the objective is flat: both embeddings agree", f"no gradient at '{layer}'"
    reasons = [
        flat if at_top else dead if at_layer else ""
        for at_top, at_layer in zip(is_flat.tolist(), is_dead.tolist(), strict=True)
    ]
    return maps, reasons


def _pull(
    kind: SimilarityKind, embeddings: Embeddings, targets: list[Embeddings]
) -> tuple[Tensor, Tensor]:
    """Return the objective's gradient at each embedding, and whether it is mere rounding.

    The objectives are written down once, at the embedding; what follows is the chain rule.

    Args:
        kind: ``cosine``: J = cos(e, r). ``neg_l2``: J = -||e - r||^2.
        embeddings: (n, D) of the probes.
        targets: (n, D) of the references and, if given, of the contrast, whose J is subtracted.

    Returns:
        (n, D) float64 and (n,) bool.
    """
    # float64: near cos = 1 the gradient is a small difference of nearly equal vectors.
    leaf = embeddings.detach().double().requires_grad_()
    signed = []
    for target in targets:
        other = target.to(leaf.device, torch.float64)
        if kind == "cosine":
            signed.append(similarity(kind, leaf, other))
        else:
            signed.append(-(leaf - other).square().sum(dim=1))
    objective = signed[0] - signed[1] if len(signed) == 2 else signed[0]
    (gradient,) = torch.autograd.grad(objective.sum(), leaf)
    length = leaf.detach().norm(dim=1).clamp_min(1e-12)
    size = gradient.norm(dim=1)
    return gradient, (size * length if kind == "cosine" else size / length) <= FLAT


@contextmanager
def _cut(module: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Make the output of a layer the start of the graph while open; yields its activations."""
    taken: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ExplainerContractError(
                f"gradcam: layer '{layer}' must give one (N, C, h, w) tensor, got {what}. Name a "
                "convolution, a normalisation or an activation of the trunk."
            )
        leaf = output.detach().requires_grad_()
        taken.append(leaf)
        return leaf.clone()  # a ReLU in place after it must not reach the activations we keep

    handle = module.get_submodule(layer).register_forward_hook(cut)
    try:
        yield taken
    finally:
        handle.remove()


def _one_activation(taken: list[Tensor], layer: str, module: nn.Module, images: Images) -> Tensor:
    if len(taken) != 1:
        raise ExplainerContractError(
            f"gradcam: layer '{layer}' runs {len(taken)} times in a forward pass, so its name "
            f"means no one layer. Layers that run once: {_candidates(module, images)}."
        )
    if min(taken[0].shape[2:]) < 2:
        raise ExplainerContractError(
            f"gradcam: the output of layer '{layer}' is {taken[0].shape[2]} x {taken[0].shape[3]} "
            f"pixels and holds no place. At least 2 x 2: {_candidates(module, images)}."
        )
    return taken[0]


def _candidates(module: nn.Module, images: Images) -> str:
    sizes = spatial_layers(module, images[:1])
    return _listed([f"{name} ({h} x {w})" for name, (h, w) in sizes.items() if min(h, w) >= 2])


def _listed(names: list[str]) -> str:
    # The last names: deep layers are what one wants to explain.
    more = f"{len(names) - _SHOWN} more, " if len(names) > _SHOWN else ""
    return more + ", ".join(names[-_SHOWN:]) if names else "none"


def _embedded(model: FaceModel, images: Images) -> Embeddings:
    """Return embeddings that autograd may use, whatever mode ``embed`` ran in."""
    return check_embeddings(model.name, model.embed(images), len(images)).clone()


def _to_device(images: Images, module: nn.Module) -> Images:
    parameter = next(module.parameters(), None)
    return images.detach().clone() if parameter is None else images.to(parameter.device, copy=True)

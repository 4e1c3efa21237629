"""Finds the affine tail of a network: the part from a layer's output to the embedding.

Where the tail is affine, an embedding divides exactly among the places of the layer, which is what
class activation maps need. A module does not declare that it is affine, so noise tests it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import (
    FaceModel,
    Images,
    MapLayer,
    SimilarityKind,
)
from fxeval.errors import ExplainerContractError
from fxeval.hooks.layer_info import LayerInfo
from fxeval.hooks.layers import black_box, borrowed, layers_of, on_device_of, resolve
from fxeval.hooks.readings import Reading
from fxeval.hooks.returned import check_embeddings

_DEFAULT_SIDE = 3  # smaller maps are too coarse to be a default
_BENT = 1e-3  # relative deviation from an affine function; a nonlinear layer gives 0.1 or more
_ROUNDING = 1e-5  # of float32 sums, relative to the size of what is summed


@dataclass(frozen=True, eq=False)
class Tail:
    """The affine part of a network, from a layer's output to the embedding.

    Attributes:
        layer: Dotted name.
        output: Name of the module that gives the raw embedding; empty = the network itself.
        offset: (D,) float64, the raw embedding when the layer's output is zero.
        entry: What a record tells of the layer.
        reading: How the layer's output is read as a map.
    """

    layer: str
    output: str
    offset: Tensor
    entry: MapLayer
    reading: Reading


@dataclass(frozen=True, eq=False)
class Cut:
    """A forward pass whose autograd graph starts at a layer.

    Attributes:
        activations: (n, C, h, w), the layer's output as it is read, a leaf of the graph.
        vectors: All (n, D) outputs by module, in order of finishing; the embedding is last, under
            the empty name.
    """

    activations: Tensor
    vectors: dict[str, Tensor]

    def pulled_back(self, weights: Tensor, output: str = "") -> Tensor | None:
        """Return the gradient of ``weights . vector``, (n, C, h, w) float64.

        Args:
            weights: (n, D).
            output: Which of the vectors.

        Returns:
            None if the vector does not depend differentiably on the activations.
        """
        vector = self.vectors[output]
        if not vector.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(
            vector, self.activations, weights.to(vector), allow_unused=True, retain_graph=True
        )
        return None if gradient is None else gradient.double()

    def class_map(self, weights: Tensor, output: str) -> Tensor:
        """Return sum_k A_kij V_kij, (n, h, w) float64, of a class's (n, D) weights."""
        gradient = self.pulled_back(weights, output)
        assert gradient is not None  # tail_of tested it
        return (self.activations.detach().double() * gradient).sum(dim=1)


def why_no_tail(model: FaceModel, layer: str | None, reading: str | None = None) -> str | None:
    """Return why the model has no affine tail after the layer; None if it has one.

    A missing layer is not reported here: ``explain`` raises an error that lists the layers.
    """
    if model.module is None:
        return black_box(model)
    with borrowed(model.module), torch.inference_mode(False), torch.enable_grad():
        try:
            tail = tail_of(model, layer, model.crop.size, "cam", reading)
        except ExplainerContractError:
            return None
    return tail if isinstance(tail, str) else None


def tail_of(
    model: FaceModel, layer: str | None, size: tuple[int, int], explainer: str,
    reading: str | None = None,
) -> Tail | str:  # fmt: skip
    """Find the affine tail of a borrowed model, or say why there is none.

    Args:
        model: Has a module, in eval mode.
        layer: Where the tail begins; None = the deepest layer of at least 3 x 3 pixels that has
            one. The search ends at the first layer that no path bypasses: if the tail from there is
            not affine, no longer tail is.
        size: (height, width) of the images.
        explainer: Its id, for the messages.
        reading: How the named layer is read; None = as found.

    Raises:
        ExplainerContractError: If the layer is missing, runs more than once, or gives no map.
    """
    module = model.module
    assert module is not None
    # Noise, not the caller's images: the layer must not depend on what else is in a call.
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    images = on_device_of(module, images)
    layers = layers_of(module, images[:1])
    if layer is not None:
        chosen = resolve(layer, layers, explainer, reading)
    else:
        chosen = tuple(one for one in reversed(layers) if one.may_be_meant(_DEFAULT_SIDE))
    for one in chosen:
        found = _tried(model, one, images)
        if found is not None:
            return found
    if layer is None:
        return (
            f"model '{model.name}' has no layer of at least {_DEFAULT_SIDE} x {_DEFAULT_SIDE} "
            "pixels that everything goes through, so its embedding does not divide among places. "
            "Name a layer, or use gradcam."
        )
    return (
        f"model '{model.name}' goes around layer '{chosen[0].name}', so its map would leave out a "
        "part of the embedding. Name a layer that everything goes through, or use gradcam."
    )


def _tried(model: FaceModel, layer: LayerInfo, images: Images) -> Tail | str | None:
    """Return the tail from a layer, why it is not affine, or None if a path bypasses the layer.

    The layer's output is replaced by five points: zeros for two different images, the outputs for
    these images, and noise of both signs. The two zeros must give the same embedding, as the image
    may matter only through the layer, and the gradient at the noise must predict the embedding at
    all other points.
    """
    module = model.module
    assert module is not None
    name, reading = layer.name, layer.reading
    real = cut_at(module, name, images, reading=reading).activations.detach()
    spread = float(real.double().square().mean().sqrt()) or 1.0
    generator = torch.Generator().manual_seed(1)
    noise = spread * torch.randn(real[:1].shape, generator=generator).to(real)
    points = torch.cat([torch.zeros_like(real), real, noise])
    cut = cut_at(module, name, images[[0, 1, 0, 1, 0]], points, reading=reading)
    embeddings = check_embeddings(model.name, cut.vectors[""], len(points)).double()
    slack = _ROUNDING * embeddings.abs().max() + _BENT * (embeddings - embeddings[0]).abs().max()
    if (embeddings[0] - embeddings[1]).abs().max() > slack:
        return None
    for output in _raw_outputs(cut, model.similarity):
        offset = _offset_if_affine(cut, output)
        if offset is not None:
            return Tail(name, output, offset, layer.as_entry(), reading)
    return (
        f"the embedding of model '{model.name}' is not an affine function of the output of layer "
        f"'{name}' (a nonlinear or undifferentiable operation comes after it), so it does not "
        "divide among places. Use gradcam."
    )


def _raw_outputs(cut: Cut, kind: SimilarityKind) -> list[str]:
    """Return the names of vectors with the same similarities, the embedding's own ("") first.

    A cosine ignores lengths, so any vector parallel to the embedding will do.
    """
    embeddings = cut.vectors[""].detach().double()
    unit = F.normalize(embeddings, dim=1)

    def is_parallel(vector: Tensor) -> bool:
        if vector.shape != embeddings.shape:
            return False
        return bool((F.normalize(vector.detach().double(), dim=1) - unit).abs().max() <= _ROUNDING)

    if kind != "cosine":
        return [""]
    inner = [name for name, vector in cut.vectors.items() if name and is_parallel(vector)]
    return ["", *reversed(inner)]


def _offset_if_affine(cut: Cut, output: str) -> Tensor | None:
    """Return the (D,) output at zero, the first point, if the last point's gradient predicts all.

    One random combination of the D outputs is tested, which takes a single backward pass.
    """
    vectors = cut.vectors[output].detach().double()
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(vectors.shape[1], generator=generator, dtype=torch.float64).to(vectors)
    gradient = cut.pulled_back(weights.expand_as(vectors), output)
    if gradient is None:
        return None
    predicted = (cut.activations.detach().double() * gradient[-1]).sum(dim=(1, 2, 3))
    found = (vectors - vectors[0]) @ weights
    slack = _BENT * found.abs().max() + _ROUNDING * (vectors.abs() @ weights.abs()).max()
    return vectors[0] if bool((predicted - found).abs().max() <= slack) else None


def cut_at(
    module: nn.Module, layer: str, images: Images, instead: Tensor | None = None,
    *, reading: Reading,
) -> Cut:  # fmt: skip
    """Run a borrowed module with the autograd graph starting at the output of a layer.

    Args:
        module: In eval mode.
        layer: As :func:`fxeval.hooks.layers.resolve` gives it.
        images: (n, 3, H, W) on the module's device.
        instead: (n, C, h, w) to go on with in place of the layer's own output.
        reading: How the layer's output is read as (n, C, h, w). Tokens in front of the places stay
            as they are: a path around the map.
    """
    taken: list[Tensor] = []
    vectors: dict[str, Tensor] = {}

    def replace(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        assert isinstance(output, Tensor)
        places = reading.places(output) if instead is None else instead
        leaf = places.detach().requires_grad_()
        taken.append(leaf)
        # Cloned: a later operation in place must not reach the leaf.
        return reading.written(leaf.clone(), output.detach())

    handles = [module.get_submodule(layer).register_forward_hook(replace)]
    try:
        for name, part in module.named_modules():
            if name:
                handles.append(part.register_forward_hook(_note(vectors, name, len(images))))
        embeddings = module(images)
    finally:
        for handle in handles:
            handle.remove()
    (activations,) = taken
    vectors[""] = embeddings
    return Cut(activations, vectors)


def _note(vectors: dict[str, Tensor], name: str, n: int) -> Callable[..., None]:
    """Return a hook that keeps a module's output if it is one vector per image."""

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 2 and len(output) == n:
            vectors[name] = output

    return note


def divided(cut: Cut, tail: Tail, weights: Tensor, *, is_unit: bool) -> tuple[Tensor, Tensor]:
    """Divide a class's ``weights . e`` among places, where e is the embedding.

    Args:
        cut: A forward pass of n images, cut at the tail's layer.
        tail: Of the network.
        weights: (n, D) float64.
        is_unit: e has length 1; otherwise it is the tail's output.

    Returns:
        (n, h, w) and the (n,) rest that belongs to no place, float64: together ``weights . e``.
    """
    coarse = cut.class_map(weights, tail.output)
    rest = weights @ tail.offset
    if not is_unit:
        return coarse, rest
    length = cut.vectors[tail.output].detach().double().norm(dim=1).clamp_min(1e-12)
    return coarse / length[:, None, None], rest / length


def upsampled(maps: Tensor, images: Images) -> Tensor:
    """Bring (n, m, h, w) maps to the size of (n, 3, H, W) images, bilinearly."""
    size = (images.shape[2], images.shape[3])
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)

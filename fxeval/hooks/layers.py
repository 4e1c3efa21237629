"""Finds layers of a network by name or rule, and lends networks so that no trace is left."""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from fxeval.contracts import FaceModel, Images
from fxeval.errors import ExplainerContractError

_SHOWN = 12  # layer names in an error message
_RULE = re.compile(r"(conv|stage)\[(-?\d+)\]")
_SHORTCUT = re.compile(r"downsample|shortcut|skip")


@dataclass(frozen=True)
class LayerInfo:
    """A module of a network, and its output for one image.

    Attributes:
        name: As in ``module.named_modules()``.
        kind: Name of its class.
        channels: Of its feature map; 0 if its output is not one (N, C, h, w) tensor.
        height: In pixels, or 0.
        width: In pixels, or 0.
        runs: How often it runs in a forward pass; its name identifies one layer only if this is 1.
        is_convolution: It is an ``nn.Conv2d``.
        is_shortcut: It is a 1 x 1 convolution with downsample, shortcut or skip in its name.
        has_children: It is built of other modules.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    runs: int
    is_convolution: bool
    is_shortcut: bool
    has_children: bool

    def holds(self, pixels: int) -> bool:
        """Say whether it runs once and its map is at least that many pixels high and wide."""
        return self.runs == 1 and min(self.height, self.width) >= pixels


def layers_of(module: nn.Module, images: Images) -> list[LayerInfo]:
    """Return all modules of a network in the order in which they finish; idle ones come last.

    Works on the ``meta`` device, so that layers can be checked before weights are loaded.

    Args:
        module: Lent, and run once in eval mode.
        images: (N, 3, H, W), one image is enough; moved to the module's device.

    Raises:
        ExplainerContractError: If the forward pass changes the module.
    """
    found = {name: _idle(name, part) for name, part in module.named_modules() if name}
    handles = []

    def watch(name: str, part: nn.Module) -> None:
        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            is_map = isinstance(output, Tensor) and output.ndim == 4
            size = tuple(output.shape[1:]) if is_map else (0, 0, 0)  # type: ignore[attr-defined]
            info = found.pop(name)  # moves to the end, so that the order is that of finishing
            found[name] = replace(
                info, channels=size[0], height=size[1], width=size[2], runs=info.runs + 1
            )

        handles.append(part.register_forward_hook(note))

    with borrowed(module), torch.no_grad():
        try:
            for name, part in module.named_modules():
                if name:
                    watch(name, part)
            module(on_device_of(module, images))
        finally:
            for handle in handles:
                handle.remove()
    return sorted(found.values(), key=lambda info: info.runs == 0)  # stable: the order stays


def convolutions(layers: Sequence[LayerInfo]) -> list[LayerInfo]:
    """Return the ``conv[i]``: convolutions of at least 3 x 3 pixels, shortcuts excluded."""
    return [
        layer for layer in layers
        if layer.is_convolution and not layer.is_shortcut and layer.holds(3)
    ]  # fmt: skip


def stages(layers: Sequence[LayerInfo]) -> list[LayerInfo]:
    """Return the ``stage[i]``: of each map size, at least 3 x 3, the last container to finish.

    A container is a module built of others. In a network without any that gives a map, the last
    layer of each size is taken instead.
    """
    maps = [layer for layer in layers if layer.holds(3)]
    if any(layer.has_children for layer in maps):
        maps = [layer for layer in maps if layer.has_children]
    last = {(layer.height, layer.width): layer for layer in maps}
    return [layer for layer in maps if layer is last[layer.height, layer.width]]


def resolve(
    layer: str | tuple[str, ...] | None, layers: Sequence[LayerInfo], explainer: str
) -> tuple[str, ...]:
    """Return the dotted names of the requested layers.

    Args:
        layer: One layer or several: a name as in ``module.named_modules()``, also written
            ``blocks[12]``, or a rule, ``conv[i]`` or ``stage[i]`` (:func:`convolutions`,
            :func:`stages`; a negative index counts from the end). A rule takes precedence over a
            module of the same spelling, which can be written ``conv.0``. None = the last layer to
            finish whose map is at least 4 x 4 pixels.
        layers: Of the network (:func:`layers_of`).
        explainer: Its id, for the messages.

    Raises:
        ExplainerContractError: If a layer is missing, runs more than once or not at all, has no
            map of at least 2 x 2 pixels, or is named twice. Lists the candidates with their sizes.
    """
    check_spelling(layer, explainer)
    if layer is None:
        return (_default(layers, explainer),)
    wanted = (layer,) if isinstance(layer, str) else layer
    names = tuple(_resolved(one, layers, explainer) for one in wanted)
    for first, name in enumerate(names):
        if name in names[:first]:
            both = wanted[names.index(name)], wanted[first]
            raise ExplainerContractError(
                f"{explainer}: layers '{both[0]}' and '{both[1]}' are the same layer, '{name}'. "
                "Leave one out."
            )
    return names


def by_name(layer: str | tuple[str, ...] | None, module: nn.Module) -> tuple[str, ...] | None:
    """Return the dotted names if only names are given and all exist; None otherwise.

    This saves the forward pass that finds layers. The caller has to check that each layer runs once
    and gives a map.
    """
    wanted = (layer,) if isinstance(layer, str) else layer or ()
    names = tuple(_dots(one) for one in wanted)
    is_plain = names and len(set(names)) == len(names) and not any(map(_RULE.fullmatch, wanted))
    known = {name for name, _ in module.named_modules()} if is_plain else set()
    return names if is_plain and known.issuperset(names) else None


def check_spelling(layer: object, explainer: str) -> None:
    """Refuse a value that cannot name a layer of any network.

    >>> check_spelling(("conv[-1]", "blocks[12].conv1"), "gradcam")

    Raises:
        ExplainerContractError: Naming the explainer, the expected form and the value.
    """
    if layer is None:
        return
    several = layer if isinstance(layer, tuple) else (layer,)
    if not several or not all(isinstance(one, str) and one for one in several):
        raise ExplainerContractError(
            f"{explainer}: layer must be the name of a module, a list of names, or nothing for the "
            f"default, got {layer!r}."
        )
    for one in several:
        if not _RULE.fullmatch(one) and not re.fullmatch(
            r"[^\s.\[\]]+(\.[^\s.\[\]]+)*", _dots(one)
        ):
            raise ExplainerContractError(
                f"{explainer}: layer must be a name such as blocks[12].conv1, or conv[i] or "
                f"stage[i] with a whole number i, got {one!r}."
            )
    twice = [one for one in several if several.count(one) > 1]
    if twice:
        raise ExplainerContractError(f"{explainer}: layer '{twice[0]}' is named twice.")


def candidates(layers: Sequence[LayerInfo], pixels: int = 2) -> str:
    """List the layers that can be named, with their sizes; only the deepest if there are many."""
    return _listed(
        [f"{one.name} ({one.height} x {one.width})" for one in layers if one.holds(pixels)]
    )


def black_box(model: FaceModel) -> str | None:
    """Return why a black-box model cannot be differentiated; None if the model has a module."""
    if model.module is not None:
        return None
    return (
        f"needs gradients, but model '{model.name}' is a black box (its module is None). Use an "
        "explainer that only asks for embeddings, such as srise."
    )


def lent_module(id: str, model: FaceModel) -> nn.Module:
    """Return the model's module.

    Raises:
        ExplainerContractError: If it has none.
    """
    if model.module is None:
        raise ExplainerContractError(f"{id}: {black_box(model)}")
    return model.module


@contextmanager
def borrowed(module: nn.Module) -> Iterator[None]:
    """Lend a module in eval mode and hand it back as it was, even after an error.

    Training flags and torch's generators are restored. Nothing else may change: parameters,
    buffers, gradients, ``requires_grad``, hooks.

    Raises:
        ExplainerContractError: If one of these was changed.
    """
    modes = [(part, part.training) for part in module.modules()]
    before = _traces(module)
    tensor = next(module.parameters(), None)
    devices = [tensor.device] if tensor is not None and tensor.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        try:
            # Not .eval(): a model may override train() and fuse or freeze weights in it.
            for part, _ in modes:
                part.training = False
            yield
        finally:
            for part, mode in modes:
                part.training = mode
    after = _traces(module)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    if changed:
        raise ExplainerContractError(
            f"the model was changed while it was lent to an explainer: {_listed(changed)}. Its "
            "forward pass must leave no trace in eval mode."
        )


def on_device_of(module: nn.Module, images: Images) -> Images:
    """Return a copy of the images on the module's device, always an ordinary tensor.

    Autograd refuses tensors that were made in inference mode; their copies are ordinary.
    """
    tensor = next(chain(module.parameters(), module.buffers()), None)
    return images.detach().to(images.device if tensor is None else tensor.device, copy=True)


def _traces(module: nn.Module) -> dict[str, tuple[object, ...]]:
    """Return what identifies each parameter, buffer and hook list, without reading a value."""

    def version(tensor: Tensor | None) -> tuple[int, int]:
        if tensor is None:
            return (0, 0)
        # torch counts writes in place, except to inference tensors.
        return (id(tensor), 0 if tensor.is_inference() else tensor._version)

    traces: dict[str, tuple[object, ...]] = {
        name: (version(buffer),) for name, buffer in module.named_buffers()
    }
    for name, parameter in module.named_parameters():
        traces[name] = (version(parameter), version(parameter.grad), parameter.requires_grad)
    for name, part in module.named_modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
        traces[f"hooks of '{name}'"] = tuple(tuple(some) for some in hooks)
    return traces


def _idle(name: str, part: nn.Module) -> LayerInfo:
    is_convolution = isinstance(part, nn.Conv2d)
    is_small = isinstance(part, nn.Conv2d) and tuple(part.kernel_size) == (1, 1)
    is_shortcut = is_small and _SHORTCUT.search(name) is not None
    has_children = next(part.children(), None) is not None
    kind = type(part).__name__
    return LayerInfo(name, kind, 0, 0, 0, 0, is_convolution, is_shortcut, has_children)


def _dots(name: str) -> str:
    """Write ``blocks.12`` for ``blocks[12]``."""
    return re.sub(r"\[(\d+)\]", r".\1", name).removeprefix(".")


def _default(layers: Sequence[LayerInfo], explainer: str) -> str:
    large = [layer.name for layer in layers if layer.holds(4)]
    if layers and all(layer.runs == 0 for layer in layers):
        raise ExplainerContractError(
            f"{explainer}: hooks see no layer of the model at work, as in a network that "
            "torch.compile made. Give the network as it was before, or use an explainer that only "
            "asks for embeddings."
        )
    if not large:
        raise ExplainerContractError(
            f"{explainer}: no layer of the model has an output of at least 4 x 4 pixels, so there "
            "is no default. Name a layer, or use an explainer that only asks for embeddings."
        )
    return large[-1]


def _resolved(wanted: str, layers: Sequence[LayerInfo], explainer: str) -> str:
    rule = _RULE.fullmatch(wanted)
    if rule is not None:
        several, index = {"conv": convolutions, "stage": stages}[rule[1]](layers), int(rule[2])
        if not -len(several) <= index < len(several):
            raise ExplainerContractError(
                f"{explainer}: layer '{wanted}' is out of range, the model has {len(several)} "
                f"layers {rule[1]}[i] of at least 3 x 3 pixels: {candidates(several)}."
            )
        return several[index].name
    name, known = _dots(wanted), {layer.name: layer for layer in layers}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        suggestion = f"Did you mean '{near[0]}'? " if near else ""
        raise ExplainerContractError(
            f"{explainer}: the model has no layer '{wanted}'. {suggestion}Layers with a map: "
            f"{candidates(layers)}."
        )
    fault = _fault(known[name])
    if fault:
        raise ExplainerContractError(
            f"{explainer}: layer '{wanted}' {fault}. Layers that can be used: {candidates(layers)}."
        )
    return name


def _fault(layer: LayerInfo) -> str | None:
    if layer.runs != 1:
        return f"runs {layer.runs} times in a forward pass, so its name does not identify one layer"
    if layer.channels == 0:
        return f"must give one (N, C, h, w) tensor, but this {layer.kind} does not"
    if not layer.holds(2):
        return f"gives {layer.height} x {layer.width} pixels, fewer than 2 x 2"
    return None


def _listed(names: list[str]) -> str:
    # Keep the last names: deep layers are the ones to explain.
    more = f"{len(names) - _SHOWN} more, " if len(names) > _SHOWN else ""
    return more + ", ".join(names[-_SHOWN:]) if names else "none"

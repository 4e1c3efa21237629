"""Finds layers of a network by name or rule, and lends networks so that no trace is left."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from fxeval.contracts import FaceModel, Images
from fxeval.errors import ExplainerContractError
from fxeval.hooks.evidence import Found, Output, Probe, readings_of, watched
from fxeval.hooks.layer_info import LayerInfo, idle
from fxeval.hooks.readings import check_reading, declared, of

_SHOWN = 12  # layer names in an error message
_RULE = re.compile(r"(conv|stage)\[(-?\d+)\]")


class NoDefaultError(ExplainerContractError):
    """Raised if no layer was named and none of the network can be a default."""


def layers_of(module: nn.Module, images: Images) -> list[LayerInfo]:
    """Return all modules of a network in the order in which they finish; idle ones come last.

    Works on the ``meta`` device, so that layers can be checked before weights are loaded.

    Args:
        module: Lent, and run in eval mode: once, or some times more if shapes leave a doubt how
            outputs are read (:mod:`fxeval.hooks.evidence`).
        images: (N, 3, H, W), one image is enough; moved to the module's device.

    Raises:
        ExplainerContractError: If the forward pass changes the module.
    """
    with borrowed(module), torch.no_grad():
        images = on_device_of(module, images)
        with watched(module) as seen:
            module(images)
        return layers_seen(module, seen, images)


def layers_seen(module: nn.Module, seen: Mapping[str, Output], images: Images) -> list[LayerInfo]:
    """Return the modules of a borrowed network that was watched; see :func:`layers_of`.

    Args:
        module: In eval mode.
        seen: What its modules gave for the images.
        images: On the module's device.
    """
    size = (int(images.shape[2]), int(images.shape[3]))
    probe = None if images.device.type == "meta" else Probe(module, images)
    readings = readings_of(list(seen.values()), len(images), size, probe)
    layers = []
    for name, output in seen.items():
        found = readings[name]
        layer = replace(
            idle(name, module.get_submodule(name)), runs=output.runs, shape=output.shape,
            size=size, found=found,
        )  # fmt: skip
        layers.append(layer if found.reading is None else layer.read_as(found.reading))
    return sorted(layers, key=lambda info: info.runs == 0)  # stable: the order stays


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
    maps = [layer for layer in layers if layer.may_be_meant(3)]
    if any(layer.has_children for layer in maps):
        maps = [layer for layer in maps if layer.has_children]
    last = {(layer.height, layer.width): layer for layer in maps}
    return [layer for layer in maps if layer is last[layer.height, layer.width]]


def resolve(
    layer: str | tuple[str, ...] | None, layers: Sequence[LayerInfo], explainer: str,
    reading: str | None = None,
) -> tuple[LayerInfo, ...]:  # fmt: skip
    """Return the requested layers.

    Args:
        layer: One layer or several: a name as in ``module.named_modules()``, also written
            ``blocks[12]``, where ``blocks[-1]`` is the last, or a rule, ``conv[i]`` or ``stage[i]``
            (:func:`convolutions`, :func:`stages`; a negative index counts from the end). A rule
            takes precedence over a module of the same spelling, which can be written ``conv.0``.
            None = the last layer to finish whose map is at least 4 x 4 pixels.
        layers: Of the network (:func:`layers_of`).
        explainer: Its id, for the messages.
        reading: How the named layers are read (:mod:`fxeval.hooks.readings`); None = as found.

    Raises:
        ExplainerContractError: If a layer is missing, runs more than once or not at all, gives no
            map of the image of at least 2 x 2 pixels, cannot be read as declared, or is named
            twice; or if there is no default. Lists the candidates with their sizes.
    """
    check_spelling(layer, explainer)
    check_reading(reading, layer, explainer)
    if layer is None:
        return (_default(layers, explainer),)
    wanted = (layer,) if isinstance(layer, str) else layer
    found = tuple(_resolved(one, layers, explainer, reading) for one in wanted)
    names = [one.name for one in found]
    for first, name in enumerate(names):
        if name in names[:first]:
            both = wanted[names.index(name)], wanted[first]
            raise ExplainerContractError(
                f"{explainer}: layers '{both[0]}' and '{both[1]}' are the same layer, '{name}'. "
                "Leave one out."
            )
    return found


def by_name(layer: str | tuple[str, ...] | None, module: nn.Module) -> tuple[str, ...] | None:
    """Return the dotted names if only names are given and all exist; None otherwise.

    This saves the forward pass that finds layers. The caller has to check that each layer runs once
    and gives a map.
    """
    wanted = (layer,) if isinstance(layer, str) else layer or ()
    known = {name for name, _ in module.named_modules()}
    names = tuple(_dots(one, known) for one in wanted)
    is_plain = names and len(set(names)) == len(names) and not any(map(_RULE.fullmatch, wanted))
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
    return _listed([f"{one.name} ({one.sized()})" for one in layers if one.holds(pixels)])


def black_box(model: FaceModel, needed: str = "gradients") -> str | None:
    """Return why a black-box model cannot be looked into; None if the model has a module."""
    if model.module is not None:
        return None
    return (
        f"needs {needed}, but model '{model.name}' is a black box (its module is None). Use an "
        "explainer that only asks for embeddings, such as srise."
    )


def lent_module(id: str, model: FaceModel, needed: str = "gradients") -> nn.Module:
    """Return the model's module.

    Raises:
        ExplainerContractError: If it has none.
    """
    if model.module is None:
        raise ExplainerContractError(f"{id}: {black_box(model, needed)}")
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


def _dots(name: str, known: Iterable[str] = ()) -> str:
    """Write ``blocks.12`` for ``blocks[12]``, and for ``blocks[-1]`` if 12 is the last known."""

    def numbered(found: re.Match[str]) -> str:
        before, index = _dots(name[: found.start()], known), int(found[1])
        if index >= 0:
            return f".{index}"
        inside = f"{before}." if before else ""
        children = {
            int(number)
            for one in known
            if one.startswith(inside) and (number := one[len(inside) :].split(".")[0]).isdecimal()
        }
        counted = sorted(children)
        return f".{counted[index]}" if -index <= len(counted) else f".{index}"

    return re.sub(r"\[(-?\d+)\]", numbered, name).removeprefix(".")


def _default(layers: Sequence[LayerInfo], explainer: str) -> LayerInfo:
    large = [layer for layer in layers if layer.may_be_meant(4)]
    if layers and all(layer.runs == 0 for layer in layers):
        raise ExplainerContractError(
            f"{explainer}: hooks see no layer of the model at work, as in a network that "
            "torch.compile made. Give the network as it was before, or use an explainer that only "
            "asks for embeddings."
        )
    if not large:
        raise NoDefaultError(
            f"{explainer}: no layer of the model has an output of at least 4 x 4 pixels, so there "
            "is no default. Name a layer, or use an explainer that only asks for embeddings."
        )
    last = large[-1]
    after = _tokens_after(layers, last)
    if after is not None:
        raise NoDefaultError(
            f"{explainer}: the last map of the model, '{last.name}' ({last.sized()}), only cuts "
            f"the image into patches; tokens come after it, such as '{after.name}' "
            f"({of(after.shape)}), whose places are not known, so there is no default. Name a "
            "layer and declare 'reading: tokens'."
        )
    return last


def cut_patches_only(layers: Sequence[LayerInfo]) -> bool:
    """Say whether the convolutions only cut patches, and the network goes on in another form."""
    others = (one for one in layers if one.runs and len(one.shape) in (3, 4))
    forms = {one.reading.order if one.found.reading else len(one.shape) for one in others}
    return _are_patches(layers) and bool(forms & {"channels_last", "tokens", 3})


def _are_patches(layers: Sequence[LayerInfo]) -> bool:
    found = [one.cuts_patches for one in layers if one.is_convolution and one.runs]
    return bool(found) and all(found)


def _tokens_after(layers: Sequence[LayerInfo], last: LayerInfo) -> LayerInfo | None:
    """Return the last layer of tokens, if a map before them only cuts the image into patches."""
    place = layers.index(last)
    if last.reading.order != "channels_first" or not _are_patches(layers[: place + 1]):
        return None
    tokens = [one for one in layers[place + 1 :] if len(one.shape) == 3 and one.shape[1] > 1]
    return tokens[-1] if tokens else None


def _resolved(
    wanted: str, layers: Sequence[LayerInfo], explainer: str, reading: str | None
) -> LayerInfo:
    rule = _RULE.fullmatch(wanted)
    if rule is not None:
        several, index = {"conv": convolutions, "stage": stages}[rule[1]](layers), int(rule[2])
        if not -len(several) <= index < len(several):
            raise ExplainerContractError(
                f"{explainer}: layer '{wanted}' is out of range, the model has {len(several)} "
                f"layers {rule[1]}[i] of at least 3 x 3 pixels: {candidates(several)}."
            )
        found = several[index]
    else:
        known = {layer.name: layer for layer in layers}
        name = _dots(wanted, known)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            suggestion = f"Did you mean '{near[0]}'? " if near else ""
            raise ExplainerContractError(
                f"{explainer}: the model has no layer '{wanted}'. {suggestion}Layers with a map: "
                f"{candidates(layers)}."
            )
        found = known[name]
    if reading is not None and found.runs == 1 and found.shape and not found.found.is_final:
        read = declared(reading, found.shape, found.size, found.found.options)
        found = (
            replace(found, found=Found(None, read)) if isinstance(read, str)
            else found.read_as(read)
        )  # fmt: skip
    fault = _fault(found)
    if fault:
        raise ExplainerContractError(
            f"{explainer}: layer '{wanted}' {fault}. Layers that can be used: {candidates(layers)}."
        )
    return found


def _fault(layer: LayerInfo) -> str | None:
    if layer.runs != 1:
        return f"runs {layer.runs} times in a forward pass, so its name does not identify one layer"
    if layer.found.fault:
        return layer.found.fault
    if layer.found.reading is None:
        return f"must give one (N, C, h, w) tensor, but this {layer.kind} does not"
    if not layer.holds(2):
        return f"gives {layer.height} x {layer.width} pixels, fewer than 2 x 2"
    if not layer.found.is_felt:
        return (
            f"gives tokens ({layer.sized()}) on whose places the embedding does not depend, as "
            "after the last attention only the class token counts"
        )
    return None


def _listed(names: list[str]) -> str:
    # Keep the last names: deep layers are the ones to explain.
    more = f"{len(names) - _SHOWN} more, " if len(names) > _SHOWN else ""
    return more + ", ".join(names[-_SHOWN:]) if names else "none"

"""Checks that the layer a library explains at is a map of the image, and reads it if it is not."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fxeval.contracts import Images, MapLayer
from fxeval.explainers.pair_module import refused
from fxeval.hooks.layer_info import LayerInfo
from fxeval.hooks.layers import layers_of, resolve
from fxeval.hooks.readings import declared, fits, of


def known_layers(
    name: str, module: nn.Module | None, parts: Sequence[object], images: Images,
    reading: str | None,
) -> tuple[LayerInfo, ...]:  # fmt: skip
    """Return the layers that a library's method was given.

    Args:
        name: The explainer's, for messages.
        module: The network; None for a black box.
        parts: Modules; what is no part of the network cannot be checked and is left out.
        images: (N, 3, H, W).
        reading: How the layers are read; None = as found.

    Raises:
        ExplainerContractError: If a layer gives no map of the image, or cannot be read as declared.
    """
    names = {id(part): path for path, part in module.named_modules() if path} if module else {}
    wanted = tuple(dict.fromkeys(names[id(part)] for part in parts if id(part) in names))
    if module is None or not wanted:
        return ()
    return resolve(wanted, layers_of(module, images[:1]), name, reading)


def attributed(
    name: str, found: Tensor, layers: Sequence[LayerInfo], images: Images, reading: str | None
) -> Tensor:
    """Return a library's attributions of the image or of one layer as (n, C, h, w).

    Args:
        name: The explainer's, for messages.
        found: (n, ...).
        layers: The layer, or () if the method has none or it is unknown.
        images: (n, 3, H, W).
        reading: How the layer is read; None = as found.

    Raises:
        ExplainerContractError: If they cannot be read as a map of the image.
    """
    size = (int(images.shape[2]), int(images.shape[3]))
    shape = tuple(found.shape)
    for layer in layers:
        order = layer.reading.order
        if order != "channels_first" and shape[1:] != layer.shape[1:]:
            raise refused(
                name,
                f"layer '{layer.name}' gives {of(layer.shape)}, read {layer.sized()}, but its "
                f"attributions are {of(shape)}: the method combines dimensions as if channels came "
                "first. Use a method that attributes to every value of the layer, or fxeval's "
                "gradcam.",
            )
        if shape[1:] == layer.shape[1:]:
            return layer.reading.places(found)
    if reading is not None:
        read = declared(reading, shape, size)
        if isinstance(read, str):
            raise refused(name, f"the method {read}.")
        return read.places(found)
    if len(shape) == 4 and not fits(shape[2], shape[3], size):
        raise refused(
            name,
            f"attributions are {of(shape)}, which has not the proportions of an image of "
            f"{size[0]} x {size[1]}. If the layer's channels are last, pass "
            "reading='channels_last'.",
        )
    return found


def reshape_for(
    name: str, method: object, module: nn.Module | None, images: Images, reading: str | None
) -> tuple[MapLayer, ...]:
    """Let a method of pytorch-grad-cam read its target layers; returns what a record tells of them.

    Raises:
        ExplainerContractError: If a target layer gives no (N, C, h, w) map of the image and neither
            a reading nor the method's ``reshape_transform`` makes it one.
    """
    targets = getattr(method, "target_layers", ())
    own = cast("Callable[[Tensor], Any] | None", getattr(method, "reshape_transform", None))
    if own is not None and reading is not None:
        raise refused(name, f"got reading '{reading}' and a reshape_transform. Leave one out.")
    if own is not None:
        return _reshaped(name, own, targets, module, images)
    layers = known_layers(name, module, targets, images, reading)
    readings = {layer.reading for layer in layers}
    if any(one.order != "channels_first" for one in readings):
        if reading is None:
            other = next(one for one in layers if one.reading.order != "channels_first")
            raise refused(
                name,
                f"layer '{other.name}' gives {of(other.shape)}, which the library would read "
                f"channels first; it is {other.sized()}. Pass reading='{other.reading.order}' to "
                "from_grad_cam, or a reshape_transform to the method.",
            )
        if len(readings) > 1:
            said = " and ".join(f"'{one.name}' ({one.sized()})" for one in layers)
            raise refused(name, f"the layers {said} have different readings. Name one of them.")
        hooked = getattr(method, "activations_and_grads", None)
        if hooked is None or not hasattr(hooked, "reshape_transform"):
            raise refused(
                name,
                f"this method has no reshape_transform, so layer '{layers[0].name}' cannot be read "
                f"as {layers[0].reading.order}.",
            )
        for part in cast("tuple[Any, Any]", (method, hooked)):
            part.reshape_transform = layers[0].reading.places
    return tuple(layer.as_entry() for layer in layers)


def _reshaped(
    name: str, own: Callable[[Tensor], Any], targets: Sequence[object], module: nn.Module | None,
    images: Images,
) -> tuple[MapLayer, ...]:  # fmt: skip
    """Try the user's own reshape_transform on outputs of zeros."""
    names = {id(part): path for path, part in module.named_modules() if path} if module else {}
    asked = [names[id(part)] for part in targets if id(part) in names]
    if module is None or not asked:
        return ()
    size = (int(images.shape[2]), int(images.shape[3]))
    known = {layer.name: layer for layer in layers_of(module, images[:1])}
    entries = []
    for layer in (known[path] for path in asked if known[path].shape):
        made = own(torch.zeros(layer.shape, device=images.device))
        shape = tuple(made.shape) if isinstance(made, Tensor) else ()
        if len(shape) != 4 or not fits(shape[2], shape[3], size):
            what = of(shape) if shape else type(made).__name__
            raise refused(
                name,
                f"the reshape_transform makes {what} of the {of(layer.shape)} of layer "
                f"'{layer.name}': expected C x h x w with the proportions of an image of "
                f"{size[0]} x {size[1]}.",
            )
        entries.append(
            MapLayer(layer.name, layer.shape[1:], "reshape_transform", (shape[2], shape[3]))
        )
    return tuple(entries)

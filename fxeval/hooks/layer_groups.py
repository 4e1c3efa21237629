"""Groups the layers of a network in the order in which they work, so that each can be re-drawn.

The order in which modules are registered says nothing: a head that is declared first still works
last. So one image is passed through the network, and modules are ordered by when they finish. Every
parameter and every buffer is in exactly one group:

* Those that a module which never runs owns, such as weights that its parent reads itself, and those
  of a container, have the place of the first module around them that runs.
* A tensor that several modules own has the place of the last of them, and so have these modules.
* A module that runs several times has the place of its last run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import torch
from torch import Tensor, nn

from fxeval.contracts import Images
from fxeval.hooks.evidence import watched
from fxeval.hooks.layers import borrowed, on_device_of

WHOLE = "the network itself"
"""What a network's own tensors, of none of its modules, are called."""


@dataclass(frozen=True)
class LayerGroup:
    """Layers that work one after the other.

    Attributes:
        name: The first and the last of them that have weights, such as ``stage4 to fc``.
        layers: Dotted names of the modules that own the group's tensors; "" is the network itself.
        parameters: Number of values in their parameters.
        buffers: Number of values in their buffers.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int
    buffers: int


@dataclass(frozen=True)
class _Owner:
    """A module that owns tensors."""

    name: str
    place: int
    parameters: int
    buffers: int
    has_matrix: bool


def layer_groups(module: nn.Module, images: Images, steps: int | None) -> tuple[LayerGroup, ...]:
    """Return all tensors of a network in groups, in order from the output to the input.

    Neighbouring layers are joined until there are as many groups as wanted; the groups that are
    nearest to the output are the smallest. What has no weight matrix, such as a norm or an
    activation, stays in the group of the layer before it.

    Args:
        module: Lent, and run once in eval mode.
        images: (1, 3, H, W).
        steps: Most groups, at least 1; None = one for each module that owns a tensor, but for those
            that have one place.

    Returns:
        One group or more; one alone if hooks see no module at work, and none without any tensor.

    Raises:
        ExplainerContractError: If the forward pass changes the module.

    >>> layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)
    >>> found = layer_groups(nn.Sequential(*layers), torch.rand(1, 3, 3, 3), steps=2)
    >>> [(group.name, group.layers) for group in found]
    [('3', ('3',)), ('0 to 1', ('0', '1'))]
    """
    with borrowed(module), torch.no_grad():
        with watched(module) as seen:
            module(on_device_of(module, images))
        finished = [name for name, output in seen.items() if output.runs]
    owners = _owners(module, finished)
    if steps is None:
        runs = [[*some] for _, some in groupby(owners, key=lambda one: one.place)]
    else:
        units = list(_units(owners))
        runs = [[*chain(*some)] for some in _split(units, min(steps, len(units)))]
    return tuple(_group(some) for some in reversed(runs))


def _owners(module: nn.Module, finished: Sequence[str]) -> list[_Owner]:
    """Return the modules that own tensors, in order of work."""
    place = {name: number for number, name in enumerate(finished)}
    place[""] = len(finished)
    own = {name: [*_own(part)] for name, part in module.named_modules()}
    own = {name: tensors for name, tensors in own.items() if tensors}
    places = {name: place[_that_runs(name, place)] for name in own}
    changed = True
    while changed:  # a tensor of two modules may join them with a third one
        shared: dict[int, int] = {}
        for name, tensors in own.items():
            for _, tensor in tensors:
                shared[id(tensor)] = max(places[name], shared.get(id(tensor), 0))
        joined = {name: max(shared[id(tensor)] for _, tensor in own[name]) for name in own}
        changed, places = joined != places, joined
    found, counted = [], set[int]()
    for name in sorted(own, key=lambda one: (places[one], one in place)):  # idle ones first
        new = [(kind, one) for kind, one in own[name] if id(one) not in counted]
        counted |= {id(one) for _, one in new}
        of = {
            kind: sum(one.numel() for which, one in new if which == kind)
            for kind in ("parameter", "buffer")
        }
        has_matrix = any(kind == "parameter" and one.dim() > 1 for kind, one in new)
        found.append(_Owner(name, places[name], of["parameter"], of["buffer"], has_matrix))
    return found


def _own(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for parameter in part.parameters(recurse=False):
        yield "parameter", parameter
    for buffer in part.buffers(recurse=False):
        yield "buffer", buffer


def _that_runs(name: str, place: dict[str, int]) -> str:
    """Return the module itself if it runs, else the first one around it that does."""
    while name not in place:
        name = name.rpartition(".")[0]
    return name


def _units(owners: Sequence[_Owner]) -> Iterator[list[_Owner]]:
    """Return the layers with a weight matrix, each with what follows it before the next one."""
    unit: list[_Owner] = []
    for number, one in enumerate(owners):
        same_place = number > 0 and owners[number - 1].place == one.place
        if unit and one.has_matrix and any(of.has_matrix for of in unit) and not same_place:
            yield unit
            unit = []
        unit.append(one)
    if unit:
        yield unit


def _split(units: Sequence[list[_Owner]], parts: int) -> list[list[list[_Owner]]]:
    """Return the units in consecutive parts of nearly equal length, the longer ones first."""
    found, start = [], 0
    for part in range(parts):
        length = len(units) // parts + (part < len(units) % parts)
        found.append([*units[start : start + length]])
        start += length
    return found


def _group(owners: Sequence[_Owner]) -> LayerGroup:
    shown = [one.name or WHOLE for one in owners if one.parameters] or [
        one.name or WHOLE for one in owners
    ]
    return LayerGroup(
        name=shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}",
        layers=tuple(one.name for one in owners),
        parameters=sum(one.parameters for one in owners),
        buffers=sum(one.buffers for one in owners),
    )

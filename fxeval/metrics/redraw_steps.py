"""Which layers are re-drawn, step by step."""

from collections.abc import Sequence
from typing import Literal

from fxeval.hooks.layer_groups import LayerGroup
from fxeval.metrics.rows import Redraw

Cascade = Literal["cascading_top_down", "cascading_bottom_up", "independent"]


def redraws(groups: Sequence[LayerGroup], mode: Cascade) -> list[Redraw]:
    """Return what is re-drawn in each step.

    The last step of a cascade re-draws everything: it is the network without ``layers``, which
    other checks share.

    Args:
        groups: Of the network's layers, from the output to the input.
        mode: ``cascading_top_down``: the layers from the output to each step;
            ``cascading_bottom_up``: those from the input; ``independent``: each step's own, alone.

    >>> fc, stem = LayerGroup("conv2 to fc", ("conv2", "fc"), 9, 0), LayerGroup("c", ("c",), 9, 0)
    >>> [(one.layers, one.of) for one in redraws([fc, stem], "cascading_bottom_up")]
    [(('c',), 'c'), (None, '')]
    >>> [one.of for one in redraws([fc, stem], "independent")]
    ['conv2 to fc', 'c']
    """
    steps = range(1, len(groups) + 1)
    if mode == "independent":
        return [_redraw(groups[step - 1 : step], groups) for step in steps]
    if mode == "cascading_top_down":
        return [_redraw(groups[:step], groups) for step in steps]
    return [_redraw(groups[-step:], groups) for step in steps]


def _redraw(some: Sequence[LayerGroup], groups: Sequence[LayerGroup]) -> Redraw:
    if len(some) == len(groups):
        return Redraw()
    working = some[::-1]  # from the input to the output, as the layers work
    first, last = working[0].name.split(" to ")[0], working[-1].name.split(" to ")[-1]
    return Redraw(
        layers=tuple(layer for one in working for layer in one.layers),
        of=first if first == last else f"{first} to {last}",
    )

"""Maps of the rows of one look, and of all rows: each map is made once, and no sooner than needed.

A cell that stops at an early look has made no map of the rows after it, unless a protocol asks for
the maps of all rows, its reference set, which is the same at every look.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.explainers.map_levels import joined
from fxeval.metrics.map_sets import taken
from fxeval.metrics.rows import MapCost, Rows


@dataclass(frozen=True, eq=False)
class Looked:
    """The looks at the rows of a cell; without any, the maps of all rows are made at once.

    Attributes:
        looks: Positions of the rows that each look adds, ascending.
    """

    looks: tuple[Tensor, ...] = ()
    _rows: dict[tuple[int, int], Rows] = field(default_factory=dict)
    _whole: dict[tuple[int, ...], tuple[Sequence[SaliencyMaps], SaliencyMaps]] = field(
        default_factory=dict
    )

    def explained(
        self, everyone: Rows, places: Tensor, ask: Callable[[Rows], SaliencyMaps]
    ) -> SaliencyMaps:
        """Return the maps of a group of rows, which are all of one look."""
        if not self._parts(everyone):
            return taken(ask(everyone), places)
        number = next(n for n, one in enumerate(self.looks) if bool((one == places[0]).any()))
        return taken(
            ask(self._of(everyone, number)), torch.searchsorted(self.looks[number], places)
        )

    def reference(self, everyone: Rows, ask: Callable[[Rows], SaliencyMaps]) -> SaliencyMaps:
        """Return the maps of all rows."""
        if not self._parts(everyone):
            return ask(everyone)
        parts = [ask(self._of(everyone, number)) for number in range(len(self.looks))]
        key = (*map(id, parts),)
        if key not in self._whole:  # with the parts, so that their ids stay theirs
            height, width = parts[0].positive.shape[1:]
            order = torch.cat(self.looks).argsort()
            self._whole[key] = parts, taken(joined(parts, (int(height), int(width))), order)
        return self._whole[key][1]

    def cost(self, everyone: Rows, ask: Callable[[Rows], MapCost]) -> MapCost:
        """Return what the maps of all rows cost."""
        if not self._parts(everyone):
            return ask(everyone)
        parts = [ask(self._of(everyone, number)) for number in range(len(self.looks))]
        known = [one.peak_memory for one in parts if one.peak_memory is not None]

        def total(of: Callable[[MapCost], Any]) -> Any:  # noqa: ANN401  (int or float)
            return sum(map(of, parts))

        return MapCost(
            n_maps=total(lambda one: one.n_maps),
            forwards=total(lambda one: one.forwards),
            backwards=total(lambda one: one.backwards),
            seconds=total(lambda one: one.seconds),
            peak_memory=max(known, default=None),
        )

    def _parts(self, everyone: Rows) -> bool:
        """Say whether maps are made look by look: not means of several, which rows share."""
        return bool(self.looks) and everyone.source.shape[1] == 1 and everyone.against.ndim == 2

    def _of(self, everyone: Rows, number: int) -> Rows:
        """Return all rows, of which those of a look are asked for; always the same object."""
        key = id(everyone), number
        if key not in self._rows:
            self._rows[key] = replace(everyone, only=self.looks[number], look=number)
        return self._rows[key]

"""Sets of maps, one map for each row: parts of them, means over several, states."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.map_similarity import norm01
from fxeval.records.schema import GRID
from fxeval.results import BROKEN_STATES, RowState, gravity


def taken(maps: SaliencyMaps, rows: Tensor) -> SaliencyMaps:
    """Return the maps of some rows."""
    places = rows.tolist()
    return SaliencyMaps(
        maps.positive[rows],
        None if maps.negative is None else maps.negative[rows],
        tuple(maps.states[row] for row in places),
        tuple(maps.reasons[row] for row in places),
        {name: values[rows] for name, values in maps.diagnostics.items()},
    )


def signed(maps: SaliencyMaps) -> SaliencyMaps:
    """Return maps of the evidence for a similarity less that against it.

    Maps of a method that knows no evidence against are returned as they are.
    """
    if maps.negative is None:
        return maps
    return replace(maps, positive=maps.positive - maps.negative, negative=None)


def averaged(maps: SaliencyMaps, of: Sequence[Sequence[int]]) -> SaliencyMaps:
    """Return the mean of some of the maps for each row, each map scaled to 0..1.

    A row has the worst state of its maps: a constant map counts as zeros, a broken map breaks the
    row. If every row is of one map, the maps stay as they are.

    Args:
        maps: M maps.
        of: For each row, the places of one or more of them.
    """
    if all(len(some) == 1 for some in of):
        return taken(maps, torch.tensor([one for some in of for one in some]))
    scaled = norm01(torch.nan_to_num(maps.positive))[0]
    grave = [max(some, key=lambda one: gravity(maps.states[one])) for some in of]
    states = tuple(maps.states[one] for one in grave)
    mean = torch.stack([scaled[list(some)].mean(dim=0) for some in of]).float()
    mean[~torch.from_numpy(usable(states))] = torch.nan
    return SaliencyMaps(mean, None, states, tuple(maps.reasons[one] for one in grave))


def one_by_one(maps: SaliencyMaps, of: Sequence[Sequence[int]]) -> tuple[SaliencyMaps, ...]:
    """Return the first map of each row, the second one, and so on.

    Args:
        maps: M maps.
        of: For each row, the places of one or more of them.

    Returns:
        As many sets as a row has maps at most; ``EXCLUDED`` where it has fewer, and no reason.
    """
    sets = []
    for turn in range(max(map(len, of))):
        found = taken(maps, torch.tensor([places[min(turn, len(places) - 1)] for places in of]))
        is_there = [turn < len(places) for places in of]
        states = (
            state if there else RowState.EXCLUDED
            for state, there in zip(found.states, is_there, strict=True)
        )  # fmt: skip
        reasons = (
            reason if there else "" for reason, there in zip(found.reasons, is_there, strict=True)
        )
        sets.append(replace(found, states=tuple(states), reasons=tuple(reasons)))
    return tuple(sets)


def usable(states: Sequence[RowState]) -> NDArray[np.bool_]:
    """Say which maps have an order at all, even if it is a random one."""
    unordered = BROKEN_STATES | {RowState.EXCLUDED}
    return np.array([state not in unordered for state in states], dtype=bool)


def worst(several: Sequence[Sequence[RowState]]) -> tuple[RowState, ...]:
    """Return, for each row, the worst of its states."""
    return tuple(max(states, key=gravity) for states in zip(*several, strict=True))


def thumbnail(maps: SaliencyMaps, row: int) -> list[list[float]] | None:
    """Return a map that has an order, scaled to 0..1, as the means of 28 x 28 cells."""
    if maps.states[row] is not RowState.OK:
        return None
    one = maps.positive[row]
    stretched = (one - one.min()) / (one.max() - one.min())
    small = torch.nn.functional.adaptive_avg_pool2d(stretched[None, None], GRID)[0, 0]
    grid: list[list[float]] = [[round(value, 4) for value in line] for line in small.tolist()]
    return grid

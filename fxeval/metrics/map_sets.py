"""Sets of maps, one map for each row: parts of them, means over several, states."""

from collections.abc import Sequence

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


def averaged(maps: SaliencyMaps, of: Sequence[Sequence[int]]) -> SaliencyMaps:
    """Return the mean of some of the maps for each row, each map scaled to 0..1.

    A row has the worst state of its maps: a constant map counts as zeros, a broken map breaks the
    row.

    Args:
        maps: M maps.
        of: For each row, the places of one or more of them.
    """
    scaled = norm01(torch.nan_to_num(maps.positive))[0]
    grave = [max(some, key=lambda one: gravity(maps.states[one])) for some in of]
    states = tuple(maps.states[one] for one in grave)
    mean = torch.stack([scaled[list(some)].mean(dim=0) for some in of]).float()
    mean[~torch.from_numpy(usable(states))] = torch.nan
    return SaliencyMaps(mean, None, states, tuple(maps.reasons[one] for one in grave))


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

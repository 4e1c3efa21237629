"""Where the decision flips while pixels are removed (deletion) or restored (insertion)."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fxeval.metrics.protocol import FloatArray
from fxeval.metrics.removal_curves import Curves, Removal
from fxeval.results import RowState

Crossing = tuple[float, RowState]
CrossingStep: TypeAlias = Annotated[int, Field(ge=1, strict=True)] | Literal["exact"] | None

_AT_ONCE = 64  # counts of pixels of one order that an exact scan asks for before it looks


def crossings(
    removal: Removal, found: Curves, crossing_step: int | Literal["exact"] | None
) -> list[tuple[Crossing, Crossing]]:
    """Find the fraction at which the decision flips, for deletion and insertion in each order.

    The first point of the curve at which the margin is negative is taken (for insertion: at which
    it no longer is). With a number as ``crossing_step``, the interval before that point is scanned
    at that resolution; an earlier excursion between two points of the curve can be missed, as the
    answer need not be monotone. With ``exact``, every pixel count is asked for in turn until the
    decision flips (Lu and Ebrahimi 2023, sec. 3).

    Returns:
        Per entry of ``order.kept``, (fraction to nonmatch, fraction to match), each with its state:
        ``not_crossed`` counts 1.0, also where the filled image is a match: an order can flip the
        decision before everything is filled, so the row still tells maps apart.
        ``start_beyond`` (the filled image alone is a match) keeps the published 0.0, which enters
        no estimate; ``excluded`` (no match to begin with, or no decision) has no value.
    """
    if np.isnan(found.margin).all():
        return [((np.nan, RowState.EXCLUDED), (np.nan, RowState.EXCLUDED))] * len(found.margin)
    n = int(found.counts[-1])
    beyond = _beyond(found)
    index = np.where(beyond.any(-1), beyond.argmax(-1), -1)  # (B, 2)
    count = np.where(index >= 0, found.counts[index], n + 1)
    is_asked = (found.margin[:, :1, 0] >= 0) & (index != 0)  # (B, 2)
    if crossing_step == "exact":
        _scan(removal, found.counts, is_asked, count)
    elif crossing_step is not None:
        _refine(removal, found.counts, (index, count), crossing_step)
    rows: list[tuple[Crossing, Crossing]] = []
    for row, accepted in enumerate(found.margin[:, 0, 0] >= 0):
        if accepted:
            one, two = (_crossing(int(count[row, way]), n) for way in (0, 1))
        else:
            one = two = (np.nan, RowState.EXCLUDED)
        rows.append((one, two))
    return rows


def flips(found: Curves) -> FloatArray:
    """Return how often the decision flips along each order's curves, the larger of both ways.

    Along a curve that crosses the operating threshold once, it is 1. More often means that the
    curve returns, and a coarse curve can miss the first crossing.

    Returns:
        (B,) whole numbers, NaN without a decision.
    """
    times: FloatArray = (np.diff(_beyond(found), axis=-1) != 0).sum(axis=-1).max(axis=-1)
    return np.where(np.isnan(found.margin).any(axis=(1, 2)), np.nan, times)


def _beyond(found: Curves) -> NDArray[np.bool_]:
    """Say where deletion no longer matches, and where insertion matches again, (B, 2, K + 1)."""
    return np.stack([found.margin[:, 0] < 0, found.margin[:, 1] >= 0], axis=1)


def _crossing(count: int, n: int) -> Crossing:
    if count > n:
        return 1.0, RowState.NOT_CROSSED
    return (0.0, RowState.START_BEYOND) if count == 0 else (count / n, RowState.OK)


def _scan(
    removal: Removal,
    known: NDArray[np.int64],
    is_asked: NDArray[np.bool_],
    count: NDArray[np.int64],
) -> None:
    """Replace crossing counts, in place, by the first of all counts of pixels.

    Args:
        removal: Whose orders are followed.
        known: (K + 1,) counts on the curve: none below a crossing is beyond the threshold.
        is_asked: (B, 2) orders and ways that can still cross.
        count: (B, 2) of the first crossing on the curve, more than all pixels if there is none.
    """
    n = int(known[-1])
    unknown = np.setdiff1d(np.arange(n), known)
    left = {
        (int(row), int(way)): unknown[unknown < count[row, way]].tolist()
        for row, way in np.argwhere(is_asked)
    }
    while left := {one: counts for one, counts in left.items() if counts}:
        asked = [(*one, k) for one, counts in left.items() for k in counts[:_AT_ONCE]]
        hits = _first_hits(removal, asked)
        for one, k in hits.items():
            count[one] = k
        left = {one: counts[_AT_ONCE:] for one, counts in left.items() if one not in hits}


def _refine(
    removal: Removal,
    counts: NDArray[np.int64],
    coarse: tuple[NDArray[np.int64], NDArray[np.int64]],
    crossing_step: int,
) -> None:
    """Replace coarse crossing counts, in place, by earlier ones inside their interval."""
    index, count = coarse
    wanted = [  # [1:]: the point before the crossing is known to be on the other side
        (int(row), int(way), k)
        for row, way in np.argwhere(index > 0)
        for k in range(int(counts[index[row, way] - 1]), int(count[row, way]), crossing_step)[1:]
    ]
    for one, k in _first_hits(removal, wanted).items():
        count[one] = k


def _first_hits(
    removal: Removal, wanted: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int], int]:
    """Return the first count beyond the threshold of each order and way that has one.

    Args:
        removal: Whose orders are followed.
        wanted: Order, way (0 = deletion, 1 = insertion) and count of pixels; counts ascend.
    """
    if not wanted:
        return {}
    n = removal.order.ranks.shape[1]
    row, way, k = torch.tensor(wanted).unbind(1)
    deletes = way == 0
    first = torch.where(deletes, torch.zeros_like(k), k)
    last = torch.where(deletes, k, torch.full_like(k, n))
    _, margin = removal.ask(row, first, last)
    beyond = np.where(deletes.numpy(), margin < 0, margin >= 0)
    found: dict[tuple[int, int], int] = {}
    for position in np.flatnonzero(beyond).tolist():
        one, which, earlier = wanted[position]
        found.setdefault((one, which), earlier)
    return found

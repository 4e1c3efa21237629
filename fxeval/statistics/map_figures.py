"""The mean map of a cell, the explainer's own numbers about its maps, and one map for all."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from fxeval.records.judged import Difference
from fxeval.records.schema import Diagnostic, Row
from fxeval.results import ORDERS_OF_TIES, TIED_SHARE, RowState
from fxeval.statistics.limit import in_words

SAME = 0.999
"""Correlation of two 28 x 28 maps from which they count as one and the same map.

Honest maps of aligned faces look alike, since every face has its eyes in one place: Grad-CAM and
its kin reach 0.99 with the mean map of other people. Copies of one map exceed 0.999, even with a
little noise added to each.
"""

MANY_TIES = 0.1
"""Share of tied pixels of a map above which a reader is told."""


def largest_same(rows: Sequence[Row]) -> tuple[int, int]:
    """Return how many people share the commonest map, and how many people have a map at all.

    Args:
        rows: Rows of a cell. Constant maps, whose order is random, and rows without a map do not
            count; of several rows of one person the first does.
    """
    of_person: dict[int, Sequence[Sequence[float]]] = {}
    for row in rows:
        if row.thumbnail is not None and row.state is not RowState.DEGENERATE_MAP:
            of_person.setdefault(row.identities[0], row.thumbnail)
    maps: NDArray[np.float64] = np.array([*of_person.values()], dtype=np.float64)
    if len(maps) < 2:
        return len(maps), len(maps)
    flat = maps.reshape(len(maps), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(length > 0, length, 1.0)
    return int((unit @ unit.T >= SAME).sum(axis=1).max()), len(maps)


def same_map_of(rows: Sequence[Row]) -> str:
    """Say that most people have one and the same map; empty if they do not."""
    same, people = largest_same(rows)
    if people < 2 or same <= people / 2:
        return ""
    return (
        f"{same} of {people} people have the same saliency map (correlation at least {SAME:g}): it "
        "does not depend on the image, and explains none of them."
    )


def diagnostics_of(rows: Sequence[Row]) -> list[Diagnostic]:
    """Return mean, least and largest of each diagnostic of the first set of maps."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in next(iter(row.diagnostics.values()), {}).items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return [
        Diagnostic(
            name=name,
            mean=float(np.mean(values)),
            least=min(values),
            largest=max(values),
            n_pairs=len(values),
        )
        for name, values in found.items()
    ]


def ties_of(rows: Sequence[Row]) -> str:
    """Say how many maps have many tied pixels, and what was done; empty if none has."""
    found = [next(iter(row.diagnostics.values()), {}) for row in rows]
    shares = [share for one in found if (share := one.get(TIED_SHARE)) is not None]
    many = sum(share > MANY_TIES for share in shares)
    if not many:
        return ""
    said = (
        f"{many} of {len(shares)} maps tie more than {MANY_TIES:.0%} of their pixels, which thus "
        f"have no order (mean share of tied pixels of all maps: {np.mean(shares):.0%})."
    )
    orders = [int(n) for one in found if (n := one.get(ORDERS_OF_TIES)) is not None]
    if several := [n for n in orders if n > 1]:
        numbers = " to ".join(str(n) for n in sorted({min(several), max(several)}))
        said += f" The values of {len(several)} maps are means over {numbers} random orders."
    elif orders:
        said += " They are removed in one random order."
    return said


def identity_note(differences: Sequence[Difference], slices: Collection[str] = ()) -> str:
    """Say where the map of another person is as good by every metric; empty where by none.

    Args:
        differences: Of a cell; those to ``shuffled_identity`` over all rows count.
        slices: Columns of the slices, in which differences may lie.
    """
    found: dict[str, list[Difference]] = {}
    for one in differences:
        is_whole = one.under.keys().isdisjoint(slices)
        if one.control == "shuffled_identity" and one.low is not None and is_whole:
            found.setdefault(in_words(one.under), []).append(one)
    alike = {
        words: some
        for words, some in found.items()
        if all(one.low is not None and one.low <= 0 for one in some)
    }
    if not alike:
        return ""
    words, (first, *_) = next(iter(alike.items()))
    n = len(alike) - 1
    more = f"; likewise under {n} more condition{'s' * (n > 1)}" if n else ""
    return (
        "identity is not seen to matter to these maps here: by no metric is the map of another "
        f"person worse{words}, such as {first.metric} with a difference of {first.value:.3g} "
        f"[{first.low:.3g}, {first.high:.3g}]{more}"
    )


def mean_map_of(rows: Sequence[Row]) -> list[list[float]] | None:
    """Return the mean of the maps that have an order, in 28 x 28 cells; None if there is none."""
    kept = [row.thumbnail for row in rows if row.thumbnail is not None]
    if not kept:
        return None
    mean: list[list[float]] = np.mean(np.array(kept, dtype=np.float64), axis=0).round(4).tolist()
    return mean

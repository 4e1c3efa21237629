"""What the sets of maps of a cell cost together."""

from collections.abc import Iterable

from fxeval.metrics.protocol import MapCost
from fxeval.records.schema import Explaining


def total(parts: Iterable[Explaining]) -> MapCost:
    """Return what sets of maps cost together: sums, and the largest peak of memory."""
    parts = list(parts)
    known = [one.peak_memory for one in parts if one.peak_memory is not None]
    return MapCost(
        n_maps=sum(one.n_maps for one in parts),
        forwards=sum(one.forwards + one.answered for one in parts),
        backwards=sum(one.backwards for one in parts),
        seconds=sum(one.seconds for one in parts),
        peak_memory=max(known, default=None),
    )

"""Explains a few pairs again: with the same seed an explainer must return the same maps.

They are explained in another group and at other places of it, with fresh copies of the images, so
that maps which depend on the pairs beside them, on earlier calls, on a clock or on a generator of
the explainer's own are found. An explainer that remembers its answers by the content of the images
repeats within a run: its maps are judged as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.engine.inputs import Comparison
from fxeval.engine.maps import ROWS_AT_ONCE
from fxeval.errors import ExplainerContractError, for_a_record
from fxeval.metrics.protocol import taken, usable
from fxeval.records.schema import Repeatability
from fxeval.redaction import without_paths
from fxeval.results import RowState
from fxeval.seeding import seed_of

ROWS_AGAIN = 4

SAME = 1e-3
"""Largest change of a map with the same seed, as a share of its range; the rest is rounding."""

OTHER = 1e-5
"""From here on the map of another seed is another map: the ranks of small values change, too."""

Explain: TypeAlias = Callable[[Comparison], SaliencyMaps]

_OWN_DRAWS = (
    "Draw from the generator that explain() is given, and from no other; use no clock, and nothing "
    "that is kept from earlier calls."
)
_OF_THE_GROUP = (
    "Draw once for all pairs of a call, as with one set of masks or noise for each image, and "
    "scale each map by itself."
)


@dataclass(frozen=True)
class _Change:
    """The largest change of a map, as a share of its range, and what else changed."""

    share: float = 0.0
    state: str = ""
    is_raised: bool = False


def repeated(explain: Explain, asked: Comparison, maps: SaliencyMaps, seed: int) -> Repeatability:
    """Explain a few pairs again, with the same seed and with another.

    Args:
        explain: Asks the explainer.
        asked: Comparisons, explained with seed 0.
        maps: The maps of those that were asked for.
        seed: The suite's seed, which chooses the pairs.

    Returns:
        The findings; ``n_rows`` is 0 if no map has an order.
    """
    places = rows_again(asked, maps, seed)
    rows = asked.order[places]
    if not len(rows):
        return Repeatability(n_rows=0, repeats=True, depends_on_seed=False, change=0.0)
    before = taken(maps, places)
    try:
        again = explain(replace(asked, rows=rows))
        found = _change(before, again)
        reason = _why_not(found, "explained again with the same seed")
        if reason and not found.is_raised:
            reason += (
                _OF_THE_GROUP if _is_of_the_group(explain, asked, maps, places) else _OWN_DRAWS
            )
        seeded = _change(again, explain(replace(asked, rows=rows, seed=1)))
    except ExplainerContractError as error:
        found, seeded = _Change(state=for_a_record(error)), _Change()
        reason = f"explained again with the same seed, it refused pairs: {found.state}"
    return Repeatability(
        n_rows=len(rows),
        repeats=not reason,
        depends_on_seed=bool(seeded.state) or seeded.share > OTHER,
        change=None if found.state else found.share,
        reason=reason,
    )


def rows_again(asked: Comparison, maps: SaliencyMaps, seed: int) -> Tensor:
    """Choose a few pairs whose maps have an order by the suite's seed, the last first.

    Returns:
        Their places among those that were asked for.
    """
    able, order = usable(maps.states), asked.order.tolist()
    drawn = sorted(
        (row for row in range(len(asked)) if able[row]),
        key=lambda row: seed_of(seed, "again", asked.id[order[row]]),
    )
    return torch.tensor(sorted(drawn[:ROWS_AGAIN], reverse=True), dtype=torch.int64)


def together(several: list[Repeatability]) -> Repeatability | None:
    """Return the findings about several sets of maps as one; None if nothing was found.

    >>> one = Repeatability(n_rows=4, repeats=True, depends_on_seed=False, change=0.0)
    >>> together([one, one]).n_rows
    8
    """
    found = [one for one in several if one.n_rows]
    if not found:
        return None
    return Repeatability(
        n_rows=sum(one.n_rows for one in found),
        repeats=all(one.repeats for one in found),
        depends_on_seed=any(one.depends_on_seed for one in found),
        change=max((one.change for one in found if one.change is not None), default=None),
        reason=next((one.reason for one in found if one.reason), ""),
    )


def _is_of_the_group(
    explain: Explain, asked: Comparison, maps: SaliencyMaps, places: Tensor
) -> bool:
    """Say whether the maps of a whole group repeat, so that the pairs beside a pair matter."""
    first = int(places[0]) // ROWS_AT_ONCE * ROWS_AT_ONCE
    group = torch.arange(first, min(first + ROWS_AT_ONCE, len(asked)))
    again = explain(replace(asked, rows=asked.order[group]))
    return not _why_not(_change(taken(maps, group), again), "")


def _why_not(found: _Change, when: str) -> str:
    if found.state:
        return f"{when}, {found.state}. "
    if found.share <= SAME:
        return ""
    return f"{when}, a map changed by {found.share:.2g} of its range. "


def _change(before: SaliencyMaps, after: SaliencyMaps) -> _Change:
    """Compare maps of the same pairs."""
    for one, other, why in zip(before.states, after.states, after.reasons, strict=True):
        if one is not other:
            because = f" ({without_paths(why)})" if why else ""
            is_raised = other is RowState.EXPLAINER_RAISED
            return _Change(
                state=f"a map was {other} that had been {one}{because}", is_raised=is_raised
            )
    if (before.negative is None) != (after.negative is None):
        return _Change(state="the maps came with negative parts only once")
    kept = torch.from_numpy(usable(before.states))
    shares = [0.0]
    for first, second in ((before.positive, after.positive), (before.negative, after.negative)):
        if first is not None and second is not None and bool(kept.any()):
            shares.append(_share(first[kept].flatten(1), second[kept].flatten(1)))
    return _Change(max(shares))


def _share(before: Tensor, after: Tensor) -> float:
    """Return the largest change as a share of the range; of 1/1000 of the values where it is less.

    A map whose values hardly differ has a range that is itself rounding.
    """
    before, after = before.double(), after.double()
    spread = before.amax(dim=1) - before.amin(dim=1)
    spread = torch.maximum(spread, before.abs().amax(dim=1) / 1000).clamp_min(1e-30)
    return float(((after - before).abs().amax(dim=1) / spread).max())

"""The rows of every kind, those among them that take more than loaded pairs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from fxeval.contracts import Pairs
from fxeval.engine.class_rows import classes
from fxeval.engine.compared_rows import compared_pairs
from fxeval.engine.false_match_rows import false_matches
from fxeval.engine.nearby_rows import nearby_pairs
from fxeval.engine.occluded_rows import occluded_pairs
from fxeval.engine.patched_rows import patched_pairs
from fxeval.engine.pattern_rows import map_pairs, people
from fxeval.engine.row_kinds import TABLES, Table
from fxeval.engine.search_rows import searches
from fxeval.engine.twin_rows import twins
from fxeval.metrics.protocol import RowKind


@dataclass(frozen=True, eq=False)
class Making:
    """What rows may need besides their pairs.

    Attributes:
        seed: The suite's seed.
        parameters: Of the check.
        landmarks: Returns the five landmarks of the pairs' images in pixels of their crop,
            (M, 5, 2) float64.
        twins: Returns the twins of the pairs' probes, (N, 3, H, W) uint8.
    """

    seed: int
    parameters: object
    landmarks: Callable[[], Tensor]
    twins: Callable[[], Tensor]


MADE: Mapping[RowKind, Callable[[Pairs, Making], Table]] = MappingProxyType(
    {
        "classes": lambda pairs, making: classes(pairs, making.parameters),
        "searches": lambda pairs, making: searches(pairs, making.seed, making.parameters),
        "people": lambda pairs, making: people(pairs.faces()),
        "map pairs": lambda pairs, making: map_pairs(pairs.faces(), making.seed),
        "occluded pairs": lambda pairs, making: occluded_pairs(
            pairs,
            making.parameters.occluders,  # type: ignore[attr-defined]
            making.landmarks(),
        ),
        "compared pairs": lambda pairs, making: compared_pairs(pairs, making.seed),
        "nearby pairs": lambda pairs, making: nearby_pairs(
            pairs,
            making.seed,
            making.parameters.noisy,  # type: ignore[attr-defined]
        ),
        "twins": lambda pairs, making: twins(pairs, making.twins()),
        "false matches": lambda pairs, making: false_matches(pairs),
        "patched pairs": lambda pairs, making: patched_pairs(
            pairs,
            making.seed,
            making.parameters,  # type: ignore[arg-type]  # of such a check
        ),
    }
)
"""The function that makes the rows of each kind that needs more than pairs."""


def table_of(kind: RowKind, pairs: Pairs, making: Making) -> Table:
    """Return the rows of a kind.

    Raises:
        DataContractError: If the pairs have too little for such rows.
    """
    return TABLES[kind](pairs) if kind in TABLES else MADE[kind](pairs, making)

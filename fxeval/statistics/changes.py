"""What changed between two runs: each cell judged against the same cell of the earlier run.

``compared(before: StoredRun, after: StoredRun, margins: Margins = Margins(), *,
names: tuple[str, str] | None = None) -> list[Comparison]``
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Margins:
    """By how much the later run may be worse.

    Attributes:
        within: By the name of a metric, ``{"absolute": a}`` in its unit or ``{"relative": r}`` of
            the earlier value; under the name "" of all others. Without any, 0.
        over: What the changes are about: as the limits of the suite say, this list, or all people
            like those of the list.
    """

    within: Mapping[str, Mapping[Literal["absolute", "relative"], float]] = field(
        default_factory=dict
    )
    over: Literal["suite", "list", "population"] = "suite"

"""Is a map about this network, this pair and this picture? The sanity verdict with two sides.

A map must change with the weights and with the person that is compared with, and it must repeat
when neither changes: noise passes every check that has one side. What is compared is the part of
the map that is of this face, its residual.
"""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fxeval.metrics.impostor_swap import (
    AGAIN,
    COMPARE,
    CONDITIONS,
    DRAWS_ITSELF,
    FLOOR,
    IMPOSTOR,
    REPEAT,
    REPETITIONS,
    ROWS,
    SWAPPED,
    enter_repetitions,
    enter_swap,
    of_maps,
    repetitions,
)
from fxeval.metrics.protocol import Evidence, Ledger, Redraw
from fxeval.metrics.residual_sets import PLAIN, FloatArray, Gathered

__all__ = [
    "CONDITIONS", "DRAWS_ITSELF", "METRICS", "NO_SELF_CHECK", "ROWS", "Parameters", "measure",
]  # fmt: skip
NO_SELF_CHECK = "controls that must not pass show what it stops (docs/method.md)"

NUDGE = 0.001
"""Relative change of the weights of the nudged network."""


class Parameters(BaseModel):
    """Parameters of a two-sided sanity check.

    Attributes:
        redraws: Number of networks with random weights; similarities are means over them. Five to
            certify.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    redraws: Annotated[int, Field(ge=1, le=20)] = 3


_UNSIGNED = "absolute Spearman correlation"

CHANGE = of_maps(
    "change",
    "Similarity under repetition less that with the map of a re-drawn network",
    "A map that survives random weights has 0 or less, and noise, which does not repeat, too.",
    least=-2.0,
    unit="difference of Spearman correlations",
)
INPUT = of_maps(
    "input",
    "Similarity of whole maps under repetition less that with the mean map of other people",
    "A picture that is the same for everybody has 0 or less, whatever little is left of it.",
    least=-2.0,
    unit="difference of Spearman correlations",
)
NUDGED = of_maps(
    "nudge",
    "Similarity with the map of a network with weights changed by 0.1 %",
    "1 for an explanation of the network; 0 for one that recognises it by a digest.",
)
REDRAWN = of_maps(
    "redrawn_similarity", "Similarity with the map of a re-drawn network, sign dropped",
    "Near the floor when the map depends on the weights; 1 when any network would do.",
    least=0.0, better="lower", unit=_UNSIGNED,
)  # fmt: skip
RAW_REDRAWN = of_maps(
    "raw_redrawn_similarity", "Similarity of whole maps with that of a re-drawn network",
    "High for an explainer whose maps show the aligned crop; near 0 for noise.",
    least=0.0, better="lower", unit=_UNSIGNED,
)  # fmt: skip
RAW_MEAN = of_maps(
    "raw_mean_map_similarity", "Similarity of the whole map with the mean map of other people",
    "1 when everybody gets the same picture.",
    least=0.0, better="lower", unit=_UNSIGNED,
)  # fmt: skip
RAW_FLOOR = of_maps(
    "raw_floor_similarity", "Similarity of whole maps with those of other people, sign dropped",
    "What the aligned crop alone makes alike.",
    least=0.0, better="lower", unit=_UNSIGNED,
)  # fmt: skip

METRICS = (
    REPEAT, CHANGE, COMPARE, INPUT, NUDGED,
    *AGAIN, REDRAWN, SWAPPED, FLOOR, RAW_REDRAWN, RAW_MEAN, RAW_FLOOR,
)  # fmt: skip


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Compare the maps of pairs with those of nine further conditions at most, row by row.

    Conditions come by their cost: what decides noise needs no other network.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        The five axes ``repeat``, ``change``, ``compare``, ``input`` and ``nudge`` per row, and what
        they are made of; for the positive map and, where there is a negative one, for their
        difference. A black box has no ``nudge``.
    """
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    own = evidence.reference_maps(subject)[0]
    key = "two-sided", parameters.redraws, id(own)
    gathered = evidence.of_cell.get(key, lambda: _gathered(evidence, parameters))
    gathered.watched(ledger)
    nudged = [name for name, one in gathered.networks.items() if one.network.made == "nudged"]
    redrawn = [name for name in gathered.networks if name not in nudged]
    if not subject.has_weights:
        ledger.leave_out(NUDGED.name, "does not apply to a black box: no weight can be nudged")
    for part in gathered.parts:
        repeat = enter_repetitions(ledger, gathered, part)
        enter_swap(ledger, gathered, part, repeat)
        for name in nudged:
            gathered.enter(ledger, NUDGED.name, part, gathered.alike(PLAIN, name, part))
        _enter_change(ledger, gathered, part, repeat, redrawn)
        _enter_input(ledger, gathered, part)
    return ledger


def _gathered(evidence: Evidence, parameters: Parameters) -> Gathered:
    """Return the maps of all rows under every condition."""
    found = repetitions(evidence)
    if evidence.subject.has_weights:
        found.network(Redraw(nudge=NUDGE))
    found.version(IMPOSTOR)
    for index in range(parameters.redraws):
        found.network(Redraw(index))
    return found


def _enter_change(
    ledger: Ledger, gathered: Gathered, part: str, repeat: FloatArray, redrawn: list[str]
) -> None:
    """Enter what becomes of the map if the weights are random."""
    residual, raw = (
        np.mean([np.abs(alike(PLAIN, name, part)) for name in redrawn], axis=0)
        for alike in (gathered.alike, gathered.alike_as_they_are)
    )
    gathered.enter(ledger, CHANGE.name, part, repeat - residual, *redrawn)
    gathered.enter(ledger, REDRAWN.name, part, residual, *redrawn)
    gathered.enter(ledger, RAW_REDRAWN.name, part, raw, *redrawn)


def _enter_input(ledger: Ledger, gathered: Gathered, part: str) -> None:
    """Enter how much more than the mean map the picture that is shown says."""
    again = [gathered.alike_as_they_are(PLAIN, of, part) for of in REPETITIONS.values()]
    mean = np.abs(gathered.alike_to_the_mean(PLAIN, part))
    gathered.enter(ledger, INPUT.name, part, np.min(again, axis=0) - mean)
    gathered.enter(ledger, RAW_MEAN.name, part, mean)
    gathered.enter(ledger, RAW_FLOOR.name, part, gathered.floor(part, of_residuals=False))

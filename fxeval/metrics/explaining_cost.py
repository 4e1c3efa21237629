"""How many passes through the network does a map take? Counts, the same on every machine."""

from collections.abc import Callable, Sequence
from math import inf

import numpy as np
from pydantic import BaseModel, ConfigDict

from fxeval.metrics.protocol import Evidence, Ledger, MapCost
from fxeval.results import BROKEN_STATES, EXPLAINER, Metric

ROWS = "mated pairs"
NO_SELF_CHECK = "a cost is counted, whatever the map"


class Parameters(BaseModel):
    """A cost check has no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_OWN = "No published protocol: reported beside evaluations"

METRICS = (
    Metric(
        name="forwards_per_map",
        title="Images forward per map",
        unit="images",
        better="lower",
        range=(0.0, inf),
        statistic="mean",
        source=_OWN,
        meaning="How many images pass the network for one map, had none been embedded before.",
    ),
    Metric(
        name="backwards_per_map",
        title="Images backward per map",
        unit="images",
        better="lower",
        range=(0.0, inf),
        statistic="mean",
        source=_OWN,
        meaning="How many images have a gradient taken for one map.",
    ),
)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Divide the passes that all maps of the cell took by their number: one value for all rows.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        Two counts per row, without values where the map is broken. Images that were embedded before
        and answered from memory count, so that the order of cells does not matter.
    """
    return of_all_maps(
        evidence,
        METRICS,
        lambda cost: (cost.forwards / cost.n_maps, cost.backwards / cost.n_maps),
    )


def of_all_maps(
    evidence: Evidence, metrics: Sequence[Metric], values: Callable[[MapCost], Sequence[float]]
) -> Ledger:
    """Enter values that the maps of the cell have together, one for each metric, for every row."""
    ledger, subject = Ledger(evidence, metrics), evidence.subject
    maps = ledger.watch(evidence.rows.side, evidence.explain(subject))
    broken = np.array([state in BROKEN_STATES for state in maps.states], dtype=bool)
    for metric, value in zip(metrics, values(evidence.cost(subject)), strict=True):
        ledger.enter(metric.name, EXPLAINER, np.where(broken, np.nan, value), maps.states)
    return ledger

"""How much time and memory does a map take on this machine?"""

from math import inf, nan

import numpy as np
from pydantic import BaseModel, ConfigDict

from fxeval.metrics.protocol import Evidence, Ledger
from fxeval.results import BROKEN_STATES, EXPLAINER, Metric

ROWS = "mated pairs"

MIB = 1 << 20


class Parameters(BaseModel):
    """A check of resources has no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_OWN = "No published protocol: reported beside evaluations"

METRICS = (
    Metric(
        name="seconds_per_map",
        title="Seconds per map",
        unit="s",
        better="lower",
        range=(0.0, inf),
        statistic="mean",
        source=_OWN,
        meaning="Wall time of one map: it depends on the machine and on what else it does.",
    ),
    Metric(
        name="peak_memory",
        title="Peak memory while maps are made",
        unit="MiB",
        better="lower",
        range=(0.0, inf),
        statistic="mean",
        source=_OWN,
        meaning="Memory beyond that at the start, as far as it is seen: it depends on the machine.",
    ),
)
_UNKNOWN = "This system does not say how much memory a process takes: peak memory has no value."


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Enter time and memory of making the maps of the cell: all rows have the same value.

    No second run has the same values, and another machine has quite others: a limit on them holds
    for this machine. The counts of ``cost.explaining`` are the same everywhere.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        Two metrics per row, without values where the map is broken.
    """
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    maps = ledger.watch(evidence.rows.side, evidence.explain(subject))
    cost = evidence.cost(subject)
    peak = nan if cost.peak_memory is None else cost.peak_memory / MIB
    if cost.peak_memory is None:
        ledger.remark(_UNKNOWN)
    broken = np.array([state in BROKEN_STATES for state in maps.states], dtype=bool)
    for metric, value in zip(METRICS, (cost.seconds / cost.n_maps, peak), strict=True):
        ledger.enter(metric.name, EXPLAINER, np.where(broken, nan, value), maps.states)
    return ledger

"""How much time and memory does a map take on this machine?"""

from math import inf, nan

from pydantic import BaseModel, ConfigDict

from fxeval.metrics.explaining_cost import of_all_maps
from fxeval.metrics.protocol import Evidence, Ledger, MapCost
from fxeval.results import Metric

ROWS = "mated pairs"
NO_SELF_CHECK = "a cost is measured, whatever the map"

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
    ledger = of_all_maps(evidence, METRICS, _values)
    if evidence.cost(evidence.subject).peak_memory is None:
        ledger.remark(_UNKNOWN)
    return ledger


def _values(cost: MapCost) -> tuple[float, float]:
    peak = nan if cost.peak_memory is None else cost.peak_memory / MIB
    return cost.seconds / cost.n_maps, peak

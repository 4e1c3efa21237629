"""Which parts of the face does a map lie on?"""

from math import inf

import numpy as np
from pydantic import BaseModel, ConfigDict

from fxeval.metrics.protocol import Evidence, Ledger, usable
from fxeval.results import EXPLAINER, Metric

ROWS = "mated pairs"
METRICS = (
    Metric("region_density", "Share of the map over share of the area", "ratio", "higher",
           (0.0, inf), "mean", "made up", "1 = by chance."),
)  # fmt: skip


class Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    maps = ledger.watch("probe", evidence.explain(subject))
    parts = subject.labels(evidence.rows.image)
    weight = maps.positive.clamp_min(0).double()
    kept = usable(maps.states)
    for number, name in enumerate(parts.names):
        inside = parts.labels == number
        share = (weight * inside).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-12)
        density = (share / inside.double().mean((1, 2)).clamp_min(1e-12)).numpy()
        values = np.where(kept, density, np.nan)
        ledger.enter(METRICS[0].name, EXPLAINER, values, maps.states, {"region": name})
    return ledger

"""Do two explainers say the same of a row?"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from fxeval.functional.map_similarity import spearman
from fxeval.metrics.protocol import Evidence, Ledger, usable, worst
from fxeval.results import EXPLAINER, Metric, RowState

ROWS = "mated pairs"
METRICS = (
    Metric("rank_correlation_with_other", "Rank correlation with another explainer",
           "Spearman correlation", "higher", (-1.0, 1.0), "mean", "Krishna et al. 2022",
           "Near 1 when both explainers order the pixels alike."),
)  # fmt: skip


class Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    others: tuple[str, ...]


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    ledger = Ledger(evidence, METRICS)
    own = ledger.watch("probe", evidence.explain(evidence.subject))
    for other in evidence.others["others"]:
        maps = evidence.explain(evidence.subject, other)
        states = worst([own.states, maps.states])
        values = [np.nan_to_num(one.positive.flatten(1).numpy()) for one in (own, maps)]
        kept = usable(states)
        rho = np.where(kept, 0.0, np.nan)  # a constant map agrees with nothing
        kept &= [state is RowState.OK for state in states]
        rho[kept] = spearman(*(own.positive.new_tensor(one)[kept] for one in values))
        ledger.enter(METRICS[0].name, EXPLAINER, rho, states, {"other": other.name})
    return ledger

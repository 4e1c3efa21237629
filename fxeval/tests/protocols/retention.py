"""How sure is the model once the most salient fifth is gone, or is all that is left?"""

from math import inf

import torch
from pydantic import BaseModel, ConfigDict

from fxeval.contracts import Fill
from fxeval.metrics.orders import Control, answers, orders
from fxeval.metrics.protocol import Evidence, Ledger
from fxeval.results import Metric

ROWS = "classes"
METRICS = (
    Metric("deletion_drop", "Drop, most salient removed", "of the question", "higher",
           (-inf, inf), "mean", "made up", "Large when the map finds what the answer rests on."),
    Metric("retention_drop", "Drop, only the most salient left", "of the question", "lower",
           (-inf, inf), "mean", "made up", "Small when what the map finds is enough."),
)  # fmt: skip


class Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fraction: float = 0.2
    fill: Fill = "black"
    controls: tuple[Control, ...] = ("random_pixels",)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    ledger, subject, question = Ledger(evidence, METRICS), evidence.subject, evidence.rows.question
    maps = ledger.watch("probe", evidence.explain(subject))
    every = torch.arange(len(evidence.rows))
    images = subject.clean()[evidence.rows.image]
    clean = question.answer(subject, every, images).double().numpy()
    fill, fraction = parameters.fill, parameters.fraction
    for order in orders(evidence, subject, maps, parameters.controls):
        for metric, retains in zip(METRICS, (False, True), strict=True):
            found = answers(evidence, subject, order, fraction, fill, retains=retains)
            ledger.enter(metric.name, order.map, clean - found, order.states, {"fill": fill})
    return ledger

"""How well does the model still verify once the most salient pixels of every probe are gone?"""

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from fxeval.contracts import Fill
from fxeval.metrics.orders import Control, answers, orders
from fxeval.metrics.protocol import Evidence, Ledger, usable
from fxeval.results import Metric

ROWS = "pairs"
METRICS = tuple(
    Metric(f"{statistic}_under_occlusion", title, "fraction", better, (-1.0, 1.0), statistic,
           "made up", "How well mated are told from nonmated pairs without these pixels.")
    for statistic, title, better in (
        ("auc", "Area under the ROC curve", "lower"),
        ("eer", "Equal error rate", "higher"),
        ("tmr_at_fmr_1e-1", "True match rate at a false match rate of 0.1", "lower"),
    )
)  # fmt: skip


class Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fraction: float = 0.05
    fill: Fill = "mean"
    controls: tuple[Control, ...] = ("random_pixels",)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    maps = ledger.watch("probe", evidence.explain(subject))
    every, images = torch.arange(len(evidence.rows)), subject.clean()[evidence.rows.image]
    clean = evidence.rows.question.answer(subject, every, images).double().numpy()
    under = {"fill": parameters.fill, "fraction": parameters.fraction}
    for order in orders(evidence, subject, maps, parameters.controls):
        found = answers(evidence, subject, order, parameters.fraction, parameters.fill)
        whole = np.where(usable(order.states), clean, np.nan)
        for metric in METRICS:
            ledger.enter(metric.name, order.map, found, order.states, under)
            ledger.enter(metric.name, order.map, whole, order.states, {**under, "fraction": 0.0})
    return ledger

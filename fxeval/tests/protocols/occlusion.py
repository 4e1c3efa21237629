"""Do pixels chosen from some images of a person matter in others, to this model and to others?"""

from itertools import product
from math import inf

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from fxeval.contracts import Fill
from fxeval.metrics.orders import Control, answers, orders
from fxeval.metrics.protocol import Evidence, Ledger
from fxeval.results import Metric

ROWS = "identities"
METRICS = (
    Metric("match_rate_under_occlusion", "Pairs still accepted", "fraction of pairs", "lower",
           (0.0, 1.0), "mean", "made up", "How often the person is still recognised."),
    Metric("similarity_drop_under_occlusion", "Drop of the similarity", "similarity", "higher",
           (-inf, inf), "mean", "made up", "How far the similarity falls."),
)  # fmt: skip


class Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fractions: tuple[float, ...] = (0.02, 0.2)
    fills: tuple[Fill, ...] = ("black",)
    controls: tuple[Control, ...] = ("random_pixels", "mean_map")
    evaluators: tuple[str, ...] = ()


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    ledger, question = Ledger(evidence, METRICS), evidence.rows.question
    maps = ledger.watch("source", evidence.explain(evidence.subject))
    every = torch.arange(len(evidence.rows))
    for evaluator in (evidence.subject, *evidence.others.get("evaluators", ())):
        images = evaluator.clean()[evidence.rows.image]
        clean = question.answer(evaluator, every, images).double().numpy()
        for order in orders(evidence, evaluator, maps, parameters.controls):
            for fill, fraction in product(parameters.fills, parameters.fractions):
                found = answers(evidence, evaluator, order, fraction, fill)
                accepted = np.where(np.isnan(found), np.nan, found >= evaluator.operating_threshold)
                under = {"evaluator": evaluator.name, "fill": fill, "fraction": fraction}
                for metric, values in zip(METRICS, (accepted, clean - found), strict=True):
                    ledger.enter(metric.name, order.map, values, order.states, under)
    return ledger

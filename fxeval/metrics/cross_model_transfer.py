"""Does a map that is made with one network find the pixels that other networks need?"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from fxeval.contracts import SaliencyMaps
from fxeval.errors import ExplainerContractError, UnsupportedError, for_a_record
from fxeval.metrics.occlusion import (
    AREA,
    COSINE_DROP,
    TMR,
    Asked,
    Evaluators,
    HeldOutParameters,
    enter_absent,
    occlude,
)
from fxeval.metrics.occlusion import CONDITIONS as OF_OCCLUSION
from fxeval.metrics.orders import Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Subject, worst
from fxeval.results import EXPLAINER, Condition, Metric, RowState

ROWS = "held-out mated pairs"
OTHERS = {"evaluators": "models"}
CONDITIONS = {"evaluator": "evaluators", **OF_OCCLUSION}
NO_SELF_CHECK = (
    "maps are made from other images of the person, and none of these is known to be the best for "
    "the image that is occluded"
)

OWN_CONTROLS = ("own_map",)
OWN_MAP = f"control.{OWN_CONTROLS[0]}"
"""The evaluator's own map by the same explainer: what there is to reach."""


class Parameters(HeldOutParameters):
    """Parameters of a check on cross-model transfer.

    Attributes:
        evaluators: Names of the models that the occluded images are shown to, beside the one that
            the maps are made with; all models of the check unless given.
    """

    evaluators: Evaluators = None


_SOURCE = "Borsukiewicz, transferability of explanations (poster), table 2"

OWN_EFFECT = Metric(
    name="own_effect",
    title="Acceptance that the evaluator's own maps cost it",
    unit="share of mated pairs",
    better="higher",
    range=(-1.0, 1.0),
    statistic="mean",
    kind="rate",
    source=_SOURCE,
    meaning="Mated pairs that the evaluator accepts clean, less those that it still accepts once "
    "the most salient pixels of its own map are occluded.",
)
OWN_COSINE_DROP = Metric(
    name="own_cosine_drop",
    title="Drop of the similarity by the evaluator's own maps",
    unit="cosine similarity",
    better="higher",
    range=(-2.0, 2.0),
    statistic="mean",
    kind="light",
    source=_SOURCE,
    meaning="How far the similarity of a mated pair falls once the most salient pixels of the "
    "evaluator's own map are occluded.",
)
INDEX = Metric(
    name="transfer_index",
    title="Transfer of the effect on acceptance",
    unit="share of the effect of own maps",
    better="higher",
    range=(-1.0, 1.0),
    statistic="ratio",
    kind="rate",
    source=_SOURCE,
    meaning="Acceptance that the generator's maps cost the evaluator, as a share of what its own "
    "maps cost it: 1 = they do as much. It says nothing without the controls: a map that is the "
    "same for every model always reaches 1.",
    denominator=OWN_EFFECT.name,
    least_denominator=0.02,
)
INDEX_COSINE = Metric(
    name="transfer_index_cosine",
    title="Transfer of the drop of the similarity",
    unit="share of the effect of own maps",
    better="higher",
    range=(-2.0, 2.0),
    statistic="ratio",
    kind="light",
    source=_SOURCE,
    meaning="The same on the similarity, which has no threshold.",
    denominator=OWN_COSINE_DROP.name,
    least_denominator=0.02,
)
METRICS = (TMR, COSINE_DROP, INDEX, INDEX_COSINE, OWN_EFFECT, OWN_COSINE_DROP, AREA)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Occlude the pixels of the generator's maps, and show the images to every evaluator.

    Maps are carried into the evaluator's crop and ranked there, so exactly as many of its pixels
    are occluded as by its own map and by the controls. The generator is an evaluator, too.

    Args:
        evidence: Of a group of pairs; its subject is the generator.
        parameters: Of the check.

    Returns:
        Values of each map under evaluator, fill and fraction. An evaluator that must not be judged
        has none, and one that the explainer cannot explain has no index.
    """
    ledger = Ledger(evidence, METRICS)
    maps = ledger.watch("sources", evidence.explain(evidence.subject))
    for evaluator in (evidence.subject, *evidence.others.get("evaluators", ())):
        under = {"evaluator": evaluator.name}
        occlude(evidence, ledger, evaluator, maps, parameters, under=under)
        own = _own_maps(evidence, ledger, evaluator, maps)
        if own is not None:
            there = replace(evidence, subject=evaluator)
            order = _own_order(there, own)
            Asked(there, ledger, evaluator).enter(order, OWN_MAP, parameters, under)
        _enter_indices(evidence, ledger, evaluator, parameters)
    enter_absent(evidence, ledger, parameters)
    return ledger


def _own_maps(
    evidence: Evidence, ledger: Ledger, on: Subject, maps: SaliencyMaps
) -> SaliencyMaps | None:
    """Return the evaluator's own maps; None, with a remark, if the explainer can make none."""
    if on is evidence.subject:
        return maps
    try:
        return evidence.explain(on)
    except (UnsupportedError, ExplainerContractError) as error:
        missing = ", ".join(one.name for one in (INDEX, INDEX_COSINE, OWN_EFFECT, OWN_COSINE_DROP))
        said = for_a_record(error)
        ledger.remark(f"evaluator {on.name}: no values of {missing}: no map of its own: {said}")
        return None


def _own_order(evidence: Evidence, own: SaliencyMaps) -> Order:
    """Return the order of an evaluator's own maps; cells of other generators ask for it again."""
    rows, on = evidence.rows, evidence.subject
    maps = hashlib.blake2b(own.positive.contiguous().numpy().data, digest_size=16).digest()
    seed = evidence.seed("ties", 0) if len(rows) else 0  # of the suite, too
    key = OWN_MAP, on.size, rows.side, rows.id, seed, own.states, maps
    return evidence.kept.get(key, lambda: next(orders(evidence, on, own)))


def _enter_indices(evidence: Evidence, ledger: Ledger, on: Subject, parameters: Parameters) -> None:
    """Enter what each map costs the evaluator, beside what its own map costs it."""
    rows = evidence.rows
    clean = rows.question.margin(on, torch.arange(len(rows)), on.clean()[rows.image]) >= 0.0
    names = [EXPLAINER, *(f"control.{one}" for one in parameters.controls), OWN_MAP]
    for fill, fraction, map_ in product(parameters.fills, parameters.fractions, names):
        under: Condition = {"evaluator": on.name, "fill": fill, "fraction": fraction}
        for metric, index, own_metric in (
            (TMR, INDEX, OWN_EFFECT),
            (COSINE_DROP, INDEX_COSINE, OWN_COSINE_DROP),
        ):
            of_map, of_own = (ledger.entered(metric.name, one, under) for one in (map_, OWN_MAP))
            if of_map is None:  # the evaluator has no own map
                continue
            found, own = of_map, of_own or _nothing(len(rows))
            if metric is TMR:
                found, own = (
                    (clean.double().numpy() - values, states) for values, states in (found, own)
                )
            has_both = np.isfinite(found[0]) & np.isfinite(own[0])
            states = worst([found[1], own[1]])
            about = rows.is_mated.numpy()
            effect = np.where(has_both, found[0], np.nan)
            ledger.enter(index.name, map_, effect, states, under, about=about)
            ledger.enter(own_metric.name, map_, own[0], own[1], under, about=about)


def _nothing(n: int) -> tuple[FloatArray, Sequence[RowState]]:
    return np.full(n, np.nan), (RowState.EXCLUDED,) * n

"""Do pixels chosen from some images of a person matter in other images of that person?"""

import torch
from pydantic import StrictBool
from torch import Tensor

from fxeval.functional.ranking import counts_at_percentile
from fxeval.metrics.occlusion import (
    ACCURACY,
    AREA,
    CONDITIONS,
    COSINE_DROP,
    EER,
    TMR,
    Controls,
    HeldOutParameters,
    exactly,
    occlude,
)
from fxeval.metrics.orders import Order
from fxeval.metrics.protocol import Evidence, Ledger

__all__ = [
    "CONDITIONS", "DEMONSTRATIONS", "METRICS", "NO_SELF_CHECK", "ROWS", "Parameters", "measure",
]  # fmt: skip

ROWS = "held-out pairs"
NO_SELF_CHECK = (
    "maps are made from other images of the person, and none of these is known to be the best for "
    "the image that is occluded"
)
METRICS = (TMR, ACCURACY, EER, COSINE_DROP, AREA)
DEMONSTRATIONS = {
    "legacy_percentile": "it occludes all pixels that tie with a percentile of the map, the whole "
    "image where the map is constant, so its figures say nothing about maps"
}
_REMARK = (
    "legacy_percentile demonstrates an artefact: pixels at or above a percentile of the map were "
    "occluded, not a fraction of the pixels. These figures say nothing about the maps; "
    "occlusion_area says how much of the images was occluded."
)


class Parameters(HeldOutParameters):
    """Parameters of an occlusion generalisability check.

    Attributes:
        legacy_percentile: Occlude all pixels at or above the map's percentile, as published figures
            may have been made: a demonstration, whose limits are ``severity: info``.
    """

    controls: Controls = (
        "random_pixels",
        "random_blobs",
        "mean_map",
        "shuffled_identity",
        "unoccluded",
    )
    legacy_percentile: StrictBool = False


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Occlude one image of every pair by a map made from other images of the person.

    Args:
        evidence: Of a group of pairs, their maps made from images that none of the pair's is among.
        parameters: Of the check.

    Returns:
        Under each fill and fraction, for the explainer and each control: whether the pair is still
        accepted and still decided rightly, its similarity, the drop of the cosine, and the share of
        the pixels that were occluded.

    Source:
        Borsukiewicz, poster on generalisability and transferability of explanations, table 1.
    """
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    maps = ledger.watch("sources", evidence.explain(subject))
    counts = _at_percentile if parameters.legacy_percentile else exactly
    occlude(evidence, ledger, subject, maps, parameters, counts=counts)
    if parameters.legacy_percentile:
        ledger.remark(_REMARK)
    return ledger


def _at_percentile(order: Order, fraction: float) -> Tensor:
    return torch.from_numpy(counts_at_percentile(order.maps, fraction))

"""Does a map point at the part in which two faces differ?

The nonmate is the mate with one part of another person. The probe is explained against both, and
the map should say what speaks for the mate rather than for the nonmate: the probe's pixels in that
part, and no others.
"""

from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from fxeval.functional.known_maps import share_inside
from fxeval.functional.ranking import count
from fxeval.metrics.known_truth import (
    CONDITIONS,
    GAME,
    JUDGED_UNDER,
    WHY_PAIRWISE_INFORMS,
    Posed,
    TruthParameters,
    altered_of,
    known_truth_metric,
    posed,
)
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger
from fxeval.results import RowState

__all__ = [
    "CONDITIONS", "JUDGED_UNDER", "METRICS", "ROWS", "SELF_CHECK", "Parameters", "measure",
]  # fmt: skip

ROWS = "twins"
SELF_CHECK = "margin"
WHY_INFORMS = WHY_PAIRWISE_INFORMS


class Parameters(TruthParameters):
    """Parameters of a localisation check.

    Attributes:
        top: Fraction of the pixels that counts as the top of a map, exactly
            ``max(1, floor(top * n + 0.5))`` of n.
    """

    top: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.05


_located_metric = partial(known_truth_metric, better="higher", range=(0.0, 1.0))

_SHARPNESS = (
    "a sharp map in a wrong place next to the part and a soft one in the right place have the same "
    "energy in it"
)

TOP_PRECISION = _located_metric(
    name="top_precision",
    title="Share of the map's top that lies in the part",
    unit="share of the top pixels",
    meaning="Of the pixels that the map ranks first, how many lie where the two faces differ; a "
    "part that is smaller than the top cannot have 1.",
    source=GAME,
)
POINTING = _located_metric(
    name="pointing_hit",
    title="The map's highest pixel lies in the part",
    unit="share of the maps",
    meaning="One pixel decides, so that a map which is right in one place and wrong elsewhere has "
    "1.",
    kind="rate",
    source="Zhang et al., ECCV 2016 (pointing game), sec. 5",
    information_only="one pixel saturates: half of a true map already hits nearly always",
)
AUC = _located_metric(
    name="pixel_auc",
    title="Chance that a pixel of the part ranks before one outside",
    unit="area under the ROC curve",
    meaning="0.5 for a random map. A map of the middle of the crop has much more, as parts of a "
    "face lie near the middle.",
    kind="light",
    source=GAME,
    information_only="it favours the middle of the crop: most pixels outside a part are background",
)
ENERGY = _located_metric(
    name="energy_in_part",
    title="Share of the map's energy in the part",
    unit="share of the energy",
    meaning="Energy is a map's value less its smallest one. A sharp map has more in the part than "
    "a soft one that points at the same place.",
    kind="light",
    source="Wang et al., CVPRW 2020 (Score-CAM), sec. 4.3",
    information_only=_SHARPNESS,
)
DENSITY = _located_metric(
    name="energy_over_area",
    title="Share of the map's energy in the part, over the share of its area",
    unit="ratio",
    meaning="1 for a map that is the same everywhere.",
    range=(0.0, float("inf")),
    source="Wang et al., CVPRW 2020 (Score-CAM), sec. 4.3, over the area",
    information_only=_SHARPNESS,
)
METRICS = (TOP_PRECISION, POINTING, AUC, ENERGY, DENSITY)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Look where the pixels lie that maps rank first, and where their energy does.

    Args:
        evidence: Of a group of triplets with twins.
        parameters: Of the check.

    Returns:
        For the explainer under both questions, and for each control: precision of the top, pointing
        game, area under the ROC curve of pixels, energy. Triplets that the model does not solve
        have none.

    Source:
        Williford, May and Byrne, ECCV 2020, sec. 4, where inpainted faces are the twins.
    """
    ledger = Ledger(evidence, METRICS)
    for one in posed(evidence, ledger, parameters.controls):
        values = one.order.means(_located(one, parameters.top))
        for place, metric in enumerate(METRICS):
            found = values[:, place]
            states = [
                RowState.EXCLUDED if state is RowState.OK and void else state
                for state, void in zip(one.order.states, np.isnan(found).tolist(), strict=True)
            ]
            for under in one.under:
                ledger.enter(metric.name, one.order.map, found, states, under)
    return ledger


def _located(one: Posed, top: float) -> FloatArray:
    """Return the values of the metrics for each entry of an order, (B, 5); NaN where undefined."""
    part, rank = altered_of(one), one.order.ranks
    n = rank.shape[1]
    inside = part.sum(dim=1).double().numpy()
    k = count(top, n)
    hits = (part & (rank < k)).sum(dim=1).double().numpy() / k
    first = (part & (rank == 0)).any(dim=1).double().numpy()
    energy = share_inside(one.order.maps, part.view(one.order.maps.shape)).numpy()
    # Pixels outside that rank before each one inside: its rank less those inside before it.
    before = (rank.double() * part).sum(dim=1).numpy() - inside * (inside - 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        auc = 1.0 - before / (inside * (n - inside))
        density = energy / (inside / n)
    found: FloatArray = np.stack([hits, first, auc, energy, density], axis=1)
    found[~np.isfinite(found)] = np.nan
    return found

"""Does the similarity fall further where an image's own map says than at random places?"""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from fxeval.metrics.occlusion import (
    AREA,
    COSINE_DROP,
    Controls,
    Evaluators,
    OcclusionParameters,
    enter_absent,
    occlude,
)
from fxeval.metrics.occlusion import CONDITIONS as OF_OCCLUSION
from fxeval.metrics.protocol import Evidence, Ledger
from fxeval.metrics.questions import Likeness

ROWS = "mated pairs"
OTHERS = {"evaluators": "models"}
CONDITIONS = {"evaluator": "evaluators", **OF_OCCLUSION}
SELF_CHECK = "likeness"
METRICS = (COSINE_DROP, AREA)


class Parameters(OcclusionParameters):
    """Parameters of a guided occlusion check.

    Attributes:
        side: Which image of a pair is explained and occluded.
        compared_with: What the image is compared with before and after: ``reference``, the other
            image of the pair, or ``itself``, as it was.
        evaluators: Models of the suite that see the occluded images too; all of the check unless
            given.
    """

    controls: Controls = ("random_pixels", "random_blobs")
    repeats: Annotated[int, Field(ge=1, le=20, strict=True)] = 10
    side: Literal["probe", "reference"] = "probe"
    compared_with: Literal["reference", "itself"] = "reference"
    evaluators: Evaluators = None


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Occlude the most salient pixels of one image of every pair, and ask every evaluator.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        The drop of the cosine and the area that was occluded, under each evaluator, fill and
        fraction, for the explainer and each control.

    Source:
        LEAM (arXiv 2509.17457), sec. 4.6: the most salient 1 % in black, against random places.
    """
    evidence = evidence.on(parameters.side)
    ledger = Ledger(evidence, METRICS)
    maps = ledger.watch(evidence.rows.side, evidence.explain(evidence.subject))
    if parameters.compared_with == "itself":
        asked = replace(evidence.rows, question=Likeness(evidence.rows.image[:, None]))
        evidence = replace(evidence, rows=asked)
    for evaluator in (evidence.subject, *evidence.others.get("evaluators", ())):
        under = {"evaluator": evaluator.name}
        occlude(evidence, ledger, evaluator, maps, parameters, under=under)
    enter_absent(evidence, ledger, parameters)
    return ledger

"""How sure is a classifier once the most salient pixels are gone, or are all that is left?"""

from collections.abc import Sequence
from math import inf
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from fxeval.errors import EvidenceError
from fxeval.functional.ranking import count
from fxeval.metrics.closed_set import SCALE, HeadKind
from fxeval.metrics.occlusion import Fills, Fractions
from fxeval.metrics.orders import Control, Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger
from fxeval.metrics.questions import Confidence
from fxeval.results import Metric
from fxeval.strict.forms import once

ROWS = "classes"
CONDITIONS = {"fill": "fills", "fraction": "fractions"}

UNSURE = 0.5
"""Clean confidence below which a row is counted: more than one class comes into question."""

CLEAN_CONFIDENCE = "clean_confidence"
"""Diagnostic of every row: the probability of the predicted class in the clean image, 0 to 1."""

_SOURCE = "Shadman et al., Electronics 14(14), 2745, 2025, sec. 5"
_WAYS = ("deletion", "retention")


class Parameters(BaseModel):
    """Parameters of a deletion and retention check of a closed-set classifier.

    Attributes:
        fractions: Of the pixels, that are removed or retained: exactly ``max(1, floor(fraction * n
            + 0.5))`` of n.
        fills: How removed pixels are replaced; every fill gives its own values.
        controls: Maps whose right answer is known, measured on the same images.
        repeats: Number of random maps of each image, for the controls that are drawn; their value
            is the mean.
        head: How the classifier decides: ``gallery``, by the softmax of the scaled similarity to
            the centroid of each person's gallery, or ``trained``, by softmax regression on the
            gallery's embeddings.
        scale: Of the similarity, for the head ``gallery``.
        gallery_images: Images of each person in the gallery; the person's others are the probes.
        relative: Measure the drops as shares of the clean confidence, too.
        least_confidence: Leave out images whose clean confidence is lower.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fractions: Fractions = (0.2,)
    fills: Fills = ("black",)
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = (
        "random_pixels", "random_rectangle",
    )  # fmt: skip
    repeats: Annotated[int, Field(ge=1, le=20, strict=True)] = 5
    head: HeadKind = "gallery"
    scale: Annotated[float, Field(gt=0, le=1e4, strict=True)] = SCALE
    gallery_images: Annotated[int, Field(ge=2, le=100, strict=True)] = 2
    relative: StrictBool = False
    least_confidence: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.0


METRICS = (
    Metric(
        name="deletion_confidence_drop",
        title="Drop of the confidence without the most salient pixels",
        unit="percentage points",
        better="higher",
        range=(-100.0, 100.0),
        statistic="mean",
        source=_SOURCE,
        meaning="Probability of the class that the clean image is given, less the same "
        "probability once the most salient pixels are removed.",
    ),
    Metric(
        name="retention_confidence_drop",
        title="Drop of the confidence with nothing but the most salient pixels",
        unit="percentage points",
        better="lower",
        range=(-100.0, 100.0),
        statistic="mean",
        source=_SOURCE,
        meaning="Probability of the class that the clean image is given, less the same "
        "probability when only the most salient pixels are left.",
    ),
    Metric(
        name="deletion_prediction_change",
        title="Predictions that change without the most salient pixels",
        unit="share of images",
        better="higher",
        range=(0.0, 1.0),
        statistic="mean",
        kind="rate",
        source=_SOURCE,
        meaning="How often the classifier names another person once the most salient pixels are "
        "removed.",
        is_decision=True,
    ),
    Metric(
        name="retention_prediction_change",
        title="Predictions that change with nothing but the most salient pixels",
        unit="share of images",
        better="lower",
        range=(0.0, 1.0),
        statistic="mean",
        kind="rate",
        source=_SOURCE,
        meaning="How often the classifier names another person when only the most salient pixels "
        "are left.",
        is_decision=True,
    ),
    Metric(
        name="deletion_relative_drop",
        title="Share of the confidence lost without the most salient pixels",
        unit="% of the clean confidence",
        better="higher",
        range=(-inf, 100.0),
        statistic="mean",
        source=_SOURCE,
        meaning="The drop under deletion, divided by the confidence in the clean image; measured "
        "with relative: true.",
    ),
    Metric(
        name="retention_relative_drop",
        title="Share of the confidence lost with nothing but the most salient pixels",
        unit="% of the clean confidence",
        better="lower",
        range=(-inf, 100.0),
        statistic="mean",
        source=_SOURCE,
        meaning="The drop under retention, divided by the confidence in the clean image; measured "
        "with relative: true.",
    ),
)  # fmt: skip


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Remove the most salient pixels of every image, or all others, and ask the classifier.

    Args:
        evidence: Of a group of images of a closed set, each explained as the class that it is
            given.
        parameters: Of the check.

    Returns:
        Under each fill and fraction, for the explainer and each control: by how many percentage
        points the confidence in that class falls, and whether another class is named.

    Raises:
        EvidenceError: If the classifier knows too few of the clean images
            (:func:`least_accuracy`).

    Source:
        Shadman et al., "Explainable Face Recognition via Improved Localization", Electronics
        14(14), 2745, 2025, sec. 5. There, "99 %" falling to "70 %" is called a drop of 20 %; it is
        one of 29 points here.
    """
    ledger, subject, rows = Ledger(evidence, METRICS), evidence.subject, evidence.rows
    _judge_classifier(evidence, ledger, parameters)
    maps = ledger.watch(rows.side, evidence.explain(subject))
    every = torch.arange(len(rows))
    clean = rows.question.answer(subject, every, subject.clean()[rows.image]).double().numpy()
    ledger.note(rows.side, CLEAN_CONFIDENCE, clean)
    for order in orders(evidence, subject, maps, parameters.controls, draws=parameters.repeats):
        for fill in parameters.fills:
            for fraction, found in _asked(evidence, order, parameters.fractions, fill, clean):
                for metric in METRICS:
                    if parameters.relative or "relative" not in metric.name:
                        ledger.enter(
                            metric.name,
                            order.map,
                            order.means(found[metric.name]),
                            order.states,
                            {"fill": fill, "fraction": fraction},
                            about=clean >= parameters.least_confidence,
                        )
    return ledger


def least_accuracy(classes: int) -> float:
    """Return the share of clean images that a classifier must name rightly: half way from chance.

    A classifier near chance has no reason for what it says that a map could show.

    >>> least_accuracy(2), least_accuracy(50)
    (0.75, 0.51)
    """
    return (1 + 1 / classes) / 2


def drops(clean: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return by how much probabilities fell: in percentage points, and in % of the first ones.

    >>> [round(float(drop), 2) for drop in drops(np.array(0.99), np.array(0.70))]
    [29.0, 29.29]
    """
    return 100 * (clean - after), 100 * (clean - after) / clean


def _asked(
    evidence: Evidence, order: Order, fractions: Sequence[float], fill: str, clean: FloatArray
) -> list[tuple[float, dict[str, FloatArray]]]:
    """Return the (B,) figures of one order by metric, for each fraction."""
    b, pixels = order.ranks.shape
    ks = [count(fraction, pixels) for fraction in fractions]
    bounds = [bound for k in ks for bound in ((0, k), (k, pixels))]
    # Both ways and all fractions in one request, whose batches are full.
    first, last = (torch.tensor(side).repeat_interleave(b) for side in zip(*bounds, strict=True))
    entries = torch.arange(b).repeat(len(bounds))
    gone = order.removed(evidence.rows.image, entries, first, last, fill)
    rows = torch.from_numpy(order.kept)[entries]
    embedded, question = evidence.subject.embed(gone), evidence.rows.question
    after = question.answer(evidence.subject, rows, embedded).double().numpy()
    has_changed = question.margin(evidence.subject, rows, embedded).numpy() < 0
    before = clean[order.kept]
    found = []
    for place, fraction in enumerate(fractions):
        figures: dict[str, FloatArray] = {}
        for turn, way in enumerate(_WAYS, start=2 * place):
            part = slice(turn * b, (turn + 1) * b)
            points, shares = drops(before, after[part])
            figures[f"{way}_confidence_drop"] = points
            figures[f"{way}_relative_drop"] = shares
            figures[f"{way}_prediction_change"] = has_changed[part].astype(np.float64)
        found.append((fraction, figures))
    return found


def _judge_classifier(evidence: Evidence, ledger: Ledger, parameters: Parameters) -> None:
    """Say how good the classifier is on all clean images of the cell.

    Raises:
        EvidenceError: If it is too near chance.
    """
    subject, rows = evidence.subject, evidence.everyone
    question = rows.question
    assert isinstance(question, Confidence), "rows of kind classes ask for a confidence"
    classes, n = len(question.people), len(rows)
    right = int((question.target == question.truth).sum())
    said = (
        f"the classifier (head {parameters.head}) names {right} of {n} clean images rightly "
        f"({right / n:.0%}), among {classes} people"
    )
    if right < least_accuracy(classes) * n:
        raise EvidenceError(
            f"{said}; at least {least_accuracy(classes):.0%}, half way from chance to perfect, are "
            f"needed: nothing can be said of maps of {subject.name}. Use a better model, more "
            "gallery_images, or fewer people."
        )
    every = torch.arange(n)
    clean = question.answer(subject, every, subject.clean()[rows.image])
    wrong = "; the others are judged by the class that they are given" * (right < n)
    ledger.remark(f"{said}{wrong}.")
    if question.people.left_out:
        ledger.remark(
            f"{question.people.left_out} people are left out: they have fewer than "
            f"{parameters.gallery_images + 1} images."
        )
    unsure, left_out = (
        int((clean < bound).sum()) for bound in (UNSURE, parameters.least_confidence)
    )
    if unsure:
        ledger.remark(f"the clean confidence of {unsure} of {n} images is below {UNSURE:.0%}.")
    if left_out:
        ledger.remark(
            f"{left_out} of {n} images are left out: their clean confidence is below "
            f"{parameters.least_confidence:.0%}."
        )

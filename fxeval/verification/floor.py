"""The least that a model must do to be explained: tell mated from nonmated pairs, and decide.

An untrained network, a network that is fed wrongly or an operating threshold on another scale is
the model's fault, and must not be blamed on an explainer.
"""

import math
from typing import Any

from fxeval.results import Outcome
from fxeval.statistics.list_intervals import Trials
from fxeval.verification.demands import Verification
from fxeval.verification.figures import CONFIDENCE, Figure, Threshold, Verified
from fxeval.verification.measured import Measured

FLOOR = 0.7
"""The lower end of the interval of the AUC must reach it; a guess has 0.5."""
NEARLY_EVERY = 0.75
"""A threshold decides nothing if the interval of FMR or FNMR there lies wholly above it."""

_CHECK = "Check colour order, input range, normalisation, crop and weights"
_NONE: Any = {"value": None, "low": None, "high": None}


def floor_entry(measured: Measured, asked: Verification, about: str) -> dict[str, Any]:
    """Judge a model by the floor, as plain data for the record.

    A suite's own limits on verification take its place. A card's claims never do.

    Args:
        measured: The figures.
        asked: The demands of the suite.
        about: Model and list, for the reason.
    """
    auc = measured.evidence.figures.get("verification_auc") if measured.evidence else None
    figure = _NONE if auc is None else {"value": auc.value, "low": auc.low, "high": auc.high}
    return {"at_least": FLOOR, **figure, "verdict": _verdict(measured, asked, about, auc)}


def _verdict(
    measured: Measured, asked: Verification, about: str, auc: Figure | None
) -> dict[str, str]:
    outcome, drawn = Outcome.INCONCLUSIVE, ""
    if measured.verified is None and measured.evidence is not None:
        drawn = f" (the pairs that tell are not all of the list: {measured.reason})"
    if measured.broken:
        outcome, reason = Outcome.INVALID, f"{about}: {measured.broken}"
    elif asked.floor == "none":
        reason = "switched off by the suite (verification: {floor: none})"
    elif asked.limits:
        reason = "not checked: the suite has limits of its own"
    elif measured.fault:
        outcome = Outcome.INVALID
        reason = (
            f"{about}: nothing shows that it tells mated from nonmated pairs, as the list cannot "
            f"be read: {measured.reason}. Repair the list"
        )
    elif auc is None:
        reason = f"not checked: {measured.reason}"
    elif not auc.low <= auc.high:
        reason = "not checked: the area under the ROC curve has no interval"
    elif auc.low >= FLOOR:
        outcome = Outcome.PASS
        reason = f"{about}: area under the ROC curve {shown(auc)}, at least {FLOOR:g}{drawn}"
    elif measured.evidence and auc.value >= FLOOR > _best(measured.evidence):
        reason = (
            f"cannot be told: {about}: area under the ROC curve {shown(auc)}, expected an interval "
            f"from {FLOOR:g} up{drawn}; the list has {measured.evidence.n_disjoint} comparisons of "
            "pairs that share nobody, too few for any model. Take a list with more people"
        )
    else:
        outcome = Outcome.INVALID
        reason = (
            f"{about}: it does not tell mated from nonmated pairs: area under the ROC curve "
            f"{shown(auc)}, expected an interval from {FLOOR:g} up{drawn}. {_CHECK}; a list with "
            "more pairs narrows the interval; for an untrained network set verification: "
            "{floor: none}"
        )
    return {"outcome": outcome.value, "reason": reason}


def threshold_reason(used: Threshold | None, value: float | None) -> str:
    """Return why decisions at a threshold must not be measured; "" if they may be.

    FMR near 0 is what a good threshold has; where FNMR is near 1, nothing is accepted, and where
    FMR is, everything.

    Args:
        used: The threshold's errors on the list; None if they are not known.
        value: The threshold.

    >>> rate = Figure(1.0, 0.95, 1.0)
    >>> threshold_reason(Threshold(Figure(0.6, 0.6, 0.6), Figure(0.0, 0.0, 0.1), rate), 0.6)
    ... # doctest: +NORMALIZE_WHITESPACE
    'the operating threshold 0.6 rejects nearly every mated pair of this list: FNMR 1.0000
    [0.9500, 1.0000]. Check its scale: a similarity, not a distance or a percentage'
    """
    if used is None or value is None:
        return ""
    for rate, name, does in (
        (used.fnmr, "FNMR", "rejects nearly every mated"),
        (used.fmr, "FMR", "accepts nearly every nonmated"),
    ):
        if rate.low > NEARLY_EVERY:
            return (
                f"the operating threshold {value:g} {does} pair of this list: {name} "
                f"{shown(rate)}. Check its scale: a similarity, not a distance or a percentage"
            )
    return ""


def _best(found: Verified) -> float:
    """Return the lower end that a model without an error would have on a list."""
    return Trials(1.0, trials=found.n_disjoint).interval(CONFIDENCE)[0]


def shown(figure: Figure) -> str:
    """Write a figure with its interval, of which the lower end may be missing."""
    low = f"{figure.low:.4f}" if math.isfinite(figure.low) else "?"
    return f"{figure.value:.4f} [{low}, {figure.high:.4f}]"

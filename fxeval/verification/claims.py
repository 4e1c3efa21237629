"""Compares a verification figures with what the model's card claims and the suite demands.

An explanation of a model that does not recognise faces means nothing. So every run measures how
well its models verify the same lists that are explained. If a model is worse than its card claims
or the suite demands, its cells are invalid.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from fxeval.contracts import ClaimedFigure, FaceModel, model_traits
from fxeval.results import Estimate, Outcome
from fxeval.statistics.limits import AtLeast, AtMost, Limit
from fxeval.verification.demands import Verification
from fxeval.verification.figures import QUANTITIES, Figure, Verified
from fxeval.verification.measured import Measured


def entry_of(
    measured: Measured, model: FaceModel, names: tuple[str, ...], asked: Verification
) -> dict[str, Any]:
    """Return verification figures, claims and demands judged, as plain data for the record.

    Args:
        measured: The figures.
        model: The model.
        names: Names of the pair list; a claim may use any of them, reasons use the first.
        asked: The demands of the suite.

    Returns:
        The entry of the record; its ``objections``, a sentence each, say why the model must not be
        judged on these pairs.
    """
    about = f"model {model.name} on {names[0]}"
    claims = [_claim(claim, measured, names, about) for claim in claims_of(model)]
    limits = [_limit(limit, measured, about) for limit in asked.limits]
    threshold = _operating(measured, model, asked)
    broken = [one["verdict"]["reason"] for one in (*claims, *limits) if _is_invalid(one)]
    if asked.operating_threshold != "vendor" and threshold["value"] is None:
        broken.append(
            f"{about}: the suite sets the operating threshold by {asked.operating_threshold}, "
            f"which was not measured: {_why_not(measured, asked.operating_threshold)}"
        )
    found = measured.verified
    return {
        "pair_list": names[0],
        "similarity": model.similarity,
        "measured": found is not None,
        "reason": measured.reason,
        "flip_fusion": measured.flip_fusion,
        "protocol": _protocol(measured),
        "n_mated": found.n_mated if found else 0,
        "n_nonmated": found.n_nonmated if found else 0,
        "n_identities": found.n_identities if found else 0,
        "n_images": measured.n_images,
        "figures": _figures(found) if found else [],
        "thresholds": _thresholds(found) if found else [],
        "operating_threshold": threshold,
        "claims": claims,
        "limits": limits,
        "objections": broken,
        "forwards": measured.forwards,
        "seconds": measured.seconds,
    }


def claims_of(model: FaceModel) -> tuple[ClaimedFigure, ...]:
    """Return the claims of a model's card; () if it has no card."""
    card = model_traits(model).card
    return () if card is None else tuple(card.claims)


def model_card(model: FaceModel) -> dict[str, Any] | None:
    """Return the part of a record about a model's card; None if it has no card."""
    traits = model_traits(model)
    card, golden = traits.card, traits.golden
    if card is None:
        return None
    return {
        "digest": card.digest,
        "code": traits.code,
        "preprocessing": None if card.preprocessing is None else dict(card.preprocessing),
        "licence": card.licence,
        "source": card.source,
        "trained_on": card.trained_on,
        "threshold_set_by": card.threshold_set_by,
        "runtime": traits.runtime,
        "golden": None if golden is None else golden._asdict(),
    }


def _claim(
    claim: ClaimedFigure, measured: Measured, names: Collection[str], about: str
) -> dict[str, Any]:
    """Compare a claim with the interval, which refutes it if it lies wholly beyond the margin."""
    figure = _figure(measured, claim.metric)
    text = f"{claim.metric} {claim.value:g} within {claim.within:g}"
    if claim.pairs not in names:
        outcome, reason = Outcome.INCONCLUSIVE, f"not checked: it is about {claim.pairs}"
    elif figure is None:
        outcome, reason = Outcome.INCONCLUSIVE, f"not checked: {_why_not(measured, claim.metric)}"
    else:
        bound: Limit = AtLeast(claim.metric, at_least=claim.value - claim.within)
        side = "below"
        if QUANTITIES[claim.metric].better == "lower":
            bound, side = AtMost(claim.metric, at_most=claim.value + claim.within), "above"
        is_false = bound.decide(_estimate(figure, measured))[0] is Outcome.FAIL
        outcome = Outcome.INVALID if is_false else Outcome.PASS
        reason = (
            f"{about}: {QUANTITIES[claim.metric].title} {_shown(figure)}, its card claims "
            f"{claim.value:g} within {claim.within:g}"
            + (f": the whole interval lies {side} that" if is_false else "")
        )
    return {
        "pairs": claim.pairs,
        "metric": claim.metric,
        "value": claim.value,
        "within": claim.within,
        "text": text,
        "verdict": {"outcome": outcome.value, "reason": reason},
    }


def _limit(limit: Limit, measured: Measured, about: str) -> dict[str, Any]:
    """Compare a demand with the interval: the whole interval must clear the bound."""
    figure = _figure(measured, limit.metric)
    title = QUANTITIES[limit.metric].title
    words = limit.text().removeprefix(f"{limit.metric} ")
    demand = f"the suite demands {words} ({limit.where})"
    if figure is None:
        is_met, reason = False, f"{about}: {title}: {_why_not(measured, limit.metric)}; {demand}"
    else:
        is_met = limit.decide(_estimate(figure, measured))[0] is Outcome.PASS
        reason = f"{about}: {title} {_shown(figure)}, {demand}"
    outcome = Outcome.PASS if is_met else Outcome.INVALID
    return {
        "metric": limit.metric,
        **limit.written(),
        "where": limit.where,
        "text": limit.text(),
        "verdict": {"outcome": outcome.value, "reason": reason},
    }


def _operating(measured: Measured, model: FaceModel, asked: Verification) -> dict[str, Any]:
    """Say which operating threshold the cells use and how it was set."""
    if asked.operating_threshold == "vendor":
        card = model_traits(model).card
        set_by = card.threshold_set_by if card else ""
        value = model.operating_threshold
        return {"rule": "vendor", "value": value, "low": None, "high": None, "set_by": set_by}
    found = (
        measured.verified.thresholds.get(asked.operating_threshold) if measured.verified else None
    )
    similarity = found.similarity if found else None
    usable = similarity if similarity and math.isfinite(similarity.value) else None
    return {
        "rule": asked.operating_threshold,
        "value": usable.value if usable else None,
        "low": usable.low if usable else None,
        "high": usable.high if usable else None,
        "set_by": "the clean images of this list, before anything was removed from them",
    }


def _figure(measured: Measured, metric: str) -> Figure | None:
    """Return a figure that has a finite interval."""
    figure = measured.verified.figures.get(metric) if measured.verified else None
    return figure if figure and math.isfinite(figure.high - figure.low) else None


def _estimate(figure: Figure, measured: Measured) -> Estimate:
    """Return a figure as an estimate, which limits can decide."""
    found = measured.verified
    people = found.n_identities if found else 0
    return Estimate(figure.value, figure.low, figure.high, 0.95, 0, people, "of verification")


def _why_not(measured: Measured, name: str) -> str:
    """Return why a figure or a threshold is missing."""
    if measured.verified is None:
        return measured.reason
    # A threshold at a false match rate is missing for the reason of the true match rate there.
    metric = name.replace("tau_fmr", "tmr_at_fmr")
    return measured.verified.missing.get(metric, "it has no finite interval")


def _is_invalid(one: Mapping[str, Any]) -> bool:
    return bool(one["verdict"]["outcome"] == Outcome.INVALID.value)


def _shown(figure: Figure) -> str:
    return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


def _protocol(measured: Measured) -> str:
    if measured.verified is None:
        return ""
    fused = (
        "embeddings fused with those of the mirror images"
        if measured.flip_fusion
        else ("no flip fusion")
    )
    return f"{measured.verified.protocol}; {fused}"


def _figures(found: Verified) -> list[dict[str, Any]]:
    return [
        {
            "metric": name,
            "title": quantity.title,
            "better": quantity.better,
            **(_interval(found.figures[name]) if name in found.figures else _NOTHING),
            "reason": found.missing.get(name, ""),
            "std": found.accuracy_std if name == "verification_accuracy" else None,
        }
        for name, quantity in QUANTITIES.items()
    ]


def _thresholds(found: Verified) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            **_interval(one.similarity),
            "fmr": _interval(one.fmr),
            "fnmr": _interval(one.fnmr),
        }
        for name, one in found.thresholds.items()
    ]


_NOTHING: Mapping[str, Any] = {"value": None, "low": None, "high": None}


def _interval(figure: Figure) -> dict[str, float]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}

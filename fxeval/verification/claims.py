"""Compares a verification figures with what the model's card claims and the suite demands.

An explanation of a model that does not recognise faces means nothing. So every run measures how
well its models verify the same lists that are explained. If a claim of its card is refuted, if it
is worse than the suite demands or if it does not tell mated from nonmated pairs, its cells are
invalid. A claim holds only if it is shown: what was not refuted is not thereby true.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from fxeval.contracts import ClaimedFigure, FaceModel, model_traits
from fxeval.errors import ModelContractError
from fxeval.records.subjects import ELSEWHERE, is_elsewhere
from fxeval.results import Estimate, Outcome
from fxeval.statistics.limits import AtLeast, AtMost, Limit
from fxeval.verification.cross_pairs import comparisons_needed
from fxeval.verification.demands import Verification
from fxeval.verification.figures import QUANTITIES, RATES, Figure, Threshold, Verified
from fxeval.verification.floor import floor_entry, shown, threshold_reason
from fxeval.verification.measured import Measured

_PARTLY = "a part of the interval clears that, a part does not"
_ROUNDING = 1e-12  # of a claim and a measured value in binary
_OF_A_CLAIM = ("pairs", "metric", "value", "within", "of", "list_digest", "protocol")


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
    floor = floor_entry(measured, asked, about)
    broken = [one["verdict"]["reason"] for one in (*claims, *limits, floor) if _is_invalid(one)]
    threshold = _operating(measured, model, asked)
    if asked.operating_threshold != "vendor" and threshold["value"] is None:
        broken.append(
            f"{about}: the suite sets the operating threshold by {asked.operating_threshold}, "
            f"which was not measured: {_why_no_threshold(measured, asked.operating_threshold)}"
        )
    found = measured.verified
    return {
        "pair_list": names[0],
        "list_digest": measured.list_digest or None,
        "similarity": model.similarity,
        "measured": found is not None,
        "reason": measured.reason,
        "flip_fusion": measured.flip_fusion,
        "protocol": _protocol(measured),
        "n_mated": found.n_mated if found else 0,
        "n_nonmated": found.n_nonmated if found else 0,
        "n_identities": found.n_identities if found else 0,
        "n_images": measured.n_images,
        "n_crossed": measured.n_crossed,
        "figures": _figures(found) if found else [],
        "thresholds": _thresholds(found.thresholds) if found else [],
        "crossed_thresholds": _thresholds(measured.crossed),
        "operating_threshold": threshold,
        "floor": floor,
        "claims": claims,
        "limits": limits,
        "objections": broken,
        "forwards": measured.forwards,
        "seconds": measured.seconds,
    }


def remarks_of(entry: Mapping[str, Any]) -> list[str]:
    """Return what the cells of a model and a list must say: claims that are not shown, no floor."""
    floor = entry["floor"]["verdict"]
    found = [
        f"claim of the card, {one['text']}: {one['verdict']['reason']}"
        for one in entry["claims"]
        if one["verdict"]["outcome"] == Outcome.INCONCLUSIVE.value and not is_elsewhere(one)
    ]
    if floor["outcome"] == Outcome.INCONCLUSIVE.value:
        found.append(f"whether the model tells mated from nonmated pairs: {floor['reason']}")
    return found


def claims_of(model: FaceModel) -> tuple[ClaimedFigure, ...]:
    """Return the claims of a model's card; () if it has no card.

    Raises:
        ModelContractError: If a claim of user code lacks a part.
    """
    card = model_traits(model).card
    claims = () if card is None else tuple(card.claims)
    for claim in claims:
        if missing := [part for part in _OF_A_CLAIM if not hasattr(claim, part)]:
            raise ModelContractError(
                f"model '{model.name}': expected claims with {', '.join(_OF_A_CLAIM)}, got "
                f"{type(claim).__name__} without {', '.join(missing)}. Use "
                "fxeval.models.cards.Claim."
            )
    return claims


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
    """Judge a claim: pass = shown, invalid = refuted, inconclusive = cannot be told."""
    outcome, reason = Outcome.INCONCLUSIVE, _why_untold(claim, measured, names)
    if not reason:
        judge = _of_list if claim.of == "list" else _of_population
        outcome, reason = judge(claim, measured, about)
    text = f"{claim.metric} {claim.value:g} within {claim.within:g}, of "
    text += "this list" if claim.of == "list" else "the population"
    return {
        "pairs": claim.pairs,
        "metric": claim.metric,
        "value": claim.value,
        "within": claim.within,
        "of": claim.of,
        "list_digest": claim.list_digest,
        "protocol": claim.protocol,
        "text": text,
        "verdict": {"outcome": outcome.value, "reason": reason},
    }


def _why_untold(claim: ClaimedFigure, measured: Measured, names: Collection[str]) -> str:
    """Return why a claim cannot be compared with what was measured; "" if it can be."""
    is_this = bool(claim.list_digest) and claim.list_digest == measured.list_digest
    if claim.pairs not in names and not is_this:
        return f"{ELSEWHERE}{claim.pairs}"
    here = measured.list_digest or "not known"
    if claim.list_digest and not is_this:
        return (
            f"cannot be told: the claim is about the list {claim.list_digest}, and the digest of "
            f"this one is {here}"
        )
    if claim.of == "list" and not claim.list_digest:
        return (
            "cannot be told: a claim of a list is bound to its digest. If it is about this list, "
            f"add list_digest: {here}"
        )
    used = "flip_fusion" if measured.flip_fusion else "plain"
    if claim.protocol != used:
        return f"cannot be told: its protocol is {claim.protocol}, and this one is {used}"
    if measured.verified is None or claim.metric not in measured.verified.figures:
        return f"not checked: {_why_not(measured, claim.metric)}"
    return ""


def _of_list(claim: ClaimedFigure, measured: Measured, about: str) -> tuple[Outcome, str]:
    """Judge a claim of this very list: the measured value itself must lie within the margin."""
    assert measured.verified is not None
    value = measured.verified.figures[claim.metric].value
    gap = abs(value - claim.value)
    holds = gap <= claim.within + _ROUNDING
    said = (
        f"{about}: {QUANTITIES[claim.metric].title} {value:.5g}, its card claims {claim.value:g} "
        f"within {claim.within:g} of this very list ({measured.list_digest})"
    )
    if holds:
        return Outcome.PASS, said
    return Outcome.INVALID, f"{said}: {gap:.2g} beyond it, which no sampling explains"


def _of_population(claim: ClaimedFigure, measured: Measured, about: str) -> tuple[Outcome, str]:
    """Judge a claim of the population: the whole interval must clear it, or lie beyond it."""
    figure, quantity = _figure(measured, claim.metric), QUANTITIES[claim.metric]
    if figure is None:
        return Outcome.INCONCLUSIVE, f"not checked: {_why_not(measured, claim.metric)}"
    needed = comparisons_needed(RATES.get(claim.metric.removeprefix("tmr_at_fmr_"), math.inf))
    n_nonmated = measured.verified.n_nonmated if measured.verified else 0
    clear: Limit = AtLeast(claim.metric, at_least=claim.value - claim.within)
    side = "below"
    if quantity.better == "lower":
        clear, side = AtMost(claim.metric, at_most=claim.value + claim.within), "above"
    outcome = clear.decide(_estimate(figure, measured))[0]
    said = (
        f"{about}: {quantity.title} {shown(figure)}, its card claims {claim.value:g} within "
        f"{claim.within:g} of the population"
    )
    if outcome is Outcome.FAIL:
        return Outcome.INVALID, f"{said}: the whole interval lies {side} that"
    if outcome is not Outcome.PASS:
        why = _PARTLY if math.isfinite(figure.low) else _why_not(measured, claim.metric)
        return Outcome.INCONCLUSIVE, f"cannot be told: {said}: {why}"
    if n_nonmated < needed:
        few = f"{n_nonmated:,} nonmated pairs, at least {needed:,} needed to show this rate"
        return Outcome.INCONCLUSIVE, f"cannot be told: {said}: {few}"
    return Outcome.PASS, said


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
        why = "" if math.isfinite(figure.low) else f": {_why_not(measured, limit.metric)}"
        reason = f"{about}: {title} {shown(figure)}, {demand}{why}"
    outcome = Outcome.PASS if is_met else Outcome.INVALID
    return {
        "metric": limit.metric,
        **limit.written(),
        "where": limit.where,
        "text": limit.text(),
        "verdict": {"outcome": outcome.value, "reason": reason},
    }


def _operating(measured: Measured, model: FaceModel, asked: Verification) -> dict[str, Any]:
    """Say which operating threshold the cells use, how it was set, and why it decides nothing."""
    rule = asked.operating_threshold
    known = measured.evidence.thresholds.get(rule) if measured.evidence else None
    if rule == "vendor":
        card = model_traits(model).card
        set_by = card.threshold_set_by if card else ""
        value = model.operating_threshold
        interval: Mapping[str, Any] = {**_NOTHING, "value": value}
    else:
        set_by = "the clean images of this list, before anything was removed from them"
        if rule.startswith("tau_fmr_"):
            known = measured.crossed.get(rule)
            set_by = f"all {measured.n_crossed:,} comparisons of different people in {set_by}"
        elif measured.verified is None:
            known = None
        usable = known.similarity if known and math.isfinite(known.similarity.value) else None
        interval = _interval(usable) if usable else _NOTHING
    fault = threshold_reason(known, interval["value"])
    return {"rule": rule, **interval, "set_by": set_by, "fault": fault}


def _why_no_threshold(measured: Measured, rule: str) -> str:
    """Return why a threshold that a suite asks for is missing."""
    rate = RATES.get(rule.removeprefix("tau_fmr_"))
    if rate is None or not measured.n_crossed:
        return _why_not(measured, rule)
    return (
        f"a false match rate of {rate:g} needs at least {comparisons_needed(rate):,} comparisons "
        f"of different people, and the {measured.n_images:,} images of this list give "
        f"{measured.n_crossed:,}. Take a longer list or a higher rate"
    )


def _figure(measured: Measured, metric: str) -> Figure | None:
    """Return a figure that has an interval, maybe without a lower end."""
    figure = measured.verified.figures.get(metric) if measured.verified else None
    return figure if figure and figure.low <= figure.high else None


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
    found = measured.verified
    return found.missing.get(metric) or found.why_open.get(metric) or "it has no finite interval"


def _is_invalid(one: Mapping[str, Any]) -> bool:
    return bool(one["verdict"]["outcome"] == Outcome.INVALID.value)


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
            "reason": found.missing.get(name) or found.why_open.get(name, ""),
            "std": found.accuracy_std if name == "verification_accuracy" else None,
        }
        for name, quantity in QUANTITIES.items()
    ]


def _thresholds(found: Mapping[str, Threshold]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            **_interval(one.similarity),
            "fmr": _interval(one.fmr),
            "fnmr": _interval(one.fnmr),
        }
        for name, one in found.items()
    ]


_NOTHING: Mapping[str, Any] = {"value": None, "low": None, "high": None}


def _interval(figure: Figure) -> dict[str, float]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}

"""Estimates and verdicts as a record holds them."""

from typing import Any

from fxeval.records.form import VerdictEntry
from fxeval.results import Estimate, Verdict


def figures(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as a record holds it."""
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": estimate.confidence,
        "n_pairs": estimate.n_pairs,
        "n_identities": estimate.n_identities,
        "method": estimate.method,
        "effective_identities": estimate.effective_identities,
        "largest_share": estimate.largest_share,
    }


def plain(verdict: Verdict) -> VerdictEntry:
    """Return a verdict as a record holds it."""
    return VerdictEntry(outcome=verdict.outcome, reason=verdict.reason)

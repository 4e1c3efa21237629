"""Converts records of version 1, which had no schema, to the current version."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Json = Mapping[str, Any]

# Sources and meanings of metrics, which version 1 did not record.
_ADEBAYO = "Adebayo et al. 2018, Sanity Checks for Saliency Maps, sec. 3-4"
_PETSIUK = "Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair"
_LU = "Lu and Ebrahimi 2023 (S-RISE), sec. 3"
_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "deletion_auc": (
            _PETSIUK,
            "Mean similarity to the other image while the most salient pixels are removed.",
        ),
        "insertion_auc": (
            _PETSIUK,
            "Mean similarity to the other image while the most salient pixels are restored.",
        ),
        "deletion_fraction_to_nonmatch": (
            _LU,
            "How much of the image must go before the decision flips; 1 if it never does.",
        ),
        "insertion_fraction_to_match": (
            _LU,
            "How much of the image must come back before the model accepts the pair.",
        ),
        "rank_correlation_fully_randomised": (
            _ADEBAYO,
            "Near 0 when the map depends on the weights; near 1 when any network would do.",
        ),
        "absolute_rank_correlation_fully_randomised": (
            _ADEBAYO,
            "As before, but an inverted copy of the map counts as unchanged too.",
        ),
    }
)


def upgraded(record: Json) -> dict[str, Any]:
    """Return a record of version 1 as one of version 2; fields that it lacked are blank."""
    subjects = record["subjects"]
    return {
        **record,
        "record": 2,
        "suite": {key: value for key, value in record["suite"].items() if key != "formats"},
        "environment": {**_ENVIRONMENT, **record["environment"]},
        "subjects": {**subjects, "pairs": {k: _pairs(v) for k, v in subjects["pairs"].items()}},
        "verification": [
            {
                **{key: value for key, value in entry.items() if key != "list"},
                "pair_list": entry["list"],
                "limits": [_demand(limit) for limit in entry["limits"]],
            }
            for entry in record.get("verification", ())
        ],
        "cells": [_cell(cell) for cell in record["cells"]],
    }


_ENVIRONMENT: Json = {
    **dict.fromkeys(("torch", "numpy", "opencv", "pytest", "commit", "dirty")),
    "python": "",
    "platform": "",
    "threads": 0,
    "precision": "float32",
    "batch_size": 0,
}


def _pairs(entry: Json) -> dict[str, Any]:
    """Count the excluded pairs; the first records listed each of them."""
    excluded = entry.get("excluded", {})
    if not isinstance(excluded, Mapping):
        reasons = [one["reason"] for one in excluded]
        excluded = {reason: reasons.count(reason) for reason in reasons}
    return {**entry, "excluded": excluded}


def _cell(cell: Json) -> dict[str, Any]:
    estimates, limits = cell.get("estimates", []), cell.get("limits", [])
    judged = [_limit(limit) for limit in limits]
    known = {row["metric"]: row for row in estimates}
    blank = {"nodeid": None, "seconds": 0.0, "forwards": 0, "n_pairs": 0, "n_identities": 0}
    notes = cell.get("notes", [])
    old = ("seconds", "forwards", "why", "on_inconclusive", "explaining", "states", "problems",
           "mean_map", "diagnostics")  # fmt: skip
    return {
        **blank,
        "why": "",
        "on_inconclusive": "fail",
        **{key: value for key, value in cell.items() if key not in ("limits", "notes", *old)},
        **{key: cell[key] for key in old if key in cell},
        "parameters": cell.get("parameters") or {},
        "confidence": next((row["confidence"] for row in estimates), 0.95),
        "metrics": [_metric(row) for row in known.values()],
        "asked": [{key: one[key] for key in one if key in _ASKED} for one in judged],
        "remarks": notes,
        "notes": notes,
        "limits": judged,
        "estimates": [_without(row, "title", "unit", "better", "statistic") for row in estimates],
        "differences": [_without(row) for row in cell.get("differences", [])],
        "curves": [_without(row) for row in cell.get("curves", [])],
    }


_ASKED = ("metric", "at_most", "at_least", "better_than", "by", "under", "severity", "where")


def _without(row: Json, *keys: str) -> dict[str, Any]:
    """Return a row with its fill as a condition, and without the given keys."""
    kept = {key: value for key, value in row.items() if key not in ("fill", *keys)}
    return {**kept, "under": _under(row)}


def _under(row: Json) -> dict[str, str]:
    return {"fill": row["fill"]} if row.get("fill") else {}


def _metric(row: Json) -> dict[str, Any]:
    source, meaning = _WORDS.get(row["metric"], ("", ""))
    return {
        "name": row["metric"],
        "title": row["title"],
        "unit": row["unit"],
        "better": row["better"],
        "range": None,
        "statistic": row["statistic"],
        "source": source,
        "meaning": meaning,
    }


def _limit(limit: Json) -> dict[str, Any]:
    absolute, relative = limit.get("by_absolute") or 0.0, limit.get("by_relative") or 0.0
    is_paired = limit["form"] == "better_than"
    margins = {"absolute": absolute, "relative": relative}
    own: dict[str, Any] = {limit["form"]: limit["bound"]}
    if is_paired:
        own = {
            "better_than": f"control.{limit['control']}",
            "by": {key: value for key, value in margins.items() if value},
        }
    return {
        "metric": limit["metric"],
        **own,
        "under": _under(limit),
        "severity": limit["severity"],
        "where": limit.get("where", ""),
        "text": limit["text"],
        "line": absolute if is_paired else limit["bound"],
        "verdict": limit["verdict"],
        "estimate": limit["estimate"],
    }


def _demand(limit: Json) -> dict[str, Any]:
    kept = {key: value for key, value in limit.items() if key not in ("form", "bound")}
    return {**kept, limit["form"]: limit["bound"]}

"""The HTML scorecard: one self-contained file, no script, no network."""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fxeval.errors import StoreError
from fxeval.results import attempts
from fxeval.scorecard import (
    baselines,
    conditions,
    cost_tables,
    evidence,
    limit_rows,
    self_checks,
    transfers,
    verification_rows,
    view,
    wording,
    worst_first,
)
from fxeval.scorecard.curve_words import curve_words
from fxeval.scorecard.refusals import refused

SIZE_AIM = 2_000_000  # bytes; a larger page leaves parts out and says which
_PACKED_FROM = SIZE_AIM // 2  # bytes of a record; a larger one is embedded packed
_BANNER_LENGTH = 170  # characters of the banners that fit the head of a printed page


@dataclass(frozen=True)
class Detail:
    """How much of a cell is drawn; the embedded record is whole at every detail."""

    curve_tables: bool
    long_tables: bool
    charts_of: tuple[str, ...]
    left_out: str


_MISSED = tuple(outcome for outcome in worst_first.OUTCOMES if outcome != "pass")
_ROWS = f"rows of long tables after the first {conditions.SHOWN}"
_DETAILS = (
    Detail(True, True, worst_first.OUTCOMES, ""),
    Detail(False, True, worst_first.OUTCOMES, "the tables of the curves"),
    Detail(False, True, _MISSED, "the tables of the curves and the charts of cells that passed"),
    Detail(False, False, (), f"{_ROWS} and the charts of all cells, except those of missed limits"),
)

_ENVIRONMENT = Environment(
    loader=PackageLoader("fxeval", "scorecard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "attempts": attempts,
    "begun": wording.begun,
    "number": wording.number,
    "interval": wording.interval,
    "plain": wording.plain,
    "map_name": wording.map_name,
    "row_names": wording.row_names,
    "curve_words": curve_words,
    "statistic_text": wording.statistic_text,
    "states_text": wording.states_text,
    "limit_text": limit_rows.limit_text,
    "estimated": limit_rows.estimated,
    "curve_table": view.curve_table,
    "measured_on": view.measured_on,
    "explaining_rows": cost_tables.explaining_rows,
    "layers_read": cost_tables.layers_read,
    "diagnostic_rows": cost_tables.diagnostic_rows,
    "golden_text": verification_rows.golden_text,
    "tags_text": verification_rows.tags_text,
}


@refused()
def render(record: Mapping[str, Any]) -> str:
    """Show a record as one HTML page.

    Args:
        record: A record of any format version; it is not changed.

    Returns:
        The page. It holds the record as JSON in the element ``fxeval-record``; one of more than
        a megabyte is compressed with gzip and written in base64.

    Raises:
        StoreError: If it is not a record, is damaged, or holds NaN or another value that JSON
            cannot hold.
    """
    today = view.checked(record)
    embedded = _embedded(today)
    shown = wording.visible(today)
    digest = hashlib.sha256(embedded.encode()).hexdigest()
    is_packed = len(embedded.encode()) > _PACKED_FROM
    style = _style(shown, digest)
    cells = view.cell_views(shown)
    context = {
        "record": shown,
        # Every < > & in it is a JSON escape.
        "embedded": Markup(_packed(embedded) if is_packed else embedded),
        "is_packed": is_packed,
        "digest_full": digest,
        "style": Markup(style),  # our file; texts of the record are hex escapes in it
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "cells": cells,
        "not_passed": view.not_passed(cells),
        "matrices": view.matrices(cells),
        "counts": worst_first.counts(shown["cells"]),
        "verifications": verification_rows.views(shown),
        "verified": [verification_rows.HEADS[name] for name in verification_rows.columns(shown)],
        "cost_rows": cost_tables.cost_rows(shown["cells"]),
        "warnings": view.warnings(shown),
        "metrics": _metrics(cells),
        "names": view.names,
        "exclusions": view.exclusions,
        "lines": limit_rows.limit_lines,
        "marks": (conditions.BETTER, conditions.WORSE),
        "transfers": transfers.transfers(shown),
        "transfer_rows": transfers.overview(shown),
        "transfer_heads": transfers.OVERVIEW,
        "evidence": evidence,
        "checks": self_checks,
        "checked": self_checks.self_checks(shown),
        "words": wording,
        **_of_earlier_runs(shown),
    }
    return _rendered(context)


def _rendered(context: Mapping[str, Any]) -> str:
    """Return the page with as much detail as its size allows."""
    template = _ENVIRONMENT.get_template("page.html.j2")
    page = ""
    for detail in _DETAILS:
        page = template.render(context, detail=detail)
        if len(page.encode()) <= SIZE_AIM:
            break
    return page


def _of_earlier_runs(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page says of the runs that this one is compared with."""
    return {
        "regressions": shown.get("regressions"),
        "compared": worst_first.regression_rows(shown),
        "ages": baselines.compared_lines(shown, 0),
        "has_acknowledged": any(map(limit_rows.acknowledged, _limits(shown))),
    }


def _limits(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [limit for cell in record["cells"] for limit in cell["limits"]]


def _embedded(record: Mapping[str, Any]) -> str:
    """Write the record so that nothing in it can end the script element around it."""
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"record: not plain JSON ({error}). Write missing numbers as null."
        ) from error
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _packed(text: str) -> str:
    """Compress a text; the digest on the page is of the text itself."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _style(record: Mapping[str, Any], digest: str) -> str:
    """Return the style sheet with the head and foot of the printed pages."""
    sheet = resources.files("fxeval.scorecard").joinpath("style.css").read_text("utf-8")
    banner = wording.clipped(" ".join(record["banners"]), _BANNER_LENGTH)
    outcome = record["verdict"]["outcome"].upper()
    head = css_string(f"{outcome} · {record['suite']['name']} · run {record['run']['id']}")
    return (
        f"{sheet}@page{{@top-left{{content:{css_string(banner)}}}"
        f"@bottom-left{{content:{head} '\\a record sha256 {digest}'}}}}\n"
    )


def css_string(text: str) -> str:
    r"""Write any text as a CSS string: characters that are not plain become escapes.

    >>> css_string("a'</style>")
    "'a\\27 \\3c \\2f style\\3e '"
    """
    return (
        "'"
        + "".join(
            char if char.isascii() and (char.isalnum() or char in " .,:") else f"\\{ord(char):x} "
            for char in text
        )
        + "'"
    )


def _metrics(cells: tuple[view.CellView, ...]) -> list[view.Json]:
    """Return the metrics on the page with their meanings, in the order of first use."""
    found: dict[str, view.Json] = {}
    for one in cells:
        declared = conditions.metrics_of(one.cell)
        for row in one.cell["estimates"]:
            found.setdefault(row["metric"], declared[row["metric"]])
    return list(found.values())

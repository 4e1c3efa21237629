"""The changes between two runs as one self-contained page: no script, no network."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fxeval.records.changes import Comparison
from fxeval.scorecard import change_words, wording
from fxeval.scorecard.slopes import slope_charts
from fxeval.scorecard.worst_first import SHOWN

_TABLED, _CHARTS = 200, 24  # rows of a table and charts that a page shows
_MARKS = {"not_worse": "pass", "worse": "fail", "undecided": "inconclusive"}
_WORST_FIRST = ("worse", "undecided", "not_worse")

_ENVIRONMENT = Environment(
    loader=PackageLoader("fxeval", "scorecard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(comparisons: Sequence[Comparison]) -> str:
    """Show comparisons as one HTML page: the finding, what decided it, slope charts, a table.

    Args:
        comparisons: One a suite; without any, the page says that nothing was compared.
    """
    shown = [
        Comparison.model_validate(wording.visible(one.model_dump(mode="json")))
        for one in comparisons
    ]
    outcome = min((one.outcome for one in shown), key=_WORST_FIRST.index, default="undecided")
    style = _style()
    context = {
        "title": ", ".join(dict.fromkeys(one.suite for one in shown)) or "nothing",
        "outcome": outcome,
        "mark_of": _MARKS,
        "style": Markup(style),  # our file alone
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "views": [_view(one) for one in shown],
        "said": change_words,
        "words": wording,
    }
    return _ENVIRONMENT.get_template("changes.html.j2").render(context)


def _view(one: Comparison) -> dict[str, Any]:
    """Return what the page shows of a comparison."""
    changes = change_words.deciding(one)
    open_ = [it for it in changes if it.outcome in ("worse", "undecided", "not_compared")]
    charts = slope_charts(changes)
    informing = [it for it in one.changes if not it.decides]
    return {
        "comparison": one,
        "counts": change_words.counts(changes),
        "open": open_[:SHOWN],
        "open_rest": change_words.rest(open_, SHOWN),
        "charts": charts[:_CHARTS],
        "charts_rest": max(0, len(charts) - _CHARTS),
        "changes": changes[:_TABLED],
        "rest": change_words.rest(changes, _TABLED),
        "informing": informing[:_TABLED],
        "remarks": change_words.remarks(one),
    }


def _style() -> str:
    """Return the style sheet of the scorecard, and what slope charts add."""
    room = resources.files("fxeval.scorecard")
    return "".join(room.joinpath(name).read_text("utf-8") for name in ("style.css", "changes.css"))

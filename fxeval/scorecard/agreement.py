"""The agreement of metrics with known truth, as text for a terminal and as Markdown.

It makes no verdict: the words are those of ``fxeval.statistics.agreement``.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from fxeval.scorecard.summary import escaped
from fxeval.scorecard.wording import interval, number, visible
from fxeval.statistics.agreement import CHANCE, Agreement, AgreementTable
from fxeval.statistics.explainer_means import Quantity

HEADS = ("metric", "tau-b with interval", "verdict", "by chance", "explainers", "models")
READING = (
    "tau-b: 1 = the metric puts the explainers in the order of the truth, -1 = in the reverse. The "
    "intervals resample people; the explainers are fixed, so they say nothing about other "
    "explainers. By chance: share of random orders of the same explainers that agree as strongly."
)


def text_lines(table: AgreementTable, *, is_verbose: bool = False) -> list[str]:
    """Return the table for a terminal: one line a metric, and one a model if verbose."""
    lines: list[str] = []
    names = _names(table)
    for truth, found in _by_truth(table):
        cells = [[*HEADS], *(_cells(one, names) for one in found if is_verbose or not one.model)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEADS))]
        lines += [_about(truth, found), ""]
        for row in cells:
            padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
        lines += ["", *_supported(found, names), ""]
    return [str(visible(line)) for line in [*lines, READING, *_remarks(table, names)]]


def markdown(table: AgreementTable) -> str:
    """Return the table in Markdown, with the lines of each model."""
    parts: list[str] = []
    names = _names(table)
    for truth, found in _by_truth(table):
        rows = [
            "| " + " | ".join(escaped(text) for text in _cells(one, names, indent="in ")) + " |"
            for one in found
        ]
        heads = "| " + " | ".join(HEADS) + " |"
        parts += [f"### {escaped(_about(truth, found))}", "", heads, "|---" * len(HEADS) + "|"]
        parts += [*rows, "", *map(_in_markdown, _supported(found, names)), ""]
    parts += [_in_markdown(READING), ""]
    parts += [f"* {escaped(line)}" for line in _remarks(table, names)]
    return "\n".join(map(str, map(visible, parts))).rstrip() + "\n"


def _by_truth(table: AgreementTable) -> list[tuple[Quantity, list[Agreement]]]:
    truths = dict.fromkeys(one.truth for one in table.agreements)
    return [(truth, [one for one in table.agreements if one.truth == truth]) for truth in truths]


def _about(truth: Quantity, found: Sequence[Agreement]) -> str:
    people = [one.n_people for one in found if not one.model and not one.reason]
    own, of_truth = (min((pair[side] for pair in people), default=0) for side in (0, 1))
    return f"Agreement with {truth.text} on {of_truth} people; other metrics on {own} or more"


def _cells(one: Agreement, names: Mapping[Quantity, str], indent: str = "  ") -> list[str]:
    name = f"{indent}{one.model}" if one.model else names[one.quantity]
    if one.reason:
        return [name, "none", one.word, "", str(len(one.explainers)), "0"]
    figures = {"value": one.tau, "low": one.low, "high": one.high}
    return [
        name,
        interval(figures),
        one.word,
        number(one.chance),
        str(len(one.explainers)),
        "" if one.model else str(one.n_models),
    ]


def _names(table: AgreementTable) -> dict[Quantity, str]:
    """Return metrics with their conditions; where two are alike, with check and list as well."""
    every = dict.fromkeys(one.quantity for one in table.agreements)
    times = Counter(one.text for one in every)
    return {
        one: one.text if times[one.text] == 1 else f"{one.text}, {one.check} on {one.pairs}"
        for one in every
    }


def _in_markdown(line: str) -> str:
    return escaped(line, len(line))


def _supported(found: Sequence[Agreement], names: Mapping[Quantity, str]) -> list[str]:
    """Say which metrics the table supports, and which it speaks against."""
    pooled = [one for one in found if not one.model and math.isfinite(one.tau)]
    told = [one for one in pooled if one.word != "cannot be told"]
    words = {
        "Supported (agrees, and at most 5 % of random orders agree as strongly)": [
            one for one in told if one.is_supported
        ],
        "Disagrees (and at most 5 % of random orders disagree as strongly)": [
            one for one in told if one.word == "disagrees" and one.chance <= CHANCE
        ],
        "Agrees or disagrees no more than random orders do": [
            one for one in told if one.chance > CHANCE
        ],
    }
    return [
        f"{word}: {', '.join(names[one.quantity] for one in some) or 'none'}."
        for word, some in words.items()
    ]


def _remarks(table: AgreementTable, names: Mapping[Quantity, str]) -> list[str]:
    """Say what was not compared and why: the remarks, then each metric without a figure."""
    reasons = [
        f"{names[one.quantity]}{f' on {one.model}' if one.model else ''}: {one.reason}"
        for one in table.agreements
        if one.reason
    ]
    return [f"not compared: {remark}" for remark in dict.fromkeys([*table.remarks, *reasons])]

"""The scorecard as Markdown, small enough for the summary of a CI step or a comment.

What a suite or user code wrote is text in it and nothing else: no markup, no link, no mention of
a person, and no line of its own.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fxeval.scorecard import limit_rows, self_checks, transfers, verification_rows, view
from fxeval.scorecard.baselines import compared_lines
from fxeval.scorecard.conditions import worst_slices
from fxeval.scorecard.evidence import leaning, settles
from fxeval.scorecard.looks import looked_at
from fxeval.scorecard.refusals import refused
from fxeval.scorecard.search import chosen
from fxeval.scorecard.wording import begun, clipped, interval, visible
from fxeval.scorecard.worst_first import NEUTRAL, SHOWN, counts, rest, worse_lines, worst_first

Json = Mapping[str, Any]

SIZE = 200_000
"""Most bytes of a summary: a comment that is longer than a page is not read, and a server may
refuse it."""

_ID, _SENTENCE = 160, 500  # characters of one name, and of one reason
_LIMITS = 12  # of one cell
_BANNERS = 10
_ROOMS = 5
_FEWER = (SHOWN, 15, 5, 1, 0)  # cells, until the summary is small enough

# What Markdown reads as markup wherever it stands. A pipe, which ends a cell of a table even behind
# a backslash in some readers, and what HTML needs are entities.
_MARKUP = re.compile(r"([\\`*_\[\]~$])")
# Servers make links of addresses, and call people and tickets by their marks: an invisible space
# after the mark breaks that. It is added last, so that nobody can put it in another place.
_CALLS = re.compile(r"(@|#|:(?=/)|www(?=\.)|\bGH(?=-))", re.IGNORECASE)
_BREAK = "\u200b"
# What begins a list, a rule or a heading's underline.
_START = re.compile(r"^(?:([-+=])|(\d+)([.)])(?=\s|$))")


def summary_of_all(records: Sequence[tuple[Json, str]]) -> str:
    """Show several records, each with the name of its page, as one summary of the same size."""
    share = SIZE // max(1, len(records))
    return "\n".join(
        markdown_summary(record, page=page, most_bytes=share - 1) for record, page in records
    )


@refused()
def markdown_summary(record: Json, *, page: str = "", most_bytes: int = SIZE) -> str:
    """Show a record as Markdown: verdict, cells worst first, and the limits of those not passed.

    Args:
        record: A record of any format version.
        page: Name of the file with the whole scorecard; "" = there is none.
        most_bytes: Most bytes; fewer cells are shown until it fits.

    Raises:
        StoreError: If it is not a record, or damaged.
    """
    shown = visible(view.checked(record))
    text = ""
    for most in _FEWER:
        text = (
            "\n".join([*_head(shown, most), *_cells(shown, most), *_foot(shown, page, most)]) + "\n"
        )
        if len(text.encode()) <= most_bytes:
            break
    return text


def escaped(text: object, length: int = _SENTENCE) -> str:
    r"""Write any text as one line of plain text in Markdown.

    >>> escaped("a|b <b> `c` @ann, see https://x.y and #12").replace("\u200b", "^")
    'a&#124;b &lt;b&gt; \\`c\\` @^ann, see https:^//x.y and #^12'
    """
    line = _MARKUP.sub(r"\\\1", clipped(" ".join(str(text).split()), length))
    line = _START.sub(lambda found: f"{found[2] or ''}\\{found[1] or found[3]}", line)
    safe = html.escape(line, quote=False).replace("|", "&#124;")
    # The entity of the pipe holds a mark, too; a break inside of it would show the entity.
    return _CALLS.sub(rf"\1{_BREAK}", safe).replace(f"&#{_BREAK}124;", "&#124;")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    found = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads), *found, ""] if found else []


def _word(outcome: str) -> str:
    return f"**{outcome}**" if outcome != "pass" else outcome


def _head(record: Json, most: int) -> list[str]:
    suite, verdict, run = record["suite"], record["verdict"], record["run"]
    warnings = view.warnings(record)
    more = [f"{len(warnings) - _BANNERS} more warnings"] if len(warnings) > _BANNERS else []
    tally = ", ".join(f"{count:,} {outcome}" for outcome, count in counts(record["cells"]))
    return [
        f"## {verdict['outcome'].upper()}: {escaped(suite['title'] or suite['name'], _ID)}",
        "",
        f"{begun(escaped(verdict['reason']))}.",
        "",
        *(f"> {escaped(one)}\n" for one in [*warnings[:_BANNERS], *more]),
        f"Cells: {tally or 'none'}. Run {escaped(run['id'], _ID)}, "
        f"suite {escaped(suite['path'], _ID)}.",
        "",
        *_self_checks(record, most),
    ]


def _self_checks(record: Json, most: int) -> list[str]:
    """Say whether metrics tell known maps apart, and list those that do not."""
    if not record["self_checks"]:
        return []
    unfit = self_checks.unfit_lines(record)
    more = [f"- and {len(unfit) - most} more unfit metrics"] if len(unfit) > most else []
    listed = [f"- **unfit** {escaped(line)}" for line in unfit[:most]]
    said = f"Self-check of the metrics: {self_checks.tally(record['self_checks'])}."
    return [said, "", *listed, *more, *([""] if unfit else [])]


def _cells(record: Json, most: int) -> list[str]:
    cells = worst_first(record["cells"])
    listed = [
        [
            _word(cell["verdict"]["outcome"]),
            *(escaped(cell[key], _ID) for key in ("check", "explainer", "model", "pairs")),
            escaped(view.deciding_text(cell)),
        ]
        for cell in cells[:most]
    ]
    heads = ("verdict", "check", "explainer", "model", "pairs", "decided by")
    missed = [cell for cell in cells if cell["verdict"]["outcome"] not in NEUTRAL]
    limits = [row for cell in missed[:most] for row in _limits(cell)]
    left, hidden = rest(cells, most), rest(missed, most)
    return [
        *_table(heads, listed),
        *([f"{begun(left)}.\n"] if left else []),
        *(["### Cells that did not pass\n"] if limits else []),
        *_table(("cell", "verdict", "because", "value [low, high]", "method"), limits),
        *([f"{begun(hidden)}.\n"] if hidden else []),
        *(f"- {escaped(c['id'], _ID)}: {escaped(leaning(c))}" for c in cells[:most] if leaning(c)),
        *(
            f"- **{limit_rows.acknowledged(limit)}** {escaped(cell['id'], _ID)}: "
            f"{escaped(limit['verdict']['reason'])}"
            for cell in cells[:most]
            for limit in limit_rows.shown(cell["limits"])
            if limit_rows.acknowledged(limit)
        ),
        *_choices(cells[:most]),
    ]


def _limits(cell: Json) -> list[list[str]]:
    """Return rows on the critical limits of a cell that were not passed, or on its reason."""
    name = f"{escaped(cell['id'], _ID)}<br>{escaped(cell['where'], _ID)}"
    critical = [limit for limit in cell["limits"] if limit_rows.decides(limit)]
    missed = [limit for limit in critical if limit["verdict"]["outcome"] != "pass"]
    own = cell["verdict"]["reason"]
    for limit in missed:
        own = own.replace(limit["verdict"]["reason"], "")
    rows = []
    if own.strip("; ") or not missed:
        rows.append([name, _word(cell["verdict"]["outcome"]), escaped(own.strip("; ")), "", ""])
    listed = limit_rows.shown(missed)[:_LIMITS]
    for limit in listed:
        needed = settles(limit)
        because = (
            f"{escaped(limit_rows.limit_text(limit))}<br>{escaped(limit['verdict']['reason'])}"
        )
        rows.append(
            [
                name,
                _word(limit["verdict"]["outcome"]),
                because + (f"<br>would settle it: {escaped(needed)}" if needed else ""),
                escaped(interval(limit["estimate"], *limit_rows.limit_lines(limit))),
                escaped((limit["estimate"] or {}).get("method", "none"), _ID),
            ]
        )
    if len(missed) > len(listed):
        left = len(missed) - len(listed)
        rows.append([name, "", f"and {left} more limits that were not passed", "", ""])
    return rows


def _foot(record: Json, page: str, most: int) -> list[str]:
    lines = [f"- {escaped(line)}" for line in verification_rows.lines(record)[:_BANNERS]]
    if record.get("regressions"):
        worse = worse_lines(record)
        more = [f"- and {len(worse) - most:,} more that got worse"] if len(worse) > most else []
        lines.append(f"- compared: {escaped(record['regressions']['text'])}")
        lines += [*(f"- **got worse**: {escaped(line)}" for line in worse[:most]), *more]
    lines += [f"- {escaped(line)}" for line in compared_lines(record, _ROOMS)]
    whole = f"The whole scorecard: {escaped(page, _ID)}. " if page else ""
    said = f"{whole}Value [low, high] is an estimate with its interval, which decides."
    return [*_transfers(record), *lines, *([""] if lines else []), said]


def _transfers(record: Json) -> list[str]:
    rows = [[escaped(text, _ID) for text in row] for row in transfers.overview(record)]
    more = [f"And {len(rows) - SHOWN} more matrices.\n"] if len(rows) > SHOWN else []
    heads = transfers.OVERVIEW
    return [*(["### Transfer\n"] if rows else []), *_table(heads, rows[:SHOWN]), *more]


def _choices(cells: Sequence[Json]) -> list[str]:
    """Return which configurations were selected, where explainers do worst, and looks."""
    found = [(cell["id"], chosen(cell)) for cell in cells]
    found += [(cell["id"], line) for cell in cells for line in worst_slices(cell)]
    found += [(cell["id"], looked_at(cell)) for cell in cells]
    return [f"- {escaped(id, _ID)}: {escaped(line)}" for id, line in found if line]

"""The scorecard as a few lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from fxeval.results import attempts
from fxeval.scorecard import limit_rows, self_checks, transfers, verification_rows, view
from fxeval.scorecard.baselines import compared_lines
from fxeval.scorecard.conditions import worst_slices
from fxeval.scorecard.evidence import leaning, settles
from fxeval.scorecard.looks import looked_at
from fxeval.scorecard.refusals import refused
from fxeval.scorecard.search import chosen
from fxeval.scorecard.wording import clipped, row_names, visible
from fxeval.scorecard.worst_first import SHOWN, rest, worse_lines, worst_first

_COLOURS: Mapping[str, str] = {
    "pass": "32",
    "fail": "31",
    "inconclusive": "33",
    "invalid": "35",
    "information": "36",
    "unsupported": "2",
}
_NAMES = ("check", "explainer", "model", "pairs")
_DECIDED = 34  # characters: a value with its interval, and the limit's metric
_NARROWEST = 6
_GAP = "  "
_ALL = "-v shows all"


@refused()
def terminal_summary(
    record: Mapping[str, Any], width: int = 100, *, colour: bool = False, most: int | None = SHOWN
) -> list[str]:
    """Show a record as lines of text: verdict, banners, cells, models, and what was not passed.

    Args:
        record: A record of any format version.
        width: Width of the terminal in characters; names are shortened to fit, values are not.
        colour: Colour the verdict words with ANSI escapes.
        most: Most cells shown, the worst first, and most lines of every other kind; None = all.

    Raises:
        StoreError: If it is not a record, or damaged.
    """
    shown = visible(view.checked(record))
    verdict = shown["verdict"]
    lines = [
        f"{_word(verdict['outcome'], colour)}{_GAP}{shown['suite']['name']}: {verdict['reason']}",
        *(f"! {warning}" for warning in view.warnings(shown)),
    ]
    lines += _self_checks(shown, most)
    cells = worst_first(shown["cells"])
    if cells:
        lines += [_about(cells), "", *_table(cells, width, colour, most)]
    lines += first(verification_rows.lines(shown), most)
    lines += first([f"transfer{_GAP}{line}" for line in transfers.lines(shown)], most)
    lines += first([line for cell in cells for line in _found(cell)], most)
    if shown.get("regressions"):
        lines.append(f"compared{_GAP}{shown['regressions']['text']}")
        lines += first(
            [f"worse{_GAP}{line.replace('−', '-')}" for line in worse_lines(shown)], most
        )
    lines += [f"compared{_GAP}{line}".replace("−", "-") for line in compared_lines(shown, 1)]
    missed = [c for c in cells if c["verdict"]["outcome"] not in ("pass", "information")]
    if missed:
        lines += ["", *(_why(cell, colour) for cell in missed[:most])]
        lines += _rest(missed, most)
    warned = [f"warning  {cell['id']}: {reason}" for cell in cells for reason in _warnings(cell)]
    return lines + first(warned, most)


def _self_checks(record: Mapping[str, Any], most: int | None) -> list[str]:
    """Say whether metrics tell known maps apart, and which do not."""
    if not record["self_checks"]:
        return []
    unfit = [f"unfit{_GAP}{line}".replace("−", "-") for line in self_checks.unfit_lines(record)]
    return [f"self-check{_GAP}{self_checks.tally(record['self_checks'])}", *first(unfit, most)]


def first(lines: Sequence[str], most: int | None = SHOWN) -> list[str]:
    """Return the first lines, and how many more there are.

    >>> first(["a", "b", "c"], 1)
    ['a', 'and 2 more; -v shows all']
    """
    left = 0 if most is None else max(0, len(lines) - most)
    return [*lines[:most], *([f"and {left:,} more; {_ALL}"] if left else [])]


def _rest(cells: Sequence[Mapping[str, Any]], most: int | None) -> list[str]:
    left = "" if most is None else rest(cells, most)
    return [f"{left}; {_ALL}"] if left else []


def _about(cells: list[Mapping[str, Any]]) -> str:
    """Name the check, explainer, model or pairs that all cells share; those need no column."""
    shared = [f"{key} {cells[0][key]}" for key in _NAMES if len({c[key] for c in cells}) == 1]
    names = {row_names(cell["kind"])[1] for cell in cells}
    what = names.pop() if len(names) == 1 else "rows"
    return " · ".join([*shared, f"{max(cell['n_pairs'] for cell in cells)} {what} a cell"])


def _table(cells: list[Mapping[str, Any]], width: int, colour: bool, most: int | None) -> list[str]:
    names = [key for key in _NAMES if len({cell[key] for cell in cells}) > 1]
    left = _rest(cells, most)
    cells = cells[:most]
    rows = [
        [
            cell["verdict"]["outcome"].upper(),
            *(cell[key] for key in names),
            view.deciding_text(cell).replace("−", "-"),
        ]
        for cell in cells
    ]
    head = ["verdict", *names, "decided by"]
    widths = _widths([head, *rows], width)
    lines = [_line(head, widths)]
    for cell, row in zip(cells, rows, strict=True):
        line = _line(row, widths)
        word = row[0]
        lines.append(_word(cell["verdict"]["outcome"], colour) + line[len(word) :])
    return lines + left


def _widths(rows: list[list[str]], width: int) -> list[int]:
    """Fit the columns: names shrink, the widest first; the last column takes what is left."""
    columns = len(rows[0])
    widths = [max(len(row[i]) for row in rows) for i in range(columns)]
    room = width - len(_GAP) * (columns - 1)
    last = min(widths[-1], _DECIDED)
    names = range(1, columns - 1)
    while names and sum(widths[:-1]) + last > room:
        widest = max(names, key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return [*widths[:-1], max(last, room - sum(widths[:-1]))]


def aligned(
    rows: Sequence[Sequence[str]], width: int, names: Sequence[int], least: int
) -> list[str]:
    """Return a table in columns; where they do not fit, names are cut, the widest first.

    Args:
        rows: Rows of equal length, the heads first.
        width: Of the terminal.
        names: The columns that may be cut.
        least: Characters that are left of a name.
    """
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    room = width - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room:
        widest = max(names, key=widths.__getitem__)
        if widths[widest] <= least:
            break
        widths[widest] -= 1
    return [_line([*row], widths) for row in rows]


def _line(row: list[str], widths: list[int]) -> str:
    return _GAP.join(
        clipped(text, size).ljust(size) for text, size in zip(row, widths, strict=True)
    ).rstrip()


def _found(cell: Mapping[str, Any]) -> list[str]:
    """Return which configuration was selected, where the explainer does worst, at which look."""
    selected = chosen(cell)
    return [
        *([f"selected{_GAP}{cell['id']}: {selected}"] if selected else []),
        *(f"slices{_GAP}{cell['id']}: {line}" for line in worst_slices(cell)),
        *([f"looks{_GAP}{cell['id']}: {looked_at(cell)}"] if looked_at(cell) else []),
    ]


def _why(cell: Mapping[str, Any], colour: bool) -> str:
    verdict = cell["verdict"]
    critical = [limit for limit in cell["limits"] if limit_rows.decides(limit)]
    needed = dict.fromkeys(settles(limit) for limit in limit_rows.shown(critical))
    told = "; ".join([limit_rows.ruling(cell), *filter(None, needed)])
    return f"{_word(verdict['outcome'], colour)}{_GAP}{cell['id']}: {told}"


def _warnings(cell: Mapping[str, Any]) -> list[str]:
    """Return why limits that only warn were not passed, and what else weakens a verdict."""
    leans = leaning(cell)
    return [
        *filter(None, [attempts(cell["earlier"])]),
        *([cell["same_map"]] if cell["same_map"] else []),
        *([leans] if leans else []),
        *(
            f"{limit_rows.acknowledged(limit)}: {limit['verdict']['reason']}"
            for limit in cell["limits"]
            if limit_rows.acknowledged(limit)
        ),
        *(
            limit["verdict"]["reason"]
            for limit in cell["limits"]
            if limit["severity"] == "warning"
            and not limit_rows.acknowledged(limit)
            and limit["verdict"]["outcome"] != "pass"
        ),
    ]


def _word(outcome: str, colour: bool) -> str:
    word = outcome.upper()
    return f"\x1b[1;{_COLOURS[outcome]}m{word}\x1b[0m" if colour else word

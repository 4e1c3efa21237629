"""Tidy CSV tables of an index: one line a run, an estimate, or a limit.

Text that a spreadsheet would take for a formula gets an apostrophe in front.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, and_, select

from fxeval.records.series import Wanted
from fxeval.records.writing import write
from fxeval.store.entries import plain_text
from fxeval.store.index import Store
from fxeval.store.queries import of_cells, of_metric
from fxeval.store.tables import CELL, ESTIMATE, LIMIT, RUN

_RUN = ("run", "record", "suite", "started", "commit", "fxeval", "hardware_class")
_CELL = ("cell", "check", "kind", "model", "explainer", "pairs")

COLUMNS: Mapping[str, Sequence[str]] = {
    "runs": (
        *_RUN, "title", "suite_digest", "finished", "seconds", "complete", "dirty", "outcome",
        "reason",
    ),
    "estimates": (
        *_RUN, *_CELL, "cell_outcome", "metric", "title", "unit", "better", "map", "under",
        "value", "low", "high", "confidence", "n_pairs", "n_identities", "method", "seed_sd",
    ),
    "limits": (
        *_RUN, *_CELL, "cell_outcome", "metric", "text", "form", "against", "severity", "over",
        "under", "line", "outcome", "reason", "value", "low", "high", "p_value",
    ),
}  # fmt: skip
"""The columns of each table, in their order."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_csv(store: Store, folder: Path, wanted: Wanted) -> list[Path]:
    """Write ``runs.csv``, ``estimates.csv`` and ``limits.csv`` in UTF-8; return their paths.

    Args:
        store: The index.
        folder: Where they go; made if it is absent.
        wanted: Which runs and cells; ``last`` counts runs.

    Raises:
        StoreError: If the index can't be read, or a file can't be written.
    """
    last = None if wanted.last is None else [one.id for one in store.runs(wanted)]
    written = []
    with store.reading() as connection:
        texts = {name: _text(connection, name, wanted, last) for name in COLUMNS}
    for name, text in texts.items():
        write(folder / f"{name}.csv", text)
        written.append(folder / f"{name}.csv")
    return written


def _text(connection: Connection, name: str, wanted: Wanted, ids: list[str] | None) -> str:
    statement = _statement(name, wanted)
    if ids is not None:
        statement = statement.where(RUN.c.id.in_(ids))
    out = io.StringIO()
    lines = csv.writer(out)  # lines end as RFC 4180 says: then a line break in a text is quoted
    lines.writerow(COLUMNS[name])
    for row in connection.execute(statement).mappings():
        lines.writerow([safe(row[column]) for column in COLUMNS[name]])
    return out.getvalue()


def _statement(name: str, wanted: Wanted) -> Select[Any]:
    """Return the statement that finds the lines of a table."""
    order = [RUN.c.started, RUN.c.id, RUN.c.record]
    if name == "runs":
        chosen = select(CELL.c.run).where(*of_cells(wanted))
        if wanted.metric is not None:
            own = and_(ESTIMATE.c.run == CELL.c.run, ESTIMATE.c.cell == CELL.c.number)
            chosen = chosen.join(ESTIMATE, own).where(of_metric(wanted.metric))
        found = select(*_columns(name)).order_by(*order)
        return found.where(RUN.c.key.in_(chosen)) if wanted.named() else found
    table = ESTIMATE if name == "estimates" else LIMIT
    statement = (
        select(*_columns(name))
        .select_from(table)
        .join(CELL, and_(table.c.run == CELL.c.run, table.c.cell == CELL.c.number))
        .join(RUN, RUN.c.key == CELL.c.run)
        .where(*of_cells(wanted))
        .order_by(*order, CELL.c.number, table.c.number)
    )
    if wanted.metric is not None:
        statement = statement.where(table.c.metric == plain_text(wanted.metric))
    return statement


def _columns(name: str) -> list[Any]:
    table = {"runs": RUN, "estimates": ESTIMATE, "limits": LIMIT}[name]
    renamed = {
        "run": RUN.c.id, "cell": CELL.c.id, "cell_outcome": CELL.c.outcome,
        **{column: RUN.c[column] for column in _RUN[1:]},
        **{column: CELL.c[column] for column in _CELL[1:]},
    }  # fmt: skip
    return [
        renamed[column].label(column) if column in renamed else table.c[column].label(column)
        for column in COLUMNS[name]
    ]


def safe(value: Any) -> Any:  # noqa: ANN401  (a column's value)
    """Return a value as it is written: no text begins a formula, and true is 1.

    >>> safe("=HYPERLINK(1)"), safe(-0.5), safe(None), safe(True)
    ("'=HYPERLINK(1)", -0.5, '', 1)
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value

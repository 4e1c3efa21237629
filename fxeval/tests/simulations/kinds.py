"""Which kind of value is each metric? Reads it off the rows of a reference run.

    python -m fxeval.tests.simulations.kinds RUN

prints a line for each cell, map, metric and condition: the number of identities, the skewness of
their values, and the largest share of them within 1 % of the range from one edge.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from fxeval.records.reading import load_record, read_rows
from fxeval.records.schema import CellPlan, Row
from fxeval.statistics.skew_t import Moments
from fxeval.statistics.table import Table
from fxeval.statistics.units import units_of

Found: TypeAlias = tuple[str, str, str, str, int, float, float]
"""Cell, map, metric, condition, number of identities, skewness, share at an edge."""


def kinds_of(run: Path) -> Iterator[Found]:
    """Yield what the rows of each cell of a run say."""
    rows = [row for path in sorted(run.glob("rows*.jsonl")) for row in read_rows(path)]
    for path in sorted(run.glob("*.json")):
        for cell in load_record(path).cells:
            own = [row for row in rows if (row.cell, row.attempt) == (cell.id, cell.attempt)]
            yield from kinds_of_cell(cell, own)


def kinds_of_cell(plan: CellPlan, rows: Sequence[Row]) -> Iterator[Found]:
    """Yield what the rows of one cell say."""
    table = Table(plan, rows)
    for map_, under, metric in table.series:
        sample = table.sample(table.values(metric.name, map_, under))
        if not len(sample.values):
            continue
        low, high = metric.range
        means = units_of(sample.values, sample.identities, metric.range).means()
        near = (high - low) / 100
        edge = max((means < low + near).mean(), (means > high - near).mean())
        about = ", ".join(f"{axis} {value}" for axis, value in under)
        skewness = float(Moments(means).skewness)
        yield plan.id, map_, metric.name, about, len(means), skewness, float(edge)


if __name__ == "__main__":
    for *names, n, skewness, edge in kinds_of(Path(sys.argv[1])):
        sys.stdout.write(f"{'  '.join(names)}  {n}  {skewness:.2f}  {edge:.2f}\n")

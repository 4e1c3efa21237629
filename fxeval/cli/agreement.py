"""``fxeval agreement``: which metrics put explainers in the order of known truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fxeval.cli.usage import CANNOT_SAY, GOOD, WRONG_USAGE, say_error
from fxeval.errors import EvidenceError, FxevalError, StoreError

if TYPE_CHECKING:
    from fxeval.records.schema import Record, Row


@click.command()
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)  # fmt: skip
@click.option(
    "--truth", metavar="METRIC", default="top_precision", show_default=True,
    help="The metric of known truth that the others are compared with.",
)  # fmt: skip
@click.option(
    "--metric", "metrics", metavar="METRIC", multiple=True,
    help="Compare this metric alone; may be given several times. Default: all.",
)  # fmt: skip
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write the table in Markdown, too, with a line for each model.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show each model, not only the mean of all.")
def agreement(
    runs: tuple[Path, ...], truth: str, metrics: tuple[str, ...], markdown: Path | None,
    verbose: bool,
) -> None:  # fmt: skip
    """Compare the rankings of explainers by metrics with that by known truth.

    Each RUN is a folder that a run wrote. Together they hold values of the same explainers on the
    same models: by a metric of a kind truth.*, and by other metrics. The figure is Kendall's tau-b,
    with an interval over people; 5 explainers are the fewest.

    This needs neither the models nor the data nor torch.

    Exit status: 0 if a metric was compared; 2 if none can be; 64 if a metric is named that is not
    there.
    """
    from fxeval.records.writing import write
    from fxeval.scorecard.agreement import markdown as in_markdown
    from fxeval.scorecard.agreement import text_lines
    from fxeval.statistics.agreement import agreements_of

    try:
        table = agreements_of([one for run in runs for one in _read(run)], truth, metrics)
        for line in text_lines(table, is_verbose=verbose):
            click.echo(line)
        if markdown is not None:
            write(markdown, in_markdown(table))
            click.echo(f"wrote {markdown}")
    except (EvidenceError, StoreError) as error:
        say_error(error)
        raise SystemExit(CANNOT_SAY) from error
    except FxevalError as error:
        say_error(error)
        raise SystemExit(WRONG_USAGE) from error
    raise SystemExit(GOOD if table.is_told else CANNOT_SAY)


def _read(path: Path) -> "list[tuple[str, Record, Sequence[Row]]]":
    """Return each record of a run with all of its rows.

    Raises:
        StoreError: If there is no record, or a file is damaged.
    """
    from fxeval.records.stored_run import read_run

    try:
        run = read_run(path, needs_rows=False)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    return [(f"{path.name}/{stem}", record, run.rows) for stem, record in run.records.items()]

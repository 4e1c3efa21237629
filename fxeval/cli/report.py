"""``fxeval report``: makes the scorecard again from the rows of a run."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fxeval.cli.usage import CANNOT_SAY, GOOD, WORSE, say_error, shown
from fxeval.errors import FxevalError

if TYPE_CHECKING:
    from fxeval.records.schema import Record


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to; default: RUN.")
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write a summary in Markdown, too.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show all cells, not only the worst 30.")
def report(run: Path, out: Path | None, markdown: Path | None, verbose: bool) -> None:
    """Judge the rows of RUN, a folder that a run wrote, and write its records and scorecards again.

    It shows what the run showed: the verdict, the cells, worst first, and what was not passed.

    This needs neither the model nor the data nor torch: everything after the rows is a pure
    function of the rows and the suite.

    Exit status: 0 if the verdicts equal the recorded ones; 1 if one differs; 2 if that cannot be
    decided.
    """
    from fxeval.records.stored_run import read_run
    from fxeval.records.writing import dump, dumped, write
    from fxeval.scorecard import SHOWN, render, summary_of_all, terminal_summary
    from fxeval.statistics.results import rederived

    target, status, pages = out or run, GOOD, []
    width, most = shutil.get_terminal_size().columns, None if verbose else SHOWN
    try:
        stored = read_run(run, needs_rows=False)
        for stem, recorded in stored.records.items():
            found = rederived(recorded, stored.rows)
            for line in differences(recorded, found):
                click.echo(shown(f"{stem}.json: {line}"))
                status = WORSE
            write(target / f"{stem}.json", dump(found))
            write(target / f"{stem}.html", render(dumped(found)))
            pages.append((dumped(found), f"{stem}.html"))
            for line in terminal_summary(dumped(found), width, most=most):
                click.echo(line)
            click.echo(f"wrote {target / stem}.html")
        if markdown is not None:
            write(markdown, summary_of_all(pages))
            click.echo(f"wrote {markdown}")
    except FxevalError as error:
        say_error(f"{run}: {error}")
        status = CANNOT_SAY
    raise SystemExit(status)


def differences(recorded: "Record", found: "Record") -> list[str]:
    """Return a line for each verdict that differs from the recorded one."""
    lines = []
    for before, after in zip(recorded.cells, found.cells, strict=True):
        if before.verdict != after.verdict:
            lines.append(
                f"{before.id}: recorded {before.verdict.outcome.value} ({before.verdict.reason}), "
                f"the rows say {after.verdict.outcome.value} ({after.verdict.reason})"
            )
        for was, now in zip(before.limits, after.limits, strict=False):
            if was.verdict != now.verdict:
                lines.append(
                    f"{before.id}: {was.text}: recorded {was.verdict.reason}; the rows say "
                    f"{now.verdict.reason}"
                )
    if recorded.verdict != found.verdict:
        lines.append(
            f"recorded {recorded.verdict.outcome.value}, the rows say {found.verdict.outcome.value}"
        )
    return lines

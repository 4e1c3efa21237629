"""``fxeval trend``: how values moved over many runs."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fxeval.cli.runs import STORE_VARIABLE, run_path
from fxeval.cli.usage import CANNOT_SAY, GOOD, Command, WrongUsage, say_error
from fxeval.errors import FxevalError, StoreError

if TYPE_CHECKING:
    from fxeval.records.schema import Record
    from fxeval.records.series import Series, Wanted

_FILTERS = ("suite", "check", "metric", "model", "explainer", "hardware_class", "last")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Command)
@click.argument("runs", metavar="RUN...", nargs=-1)
@click.option(
    "--store", metavar="URL",
    help="Ask this index instead of reading records. Default without a RUN: "
    f"${STORE_VARIABLE}.",
)  # fmt: skip
@click.option("--suite", metavar="NAME", help="Only this suite.")
@click.option("--check", metavar="ID", help="Only this check.")
@click.option("--metric", metavar="NAME", help="Only this metric.")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--explainer", metavar="NAME", help="Only this explainer.")
@click.option("--hardware-class", metavar="NAME", help="Only runs on this class of machine.")
@click.option(
    "--last", type=click.IntRange(min=1), metavar="N", help="Only the latest N runs of a series."
)
@click.option("--changes", is_flag=True, help="Mark change points by PELT, too (extra 'trend').")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write a table in Markdown, too.")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page with charts, too.")
@click.option("-v", "--verbose", is_flag=True, help="Show all series, not only the first 30.")
def trend(runs: tuple[str, ...], store: str | None, **options: Any) -> None:  # noqa: ANN401
    """Show how the values of metrics moved over many runs: steps, drift, or nothing.

    RUN is the folder of a run, a record in it, or a folder that holds runs, such as reports. Series
    with a step for the worse come first.

    This is advice and gates nothing. Values are compared within one class of hardware alone. It
    needs neither the models nor the data nor torch.

    Exit status: 0 if a series is shown; 2 if there is none, or a record can't be read; 64 if the
    command was used wrongly.
    """
    from fxeval.records.series import Wanted
    from fxeval.statistics.trend import trends_of

    url = store or (None if runs else os.environ.get(STORE_VARIABLE))
    if bool(runs) == bool(url):
        raise WrongUsage("expected RUN... or --store URL, got " + ("both." if runs else "neither."))
    try:
        wanted = Wanted(**{name: options[name] for name in _FILTERS})
        series, remarks = _from_store(url, wanted) if url else _from_records(runs, wanted)
        trends = trends_of(series, changes=options["changes"])
        if not trends:
            _say_left_out(remarks)
            raise StoreError(_nothing(wanted))
        _show(trends, remarks, options)
    except FxevalError as error:
        say_error(error)
        raise SystemExit(CANNOT_SAY) from None
    raise SystemExit(GOOD)


def _show(trends: Sequence[Any], remarks: Sequence[str], options: Mapping[str, Any]) -> None:
    """Print trends and write the files that are asked for."""
    from fxeval.records.writing import write
    from fxeval.scorecard import SHOWN
    from fxeval.scorecard import trend as views

    lines = views.text_lines(
        trends,
        shutil.get_terminal_size().columns,
        remarks=remarks,
        most=None if options["verbose"] else SHOWN,
        is_plain=not _knows_blocks(),
    )
    for name, view in (("markdown", views.markdown), ("html", views.page)):
        if options[name] is not None:  # first, as the reader of a pipe may go away
            write(options[name], view(trends, remarks=remarks))
            lines.append(f"wrote {options[name]}")
    for line in lines:
        click.echo(line)


def _from_store(url: str, wanted: "Wanted") -> "tuple[list[Series], list[str]]":
    from fxeval.store.index import Store

    return Store(url).series(wanted), []


def _from_records(texts: Sequence[str], wanted: "Wanted") -> "tuple[list[Series], list[str]]":
    """Return the series of all runs that were named, and a line for each run left out.

    Raises:
        StoreError: If nothing is where a run was named, or a record that was named is damaged.
    """
    from fxeval.statistics.trend import series_of

    remarks: list[str] = []

    def records() -> "Iterator[Record]":
        for text in texts:
            yield from _records(run_path(text), remarks)

    return series_of(records(), wanted), remarks


def _records(path: Path, remarks: list[str]) -> "Iterator[Record]":
    """Read one record after another, of a run or of all runs in a folder; rows are not read."""
    from fxeval.records.reading import load_record
    from fxeval.records.run_folders import runs_below
    from fxeval.records.stored_run import record_files

    folders = [] if path.is_file() else runs_below([path])
    if folders in ([], [path.absolute()]):  # it is a record or a run itself
        files = [path] if path.is_file() else record_files(path)
        if not files:
            raise StoreError(f"{path}: expected a run or a folder that holds runs, got none in it.")
        for file in files:
            try:
                yield load_record(file)
            except StoreError as error:
                raise StoreError(f"{file.parent}: {error}") from None
        return
    for folder in folders:
        files = record_files(folder)
        if not files:
            remarks.append(
                f"left out: {folder.name}: no record; the run was cut short, or is running"
            )
        for file in files:
            try:
                yield load_record(file)
            except StoreError as error:
                remarks.append(f"left out: {folder.name}: {error}")


def _nothing(wanted: "Wanted") -> str:
    """Say that there is no series, and what was asked for."""
    asked = ", ".join(f"{name} {value}" for name, value in wanted.named().items())
    return f"no run has an estimate{f' of {asked}' if asked else ''}. Nothing can be shown."


def _say_left_out(remarks: Sequence[str]) -> None:
    for remark in remarks:
        click.echo(remark, err=True)


def _knows_blocks() -> bool:
    """Say whether the terminal can write what sparklines are made of."""
    try:
        "▁█".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True

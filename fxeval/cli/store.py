"""``fxeval store``: an index over many runs, and its exports."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fxeval.cli.runs import STORE_VARIABLE
from fxeval.cli.usage import CANNOT_SAY, GOOD, WORSE, Command, Group, WrongUsage, say_error
from fxeval.errors import FxevalError, StoreError

if TYPE_CHECKING:
    from fxeval.records.series import Wanted
    from fxeval.store.index import Store

_Function = Callable[..., None]


@click.group("store", cls=Group)
def store() -> None:
    """Keep an index over many runs, in SQLite or PostgreSQL.

    It is made of the records of runs and can be made again at any time. This needs the extra
    'store', and neither models nor data nor torch.

    Exit status of all: 0 done; 1 if the records and the index differ or one is left out; 2 if it
    can't be done; 64 for a wrong usage.
    """


def _of_index(function: _Function) -> _Function:
    return click.option(
        "--store", "url", metavar="URL",
        help=f"The index: sqlite:///FILE or postgresql+pg8000://USER@HOST/DATABASE. Default: "
        f"${STORE_VARIABLE}, else sqlite:///reports/store.sqlite.",
    )(function)  # fmt: skip


def _filtered(function: _Function) -> _Function:
    """Add the options that name what is wanted."""
    for name, what in reversed(
        [
            ("suite", "Only this suite."), ("check", "Only this check."),
            ("metric", "Only this metric."), ("model", "Only this model."),
            ("explainer", "Only this explainer."),
            ("hardware-class", "Only runs on this class of machine."),
        ]
    ):  # fmt: skip
        function = click.option(f"--{name}", metavar="NAME", help=what)(function)
    last = click.option(
        "--last", type=click.IntRange(min=1), metavar="N", help="Only the latest N runs."
    )
    return last(function)


@store.command(cls=Command)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_of_index
def add(runs: tuple[Path, ...], url: str | None) -> None:
    """Add each RUN, a folder that a run wrote.

    A run that is there already is left as it is; if its files have changed, it is replaced.
    """
    status = GOOD
    with _told():
        index = _index(url)
        for run in runs:
            try:
                id, done = index.take(run)
            except StoreError as error:
                say_error(error)
                status = CANNOT_SAY
            else:
                click.echo(f"{done} {_shown(id)}")
    raise SystemExit(status)


@store.command(cls=Command, short_help="Make the index again from all runs in folders.")
@click.argument(
    "folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@_of_index
def rebuild(folders: tuple[Path, ...], url: str | None) -> None:
    """Make the index again from all runs in and below each FOLDER; other runs leave it."""
    with _told():
        found = _index(url).rebuild(folders)
        for line in found.left_out:
            click.echo(f"left out: {_shown(line)}", err=True)
        click.echo(f"{len(found.added)} runs, {len(found.left_out)} left out")
        raise SystemExit(WORSE if found.left_out else GOOD)


@store.command("list", cls=Command)
@_filtered
@_of_index
def list_(url: str | None, **filters: Any) -> None:  # noqa: ANN401  (options of _filtered)
    """Show the runs, the oldest first."""
    with _told():
        runs = _index(url).runs(_wanted(filters))
        table = [("run", "started", "suite", "verdict", "cells", "commit", "machine")] + [
            (
                one.id, one.started, one.suite, one.outcome.value, str(one.n_cells),
                (one.commit or "-")[:10], one.hardware_class,
            )
            for one in runs
        ]  # fmt: skip
        widths = [max(len(_shown(row[place])) for row in table) for place in range(7)]
        for row in table:
            cells = (_shown(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())


@store.command(cls=Command)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@_of_index
def remove(runs: tuple[str, ...], url: str | None) -> None:
    """Remove each RUN, an id, from the index; its files stay."""
    with _told():
        index = _index(url)
        for run in runs:
            index.remove(run)
            click.echo(f"removed {_shown(run)}")


@store.command(cls=Command, short_help="Compare the index with the files of its runs.")
@_of_index
def check(url: str | None) -> None:
    """Compare the index with the files of its runs, and name what is missing or has changed."""
    with _told():
        index = _index(url)
        found = index.check()
        for one in found:
            click.echo(f"{_shown(one.run)}: {_shown(one.text)}")
        n_runs = len({one.id for one in index.runs()})
        n_bad = len({one.run for one in found})
        click.echo(f"{n_runs - n_bad} of {n_runs} runs are as the index has them")
        raise SystemExit(WORSE if found else GOOD)


@store.command(cls=Command)
@click.option("--csv", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write runs.csv, estimates.csv and limits.csv.")  # fmt: skip
@click.option("--mlflow", metavar="URI", help="Write to this tracking store; extra 'mlflow'.")
@_filtered
@_of_index
def export(csv: Path | None, mlflow: str | None, url: str | None, **filters: Any) -> None:  # noqa: ANN401
    """Write the runs as tables in CSV, or to MLflow."""
    if csv is None and mlflow is None:
        raise WrongUsage("expected --csv DIR or --mlflow URI, got neither.")
    with _told():
        index, wanted = _index(url), _wanted(filters)
        if csv is not None:
            from fxeval.store.csv_export import export_csv

            for path in export_csv(index, csv, wanted):
                click.echo(f"wrote {path}")
        if mlflow is not None:
            from fxeval.store.mlflow_export import export_mlflow

            n_written, n_there = export_mlflow(index, mlflow, wanted)
            click.echo(f"{n_written} records to MLflow, {n_there} were there")


def _index(url: str | None) -> "Store":
    """Return the index that is named, by option, by the environment, or by default."""
    from fxeval.store.database import DEFAULT
    from fxeval.store.index import Store

    return Store(url or os.environ.get(STORE_VARIABLE) or DEFAULT)


def _wanted(filters: dict[str, Any]) -> "Wanted":
    from fxeval.records.series import Wanted

    return Wanted(**filters)


def _shown(text: str) -> str:
    from fxeval.scorecard.wording import visible

    shown: str = visible(text)
    return shown


@contextmanager
def _told() -> Iterator[None]:
    """Say an error of ours in one line, and end with the status for it."""
    try:
        yield
    except FxevalError as error:
        say_error(error)
        raise SystemExit(CANNOT_SAY) from error

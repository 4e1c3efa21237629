"""``fxeval baseline``: moves and shows the named runs that later runs are compared with."""

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fxeval.cli.runs import run_path
from fxeval.cli.usage import CANNOT_SAY, GOOD, Command, Group, WrongUsage, say_error
from fxeval.errors import FxevalError, StoreError

if TYPE_CHECKING:
    from fxeval.records.baselines import Pointer
    from fxeval.records.schema import Record
    from fxeval.records.stored_run import StoredRun

_FOLDER = click.option(
    "--baselines", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    default=Path("baselines"), show_default=True, help="Folder of the baselines.",
)  # fmt: skip


@click.group(cls=Group)
def baseline() -> None:
    """Name the runs that later runs are compared with.

    A baseline is a file in the folder of the baselines, which is committed to git. It names one run
    for each hardware class, and moves by command only.
    """


@baseline.command("set", cls=Command)
@click.argument("name")
@click.argument("run")
@click.option("--reason", default="", metavar="TEXT", help="Why the baseline is moved.")
@click.option("--in-place", is_flag=True, help="Leave the files where they are, uncopied.")
@click.option("--allow-dirty", is_flag=True, help="Accept code with changes in no commit.")
@_FOLDER
def set_(name: str, run: str, reason: str, in_place: bool, allow_dirty: bool, folder: Path) -> None:
    """Move baseline NAME, for the hardware class of RUN, to this run.

    RUN is the folder of a run, or another baseline. Its records and rows are copied beside the
    baseline, so that whoever has the repository can compare with them.

    A run is refused that is not complete, has invalid cells or cells that were run again, or whose
    code had changes that are in no commit.

    Exit status: 0 if it was moved; 2 if not; 64 if the command was used wrongly.
    """
    from fxeval.records.baseline_moves import Asked, move
    from fxeval.scorecard.baselines import move_lines

    asked = Asked(_today(), reason, in_place=in_place, allow_dirty=allow_dirty)
    try:
        stored = _read(run, folder)
        moved = move(folder, name, stored, asked)
    except FxevalError as error:
        raise _cannot(error) from None
    after = {record.suite.name: record for record in stored.records.values()}
    for line in move_lines(moved, _records_of(folder, moved.before), after):
        click.echo(line)
    click.echo(f"wrote {moved.path}")
    raise SystemExit(GOOD)


@baseline.command(cls=Command, short_help="Show baseline NAME, or all.")
@click.argument("name", required=False)
@click.option("--against", metavar="RUN", help="Show what this run has in reserve.")
@_FOLDER
def show(name: str | None, against: str | None, folder: Path) -> None:
    """Show baseline NAME, or all: run, age and suites of each hardware class.

    With --against, the headroom of a run: by how much each metric that limits compare lies above
    what they would still accept, and whether the baseline should move there. Acknowledged
    regressions are listed with their state: active, expired, or unused if RUN does not show them.

    Exit status: 0 if all could be shown; 2 if not; 64 if the command was used wrongly.
    """
    from fxeval.records.acknowledged import read_acknowledged, states
    from fxeval.records.baselines import names_in, read_baseline
    from fxeval.records.named_baseline import NamedBaseline
    from fxeval.scorecard.baselines import acknowledged_lines, baseline_lines, headroom_lines
    from fxeval.statistics.headroom import failing, headroom_against

    if against is not None and name is None:
        raise WrongUsage("--against goes with the NAME of one baseline.")
    today, failed = _today(), None
    try:
        known = read_acknowledged(folder, today).known
        names = [name] if name is not None else names_in(folder)
        if not names:
            click.echo(f"no baseline in {folder}; set one with: fxeval baseline set main RUN")
        for one in names:
            found = read_baseline(folder, one)
            for line in baseline_lines(found, today):
                click.echo(line)
            if against is not None:
                earlier = NamedBaseline("baseline", folder, found, today)
                reserve = headroom_against(_read(against, folder), earlier)
                for line in headroom_lines(reserve, one, against):
                    click.echo(line)
                failed = failing(known, reserve)
        for line in acknowledged_lines(states(known, today, failed)):
            click.echo(line)
    except FxevalError as error:
        raise _cannot(error) from None
    raise SystemExit(GOOD)


@baseline.command(cls=Command, short_help="Acknowledge a regression until a day.")
@click.argument("cell")
@click.argument("metric")
@click.option("--suite", required=True, metavar="NAME", help="Suite of the cell.")
@click.option("--reason", required=True, metavar="TEXT", help="Why this is accepted.")
@click.option("--until", required=True, metavar="YYYY-MM-DD", help="Last day, within a year.")
@click.option("--by", default="", metavar="TEXT", help="Who accepts it.")
@click.option(
    "--under", multiple=True, metavar="KEY=VALUE", help="Only under this condition; repeatable."
)
@_FOLDER
def ack(
    cell: str, metric: str, suite: str, reason: str, until: str, by: str, under: tuple[str, ...],
    folder: Path,
) -> None:  # fmt: skip
    """Acknowledge that METRIC of CELL got worse since the baseline, until a day.

    The entry is added to acknowledged.yaml in the folder of the baselines. A limit that compares
    METRIC with the baseline and fails then counts as a warning. Once it passes again, the cell is
    invalid until the entry is removed.

    Exit status: 0 if it was added; 2 if not; 64 if the command was used wrongly.
    """
    from pydantic import ValidationError

    from fxeval.records.acknowledged import Entry, acknowledge
    from fxeval.records.reading import faults_of

    try:
        entry = Entry(
            suite=suite, cell=cell, metric=metric, reason=reason, until=until, by=by,
            under=dict(map(_condition, under)),
        )  # fmt: skip
        path = acknowledge(folder, entry, _today())
    except ValidationError as error:
        raise WrongUsage(faults_of(error)) from None
    except FxevalError as error:
        raise _cannot(error) from None
    click.echo(f"acknowledged until {until}; wrote {path}")
    raise SystemExit(GOOD)


def _condition(text: str) -> tuple[str, str | float]:
    """Return an axis and its value, a number where it is one."""
    axis, equals, value = text.partition("=")
    if not (axis and equals and value):
        raise WrongUsage(f"--under {text}: expected KEY=VALUE, such as fill=blur.")
    try:
        number = float(value)
    except ValueError:
        return axis, value
    return axis, number if math.isfinite(number) else value


@baseline.command(cls=Command)
@_FOLDER
def prune(folder: Path) -> None:
    """Remove the copied runs that no baseline names any more.

    Exit status: 0 if none is left; 2 if one could not be removed; 64 if the command was used
    wrongly.
    """
    from fxeval.records.baseline_moves import prune as pruned

    try:
        removed = pruned(folder)
    except FxevalError as error:
        raise _cannot(error) from None
    for path in removed:
        click.echo(f"removed {path}")
    click.echo(f"{len(removed)} copied runs removed")
    raise SystemExit(GOOD)


def _today() -> date:
    return datetime.now(UTC).date()


def _read(text: str, folder: Path) -> "StoredRun":
    """Return the run that a user named, with all its records."""
    from fxeval.records.stored_run import read_run

    path = run_path(text, baselines=folder)
    try:
        return read_run(path.parent if path.is_file() else path)
    except StoreError as error:
        raise StoreError(f"{text}: {error}") from None


def _records_of(folder: Path, pointer: "Pointer | None") -> "dict[str, Record]":
    """Return the records of the run before, by suite; {} if they are not sound any more."""
    from fxeval.records.baselines import checked_folder
    from fxeval.records.stored_run import read_run

    if pointer is None:
        return {}
    try:
        records = read_run(checked_folder(folder, pointer)).records
    except FxevalError:  # the caller says that they are not there
        return {}
    return {record.suite.name: record for record in records.values()}


def _cannot(error: FxevalError) -> SystemExit:
    say_error(error)
    return SystemExit(CANNOT_SAY)

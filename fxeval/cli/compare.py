"""``fxeval compare``: did the later of two runs get worse?"""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fxeval.cli.runs import run_path
from fxeval.cli.usage import CANNOT_SAY, Command, WrongUsage, say_error
from fxeval.errors import FxevalError, StoreError

if TYPE_CHECKING:
    from fxeval.records.changes import Comparison
    from fxeval.records.stored_run import StoredRun
    from fxeval.statistics.changes import Margins

_EXPECTED = "expected a number such as 0.02, a share such as 5%, or METRIC=0.02"
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Command)
@click.argument("before")
@click.argument("after")
@click.option(
    "--within", "margins", multiple=True, metavar="[METRIC=]0.02|5%",
    help="How much worse a metric may be: in its unit, or a share of its earlier value. May be "
    "given several times. Default: 0.",
)  # fmt: skip
@click.option(
    "--over", type=click.Choice(["suite", "list", "population"]), default="suite",
    show_default=True, help="What the changes are about: as the limits of the suite say, the faces "
    "of this list, or all people like them.",
)  # fmt: skip
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write a comment in Markdown, too.")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page, too.")
@click.option("--json", "as_json", type=_FILE, metavar="FILE", help="Write all changes, too.")
@click.option("-v", "--verbose", is_flag=True, help="Show all changes, and those that inform only.")
def compare(
    before: str, after: str, margins: tuple[str, ...],
    over: Literal["suite", "list", "population"], markdown: Path | None, html: Path | None,
    as_json: Path | None, verbose: bool,
) -> None:  # fmt: skip
    """Say whether run AFTER is worse than run BEFORE, by the rows that both have.

    Each is the folder of a run, or one record in it. Limits of the suite that compare with an
    earlier run keep their margins; every other metric that a critical limit judges must not be
    worse than --within. This needs neither the models nor the data nor torch.

    Exit status: 0 if nothing is worse; 1 if something is; 2 if that cannot be said; 64 if the
    command was used wrongly.
    """
    from fxeval.records.writing import write
    from fxeval.scorecard import changes as views
    from fxeval.statistics.changes import compared

    wanted = margins_of(margins, over)
    try:
        runs = _read(before, after)
        found = compared(*runs, wanted)
        for line in views.text_lines(found, shutil.get_terminal_size().columns, is_verbose=verbose):
            click.echo(line)
        wanted_files = (
            (markdown, views.markdown), (html, views.page), (as_json, json_of),
        )  # fmt: skip
        for path, view in wanted_files:
            if path is not None:
                write(path, view(found))
                click.echo(f"wrote {path}")
    except StoreError as error:
        say_error(error)
        raise SystemExit(CANNOT_SAY) from None
    except FxevalError as error:
        raise WrongUsage(f"--{error}") from None
    raise SystemExit(views.exit_status(found))


def margins_of(given: Sequence[str], over: Literal["suite", "list", "population"]) -> "Margins":
    """Return the margins that were written on a command line.

    Raises:
        WrongUsage: If one is no margin, or is given twice.
    """
    from fxeval.statistics.changes import Margins

    within: dict[str, dict[Literal["absolute", "relative"], float]] = {}
    for text in given:
        metric, _, amount = text.rpartition("=")
        is_share = amount.endswith("%")
        try:
            value = float(amount.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not (0.0 <= value < math.inf) or (not metric and "=" in text):
            raise WrongUsage(f"--within {text}: {_EXPECTED}, not negative.")
        if metric in within:
            of = f"of {metric} " if metric else "of all metrics "
            raise WrongUsage(f"--within {text}: expected one margin {of}, got a second one.")
        within[metric] = {"relative": value / 100} if is_share else {"absolute": value}
    return Margins(within, over)


def json_of(comparisons: "Sequence[Comparison]") -> str:
    """Return comparisons as JSON: a list with one a suite."""
    data = [one.model_dump(mode="json") for one in comparisons]
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _read(before: str, after: str) -> "tuple[StoredRun, StoredRun]":
    """Return the two runs; where one is a single record, only its suite of the other.

    Raises:
        StoreError: If one is no run, or damaged.
    """
    from fxeval.records.stored_run import read_run

    paths = [run_path(text) for text in (before, after)]
    runs = []
    for text, path in zip((before, after), paths, strict=True):
        try:
            runs.append(read_run(path))
        except StoreError as error:
            raise StoreError(f"{text}: {error}") from None
    earlier, later = runs
    if paths[1].is_file():
        earlier = _only(earlier, later)
    if paths[0].is_file():
        later = _only(later, earlier)
    return earlier, later


def _only(run: "StoredRun", like: "StoredRun") -> "StoredRun":
    """Return a run with the suites of another alone, if it has one of them."""
    from dataclasses import replace

    suites = {one.suite.name for one in like.records.values()}
    kept = {stem: one for stem, one in run.records.items() if one.suite.name in suites}
    return replace(run, records=kept) if kept else run

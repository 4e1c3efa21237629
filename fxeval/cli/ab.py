"""``fxeval ab``: measures two versions of a checkout in one go and says whether one is worse."""

import contextlib
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fxeval.cli.compare import margins_of
from fxeval.cli.usage import CANNOT_SAY, Command, WrongUsage, shown
from fxeval.errors import EvidenceError, FxevalError, StoreError

if TYPE_CHECKING:
    from fxeval.records.changes import Comparison
    from fxeval.statistics.changes import Margins
    from fxeval.suite.two_versions import Place
    from fxeval.versions.commits import Version
    from fxeval.versions.sides import Side, SideRun

_OURS = ("--fx-reports", "--fx-markdown", "--collect-only", "--co")
_SHOWN = 3  # files that a line names


class _Ab(Command):
    """A command that passes on what stands after ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line up to ``--``."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta["pytest"] = args[end + 1 :]
        return super().parse_args(ctx, args[:end])


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for.

    Attributes:
        folder: Where it was asked.
        suites: Suites; () = those of the folder.
        base: A commit; None = where the head left the main branch.
        head: A commit; None = the working tree.
        install: Whether each version is installed in a virtual environment.
        decider: The version whose suites both are asked; None = they must be the same.
        links: Paths that git does not track and both see.
        reports: Where runs and pages go.
        metrics: Metrics with a margin of their own.
        further: Arguments for pytest.
    """

    folder: Path
    suites: Sequence[str]
    base: str | None
    head: str | None
    install: bool
    decider: str | None
    links: Sequence[str]
    reports: Path
    metrics: Sequence[str]
    further: Sequence[str]


@click.command(cls=_Ab)
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@click.option("--base", metavar="REF", help="Default: where the change left the main branch.")
@click.option("--head", metavar="REF", help="Default: the working tree as it is.")
@click.option("--install", is_flag=True, help="Install each version in a virtual environment.")
@click.option(
    "--suite-from", "decider", type=click.Choice(["base", "head"]),
    help="Whose suites both are asked.",
)  # fmt: skip
@click.option("--link", "links", multiple=True, metavar="PATH", help="Untracked, shown to both.")
@click.option(
    "--within", multiple=True, metavar="[METRIC=]0.02|5%",
    help="How much worse a metric may be. Default: 0.",
)  # fmt: skip
@click.option(
    "--over", type=click.Choice(["suite", "list", "population"]), default="suite",
    help="What a change is about.",
)  # fmt: skip
@click.option(
    "--reports", type=click.Path(path_type=Path), default="reports", metavar="DIR",
    help="Where runs and pages go.",
)  # fmt: skip
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write the comparison in Markdown, too.",
)  # fmt: skip
@click.pass_context
def ab(
    ctx: click.Context,
    /,
    within: tuple[str, ...],
    over: Literal["suite", "list", "population"],
    reports: Path,
    markdown: Path | None,
    **asked: Any,  # noqa: ANN401
) -> None:
    """Measure two versions of this checkout on the same rows, and say whether the later is worse.

    SUITE is a file, a folder or fxeval:NAME; by default the suites in ./suites. What stands after
    -- goes to pytest on both sides, such as -- -n 2 --fx-threads 1.

    Each side gets a worktree of its own, which is removed afterwards, and a process of its own,
    one after the other. Files that git does not track take no part, but for those of --link.

    Exit status: 0 if nothing is worse; 1 if something is; 2 if that cannot be said; 64 if the
    command was used wrongly, or the suites differ.
    """
    from fxeval.versions.installs import InstallError
    from fxeval.versions.sides import SideError

    further = ctx.meta["pytest"]
    for argument in further:
        if argument.partition("=")[0] in _OURS:
            raise WrongUsage(f"-- {argument}: the command decides that itself.", ctx)
    margins = margins_of(within, over)
    metrics = [name for name in margins.within if name]
    request = _Asked(Path.cwd(), reports=reports, metrics=metrics, further=further, **asked)
    out = reports.absolute() / f"ab-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    try:
        with _stoppable():
            runs = _measured(request, out)
        found = _compared(runs, margins)
        status = _shown(found, out, markdown)
    except KeyboardInterrupt:
        click.echo("CANNOT SAY: stopped before there was an outcome.", err=True)
        status = CANNOT_SAY
    except (EvidenceError, InstallError, SideError, StoreError) as error:
        click.echo(f"CANNOT SAY: {shown(error)}", err=True)
        status = CANNOT_SAY
    except FxevalError as error:
        raise WrongUsage(shown(error), ctx) from None
    raise SystemExit(status)


def _measured(asked: _Asked, out: Path) -> dict[str, Path]:
    """Measure both versions; return the folders of their runs, by side.

    Raises:
        FxevalError: If that is not possible, or the sides would not be asked the same.
    """
    from fxeval.records.writing import check_writable
    from fxeval.suite.two_versions import Place, metrics_asked, settle
    from fxeval.versions.commits import HEAD, base_version, head_version
    from fxeval.versions.git import top
    from fxeval.versions.worktrees import link, linked, worktrees

    check_writable(out)
    checkout = top(asked.folder)
    head = head_version(asked.folder, asked.head)
    versions = base_version(asked.folder, asked.base, head), head
    sources = linked(asked.folder, asked.links)
    for version in versions:
        _say(f"{version.side}: {version.title}")
    _say_what_takes_no_part(asked, [*sources])
    place = asked.folder.resolve().relative_to(checkout.resolve())
    with worktrees(asked.folder, versions) as roots:
        link(roots, sources)
        places = {name: Place(root, root / place) for name, root in roots.items()}
        for one in places.values():
            one.start.mkdir(parents=True, exist_ok=True)
        named = [_from(asked.folder, checkout, suite) for suite in asked.suites]
        arguments, notes = settle(places, named, asked.decider)
        for note in notes:
            _say(note)
        _check_metrics(asked.metrics, metrics_asked(places[HEAD], arguments))
        _say("each side is measured by pytest; its own verdicts do not count, the comparison does")
        return _run_sides(asked, versions, places, arguments, out)


def _from(folder: Path, checkout: Path, suite: str) -> str:
    """Return a path in the checkout from a folder on; anything else as it is."""
    path, colons, cell = suite.partition("::")
    if not Path(path).is_absolute() or not Path(path).is_relative_to(checkout):
        return suite
    return f"{os.path.relpath(path, folder)}{colons}{cell}"


def _check_metrics(named: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a margin of a metric that no limit is about, before anything is measured."""
    for metric in named:
        if metric not in known:
            raise WrongUsage(
                f"--within {metric}: expected a metric that the suites have limits on "
                f"({', '.join(known) or 'they have none'}), got another one."
            )


def _say_what_takes_no_part(asked: _Asked, linked: Sequence[str]) -> None:
    """Name the files that no worktree gets."""
    from fxeval.versions.commits import submodules, untracked
    from fxeval.versions.git import top

    root = top(asked.folder)
    reports = Path(os.path.normpath(asked.folder / asked.reports))
    seen = {root / one for one in linked} | {reports}

    def is_seen(name: str) -> bool:
        return any((root / name).is_relative_to(one) for one in seen)

    files = [] if asked.head is not None else untracked(asked.folder)
    for names, what, remedy in (
        (files, "untracked", "git add them, or show them to both sides with --link PATH"),
        (submodules(asked.folder), "of submodules", "show them to both sides with --link PATH"),
    ):
        left = [name for name in names if not is_seen(name)]
        if left:
            more = f" and {len(left) - _SHOWN:,} more" if len(left) > _SHOWN else ""
            _say(f"without files that are {what}: {', '.join(left[:_SHOWN])}{more}; {remedy}")


def _run_sides(
    asked: _Asked,
    versions: "tuple[Version, Version]",
    places: "Mapping[str, Place]",
    arguments: Sequence[str],
    out: Path,
) -> dict[str, Path]:
    """Run pytest on one version after the other; return the folders of their runs, by side.

    Raises:
        FxevalError: If one cannot be installed or measured, or ran other code than its own.
    """
    from fxeval.versions.commits import changed_between
    from fxeval.versions.git import top
    from fxeval.versions.installs import installed
    from fxeval.versions.sides import Side, measure

    checkout = top(asked.folder)
    changed = changed_between(checkout, *versions)
    runs = {}
    for name, place in places.items():
        python = None
        if asked.install:
            _say(f"{name}: installing it")
            python = installed(name, place.root, place.start, place.root.parent / "venv")
        side = Side(name, place.root, place.start, checkout, python)
        run = measure(side, [*arguments, *asked.further], out / name, _say)
        _check_origins(run, side, changed)
        runs[name] = run.folder
    return runs


def _check_origins(run: "SideRun", side: "Side", changed: Sequence[str]) -> None:
    """Check that a side ran its own version of what changed.

    Raises:
        EvidenceError: If it did not.
    """
    from fxeval.versions.origins import loaded_from_elsewhere

    for path, file in loaded_from_elsewhere(run.loaded, side.root, side.checkout, changed):
        raise EvidenceError(
            f"{side.name}: expected its own version of {path}, got that of {file}: both sides ran "
            f"the same code. Install each version with --install, or name the folder from which "
            f"{path} is imported in PYTHONPATH."
        )


def _compared(runs: "Mapping[str, Path]", margins: "Margins") -> "list[Comparison]":
    """Pair the rows of both runs and judge them.

    Raises:
        StoreError: If a run is damaged.
        EvidenceError: If a run has no rows, or the two do not answer the same question.
    """
    from fxeval.records.comparable import why_not_comparable
    from fxeval.records.stored_run import read_run
    from fxeval.statistics.changes import compared
    from fxeval.versions.commits import BASE, HEAD

    stored = {name: read_run(folder, needs_rows=False) for name, folder in runs.items()}
    for name, run in stored.items():
        if not run.rows:
            raise EvidenceError(f"{name}: no cell was measured; its output stands above.")
    reasons = why_not_comparable(stored[BASE].records, stored[HEAD].records)
    if reasons:
        raise EvidenceError(
            "base and head did not measure the same, so that their rows cannot be paired: "
            + "; ".join(reasons)
        )
    return compared(stored[BASE], stored[HEAD], margins, names=(BASE, HEAD))


def _shown(found: "Sequence[Comparison]", out: Path, markdown: Path | None) -> int:
    """Show a comparison everywhere; return the exit status.

    Raises:
        StoreError: If a file cannot be written.
    """
    from fxeval.records.writing import append, write
    from fxeval.scorecard import changes

    text = changes.markdown(found)
    for name, content in (("ab.md", text), ("ab.html", changes.page(found))):
        write(out / name, content)
    if markdown is not None:
        # Other commands of the same step have their own say in its summary.
        is_shared = os.environ.get("GITHUB_STEP_SUMMARY") == str(markdown)
        (append if is_shared else write)(markdown, text)
    for line in changes.text_lines(found, shutil.get_terminal_size().columns):
        click.echo(line)
    for path in [out / "ab.html", out / "ab.md", *([markdown] if markdown else [])]:
        click.echo(f"wrote {os.path.relpath(path)}")
    return changes.exit_status(found)


def _say(line: str) -> None:
    click.echo(shown(line))


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """End as after Ctrl-C where a CI server asks the process to stop."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

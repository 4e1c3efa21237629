"""The door to pytest: suites become test items, results become a record and a scorecard.

Importing this module loads no torch; everything heavy is imported when a suite is collected.
"""

from __future__ import annotations

import os
import secrets
import types
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fxeval.run.assembly import Gatherer
from fxeval.run.fixture_names import fixture_ids
from fxeval.run.options import add_options
from fxeval.run.reporter import Reporter
from fxeval.suite import recognition

if TYPE_CHECKING:
    from fxeval.run.session import Session
    from fxeval.suite.cells import Cell
    from fxeval.suite.plan import Suite

pytest_plugins = (
    "fxeval.fixtures.models",
    "fxeval.fixtures.explainers",
    "fxeval.fixtures.isolated",
    "fxeval.fixtures.pairs",
)

_SESSION: pytest.StashKey[Session] = pytest.StashKey()
_RESULT: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
_SENT: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
_RUN_ID: pytest.StashKey[str] = pytest.StashKey()
_UNSUPPORTED: pytest.StashKey[str] = pytest.StashKey()
_UNMARKED: pytest.StashKey[dict[str, None]] = pytest.StashKey()
_CELL: pytest.StashKey[Cell] = pytest.StashKey()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Make the hooks of fxeval known."""
    from fxeval import hookspec

    pluginmanager.add_hookspecs(hookspec)


def pytest_load_initial_conftests(args: list[str]) -> None:
    """Put the file of a shipped suite in place of its name, such as ``fxeval:quickstart``."""
    from fxeval.errors import SuiteError

    try:
        args[:] = [recognition.resolved(argument) for argument in args]
    except SuiteError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and ini values of fxeval."""
    add_options(parser)


@pytest.fixture(scope="session")
def fx_data(pytestconfig: pytest.Config) -> Path | None:
    """Folder of real faces that the user named, or None."""
    named = pytestconfig.getoption("--fx-data") or os.environ.get("FXEVAL_DATA")
    return Path(named) if named else None


@pytest.fixture(scope="session")
def fx_weights(pytestconfig: pytest.Config, fx_data: Path | None) -> Path | None:
    """Folder of model weights that the user named, or ``weights`` in that of the faces, or None."""
    named = pytestconfig.getoption("--fx-weights") or os.environ.get("FXEVAL_WEIGHTS")
    if named:
        return Path(named)
    return fx_data / "weights" if fx_data is not None else None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """Collect suite files: named on the command line, or matching ``fx_suites``."""
    if file_path.suffix not in {".yaml", ".yml"}:
        return None
    config = parent.config
    start = config.invocation_params.dir
    named = [os.path.normpath(start / arg.partition("::")[0]) for arg in config.args]
    is_named = os.path.normpath(file_path) in named
    is_matched = any(_matches(file_path, config, one) for one in config.getini("fx_suites"))
    if (is_named and recognition.may_be_meant(file_path)) or (
        is_matched and recognition.has_mark(file_path)
    ):
        return SuiteFile.from_parent(parent, path=file_path)
    if is_matched and recognition.lacks_mark(file_path):
        config.stash[_UNMARKED][os.path.relpath(file_path, start)] = None
    return None


def _matches(path: Path, config: pytest.Config, pattern: str) -> bool:
    return fnmatch(path.as_posix(), f"*/{pattern}") or fnmatch(
        os.path.relpath(path, config.rootpath), pattern
    )


class SuiteFile(pytest.Module):
    """A suite file; its checks are collected like the test functions of a module."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Read the suite and return one item per cell."""
        from fxeval.errors import FxevalError, SuiteError
        from fxeval.run.additions import take_additions
        from fxeval.suite import load, plan, preflight

        try:
            take_additions(self.config)
            self._check_reports()
            self._check_store()
            _session(self.config).read_earlier_runs()
        except FxevalError as error:
            raise self.CollectError(str(error)) from None
        known = fixture_ids(self.config, self.path)
        overridden = fixture_ids(self.config, self.path, conftests_only=True)

        def faults(role: str, id: str, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
            return () if id in overridden[role] else preflight.check_params(role, id, params)

        ids = load.KnownIds(known["model"], known["explainer"], known["pairs"], preflight.devices())
        try:
            loaded = load.load(self.path, ids, check_params=faults, shown=self._shown_path())
            cells = plan.cells(loaded)
            preflight.check_cards_of(cells, overridden, self.path.parent)
            preflight.check_layers_of(cells, overridden)
            preflight.check_slices_of(cells, overridden)
            _session(self.config).read_acknowledged(loaded, cells)
        except SuiteError as error:
            raise self.CollectError(str(error)) from None
        self.obj = _module(loaded, cells, self.path)
        items = list(super().collect())
        by_id = {cell.id: cell for cell in cells}
        strange = [item.name for item in items if item.name not in by_id]
        if strange:
            raise self.CollectError(
                f"{self._shown_path()}: expected one test a cell, got {len(strange)} tests "
                f"that are none, such as {strange[0]}. A parametrised fixture with "
                "autouse=True, or a plug-in that repeats tests, multiplies them; keep both away "
                "from suites."
            )
        order = {id: position for position, id in enumerate(by_id)}
        items.sort(key=lambda item: order.get(item.name, -1))
        known_reasons = dict(preflight.unsupported(cells, overridden, self.path.parent))
        for item in items:
            item.stash[_UNSUPPORTED] = known_reasons.get(item.name, "")
            item.stash[_CELL] = by_id[item.name]
        _session(self.config).plan(self.path, loaded, [cell.id for cell in cells])
        return items

    def _check_reports(self) -> None:
        """Refuse, before the first cell is measured, a folder that could not keep its rows."""
        from fxeval.errors import StoreError
        from fxeval.records.writing import check_writable

        if self.config.option.collectonly:
            return
        try:
            check_writable(_reports(self.config))
        except StoreError as error:
            raise StoreError(f"{error} Name another folder with --fx-reports.") from None

    def _check_store(self) -> None:
        """Refuse, before the first cell is measured, an index that could not take the run."""
        address = self.config.getoption("--fx-store")
        if address:
            from fxeval.store.database import Database

            Database(address)

    def _shown_path(self) -> Path:
        shown = Path(os.path.relpath(self.path, self.config.invocation_params.dir))
        # A path to where packages are installed is the machine's own, and says less.
        shipped = recognition.shown_name(self.path) if ".." in shown.parts else None
        return Path(shipped) if shipped else shown


def _module(suite: Suite, cells: Sequence[Cell], path: Path) -> types.ModuleType:
    """Return a module in memory with one parametrised test function per check."""
    module = types.ModuleType(path.stem, suite.title)
    module.__file__ = str(path)
    for check in suite.checks:
        own = [cell for cell in cells if cell.check == check.id]
        # A copy whose code lies in the suite file: failures and --collect-only point at the check.
        function = types.FunctionType(
            _cell_test.__code__.replace(co_filename=str(path), co_firstlineno=check.line),
            globals(),
            check.id,
        )
        function.__doc__ = check.why or None
        function.__test__ = True  # type: ignore[attr-defined]
        marks = [getattr(pytest.mark, name) for name in check.marks]
        ids = [cell.id.partition("[")[2].removesuffix("]") for cell in own]
        marks.append(pytest.mark.parametrize("fx_cell", own, ids=ids))
        function.pytestmark = marks  # type: ignore[attr-defined]
        setattr(module, check.id, function)
    return module


def _cell_test(fx_cell: Cell, request: pytest.FixtureRequest) -> None:
    _judge(fx_cell, request)


def _judge(cell: Cell, request: pytest.FixtureRequest) -> None:
    """Measure a cell and turn its verdict into the outcome of its test."""
    from fxeval.errors import FxevalError, for_a_record
    from fxeval.hooks.processes import one_process
    from fxeval.run.endings import (
        STOPS,
        conclude,
        cut_short,
        is_shown_as_it_is,
        refusal_of,
        tell_acknowledged,
    )
    from fxeval.run.resolving import subjects_of

    session, told = _session(request.config), ""
    try:
        # No variable of its own: the traceback of a failed test would keep the model alive.
        with one_process():
            result = session.self_checks.measured(
                cell,
                subjects_of(cell, request, session, unsupported=request.node.stash[_UNSUPPORTED]),
                session.workshop,
                earlier=session.earlier(request.node, cell.id),
            )
    except BaseException as error:  # user code may raise anything
        result, told = refusal_of(cell, error)
        if isinstance(error, FxevalError):
            told = session.at_length_once(told, for_a_record(error))
        if isinstance(error, STOPS):
            cut_short(request.node, cell, session.result(request.node, result))
            raise
        if is_shown_as_it_is(error):
            request.node.stash[_RESULT] = session.result(request.node, result)
            raise
    request.node.stash[_RESULT] = found = session.result(request.node, result)
    tell_acknowledged(request.node, result)
    conclude(cell, found, told, session)


def pytest_report_collectionfinish(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> list[str]:
    """Name the cells that cannot be measured, and files that may have been meant as suites."""
    reasons = [item.stash[_UNSUPPORTED] for item in items if _UNSUPPORTED in item.stash]
    unmarked = [
        f"not collected: {path} has the keys of a suite; a suite starts with 'fxeval: 1'"
        for path in config.stash[_UNMARKED]
    ]
    return [f"unsupported: {reason}" for reason in dict.fromkeys(reasons) if reason] + unmarked


def _session(config: pytest.Config) -> Session:
    """Return the session of this process, created when the first suite needs it."""
    if _SESSION not in config.stash:
        from fxeval.run.session import Session

        config.stash[_SESSION] = Session(config, config.stash[_RUN_ID])
    return config.stash[_SESSION]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the result to the report, so that it travels from workers to the controller."""
    report = yield
    if _CELL not in item.stash:
        return report
    from fxeval.run.attempts import note
    from fxeval.run.endings import in_a_line, set_out

    if call.when == "setup":
        set_out(item, item.stash[_CELL], _session(item.config), (call, report))
    elif _RESULT in item.stash:
        # A plug-in may run a test again inside of its call: then its teardown brings the result.
        if item.stash.get(_SENT, None) is not item.stash[_RESULT]:
            item.stash[_SENT] = report.fxeval = item.stash[_RESULT]  # type: ignore[attr-defined]
            report.fxeval_told = _session(item.config).workshop.take_told()  # type: ignore[attr-defined]
        if call.when == "call":
            in_a_line(item, item.stash[_CELL], report)
        elif call.excinfo is not None:
            from fxeval.redaction import of_user_code

            fault = of_user_code(call.excinfo.value)
            report.fxeval_fault = f"teardown failed: {fault}"  # type: ignore[attr-defined]
            _session(item.config).spoil(item, item.stash[_CELL].id)
    if hasattr(report, "fxeval"):
        note(item, report)
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Name the run; where results come together, gather them."""
    config.stash[_UNMARKED] = {}
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        config.stash[_RUN_ID] = worker_input["fx_run"]
        return
    now = datetime.now(UTC)
    config.stash[_RUN_ID] = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    folder = _reports(config)
    command = " ".join(["pytest", *map(_portable, config.invocation_params.args)])
    gatherer = Gatherer(folder / config.stash[_RUN_ID], config.stash[_RUN_ID], now, command)
    config.pluginmanager.register(Reporter(gatherer), "fxeval.results")


def _reports(config: pytest.Config) -> Path:
    folder: Path = config.invocation_params.dir / config.getoption("--fx-reports")
    return folder


def _portable(argument: object) -> str:
    """Return an argument of the command line without the machine's own paths and passwords."""
    from fxeval.redaction import without_credentials

    option, equals, value = without_credentials(str(argument)).rpartition("=")
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401  (xdist's own type)
    """Tell a worker which run it belongs to."""
    node.workerinput["fx_run"] = node.config.stash[_RUN_ID]

"""The state of one process while it runs cells: the workshop, the row file, the progress line."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fxeval.contracts import ModelFile
from fxeval.engine.forward_pool import fastest_batch_size
from fxeval.errors import FxevalError
from fxeval.records.acknowledged import read_acknowledged
from fxeval.records.schema import CellResult
from fxeval.records.writing import RowFile
from fxeval.results import Outcome
from fxeval.run.assembly import asked_of, finished
from fxeval.run.earlier_runs import Places, baselines_folder, day_of, earlier_runs
from fxeval.run.environment import describe
from fxeval.run.map_maker import PREPARING, TRAINING
from fxeval.run.self_check import SelfChecks
from fxeval.run.workshop import Accepted, Workshop
from fxeval.scorecard import SHOWN
from fxeval.statistics.acknowledged import BASELINE
from fxeval.suite.cells import Cell
from fxeval.suite.plan import Suite

if TYPE_CHECKING:
    import pytest

MOST_MODELS = 8
"""Loaded models that are kept at most, for checks whose cells use several at once."""

QUIET_SECONDS = 30.0  # between two lines of progress where there is no terminal


class Session:
    """State of a pytest process that runs cells.

    Args:
        config: Pytest's configuration.
        run_id: Name of the run, the same in all processes.
    """

    def __init__(self, config: "pytest.Config", run_id: str) -> None:
        worker = getattr(config, "workerinput", {})
        _set_threads(config.getoption("--fx-threads"), int(worker.get("workercount", 1)))
        folder = config.invocation_params.dir / config.getoption("--fx-reports") / run_id
        name = f"rows-{worker['workerid']}.jsonl" if worker else "rows.jsonl"
        self._rows = RowFile(folder / name)
        self._progress = Progress(config)
        self._batch_size = int(config.getoption("--fx-batch-size") or fastest_batch_size())
        self._worker = int(worker.get("workerid", "gw0").removeprefix("gw"))
        self.workshop = Workshop(
            batch_size=self._batch_size,
            emit=self._rows.append,
            progress=self._progress.show,
            worker=self._worker,
        )
        self.self_checks = SelfChecks(self._another_workshop)
        self._models: list[tuple[object, object]] = []  # the one that was used last is last
        self._room = 1
        self._said: set[str] = set()
        self._warned = 0
        self._suites: dict[Path, dict[str, Any]] = {}
        self._verdicts: dict[tuple[Path, str], list[Outcome]] = {}
        self._environments: dict[tuple[Path, torch.device], dict[str, Any]] = {}
        named = {name: config.getoption(f"--fx-{name}") for name in ("baseline", "base")}
        self._earlier = {name: given for name, given in named.items() if given}
        start, self._today = config.invocation_params.dir, day_of(run_id)
        kept = baselines_folder(config.getoption("--fx-baselines"), start, config.rootpath)
        self._places = Places(kept, start, folder.parent)

    def _another_workshop(self) -> Workshop:
        return Workshop(
            batch_size=self._batch_size,
            emit=self._rows.append,
            progress=self._progress.show,
            worker=self._worker,
        )

    def read_earlier_runs(self) -> None:
        """Read the runs that limits compare with, once.

        Raises:
            StoreError: If one is no run and no baseline, damaged, or moved together with code.
        """
        if not self.workshop.earlier_runs:
            self.workshop.earlier_runs = earlier_runs(self._earlier, self._places, self._today)

    def read_acknowledged(self, suite: Suite, cells: Sequence[Cell]) -> None:
        """Read which regressions of a suite since the baseline are acknowledged.

        Raises:
            SuiteError: If the file has faults, or names a cell or a metric that is not compared.
        """
        compared = {
            cell.id: {limit.metric for limit in cell.limits if BASELINE in limit.compares()}
            for cell in cells
        }
        found = read_acknowledged(self._places.baselines, self._today)
        for one in found.of(suite.name, compared):
            accepted = self.workshop.acknowledged.setdefault(
                (suite.name, one.cell), Accepted([], [])
            )
            is_active = one.is_active(self._today)
            (accepted.active if is_active else accepted.expired).append(one.entry)

    def loaded(self, subject: Any) -> Any:  # noqa: ANN401  (whatever a fixture returned)
        """Return the model of a fixture; a file is read once for consecutive cells that use it.

        As many models are kept as a cell of the suites uses at once, at most ``MOST_MODELS``; those
        that were used longest ago are freed.

        Raises:
            FxevalError: If the file can't be trusted; again for every cell that uses it.
        """
        if not isinstance(subject, ModelFile) or hasattr(subject, "embed"):
            return subject
        known = next((one for one in self._models if _is_same(one[0], subject)), None)
        if known is not None:
            self._models = [one for one in self._models if one is not known]
        else:
            known = subject, self._read(subject)
        self._models.append(known)
        found = known[1]
        if isinstance(found, FxevalError):
            raise found
        return found

    def _read(self, subject: ModelFile) -> object:
        while len(self._models) >= self._room:  # before the next one is loaded
            del self._models[0]
            self.workshop.release()
        try:
            return subject.load()
        except FxevalError as error:
            return error

    def at_length_once(self, text: str, short: str) -> str:
        """Return a whole message of several lines once, then what a record says of it."""
        if "\n" not in text or text not in self._said:
            self._said.add(text)
            return text
        return f"{short} (the whole message is in the output of the first such cell)"

    def may_warn(self) -> bool:
        """Say whether one more cell may have a warning of its own: the first few may."""
        self._warned += 1
        return self._warned <= SHOWN

    def plan(self, path: Path, suite: Suite, cells: Sequence[str]) -> None:
        """Remember what a suite file asks for."""
        self._suites[path] = asked_of(suite, cells)
        at_once = [
            len({one.name for named in check.further.values() for one in named}) + 1
            for check in suite.checks
        ]
        self._room = max(self._room, min(MOST_MODELS, max(at_once)))

    def earlier(self, node: "pytest.Item", cell: str) -> list[Outcome]:
        """Return the verdicts of a cell so far, the first first; some plug-ins run tests again.

        pytest-rerunfailures counts the runs of a test, over processes that crashed in it, too:
        an attempt of which this process knows nothing was invalid.
        """
        known = self._verdicts.get((node.path, cell), [])
        counted = getattr(node, "execution_count", 1)
        runs = counted if isinstance(counted, int) else 1
        return [*[Outcome.INVALID] * (runs - 1 - len(known)), *known]

    def spoil(self, node: "pytest.Item", cell: str) -> None:
        """Make the last verdict of a cell invalid, as its test failed after the cell was judged."""
        self._verdicts[node.path, cell][-1] = Outcome.INVALID

    def result(
        self, node: "pytest.Item", cell: CellResult, *, is_final: bool = True
    ) -> dict[str, Any]:
        """Return a cell as plain data, with its suite, environment and subjects.

        Args:
            node: Its test.
            cell: The cell.
            is_final: Whether this ends an attempt to measure it.
        """
        self._progress.clear()
        earlier = self.earlier(node, cell.id)
        named = cell.model_copy(
            update={"nodeid": node.nodeid, "attempt": len(earlier) + 1, "earlier": earlier}
        )
        if is_final:
            self._verdicts[node.path, cell.id] = [*earlier, cell.verdict.outcome]
        asked, environment = self._suites[node.path], self._environment(node.path.parent)
        checks = self.self_checks.take(cell.id)
        return finished(named, asked, environment, self.workshop.subjects, checks)

    def _environment(self, folder: Path) -> dict[str, Any]:
        key = folder, self.workshop.device
        if key not in self._environments:
            self._environments[key] = describe(self.workshop.device, self._batch_size, folder)
        return self._environments[key]


def _is_same(one: object, other: object) -> bool:
    """Say whether two files of models are equal, as far as user code can say that."""
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # user code may raise anything
        return False


def _set_threads(asked: int | None, workers: int) -> None:
    """Share the cores among the workers; with ``asked``, results do not depend on their number."""
    if asked is not None or workers > 1:
        torch.set_num_threads(asked or max(1, (os.cpu_count() or 1) // workers))


class Progress:
    """Shows a live line on a terminal, a line every half minute elsewhere, nothing in a worker."""

    def __init__(self, config: "pytest.Config") -> None:
        self._capture = config.pluginmanager.getplugin("capturemanager")
        self._silent = (
            hasattr(config, "workerinput")
            or config.getoption("quiet", 0) > 0
            or not config.pluginmanager.hasplugin("terminalreporter")
        )
        self._writer = None if self._silent else config.get_terminal_writer()
        self._live = sys.__stdout__ is not None and sys.__stdout__.isatty()
        self._started: dict[tuple[str, str], float] = {}
        self._last = time.monotonic()
        self._width = 0

    def show(self, cell: str, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage of a cell."""
        now = time.monotonic()
        started = self._started.setdefault((cell, stage), now)
        if self._silent or (not self._live and now - self._last < QUIET_SECONDS):
            return
        self._last = now
        counted = "images" if stage == PREPARING else "pairs"
        counted = "epochs" if stage.startswith(TRAINING) else counted
        line = f"{cell}  {stage} {done}/{total} {counted}"
        if done < total and now > started:
            line += f"  about {(now - started) / done * (total - done):.0f} s left"
        self._write(("\r" if self._live else "\n") + line.ljust(self._width))
        self._width = len(line)

    def clear(self) -> None:
        """Remove the live line."""
        if self._live and self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        if self._writer is None:
            return
        if self._capture is None:
            self._writer.write(text, flush=True)
            return
        # While a test runs, pytest captures what is written.
        with self._capture.global_and_fixture_disabled():
            self._writer.write(text, flush=True)

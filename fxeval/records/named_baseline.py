"""A named baseline as an earlier run: the run of this hardware class, if its files are sound."""

from dataclasses import replace
from datetime import date
from pathlib import Path

from fxeval.errors import StoreError
from fxeval.records.baselines import Baseline, checked_folder, days_between, pointer_of
from fxeval.records.earlier import EarlierRun, Paired, Question
from fxeval.records.judged import UsedBaseline
from fxeval.records.stored_run import read_run
from fxeval.redaction import without_paths


class NamedBaseline:
    """The run that a baseline names for the hardware class on which a question is asked.

    A class without a run and damaged files leave the limits that compare undecided.

    Args:
        name: Under which limits compare with it: ``baseline`` or ``base``.
        folder: That of the baselines.
        baseline: The baseline.
        today: Day on which the run started that compares.
        remark: What else is to be said of it wherever it is used; "" = nothing.

    Example:
        ``NamedBaseline("baseline", folder, read_baseline(folder, "main"), date(2026, 11, 30))``
    """

    def __init__(
        self, name: str, folder: Path, baseline: Baseline, today: date, *, remark: str = ""
    ) -> None:
        self.name = name
        self._folder, self._baseline, self._today = folder, baseline, today
        self._remark = f"; {remark}" if remark else ""
        self._runs: dict[str, EarlierRun | StoreError] = {}

    def paired(self, asked: Question) -> Paired:
        """Return the explainer's values in the same cell of the run that the baseline names."""
        own = asked.hardware_class
        if own not in self._runs:
            self._runs[own] = self._run(own)
        run = self._runs[own]
        if isinstance(run, StoreError):
            said = without_paths(str(run))  # a file that was tampered with may name any folder
            return Paired(remark=f"{self.name}: no values: {said}{self._remark}")
        found, used = run.paired(asked), self._used(own)
        age = f"{used.days} day{'s' * (used.days != 1)} before this run"
        said = f"{found.remark}; baseline {used.name}, set on {used.set_on}, {age}{self._remark}"
        return replace(found, remark=said, baseline=used)

    def _run(self, hardware_class: str) -> EarlierRun | StoreError:
        try:
            pointer = pointer_of(self._baseline, hardware_class)
            return EarlierRun(self.name, read_run(checked_folder(self._folder, pointer)))
        except StoreError as error:
            return error

    def _used(self, hardware_class: str) -> UsedBaseline:
        pointer = pointer_of(self._baseline, hardware_class)
        return UsedBaseline(
            name=self._baseline.name,
            run=pointer.run,
            set_on=pointer.set_on,
            days=days_between(pointer.set_on, self._today.isoformat()),
            hardware_class=hardware_class,
            reason=pointer.reason,
        )

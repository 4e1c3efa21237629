"""The values of what a cell chose, under the conditions that its limits and readers ask for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fxeval.records.form import Under
from fxeval.records.judged import LimitEntry, LimitResult
from fxeval.records.schema import CellPlan, Measured, Row
from fxeval.records.selection import Configuration, Selects
from fxeval.results import BROKEN_STATES, EXPLAINER, RowState, gravity
from fxeval.statistics.limit import in_words

CONFIGURATION, SELECTED = "configuration", "selected"
"""The axis of the derived values, and its one value."""

HALF, SELECTION, REPORT = "half", "selection", "report"
"""The axis of the halves, and its values."""

AS_GIVEN = "control.as_given"
"""The explainer as the suite gives it."""

Settings: TypeAlias = tuple[tuple[str, str | float], ...]
"""A configuration: its axes with their values."""

_OF_MAPS = BROKEN_STATES | {RowState.DEGENERATE_MAP}


@dataclass(frozen=True)
class Choice:
    """What a protocol says of its choice (``SELECTS``).

    Attributes:
        axes: The axes of conditions whose values make a configuration.
        by: The parameter that names the deciding metric.
        metrics: Those that it may name; the others break ties.
    """

    axes: tuple[str, ...]
    by: str
    metrics: tuple[str, ...]

    def of(self, parameters: object) -> Selects:
        """Return what a check chooses, by its parameters."""
        first = getattr(parameters, self.by)
        return Selects(axes=[*self.axes], by=[*dict.fromkeys((first, *self.metrics))])


def judged_under(plan: CellPlan, limit: LimitEntry) -> LimitEntry:
    """Return a limit with the conditions that it is judged under, if the cell chooses.

    It is about the chosen configuration on the report half, unless it names another.
    """
    if plan.selects is None:
        return limit
    names_one = {CONFIGURATION, *plan.selects.axes} & {*limit.under}
    usual = {HALF: REPORT} if names_one else {CONFIGURATION: SELECTED, HALF: REPORT}
    return limit.model_copy(update={"under": {**usual, **limit.under}})


def with_refusals(
    limits: Sequence[LimitResult], configurations: Sequence[Configuration]
) -> list[LimitResult]:
    """Return limits of which those about a refused configuration say why it has no value."""
    found = []
    for limit in limits:
        named = [
            one
            for one in configurations
            if {*one.under} & {*limit.under}
            and all(limit.under.get(axis, value) == value for axis, value in one.under.items())
        ]
        if limit.estimate is None and named and all(one.refused for one in named):
            reason = {"reason": f"{limit.verdict.reason}: {named[0].refused}"}
            limit = limit.model_copy(update={"verdict": limit.verdict.model_copy(update=reason)})
        found.append(limit)
    return found


@dataclass(frozen=True, eq=False)
class Spread:
    """Puts values under the conditions that limits and readers ask for.

    Attributes:
        selects: What is chosen.
        best: The chosen settings; None if there are none.
        tried: All configurations.
        pinned: The conditions of limits that name a configuration themselves.
    """

    selects: Selects
    best: Settings | None
    tried: Sequence[Configuration]
    pinned: Sequence[Under]

    def row(self, row: Row) -> Row:
        """Return a row with the values of the chosen configuration beside the others.

        Values that no configuration has a part in, such as those of random pixels, are under
        ``configuration: selected`` alone, and beside every configuration that a limit names.
        """
        axes = {*self.selects.axes}
        own = [one for one in row.measured if axes <= {*one.under}]
        shared = [one for one in row.measured if not axes & {*one.under}]
        of_best = [one for one in own if self.best is not None and self._is_of(one, self.best)]
        found = [*own, *(_under(one, {CONFIGURATION: SELECTED}, axes) for one in of_best)]
        found += [_under(one, {CONFIGURATION: SELECTED}, axes) for one in shared]
        for given in self._named():
            settings = tuple((given.same_as or given.under).items())
            if given.same_as is not None:
                found += [
                    _under(one, given.under, axes) for one in own if self._is_of(one, settings)
                ]
            found += [_under(one, given.under, axes) for one in shared]
        return row.model_copy(update={"measured": found, **self._state(row, of_best)})

    def _named(self) -> list[Configuration]:
        """Return the configurations that some limit is about."""
        return [
            one
            for one in self.tried
            if any(
                all(under.get(axis, value) == value for axis, value in one.under.items())
                for under in self.pinned
            )
        ]

    def _is_of(self, one: Measured, settings: Settings) -> bool:
        return all(one.under.get(axis) == value for axis, value in settings)

    def _state(self, row: Row, of_best: Iterable[Measured]) -> dict[str, Any]:
        """Return the state of the chosen configuration's map of a row."""
        states = [
            state
            for one in of_best
            if one.map == EXPLAINER
            for state in one.states.values()
            if state in _OF_MAPS
        ]
        if self.best is None:
            return {}
        worst = max(states, key=gravity, default=RowState.OK)
        reason = "" if worst is RowState.OK else f"{words_of(self.best)}: {worst.value}"
        return {"state": worst, "reason": reason}


def _under(one: Measured, settings: Under, axes: set[str]) -> Measured:
    """Return values under other settings in the place of their own."""
    rest = {axis: value for axis, value in one.under.items() if axis not in axes}
    return one.model_copy(update={"under": {**settings, **rest}})


def words_of(settings: Settings) -> str:
    """Write a configuration.

    >>> words_of((("layer", "conv1"), ("objective", "arc_pair(m=0.3)")))
    'layer conv1, objective arc_pair(m=0.3)'
    """
    return in_words(dict(settings))[2:-1]

"""Measures groups of rows: the explainer, its other seeds, the explainers that it is compared with.

A protocol knows of none of these. It measures one explainer at one seed, so it is asked several
times about the same rows, and its values are put together here.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from fxeval.errors import EvidenceError, ExplainerContractError, UnsupportedError, for_a_record
from fxeval.functional.controls import CONTROLS
from fxeval.metrics import kinds
from fxeval.metrics.protocol import Evidence, Ledger, OtherExplainer
from fxeval.records.schema import Measured, Network, Row, Taught
from fxeval.records.selection import Configuration
from fxeval.results import EXPLAINER, gravity
from fxeval.run.cell_engine import Measuring
from fxeval.run.prepared import Prepared
from fxeval.suite.cells import Cell

OF_THE_MAPS = frozenset(
    {
        "as_given",
        "positive_map",
        *(name for name, one in CONTROLS.items() if one.depends_on_explainer),
    }
)
"""Controls that are made of the explainer's maps: they change with its seed."""


class RowMeasuring:
    """Measures the rows of a cell, group by group.

    Args:
        cell: The cell.
        prepared: Its evidence.

    Attributes:
        networks: Re-drawn networks that were compared with.
        taught: Networks that were trained for the comparison.
        configurations: Of the explainer that were tried.
        remarks: Facts that a reader of the figures must know.
        inapplicable: Why metrics can have no value of such a model, by their names.
    """

    def __init__(self, cell: Cell, prepared: Prepared) -> None:
        self._cell, self._prepared, self._engine = cell, prepared, prepared.engine
        self._measure = kinds()[cell.kind].measure
        self.networks: list[Network] = []
        self.taught: list[Taught] = []
        self.configurations: list[Configuration] = []
        self.remarks: list[str] = []
        self.inapplicable: dict[str, str] = {}
        self._compared: dict[str, OtherExplainer] = {}
        for name, found in prepared.compared.items():
            if isinstance(found, str):
                self._leave_out(name, found)
            else:
                self._compared[name] = found

    def rows(self, group: Tensor) -> list[Row]:
        """Return the rows at some positions, complete.

        An explainer that does not depend on its seed is measured with one alone.
        """
        evidence, own = self._prepared.evidence.take(group), self._engine.own
        rows = self._at_seed(evidence, own, 0, self._cell.parameters)
        parameters = with_controls(self._cell.parameters, OF_THE_MAPS)
        for seed in range(1, self._engine.seeds(own.name)):
            more = self._at_seed(evidence, own, seed, parameters)
            rows = [_with_seed(row, one, seed) for row, one in zip(rows, more, strict=True)]
        for name, other in [*self._compared.items()]:
            try:
                values = self._of_other(evidence, other)
            except (UnsupportedError, ExplainerContractError, EvidenceError) as error:
                del self._compared[name]
                self._leave_out(name, for_a_record(error))
            else:
                rows = [_with(row, found) for row, found in zip(rows, values, strict=True)]
        return rows

    def _of_other(self, evidence: Evidence, other: OtherExplainer) -> list[list[Measured]]:
        """Return the values of a further explainer for each row, at each of its seeds."""
        parameters = with_controls(self._cell.parameters, ())
        found: list[list[Measured]] = [[] for _ in range(len(evidence.rows))]
        seed = 0
        while seed < max(1, self._engine.seeds(other.name)):
            for values, row in zip(
                found, self._at_seed(evidence, other, seed, parameters), strict=True
            ):
                values += [
                    one.model_copy(update={"map": f"explainer:{other.name}", "seed": seed})
                    for one in row.measured
                    if one.map == EXPLAINER
                ]
            seed += 1
        return found

    def _at_seed(
        self, evidence: Evidence, by: OtherExplainer, seed: int, parameters: object
    ) -> list[Row]:
        ledger: Ledger = self._measure(
            replace(evidence, engine=Measuring(self._engine, by, seed)), parameters
        )
        self.networks += [one for one in ledger.networks if one not in self.networks]
        self.taught += [one for one in ledger.taught if one not in self.taught]
        self._remark(ledger.remarks)
        if by.name == self._engine.own.name:
            self.inapplicable |= ledger.inapplicable
        else:  # of another explainer: what is compared with it stays open
            self._remark(
                f"explainer:{by.name}: no values: {why}"
                for why in dict.fromkeys(ledger.inapplicable.values())
            )
        if by is self._engine.own and seed == 0:
            self.configurations = ledger.configurations
        return ledger.rows(self._cell.id)

    def _leave_out(self, name: str, reason: str) -> None:
        self._remark([f"explainer:{name}: no values: {reason}"])

    def _remark(self, texts: Iterable[str]) -> None:
        self.remarks += [text for text in dict.fromkeys(texts) if text not in self.remarks]


def with_controls(parameters: Any, kept: Collection[str]) -> Any:  # noqa: ANN401
    """Return the parameters of a check with some of its controls; as they are if it has none."""
    controls = getattr(parameters, "controls", None)
    if not controls:
        return parameters
    return parameters.model_copy(update={"controls": tuple(x for x in controls if x in kept)})


def _with(row: Row, more: Sequence[Measured]) -> Row:
    return row.model_copy(update={"measured": [*row.measured, *more]})


def _with_seed(row: Row, more: Row, seed: int) -> Row:
    """Add the values of another seed; the row has the worst state of all its maps."""
    found = _with(row, [one.model_copy(update={"seed": seed}) for one in more.measured])
    update: dict[str, Any] = {
        "constant_under": list(dict.fromkeys([*row.constant_under, *more.constant_under]))
    }
    if gravity(more.state) > gravity(row.state):
        update |= {"state": more.state, "reason": f"seed {seed}: {more.reason}".rstrip(": ")}
    return found.model_copy(update=update)

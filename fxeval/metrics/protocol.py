"""The contract between a protocol (one module of this package) and the engine that runs it.

A protocol is a module with ``ROWS``, ``METRICS``, ``Parameters`` and ``measure(evidence,
parameters)``. It sees rows, questions and subjects, never devices, batches, files or pytest. The
engine calls ``measure`` for one group of rows after the other; a row's values depend on the row and
on the plan, never on which rows were measured with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import (
    Explainer,
    SaliencyMaps,
)
from fxeval.functional.ranking import tied_shares
from fxeval.metrics.kept import Kept
from fxeval.metrics.looked_at import Looked
from fxeval.metrics.map_sets import averaged as averaged
from fxeval.metrics.map_sets import one_by_one as one_by_one
from fxeval.metrics.map_sets import signed as signed
from fxeval.metrics.map_sets import taken as taken
from fxeval.metrics.map_sets import thumbnail as thumbnail
from fxeval.metrics.map_sets import usable as usable
from fxeval.metrics.map_sets import worst as worst
from fxeval.metrics.rows import FloatArray as FloatArray
from fxeval.metrics.rows import MapCost as MapCost
from fxeval.metrics.rows import Question as Question
from fxeval.metrics.rows import Redraw as Redraw
from fxeval.metrics.rows import Redrawn as Redrawn
from fxeval.metrics.rows import RowKind as RowKind
from fxeval.metrics.rows import Rows as Rows
from fxeval.metrics.rows import Side as Side
from fxeval.metrics.rows import Student as Student
from fxeval.metrics.rows import Subject as Subject
from fxeval.metrics.rows import Training as Training
from fxeval.records.schema import Measured, Network, Row, Taught
from fxeval.records.selection import Configuration
from fxeval.results import BROKEN_STATES, TIED_SHARE, Condition, Metric, RowState, gravity


@dataclass(frozen=True, eq=False)
class OtherExplainer:
    """An explainer that a parameter names, or one of the cell's with some ``settings`` replaced."""

    name: str
    explainer: Explainer
    settings: tuple[tuple[str, str], ...] = ()


class Engine(Protocol):
    """The engine behind the evidence: makes the maps of all rows once per cell."""

    def maps(
        self, rows: Rows, subject: Subject, explainer: OtherExplainer | None, draw: int = 0
    ) -> SaliencyMaps:
        """Return the maps of all rows on a subject, by the cell's explainer (None) or another."""

    def maps_each(self, rows: Rows, subject: Subject) -> tuple[SaliencyMaps, ...]:
        """Return the maps of the sources of all rows: of the first ones, the second ones, ..."""

    def cost(self, rows: Rows, subject: Subject) -> MapCost:
        """Return what the maps of all rows on a subject cost when they were made."""

    def variant(self, settings: Mapping[str, str]) -> OtherExplainer:
        """Return the cell's explainer with some settings replaced."""

    def instead(self, explainer: OtherExplainer) -> "Engine":
        """Return the engine with another explainer in the place of the cell's own."""

    def alike(self, rows: Rows, subject: Subject, *by: OtherExplainer) -> bool:
        """Say whether two explainers give every row the same map, but for its scale."""

    def refusal(self, rows: Rows) -> str:
        """Return why the explainer has no answer to what rows ask; "" if it has."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that a protocol may use to measure a group of rows.

    Attributes:
        rows: The group.
        everyone: All rows of the cell: the reference set.
        subject: The cell's own model.
        others: Further subjects and explainers, by the parameter that names them.
        absent: Why further models that a parameter names cannot be measured, by their names.
        seed_of: (purpose, row id, label) -> seed.
        versions: The same rows with other versions of their images perturbed, by ``Rows.side``.
        kept: Orders of controls, which are the same for every explainer.
        of_cell: What was computed of all rows of this cell, for its next groups.
        looked: The looks at the rows; the group is of one of them.
    """

    rows: Rows
    everyone: Rows
    subject: Subject
    engine: Engine
    seed_of: Callable[[str, str, str], int]
    others: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    absent: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    versions: Mapping[Side, Rows] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    of_cell: Kept = field(default_factory=Kept)
    looked: Looked = field(default_factory=Looked)
    _places: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def explain(
        self, subject: Subject, explainer: OtherExplainer | None = None, *, draw: int = 0
    ) -> SaliencyMaps:
        """Return the maps of the group on a subject, by the cell's own explainer or another.

        Args:
            subject: The network that is explained.
            explainer: None = the cell's own.
            draw: Which draws of the explainer: 0 are those that every check has, and each other
                number is another seed, of which the values of no other check know.
        """
        return self.looked.explained(
            self.everyone,
            self._places,
            lambda rows: self.engine.maps(rows, subject, explainer, draw),
        )

    def refusal(self) -> str:
        """Return why the explainer has no answer to what the rows ask; "" if it has."""
        return self.engine.refusal(self.everyone)

    def cost(self, subject: Subject) -> MapCost:
        """Return what the maps of all rows of the cell on a subject cost when they were made."""
        return self.looked.cost(self.everyone, lambda rows: self.engine.cost(rows, subject))

    def explain_each(self, subject: Subject) -> tuple[SaliencyMaps, ...]:
        """Return the maps of the group's sources one by one, and not their means.

        Returns:
            As many sets of one map a row as a row has sources at most; ``EXCLUDED`` where it has
            fewer.
        """
        every = self.engine.maps_each(self.everyone, subject)
        return tuple(taken(maps, self._places) for maps in every)

    def reference_maps_each(self, subject: Subject) -> tuple[SaliencyMaps, ...]:
        """Return the same of all rows of the cell."""
        return self.engine.maps_each(self.everyone, subject)

    def variant(self, **settings: str) -> OtherExplainer:
        """Return the cell's explainer with settings replaced; a layer is looked for later."""
        return self.engine.variant(settings)

    def by(self, explainer: OtherExplainer) -> "Evidence":
        """Return the evidence with another explainer in the place of the cell's own."""
        return replace(self, engine=self.engine.instead(explainer))

    def alike(self, subject: Subject, one: OtherExplainer, other: OtherExplainer) -> bool:
        """Say whether two explainers give every row of the cell the same map, but for its scale."""
        return self.engine.alike(self.everyone, subject, one, other)

    def reference_maps(self, subject: Subject, *, draw: int = 0) -> tuple[SaliencyMaps, list[int]]:
        """Return the explainer's maps of all rows of the cell, and the identity of each."""
        maps = self.looked.reference(
            self.everyone, lambda rows: self.engine.maps(rows, subject, None, draw)
        )
        return maps, self.everyone.identities[:, 0].tolist()

    def places(self) -> Tensor:
        """Return the positions of the group's rows among all rows, (n,)."""
        return self._places

    def seed(self, purpose: str, row: int, label: str = "") -> int:
        """Return a seed for one row of the group; the label defaults to the row's side."""
        return self.seed_of(purpose, self.rows.id[row], label or self.rows.side)

    def on(self, side: Side) -> "Evidence":
        """Return the evidence with the given version of each image perturbed."""
        if side == self.rows.side:
            return self
        if side not in self.versions:
            raise ValueError(f"rows of kind '{self.rows.kind}' have no {side} to perturb")
        everyone = self.versions[side]
        versions = {**self.versions, self.rows.side: self.everyone}
        return replace(self, rows=everyone.take(self._places), everyone=everyone, versions=versions)

    def take(self, places: Tensor) -> "Evidence":
        """Return the evidence of some of all rows."""
        return replace(self, rows=self.everyone.take(places), _places=places)


@dataclass
class Ledger:
    """Collects a group's values, and returns a record row for every row, with or without values.

    Attributes:
        evidence: Of the group.
        metrics: The metrics that the protocol declares.
        networks: Re-drawn networks that were compared with.
        taught: Networks that were trained for the comparison.
        configurations: All that were tried, if the protocol chooses among some.
        remarks: Facts that a reader of the figures must know.
        inapplicable: Why metrics can have no value of such a model, by their names.
    """

    evidence: Evidence
    metrics: Sequence[Metric]
    _measured: dict[tuple[str, tuple[tuple[str, str | float], ...]], dict[str, Any]] = field(
        default_factory=dict
    )
    _maps: list[tuple[str, SaliencyMaps, bool]] = field(default_factory=list)
    _facts: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    networks: list[Network] = field(default_factory=list)
    taught: list[Taught] = field(default_factory=list)
    configurations: list[Configuration] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    inapplicable: dict[str, str] = field(default_factory=dict)

    def watch(self, name: str, maps: SaliencyMaps) -> SaliencyMaps:
        """Note maps of the cell's explainer: their states and diagnostics belong to the rows.

        The share of tied pixels of each map is noted with them.
        """
        self._maps.append((name, maps, False))
        tied: FloatArray = np.full(len(maps.states), np.nan)
        kept = usable(maps.states)
        tied[kept] = tied_shares(maps.positive[kept])
        self.note(name, TIED_SHARE, tied)
        return maps

    def watch_redrawn(self, redrawn: Redrawn, maps: SaliencyMaps) -> SaliencyMaps:
        """Note maps under a re-drawn network; a constant one is not the explainer's fault."""
        self.networks.append(redrawn.network)
        return self.watch_under(redrawn.network.name, maps)

    def watch_under(self, name: str, maps: SaliencyMaps) -> SaliencyMaps:
        """Note maps under a condition in which a constant one is not the explainer's fault."""
        self._maps.append((name, maps, True))
        return maps

    def watch_student(self, student: Student, maps: SaliencyMaps) -> SaliencyMaps:
        """Note maps under a network that was trained for the check.

        Under permuted labels a constant map is not the explainer's fault.
        """
        self.taught.append(student.network)
        name, is_forgiven = student.network.name, student.network.labels == "permuted"
        if is_forgiven:
            self._maps.append((name, maps, True))
            return maps
        return self.watch(name, maps)

    def note(self, name: str, fact: str, values: NDArray[np.generic]) -> None:
        """Note a number about each map of a watched set, (n,), beside the explainer's own."""
        self._facts.setdefault(name, {})[fact] = np.asarray(values, dtype=np.float64)

    def remark(self, text: str) -> None:
        """Note a fact that a reader of the cell's figures must know; repeats are dropped."""
        if text not in self.remarks:
            self.remarks.append(text)

    def leave_out(self, metric: str, reason: str) -> None:
        """Say why a metric does not apply to such a model: its limits decide nothing."""
        self.inapplicable[metric] = reason

    def enter(
        self, metric: str, map_: str, values: FloatArray, states: Sequence[RowState],
        under: Condition | None = None, *, about: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Enter (n,) values of one metric, NaN where a row has none, with a state for each.

        Rows that the metric is not ``about``, (n,), have neither value nor state.
        """
        assert metric in {one.name for one in self.metrics}, f"{metric} is not declared"
        assert len(values) == len(states) == len(self.evidence.rows)
        entry = self._entry(map_, under or {})
        entry["values"][metric] = np.asarray(values, dtype=np.float64)
        entry["states"][metric] = tuple(states)
        entry["about"][metric] = np.ones(len(values), bool) if about is None else about

    def entered(
        self, metric: str, map_: str, under: Condition
    ) -> tuple[FloatArray, Sequence[RowState]] | None:
        """Return values and states that were entered; None if there are none."""
        entry = self._measured.get((map_, tuple(under.items())))
        if entry is None or metric not in entry["values"]:
            return None
        return entry["values"][metric], entry["states"][metric]

    def curve(
        self, kind: str, map_: str, points: FloatArray, under: Condition | None = None
    ) -> None:
        """Enter (n, K + 1) points at equal steps from nothing to everything."""
        self._entry(map_, under or {})["curves"][kind] = points

    def rows(self, cell: str) -> list[Row]:
        """Return the rows of the group."""
        return [self._row(cell, position) for position in range(len(self.evidence.rows))]

    def _entry(self, map_: str, under: Condition) -> dict[str, Any]:
        blank: dict[str, Any] = {"values": {}, "states": {}, "curves": {}, "about": {}}
        return self._measured.setdefault((map_, tuple(under.items())), blank)

    def _row(self, cell: str, row: int) -> Row:
        rows, worst, reason = self.evidence.rows, RowState.OK, ""
        for _, maps, is_redrawn in self._maps:
            state = maps.states[row]
            forgiven = is_redrawn and state not in BROKEN_STATES
            if not forgiven and gravity(state) > gravity(worst):
                worst, reason = state, maps.reasons[row]
        own = [(name, maps) for name, maps, is_redrawn in self._maps if not is_redrawn]
        present = [
            (key, entry, [name for name, about in entry["about"].items() if about[row]])
            for key, entry in self._measured.items()
        ]
        return Row(
            cell=cell,
            row=rows.id[row],
            identities=rows.identities[row].tolist(),
            state=worst,
            reason=reason,
            diagnostics={
                name: {
                    key: float(found[row])
                    for of in (maps.diagnostics, self._facts[name])
                    for key, found in of.items()
                }
                for name, maps in own
            },
            constant_under=[
                name
                for name, maps, is_redrawn in self._maps
                if is_redrawn and maps.states[row] is RowState.DEGENERATE_MAP
            ],
            thumbnail=thumbnail(own[0][1], row) if own else None,
            is_mated=bool(rows.is_mated[row]),
            slices=dict(rows.slices[row]) if rows.slices else {},
            measured=[
                Measured(
                    map=map_,
                    under=dict(under),
                    values={name: float(entry["values"][name][row]) for name in names},
                    states={name: entry["states"][name][row] for name in names},
                    curves={kind: points[row].tolist() for kind, points in entry["curves"].items()},
                )
                for (map_, under), entry, names in present
                if names or entry["curves"]
            ],
        )

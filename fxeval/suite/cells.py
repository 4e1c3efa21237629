"""A cell, the unit of evaluation that a suite asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fxeval.slices import Slice
from fxeval.statistics.limits import Limit
from fxeval.verification.demands import Verification


@dataclass(frozen=True)
class Use:
    """A subject as a suite names it.

    Attributes:
        id: Id of the fixture.
        params: Parameters that the suite sets.
        where: ``file:line:column``.
        alias: Another name in this suite, so that one fixture can be used with several settings.
        folder: Folder at which relative paths start; None = that of the suite.
    """

    id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    alias: str | None = None
    folder: Path | None = None

    @property
    def name(self) -> str:
        """The name in reports: the alias if there is one."""
        return self.alias or self.id


@dataclass(frozen=True)
class Cell:
    """One check x model x explainer x pair list: one pytest test.

    Attributes:
        id: ``check[model-explainer-pairs]``, unique in the suite.
        suite: Name of the suite.
        check: Id of the check in the suite.
        kind: The protocol, for example ``faithfulness.deletion_insertion``.
        why: The suite's sentence on why it matters.
        model: The face model.
        explainer: The explainer.
        pairs: The pair list.
        n: Number of mated pairs to measure; None = all.
        n_where: ``file:line:column`` of n.
        parameters: The kind's validated parameters object (``fxeval.metrics.<kind>.Parameters``).
        limits: The limits that must hold.
        seed: The suite's seed.
        confidence: Two-sided confidence of the intervals.
        on_inconclusive: Effect of an undecided interval on the test: ``fail`` or ``warn``; or
            ``extend``: it fails if all rows leave it open.
        on_unsupported: Effect on the test if the explainer cannot explain this kind of model:
            ``fail`` or ``skip``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        where: ``file:line:column`` of the check.
        file: The suite file, as messages call it; the check may stand in the one that it extends.
        verification: The suite's demands on the model before it is explained.
        seeds: Number of differently seeded maps of each row, if the explainer depends on a seed.
        others: Further explainers whose values the limits compare with, on the same rows.
        further: Further models that parameters of the kind name, by parameter, in the suite's
            order; the cell's own is not among them.
        demands: The suite's demands on each of these models, by name.
        slices: The columns by whose words its results are told apart.
        self_check: Whether its metrics are checked on maps of known worth before they judge.
        looks: Number of planned looks at a cell that is extended, or ``open``; None = one.
    """

    id: str
    suite: str
    check: str
    kind: str
    why: str
    model: Use
    explainer: Use
    pairs: Use
    n: int | None
    parameters: Any
    limits: tuple[Limit, ...]
    seed: int
    confidence: float
    on_inconclusive: Literal["fail", "warn", "extend"]
    on_unsupported: Literal["fail", "skip"]
    device: str
    where: str
    file: str = ""
    verification: Verification = field(default_factory=Verification)
    n_where: str = ""
    seeds: int = 1
    others: tuple[Use, ...] = ()
    further: Mapping[str, tuple[Use, ...]] = field(default_factory=dict)
    demands: Mapping[str, Verification] = field(default_factory=dict)
    slices: tuple[Slice, ...] = ()
    self_check: bool = False
    looks: int | Literal["open"] | None = None

    @property
    def models(self) -> tuple[Use, ...]:
        """Its own model, then the further ones, each once."""
        uses = (self.model, *(one for named in self.further.values() for one in named))
        return tuple({one.name: one for one in uses}.values())

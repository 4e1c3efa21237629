"""The plan of a suite, and the cells that follow from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fxeval.errors import SuiteError
from fxeval.slices import Slice
from fxeval.statistics.limits import Limit
from fxeval.suite.cells import Cell, Use
from fxeval.verification.demands import Verification

MAX_CELLS = 10_000
DEFAULT_SEEDS = 3
"""Differently seeded maps of an explainer that depends on a seed: the fewest that may decide."""

DEFAULT_LOOKS = 5
"""Planned looks at a cell that is extended."""

OnInconclusive: TypeAlias = Literal["fail", "warn", "extend"]
Looking: TypeAlias = int | Literal["open"]


@dataclass(frozen=True)
class Subject:
    """A face model, explainer or pair list as a suite lists it.

    Attributes:
        name: Its name in this suite; the fixture's id unless the suite gave another with ``as``.
        use: The fixture's id and the parameters for it.
        n: Number of mated pairs to measure, >= 1; None = all. Pair lists only.
        n_where: ``file:line:column`` of n.
    """

    name: str
    use: Use
    n: int | None = None
    n_where: str = ""


@dataclass(frozen=True)
class Check:
    """One check of a suite, with all defaults filled in.

    Attributes:
        id: Unique in the suite.
        kind: Key of ``fxeval.metrics.CATALOGUE``.
        why: Why it matters; may be empty.
        parameters: The kind's ``Parameters`` object.
        limits: The limits that must hold; at least one.
        models: The face models it runs on.
        explainers: The explainers it runs on.
        pairs: The pair lists it runs on.
        marks: Names of pytest marks.
        where: ``file:line:column``.
        line: Line of the suite file that asks for it: its own, or that of ``extends``.
        seeds: Number of differently seeded maps of explainers that depend on a seed, 1 to 20.
        others: The explainers that its limits compare with.
        further: Further models that parameters of the kind name, by parameter.
        slices: The columns by whose words its results are told apart.
        on_inconclusive: Effect of an undecided interval on the test; None = the suite's.
        looks: Number of planned looks if it is extended, or ``open``; None = the suite's.
    """

    id: str
    kind: str
    why: str
    parameters: Any
    limits: tuple[Limit, ...]
    models: tuple[Subject, ...]
    explainers: tuple[Subject, ...]
    pairs: tuple[Subject, ...]
    marks: tuple[str, ...]
    where: str
    line: int = 1
    seeds: int = DEFAULT_SEEDS
    others: tuple[Subject, ...] = ()
    further: Mapping[str, tuple[Subject, ...]] = field(default_factory=dict)
    slices: tuple[Slice, ...] = ()
    on_inconclusive: OnInconclusive | None = None
    looks: Looking | None = None


@dataclass(frozen=True)
class Suite:
    """A suite file, validated, with its defaults filled in.

    Attributes:
        path: The file, as given.
        name: Name of the suite.
        title: Title for readers; the name if the file has none.
        seed: Seed of everything random, >= 0.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        confidence: Two-sided confidence of the intervals, in [0.5, 1).
        on_inconclusive: Effect of an undecided interval on the test.
        on_unsupported: Effect on the test if the explainer cannot explain this kind of model.
        checks: The checks in the order of the file.
        formats: Formats of the report: ``html``, ``json``, ``markdown``.
        digest: SHA-256, as hex, of everything but the path and the places, in canonical JSON:
            files that differ only in layout or comments have one digest.
        verification: Demands on the models before they are explained; None = no demand.
        self_check: Whether metrics are checked on maps of known worth before they judge.
        looks: Number of planned looks at a cell that is extended, or ``open``.
    """

    path: Path
    name: str
    title: str
    seed: int
    device: str
    confidence: float
    on_inconclusive: OnInconclusive
    on_unsupported: Literal["fail", "skip"]
    checks: tuple[Check, ...]
    formats: tuple[str, ...]
    digest: str
    verification: Verification | None = None
    self_check: bool = False
    looks: Looking = DEFAULT_LOOKS


def cells(suite: Suite) -> tuple[Cell, ...]:
    """Return every combination the suite asks for, all cells of one model together.

    The models come in the order in which the checks first name them, then checks, explainers and
    pair lists in the order of the file. A model with other parameters is another model.

    Raises:
        SuiteError: If there are more than ``MAX_CELLS``.
    """
    count = sum(len(c.models) * len(c.explainers) * len(c.pairs) for c in suite.checks)
    if count > MAX_CELLS:
        raise SuiteError(
            f"{suite.checks[0].where}: error: the suite asks for {count} cells, more than "
            f"{MAX_CELLS}. Split it."
        )
    models = dict.fromkeys(_weights(model) for check in suite.checks for model in check.models)
    return tuple(
        _cell(suite, check, model, explainer, pairs)
        for wanted in models
        for check in suite.checks
        for model, explainer, pairs in product(check.models, check.explainers, check.pairs)
        if _weights(model) == wanted
    )


def _weights(model: Subject) -> tuple[str, str, Path | None]:
    """Return the key that decides which model is loaded: the fixture and its parameters."""
    return model.use.id, json.dumps(model.use.params, sort_keys=True), model.use.folder


def _cell(suite: Suite, check: Check, model: Subject, explainer: Subject, pairs: Subject) -> Cell:
    further = {
        parameter: tuple(one for one in named if one.name != model.name)
        for parameter, named in check.further.items()
    }
    return Cell(
        id=f"{check.id}[{model.name}-{explainer.name}-{pairs.name}]",
        suite=suite.name,
        check=check.id,
        kind=check.kind,
        why=check.why,
        model=_named(model),
        explainer=_named(explainer),
        pairs=_named(pairs),
        n=pairs.n,
        n_where=pairs.n_where,
        parameters=check.parameters,
        limits=check.limits,
        seed=suite.seed,
        confidence=suite.confidence,
        on_inconclusive=check.on_inconclusive or suite.on_inconclusive,
        on_unsupported=suite.on_unsupported,
        device=suite.device,
        where=check.where,
        file=str(suite.path),
        verification=_demanded(suite, model),
        seeds=check.seeds,
        slices=check.slices,
        others=tuple(_named(other) for other in check.others if other.name != explainer.name),
        further={parameter: tuple(map(_named, named)) for parameter, named in further.items()},
        demands={one.name: _demanded(suite, one) for named in further.values() for one in named},
        self_check=suite.self_check,
        looks=_looks(suite, check),
    )


def _looks(suite: Suite, check: Check) -> Looking | None:
    """Return how a cell is looked at; without a critical limit, no look could decide it."""
    decides = any(limit.severity == "critical" for limit in check.limits)
    is_extended = (check.on_inconclusive or suite.on_inconclusive) == "extend"
    return (check.looks or suite.looks) if is_extended and decides else None


def _demanded(suite: Suite, model: Subject) -> Verification:
    """Return what a suite demands of a model."""
    asked = suite.verification or Verification()
    return asked if asked.models is None or model.name in asked.models else Verification()


def _named(subject: Subject) -> Use:
    """Return the use of a subject under the name it has in the suite."""
    return replace(subject.use, alias=subject.name)

"""Which behaviours shipped explainers have; ``python -m fxeval.truth behaviours`` prints it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from fxeval.contracts import BROKEN_STATES, Explainer, FaceModel, Maps
from fxeval.errors import FxevalError
from fxeval.explainers import shipped
from fxeval.functional.controls import CONTROLS, ControlInputs, control_maps
from fxeval.results import Estimate
from fxeval.seeding import seed_of
from fxeval.statistics.estimate import Law, Sample, estimate
from fxeval.truth.behaviours import (
    BEHAVIOURS,
    LINE,
    Behaviour,
    FloatArray,
    evidence_share,
    oracle_maps,
)
from fxeval.truth.evidence_regions import KnownPairs
from fxeval.truth.planted import SIDE
from fxeval.truth.table import maps_of, shipped_explainers

PAIRS = 32

# On a real network a forward pass costs milliseconds: with these, the table takes minutes there.
FEWER: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "srise": {"masks": 250}, "corrrise": {"masks": 250}, "rise": {"masks": 500},
        "minplus": {"step": 28},
    }
)  # fmt: skip

Word = Literal["right", "wrong", "undecided", "no map"]


@dataclass(frozen=True)
class Finding:
    """What an explainer or a control does with one behaviour.

    Attributes:
        maps: Name of the explainer or control.
        behaviour: Name of the behaviour.
        word: ``right`` if the interval lies above 0.5, ``wrong`` if below, ``undecided`` if 0.5 is
            in it, ``no map`` if no pair has a usable map.
        share: Mean share of the evidence that is found; None without a map.
        broken: Pairs without a usable map; they count as a map without an order does.
        note: Why there is no map.
    """

    maps: str
    behaviour: str
    word: Word
    share: Estimate | None
    broken: int = 0
    note: str = ""


def behaviour_table(
    n: int = PAIRS,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    behaviours: Iterable[str] = BEHAVIOURS,
    seed: int = 0,
) -> list[Finding]:
    """Measure explainers and controls on all behaviours.

    Args:
        n: Number of pairs of each behaviour, each with a place of its own.
        explainers: By name; None = all shipped ones as in ``table.SETTINGS``, on a real network
            with ``FEWER`` masks.
        behaviours: Their names.
        seed: Of models, images and mask banks.

    Raises:
        ValueError: If a behaviour is unknown, or n is less than 2.
    """
    if unknown := sorted({*behaviours} - BEHAVIOURS.keys()):
        raise ValueError(f"expected some of {', '.join(BEHAVIOURS)}, got {', '.join(unknown)}.")
    if n < 2:
        raise ValueError(f"behaviour_table: expected at least 2 pairs, got {n}.")
    found = []
    for name in behaviours:
        behaviour = BEHAVIOURS[name]
        situations = list(behaviour.situations(n, seed))
        given = _shipped(behaviour) if explainers is None else explainers
        for maps, explainer in given.items():
            found.append(_explained(maps, explainer, behaviour, situations, seed))
        for maps, values in _controls(situations, seed):
            found.append(_found(maps, behaviour, values))
    return found


def as_markdown(findings: list[Finding]) -> str:
    """Return the table in Markdown: a line for each explainer, a column for each behaviour."""
    columns = list(dict.fromkeys(one.behaviour for one in findings))
    cells = {(one.maps, one.behaviour): _spoken(one) for one in findings}
    lines = [f"| maps | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for maps in dict.fromkeys(one.maps for one in findings):
        lines.append(f"| {maps} | {' | '.join(cells[maps, column] for column in columns)} |")
    reasons = dict.fromkeys(
        f"* {one.maps}, {one.behaviour}: {one.note}" for one in findings if one.note
    )
    return "\n".join([*lines, *(["", "No map:", "", *reasons] if reasons else [])]) + "\n"


def _explained(
    maps: str, explainer: Explainer, behaviour: Behaviour,
    situations: list[tuple[FaceModel, KnownPairs]], seed: int,
) -> Finding:  # fmt: skip
    values, broken, reasons = [], 0, list[str]()
    for model, pairs in situations:
        try:
            made = maps_of(explainer, model, pairs, seed)
        except FxevalError as error:
            return Finding(maps, behaviour.name, "no map", None, _count(situations), str(error))
        values.append(evidence_share(made, pairs))
        lost = [row for row, state in enumerate(made.states) if state in BROKEN_STATES]
        broken += len(lost)
        reasons += [made.reasons[row] for row in lost]
    if broken == _count(situations):
        return Finding(maps, behaviour.name, "no map", None, broken, reasons[0])
    return _found(maps, behaviour, np.concatenate(values), broken)


def _found(maps: str, behaviour: Behaviour, values: FloatArray, broken: int = 0) -> Finding:
    law = Law("mean", "light", behaviour.least, 1.0)
    share = estimate(Sample(values, np.arange(len(values))), law, 0.95)
    word: Word = "undecided"
    if share.low > LINE:
        word = "right"
    elif share.high < LINE:
        word = "wrong"
    return Finding(maps, behaviour.name, word, share, broken)


def _controls(
    situations: list[tuple[FaceModel, KnownPairs]], seed: int
) -> Iterator[tuple[str, FloatArray]]:
    """Yield the oracle's values, and those of maps that know neither the model nor the pair."""
    named: dict[str, list[FloatArray]] = {}

    def add(name: str, maps: Maps, pairs: KnownPairs) -> None:
        named.setdefault(name, []).append(evidence_share(maps, pairs))

    first = 0
    for model, pairs in situations:
        rows = range(first, first + len(pairs.probes))
        first = rows.stop
        add("oracle", oracle_maps(model, pairs), pairs)
        seeds = [seed_of("behaviour_control", seed, row) for row in rows]
        inputs = ControlInputs(pairs.probes, seeds, rows)
        for name, control in CONTROLS.items():
            if not control.depends_on_explainer:
                add(f"control.{name}", control_maps(name, inputs), pairs)
        add("a constant", torch.ones((len(rows), SIDE, SIDE)), pairs)
    for name, values in named.items():
        yield name, np.concatenate(values)


def _shipped(behaviour: Behaviour) -> dict[str, Explainer]:
    """Return the shipped explainers; on a real network, with fewer masks."""
    found = shipped_explainers()
    if behaviour.on_a_real_network:
        for name in found:
            id, *params = name.split(" ")
            if id in FEWER:
                kind, own = shipped(id), dict(FEWER[id])
                if "coverage_corrected=True" in params:
                    own["coverage_corrected"] = True
                found[name] = kind(**own)
    return found


def _count(situations: list[tuple[FaceModel, KnownPairs]]) -> int:
    return sum(len(pairs.probes) for _, pairs in situations)


def _spoken(finding: Finding) -> str:
    if finding.share is None:
        return finding.word
    share = finding.share
    lost = f", {finding.broken} without a map" if finding.broken else ""
    return f"{finding.word} {share.value:.2f} [{share.low:.2f}, {share.high:.2f}]{lost}"

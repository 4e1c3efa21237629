"""Maps that explain nothing, or another network: what the sanity verdict must not pass.

A control takes the place of the explainer behind the evidence of a cell. It knows more than any
explainer should: which pair a row is of in every version of its pictures, which network is
explained, and whether that is the trained one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.controls import centre, edge, random_blobs, random_pixels
from fxeval.functional.map_similarity import means_of_others, norm01
from fxeval.metrics.protocol import Evidence, Redraw, Redrawn, Rows, Subject
from fxeval.records.schema import CellFacts, CellResult
from fxeval.results import RowState
from fxeval.run.measure import plan_of
from fxeval.seeding import seed_of
from fxeval.statistics.limits import AtLeast
from fxeval.statistics.results import results_of

LIMITS = (
    AtLeast("repeat", at_least=0.5),
    AtLeast("change", at_least=0.3),
    AtLeast("compare", at_least=0.1),
    AtLeast("input", at_least=0.05),
    AtLeast("nudge", at_least=0.5),
)
"""The limits of the verdict."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a control may know.

    Attributes:
        evidence: Of the plain rows.
        rows: All rows, in the version that is explained.
        subject: The network that is explained.
        draw: 0, or 1 for another seed.
    """

    evidence: Evidence
    rows: Rows
    subject: Subject
    draw: int

    @property
    def weights(self) -> str:
        """A digest of the weights: nudged ones have another."""
        return self.subject.name

    @property
    def is_trained(self) -> bool:
        """Whether the network behaves like the trained one."""
        return self.subject.name == self.evidence.subject.name or "nudged" in self.subject.name

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the maps."""
        return self.subject.size

    def faces(self) -> list[object]:
        """Whose face each probe shows, whatever was done to the picture."""
        return self.evidence.everyone.id

    def pairs(self) -> list[object]:
        """Which two faces each row is of, whatever was done to the pictures."""
        swapped = self.rows.side == "impostor"
        with_ = self.rows.against[:, 0].tolist() if swapped else ["mate"] * len(self.rows)
        return [f"{one} {other}" for one, other in zip(self.faces(), with_, strict=True)]

    def pictures(self) -> list[object]:
        """Names of the exact pictures of the probes."""
        version = self.rows.side if self.rows.side in ("noisy", "shifted") else "as it is"
        return [f"{one} {version}" for one in self.faces()]

    def probes(self) -> Tensor:
        """The pictures of the probes, (N, 3, H, W)."""
        return self.subject.pixels(self.rows.source[:, 0])

    def references(self) -> Tensor:
        """The pictures of the references."""
        return self.subject.pixels(self.rows.against[:, 0])

    def own(self) -> Tensor:
        """The maps of the explainer itself, (N, H, W)."""
        return self.evidence.engine.maps(self.rows, self.subject, None, self.draw).positive


Control = Callable[[Asked], Tensor]


@dataclass(eq=False)
class Controlled:
    """The engine of a cell with a control in the place of its explainer."""

    evidence: Evidence
    control: Control
    made: dict[Any, tuple[object, SaliencyMaps]] = field(default_factory=dict)

    def maps(self, rows: Rows, subject: Subject, explainer: object, draw: int = 0) -> SaliencyMaps:
        key = rows.side, subject.name, draw
        if key not in self.made:
            found = self.control(Asked(self.evidence, rows, subject, draw)).float()
            states = tuple(
                RowState.NAN_MAP
                if not one.isfinite().all()
                else RowState.DEGENERATE_MAP
                if one.min() == one.max()
                else RowState.OK
                for one in found
            )
            self.made[key] = rows, SaliencyMaps(found, None, states, ("",) * len(states))
        return self.made[key][1]


def measured_with(control: Control, cell: Any, evidence: Evidence, measure: Any) -> CellResult:
    """Measure a control in the place of a cell's explainer, and judge it."""
    found = replace(
        evidence, engine=Controlled(evidence, control), of_cell=type(evidence.of_cell)()
    )
    ledger = measure(found, cell.parameters)
    facts = CellFacts(networks=ledger.networks, inapplicable=ledger.inapplicable)
    return results_of(plan_of(cell), facts, ledger.rows(cell.id))


def with_networks_kept(evidence: Evidence) -> Evidence:
    """Return evidence whose re-drawn networks are built once for all controls."""
    kept: dict[Redraw, Redrawn] = {}
    redraw = evidence.subject.redraw

    def once(wanted: Redraw) -> Redrawn:
        if wanted not in kept:
            kept[wanted] = redraw(wanted)
        return kept[wanted]

    subject = replace(evidence.subject, redraw=once)
    behind = evidence.engine._behind  # subjects are known by what they are, not by their values
    behind[id(subject)] = behind[id(evidence.subject)]
    return replace(evidence, subject=subject)


def failing(result: CellResult) -> set[str]:
    """Return the axes that fail."""
    return {one.metric for one in result.limits if one.verdict.outcome == "fail"}


def _noise(asked: Asked, names: list[object], *more: object, blobs: bool = False) -> Tensor:
    seeds = [seed_of(*map(str, (name, *more))) for name in names]
    return (random_blobs if blobs else random_pixels)(seeds, asked.size)


def _fresh(asked: Asked, *, blobs: bool = False) -> Tensor:
    """Noise that nothing repeats."""
    at = asked.rows.side, asked.subject.name, asked.draw
    return _noise(asked, asked.faces(), "fresh", *at, blobs=blobs)


def _mixed(asked: Asked, share: float, *, blobs: bool) -> Tensor:
    own, noise = norm01(asked.own())[0], norm01(_fresh(asked, blobs=blobs))[0]
    return (1 - share) * own + share * noise


def _mean_map(asked: Asked) -> Tensor:
    everyone = asked.evidence.everyone
    maps = norm01(asked.own())[0]
    usable = torch.ones(len(maps), dtype=torch.bool)
    return means_of_others(maps, everyone.identities[:, 0].tolist(), usable)[0]


def _of_other(asked: Asked, index: int) -> Tensor:
    """The explainer's maps of one other network."""
    other = asked.evidence.subject.redraw(Redraw(index)).subject
    return replace(asked, subject=other).own()


def _agreement(asked: Asked) -> Tensor:
    return 1 - (asked.probes() - asked.references()).abs().mean(1)


def _centre(asked: Asked) -> Tensor:
    return centre(len(asked.rows), asked.size)


def _edges(asked: Asked) -> Tensor:
    return edge(asked.probes())


def _noise_unless_trained(asked: Asked, otherwise: Control, by: str) -> Tensor:
    trained = asked.is_trained if by == "behaviour" else asked.weights == "mini_resnet"
    return otherwise(asked) if trained else _fresh(asked)


CONTROLS: Mapping[str, tuple[Control, frozenset[str]]] = {
    name: (control, frozenset(axes.split()))
    for name, control, axes in (
        ("fresh pixels", _fresh, "repeat change compare input nudge"),
        ("fresh blobs", lambda a: _fresh(a, blobs=True), "repeat change compare input nudge"),
        ("noise of the picture", lambda a: _noise(a, a.pictures()), "repeat change compare input"),
        ("noise of the face", lambda a: _noise(a, a.faces(), blobs=True), "change compare"),
        (
            "noise of the weights",
            lambda a: _noise(a, ["all"] * len(a.rows), a.weights),
            "repeat change compare input nudge",
        ),
        (
            "noise of picture and weights",
            lambda a: _noise(a, a.pictures(), a.weights),
            "repeat change compare input nudge",
        ),
        (
            "noise of face and weights",
            lambda a: _noise(a, a.faces(), a.weights, blobs=True),
            "compare nudge",
        ),
        (
            "noise of pair and weights",
            lambda a: _noise(a, a.pairs(), a.weights, blobs=True),
            "nudge",
        ),
        (
            "noise of pair and behaviour",
            lambda a: _noise(a, a.pairs(), a.is_trained, blobs=True),
            "",
        ),
        ("centre", _centre, "repeat change compare input nudge"),
        (
            "constant",
            lambda a: torch.ones(len(a.rows), *a.size),
            "repeat change compare input nudge",
        ),
        ("edges", _edges, "change compare"),
        ("agreement of the pictures", _agreement, "change"),
        (
            "noise on re-drawn, centre on trained",
            lambda a: _noise_unless_trained(a, _centre, "behaviour"),
            "repeat change compare input nudge",
        ),
        (
            "noise on re-drawn, centre on this digest",
            lambda a: _noise_unless_trained(a, _centre, "digest"),
            "repeat change compare input nudge",
        ),
        (
            "noise on re-drawn, edges on trained",
            lambda a: _noise_unless_trained(a, _edges, "behaviour"),
            "compare",
        ),
        (
            "noise on re-drawn, agreement on trained",
            lambda a: _noise_unless_trained(a, _agreement, "behaviour"),
            "",
        ),
        ("mean map", _mean_map, "input"),
        ("half pixels", lambda a: _mixed(a, 0.5, blobs=False), ""),
        ("half blobs", lambda a: _mixed(a, 0.5, blobs=True), "repeat change nudge"),
        (
            "three quarters blobs",
            lambda a: _mixed(a, 0.75, blobs=True),
            "repeat change compare input nudge",
        ),
        ("one other network", lambda a: _of_other(a, 9), "change"),
        (
            "another network for each behaviour",
            lambda a: _of_other(a, 9 if a.is_trained else 10),
            "",
        ),
    )
}
"""Each control, and the axes that it fails on the bundled network."""

"""Evidence for protocols without an engine: given maps, a model, pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import Fill, Pairs, RowState, SaliencyMaps
from fxeval.engine.forward_pool import ForwardPool
from fxeval.engine.inputs import Comparison
from fxeval.engine.row_kinds import mated_pairs
from fxeval.hooks.layer_groups import LayerGroup
from fxeval.metrics.orders import Order
from fxeval.metrics.protocol import Evidence, Ledger, Redraw, Redrawn, Rows, Subject
from fxeval.metrics.removal_curves import Removal
from fxeval.records.schema import Network
from fxeval.seeding import seed_of


@dataclass
class GivenMaps:
    """An engine that makes no maps: those of each subject and side are there."""

    maps_of: Mapping[tuple[str, str], SaliencyMaps] = field(default_factory=dict)

    def maps(self, rows: Rows, subject: Subject, explainer: object, draw: int = 0) -> SaliencyMaps:
        return self.maps_of[subject.name, rows.side]


def comparison(pairs: Pairs, side: str = "probe") -> Comparison:
    """Return one image of every pair against the other, to be explained."""
    table = mated_pairs(pairs)
    rows = table.rows if side == "probe" else table.versions[side]
    return Comparison(table.faces, rows.id, rows.source[:, 0], rows.against[:, 0], rows.contrast)


def removal(given: Evidence, order: Tensor, fill: Fill) -> Removal:
    """All rows of the evidence lose their pixels in a given order."""
    whole = Order("any", np.arange(len(order)), order, (RowState.OK,) * len(order))
    return Removal(given, given.subject, whole, fill)


def subject_of(
    model, faces, *, threshold=None, pool=None, name="own", redraw=None, groups=()
) -> Subject:
    pool = pool or ForwardPool()
    return Subject(
        name=name,
        size=tuple(faces.images.shape[-2:]),
        similarity=getattr(model, "similarity", "cosine"),
        operating_threshold=threshold,
        clean=lambda: pool.clean(model, faces),
        embed=lambda wanted: pool.embed(model, faces, wanted),
        pixels=lambda images: faces.images[images].float() / 255,
        fit=lambda of, maps: maps,
        redraw=redraw,
        labels=None,
        layers=lambda steps: tuple(groups),
    )


def evidence_of(
    pairs: Pairs, model=None, *, maps: Mapping[str, SaliencyMaps] | None = None, threshold=None,
    pool: ForwardPool | None = None, seed: int = 5, after: Sequence[SaliencyMaps] = (),
    spread: float = 0.5, share: float = 1.0, groups: Sequence[LayerGroup] = (),
    partly: Mapping[str, SaliencyMaps] | None = None,
) -> Evidence:  # fmt: skip
    """Return the evidence of all mated pairs.

    ``after`` are maps of re-drawn networks, ``partly`` those of partly re-drawn ones, by their
    layers.
    """
    table = mated_pairs(pairs)
    given = {("own", side): found for side, found in (maps or {}).items()}

    def redraw(wanted: Redraw) -> Redrawn:
        name = wanted.label
        network = Network(name=name, spread=spread, redrawn_share=share, layers=wanted.of)
        return Redrawn(subject_of(model, table.faces, name=name), network)

    for index, found in enumerate(after):
        given[f"re-drawn network {index + 1}", "probe"] = found
    for layers, found in (partly or {}).items():
        given[f"re-drawn network 1 ({layers})", "probe"] = found
    subject = subject_of(
        model, table.faces, threshold=threshold, pool=pool, redraw=redraw, groups=groups
    )
    return Evidence(
        rows=table.rows,
        everyone=table.rows,
        versions=table.versions,
        subject=subject,
        engine=GivenMaps(given),
        seed_of=lambda purpose, row, label: seed_of(seed, purpose, row, label),
    ).take(torch.arange(len(pairs)))


def series_of(ledger: Ledger) -> dict[tuple, SimpleNamespace]:
    """Return values and states by metric, map and condition, read back from the rows."""
    rows = ledger.rows("cell")
    found: dict[tuple, SimpleNamespace] = {}
    for row in rows:
        for one in row.measured:
            for metric, value in one.values.items():
                key = (metric, one.map, *one.under.values())
                blank = SimpleNamespace(values=[], states=[])
                entry = found.setdefault(key, blank)
                entry.values.append(np.nan if value is None else value)
                entry.states.append(RowState(one.states[metric]))
    for entry in found.values():
        entry.values, entry.states = np.array(entry.values), tuple(entry.states)
    return found

"""Sets of maps of one list under several conditions, and how alike the maps of a row are in two.

The maps are compared at 28 x 28, by Spearman's correlation. What is compared are the *residuals*,
each map less the mean map of the other identities in the same set, and for information the maps
themselves (:mod:`fxeval.functional.map_similarity`). A constant map takes part with a random order
of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.map_similarity import means_of_others, pooled, rank_vectors, residuals
from fxeval.metrics.protocol import Evidence, Ledger, Redraw, Redrawn, signed, taken, usable
from fxeval.results import BROKEN_STATES, EXPLAINER, RowState, gravity
from fxeval.seeding import generator_of

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

POSITIVE, SIGNED = "positive", "signed"
PARTS = (POSITIVE, SIGNED)
"""Which part of the maps is compared: the evidence for the similarity, or that less the evidence
against it, where the explainer gives both."""

PLAIN, SEED = "plain", "another seed"


@dataclass(frozen=True, eq=False)
class MapSet:
    """The maps of all rows of a cell under one condition, as vectors of ranks.

    Attributes:
        residual: (N, 784) of the residuals; zeros where a row has no order.
        whole: (N, 784) of the maps themselves.
        mean: (N, 784) of the mean maps of the other identities.
        is_constant: (N,) whether the map is constant, and its order drawn.
    """

    residual: FloatArray
    whole: FloatArray
    mean: FloatArray
    is_constant: BoolArray


@dataclass(frozen=True, eq=False)
class Gathered:
    """The maps of all rows of a cell under several conditions.

    Attributes:
        evidence: Of the cell.
        maps: By the name of the condition; ``plain`` are those of the network as it is, and the
            pictures as they are.
        networks: Those with other weights, by the name of the condition.
        sets: The maps as vectors of ranks, by condition and part; filled as they are asked for.
    """

    evidence: Evidence
    maps: dict[str, SaliencyMaps]
    networks: dict[str, Redrawn] = field(default_factory=dict)
    sets: dict[tuple[str, str], MapSet] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors; the maps are kept elsewhere, too."""
        return sum(one.residual.nbytes * 3 for one in self.sets.values())

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the maps that there are."""
        return PARTS if self.maps[PLAIN].negative is not None else (POSITIVE,)

    def draw(self) -> None:
        """Add the maps at another seed of the explainer; the same maps if it has none."""
        found, _ = self.evidence.reference_maps(self.evidence.subject, draw=1)
        self.maps[SEED] = found

    def version(self, side: str) -> None:
        """Add the maps of another version of the rows."""
        found, _ = self.evidence.on(side).reference_maps(self.evidence.subject)
        self.maps[side] = found

    def network(self, wanted: Redraw) -> str:
        """Add the maps of the plain rows on a network with other weights; return its name."""
        redrawn = self.evidence.subject.redraw(wanted)
        name = redrawn.network.name
        self.networks[name] = redrawn
        self.maps[name] = self.evidence.reference_maps(redrawn.subject)[0]
        return name

    def set(self, name: str, part: str = POSITIVE) -> MapSet:
        """Return the maps under a condition as vectors of ranks."""
        key = name, part
        if key not in self.sets:
            maps = self.maps[name] if part == POSITIVE else signed(self.maps[name])
            if maps is self.maps[name] and part == SIGNED:
                return self.set(name)
            self.sets[key] = _set_of(maps, self.evidence, f"{name}, {part}")
        return self.sets[key]

    def alike(self, one: str, other: str, part: str = POSITIVE) -> FloatArray:
        """Return how alike the residuals of each row are under two conditions, (N,) in [-1, 1]."""
        return products(self.set(one, part).residual, self.set(other, part).residual)

    def alike_as_they_are(self, one: str, other: str, part: str = POSITIVE) -> FloatArray:
        """Return how alike the maps themselves are."""
        return products(self.set(one, part).whole, self.set(other, part).whole)

    def alike_to_the_mean(self, name: str, part: str = POSITIVE) -> FloatArray:
        """Return how alike the map itself is to the mean map of the other identities."""
        found = self.set(name, part)
        return products(found.whole, found.mean)

    def floor(self, part: str = POSITIVE, *, of_residuals: bool = True) -> FloatArray:
        """Return how alike the plain maps of a row and of other identities are, sign dropped."""
        found, everyone = self.set(PLAIN, part), self.evidence.everyone
        vectors = found.residual if of_residuals else found.whole
        present = usable(self.maps[PLAIN].states)
        return floor(vectors, everyone.identities[:, 0].tolist(), present)

    def watched(self, ledger: Ledger) -> None:
        """Note the maps of a group of rows in its ledger, and the networks."""
        places = ledger.evidence.places()
        for name, maps in self.maps.items():
            some = taken(maps, places)
            if name == PLAIN:
                ledger.watch(ledger.evidence.rows.side, some)
            elif name in self.networks:
                ledger.watch_redrawn(self.networks[name], some)
            else:
                ledger.watch_under(name, some)

    def enter(
        self, ledger: Ledger, metric: str, part: str, values: FloatArray, *needs: str
    ) -> None:
        """Enter the values of a metric, (N,) of all rows of the cell, for the ledger's group.

        A row with a broken map under any condition has no value. Of the sets of maps that the
        metric needs, the one with the most constant maps gives the rows their states.
        """
        places = ledger.evidence.places()
        most = max((self.set(one, part).is_constant for one in (PLAIN, *needs)), key=np.sum)
        states, is_broken = self._states(places)
        flagged = [RowState.DEGENERATE_MAP if flat and state is RowState.OK else state
                   for state, flat in zip(states, most[places.numpy()], strict=True)]  # fmt: skip
        found = np.where(is_broken, np.nan, values[places.numpy()])
        ledger.enter(metric, EXPLAINER, found, flagged, {"part": part})

    def _states(self, rows: Tensor) -> tuple[list[RowState], BoolArray]:
        """Return for some rows the worst state of their maps, and whether it leaves no value."""
        found = []
        for row in rows.tolist():
            states = [maps.states[row] for maps in self.maps.values()]
            state = max(states, key=gravity)
            found.append(state if state in BROKEN_STATES else RowState.OK)
        return found, np.array([state is not RowState.OK for state in found], dtype=bool)


def products(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return Spearman's correlation of each row of two sets of rank vectors, (N,)."""
    found: FloatArray = np.round((one * other).sum(axis=1), 12)  # equal maps have exactly 1
    return found


def floor(vectors: FloatArray, identities: Sequence[int], present: BoolArray) -> FloatArray:
    """Return for each row the mean absolute correlation with the rows of other identities, (N,).

    The same to the last bit in every order of the rows; NaN where nobody else is present.
    """
    people = np.asarray(identities)
    found = np.full(len(vectors), np.nan)
    for row, one in enumerate(vectors):
        others = present & (people != people[row])
        if others.any():
            found[row] = np.sort(np.abs((vectors[others] * one).sum(axis=1))).mean()
    return np.round(found, 12)


def _set_of(maps: SaliencyMaps, evidence: Evidence, label: str) -> MapSet:
    """Return a set of maps as vectors of ranks, the same in every order of the rows."""
    everyone = evidence.everyone
    order = sorted(range(len(everyone)), key=lambda row: everyone.id[row])
    grids, has_order = pooled(maps.positive[order])
    numbers: dict[int, int] = {}
    people = [numbers.setdefault(who, len(numbers))
              for who in everyone.identities[order, 0].tolist()]  # fmt: skip
    is_there = torch.from_numpy(usable([maps.states[row] for row in order]))
    takes_part = has_order & is_there
    means, _ = means_of_others(grids, people, takes_part)
    found: dict[str, Any] = {
        "residual": residuals(grids, people, takes_part),
        "whole": grids,
        "mean": torch.round(means, decimals=9),
    }
    is_constant = (is_there & ~has_order).numpy()
    for place in np.flatnonzero(is_constant).tolist():
        seed = evidence.seed_of("ties", everyone.id[order[place]], label)
        drawn = torch.from_numpy(generator_of(seed).permutation(grids[0].numel()))
        for name in ("residual", "whole"):
            found[name][place] = drawn.double().view_as(grids[0])
    back = np.argsort(order)
    vectors = {name: rank_vectors(one.flatten(1))[back] for name, one in found.items()}
    return MapSet(**vectors, is_constant=is_constant[back])

"""The order in which maps and controls remove the pixels of a subject's images.

Every protocol that removes pixels starts here; protocols differ only in the question they ask after
the removal. Where many pixels of a map tie, a figure would depend on the one random order that they
are removed in: such a row has several, and its figures are the means over them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Maps, SaliencyMaps
from fxeval.errors import EvidenceError
from fxeval.functional.controls import (
    CONTROLS,
    ControlInputs,
    control_maps,
    mean_map,
    shuffled_identity,
)
from fxeval.functional.perturbations import DONOR, Perturbations
from fxeval.functional.ranking import count, ranks, several_ranks
from fxeval.metrics.protocol import Evidence, FloatArray, Subject, usable
from fxeval.results import EXPLAINER, RowState

Control = Literal[
    "random_pixels",
    "random_blobs",
    "random_rectangle",
    "centre",
    "edge",
    "mean_map",
    "inverse",
    "shuffled_identity",
]

RANDOM: frozenset[str] = frozenset({"random_pixels", "random_blobs", "random_rectangle"})
"""Controls that are drawn: a row can have several draws of them."""


@dataclass(frozen=True, eq=False)
class Order:
    """The orders that one map (the explainer's, or a control's) gives the pixels of one subject.

    Attributes:
        map: ``explainer`` or ``control.<name>``.
        kept: (B,) positions of the group's rows whose map has an order, ascending. A row whose map
            has many ties is there once for each order of them.
        ranks: (B, H*W) int32, 0 = most salient.
        states: One for each row of the group.
        maps: (B, H, W), what was ranked; empty where nobody asks.
        is_drawn: The orders of a row are of maps of their own, not of the ties of one map.
    """

    map: str
    kept: NDArray[np.int64]
    ranks: Tensor
    states: tuple[RowState, ...]
    maps: Maps = field(default_factory=lambda: torch.empty(0))
    is_drawn: bool = False

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.ranks.nbytes + self.maps.nbytes

    @property
    def per_row(self) -> NDArray[np.int64]:
        """(n,) number of orders of each row of the group; 0 if its map has none."""
        return np.bincount(self.kept, minlength=len(self.states))

    def means(self, values: FloatArray) -> FloatArray:
        """Return, for each row of the group, the mean over its orders of (B, ...) values.

        Returns:
            (n, ...), NaN where a row has no order.
        """
        found: FloatArray = np.full((len(self.states), *values.shape[1:]), np.nan)
        per_row = self.per_row
        if len(per_row) and per_row.max() == 1:
            found[self.kept] = values
            return found
        for row in np.flatnonzero(per_row).tolist():
            found[row] = values[self.kept == row].mean(axis=0)
        return found

    def first(self, values: FloatArray) -> FloatArray:
        """Return, for each row of the group, the value of the first of its orders.

        A decision of one order is right or wrong, and the similarities of one order spread as they
        do; means over orders are neither.
        """
        found: FloatArray = np.full((len(self.states), *values.shape[1:]), np.nan)
        rows, place = np.unique(self.kept, return_index=True)
        found[rows] = values[place]
        return found

    def removed(
        self, images: Tensor, entry: Tensor, first: Tensor, last: Tensor, fill: str,
        donors: Tensor | None = None,
    ) -> Perturbations:  # fmt: skip
        """Describe images without the pixels ranked [first, last).

        Orders of one row differ only inside its ties: what is the same set of pixels in two of them
        is described by the first, so that it is embedded once.

        Args:
            images: (n,) the image of each row of the group.
            entry: (R,) positions in ``kept``.
            first: (R,).
            last: (R,).
            fill: What replaces the pixels.
            donors: (n,) the image whose pixels they are with the fill ``DONOR``.
        """
        ranking = entry
        if self._leads is not None:
            leader, is_same = self._leads
            same = is_same[entry, first] & is_same[entry, last]
            ranking = torch.where(same, leader[entry], entry)
        rows = torch.from_numpy(self.kept)[entry]
        donor = None if donors is None or fill != DONOR else donors[rows]
        return Perturbations(images[rows], self.ranks, ranking, first, last, fill, donor)

    @cached_property
    def _leads(self) -> tuple[Tensor, Tensor] | None:
        """The first order of each entry's row, (B,), and where both begin with the same k pixels.

        The latter is (B, H*W + 1), for k = 0 to H*W. None if every row has one order.
        """
        if self.is_drawn or len(np.unique(self.kept)) == len(self.kept):
            return None
        leader = np.searchsorted(self.kept, self.kept)
        ranking = self.ranks.numpy()
        is_same = np.ones((len(ranking), ranking.shape[1] + 1), dtype=np.bool_)
        for entry, lead in enumerate(leader.tolist()):
            if entry != lead:
                # A pixel is among the first k of one order alone for k above its lower rank, up to
                # its higher one.
                low, high = np.sort(ranking[[entry, lead]], axis=0) + 1
                length = is_same.shape[1] + 1
                among = np.bincount(low, minlength=length) - np.bincount(high, minlength=length)
                is_same[entry] = among.cumsum()[:-1] == 0
        return torch.from_numpy(leader), torch.from_numpy(is_same)


def orders(
    evidence: Evidence, on: Subject, maps: SaliencyMaps, controls: Sequence[Control] = (),
    *, draws: int = 1,
) -> Iterator[Order]:  # fmt: skip
    """Yield the explainer's order on a subject, then those of the controls.

    Ties are ordered by a seeded hash of the pixel, several times where there are many
    (:func:`fxeval.functional.ranking.orders_needed`). A constant map gets one random order and
    keeps its state.

    Args:
        evidence: Of the group.
        on: The subject whose pixels are ranked.
        maps: The explainer's maps of the group, made on the cell's own subject.
        controls: Names of controls.
        draws: Number of random maps of each row, for the controls that are drawn.
    """
    for name in (EXPLAINER, *(f"control.{control}" for control in controls)):
        if draws > 1 and name.removeprefix("control.") in RANDOM:
            drawn = partial(_drawn, name, evidence, on, draws)
            yield evidence.kept.get(_key(name, evidence, on, draws), drawn)
        elif _knows_nothing(name):
            ranked = partial(_ranked, name, evidence, on, maps)
            yield evidence.kept.get(_key(name, evidence, on, 1), ranked)
        else:
            yield _ranked(name, evidence, on, maps)


def control_order(name: str, evidence: Evidence, on: Subject, maps: Maps) -> Order:
    """Return the order of a control that a protocol makes itself.

    Args:
        name: Of the control.
        evidence: Of the group.
        on: The subject whose pixels are ranked.
        maps: (n, H, W) finite maps of the group.
    """
    (found,) = orders(evidence, on, SaliencyMaps(maps))
    return replace(found, map=f"control.{name}")


def _knows_nothing(name: str) -> bool:
    """Say whether a map is a control that is the same for every explainer, model and image."""
    control = CONTROLS.get(name.removeprefix("control."))
    return control is not None and not control.depends_on_explainer and name != "control.edge"


def _key(name: str, evidence: Evidence, on: Subject, draws: int) -> tuple[object, ...]:
    """Name what decides the order of such a control."""
    rows = evidence.rows
    seed = evidence.seed("control", 0) if len(rows) else 0  # of the suite, too
    return name, on.size, rows.side, rows.id, draws, seed


def _ranked(name: str, evidence: Evidence, on: Subject, maps: SaliencyMaps) -> Order:
    """Return the order of a map, several times where many of its pixels tie."""
    found, states = _maps(name, evidence, on, maps)
    kept = np.flatnonzero(usable(states))
    found, side = found[kept], evidence.rows.side

    def seed_of(place: int, turn: int) -> int:
        return evidence.seed("ties", int(kept[place]), f"{side} {turn}" if turn else "")

    times, ranked = several_ranks(found, seed_of)
    every = np.arange(len(kept)).repeat(times)
    return Order(name, kept[every], ranked, tuple(states), found[every])


def answers(
    evidence: Evidence, on: Subject, order: Order, fraction: float, fill: str,
    *, retains: bool = False,
) -> FloatArray:  # fmt: skip
    """Ask the rows' question once their most salient fraction is gone, or only it is left.

    Args:
        evidence: Of the group.
        on: The subject that is asked.
        order: The order of the pixels.
        fraction: Fraction of the pixels, exactly ``count(fraction, H*W)`` of them.
        fill: What replaces removed pixels.
        retains: Remove the rest, and keep the fraction.

    Returns:
        (n,) answers, means over a row's orders; NaN where its map has none.
    """
    b, pixels = order.ranks.shape
    k = count(fraction, pixels)
    bounds = (k, pixels) if retains else (0, k)
    first, last = (torch.full((b,), bound) for bound in bounds)
    gone = order.removed(evidence.rows.image, torch.arange(b), first, last, fill)
    rows = torch.from_numpy(order.kept)
    found = evidence.rows.question.answer(on, rows, on.embed(gone))
    return order.means(found.double().numpy())


def _maps(
    name: str, evidence: Evidence, on: Subject, maps: SaliencyMaps
) -> tuple[Maps, Sequence[RowState]]:
    """Return (n, H, W) maps by name, in the subject's crop, and their states."""
    n, control = len(evidence.rows), name.removeprefix("control.")
    if name == EXPLAINER:
        return on.fit(evidence.subject, maps.positive), maps.states
    if control == "inverse":
        return -on.fit(evidence.subject, maps.positive), maps.states
    if control in ("mean_map", "shuffled_identity"):
        everyone, identities = evidence.reference_maps(evidence.subject)
        places = evidence.places()
        try:
            if control == "mean_map":
                others = _means(evidence, everyone.positive, identities)[places]
            else:
                seeds = [evidence.seed("shuffled", row) for row in range(n)]
                others = shuffled_identity(everyone.positive, identities, places.tolist(), seeds)
        except EvidenceError:  # too few maps have an order
            return on.fit(evidence.subject, maps.positive), [RowState.EXCLUDED] * n
        return on.fit(evidence.subject, others), [RowState.OK] * n
    return _made(control, evidence, on, evidence.rows.side), [RowState.OK] * n


@dataclass(frozen=True, eq=False)
class _Means:
    """Mean maps, with the maps that they are made of: while those live, no others have their id."""

    of: Maps
    means: Maps

    @property
    def nbytes(self) -> int:
        return self.of.nbytes + self.means.nbytes


def _means(evidence: Evidence, maps: Maps, identities: Sequence[int]) -> Maps:
    """Return the mean maps of all rows of a cell, made once for all of its groups."""
    key = "mean_map", id(maps), tuple(identities)
    return evidence.kept.get(key, lambda: _Means(maps, mean_map(maps, identities))).means


def _made(control: str, evidence: Evidence, on: Subject, label: str) -> Maps:
    """Return (n, H, W) maps of a control that knows nothing of the explainer."""
    inputs = ControlInputs(
        probes=on.pixels(evidence.rows.image),
        row_seeds=[evidence.seed("control", row, label) for row in range(len(evidence.rows))],
        identities=evidence.rows.identities[:, 0].tolist(),
    )
    return control_maps(control, inputs)


def _drawn(name: str, evidence: Evidence, on: Subject, draws: int) -> Order:
    """Return the orders of several random maps of each row; the first is that of a single draw."""
    n, side = len(evidence.rows), evidence.rows.side
    labels = [f"{side} draw {turn}" if turn else side for turn in range(draws)]
    control = name.removeprefix("control.")
    # (n * draws, H, W), the draws of a row one after the other.
    found = torch.stack([_made(control, evidence, on, label) for label in labels], 1).flatten(0, 1)
    kept = np.arange(n).repeat(draws)
    seeds = [evidence.seed("ties", row, label) for row in range(n) for label in labels]
    return Order(name, kept, ranks(found, seeds), (RowState.OK,) * n, found, is_drawn=True)

"""Evidence whose maps are those of what speaks against a similarity, in place of that for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.errors import UnsupportedError
from fxeval.hooks.returned import is_constant
from fxeval.metrics.kept import Kept
from fxeval.metrics.protocol import (
    Engine,
    Evidence,
    MapCost,
    OtherExplainer,
    Rows,
    Subject,
    usable,
)
from fxeval.results import RowState

Against = Literal["negative", "positive_inverted"]
"""Which map speaks against: the negative map of a signed method, or minus the positive map."""


def evidence_against(evidence: Evidence, by: Against, *, nonmated_only: bool = False) -> Evidence:
    """Return the evidence with maps of what speaks against the similarity of a row.

    All that is made of the explainer's maps (its order, the mean map, the inverse) is made of them.

    Args:
        evidence: Of a group.
        by: Which map. ``positive_inverted`` is what there is of methods that know evidence for a
            similarity only: the pixels that speak least for it come first.
        nonmated_only: Turn the maps of nonmated rows, and leave those of mated ones.

    Raises:
        UnsupportedError: When maps are asked for, if the explainer has no negative map.
    """
    engine = _Against(evidence.engine, evidence.kept, by, nonmated_only)
    return replace(evidence, engine=engine)


@dataclass(frozen=True, eq=False)
class _Turned:
    """Turned maps, with those that they are of: while those live, no others have their id."""

    of: SaliencyMaps
    maps: SaliencyMaps

    @property
    def nbytes(self) -> int:
        return self.of.positive.nbytes + self.maps.positive.nbytes


@dataclass(frozen=True, eq=False)
class _Against:
    """The engine with the maps turned; each set is turned once, so that means of it are kept."""

    engine: Engine
    kept: Kept
    by: Against
    nonmated_only: bool

    def maps(
        self, rows: Rows, subject: Subject, explainer: OtherExplainer | None, draw: int = 0
    ) -> SaliencyMaps:
        return self._of(rows, self.engine.maps(rows, subject, explainer, draw))

    def refusal(self, rows: Rows) -> str:
        """Return why the explainer has no answer to what rows ask; "" if it has."""
        return self.engine.refusal(rows)

    def maps_each(self, rows: Rows, subject: Subject) -> tuple[SaliencyMaps, ...]:
        return tuple(self._of(rows, maps) for maps in self.engine.maps_each(rows, subject))

    def cost(self, rows: Rows, subject: Subject) -> MapCost:
        return self.engine.cost(rows, subject)

    def variant(self, settings: Mapping[str, str]) -> OtherExplainer:
        return self.engine.variant(settings)

    def instead(self, explainer: OtherExplainer) -> Engine:
        return replace(self, engine=self.engine.instead(explainer))

    def alike(self, rows: Rows, subject: Subject, *by: OtherExplainer) -> bool:
        return self.engine.alike(rows, subject, *by)

    def _of(self, rows: Rows, maps: SaliencyMaps) -> SaliencyMaps:
        where = ~rows.is_mated if self.nonmated_only else torch.ones_like(rows.is_mated)
        where = where if rows.only is None else where[rows.only]
        key = "turned maps", self.by, self.nonmated_only, id(maps)
        return self.kept.get(key, lambda: _Turned(maps, turned(maps, self.by, where))).maps


def turned(maps: SaliencyMaps, by: Against, where: Tensor | None = None) -> SaliencyMaps:
    """Return maps whose largest values speak most against the similarity.

    A state is that of the map that is returned: a negative map that is constant is
    ``degenerate_map`` whatever the positive one is, and it may have an order where that has none.

    Args:
        maps: N maps.
        by: Which map.
        where: (N,) bool, the rows that are turned; None = all.

    Raises:
        UnsupportedError: If there is no negative map, it is asked for, and not all maps are broken.

    Example:
        >>> one = SaliencyMaps(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1.0]]]))
        >>> turned(one, "negative").positive
        tensor([[[0., 1.]]])
    """
    where = torch.ones(len(maps.states), dtype=torch.bool) if where is None else where
    if maps.negative is None and not usable(maps.states).any():
        return maps  # all are broken, and their states say so
    if by == "positive_inverted":
        shown = -maps.positive
    elif maps.negative is not None:
        shown = maps.negative
    else:
        raise UnsupportedError(
            "the explainer has no negative map, which shows what speaks against a similarity. Use "
            "a signed explainer, such as corrrise, or set map: positive_inverted, which ranks "
            "first what speaks least for it."
        )
    states, reasons = list(maps.states), list(maps.reasons)
    for row in where.nonzero()[:, 0].tolist() if by == "negative" else ():
        if states[row] not in (RowState.OK, RowState.DEGENERATE_MAP):
            continue
        if not is_constant(shown[row]):
            states[row], reasons[row] = RowState.OK, ""
        elif states[row] is RowState.OK or not reasons[row]:
            states[row] = RowState.DEGENERATE_MAP
            reasons[row] = f"every pixel of the negative map is {float(shown[row].flatten()[0]):g}"
    return replace(
        maps,
        positive=torch.where(where[:, None, None], shown, maps.positive),
        negative=None,
        states=tuple(states),
        reasons=tuple(reasons),
    )

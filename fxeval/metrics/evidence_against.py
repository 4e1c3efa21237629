"""Evidence whose maps are those of what speaks against a similarity, in place of that for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fxeval.contracts import SaliencyMaps
from fxeval.errors import UnsupportedError
from fxeval.hooks.returned import is_constant
from fxeval.metrics.protocol import Engine, Evidence, OtherExplainer, Rows, Subject
from fxeval.results import RowState

Against = Literal["negative", "positive_inverted"]
"""Which map speaks against: the negative map of a signed method, or minus the positive map."""


def evidence_against(evidence: Evidence, by: Against) -> Evidence:
    """Return the evidence with maps of what speaks against the similarity of a row.

    All that is made of the explainer's maps (its order, the mean map, the inverse) is made of them.

    Args:
        evidence: Of a group.
        by: Which map. ``positive_inverted`` is what there is of methods that know evidence for a
            similarity only: the pixels that speak least for it come first.

    Raises:
        UnsupportedError: When maps are asked for, if the explainer has no negative map.
    """
    return replace(evidence, engine=_Against(evidence.engine, by))


@dataclass(frozen=True, eq=False)
class _Against:
    """The engine with the maps turned; each set is turned once, so that means of it are kept."""

    engine: Engine
    by: Against
    _turned: dict[int, tuple[SaliencyMaps, SaliencyMaps]] = field(default_factory=dict)

    def maps(
        self, rows: Rows, subject: Subject, explainer: OtherExplainer | None, draw: int = 0
    ) -> SaliencyMaps:
        return self._of(self.engine.maps(rows, subject, explainer, draw))

    def maps_each(self, rows: Rows, subject: Subject) -> tuple[SaliencyMaps, ...]:
        return tuple(map(self._of, self.engine.maps_each(rows, subject)))

    def variant(self, settings: Mapping[str, str]) -> OtherExplainer:
        return self.engine.variant(settings)

    def instead(self, explainer: OtherExplainer) -> Engine:
        return _Against(self.engine.instead(explainer), self.by)

    def alike(self, rows: Rows, subject: Subject, *by: OtherExplainer) -> bool:
        return self.engine.alike(rows, subject, *by)

    def _of(self, maps: SaliencyMaps) -> SaliencyMaps:
        if id(maps) not in self._turned:  # the maps are kept beside: no others get their id
            self._turned[id(maps)] = maps, turned(maps, self.by)
        return self._turned[id(maps)][1]


def turned(maps: SaliencyMaps, by: Against) -> SaliencyMaps:
    """Return maps whose largest values speak most against the similarity.

    A state is that of the map that is returned: a negative map that is constant is
    ``degenerate_map`` whatever the positive one is, and it may have an order where that has none.

    Raises:
        UnsupportedError: If there is no negative map, and it is asked for.

    Example:
        >>> import torch
        >>> one = SaliencyMaps(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1.0]]]))
        >>> turned(one, "negative").positive
        tensor([[[0., 1.]]])
    """
    if by == "positive_inverted":
        return replace(maps, positive=-maps.positive, negative=None)
    if maps.negative is None:
        raise UnsupportedError(
            "the explainer has no negative map, which shows what speaks against a similarity. Use "
            "a signed explainer, such as corrrise, or set map: positive_inverted, which ranks "
            "first what speaks least for it."
        )
    states, reasons = list(maps.states), list(maps.reasons)
    for row, map_ in enumerate(maps.negative):
        if states[row] not in (RowState.OK, RowState.DEGENERATE_MAP):
            continue
        if not is_constant(map_):
            states[row], reasons[row] = RowState.OK, ""
        elif states[row] is RowState.OK or not reasons[row]:
            states[row] = RowState.DEGENERATE_MAP
            reasons[row] = f"every pixel of the negative map is {float(map_.flatten()[0]):g}"
    return replace(
        maps, positive=maps.negative, negative=None, states=tuple(states), reasons=tuple(reasons)
    )

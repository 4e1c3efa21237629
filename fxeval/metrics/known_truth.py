"""Twins: what tells two faces apart is known to the pixel, and a map should point there.

The parts that the checks ``truth.*`` share: which triplets a model solves, the two questions that
an explainer is asked, and the orders of its maps and of the controls.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict
from torch import Tensor

from fxeval.contracts import Maps
from fxeval.functional.controls import CONTROLS
from fxeval.functional.known_maps import blurred_oracle, change, inverse_oracle, oracle
from fxeval.metrics.orders import Order, control_order, orders
from fxeval.metrics.protocol import Evidence, Ledger
from fxeval.metrics.rows import DISCRIMINATIVE, PAIRWISE
from fxeval.results import Metric, RowState, gravity
from fxeval.statistics.self_check import MOST_UNSOLVED, is_enough
from fxeval.strict.forms import once

CONDITIONS = {"question": (DISCRIMINATIVE, PAIRWISE)}
JUDGED_UNDER = {"question": DISCRIMINATIVE}

WHY_PAIRWISE_INFORMS = (
    "which pixels make the probe alike to the mate is another question than which tell it from the "
    "nonmate, and only the answer to the second is known"
)
"""Why no limit on the answers to the other question decides."""

GAME = "Williford, May and Byrne, ECCV 2020 (inpainting game), on rendered twins"
"""Source of the metrics of both checks."""

UNSOLVED = "the model does not solve their triplets"

known_truth_metric = partial(Metric, statistic="mean", void_if=UNSOLVED, void_share=MOST_UNSOLVED)
"""A metric that only triplets which the model solves have a value of."""

TruthControl = Literal[
    "random_pixels", "random_blobs", "random_rectangle", "centre", "edge", "mean_map", "inverse",
    "shuffled_identity", "oracle", "blurred_oracle", "inverse_oracle",
]  # fmt: skip
_KNOWN = {"oracle": oracle, "blurred_oracle": blurred_oracle, "inverse_oracle": inverse_oracle}


class TruthParameters(BaseModel):
    """Parameters of a check against known truth.

    Attributes:
        controls: Maps whose right answer is known, measured on the same triplets. ``oracle`` ranks
            the pixels that differ between the probe and its twin first, by the size of their
            difference; ``blurred_oracle`` points near them, ``inverse_oracle`` at them last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    controls: Annotated[tuple[TruthControl, ...], AfterValidator(once)] = (
        "random_pixels", "random_blobs", "centre", "mean_map", "oracle", "blurred_oracle",
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Posed:
    """An order of the pixels of solved triplets, and the conditions whose order it is.

    Attributes:
        evidence: Of the question that the map answers.
        order: Of the map; rows whose triplet is not solved have none, and are ``EXCLUDED``.
        under: Conditions; a control that knows nothing of the explainer is under each of them.
    """

    evidence: Evidence
    order: Order
    under: tuple[Mapping[str, str], ...]


def posed(evidence: Evidence, ledger: Ledger, controls: Sequence[TruthControl]) -> Iterator[Posed]:
    """Ask the explainer both questions, and yield its orders and those of the controls.

    An explainer that takes no contrast has no answer to the discriminative question: its metrics
    are left out, and what it says of the pair alone is shown. The maps of the judged question, or
    of the only one, belong to the rows; a constant map of the other is not a fault.

    Args:
        evidence: Of a group of triplets.
        ledger: Takes maps and remarks.
        controls: Names of controls.
    """
    is_solved = solved(evidence)
    ledger.remark(solved_remark(is_solved))
    of_group = is_solved[evidence.places().numpy()]
    sides = [evidence.on(side) for side in CONDITIONS["question"]]
    asked = [one for one in sides if not _is_left_out(one, ledger)]
    every = tuple({"question": one.rows.side} for one in asked)
    for number, one in enumerate(asked):
        found = one.explain(one.subject)
        maps = (ledger.watch_under if number else ledger.watch)(one.rows.side, found)
        names = [
            name for name in controls
            if name not in _KNOWN and (not number or CONTROLS[name].depends_on_explainer)
        ]  # fmt: skip
        for order in orders(one, one.subject, maps, names):  # type: ignore[arg-type]
            control = CONTROLS.get(order.map.removeprefix("control."))
            is_shared = control is not None and not control.depends_on_explainer
            yield Posed(one, _of(order, of_group), every if is_shared else every[number:][:1])
    for name in controls:
        if name in _KNOWN:
            yield Posed(asked[0], _of(known_order(asked[0], name), of_group), every)


def solved(evidence: Evidence) -> NDArray[np.bool_]:
    """Return which triplets of the cell the model solves, (N,).

    It does where the probe is nearer to the mate than to the nonmate, and the probe's twin nearer
    to the nonmate, by the cosine and by the model's own similarity.
    """
    rows, on = evidence.everyone, evidence.subject
    assert rows.donor is not None, "rows of twins have donors"
    places, clean = torch.arange(len(rows)), on.clean()
    found = torch.ones(len(rows), dtype=torch.bool)
    for ask in (rows.question.answer, rows.question.margin):
        found &= ask(on, places, clean[rows.image]) > 0
        found &= ask(on, places, clean[rows.donor]) < 0
    return found.numpy()


def solved_remark(is_solved: NDArray[np.bool_]) -> str:
    """Say how many triplets are solved; with more unsolved than ``MOST_UNSOLVED``, none counts."""
    n, solved = len(is_solved), int(is_solved.sum())
    said = (
        f"the model solves {solved} of {n} triplets ({solved / n:.0%}): the probe is nearer to "
        "the mate than to the nonmate, and its twin nearer to the nonmate; the others have no value"
    )
    if is_enough(n - solved, n):
        return said
    return f"not checked on this model: {said}, and at least {1 - MOST_UNSOLVED:.0%} are expected"


def known_order(evidence: Evidence, name: str) -> Order:
    """Return the order of a map of known worth.

    Args:
        evidence: Of a group of rows that have donors.
        name: ``oracle``, ``blurred_oracle`` or ``inverse_oracle``.
    """
    maps = _KNOWN[name](changes_of(evidence), _seeds(evidence, name))
    return control_order(name, evidence, evidence.subject, maps)


def changes_of(evidence: Evidence) -> Maps:
    """Return how far each pixel of the rows' images differs from their donors', (n, H, W)."""
    rows, on = evidence.rows, evidence.subject
    assert rows.donor is not None, "rows of twins have donors"
    return change(on.pixels(rows.image), on.pixels(rows.donor))


def altered_of(posed: Posed) -> Tensor:
    """Return the pixels of the part for each entry of an order, (B, H*W) bool."""
    altered = posed.evidence.rows.altered
    assert altered is not None, "rows of twins have a part"
    return altered[torch.from_numpy(posed.order.kept)].flatten(1)


def _is_left_out(one: Evidence, ledger: Ledger) -> bool:
    """Leave a question out that the explainer cannot answer, and say so."""
    reason = one.refusal()
    if not reason:
        return False
    if one.rows.side == DISCRIMINATIVE:
        for metric in ledger.metrics:
            ledger.leave_out(metric.name, reason)
    ledger.remark(f"question {one.rows.side}: no values: {reason}")
    return True


def _seeds(evidence: Evidence, name: str) -> list[int]:
    return [evidence.seed("control", row, name) for row in range(len(evidence.rows))]


def _of(order: Order, is_solved: NDArray[np.bool_]) -> Order:
    """Return the order of solved triplets alone."""
    kept = is_solved[order.kept]
    states = tuple(
        state if ok or gravity(state) > gravity(RowState.EXCLUDED) else RowState.EXCLUDED
        for state, ok in zip(order.states, is_solved.tolist(), strict=True)
    )
    entries = torch.from_numpy(kept)
    return replace(
        order,
        kept=order.kept[kept],
        ranks=order.ranks[entries],
        maps=order.maps[entries] if len(order.maps) else order.maps,
        states=states,
    )

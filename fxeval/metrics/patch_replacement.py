"""Does restoring what a map points at put a decision right that patches of another face spoilt?

A pair whose patched probe is rejected gets back the pixels that speak least for the similarity, one
that is accepted those that speak most for it. Mated pairs should be accepted sooner that way, and
nonmated ones rejected sooner, than by restoring pixels at random.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.controls import random_pixels
from fxeval.functional.perturbations import DONOR
from fxeval.functional.ranking import count
from fxeval.metrics.orders import Order, control_order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, signed
from fxeval.metrics.removal_curves import area
from fxeval.results import Metric, RowState
from fxeval.strict.forms import once

ROWS = "patched pairs"
CONDITIONS = {"fraction": "fractions"}

PatchControl = Literal[
    "random_pixels", "random_blobs", "centre", "edge", "inverse", "oracle", "unrestored",
    "unpatched",
]  # fmt: skip
Fraction = Annotated[float, Field(gt=0, lt=1, strict=True)]


class Parameters(BaseModel):
    """Parameters of a patch replacement check.

    Attributes:
        patches: Number of square patches of another face in each probe; they may overlap.
        patch_size: Their side in pixels at a crop's height of 112; it is scaled to that of the
            crop.
        fractions: Of the pixels, that are restored: exactly ``max(1, floor(fraction * n + 0.5))``
            of n.
        controls: Maps whose right answer is known, measured on the same pairs. ``oracle`` knows
            where the patches are, ``unrestored`` is the patched probe as it is, ``unpatched`` the
            clean one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patches: Annotated[int, Field(ge=1, le=1000, strict=True)] = 27
    patch_size: Annotated[int, Field(ge=1, le=96, strict=True)] = 16
    fractions: Annotated[
        tuple[Fraction, ...], Field(min_length=1), AfterValidator(once)
    ] = tuple(step / 20 for step in range(1, 20))  # fmt: skip
    controls: Annotated[tuple[PatchControl, ...], AfterValidator(once)] = (
        "random_pixels", "random_blobs", "centre", "oracle", "unrestored", "unpatched",
    )  # fmt: skip


_SOURCE = "Huber et al., WACV 2024 (xSSAB), Patch-LFW"

FNMR = Metric(
    name="patch_fnmr",
    title="Mated pairs still rejected after restoring",
    unit="share of mated pairs",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="rate",
    source=_SOURCE,
    meaning="How often the model rejects a mated pair whose probe has patches of another face, "
    "once the pixels that the map chooses are restored.",
    is_decision=True,
)
FMR = Metric(
    name="patch_fmr",
    title="Nonmated pairs still accepted after restoring",
    unit="share of nonmated pairs",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="rate",
    source=_SOURCE,
    meaning="How often the model accepts a nonmated pair whose probe has patches of the reference, "
    "once the pixels that the map chooses are restored.",
    is_decision=True,
)
WRONG = Metric(
    name="patch_wrong_auc",
    title="How long a decision that the patches turned stays wrong",
    unit="share of the fractions restored",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="heavy",
    source="fxeval, on the pairs of Huber et al., WACV 2024 (xSSAB)",
    meaning="Area under the curve of wrong decisions over the fraction that is restored, for the "
    "pairs that are decided rightly without the patches and wrongly with them.",
    is_decision=True,
)
METRICS = (FNMR, FMR, WRONG)

_NO_THRESHOLD = "The model declares no operating threshold: no decision about a pair has a value."


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Explain the patched probes, and restore their pixels in the order of the map.

    Maps are signed where the method has negative ones: evidence for the similarity less that
    against it.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        For each fraction, whether a mated pair is rejected and a nonmated one accepted, for the
        explainer and each control; and, for pairs whose decision the patches turned, how long it
        stays wrong.

    Source:
        Huber et al., WACV 2024 (xSSAB). It takes the threshold at the equal error rate of the clean
        list, the bound of a percentile in place of an exact number of pixels, and saves images as
        JPEG between the steps.
    """
    patched = evidence.on("patched")
    ledger = Ledger(evidence, METRICS)
    maps = ledger.watch(patched.rows.side, signed(patched.explain(patched.subject)))
    if patched.subject.operating_threshold is None:
        ledger.remark(patched.subject.no_decision or _NO_THRESHOLD)
    if not bool((~evidence.everyone.is_mated).any()):
        ledger.remark(f"The list has no nonmated pairs: {FMR.name} has no value.")
    game = _Game.of(evidence, patched, parameters.fractions)
    for order in _orders(patched, game, maps, parameters):
        _enter(ledger, game, order, game.wrong(order))
    for name, found in (("unrestored", game.wrong_patched), ("unpatched", game.wrong_clean)):
        if name in parameters.controls:
            every = np.repeat(found[:, None], len(parameters.fractions), axis=1)
            _enter(ledger, game, game.given(f"control.{name}"), every)
    return ledger


@dataclass(frozen=True, eq=False)
class _Game:
    """Patched pairs, and what the model says of them; wrong is 1.0, right 0.0.

    Attributes:
        patched: The patched probes.
        fractions: F fractions that are restored.
        accepted: (n,) bool, whether the pair is accepted with all patches.
        wrong_patched: (n,) whether that is wrong.
        wrong_clean: (n,) whether the decision without patches is.
    """

    patched: Evidence
    fractions: Sequence[float]
    accepted: Tensor
    wrong_patched: FloatArray
    wrong_clean: FloatArray

    @staticmethod
    def of(clean: Evidence, patched: Evidence, fractions: Sequence[float]) -> "_Game":
        """Decide the pairs with and without the patches."""
        answers = [_accepted(one, one.rows.image) for one in (patched, clean)]
        is_mated = clean.rows.is_mated
        wrong = [(found != is_mated).double().numpy() for found in answers]
        return _Game(patched, fractions, answers[0], *wrong)

    @property
    def turned(self) -> NDArray[np.bool_]:
        """(n,) whether the patches made a right decision wrong."""
        return np.asarray((self.wrong_patched > 0) & (self.wrong_clean == 0))

    def given(self, name: str) -> Order:
        """Return the order of an image that is given as it is: one a row."""
        n = len(self.accepted)
        return Order(name, np.arange(n), torch.empty(0), (RowState.OK,) * n)

    def wrong(self, order: Order) -> FloatArray:
        """Return (B, F), whether the decision is wrong once each fraction is restored."""
        rows, on = self.patched.rows, self.patched.subject
        kept = torch.from_numpy(order.kept)
        pixels = order.ranks.shape[1]
        counts = torch.tensor([count(fraction, pixels) for fraction in self.fractions])
        entry = torch.arange(len(kept)).repeat_interleave(len(counts))
        k = counts.repeat(len(kept))
        # The last k speak least for the similarity, the first k most.
        first = torch.where(self.accepted[kept][entry], 0, pixels - k)
        gone = order.removed(rows.image, entry, first, first + k, DONOR, rows.donor)
        asked = kept[entry]
        margin = rows.question.margin(on, asked, on.embed(gone))
        found = ((margin >= 0) != rows.is_mated[asked]).double().numpy()
        return np.asarray(found.reshape(len(kept), len(counts)))


def _accepted(evidence: Evidence, image: Tensor) -> Tensor:
    """Return (n,) whether the model accepts the pairs with an image of each as it is."""
    on, rows = evidence.subject, torch.arange(len(evidence.rows))
    return evidence.rows.question.margin(on, rows, on.clean()[image]) >= 0


def _orders(
    patched: Evidence, game: _Game, maps: SaliencyMaps, parameters: Parameters
) -> Iterator[Order]:
    """Yield the orders of the explainer and of the controls that are maps."""
    ours = ("oracle", "unrestored", "unpatched")
    others = [one for one in parameters.controls if one not in ours]
    yield from orders(patched, patched.subject, maps, others)  # type: ignore[arg-type]
    if "oracle" in parameters.controls:
        known = _of_the_patches(patched, game)
        yield control_order("oracle", patched, patched.subject, known)


def _of_the_patches(patched: Evidence, game: _Game) -> Tensor:
    """Return maps that know the patches, (n, H, W): first where accepted, last where rejected.

    The patches, like the rest of the image, are ordered at random.
    """
    altered, n = patched.rows.altered, len(patched.rows)
    assert altered is not None, "the version has patches"
    noise = random_pixels(
        [patched.seed("control", row, "oracle") for row in range(n)], patched.subject.size
    )
    sign = torch.where(game.accepted, 1.0, -1.0)
    return sign[:, None, None] * altered.float() + 0.5 * noise


def _enter(ledger: Ledger, game: _Game, order: Order, wrong: FloatArray) -> None:
    """Enter what an order makes of the decisions: (B, F), whether they are wrong.

    A row shows two people, and its decision under one order of the ties is right or wrong.
    """
    states: Sequence[RowState] = order.states
    if game.patched.subject.operating_threshold is None:
        wrong, states = np.full_like(wrong, np.nan), (RowState.EXCLUDED,) * len(states)
    decided, is_mated = order.first(wrong), game.patched.rows.is_mated.numpy()
    for place, fraction in enumerate(game.fractions):
        under = {"fraction": fraction}
        ledger.enter(FNMR.name, order.map, decided[:, place], states, under, about=is_mated)
        ledger.enter(FMR.name, order.map, decided[:, place], states, under, about=~is_mated)
    ascending = np.argsort(game.fractions)
    # All patched: wrong; all restored: right.
    points = np.pad(wrong[:, ascending], ((0, 0), (1, 1)), constant_values=((0, 0), (1.0, 0.0)))
    areas = area(np.array([0.0, *np.array(game.fractions)[ascending], 1.0]), points)
    ledger.enter(WRONG.name, order.map, order.means(areas), states, {}, about=game.turned)

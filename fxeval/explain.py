"""Asks an explainer for maps, trusts nothing, and loses no pair to another's fault."""

from collections.abc import Callable

import torch
from torch import Tensor

from fxeval.contracts import Explainer, Pairs, RowState, SaliencyMaps, check_maps
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.forward_pool import PooledModel, device_of
from fxeval.metrics.evidence import ROWS_AT_ONCE, Side
from fxeval.models.custody import Custody
from fxeval.seeding import generator_of, sealed, seed_of

Progress = Callable[[int, int], None]


def explain(
    explainer: Explainer,
    model: PooledModel,
    pairs: Pairs,
    *,
    side: Side,
    seed: int,
    progress: Progress,
) -> SaliencyMaps:
    """Return the explainer's maps of one image of every pair.

    Pairs are handed over in groups of ``ROWS_AT_ONCE``. If a group fails, its pairs are asked for
    one by one, so that only those at fault get a broken state. A model that was changed is put back
    and the group's pairs are marked ``model_changed``.

    Args:
        explainer: A stranger.
        model: The model, its ``embed`` through the pool.
        pairs: N pairs.
        side: Which image to explain; the other one is the reference.
        seed: The suite's seed; the mask bank depends on it and on the image size alone.
        progress: Told (pairs done, pairs in all).

    Returns:
        (N, H, W) maps on the CPU, with a state for each.
    """
    probes, references = (
        (pairs.probe, pairs.reference) if side == "probe" else (pairs.reference, pairs.probe)
    )
    group = _Group(explainer, model, pairs.images, seed)
    parts: list[SaliencyMaps] = []
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        parts.extend(group.maps(probes[rows], references[rows]))
        progress(min(start + ROWS_AT_ONCE, len(pairs)), len(pairs))
    return SaliencyMaps(
        torch.cat([part.positive for part in parts]),
        None,
        tuple(state for part in parts for state in part.states),
        tuple(reason for part in parts for reason in part.reasons),
    )


class _Group:
    """Explains groups of pairs and watches over the model meanwhile."""

    def __init__(self, explainer: Explainer, model: PooledModel, images: Tensor, seed: int) -> None:
        self._explainer = explainer
        self._model = model
        self._images = images
        self._seed = seed
        self._size = (int(images.shape[-2]), int(images.shape[-1]))
        self._custody = Custody(model.module) if model.module is not None else None

    def maps(self, probes: Tensor, references: Tensor) -> list[SaliencyMaps]:
        """Return the maps of a group, as one part or, after a fault, as one part per pair."""
        fault: tuple[RowState, str] | None = None
        try:
            part = self._ask(probes, references)
        except ModelContractError:
            raise
        except Exception as error:  # a stranger's code may raise anything
            fault = _fault(error)
        changes = self._put_back()
        if changes:
            fault = RowState.MODEL_CHANGED, "; ".join(changes)
        if fault is None:
            return [part]
        if len(probes) > 1:
            return [
                part
                for row in range(len(probes))
                for part in self.maps(probes[row : row + 1], references[row : row + 1])
            ]
        nothing = torch.full((1, *self._size), torch.nan)
        return [SaliencyMaps(nothing, None, (fault[0],), (fault[1],))]

    def _ask(self, probes: Tensor, references: Tensor) -> SaliencyMaps:
        device = device_of(self._model)
        inputs = [
            self._images[rows].to(device).to(torch.float32).div_(255.0)
            for rows in (probes, references)
        ]
        with sealed(seed_of(self._seed, "global", *self._size)):
            maps: object = self._explainer.explain(
                self._model,
                inputs[0],
                inputs[1],
                generator=generator_of(self._seed, "explain", *self._size),
            )
        return check_maps(type(self._explainer).__name__, maps, len(probes), self._size)

    def _put_back(self) -> list[str]:
        if self._custody is None:
            return []
        changes = self._custody.changes()
        if changes:
            self._custody.restore()
        return changes


def _fault(error: Exception) -> tuple[RowState, str]:
    if isinstance(error, ExplainerContractError):
        return RowState.WRONG_SHAPE, str(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return RowState.EXPLAINER_RAISED, text[:500]

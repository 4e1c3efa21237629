"""Asks an explainer for maps, trusts nothing, and loses no pair to another's fault."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fxeval.admission import check_maps
from fxeval.contracts import Explainer, Images, Pairs, RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError, ModelContractError
from fxeval.forward_pool import PooledModel
from fxeval.metrics.evidence import ROWS_AT_ONCE, Side
from fxeval.models.custody import Custody
from fxeval.models.loading import device_of
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
    one by one, so that only those at fault get a broken state. The model is put back after every
    call, and the pairs of a call that changed it are marked ``model_changed``. Modes that hold for
    the whole process (gradients, default dtype, threads, numpy's errors) are put back, too.

    Args:
        explainer: A stranger.
        model: The model, its ``embed`` through the pool.
        pairs: N pairs.
        side: Which image to explain; the other one is the reference.
        seed: The suite's seed; the mask bank depends on it and on the image size alone.
        progress: Told (pairs done, pairs in all).

    Returns:
        (N, H, W) maps on the CPU, with a state for each.

    Raises:
        ModelContractError: If the model fails on the clean images, or can't be put back.
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
        part: SaliencyMaps | None = None
        fault: tuple[RowState, str] | None = None
        changes: list[str] = []
        try:
            part = self._ask(probes, references)
        except Exception as error:  # a stranger's code may raise anything
            fault = _fault(error)
            is_of_the_model = isinstance(error, ModelContractError)
        finally:  # an interrupted run hands the model back, too
            changes = self._put_back()
        if fault is not None and is_of_the_model:
            self._try_model(probes, references)
        if changes:
            fault = RowState.MODEL_CHANGED, "; ".join(changes)
        if part is not None and fault is None:
            return [part]
        assert fault is not None
        if len(probes) > 1:
            return [
                part
                for row in range(len(probes))
                for part in self.maps(probes[row : row + 1], references[row : row + 1])
            ]
        nothing = torch.full((1, *self._size), torch.nan)
        return [SaliencyMaps(nothing, None, (fault[0],), (fault[1],))]

    def _ask(self, probes: Tensor, references: Tensor) -> SaliencyMaps:
        with _modes_kept(), sealed(seed_of(self._seed, "global", *self._size)):
            maps: object = self._explainer.explain(
                self._model,
                self._inputs(probes),
                self._inputs(references),
                generator=generator_of(self._seed, "explain", *self._size),
            )
        # check_maps copies: the explainer may write its next maps over these.
        return check_maps(type(self._explainer).__name__, maps, len(probes), self._size)

    def _inputs(self, rows: Tensor) -> Images:
        """Return images that belong to whoever asks: they may be written over."""
        return self._images[rows].to(device_of(self._model)).to(torch.float32).div_(255.0)

    def _put_back(self) -> list[str]:
        """Put the model back, whatever happened to it, and return what did.

        Raises:
            ModelContractError: If it can't be put back.
        """
        if self._custody is None:
            return []
        changes = self._custody.changes()
        self._custody.restore()
        left = self._custody.changes() if changes else []
        if left:
            raise ModelContractError(
                f"model '{self._model.name}': what explainer '{type(self._explainer).__name__}' "
                f"did to it can't be undone: {'; '.join(left)}. Give the explainer a copy."
            )
        return changes

    def _try_model(self, probes: Tensor, references: Tensor) -> None:
        """Embed the clean images: an error of the model is the model's only if it comes again.

        Raises:
            ModelContractError: If it does.
        """
        try:
            for rows in (probes, references):
                self._model.embed(self._inputs(rows))
        finally:
            self._put_back()


@contextmanager
def _modes_kept() -> Iterator[None]:
    """Run a stranger's code with gradients on, and take back the modes it switches for all."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    determinism = _determinism()
    with np.errstate(), torch.inference_mode(False), torch.enable_grad():
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            # Only if need be: the call alone imports torch's compiler, which takes seconds.
            if _determinism() != determinism:
                torch.use_deterministic_algorithms(determinism[0], warn_only=determinism[1])


def _determinism() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _fault(error: Exception) -> tuple[RowState, str]:
    if isinstance(error, ExplainerContractError):
        return RowState.WRONG_SHAPE, str(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return RowState.EXPLAINER_RAISED, text[:500]

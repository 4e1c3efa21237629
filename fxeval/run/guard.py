"""Compares models, images and the process with what they were, before and after every cell.

Calls of an explainer are watched one by one (``fxeval.engine.maps``). A thread that it left running
acts between them. What is found here was changed outside of every watched call, so the values of
the cell can't be trusted; later cells get everything as it was.
"""

import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxeval.contracts import FaceModel, RowState
from fxeval.engine.forward_pool import ForwardPool
from fxeval.errors import EvidenceError, ModelContractError
from fxeval.hooks.patches import Patches
from fxeval.hooks.process_modes import Modes
from fxeval.hooks.surroundings import SURROUNDINGS
from fxeval.hooks.watch import OF_TORCH, ModelCustody, running_threads
from fxeval.models.loading import device_of

Caches = Callable[[], Sequence[dict[Any, Any]]]


@dataclass(frozen=True, eq=False)
class _Known:
    custody: ModelCustody
    device: torch.device
    keeps: object


class Guard:
    """Watches over everything that a cell uses.

    It keeps a copy of the weights of every model that was met, for as long as the model lives.

    Args:
        pool: Remembers embeddings.
        caches: Returns the dicts that remember what else was computed; what a cell that can't be
            trusted added to them is forgotten.
    """

    def __init__(self, pool: ForwardPool, caches: Caches) -> None:
        self._pool, self._caches = pool, caches
        self._patches, self._modes = Patches.now(), Modes(OF_TORCH)
        self._models: dict[int, _Known] = {}
        self._images: dict[int, tuple[Tensor, str]] = {}
        self._in_use: dict[int, str] = {}
        self._left: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._threads: set[threading.Thread] = set()
        self._faults: list[str] = []

    @contextmanager
    def cell(self) -> Iterator[list[str]]:
        """Watch over a cell.

        Yields:
            A list that holds, afterwards, what was changed outside of every watched call.

        Raises:
            EvidenceError: If what an earlier cell changed of the process can't be undone.
        """
        self._start()
        self._threads, faults = running_threads(), list[str]()
        surroundings = Modes(SURROUNDINGS)
        known, embeddings = [set(cache) for cache in self._caches()], self._pool.remembered()
        try:
            yield faults
        finally:
            surroundings.restore()
            faults += self._end()
            if faults:
                self._pool.forget_all_but(embeddings)
                for cache, keys in zip(self._caches(), known, strict=True):
                    for key in cache.keys() - keys:
                        del cache[key]
            self._left |= running_threads() - self._threads

    def expect(self, name: str, model: FaceModel) -> None:
        """Compare a model that is met again with what it was, once a cell, and put it back.

        Raises:
            ModelContractError: If it can't be put back.
        """
        known = self._models.get(id(model))
        if known is None or id(model) in self._in_use:
            return
        if changes := known.custody.changes():
            known.custody.restore()
            if left := known.custody.changes():
                raise ModelContractError(
                    f"model '{name}' was changed since it was measured last, which can't be "
                    f"undone: {'; '.join(left)}. Measure it in a run of its own."
                )
            self._pool.note(
                f"model '{name}' was changed between its cells, and put back: {'; '.join(changes)}"
            )

    def admit(self, name: str, model: FaceModel) -> None:
        """Remember a model that is new or on a new device, and compare it as the cell ends.

        Raises:
            ModelContractError: If it was changed since it was met last, and can't be put back.
        """
        self.expect(name, model)
        key, device = id(model), device_of(model)
        if key not in self._models or self._models[key].device != device:
            self._models[key] = _Known(ModelCustody(model), device, self._kept_by(model))
        self._in_use[key] = name

    def keep(self, images: Tensor) -> None:
        """Remember the pixels that a cell uses."""
        if id(images) not in self._images:
            self._images[id(images)] = images, _digest(images)

    def note_threads(self) -> None:
        """Note threads that user code started in this cell and left running."""
        if new := running_threads() - self._threads:
            self._pool.note(f"user code left threads running: {len(new)}")

    def doubt(self, explainer: str, states: Sequence[RowState]) -> None:
        """Doubt that an explainer changed the model, if a thread of an earlier cell is running."""
        is_accused = RowState.MODEL_CHANGED in states
        if is_accused and any(thread.is_alive() for thread in self._left):
            self._faults.append(
                f"the model was changed under explainer '{explainer}', while threads that an "
                "earlier cell left were running: it can't be told which of them did it"
            )

    def _kept_by(self, model: FaceModel) -> object:
        """Have what is known of a model dropped with it; returns the model if that can't be."""
        try:
            weakref.finalize(model, self._drop, id(model)).atexit = False
        except TypeError:  # its class has no room for a weak reference
            return model
        return None

    def _drop(self, key: int) -> None:
        known, name = self._models.pop(key, None), self._in_use.pop(key, None)
        if known is not None and name is not None and (changes := known.custody.changes()):
            self._faults.append(f"model '{name}': {'; '.join(changes)}")

    def _start(self) -> None:
        self._pool.notes.clear()  # of a cell that raised an error
        changed = [*self._modes.changes(), *self._patches.changes()]
        if changed:
            stuck = [*self._modes.restore(), *self._patches.restore()]
            if stuck:
                raise EvidenceError(
                    "user code changed this process in a way that can't be undone: "
                    f"{'; '.join(stuck)}. Measure that explainer or model in a run of its own."
                )
            said = "what all cells share was changed between cells, and put back"
            self._pool.note(f"{said}: {'; '.join(changed)}")
        self._patches = Patches.now()  # also of modules that were loaded since
        self._in_use, self._images, self._faults = {}, {}, []

    def _end(self) -> list[str]:
        """Put everything back, and return what had been changed, in words."""
        faults = list(self._faults)
        faults += self._modes.changes()
        self._modes.restore()
        patches = self._patches.changes()
        if patches:
            self._patches.restore()
        faults += patches
        for key, name in self._in_use.items():
            known = self._models.get(key)
            if known is not None and (changes := known.custody.changes()):
                known.custody.restore()
                faults.append(f"model '{name}': {'; '.join(changes)}")
        if any(_digest(images) != digest for images, digest in self._images.values()):
            faults.append("the images of the pair list were changed")
            for cache in self._caches():
                cache.clear()
        return list(dict.fromkeys(faults))


def why_untrusted(faults: Sequence[str]) -> str:
    """Say why the values of a cell can't be trusted.

    >>> why_untrusted(["default dtype"])[:75]
    'changed while the cell was measured, outside of every watched call: default'
    """
    return (
        f"changed while the cell was measured, outside of every watched call: {'; '.join(faults)}. "
        "A thread that user code left running can do that, a model that changes itself, or a "
        "plug-in's metric. Its values can't be trusted; later cells get everything as it was."
    )


def _digest(images: Tensor) -> str:
    return hashlib.blake2b(images.contiguous().numpy().data, digest_size=16).hexdigest()

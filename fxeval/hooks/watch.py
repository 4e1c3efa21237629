"""What user code shares with the measurement: the model, the code that computes, the settings."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fxeval.contracts import Crop, FaceModel
from fxeval.hooks.custody import Custody
from fxeval.hooks.patches import Namespace, Patches, name_of
from fxeval.hooks.process_modes import Modes
from fxeval.hooks.surroundings import SURROUNDINGS
from fxeval.hooks.torch_modes import COMPUTING, GRADIENTS

OF_TORCH = (*GRADIENTS, *COMPUTING)
_OF_A_MODEL = (
    "name", "crop", "similarity", "operating_threshold", "digest", "module", "traits", "model",
    "threshold", "pool", "key",
)  # fmt: skip
_ABSENT = object()


@dataclass(frozen=True)
class Found:
    """What user code had changed.

    Attributes:
        changes: Of the model and of code that computes for everybody, in words.
        modes: Names of settings that decide how torch and numpy compute.
        stuck: What of all this cannot be put back, in words.
    """

    changes: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()


class Watch:
    """Remembers a lent model, shared code and settings while user code runs.

    Whether gradients are on is not among the settings: who calls user code switches them on.
    """

    def __init__(self, model: FaceModel) -> None:
        self._model = ModelCustody(model)
        self._patches = Patches.now()
        self._modes, self._surroundings = Modes(COMPUTING), Modes(SURROUNDINGS)
        self._changed_modes: list[str] = []

    def changes(self) -> list[str]:
        """Return what differs now of all that embeddings depend on, in words."""
        return [*self._model.changes(), *self._patches.changes(), *self._modes.changes()]

    def put_modes_back(self) -> None:
        """Put settings back at once, for the code that reads what user code returned."""
        if changed := self._modes.changes():
            self._modes.restore()
        self._changed_modes += changed
        self._surroundings.restore()

    def put_back(self) -> Found:
        """Put everything back; return what had been changed since the last time."""
        self.put_modes_back()  # first: a left default device would meet every step below
        # Before the model is compared: the functions that compare it may be among them.
        replaced = self._patches.changes()
        stuck = self._patches.restore() if replaced else []
        of_the_model = self._model.changes()
        self._model.restore(is_same=not of_the_model)
        if of_the_model:
            stuck += self._model.changes()
        changes = dict.fromkeys([*of_the_model, *replaced])
        modes, self._changed_modes = self._changed_modes, []
        if modes:
            stuck += self._modes.changes()
        return Found(tuple(changes), tuple(dict.fromkeys(modes)), tuple(dict.fromkeys(stuck)))


class ModelCustody:
    """Remembers a face model: its network, and what fxeval reads of the object itself."""

    def __init__(self, model: FaceModel) -> None:
        self._objects = [_Object(one) for one in _around(model)]
        self._network = None if model.module is None else Custody(model.module)

    def changes(self) -> list[str]:
        """Return what differs now, in words."""
        found = [] if self._network is None else self._network.changes()
        return found + [word for one in self._objects for word in one.changes()]

    def restore(self, *, is_same: bool = False) -> None:
        """Put the model back; :meth:`changes` says what cannot be.

        Args:
            is_same: :meth:`changes` just found nothing.
        """
        for one in self._objects:
            one.restore()
        if self._network is not None:
            self._network.restore(is_same=is_same)


class _Object:
    """One object that stands for a model, its classes, and its crop; it does not keep it alive."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._kind = type(model)
        self._held = getattr(model, "__dict__", {})
        self._names = set(self._held)
        self._kept = {
            name: value
            for name, value in self._held.items()
            if name in _OF_A_MODEL or callable(value)
        }
        self._kinds = [Namespace(kind, name_of(kind)) for kind in type(model).__mro__[:-1]]
        crop = self._held.get("crop")
        self._crop = crop if isinstance(crop, Crop) else None
        self._values = None if self._crop is None else dict(vars(self._crop))

    def changes(self) -> Iterator[str]:
        """Yield what differs now, in words."""
        for name in self._replaced():
            yield f"the model's attribute {name} was changed"
        if self._crop is not None and vars(self._crop) != self._values:
            yield "the model's crop was changed"
        for kind in self._kinds:
            yield from kind.changes()

    def restore(self) -> None:
        """Put attributes, classes and crop back; frozen objects are written to all the same."""
        for name in self._replaced():
            if name in self._kept:
                self._held[name] = self._kept[name]
            else:
                del self._held[name]
        if self._crop is not None and self._values is not None:
            vars(self._crop).update(self._values)
        for kind in self._kinds:
            kind.restore()

    def _replaced(self) -> list[str]:
        # A value that is loaded when it is first needed is no change; a method that is hidden is.
        new = [
            name
            for name, value in self._held.items()
            if name not in self._names
            and callable(value)
            and callable(getattr(self._kind, name, None))
        ]
        return new + [
            name for name, kept in self._kept.items() if self._held.get(name, _ABSENT) is not kept
        ]


def _around(model: object) -> Iterator[object]:
    """Yield a model, and the models that it wraps."""
    while model is not None:
        yield model
        inner = getattr(model, "__dict__", {}).get("model")
        model = inner if callable(getattr(type(inner), "embed", None)) else None


@contextmanager
def modes_kept(told: Callable[[str], None], who: str) -> Iterator[None]:
    """Run user code that makes no maps, and put back the settings that decide how torch computes.

    This takes microseconds, little beside a forward pass.

    Args:
        told: Called with a sentence about settings that were put back.
        who: Who runs, for the sentence.
    """
    modes = Modes(OF_TORCH)
    try:
        yield
    finally:
        if changed := modes.changes():
            modes.restore()
            told(put_back_sentence(who, changed))


def put_back_sentence(who: str, modes: Sequence[str]) -> str:
    """Say which settings were put back.

    >>> put_back_sentence("explainer 'Mine'", ["default dtype"])
    "explainer 'Mine' changed settings of the process, which were put back: default dtype"
    """
    return f"{who} changed settings of the process, which were put back: {', '.join(modes)}"


def running_threads() -> set[threading.Thread]:
    """Return the threads of Python that are alive."""
    return set(threading.enumerate())

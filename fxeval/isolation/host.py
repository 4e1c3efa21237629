"""The run's side: starts the process of an explainer, asks it, and starts it again if it ends."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import ExplainerTraits, FaceModel, RowState, SaliencyMaps
from fxeval.engine.forward_pool import PooledModel
from fxeval.errors import (
    ExplainerContractError,
    ModelContractError,
    UnsupportedError,
    UserCodeError,
)
from fxeval.isolation import copies
from fxeval.isolation.messages import Message, global_states, set_state, state_of
from fxeval.isolation.running import EndedError, Process
from fxeval.models.loading import device_of

MODULE = "fxeval.isolation.child"
START_SECONDS = 120.0
"""Seconds that a process gets, beside the timeout, to import torch and user code."""

FAILURES = 8
FAILURES_IN_A_ROW = 4
"""Failures, in all and without an answer between them, after which it is not started again."""

_SMALL = 16 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Bounds:
    """What a process may take: seconds for each answer, and bytes of memory."""

    seconds: float
    memory: int


class Host:
    """The process of one explainer.

    Args:
        factory: ``module:callable`` that returns the explainer.
        settings: Its keyword arguments.
        model: ``module:callable`` that returns the model, or None.
        bounds: What the process may take.
    """

    def __init__(
        self, factory: str, settings: Mapping[str, Any], model: str | None, bounds: Bounds
    ) -> None:
        self._factory, self._settings, self._model_factory = factory, settings, model
        self._bounds = bounds
        self._process: Process | None = None
        self._traits: ExplainerTraits | None = None
        self._ways: dict[str, copies.Way] = {}
        self._lent: tuple[object, dict[str, Any]] | None = None
        self._number = 0
        self._failures = self._in_a_row = 0
        self._last = ""

    @property
    def traits(self) -> ExplainerTraits:
        """Of the explainer.

        Raises:
            ExplainerContractError: If the process or the factory fails.
        """
        if self._traits is None:
            self._start()
        assert self._traits is not None
        return self._traits

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why the explainer cannot explain the model, or why the process cannot have it."""
        try:
            self._lend(model)
        except UnsupportedError as error:
            return str(error)
        try:
            found = self._asked("unsupported", {}, {}, _SMALL)
        except EndedError as error:
            raise self._broken(f"its process {error} at unsupported(model)", error) from error
        except _AnsweredError as error:
            said = f"explainer '{self._factory}': unsupported(model) raised "
            raise ExplainerContractError(said + error.said, public=said + error.reason) from error
        reason = found.values.get("reason")
        return None if reason is None else str(reason)

    def explain(
        self, model: FaceModel, inputs: Mapping[str, Tensor], generator: np.random.Generator
    ) -> SaliencyMaps:
        """Return the maps, and leave the generator as the explainer left it.

        Raises:
            UserCodeError: If the process fails, or the explainer in it.
            ExplainerContractError: If the explainer refuses the inputs.
            ModelContractError: If the copy of the model fails.
        """
        if self._failures >= FAILURES or self._in_a_row >= FAILURES_IN_A_ROW:
            text = f"{self._last}; after {self._failures} failures it is not started again"
            raise UserCodeError(text, state=RowState.EXPLAINER_RAISED)
        states = global_states(device_of(model))
        try:
            self._lend(model)
        except (ExplainerContractError, UnsupportedError) as error:
            raise self._failed(str(error), error.public) from error
        values = {"states": dict(states.values), "generator": state_of(generator)}
        n, _, *size = inputs["probes"].shape
        most = n * (2 * 4 * size[0] * size[1] + 4096) + _SMALL
        try:
            found = self._asked("explain", values, {**inputs, **states.tensors}, most)
            made = self._read(found, n, generator)
        except EndedError as error:
            reason = f"its process {error}"
            printed = f". It printed last: {error.output}" if error.output else ""
            raise self._failed(reason + printed, reason) from error
        except _AnsweredError as error:
            self._in_a_row = 0  # the process is as good as before
            raise error.as_in_the_run(self._bounds) from error
        self._in_a_row = 0
        if isinstance(model, PooledModel):
            forwards, backwards = found.values["cost"]
            model.pool.forwards += forwards
            model.pool.backwards += backwards
        return made

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
        self._process, self._lent = None, None

    def _start(self) -> None:
        """Start the process, build the explainer and read its traits.

        Raises:
            ExplainerContractError: If that fails.
        """
        try:
            self._process = Process(MODULE)
        except OSError as error:
            raise ExplainerContractError(
                f"explainer '{self._factory}': its process cannot be started: {error}"
            ) from error
        weakref.finalize(self, self._process.close)
        values = {
            "factory": self._factory, "settings": self._settings, "memory": self._bounds.memory,
            "threads": torch.get_num_threads(), "dtype": str(torch.get_default_dtype())[6:],
            "deterministic": [torch.are_deterministic_algorithms_enabled()],
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        }  # fmt: skip
        try:
            found = self._asked("start", values, {}, _SMALL, START_SECONDS).values
            self._traits = self._understood(lambda: _traits_in(found))
        except EndedError as error:
            raise self._broken(f"its process {error} while it was built", error) from error
        except _AnsweredError as error:
            self.close()
            raise ExplainerContractError(
                f"explainer '{self._factory}': {error.detail}",
                public=f"explainer '{self._factory}': {error.public}",
            ) from error

    def _lend(self, model: FaceModel) -> None:
        """Start the process if it is not there, and give it a copy of the model if it has none.

        Raises:
            ExplainerContractError: If the process cannot be started.
            UnsupportedError: If it cannot have a copy.
        """
        facts, module = copies.facts_of(model), model.module
        if self._process is not None and self._lent is not None:
            known, before = self._lent
            if before == facts and (known() if isinstance(known, weakref.ref) else None) is module:
                return
        is_new = self._lent is None or self._lent[1]["name"] != model.name or module is None
        # A re-drawn network is no longer the card's, but it is built in the same way.
        if model.name not in self._ways:
            self._ways[model.name] = copies.way_of(model, self._model_factory)
        expected = copies.two_embeddings(model)
        if self._process is None:
            self._start()
            is_new = True
        said = f"model '{model.name}' cannot be copied into the process of its explainer: "
        values = {"way": self._ways[model.name], "facts": facts, "is_new": is_new}
        try:
            found = self._asked("lend", values, copies.weights_of(model), _SMALL, START_SECONDS)
            is_same = torch.equal(found.tensors["embeddings"], expected)
        except EndedError as error:
            raise UnsupportedError(f"{said}the process {error}.") from error
        except _AnsweredError as error:
            raise UnsupportedError(said + error.detail, public=said + error.public) from error
        if not is_same:
            raise UnsupportedError(
                f"{said}the copy embeds two images other than the model does, so the model depends "
                "on more than its code and weights. Name a factory that returns it: {model: "
                '"module:factory"}.'
            )
        self._lent = None if module is None else weakref.ref(module), facts

    def _asked(
        self, task: str, values: Mapping[str, Any], tensors: Mapping[str, Tensor], most: int,
        more_seconds: float = 0.0,
    ) -> Message:  # fmt: skip
        """Return an answer.

        Raises:
            EndedError: If there is none, or one that cannot be read. The process is ended.
            _AnsweredError: If it is an error.
        """
        assert self._process is not None
        self._number += 1
        asked = Message({**values, "task": task, "number": self._number}, tensors)
        seconds = self._bounds.seconds + more_seconds
        try:
            data = self._process.ask(asked.packed(), seconds=seconds, most=most)
        except BaseException:  # the process is ended by now
            self.close()
            raise
        return self._understood(lambda: self._checked(Message.unpacked(data)))

    def _checked(self, found: Message) -> Message:
        if found.values["number"] != self._number:
            raise ValueError("an answer to another question")
        if "error" in found.values:
            raise _AnsweredError(found.values["error"])
        return found

    def _read(self, found: Message, n: int, generator: np.random.Generator) -> SaliencyMaps:
        """Return the maps of an answer."""
        if "refusal" in found.values:
            refusal = found.values["refusal"]
            raise ExplainerContractError(str(refusal["detail"]), public=str(refusal["public"]))

        def maps() -> SaliencyMaps:
            values, tensors = found.values, found.tensors
            set_state(generator, values["generator"])
            names = [str(name) for name in values["diagnostics"]]
            forwards, backwards = values["cost"]
            if type(forwards) is not int or type(backwards) is not int:
                raise ValueError("expected counts")
            return SaliencyMaps(
                tensors["positive"],
                tensors.get("negative"),
                tuple(RowState(state) for state in values["states"]),
                tuple(map(str, values["reasons"])),
                {name: tensors[f"diagnostic {i}"] for i, name in enumerate(names)},
            )

        return self._understood(maps)

    def _understood(self, read: Callable[[], _T]) -> _T:
        """Read an answer, which may be anything.

        Raises:
            EndedError: If it cannot be read. The process is ended.
        """
        try:
            return read()
        except _AnsweredError:
            raise
        except Exception as error:
            self.close()
            raise EndedError("gave an answer that cannot be read") from error

    def _failed(self, detail: str, public: str) -> UserCodeError:
        """Count a failure, and return it as the error of these rows."""
        self._failures += 1
        self._in_a_row += 1
        self._last = public
        return UserCodeError(detail, public=public, state=RowState.EXPLAINER_RAISED)

    def _broken(self, said: str, error: EndedError) -> ExplainerContractError:
        """Return the error of an explainer that cannot be asked at all."""
        public = f"explainer '{self._factory}': {said}"
        printed = f". It printed last: {error.output}" if error.output else ""
        return ExplainerContractError(public + printed, public=public)


def _traits_in(found: Mapping[str, Any]) -> ExplainerTraits:
    return ExplainerTraits(
        frozenset(found["needs"]),
        found["takes_centroids"],
        found["maps_are_given"],
        found["source"],
        found["digest"],
        found["takes_contrast"],
    )


class _AnsweredError(Exception):
    """The process answered with an error of user code."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        super().__init__(found["said"])
        self.said, self.reason = str(found["said"])[:20_000], str(found["reason"])[:1000]
        self._state = RowState(found["state"])
        self._name = found.get("name")
        self.detail, self.public = self.said, self.reason
        if self._name is not None:  # one of fxeval's own errors speaks for itself
            self.detail, self.public = str(found["detail"])[:20_000], str(found["public"])[:1000]
        self._is_of_memory = bool(found.get("memory"))

    def as_in_the_run(self, bounds: Bounds) -> UserCodeError | ModelContractError:
        """Return the error that user code would have raised in the process of the run."""
        if self._name == ModelContractError.__name__:
            return ModelContractError(self.detail, public=self.public)
        more = f"; memory_gib allows {bounds.memory / 2**30:g} GiB" if self._is_of_memory else ""
        return UserCodeError(self.said + more, public=self.reason + more, state=self._state)

"""The explainer's side: user code is called here, and its answers and errors become messages."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxeval import errors
from fxeval.contracts import Explainer, FaceModel, Gallery, RowState, SaliencyMaps, traits_of
from fxeval.engine.forward_pool import ForwardPool, PooledModel, precise
from fxeval.engine.metering import metered
from fxeval.errors import ExplainerContractError, FxevalError, for_a_record
from fxeval.hooks.custody import Custody
from fxeval.hooks.processes import one_process
from fxeval.hooks.returned import check_explainer, check_maps
from fxeval.isolation import copies
from fxeval.isolation.messages import (
    Message,
    generator_in,
    set_global_states,
    state_of,
)
from fxeval.models.loading import device_of
from fxeval.redaction import message_of, of_user_code, place_of
from fxeval.strict.parameters import frozen
from fxeval.strict.sandbox import bound
from fxeval.traits import own_refusal


class Served:
    """The state of the process: an explainer, and the copy of a model that is lent to it."""

    def __init__(self) -> None:
        self._explainer: Explainer | None = None
        self._model: FaceModel | None = None
        self._custody: Custody | None = None

    def answer(self, message: bytes) -> bytes:
        """Return the answer to a message; whatever user code raises is one."""
        asked = Message.unpacked(message)
        tasks: dict[str, Callable[[Message], Message]] = {
            "start": self._start, "lend": self._lend,
            "unsupported": self._unsupported, "explain": self._explain,
        }  # fmt: skip
        try:
            with one_process():
                found = tasks[asked.values["task"]](asked)
                # A hostile tensor or state fails here at the latest.
                return Message({**found.values, "number": asked.values["number"]},
                               found.tensors).packed()  # fmt: skip
        except BaseException as error:  # user code may raise anything
            said = {**_said(error), "number": asked.values["number"]}
            return Message({"error": said, "number": asked.values["number"]}, {}).packed()

    def _start(self, asked: Message) -> Message:
        """Bound this process, import the factory and build the explainer; return its traits."""
        given = asked.values
        torch.set_num_threads(given["threads"])
        torch.use_deterministic_algorithms(*given["deterministic"])
        torch.set_default_dtype(getattr(torch, given["dtype"]))
        if given["device"] != "cpu":
            torch.zeros(1, device=given["device"])
        # The threads of a pool take address space, and are not user code's.
        torch.ones(1 << 20).add_(1)
        bound(memory=given["memory"])
        made = copies.imported(given["factory"])
        settings = {key: frozen(value) for key, value in given["settings"].items()}
        explainer = made(**settings) if callable(made) else made
        self._explainer = check_explainer(given["factory"], explainer)
        traits = traits_of(explainer)
        return Message(
            {
                "needs": sorted(traits.needs),
                "takes_centroids": traits.takes_centroids,
                "maps_are_given": traits.maps_are_given,
                "source": traits.source,
                "digest": traits.digest,
                "takes_contrast": traits.takes_contrast,
            },
            {},
        )

    def _lend(self, asked: Message) -> Message:
        """Build the copy of a model, or give it other weights; return two embeddings of it."""
        facts = asked.values["facts"]
        if asked.values["is_new"]:
            model = copies.built(asked.values["way"], facts, asked.tensors)
        else:
            assert isinstance(self._model, PooledModel | copies.Copy)
            assert self._custody is not None
            self._custody.restore()
            model = self._model.model if isinstance(self._model, PooledModel) else self._model
            assert isinstance(model, copies.Copy)
            copies.filled(model, facts, asked.tensors)
            model = copies.Copy(model.model, facts)
        embeddings = copies.two_embeddings(model)
        self._custody = None if model.module is None else Custody(model.module)
        if facts["batch_size"] is not None:
            pool = ForwardPool(batch_size=facts["batch_size"])
            changes = tuple if self._custody is None else self._custody.changes
            model = PooledModel(model, pool, facts["digest"], changes)
        self._model = model
        return Message({}, {"embeddings": embeddings})

    def _unsupported(self, asked: Message) -> Message:
        reason = own_refusal(self._explainer, self._lent())
        return Message({"reason": reason}, {})

    def _explain(self, asked: Message) -> Message:
        """Ask the explainer as the engine does, and check its maps as the engine does."""
        model, explainer = self._lent(), self._explainer
        assert explainer is not None
        device = device_of(model)
        given = {name: one.to(device) for name, one in asked.tensors.items()}
        generator = generator_in(asked.values["generator"])
        set_global_states(Message(asked.values["states"], asked.tensors), device)
        changes = [] if self._custody is None else self._custody.changes()
        pool = model.pool if isinstance(model, PooledModel) else ForwardPool()
        maps: object = None
        raised: Message | None = None
        with metered(model.module, pool) as cost, precise(device):
            try:
                maps = _ask(explainer, model, given, generator)
            except ExplainerContractError as error:
                refusal = {"detail": str(error), "public": error.public}
                raised = Message({"refusal": refusal}, {})
            except BaseException as error:  # user code may raise anything
                raised = Message({"error": _said(error)}, {})
        failed = self._changed([*changes, *self._put_back()]) or raised
        if failed is not None:
            return failed
        try:
            n, _, *size = given["probes"].shape
            found = check_maps(type(explainer).__name__, maps, n, (size[0], size[1]))
        except ExplainerContractError as error:
            fault = {"state": RowState.WRONG_SHAPE, "reason": for_a_record(error)}
            return Message({"error": {**fault, "said": str(error)}}, {})
        return _of_maps(found, generator, (cost.forwards, cost.backwards))

    def _lent(self) -> FaceModel:
        assert self._model is not None
        return self._model

    def _put_back(self) -> list[str]:
        if self._custody is None:
            return []
        changes = self._custody.changes()
        if changes:
            self._custody.restore()
        return changes

    def _changed(self, changes: list[str]) -> Message | None:
        if not changes:
            return None
        text = "; ".join(dict.fromkeys(changes))
        fault = {"state": RowState.MODEL_CHANGED, "reason": text, "said": text}
        return Message({"error": fault}, {})


def _ask(
    explainer: Explainer,
    model: FaceModel,
    given: dict[str, Tensor],
    generator: np.random.Generator,
) -> object:
    extra: dict[str, Any] = {}
    if "contrast" in given:
        extra["contrast"] = given["contrast"]
    if "gallery" in given:
        of_references = given.get("reference_identity")
        extra["gallery"] = Gallery(
            given["gallery"],
            given["identity"].cpu(),
            given["probe_identity"].cpu(),
            None if of_references is None else of_references.cpu(),
        )
    with np.errstate(), torch.inference_mode(False), torch.enable_grad():
        return explainer.explain(
            model, given["probes"], given["references"], generator=generator, **extra
        )


def _of_maps(found: SaliencyMaps, generator: np.random.Generator, cost: tuple[int, int]) -> Message:
    tensors = {"positive": found.positive}
    if found.negative is not None:
        tensors["negative"] = found.negative
    for number, each in enumerate(found.diagnostics.values()):
        tensors[f"diagnostic {number}"] = each
    values = {
        "states": found.states,
        "reasons": [str(reason) for reason in found.reasons],
        "diagnostics": list(found.diagnostics),
        "generator": state_of(generator),
        "cost": cost,
    }
    return Message(values, tensors)


def _said(error: BaseException) -> dict[str, Any]:
    """Return what an error says, as the engine does for one of its own process."""
    text, kind = message_of(error), type(error).__name__
    if isinstance(error, FxevalError):
        public = for_a_record(error)
        name = kind if kind in vars(errors) else "FxevalError"
        place = place_of(error)
        return {"name": name, "detail": text, "public": public,
                "state": RowState.EXPLAINER_RAISED,
                "reason": f"{kind}: {public}"[:500] + place,
                "said": f"{kind}: {text}{place}"}  # fmt: skip
    return {
        "state": RowState.EXPLAINER_RAISED,
        "reason": of_user_code(error),
        "said": (f"{kind}: {text}" if text else kind) + place_of(error),
        "memory": isinstance(error, MemoryError) or "allocate memory" in text,
    }

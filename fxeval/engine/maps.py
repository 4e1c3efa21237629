"""Asks an explainer for maps, checks them, and confines a fault to the pairs that cause it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fxeval.contracts import (
    Explainer,
    FaceModel,
    RowState,
    SaliencyMaps,
    model_traits,
    traits_of,
)
from fxeval.engine.forward_pool import PooledModel
from fxeval.engine.inputs import Comparison, Inputs
from fxeval.errors import (
    ExplainerContractError,
    FxevalError,
    ModelContractError,
    UnansweredError,
    UserCodeError,
    for_a_record,
)
from fxeval.explainers.map_levels import joined
from fxeval.hooks.processes import is_a_stop, one_process
from fxeval.hooks.returned import check_maps
from fxeval.hooks.watch import Watch, put_back_sentence
from fxeval.redaction import message_of, of_user_code, place_of
from fxeval.seeding import generator_of, sealed, seed_of
from fxeval.traits import own_refusal

Progress = Callable[[int, int], None]
Tell = Callable[[str], None]
ROWS_AT_ONCE = 16  # pairs that are explained and measured together, whatever the batch size


def explain(
    explainer: Explainer,
    model: PooledModel,
    asked: Comparison,
    *,
    seed: int,
    progress: Progress,
    tell: Tell = lambda text: None,
) -> SaliencyMaps:
    """Return the explainer's map of the image of every comparison.

    Comparisons are handed over in groups of ``ROWS_AT_ONCE``. If a group fails, its pairs are asked
    for one by one, so that only those at fault get a broken state. After each call the model is
    restored, and so are hooks on all modules and functions of torch, numpy, Python and fxeval that
    were replaced; the pairs of a call that changed any of them are marked ``model_changed``.
    Settings of the process (``fxeval.hooks.process_modes``) are restored, too, and noted.

    An explainer that needs a contrast gets, for each pair, the nonmate that the list names, or else
    the other side's image of another identity of the list; one that needs a gallery gets all images
    of the list, embedded.

    Args:
        explainer: User code.
        model: The model, its ``embed`` through the pool.
        asked: N comparisons.
        seed: The suite's seed; the mask bank depends on it, on the index of the explainer's seed,
            on the name of draws of their own and on the image size alone.
        progress: Called with (pairs done, pairs in all).
        tell: Called with the full text of the explainer's errors. ``reasons`` leave it out: records
            are passed on, and errors of user code may hold anything.

    Returns:
        (N, H, W) maps on the CPU, with a state for each.

    Raises:
        ModelContractError: If the model fails on the clean images, or can't be restored.
        EvidenceError: If the list has no nonmate for an explainer that needs one.
        ExplainerContractError: If the explainer refuses each of the first pairs for the same
            reason: it is not set up for this model or these images.
    """
    group = _Group(explainer, model, Inputs(explainer, model, asked, seed), seed, tell)
    parts: list[SaliencyMaps] = []
    done = 0
    for rows in torch.split(asked.order, ROWS_AT_ONCE):
        parts.extend(group.maps(rows))
        if not done:
            group.check_refusals(parts)
            group.give_up_after(parts)
        done += len(rows)
        progress(done, len(asked))
    return joined(parts, group.size)


def why_unsupported(explainer: Explainer, model: FaceModel) -> str | None:
    """Return why the explainer can't explain this kind of model, by its needs or its own answer.

    Raises:
        ExplainerContractError: If ``unsupported`` raises, returns no text, or changes the model.
    """
    needs = traits_of(explainer).needs
    if model.module is None and needs & {"gradients", "layers"}:
        about = model_traits(model).runtime or "its module is None"
        return (
            f"it needs gradients, and the model is a black box ({about}). Use an explainer that "
            "only asks for embeddings, such as srise."
        )
    if "layers" in needs and not model_traits(model).has_layers:
        return (
            "it hooks layers, and hooks see nothing inside this model (its trait has_layers is "
            "False). Use an explainer of the image's gradient, or one that only asks for "
            "embeddings."
        )
    name = type(explainer).__name__
    watch = Watch(model)
    changes: Sequence[str] = ()
    try:
        with one_process(), torch.inference_mode(False), torch.enable_grad(), sealed(0):
            try:
                reason = own_refusal(explainer, model)
            finally:
                watch.put_modes_back()
    except FxevalError:
        raise
    except BaseException as error:  # user code may raise anything
        if is_a_stop(error):
            raise
        said = f"explainer '{name}': unsupported(model) raised"
        raise ExplainerContractError(
            f"{said} {type(error).__name__}: {message_of(error)}",
            public=f"{said} {of_user_code(error)}",
        ) from error
    finally:
        changes = watch.put_back().changes
    if changes:
        raise ExplainerContractError(
            f"explainer '{name}': unsupported(model) changed the model: {'; '.join(changes)}."
        )
    return reason


class _Group:
    """Explains groups of pairs and watches over the model meanwhile."""

    def __init__(
        self, explainer: Explainer, model: PooledModel, inputs: Inputs, seed: int, tell: Tell
    ) -> None:
        self._tell = tell
        self._explainer = explainer
        self._model = model
        self._inputs = inputs
        self._seed = seed
        self.size = inputs.size
        self._refusals: list[ExplainerContractError] = []
        self._hopeless: tuple[RowState, str] | None = None
        self._watch = Watch(model)
        # Embeddings of a changed model, or computed in another way, must not be cached.
        self._model = replace(model, changes=self._watch.changes)

    def maps(self, rows: Tensor) -> list[SaliencyMaps]:
        """Return the maps of a group, as one part or, after a fault, as one part per pair."""
        if self._hopeless is not None:
            return [self._nothing(len(rows), self._hopeless)]
        return self._maps(rows)

    def _maps(self, rows: Tensor, *, is_again: bool = False) -> list[SaliencyMaps]:
        """Ask for the maps of a group.

        A call that changed the model is made again once: a thread of another explainer may have
        done it, and maps can differ in the last digits if pairs are asked for one by one.
        """
        part: SaliencyMaps | None = None
        fault: tuple[RowState, str] | None = None
        changes: Sequence[str] = ()
        try:
            part = self._ask(rows)
        except BaseException as error:  # user code may raise anything
            _raise_if_no_fault(error)
            fault = _fault(error)
            if len(rows) == 1 and (said := _said(error)) != fault[1]:
                self._tell(said)
            if isinstance(error, _RefusedError) and len(rows) == 1:
                self._refusals.append(error.refusal)
            is_of_the_model = isinstance(error, ModelContractError)
        finally:  # an interrupted run restores the model, too
            changes = self._put_back()
        if fault is not None and is_of_the_model:  # raises if the explainer is not to blame
            self._try_model(rows)
        if changes and fault is None and not is_again:
            return self._again(rows, changes)
        if changes:
            fault = RowState.MODEL_CHANGED, _advised("; ".join(changes))
        if part is not None and fault is None:
            return [part]
        assert fault is not None
        if len(rows) == 1:
            return [self._nothing(1, fault)]
        return self._one_by_one(rows, fault)

    def _one_by_one(self, rows: Tensor, fault: tuple[RowState, str]) -> list[SaliencyMaps]:
        first, *others = torch.split(rows, 1)
        parts = self._maps(first, is_again=True)
        if fault[0] is parts[0].states[0] is RowState.WRONG_SHAPE:
            # The form of what it returns does not depend on the pairs: the others need no call.
            return [*parts, self._nothing(len(others), (fault[0], parts[0].reasons[0]))]
        return [*parts, *(part for row in others for part in self._maps(row, is_again=True))]

    def give_up_after(self, parts: Sequence[SaliencyMaps]) -> None:
        """Ask no more if every pair of the first group failed for one reason.

        Such an explainer fails whatever the others give, and asking takes minutes.
        """
        faults = {fault for part in parts for fault in zip(part.states, part.reasons, strict=True)}
        state, reason = next(iter(faults))
        if len(faults) == 1 and state in (RowState.WRONG_SHAPE, RowState.EXPLAINER_RAISED):
            self._hopeless = state, f"not asked, as the first pairs all failed: {reason}"

    def _nothing(self, n: int, fault: tuple[RowState, str]) -> SaliencyMaps:
        empty = torch.full((n, *self.size), torch.nan)
        return SaliencyMaps(empty, None, (fault[0],) * n, (fault[1],) * n)

    def _again(self, rows: Tensor, changes: Sequence[str]) -> list[SaliencyMaps]:
        parts = self._maps(rows, is_again=True)
        if all(state is not RowState.MODEL_CHANGED for part in parts for state in part.states):
            self._model.pool.note(
                f"explainer '{type(self._explainer).__name__}': the model was changed during a "
                f"call, and was not when the call was made again: {'; '.join(changes)}"
            )
        return parts

    def check_refusals(self, parts: Sequence[SaliencyMaps]) -> None:
        """Raise the explainer's own error if it refused every pair so far for the same reason."""
        n = sum(len(part.states) for part in parts)
        if len(self._refusals) == n and len(set(map(str, self._refusals))) == 1:
            first = self._refusals[0]
            raise ExplainerContractError(first.detail, public=first.public)

    def _ask(self, rows: Tensor) -> SaliencyMaps:
        seed = seed_of(self._seed, "global", *self._inputs.address)
        with one_process(), torch.inference_mode(False), torch.enable_grad(), sealed(seed):
            probes, references = self._inputs.clean(rows)
            try:
                maps: object = self._explainer.explain(
                    self._model,
                    probes,
                    references,
                    generator=generator_of(self._seed, "explain", *self._inputs.address),
                    **self._inputs.extra(rows),
                )
            except ExplainerContractError as error:
                raise _RefusedError(error) from error
            finally:
                self._watch.put_modes_back()
        # check_maps copies: the explainer may reuse its buffer for the next maps.
        return check_maps(type(self._explainer).__name__, maps, len(rows), self.size)

    def _put_back(self) -> Sequence[str]:
        """Restore the model and all that is shared; return what had been changed of it.

        Raises:
            ModelContractError: If it can't be restored.
        """
        found, name = self._watch.put_back(), type(self._explainer).__name__
        if found.modes:
            self._model.pool.note(put_back_sentence(f"explainer '{name}'", found.modes))
        if found.changes and found.stuck:
            raise ModelContractError(
                f"model '{self._model.name}': what explainer '{name}' did to it can't be undone: "
                f"{'; '.join(found.stuck)}. Give the explainer a copy."
            )
        return found.changes

    def _try_model(self, rows: Tensor) -> None:
        """Embed the clean images: only an error that comes again here is the model's own.

        Raises:
            ModelContractError: If the model fails again.
        """
        try:
            for images in self._inputs.clean(rows):
                self._model.embed(images)
        finally:
            self._put_back()


class _RefusedError(Exception):
    """Raised if the explainer itself says that it cannot explain its inputs."""

    def __init__(self, refusal: ExplainerContractError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _raise_if_no_fault(error: BaseException) -> None:
    """Raise what stops the run, and the error of a service that is away if it led to this one."""
    if is_a_stop(error):
        raise error
    led: BaseException | None = error
    met: list[int] = []  # user code can make a chain of errors a circle
    while led is not None and id(led) not in met:
        if isinstance(led, UnansweredError):
            raise led from error
        met.append(id(led))
        led = led.__context__ if led.__cause__ is None else led.__cause__


def _fault(error: BaseException) -> tuple[RowState, str]:
    """Return the state of a row, and the text about the error that a record may hold."""
    if isinstance(error, _RefusedError):
        return RowState.EXPLAINER_RAISED, for_a_record(error.refusal)
    if isinstance(error, UserCodeError):
        return RowState(error.state), for_a_record(error)
    if isinstance(error, ExplainerContractError):
        return RowState.WRONG_SHAPE, for_a_record(error)
    if isinstance(error, FxevalError):
        text = f"{type(error).__name__}: {for_a_record(error)}"[:500]
        return RowState.EXPLAINER_RAISED, text + place_of(error)
    return RowState.EXPLAINER_RAISED, of_user_code(error)


def _said(error: BaseException) -> str:
    """Return the full text of an error, for the person who runs the suite."""
    said = message_of(error)
    if isinstance(error, _RefusedError | ExplainerContractError | UserCodeError):
        return said
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return text + place_of(error)


def _advised(changes: str) -> str:
    if "gradients were left" in changes:
        return f"{changes}. Use torch.autograd.grad, which leaves none, instead of backward()."
    return changes

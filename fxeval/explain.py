"""Asks an explainer for maps, trusts nothing, and loses no pair to another's fault."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxeval.admission import check_maps
from fxeval.contracts import (
    Explainer,
    FaceModel,
    Gallery,
    Images,
    Pairs,
    RowState,
    SaliencyMaps,
)
from fxeval.errors import (
    EvidenceError,
    ExplainerContractError,
    FxevalError,
    ModelContractError,
)
from fxeval.explainers.levels import joined
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

    An explainer whose ``needs`` name a contrast gets, for each pair, the nonmate that the list
    names, or else the other side's image of another identity of the list; one that needs a gallery
    gets all images of the list, embedded.

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
        EvidenceError: If the list has no nonmate for an explainer that needs one.
        ExplainerContractError: If the explainer refuses the first pairs one by one for one and the
            same reason: it is not set up for this model or these images.
    """
    group = _Group(explainer, model, _Comparisons(explainer, model, pairs, side, seed), seed)
    parts: list[SaliencyMaps] = []
    for rows in torch.split(torch.arange(len(pairs)), ROWS_AT_ONCE):
        parts.extend(group.maps(rows))
        if int(rows[0]) == 0:
            group.check_refusals(parts)
        progress(int(rows[-1]) + 1, len(pairs))
    return joined(parts, group.size)


def why_unsupported(explainer: Explainer, model: FaceModel) -> str | None:
    """Return why the explainer can't explain this kind of model, by its own word or by its needs.

    Raises:
        ExplainerContractError: If it can't be asked, answers oddly or changes the model.
    """
    if model.module is None and needs_of(explainer) & {"gradients", "layers"}:
        return (
            "it needs gradients, and the model is a black box (its module is None). Use an "
            "explainer that only asks for embeddings, such as srise."
        )
    if "layers" in needs_of(explainer) and not getattr(model, "has_layers", True):
        return (
            "it hooks layers, and hooks see nothing inside this model (its has_layers is False). "
            "Use an explainer of the image's gradient, or one that only asks for embeddings."
        )
    ask, name = getattr(explainer, "unsupported", None), type(explainer).__name__
    if ask is None:
        return None
    custody = Custody(model.module) if model.module is not None else None
    changes: list[str] = []
    try:
        with _modes_kept(), sealed(0):
            reason = ask(model)
    except FxevalError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        raise ExplainerContractError(
            f"explainer '{name}': unsupported(model) raised {type(error).__name__}: {error}"
        ) from error
    finally:
        if custody is not None:
            changes = custody.changes()
            custody.restore()
    if changes:
        raise ExplainerContractError(
            f"explainer '{name}': unsupported(model) changed the model: {'; '.join(changes)}."
        )
    if reason is not None and not (isinstance(reason, str) and reason):
        raise ExplainerContractError(
            f"explainer '{name}': unsupported(model) must return the reason as text, or None, got "
            f"{reason!r}."
        )
    return reason


def needs_of(explainer: Explainer) -> frozenset[str]:
    """Return what an explainer says it needs; nothing if it says nothing."""
    return frozenset(getattr(explainer, "needs", ()))


class _Comparisons:
    """What an explainer is handed for some rows of a pair list."""

    def __init__(
        self, explainer: Explainer, model: PooledModel, pairs: Pairs, side: Side, seed: int
    ) -> None:
        of_probe = (pairs.probe, pairs.probe_identity)
        of_reference = (pairs.reference, pairs.reference_identity)
        first, second = (of_probe, of_reference) if side == "probe" else (of_reference, of_probe)
        needs = needs_of(explainer)
        self.size = (int(pairs.images.shape[-2]), int(pairs.images.shape[-1]))
        self._device = device_of(model)
        self._images = pairs.images
        self._probes, self._identity = first
        self._references, self._reference_identity = second
        self._contrast: Tensor | None = None
        if "contrast" in needs:
            drawn = pairs.contrast is None
            self._contrast = _nonmates(pairs, first[1], second, seed) if drawn else pairs.contrast
        self._gallery: tuple[Tensor, Tensor] | None = None
        if "gallery" in needs:
            identity = torch.full((len(pairs.images),), -1)
            identity[pairs.probe] = pairs.probe_identity
            identity[pairs.reference] = pairs.reference_identity
            if pairs.contrast is not None and pairs.contrast_identity is not None:
                identity[pairs.contrast] = pairs.contrast_identity
            self._gallery = (model.pool.clean(model, pairs), identity)

    def clean(self, rows: Tensor) -> tuple[Images, Images]:
        """Return probes and references; they belong to whoever asks and may be written over."""
        return self._inputs(self._probes[rows]), self._inputs(self._references[rows])

    def extra(self, rows: Tensor) -> dict[str, Any]:
        """Return the keywords that the explainer asked for."""
        given: dict[str, Any] = {}
        if self._contrast is not None:
            given["contrast"] = self._inputs(self._contrast[rows])
        if self._gallery is not None:
            embeddings, identity = self._gallery
            given["gallery"] = Gallery(
                embeddings.to(self._device, copy=True), identity.clone(),
                self._identity[rows], self._reference_identity[rows],
            )  # fmt: skip
        return given

    def _inputs(self, images: Tensor) -> Images:
        return self._images[images].to(self._device).to(torch.float32).div_(255.0)


class _Group:
    """Explains groups of pairs and watches over the model meanwhile."""

    def __init__(
        self, explainer: Explainer, model: PooledModel, comparisons: _Comparisons, seed: int
    ) -> None:
        self._explainer = explainer
        self._model = model
        self._comparisons = comparisons
        self._seed = seed
        self.size = comparisons.size
        self._refusals: list[str] = []
        self._custody = Custody(model.module) if model.module is not None else None
        if self._custody is not None:  # embeddings of a changed model are not remembered
            self._model = replace(model, changes=self._custody.changes)

    def maps(self, rows: Tensor) -> list[SaliencyMaps]:
        """Return the maps of a group, as one part or, after a fault, as one part per pair."""
        part: SaliencyMaps | None = None
        fault: tuple[RowState, str] | None = None
        changes: list[str] = []
        try:
            part = self._ask(rows)
        except Exception as error:  # a stranger's code may raise anything
            fault = _fault(error)
            if isinstance(error, _RefusedError) and len(rows) == 1:
                self._refusals.append(fault[1])
            is_of_the_model = isinstance(error, ModelContractError)
        finally:  # an interrupted run hands the model back, too
            changes = self._put_back()
        if fault is not None and is_of_the_model:
            self._try_model(rows)
        if changes:
            fault = RowState.MODEL_CHANGED, _advised("; ".join(changes))
        if part is not None and fault is None:
            return [part]
        assert fault is not None
        if len(rows) > 1:
            return [part for row in torch.split(rows, 1) for part in self.maps(row)]
        nothing = torch.full((1, *self.size), torch.nan)
        return [SaliencyMaps(nothing, None, (fault[0],), (fault[1],))]

    def check_refusals(self, parts: Sequence[SaliencyMaps]) -> None:
        """Raise what the explainer itself said if it refused every pair so far alike."""
        n = sum(len(part.states) for part in parts)
        if len(self._refusals) == n and len(set(self._refusals)) == 1:
            raise ExplainerContractError(self._refusals[0])

    def _ask(self, rows: Tensor) -> SaliencyMaps:
        with _modes_kept(), sealed(seed_of(self._seed, "global", *self.size)):
            probes, references = self._comparisons.clean(rows)
            try:
                maps: object = self._explainer.explain(
                    self._model,
                    probes,
                    references,
                    generator=generator_of(self._seed, "explain", *self.size),
                    **self._comparisons.extra(rows),
                )
            except ExplainerContractError as error:
                raise _RefusedError(str(error)) from error
        # check_maps copies: the explainer may write its next maps over these.
        return check_maps(type(self._explainer).__name__, maps, len(rows), self.size)

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

    def _try_model(self, rows: Tensor) -> None:
        """Embed the clean images: an error of the model is the model's only if it comes again.

        Raises:
            ModelContractError: If it does.
        """
        try:
            for images in self._comparisons.clean(rows):
                self._model.embed(images)
        finally:
            self._put_back()


def _nonmates(pairs: Pairs, identity: Tensor, others: tuple[Tensor, Tensor], seed: int) -> Tensor:
    """Choose for each row an image of another identity among the other side's; (N,) int64."""
    chosen = []
    for row, own in enumerate(identity.tolist()):
        images = torch.unique(others[0][(others[1] != own) & (others[1] != others[1][row])])
        if not len(images):
            raise EvidenceError(
                f"pairs '{pairs.name}': the explainer needs a nonmate, but the list has no other "
                "identity. Bring pairs of at least two."
            )
        # By content, so that a row keeps its nonmate when the list's order changes.
        digests = sorted(images.tolist(), key=lambda image: pairs.image_digests[image])
        chosen.append(digests[seed_of(seed, "nonmate", pairs.row_id(row)) % len(digests)])
    return torch.tensor(chosen, dtype=torch.int64)


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


class _RefusedError(Exception):
    """The explainer itself says that it cannot explain what it is given."""


def _fault(error: Exception) -> tuple[RowState, str]:
    if isinstance(error, _RefusedError):
        return RowState.EXPLAINER_RAISED, str(error)
    if isinstance(error, ExplainerContractError):
        return RowState.WRONG_SHAPE, str(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return RowState.EXPLAINER_RAISED, text[:500] + _place(error)


def _place(error: Exception) -> str:
    """Say where in the stranger's own code an error came up: the file's name and the line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = ("/fxeval/", "/torch/", "/site-packages/")
    own = [frame for frame in frames if not any(part in frame.filename for part in ours)]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""


def _advised(changes: str) -> str:
    if "gradients were left" in changes:
        return f"{changes}. Use torch.autograd.grad, which leaves none, instead of backward()."
    return changes

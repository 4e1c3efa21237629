"""Bridges from pairs of faces to attribution libraries: functions, targets and a lent network.

captum takes a function of images, pytorch-grad-cam one function for each row of the network's
output. Both get the objectives of :mod:`fxeval.explainers.objectives`, and a network that is
restored after they have left traces on it.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fxeval.contracts import Embeddings, FaceModel, Images, Maps, RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers.objectives import FLAT_REASON, Objective, Targets
from fxeval.hooks.layers import borrowed
from fxeval.hooks.returned import check_embeddings
from fxeval.seeding import sealed

ROWS = 16  # pairs handed to a library at once; one by one if it draws random numbers


class PairObjective(nn.Module):
    """The objective as a function of images: the forward function that captum gets.

    A deep copy has its own network, but shares the comparison that notes gradients.

    Attributes:
        module: The network, to name its layers; None for a black box.
    """

    def __init__(self, comparison: "Comparison", *, embeds: bool) -> None:
        super().__init__()
        self.module = comparison.model.module
        self.training = False
        self._comparison = comparison
        self._embeds = embeds

    def __deepcopy__(self, memo: dict[int, object]) -> "PairObjective":
        copied = PairObjective(self._comparison, embeds=self._embeds)
        copied.module = deepcopy(self.module, memo)
        return copied

    def forward(self, images: Images, rows: Tensor) -> Tensor:
        """Return the objective's values (b,), float64.

        Args:
            images: (b, 3, H, W) in [0, 1].
            rows: (b,) int64, the number of the probe that each image replaces.

        Raises:
            ExplainerContractError: If embeddings do not depend differentiably on the images.
        """
        model = self._comparison.model
        if self._embeds:
            embeddings: Tensor = model.embed(images.detach())
        else:
            assert self.module is not None
            embeddings = self.module(images.clone())  # it may write to its input
            if torch.is_grad_enabled() and images.requires_grad and not embeddings.requires_grad:
                raise refused(
                    self._comparison.name,
                    f"the embedding of model '{model.name}' does not depend differentiably on the "
                    "image. Let the module compute with gradients.",
                )
        check_embeddings(model.name, embeddings, len(images))
        return self._comparison.values(embeddings, rows)


class Comparison:
    """An objective of n probes that notes for which of them a gradient was computed.

    Args:
        name: The explainer's name, for messages.
        objective: The objective to explain.
        model: The model.
        targets: Of the n probes.
        is_twin: (n,) bool, True where the probe is its reference, so that a gradient is rounding.
    """

    def __init__(
        self, name: str, objective: Objective, model: FaceModel, targets: Targets, is_twin: Tensor
    ) -> None:
        self.model = model
        self.name = name
        self._objective = objective
        self._targets = targets
        self._is_twin = is_twin.cpu()
        self._is_asked = torch.zeros_like(self._is_twin)
        self._is_sloped = torch.zeros_like(self._is_twin)

    def values(self, embeddings: Embeddings, rows: Tensor) -> Tensor:
        """Return the objective (b,), float64, with a gradient, of (b, D) embeddings."""
        found: Tensor = _Pulled.apply(embeddings, self, rows.cpu())  # type: ignore[no-untyped-call]
        return found

    def pull(self, embeddings: Embeddings, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return value, gradient and flatness at (b, D) embeddings of the probes' numbers (b,)."""
        targets = self._targets.rows(cast(slice, rows))  # row numbers index just as well
        pull = self._objective.pull(self.model.similarity, embeddings, targets)
        return pull.value, pull.gradient, pull.is_flat.cpu()

    def note(self, rows: Tensor, is_flat: Tensor) -> None:
        """Remember that a gradient was computed for some rows, and whether it was flat."""
        self._is_asked[rows] = True
        self._is_sloped[rows[~is_flat]] = True

    def maps(self, positive: Maps, negative: Maps | None = None) -> SaliencyMaps:
        """Return the maps with rows that have no gradient set to zero, and the reason given."""
        is_void = self._is_asked & (~self._is_sloped | self._is_twin)
        hidden = is_void.to(positive.device)[:, None, None]
        return SaliencyMaps(
            positive.masked_fill(hidden, 0.0),
            None if negative is None else negative.masked_fill(hidden, 0.0),
            tuple(RowState.NO_GRADIENT if void else RowState.OK for void in is_void.tolist()),
            tuple(FLAT_REASON if void else "" for void in is_void.tolist()),
        )


class _Pulled(torch.autograd.Function):
    """The objective as an autograd function; ``Objective.pull`` computes value and gradient."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, comparison: Comparison, rows: Tensor) -> Tensor:  # noqa: ANN401
        value, gradient, is_flat = comparison.pull(embeddings, rows)
        ctx.save_for_backward(gradient)
        ctx.note = partial(comparison.note, rows, is_flat)
        ctx.dtype = embeddings.dtype
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        ctx.note()
        (gradient,) = ctx.saved_tensors
        return (upper[:, None] * gradient).to(ctx.dtype), None, None


def row_target(comparison: Comparison, row: Tensor, output: Tensor) -> Tensor:
    """Return the objective of one (D,) output in the place of probe ``row`` (1,)."""
    if output.ndim != 1:
        raise refused(comparison.name, f"expected embeddings (D,), got {tuple(output.shape)}.")
    return comparison.values(output[None], row)[0]


def in_parts(ask: Callable[[Tensor], Maps], images: Images, generator: np.random.Generator) -> Maps:
    """Ask for the maps of n images, a few rows at a time, with the same random numbers each time.

    A method that draws random numbers is called row by row, so that a map does not depend on the
    row's place.
    """
    seed = int(deepcopy(generator).integers(1 << 63))
    parts = [images.new_zeros((0, *images.shape[2:]))]
    start, at_once = 0, ROWS
    while start < len(images):
        rows = torch.arange(start, min(start + at_once, len(images)))
        with sealed(seed):
            before = _random_state()
            part = ask(rows)
            draws = _random_state() != before
        if draws and len(rows) > 1:  # discard the maps, and ask again row by row
            at_once = 1
        else:
            parts.append(part)
            start += len(rows)
    return torch.cat(parts)


def _random_state() -> tuple[object, ...]:
    """Return the state of every global generator."""
    _, keys, *place = np.random.get_state(legacy=True)  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    tensors = [torch.get_rng_state(), *cuda]
    return (
        random.getstate(), np.asarray(keys).tobytes(), *place,
        *(state.numpy().tobytes() for state in tensors),
    )  # fmt: skip


@contextmanager
def lent_to_library(module: nn.Module | None) -> Iterator[None]:
    """Lend a network to a library that leaves traces on it, and remove them even after an error.

    Training flags, hooks, gradients of parameters and replaced layers are restored; any other
    change is an error, see :func:`borrowed`.
    """
    if module is None:
        yield
        return
    parts = [(part, dict(part._modules)) for part in module.modules()]
    hooks = [
        (some, set(some))
        for part, _ in parts
        for some in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
    ]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    with borrowed(module):
        for parameter, _ in gradients:
            parameter.grad = None  # or the library would add to it
        try:
            yield
        finally:
            for part, children in parts:
                if dict(part._modules) != children:
                    part._modules.clear()
                    part._modules.update(children)
            for some, known in hooks:
                for key in set(some) - known:
                    del some[key]
            for parameter, gradient in gradients:
                parameter.grad = gradient


def as_maps(name: str, found: object, images: Images) -> Maps:
    """Return the maps that user code made of n images as (n, H, W) float32 on their device.

    Args:
        name: The explainer's name, for the message.
        found: (n, H, W) or (n, 1, H, W) numbers, a tensor or a numpy array.
        images: (n, 3, H, W).

    Raises:
        ExplainerContractError: If they are anything else.
    """
    expected = (len(images), *images.shape[2:])
    if isinstance(found, np.ndarray):
        if found.dtype.kind not in "fiu":
            raise refused(name, f"expected maps of real numbers, got dtype {found.dtype}.")
        with np.errstate(all="ignore"):  # overflow gives infinity, which is reported later
            found = torch.from_numpy(np.array(found, np.float32))
    if not isinstance(found, Tensor):
        what = f"expected a tensor or a numpy array of maps {expected}"
        raise refused(name, f"{what}, got {type(found).__name__}.")
    if found.dtype == torch.bool or found.is_complex():
        raise refused(name, f"expected maps of real numbers, got {found.dtype}.")
    maps = found.detach()
    if maps.ndim == 4 and maps.shape[1] == 1:
        maps = maps[:, 0]
    if tuple(maps.shape) != expected:
        what = f"expected maps {expected}, one per probe and at its size"
        raise refused(name, f"{what}, got {tuple(maps.shape)}.")
    return maps.to(images.device, torch.float32)


def refused(name: str, fault: str) -> ExplainerContractError:
    """Return the error that names the explainer at fault."""
    return ExplainerContractError(f"{name}: {fault}")

"""Counts what an explainer makes a network do: images forward, images backward, seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxeval.engine.forward_pool import ForwardPool


@dataclass
class Cost:
    """The cost of making some maps.

    Attributes:
        forwards: Images in forward passes; embeddings that were still in memory cost nothing.
        backwards: Images in backward passes, once for every backward pass of the output. Excitation
            backprop has passes of its own kind, which its diagnostics count.
        seconds: Wall time.
    """

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0


@contextmanager
def metered(module: nn.Module | None, pool: ForwardPool) -> Iterator[Cost]:
    """Count while open.

    Args:
        module: The network; None for a black box, for which only pooled passes are known.
        pool: The pool, which counts its own passes.
    """
    cost = Cost()
    started, before = time.perf_counter(), (pool.forwards, pool.backwards)
    handle = None

    def on_backward(gradient: Tensor) -> None:
        cost.backwards += _images(gradient)

    def on_forward(_module: nn.Module, _inputs: tuple[Any, ...], output: object) -> None:
        if not isinstance(output, Tensor) or not output.ndim:
            return
        if not pool.is_embedding:  # the pool adds its own passes at the end
            cost.forwards += len(output)
        if output.requires_grad:
            output.register_hook(on_backward)  # type: ignore[no-untyped-call]

    if module is not None:
        handle = module.register_forward_hook(on_forward)
    try:
        yield cost
    finally:
        if handle is not None:
            handle.remove()
        cost.forwards += pool.forwards - before[0]
        cost.backwards += pool.backwards - before[1]
        cost.seconds = time.perf_counter() - started


def _images(gradient: Tensor) -> int:
    """Return how many images a gradient at the output is of; batched gradients count each."""
    if torch._C._functorch.is_legacy_batchedtensor(gradient):  # autograd.grad(is_grads_batched)
        return int(torch._remove_batch_dim(gradient, 1, 1, 0)[..., 0].numel())
    return len(gradient)

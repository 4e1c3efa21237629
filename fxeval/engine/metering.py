"""Counts what an explainer makes a network do: images forward and backward, seconds, memory."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fxeval.engine.forward_pool import ForwardPool

_CPU = torch.device("cpu")
_STATM = Path("/proc/self/statm")


@dataclass
class Cost:
    """The cost of making some maps.

    Attributes:
        forwards: Images in forward passes; embeddings that were still in memory cost nothing.
        backwards: Images in backward passes, once for every backward pass of the output. Excitation
            backprop has passes of its own kind, which its diagnostics count.
        seconds: Wall time.
        answered: Images that were asked for and answered from memory: with ``forwards`` they are
            what the maps take, whatever was embedded before.
        peak_memory: Bytes. On a GPU, the most that tensors held there at once, less what they held
            at the start. On a CPU, the largest resident memory of the process, read after each
            forward and backward pass, less that at the start; None where the system does not say.
    """

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    answered: int = 0
    peak_memory: int | None = None


class _Memory:
    """Follows the memory that the maps of one set take on a device."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats(self._gpu)
        self._start = self._now()
        self._most = self._start

    def read(self) -> None:
        """Read a CPU's; a GPU keeps its own peak."""
        if self._gpu is None and self._most is not None:
            self._most = max(self._most, self._now() or 0)

    def peak(self) -> int | None:
        """Return the peak since the start, in bytes, less the start."""
        self.read()
        if self._start is None or self._most is None:
            return None
        most = self._most
        if self._gpu is not None:
            most = torch.cuda.max_memory_allocated(self._gpu)
        return max(0, most - self._start)

    def _now(self) -> int | None:
        if self._gpu is not None:
            return torch.cuda.memory_allocated(self._gpu)
        try:
            pages = int(_STATM.read_text().split()[1])
        except (OSError, ValueError, IndexError):  # a system without /proc
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def metered(
    module: nn.Module | None, pool: ForwardPool, device: torch.device = _CPU
) -> Iterator[Cost]:
    """Count while open.

    Args:
        module: The network; None for a black box, for which only pooled passes are known.
        pool: The pool, which counts its own passes.
        device: Where the network is.
    """
    cost, memory = Cost(), _Memory(device)
    started, before = time.perf_counter(), (pool.forwards, pool.backwards, pool.answered)
    handle = None

    def on_backward(gradient: Tensor) -> None:
        memory.read()
        cost.backwards += _images(gradient)

    def on_forward(_module: nn.Module, _inputs: tuple[Any, ...], output: object) -> None:
        memory.read()
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
        cost.answered += pool.answered - before[2]
        cost.peak_memory = memory.peak()
        cost.seconds = time.perf_counter() - started


def _images(gradient: Tensor) -> int:
    """Return how many images a gradient at the output is of; batched gradients count each."""
    if torch._C._functorch.is_legacy_batchedtensor(gradient):  # autograd.grad(is_grads_batched)
        return int(torch._remove_batch_dim(gradient, 1, 1, 0)[..., 0].numel())
    return len(gradient)

"""Randomness with an address: every draw is seeded by what it is for."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def seed_of(*parts: str | int) -> int:
    """Return the 63-bit seed that belongs to an address such as (suite seed, "ties", row id).

    The digest is stable across processes, platforms and Python versions (unlike ``hash``), so a row
    keeps its seed when other rows, cells or workers come or go.

    >>> seed_of(7, "ties", "row-1") == seed_of(7, "ties", "row-1")
    True
    >>> seed_of(7, "ties", "row-1") == seed_of(7, "ties", "row-2")
    False
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_of(*parts: str | int) -> np.random.Generator:
    """Return a fresh PCG64 generator seeded by :func:`seed_of`."""
    return np.random.Generator(np.random.PCG64(seed_of(*parts)))


@contextmanager
def sealed(seed: int) -> Iterator[None]:
    """Run user code with the global generators seeded, then put them back as they were.

    Code that draws from a global generator thereby gives the same result every time, and leaves no
    trace in the caller's random state.
    """
    import torch  # here, so that seeds can be had without loading it

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    # fork_rng restores only torch's generators.
    with torch.random.fork_rng(devices=devices):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002  (takes 32 bits)
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002

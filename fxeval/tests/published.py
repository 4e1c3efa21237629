"""Published networks, implemented again: keys by enumeration, arithmetic by plain functions.

Written from the published block structure, with nothing of ``fxeval.models`` in it.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.tests.rounding import allowance, terms_of

Shapes = dict[str, tuple[int, ...]]


def convolution(name: str, before: int, after: int, *kernel: int) -> Shapes:
    height, width = kernel if len(kernel) == 2 else kernel * 2
    return {f"{name}.weight": (after, before, height, width)}


def batch_norm(name: str, width: int, *, is_affine: bool = True) -> Shapes:
    parts = ["weight", "bias"] * is_affine + ["running_mean", "running_var"]
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def listing(shapes: Shapes) -> list[str]:
    """Lines "key sizes", sorted."""
    return sorted(" ".join([key, *map(str, shape)]) for key, shape in shapes.items())


def digest(shapes: Shapes) -> str:
    return hashlib.sha256("\n".join(listing(shapes)).encode()).hexdigest()


def parameters(shapes: Shapes) -> int:
    """Number of trained values: all but the statistics of batch norms."""
    ends = ("running_mean", "running_var", "num_batches_tracked")
    return sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(ends))


def convolutions(shapes: Shapes) -> int:
    return sum(len(shape) == 4 for shape in shapes.values())


def golden(family: str) -> dict[str, list[str]]:
    """Committed "parameters entries convolutions digest first-key last-key" by network."""
    text = (Path(__file__).parent / "golden" / f"{family}.txt").read_text()
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: facts for name, *facts in rows}


def facts(shapes: Shapes) -> list[str]:
    keys = sorted(shapes)
    numbers = parameters(shapes), len(shapes), convolutions(shapes)
    return [*map(str, numbers), digest(shapes), keys[0], keys[-1]]


def shapes_of(module: nn.Module) -> Shapes:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float32 in [0, 1), the same with every release of numpy and torch."""
    raw = np.random.PCG64(crc32(name.encode())).random_raw(max(1, math.prod(shape)))
    return torch.from_numpy((raw >> 40).astype(np.float32) / 2**24).reshape(shape)


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    """Weights of which every tensor matters and no map explodes."""
    return {key: _drawn(key, shape) for key, shape in shapes.items()}


def _drawn(key: str, shape: tuple[int, ...]) -> Tensor:
    if not shape:
        return torch.tensor(7)
    value = noise(key, shape)
    if len(shape) > 1:
        return (2 * value - 1) * math.sqrt(6 / math.prod(shape[1:]))
    if key.endswith(("bias", "running_mean")):
        return 0.4 * value - 0.2
    return 0.5 + value if key.endswith("running_var") else 0.1 + 0.9 * value


def assert_printed(found: Tensor, printed: list[float], digits: int, network: nn.Module) -> None:
    """Compare the first values of an embedding with printed ones, which were rounded like it."""
    rounding = allowance(2 * terms_of(network)) * float(found.abs().max())
    first = found[: len(printed)].tolist()
    assert first == pytest.approx(printed, abs=0.5 * 10.0**-digits + rounding)


@dataclass(frozen=True)
class Arithmetic:
    """The layers of a network as functions of its state dict, in float64."""

    state: dict[str, Tensor]
    eps: float = 1e-5

    def __getitem__(self, key: str) -> Tensor:
        return self.state[key].double()

    def conv(self, name: str, x: Tensor, stride: int = 1, padding=0, groups: int = 1) -> Tensor:
        bias = self[f"{name}.bias"] if f"{name}.bias" in self.state else None
        return F.conv2d(x, self[f"{name}.weight"], bias, stride, padding, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        mean, variance = self[f"{name}.running_mean"], self[f"{name}.running_var"]
        y = (x - mean.reshape(shape)) / (variance + self.eps).sqrt().reshape(shape)
        if f"{name}.weight" not in self.state:
            return y
        return y * self[f"{name}.weight"].reshape(shape) + self[f"{name}.bias"].reshape(shape)

    def prelu(self, name: str, x: Tensor) -> Tensor:
        slope = self[f"{name}.weight"].reshape(1, -1, 1, 1)
        return torch.where(x > 0, x, slope * x)

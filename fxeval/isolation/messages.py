"""Messages between processes: plain values as JSON, tensors as safetensors; never a pickle."""

import json
import random
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

_LENGTH = struct.Struct(">Q")


class Message(NamedTuple):
    """Plain values, and tensors by name."""

    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def packed(self) -> bytes:
        """Return the message as bytes; tensors that share memory are written out one by one."""
        text = json.dumps(self.values).encode()
        apart = {
            name: one.detach().to("cpu", copy=True).contiguous()
            for name, one in self.tensors.items()
        }
        return _LENGTH.pack(len(text)) + text + safetensors.torch.save(apart)

    @staticmethod
    def unpacked(data: bytes) -> "Message":
        """Return the message of some bytes.

        Raises:
            ValueError: If they are none.
        """
        try:
            (length,) = _LENGTH.unpack_from(data)
            start = _LENGTH.size
            values = json.loads(data[start : start + length])
            tensors = safetensors.torch.load(data[start + length :])
        except Exception as error:  # a damaged archive can raise anything
            raise ValueError("no message") from error
        if not isinstance(values, dict):
            raise ValueError("no message")
        return Message(values, tensors)


def global_states(device: torch.device) -> Message:
    """Return the states of the global generators: Python's, NumPy's, torch's."""
    _, words, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    python = random.getstate()
    return Message({"python": python, "numpy": [np.asarray(words).tolist(), *rest]}, states)


def set_global_states(found: Message, device: torch.device) -> None:
    """Put the global generators into the states of another process."""
    version, words, gauss = found.values["python"]
    random.setstate((version, tuple(words), gauss))
    keys, *rest = found.values["numpy"]
    np.random.set_state(("MT19937", np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(found.tensors["torch"])
    if "cuda" in found.tensors:
        torch.cuda.set_rng_state(found.tensors["cuda"], device)


def state_of(generator: np.random.Generator) -> Any:  # noqa: ANN401  (plain JSON)
    """Return the state of a generator as plain values."""
    return _plain(generator.bit_generator.state)


def set_state(generator: np.random.Generator, state: Any) -> None:  # noqa: ANN401
    """Put a generator of the same kind into a state."""
    generator.bit_generator.state = _arrays(state)


def generator_in(state: Any) -> np.random.Generator:  # noqa: ANN401
    """Return a generator in a state."""
    kinds = {"PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"}
    name = state["bit_generator"]
    if name not in kinds:
        raise ValueError(f"expected one of numpy's bit generators, got {name}")
    generator = np.random.Generator(getattr(np.random, name)())
    set_state(generator, state)
    return generator


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _arrays(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    return np.array(value, np.uint64) if isinstance(value, list) else value

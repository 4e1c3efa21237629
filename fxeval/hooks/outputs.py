"""The outputs of a network that returns more than its embeddings: their names, and picking one."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TypeAlias

from torch import Tensor, nn

from fxeval.contracts import Embeddings, Images
from fxeval.errors import ModelContractError
from fxeval.strict.text import brief, hint

OutputName: TypeAlias = str | int
"""Names one of several outputs: the key of a mapping, the field of a class, or a place from 0."""

_SHOWN = 8  # outputs that a message lists


class PickedOutput(nn.Module):
    """A network of several outputs, as ``network``, of which one is returned.

    Args:
        network: ``Images`` to several outputs.
        output: Key, field or place of the embeddings among them.
    """

    def __init__(self, network: nn.Module, output: OutputName) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) images in [0, 1]; returns (N, D).

        Raises:
            ModelContractError: If the network has no such output.
        """
        return picked(self.network(images), self.output)


def picked(outputs: object, output: OutputName) -> Tensor:
    """Return one output of a network.

    Raises:
        ModelContractError: If there is no such output, or it is no tensor.
    """
    found = outputs_of(outputs)
    if isinstance(output, str):
        value = found.get(output)
    else:
        places = list(found.values())
        value = places[output] if 0 <= output < len(places) else None
    if isinstance(value, Tensor):
        return value
    if not found:
        said = f"the network has one output, {kind_of(outputs)}: leave 'output' out"
    else:
        said = f"it returns {kind_of(outputs)}. {hint(str(output), found)}"
    raise ModelContractError(f"output={output!r}: expected a tensor of this name, but {said}")


def outputs_of(value: object) -> dict[str, object]:
    """Return what a network returned by name; nothing for a tensor or another single value."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    # A list of numbers is one value that came as no tensor.
    if isinstance(value, list | tuple) and any(isinstance(one, Tensor) for one in value):
        return {str(place): one for place, one in enumerate(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return {}


def kind_of(value: object) -> str:
    """Describe a value that a network returned: its type, and the shapes of several outputs.

    >>> import torch
    >>> kind_of((torch.ones(2), torch.ones(2, 64)))
    "a tuple of 2 outputs: '0' (2,), '1' (2, 64)"
    >>> kind_of(torch.ones(2, 64)), kind_of(None)
    ('a tensor (2, 64)', 'NoneType')
    """
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    found = outputs_of(value)
    if not found:
        return type(value).__name__
    shown = [f"'{brief(name)}' {_shape(one)}" for name, one in list(found.items())[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    number = "1 output" if len(found) == 1 else f"{len(found)} outputs"
    return f"a {type(value).__name__} of {number}: {', '.join(shown)}{more}"


def advice_to_pick(value: object, n: int) -> str:
    """Return how to pick the embeddings of n images among several outputs; "" for a single one."""
    found = outputs_of(value)
    if not found:
        return ""
    of_a_place = isinstance(value, list | tuple) and not hasattr(value, "_fields")
    fitting = [name if of_a_place else repr(name) for name, one in found.items() if _is_set(one, n)]
    if not fitting:
        return f" None of them is ({n}, D). Return the embeddings from forward."
    if len(fitting) == 1:
        return f" Pick it: TorchFaceModel(..., output={fitting[0]})."
    return f" Pick the embeddings: TorchFaceModel(..., output=...), one of {_listed(fitting)}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN])


def _is_set(value: object, n: int) -> bool:
    """Say whether a value can be the embeddings of n images."""
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        return False
    return value.ndim == 2 and value.shape[0] == n and value.shape[1] >= 2


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__

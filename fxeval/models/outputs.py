"""Which of the values that a network returns are the embeddings; never guessed."""

from collections.abc import Mapping

from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.errors import ModelContractError
from fxeval.strict.text import brief, either

Output = str | int
"""The name of an output, or its place in a tuple, counted from 0."""


def chosen(returned: object, output: Output | None) -> Embeddings:
    """Return the embeddings among the values that a network returned.

    Args:
        returned: A tensor, or a tuple, list or mapping of values.
        output: Which of them; None = there is only one.

    Raises:
        ModelContractError: If there are several and none is named, or the named one is not there;
            the message lists all of them with their shapes.
    """
    if isinstance(returned, Tensor):
        if output is None:
            return returned
        raise ModelContractError(
            f"the network returns one tensor {tuple(returned.shape)} and no output "
            f"{_shown(output)}. Remove 'output' from the card."
        )
    values = _values(returned)
    if output is None and len(values) == 1:
        found: object = next(iter(values.values()))
    elif output is None or output not in values:
        shapes = {key: _shape(value) for key, value in values.items()}
        raise ModelContractError(which_output(shapes, output))
    else:
        found = values[output]
    if not isinstance(found, Tensor):
        raise ModelContractError(
            f"the network returns {type(found).__name__} where a tensor of embeddings is expected. "
            "Return the embeddings from forward."
        )
    return found


def which_output(shapes: Mapping[Output, str], wanted: Output | None) -> str:
    """Return the message for several outputs, none of which is named or has the wanted name.

    Args:
        shapes: Output -> its shape, or its kind, as text.
        wanted: The output that the card names, or None.
    """
    listed = ", ".join(f"{_shown(key)} {shape}" for key, shape in list(shapes.items())[:8])
    listed += f" and {len(shapes) - 8} more" if len(shapes) > 8 else ""
    if not shapes:
        return "the network has no output. Return the embeddings."
    if wanted is not None:
        return (
            f"the network has no output {_shown(wanted)}; it has {listed}. Correct 'output' in the "
            "card."
        )
    ways = either([f"'output: {_shown(key)}'" for key in list(shapes)[:3]])
    return (
        f"the network has {len(shapes)} outputs: {listed}. Say in the card which of them holds the "
        f"embeddings: {ways}."
    )


def _shown(output: Output) -> str:
    """Return an output as a card would name it: a name in quotes, which may consist of digits."""
    return str(output) if isinstance(output, int) else f'"{brief(output)}"'


def _values(returned: object) -> dict[Output, object]:
    if isinstance(returned, Mapping):
        return {str(key): value for key, value in returned.items()}
    if isinstance(returned, tuple | list):
        return dict(enumerate(returned))
    raise ModelContractError(
        f"the network returns {type(returned).__name__}: expected a tensor of embeddings (N, D), "
        "or a tuple or dict that holds it. Return the embeddings from forward."
    )


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"({type(value).__name__})"

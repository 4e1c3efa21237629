"""Which of several outputs of a network are the embeddings, as its card says; never guessed."""

from collections.abc import Mapping

from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.errors import ModelContractError
from fxeval.hooks.outputs import OutputName, outputs_of
from fxeval.strict.text import brief, either

_SHOWN = 8  # outputs that a message lists


def chosen(returned: object, output: OutputName | None) -> Embeddings:
    """Return the embeddings among the values that a network returned.

    Args:
        returned: A tensor, or several values in a tuple, a list, a mapping or a class.
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
    found, values = outputs_of(returned), dict[OutputName, object]()
    if isinstance(returned, list | tuple) and not hasattr(returned, "_fields"):
        values.update(enumerate(found.values()))
    else:
        values.update(found)
    if not values:
        raise ModelContractError(
            f"the network returns {type(returned).__name__}: expected a tensor of embeddings "
            "(N, D), or several outputs of which one is it. Return the embeddings from forward."
        )
    if isinstance(output, int) and output < len(values):
        output = list(values)[output]
    if (output is None and len(values) > 1) or (output is not None and output not in values):
        shapes = {key: _shape(value) for key, value in values.items()}
        raise ModelContractError(which_output(shapes, output))
    embeddings = next(iter(values.values())) if output is None else values[output]
    if not isinstance(embeddings, Tensor):
        raise ModelContractError(
            f"the network returns {type(embeddings).__name__} where a tensor of embeddings is "
            "expected. Return the embeddings from forward."
        )
    return embeddings


def which_output(shapes: Mapping[OutputName, str], wanted: OutputName | None) -> str:
    """Return the message for several outputs, none of which is named or has the wanted name.

    Args:
        shapes: Output -> its shape, or its kind, as text.
        wanted: The output that the card names, or None.
    """
    if not shapes:
        return "the network has no output. Return the embeddings."
    listed = ", ".join(f"{_shown(key)} {shape}" for key, shape in list(shapes.items())[:_SHOWN])
    listed += f" and {len(shapes) - _SHOWN} more" if len(shapes) > _SHOWN else ""
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


def _shown(output: OutputName) -> str:
    """Return an output as a card would name it: a name in quotes, which may consist of digits."""
    return str(output) if isinstance(output, int) else f'"{brief(output)}"'


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"({type(value).__name__})"

"""Parameters of shipped explainers, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fxeval.errors import FxevalError
from fxeval.explainers import shipped
from fxeval.parameters import faults_of, frozen

if TYPE_CHECKING:
    from fxeval.explainers.layers import LayerInfo


def check_params(id: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every fault of a shipped explainer's parameters as (key, message); [] if none.

    >>> check_params("srise", {"maks": 10})
    [('maks', "unknown parameter of srise. Did you mean 'masks'?")]

    Args:
        id: A key of ``SHIPPED``.
        params: Name to value, as a suite file gives them.
    """
    return faults_of(shipped(id), id, params)


def check_layers(id: str, params: Mapping[str, Any], layers: Sequence["LayerInfo"]) -> str | None:
    """Return why a network does not have the layers that the parameters name; None if it does.

    Args:
        id: A key of ``SHIPPED``.
        params: Without faults (:func:`check_params`).
        layers: Of the network.
    """
    from fxeval.explainers.layers import resolve

    layer = frozen(params.get("layer"))
    if layer is None:
        return None
    try:
        resolve(layer, layers, id)
    except FxevalError as error:
        return str(error)
    return None


def layers_of_shipped(model: str) -> "list[LayerInfo]":
    """Return the layers of a shipped model, found without its weights.

    Raises:
        KeyError: If there is no such model.
    """
    import torch

    from fxeval import models
    from fxeval.datasets.alignment import CROPS
    from fxeval.explainers.layers import layers_of

    name = models.SHIPPED[model]
    size = CROPS[models.ARCHITECTURES[name].crop].size
    images = torch.empty((1, 3, *size), device="meta")
    return layers_of(models.architecture(name), images)

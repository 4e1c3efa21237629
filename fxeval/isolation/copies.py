"""How a process of its own gets a copy of a network: the way to build it, and then its weights.

Nothing is pickled. A network is built again from its card's architecture, from a factory that the
user names, or from its class if that takes no argument; then it gets the weights bit by bit. The
copy counts only if it embeds two images exactly as the network does.
"""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fxeval.contracts import Crop, FaceModel, ModelTraits, SimilarityKind, model_traits
from fxeval.engine.forward_pool import PooledModel, precise
from fxeval.errors import ContractError, UnsupportedError
from fxeval.hooks.returned import check_model
from fxeval.models.cards import STATE_FORMATS
from fxeval.models.from_card import CardedModel, prepared
from fxeval.models.loading import ModelAround, TorchFaceModel, device_of, fill_module
from fxeval.models.own_code import network_of
from fxeval.models.preprocessing import Preprocessing

Way = Mapping[str, Any]
"""How to build a network, as plain values: ``architecture``, ``factory`` or ``class``."""


@dataclass(frozen=True, eq=False)
class Copy(ModelAround):
    """The copy of a model, under the name, digest and threshold of the model itself."""

    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Id shown in reports."""
        return str(self.facts["name"])

    @property
    def digest(self) -> str:
        """SHA-256 of the weights as hex."""
        return str(self.facts["digest"])

    @property
    def operating_threshold(self) -> float | None:
        """Native similarity from which the model says match; None if it has no such point."""
        threshold: float | None = self.facts["operating_threshold"]
        return threshold


def importable(found: object) -> str | None:
    """Return the ``module:name`` by which a class or function can be imported; None if it cannot.

    >>> importable(TorchFaceModel), importable(lambda: None)
    ('fxeval.models.loading:TorchFaceModel', None)
    """
    module, name = (getattr(found, key, "") for key in ("__module__", "__qualname__"))
    if module == "__main__" or not str(name).isidentifier():
        return None
    try:
        known = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    return f"{module}:{name}" if known is found else None


def imported(place: str) -> Any:  # noqa: ANN401  (user code)
    """Return what ``module:name`` names.

    Raises:
        ContractError: If there is no such module or name.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ContractError(f"there is no module '{error.name}' to import '{place}' from") from None
    except AttributeError:
        raise ContractError(f"module '{module}' has no '{name}'") from None


def way_of(model: FaceModel, factory: str | None = None) -> Way:
    """Return how a process can build the network of a model.

    Args:
        model: The model.
        factory: ``module:callable`` that returns the model, its network, or a file to load.

    Raises:
        UnsupportedError: If there is no way; the message says what to do.
    """
    if factory is not None:
        return {"factory": factory}
    while isinstance(model, ModelAround):
        if isinstance(model, CardedModel) and model.card.format in STATE_FORMATS:
            card = model.card
            return {
                "architecture": card.architecture,
                "preprocessing": asdict(card.preprocessing),
                "output": card.output,
                "folder": str(card.file.parent),
            }
        model = model.model
    said = f"model '{model.name}' cannot be copied into a process of its own: "
    what = 'Name a factory that returns it: {model: "module:factory"}.'
    if model.module is None:
        raise UnsupportedError(f"{said}it is a black box, whose code has no name. {what}")
    kind = type(model.module)
    place = importable(kind)
    if place is None:
        raise UnsupportedError(
            f"{said}{kind.__qualname__} cannot be imported by name from '{kind.__module__}'. {what}"
        )
    if isinstance(model.module, torch.jit.ScriptModule) or not _takes_nothing(kind):
        raise UnsupportedError(f"{said}{kind.__qualname__} cannot be built anew. {what}")
    return {"class": place}


def facts_of(model: FaceModel) -> dict[str, Any]:
    """Return what is known about a model beside its network, as plain values."""
    module = model.module
    return {
        "name": model.name,
        "digest": model.digest,
        "crop": [model.crop.name, model.crop.size, model.crop.template],
        "similarity": model.similarity,
        "operating_threshold": model.operating_threshold,
        "has_layers": model_traits(model).has_layers,
        "device": str(device_of(model)),
        "batch_size": model.pool.batch_size if isinstance(model, PooledModel) else None,
        "frozen": []
        if module is None
        else [name for name, one in module.named_parameters() if not one.requires_grad],
    }


def weights_of(model: FaceModel) -> dict[str, Tensor]:
    """Return the weights and buffers of a model's network; nothing of a black box."""
    return {} if model.module is None else dict(model.module.state_dict())


def built(way: Way, facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> FaceModel:
    """Build the copy of a model, in the process that owns it.

    Raises:
        FxevalError: If it cannot be built, or the weights do not fit.
    """
    found = _found(way)
    if isinstance(found, nn.Module):
        name, size, template = facts["crop"]
        crop = Crop(name, tuple(size), tuple((x, y) for x, y in template))
        kind: SimilarityKind = facts["similarity"]
        found = TorchFaceModel(
            facts["name"], crop, found, kind, None, facts["digest"],
            traits=ModelTraits(has_layers=facts["has_layers"]),
        )  # fmt: skip
    copy = Copy(check_model(facts["name"], found), facts)
    if copy.module is not None:
        copy.module.to(torch.device(facts["device"])).eval()
        filled(copy, facts, weights)
    return copy


def filled(copy: FaceModel, facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Put other weights into a copy.

    Raises:
        FxevalError: If they do not fit.
    """
    assert copy.module is not None
    fill_module(copy.module, weights, f"the copy of model '{copy.name}'")
    for name, one in copy.module.named_parameters():
        one.requires_grad_(name not in facts["frozen"])


def two_embeddings(model: FaceModel) -> Tensor:
    """Return the embeddings of two noise images, (2, D) float32 on the CPU, beside any pool."""
    while isinstance(model, PooledModel):
        model = model.model
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *model.crop.size, generator=generator)
    with precise(device_of(model)):
        return model.embed(images.to(device_of(model))).detach().to("cpu", torch.float32)


def _found(way: Way) -> Any:  # noqa: ANN401  (user code)
    if "architecture" in way:
        given = way["preprocessing"]
        preprocessing = Preprocessing(given["colour"], tuple(given["mean"]), tuple(given["std"]))
        factory, folder = way["architecture"], Path(way["folder"])
        network = network_of(factory, preprocessing, folder)
        return prepared(network, factory, preprocessing, way["output"], folder)
    if "class" in way:
        return network_of(way["class"], None)
    found = imported(way["factory"])()
    if hasattr(found, "load") and not hasattr(found, "embed") and not isinstance(found, nn.Module):
        found = found.load()
    return found


def _takes_nothing(kind: type) -> bool:
    try:
        inspect.signature(kind).bind()
    except (TypeError, ValueError):
        return False
    return True

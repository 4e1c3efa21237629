"""Parameters of shipped explainers: what a suite may set, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from fxeval.errors import FxevalError
from fxeval.explainers import shipped
from fxeval.registry import hint

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
    explainer = shipped(id)
    types = get_type_hints(explainer)
    known = [field.name for field in fields(explainer)]
    faults: list[tuple[str, str]] = []
    for key, value in params.items():
        if key not in known:
            faults.append((key, f"unknown parameter of {id}. {hint(key, known)}"))
        elif not fits(value, types[key]):
            faults.append((key, f"expected {spoken(types[key])}, got {_described(value)}."))
        else:
            # Alone, with all other parameters at their defaults: the fault is then this key's.
            faults.extend((key, message) for message in _refusal(explainer, {key: value}))
    if not faults and params:
        last = list(params)[-1]
        faults.extend((last, message) for message in _refusal(explainer, params))
    return faults


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


def frozen(value: Any) -> Any:  # noqa: ANN401
    """Return a value of YAML as a field holds it: lists are tuples.

    >>> frozen([1, ["a"]])
    (1, ('a',))
    """
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def spoken(kind: object) -> str:
    """Say a field's type in the words of YAML.

    >>> spoken(str | tuple[str, ...] | None)
    'text, list of text or null'
    >>> spoken(Literal["blur", "mean", "black"])
    'blur, mean or black'
    """
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _either([spoken(member) for member in members])
    if origin is Literal:
        return _either([str(member) for member in members])
    if origin in (tuple, list):
        return f"list of {spoken(members[0])}"
    words = {
        int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path",
        NoneType: "null",
    }  # fmt: skip
    return words.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload, no-any-return]


def _refusal(explainer: type, params: Mapping[str, Any]) -> list[str]:
    try:
        explainer(**{key: frozen(value) for key, value in params.items()})
    except FxevalError as error:
        return [str(error)]
    return []


def kinds_of(kind: object) -> tuple[object, ...]:
    """Return the members of a union, or the type itself alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def fits(value: object, kind: object) -> bool:
    """Say whether a value of YAML is of a field's type; True is no number, 7 is a float too.

    Text is a path, too; types that YAML cannot write are not judged.
    """
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, member) for member in members)
    if origin is Literal:
        return any(value == member and type(value) is type(member) for member in members)
    if origin in (tuple, list):
        return isinstance(value, list | tuple) and all(fits(item, members[0]) for item in value)
    accepted = {
        int: (int,), float: (int, float), str: (str,), Path: (str,), bool: (bool,),
        NoneType: (NoneType,),
    }  # fmt: skip
    if kind not in accepted:
        return True
    return isinstance(value, accepted[kind]) and (kind is bool or not isinstance(value, bool))  # type: ignore[index]


def _described(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

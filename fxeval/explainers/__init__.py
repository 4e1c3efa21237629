"""Explainers and controls, and the visible catalogue of the shipped explainers."""

import importlib
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from fxeval.errors import FxevalError
from fxeval.registry import hint

# Strings, so that reading the catalogue loads no torch.
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "gradcam": "fxeval.explainers.cam:GradCAM",
        "srise": "fxeval.explainers.masking:SRISE",
    }
)


def shipped(id: str) -> type:
    """Return the class of a shipped explainer; its fields are its parameters.

    Raises:
        KeyError: If there is no such explainer.
    """
    module, _, name = SHIPPED[id].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


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
        elif not _fits(value, types[key]):
            expected = _spoken(types[key])
            faults.append((key, f"expected {expected}, got {value!r} ({type(value).__name__})."))
        else:
            # Alone, with all other parameters at their defaults: the fault is then this key's.
            faults.extend((key, message) for message in _refusal(explainer, {key: value}))
    if not faults and params:
        last = list(params)[-1]
        faults.extend((last, message) for message in _refusal(explainer, params))
    return faults


def _refusal(explainer: type, params: Mapping[str, Any]) -> list[str]:
    try:
        explainer(**params)
    except FxevalError as error:
        return [str(error)]
    return []


def _fits(value: object, kind: object) -> bool:
    """Say whether a value of YAML is of a field's type; True is no number, 7 is a float too."""
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, member) for member in get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    accepted = (int, float) if kind is float else kind
    return isinstance(value, accepted)  # type: ignore[arg-type]


def _spoken(kind: object) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_spoken(member) for member in get_args(kind))
    words = {
        int: "a whole number", float: "a number", bool: "true or false", str: "text",
        type(None): "null",
    }  # fmt: skip
    return words[kind]  # type: ignore[index]

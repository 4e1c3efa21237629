"""Entries of a record that describe models, explainers and pair lists."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import PurePath
from typing import Any

from fxeval.contracts import (
    Explainer,
    FaceModel,
    PairListing,
    Pairs,
    model_traits,
    traits_of,
)
from fxeval.verification.claims import model_card


def model_entry(model: FaceModel) -> dict[str, Any]:
    """Return the entry of a model; see ``fxeval.records.subjects.ModelEntry``."""
    module = model.module
    return {
        "name": model.name,
        "digest": model.digest,
        "crop": model.crop.name,
        "size": list(model.crop.size),
        "similarity": model.similarity,
        "operating_threshold": model.operating_threshold,
        "parameters": None if module is None else sum(p.numel() for p in module.parameters()),
        "card": model_card(model),
        "tags": asdict(model_traits(model).tags),
    }


def explainer_entry(explainer: Explainer, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of an explainer.

    Args:
        explainer: The explainer.
        params: The suite's parameters; shown if the explainer does not reveal its settings.
    """
    traits = traits_of(explainer)
    return {
        "class": type(explainer).__qualname__,
        "params": settings_of(explainer) or dict(params),
        "digest": traits.digest,
        "needs": sorted(traits.needs),
        "source": traits.source,
    }


def pairs_entry(pairs: Pairs) -> dict[str, Any]:
    """Return the part of the entry of a pair list that comes from the pairs, not their source."""
    rows = [pairs.row_id(i) for i in range(len(pairs))]
    if pairs.contrast is not None:
        rows += [pairs.image_digests[i] for i in pairs.contrast.tolist()]
    return {
        "name": pairs.name,
        "n_pairs": len(pairs),
        "n_identities": len(set(pairs.probe_identity.tolist())),
        "excluded": Counter(one.reason for one in pairs.excluded),
        "digest": hashlib.sha256("".join(rows).encode()).hexdigest(),
    }


def left_out(name: str, listing: PairListing) -> str:
    """Say how many entries of a list are left out, and why, for the person who runs."""
    counts = Counter(str(one.reason) for one in listing.excluded)
    reasons = ", ".join(f"{reason}: {number}" for reason, number in counts.most_common(5))
    more = f", and {len(counts) - 5} other reasons" if len(counts) > 5 else ""
    n_out = len(listing.excluded)
    return f"pairs '{name}': {n_out} of {len(listing) + n_out} are left out ({reasons}{more})"


def settings_of(subject: object) -> dict[str, Any]:
    """Return the fields of a dataclass as plain data; functions and objects by their names.

    >>> from fxeval.explainers.grad_cam import GradCAM
    >>> settings_of(GradCAM(layer=("stage2", "stage4")))
    {'layer': ['stage2', 'stage4'], 'reading': None, 'objective': 'native'}
    """
    if not is_dataclass(subject) or isinstance(subject, type):
        return {}
    return {field.name: _plain(getattr(subject, field.name)) for field in fields(subject)}


def _text_or_none(value: object) -> str | None:
    """Return an optional value of user code as text."""
    return None if value is None else str(value)


def _plain(value: object) -> Any:  # noqa: ANN401  (plain JSON)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, PurePath):  # the folder belongs to the machine, not into a record
        return value.name
    return getattr(value, "__qualname__", type(value).__qualname__)

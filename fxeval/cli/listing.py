"""``fxeval list``: shows what a suite can use."""

import json
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, Field, asdict, dataclass, fields
from inspect import getdoc
from pathlib import Path, PurePath
from typing import Any, get_type_hints

import click

from fxeval.cli.catalogue import CATALOGUES, chosen, command, with_names
from fxeval.explainers import SHIPPED, shipped
from fxeval.strict.parameters import spoken
from fxeval.traits import ExplainerTraits, traits_of

_WIDTH = 80
_NONE = "-"


@dataclass(frozen=True)
class Parameter:
    """A parameter that a suite may set.

    Attributes:
        name: Key of the parameter.
        type: Its type in the words of YAML.
        default: Its value if a suite does not set it.
        is_required: Whether it has no default; the fixture of the id then sets it.
    """

    name: str
    type: str
    default: Any
    is_required: bool = False


@dataclass(frozen=True)
class Card:
    """The description of a shipped explainer or pair list.

    Attributes:
        id: Id in suites.
        summary: One sentence.
        needs: What an explainer with default parameters needs of the model, and which further
            arguments.
        params: The parameters in the order of their declaration.
        source: The paper, or None.
    """

    id: str
    summary: str
    needs: tuple[str, ...]
    params: tuple[Parameter, ...]
    source: str | None


@click.group("list")
def list_() -> None:
    """Show what a suite can use."""


for name in CATALOGUES:
    list_.add_command(command(name))


@list_.command("explainers")
@with_names("list")
def explainers(names: tuple[str, ...], as_json: bool) -> None:
    """Show the shipped explainers: what they need, their parameters and sources."""
    cards = [card_of(id) for id in chosen(sorted(SHIPPED), names, "explainers")]
    if as_json:
        click.echo(json.dumps([asdict(card) for card in cards], indent=2, allow_nan=False))
    else:
        click.echo("\n\n".join(_lines(card) for card in cards))


@list_.command("models")
@with_names("object")
def models(names: tuple[str, ...], as_json: bool) -> None:
    """Show the shipped models, and the architectures that a card of your own may name."""
    from fxeval.models import ARCHITECTURES
    from fxeval.suite.preflight import SHIPPED_CARDS, shipped_card

    ids = chosen(sorted(SHIPPED_CARDS), names, "models")
    found = [model_entry(shipped_card(id)) for id in ids]
    known = {name: asdict(one) for name, one in ARCHITECTURES.items()}
    if as_json:
        text = json.dumps({"models": found, "architectures": known}, indent=2, allow_nan=False)
        click.echo(text)
        return
    blocks = ["\n".join(_model_lines(entry)) for entry in found]
    if names:
        click.echo("\n\n".join(blocks))
        return
    lines = ["Architectures that a model card may name:"]
    for name, one in known.items():
        lines += _wrapped(f"{one['summary']}; {one['crop']}", f"  {name:<21}", " " * 23)
    click.echo("\n\n".join([*blocks, "\n".join(lines)]))


@list_.command("pairs")
@with_names("list")
def pairs(names: tuple[str, ...], as_json: bool) -> None:
    """Show the shipped pair lists and their parameters."""
    from fxeval import datasets

    ids = chosen(sorted(datasets.SHIPPED), names, "pairs")
    found = [card_of(id, datasets.shipped(id)) for id in ids]
    if as_json:
        click.echo(json.dumps([_without_needs(card) for card in found], indent=2, allow_nan=False))
    else:
        click.echo("\n\n".join(_lines(card) for card in found))


def model_entry(file: Path) -> dict[str, Any]:
    """Describe a model by its card, without opening its weights."""
    from fxeval.models.cards import read_card
    from fxeval.models.from_card import preview

    card = read_card(file)
    offered = preview(card)
    return {
        "id": file.stem,
        "summary": card.notes,
        "weights": card.weights,
        "sha256": card.sha256,
        "crop": card.crop.name,
        "size": list(card.crop.size),
        "similarity": card.similarity,
        "operating_threshold": card.operating_threshold,
        "has_gradients": offered.has_gradients,
        "has_layers": offered.has_layers,
        "reason": offered.reason,
        "claims": [claim.model_dump() for claim in card.claims],
        "tags": card.tags.model_dump(),
        "licence": card.licence,
        "source": card.source,
    }


def _model_lines(entry: dict[str, Any]) -> list[str]:
    from fxeval.scorecard.verification_rows import tags_text

    height, width = entry["size"]
    offers = "gradients and layers" if entry["has_layers"] else entry["reason"]
    threshold = entry["operating_threshold"]
    lines = [entry["id"], *_wrapped(entry["summary"] or _NONE, "  ", "  ")]
    lines += _entry("weights", f"{entry['weights']} (SHA-256 {entry['sha256'][:16]}...)")
    lines += _entry("crop", f"{entry['crop']}, {height} x {width}")
    match = "no threshold of its own" if threshold is None else f">= {threshold:g}"
    lines += _entry("match", f"{entry['similarity']} {match}")
    lines += _entry("offers", offers)
    claims = [f"{c['metric']} {c['value']:g} on {c['pairs']}" for c in entry["claims"]]
    lines += _entry("claims", *(claims or [_NONE]))
    lines += _entry("tags", tags_text(entry["tags"]))
    lines += _entry("licence", entry["licence"] or _NONE)
    lines += _entry("source", entry["source"] or _NONE)
    return lines


def card_of(id: str, kind: type | None = None) -> Card:
    """Describe a shipped explainer, or another subject by its class.

    Raises:
        KeyError: If there is no such explainer.
    """
    explainer = kind or shipped(id)
    types = get_type_hints(explainer)
    # Asked of an instance, as the needs of some explainers depend on their parameters.
    traits = ExplainerTraits() if kind else traits_of(explainer())
    return Card(
        id=id,
        summary=(getdoc(explainer) or "").partition("\n")[0],
        needs=tuple(sorted(traits.needs)),
        params=tuple(
            Parameter(field.name, spoken(types[field.name]), _default(field), _is_required(field))
            for field in _ordered(kind, fields(explainer))
            if field.init
        ),
        source=traits.source,
    )


def _ordered(kind: type | None, known: Iterable["Field[Any]"]) -> "list[Field[Any]]":
    """Return the fields of an explainer as they are; of a pair list, those that all have last."""
    return sorted(known, key=lambda field: kind is not None and field.kw_only is True)


def _default(field: "Field[Any]") -> Any:  # noqa: ANN401
    if field.default_factory is not MISSING:
        return field.default_factory()
    if isinstance(field.default, PurePath):
        return field.default.as_posix()
    return None if field.default is MISSING else field.default


def _is_required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _lines(card: Card) -> str:
    lines = [card.id, *_wrapped(card.summary or _NONE, "  ", "  ")]
    if card.id in SHIPPED:
        lines += _entry("needs", ", ".join(card.needs) or "nothing")
    entries = [
        f"{one.name}  ({one.type}; {_home(card.id)} unless set)"
        if one.is_required and one.name == "root"
        else f"{one.name}  ({one.type})"
        if one.is_required
        else f"{one.name} = {_value(one.default)}  ({one.type})"
        for one in card.params
    ]
    lines += _entry("params", *(entries or [_NONE]))
    if card.id in SHIPPED:
        lines += _entry("source", card.source or _NONE)
    return "\n".join(lines)


def _home(id: str) -> str:
    return "the bundled faces" if id.startswith("rendered") else "--fx-data"


def _without_needs(card: Card) -> dict[str, Any]:
    return {key: value for key, value in asdict(card).items() if key not in ("needs", "source")}


def _entry(word: str, first: str, *others: str) -> list[str]:
    lines = _wrapped(first, f"  {word:<8}", " " * 12)
    for text in others:
        lines += _wrapped(text, " " * 10, " " * 12)
    return lines


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _value(value: object) -> str:
    """Write a value as a suite would."""
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, str):
        return value if value and value == value.strip() else json.dumps(value)
    if isinstance(value, Iterable):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)

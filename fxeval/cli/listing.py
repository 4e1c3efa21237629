"""``fxeval list``: what a suite can ask for."""

import json
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, Field, asdict, dataclass, fields
from inspect import getdoc
from typing import Any, get_type_hints

import click

from fxeval.explainers import SHIPPED, shipped
from fxeval.explainers.parameters import spoken

_WIDTH = 80
_NONE = "-"


@dataclass(frozen=True)
class Parameter:
    """A parameter that a suite may set.

    Attributes:
        name: Its key.
        type: In the words of YAML.
        default: Its value if a suite does not set it.
    """

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class Card:
    """What there is to know of a shipped explainer before it is used.

    Attributes:
        id: In suites.
        summary: One sentence.
        needs: What it asks of the model, and what else it must be given; without parameters set.
        params: In the order in which they are declared.
        source: The paper, or None.
    """

    id: str
    summary: str
    needs: tuple[str, ...]
    params: tuple[Parameter, ...]
    source: str | None


@click.group("list")
def list_() -> None:
    """Show what a suite can ask for."""


@list_.command("explainers")
@click.option("--json", "as_json", is_flag=True, help="For machines: a JSON list.")
def explainers(as_json: bool) -> None:
    """Show the shipped explainers: what they need, their parameters and sources."""
    cards = [card_of(id) for id in sorted(SHIPPED)]
    if as_json:
        click.echo(json.dumps([asdict(card) for card in cards], indent=2, allow_nan=False))
    else:
        click.echo("\n\n".join(_lines(card) for card in cards))


def card_of(id: str) -> Card:
    """Describe a shipped explainer by its class; loads the module it lives in.

    Raises:
        KeyError: If there is no such explainer.
    """
    explainer = shipped(id)
    types = get_type_hints(explainer)
    return Card(
        id=id,
        summary=(getdoc(explainer) or "").partition("\n")[0],
        # Of an instance: what some need depends on their parameters.
        needs=tuple(sorted(getattr(explainer(), "needs", ()))),
        params=tuple(
            Parameter(field.name, spoken(types[field.name]), _default(field))
            for field in fields(explainer)
            if field.init
        ),
        source=getattr(explainer, "source", None),
    )


def _default(field: "Field[Any]") -> Any:  # noqa: ANN401
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def _lines(card: Card) -> str:
    lines = [card.id, *_wrapped(card.summary or _NONE, "  ", "  ")]
    lines += _entry("needs", ", ".join(card.needs) or "nothing")
    entries = [f"{one.name} = {_value(one.default)}  ({one.type})" for one in card.params]
    lines += _entry("params", *(entries or [_NONE]))
    lines += _entry("source", card.source or _NONE)
    return "\n".join(lines)


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
    if isinstance(value, str):
        return value if value and value == value.strip() else json.dumps(value)
    if isinstance(value, Iterable):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)

"""What a suite can name besides subjects: suites, checks, metrics, controls and fills."""

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc
from typing import Any, TypeAlias

import click

from fxeval.strict.text import suggestion

Entry: TypeAlias = Mapping[str, Any]
"""What is known of one name: ``id``, ``summary``, and more, in the order in which it is shown."""

_WIDTH = 80


def suites() -> list[Entry]:
    """Return the shipped suites."""
    from fxeval.suite.extending import read_suite
    from fxeval.suite.recognition import shipped_suites

    found = {name: read_suite(path).data for name, path in shipped_suites().items()}
    return [
        {
            "id": name,
            "summary": data.get("title", ""),
            "run": f"pytest fxeval:{name}",
            "kinds": [*dict.fromkeys(check["kind"] for check in data["checks"])],
        }
        for name, data in found.items()
    ]


def checks() -> list[Entry]:
    """Return the kinds of checks, with their parameters and metrics."""
    from fxeval.metrics import CATALOGUE

    return [
        {
            "id": kind,
            "summary": (getdoc(protocol) or "").partition("\n")[0],
            "rows": protocol.ROWS,
            "params": [
                f"{name} = {json.dumps(default)}"
                for name, default in protocol.Parameters().model_dump(mode="json").items()
            ],
            "metrics": [metric.name for metric in protocol.METRICS],
        }
        for kind, protocol in CATALOGUE.items()
    ]


def metrics() -> list[Entry]:
    """Return the metrics that a limit may name, once for each kind that measures them."""
    from fxeval.suite.metric_table import lines

    return [
        {
            "id": line.metric.name,
            "summary": line.metric.meaning,
            "kind": line.kind,
            "rows": line.rows,
            "unit": line.metric.unit,
            "range": [end if math.isfinite(end) else None for end in line.metric.range],
            "better": line.metric.better,
            "statistic": line.metric.statistic,
            "may gate": line.gates,
            "because": line.metric.information_only,
            "controls": list(line.controls),
            "source": line.metric.source,
        }
        for line in lines()
    ]


def controls() -> list[Entry]:
    """Return the controls, which a limit names as ``control.<name>``."""
    from fxeval.functional.controls import CONTROLS

    return [
        {
            "id": name,
            "summary": control.title,
            "made from": "the explainer's maps" if control.depends_on_explainer else "the images",
        }
        for name, control in CONTROLS.items()
    ]


def fills() -> list[Entry]:
    """Return the fills that come with fxeval."""
    from fxeval.functional.fills import SHIPPED_FILLS
    from fxeval.scorecard.wording import FILLS

    return [{"id": name, "summary": f"{FILLS[name].capitalize()}."} for name in SHIPPED_FILLS]


CATALOGUES: Mapping[str, tuple[str, Callable[[], list[Entry]]]] = {
    "suites": ("Show the shipped suites, and the command that runs each.", suites),
    "checks": ("Show the kinds of checks, their parameters and metrics.", checks),
    "metrics": ("Show the metrics of limits: units, directions, whether they may gate.", metrics),
    "controls": ("Show the controls that limits may compare with.", controls),
    "fills": ("Show what removed pixels can be replaced with.", fills),
}


def command(name: str) -> click.Command:
    """Return the command ``fxeval list NAME`` of one of ``CATALOGUES``."""
    about, entries = CATALOGUES[name]

    def show(names: tuple[str, ...], as_json: bool) -> None:
        known = entries()
        asked = chosen([*dict.fromkeys(entry["id"] for entry in known)], names, name)
        # A metric is there once for each of its kinds.
        of = {id: [entry for entry in known if entry["id"] == id] for id in asked}
        found = [entry for id in asked for entry in of[id]] if names else known
        if as_json:
            click.echo(json.dumps(found, indent=2, allow_nan=False))
        else:
            click.echo("\n\n".join(map(_text, found)))

    return click.command(name, help=about)(with_names("list")(show))


def with_names(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds to a command the names that it shows, and ``--json``."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        as_json = click.option("--json", "as_json", is_flag=True, help=f"Print a JSON {what}.")
        return click.argument("names", nargs=-1, metavar="[NAME]...")(as_json(function))

    return add


def chosen(known: Sequence[str], names: Sequence[str], what: str) -> Sequence[str]:
    """Return the ids that were asked for, all if none was; ``-`` and ``_`` are the same in them.

    Raises:
        click.UsageError: If there is no such id.
    """
    asked = [name if name in known else name.replace("-", "_") for name in names]
    for name, id in zip(names, asked, strict=True):
        if id not in known:
            near = suggestion(id, known) or f"there are: {', '.join(known)}"
            raise click.UsageError(f"expected one of the {what}, got '{name}'; {near}")
    return asked or known


def _text(entry: Entry) -> str:
    lines = [entry["id"], *_wrapped(entry["summary"] or "-", "  ")]
    for key, value in entry.items():
        if key not in ("id", "summary"):
            values = value if isinstance(value, list) else [value]
            shown = ", ".join("no end" if one is None else str(one) for one in values)
            lines += _wrapped(shown, f"  {key:<10}")
    return "\n".join(lines)


def _wrapped(text: str, first: str) -> list[str]:
    rest = " " * max(len(first), 2)
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )

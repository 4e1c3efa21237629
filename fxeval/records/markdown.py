"""The formats of a run as tables of Markdown, generated from the models themselves.

    python -m fxeval.records.markdown docs/formats.md

replaces the tables between the markers of that page.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from fxeval.records import judged, looks, schema, self_checks, subjects, transfers
from fxeval.records.form import Form


def _within(annotation: object) -> Iterator[type[Form]]:
    """Yield the forms that a type names, and those that they hold, each before what it holds."""
    if isinstance(annotation, type) and issubclass(annotation, Form):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _within(field.annotation)
    for part in get_args(annotation):
        yield from _within(part)


_FIRST: tuple[type[Form], ...] = (
    schema.Row,
    schema.Measured,
    schema.Record,
    schema.Run,
    schema.SuiteEntry,
    schema.CellPlan,
    judged.MetricEntry,
    judged.LimitEntry,
    judged.SliceEntry,
    schema.CellFacts,
    looks.Looks,
    schema.Repeatability,
    schema.Explaining,
    schema.Network,
    schema.CellResult,
    judged.Figures,
    judged.EstimateEntry,
    judged.Difference,
    judged.LimitResult,
    judged.SeedSpread,
    judged.Acknowledgement,
    judged.UsedBaseline,
    judged.Regressions,
    judged.Regression,
    judged.Band,
    transfers.TransferMatrix,
    transfers.TransferTable,
    transfers.TransferControl,
    transfers.MixtureFit,
    self_checks.SelfCheck,
    self_checks.KnownMap,
    self_checks.Step,
    self_checks.Unfit,
    schema.Problem,
    schema.Diagnostic,
    subjects.ModelEntry,
    subjects.TagsEntry,
    subjects.ExplainerEntry,
    subjects.PairsEntry,
    subjects.VerificationEntry,
    subjects.Environment,
)
PARTS = tuple(dict.fromkeys([*_FIRST, *_within(schema.Row), *_within(schema.Record)]))
"""All forms of a row and a record, in the order of the page."""

_PLACE = re.compile(r"(<!-- begin: generated -->\n).*?(<!-- end: generated -->)", re.DOTALL)


def tables() -> str:
    """Return all tables, one per part."""
    return "\n".join(_table(part) for part in PARTS)


def renewed(page: str) -> str:
    """Return the page with the current tables between its markers."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{tables()}\n{found[2]}", page)


def _table(part: type[Form]) -> str:
    meanings = _meanings(part)
    title, about = part.__name__, inspect.getdoc(part) or ""
    inherited = {name for base in part.__mro__[1:] for name in getattr(base, "model_fields", {})}
    bases = [base.__name__ for base in part.__bases__ if base is not Form]
    lines = [f"### {title}\n", about.split("\n\n")[0].replace("\n", " ")]
    if bases:
        lines[-1] += f" With all fields of {' and '.join(bases)}."
    lines += ["", "| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in part.model_fields.items():
        if name not in inherited or not bases:
            default = "" if field.default is PydanticUndefined else f"`{field.default!r}`"
            kind = _kind(field.annotation)
            lines.append(
                f"| `{field.alias or name}` | {kind} | {default} | {meanings.get(name, '')} |"
            )
    return "\n".join(lines) + "\n"


def _kind(annotation: object) -> str:
    """Write a type as people read it."""
    annotation = _bare(annotation)
    # A plain class by its name; list[int] is a type too, but must keep its parameters.
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if isinstance(annotation, type) and "[" in str(annotation):
        text = str(annotation)
    # Names lose their modules.
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace("typing.", "")
    text = re.sub(r"Optional\[(Literal\[[^\]]*\])\]", r"\1 | None", text)
    return text.replace("|", "or").replace("NoneType", "null").replace("None", "null")


def _bare(annotation: Any) -> Any:  # noqa: ANN401  (types of types)
    """Return a type without what is annotated to it, at every depth.

    >>> _bare(dict[str, Annotated[int, "at least 0"]])
    dict[str, int]
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bare(args[0])
    if origin is Literal or not args:
        return annotation
    bare = tuple(map(_bare, args))
    return reduce(or_, bare) if origin in (Union, UnionType) else origin[bare]


def _meanings(part: type[Form]) -> dict[str, str]:
    """Return the meaning of each field from the docstring."""
    _, _, attributes = (inspect.getdoc(part) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for line in attributes.splitlines():
        named = re.fullmatch(r"    (\w+): (.*)", line)
        if named:
            name = named[1]
            found[name] = named[2]
        elif line.strip() and found:
            found[name] += " " + line.strip()
    return found


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")

"""What a limit may name: every metric of every kind, for people, machines and a page of the docs.

    python -m fxeval.suite.metric_table docs/metrics.md

writes the whole page anew.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fxeval.functional.controls import CONTROLS
from fxeval.metrics import CATALOGUE
from fxeval.results import Metric

INFORMATION = "information only"
"""How a metric is marked on whose values no limit may decide."""

HEAD = f"""\
# The metrics that a limit may name

<!-- Generated: python -m fxeval.suite.metric_table docs/metrics.md -->

One line a metric. `fxeval list metrics` prints the same, with the meaning of each, and `--json` for
machines. [method.md](method.md) says how the values come about,
[suite-format.md](suite-format.md#kinds-of-checks) what they mean.

* **range**: of the value of a row; of a ratio, of the rows' values of its numerator.
* **statistic**: what is estimated from the rows: their mean or median, the ratio of two means, or a
  figure of the whole list (AUC, EER, TMR at FMR).
* **may gate**: whether a limit on it may decide. *yes, against random orders*: the value says where
  the model's decision flips, and only what a random order fails can be passed. *{INFORMATION}*:
  a limit must have `severity: info`; the reasons are below the table. *not with* a parameter: a
  check in which it is set is a demonstration, and all of its limits are information.
* **controls**: what `better_than: control.<name>` may name, if the check's `controls` list it.
  *all* are {", ".join(f"`{name}`" for name in CONTROLS)}.
"""
_COLUMNS = (
    "kind", "metric", "rows", "unit", "better", "range", "statistic", "may gate", "controls",
    "source",
)  # fmt: skip


@dataclass(frozen=True)
class MetricLine:
    """One metric of one kind.

    Attributes:
        kind: Of the check.
        metric: As declared.
        rows: What has one value.
        gates: Whether a limit on it may decide, in words.
        controls: What a limit may compare with; none for a ratio of two means, which no row has.
    """

    kind: str
    metric: Metric
    rows: str
    gates: str
    controls: tuple[str, ...]

    @property
    def range(self) -> str:
        """The range in words.

        >>> lines()[0].range
        '-1 to 1'
        """
        low, high = self.metric.range
        if math.isinf(low):
            return "any" if math.isinf(high) else f"up to {high:g}"
        return f"{low:g} to {high:g}" if math.isfinite(high) else f"from {low:g}"


def lines(kinds: Mapping[str, ModuleType] = CATALOGUE) -> list[MetricLine]:
    """Return every metric of the given kinds, in their order."""
    return [
        MetricLine(
            kind=kind,
            metric=metric,
            rows=protocol.ROWS,
            gates=_gates(metric, protocol),
            controls=() if metric.statistic == "ratio" else _controls(protocol),
        )
        for kind, protocol in kinds.items()
        for metric in protocol.METRICS
    ]


def page() -> str:
    """Return the whole page."""
    found = lines()
    table = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    table += [
        f"| `{one.kind}` | `{one.metric.name}` | {one.rows} | {one.metric.unit} | "
        f"{one.metric.better} | {one.range} | {one.metric.statistic} | {one.gates} | "
        f"{_named(one.controls)} | {one.metric.source} |"
        for one in found
    ]
    parts = [HEAD, "\n".join(table) + "\n"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.metric.information_only:
            of = reasons.setdefault((one.kind, one.metric.information_only), [])
            of.append(f"`{one.metric.name}`")
    if reasons:
        listed = [f"* `{kind}`, {', '.join(of)}: {why}." for (kind, why), of in reasons.items()]
        parts.append("\n".join(["## Information only\n", *listed]) + "\n")
    return "\n".join(parts)


def _gates(metric: Metric, protocol: ModuleType) -> str:
    if metric.information_only:
        return INFORMATION
    said = "yes, against random orders" if metric.is_decision else "yes"
    return said + "".join(f"; not with {name}" for name in getattr(protocol, "DEMONSTRATIONS", {}))


def _controls(protocol: ModuleType) -> tuple[str, ...]:
    """Return what the parameter ``controls`` of a kind may list, and what is always measured."""
    schema = protocol.Parameters.model_json_schema()
    form = schema["properties"].get("controls")
    allowed = () if form is None else tuple(_words(form, schema.get("$defs", {})))
    return (*allowed, *getattr(protocol, "OWN_CONTROLS", ()))


def _words(form: Mapping[str, Any], forms: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words that a part of a JSON Schema allows, in its order."""
    if "$ref" in form:
        yield from _words(forms[form["$ref"].rpartition("/")[2]], forms)
    yield from form.get("enum", ())
    if "const" in form:
        yield form["const"]
    for entry in (*form.get("anyOf", ()), *([form["items"]] if "items" in form else ())):
        yield from _words(entry, forms)


def _named(names: tuple[str, ...]) -> str:
    """Return controls for a cell of the table; those that most kinds have are one word."""
    others = [name for name in names if name not in CONTROLS]
    if {*CONTROLS} <= {*names}:
        return ", ".join(["all", *(f"`{name}`" for name in others)])
    return ", ".join(f"`{name}`" for name in names) or "-"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")

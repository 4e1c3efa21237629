"""The format of a suite as a page of Markdown, from its JSON Schema and an annotated example.

    python -m fxeval.suite.markdown docs/suite-format.md

writes the whole page anew.
"""

import copy
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxeval.functional.controls import CONTROLS
from fxeval.metrics import CATALOGUE
from fxeval.results import Metric
from fxeval.statistics.limits import FORMS
from fxeval.suite.schema import suite_schema
from fxeval.verification.figures import QUANTITIES

_Schema = Mapping[str, Any]

HEAD = """\
# The format of a suite

<!-- Generated: python -m fxeval.suite.markdown docs/suite-format.md -->

A suite is a YAML file. `pytest suites/mine.yaml` runs it, and plain `pytest` collects every suite
that matches the ini value `fx_suites` (default: `suites/*.yaml` and `suites/*.yml`). Every
combination of a check, a model, an explainer and a pair list is a **cell**: one pytest test with
the id `check[model-explainer-pairs]`, which `-k` and `--collect-only` understand.

## A complete suite

```yaml
# yaml-language-server: $schema=../docs/suite.schema.json
fxeval: 1                     # version of the format; always the first key
suite: nightly                # name of the record and of the scorecard: nightly.json, nightly.html
title: Two explainers, two models, every night

defaults:
  seed: 20260101              # of everything that is drawn: masks, controls, ties, re-drawn weights
  device: auto                # CUDA if there is a GPU
  on_inconclusive: fail       # an undecided interval fails the test; or warn, or extend
  on_unsupported: skip        # an explainer that cannot explain a model: skip the cell and list it

models:
  - mini_resnet               # an id: a shipped model, or your fixture model_<id>
  - {use: card, params: {file: acme.yaml}, as: acme}    # a model card beside this file

explainers:
  - {use: gradcam, params: {layer: "stage[-1]"}}
  - {use: srise, params: {masks: 300}}                  # one id, two settings, two names
  - {use: srise, params: {masks: 300, coverage_corrected: true}, as: srise_corrected}

pairs:
  - {use: rendered, n: 40}    # measure 40 mated pairs; a limit needs 30 identities to be passed

verification:                 # cells of a model that does not verify are invalid
  limits:
    - {metric: verification_accuracy, at_least: 0.97}

checks:
  - id: sanity
    kind: sanity.two_sided
    why: A map must change with the weights and the person that is compared with, and else repeat.
    redraws: 5                # parameters of the kind stand beside its other keys
    limits:
      - {metric: repeat, at_least: 0.5}
      - {metric: change, at_least: 0.3}
      - {metric: compare, at_least: 0.1}
      - {metric: input, at_least: 0.05}
      - {metric: nudge, at_least: 0.5}

  - id: deletion-insertion
    kind: faithfulness.deletion_insertion
    why: Removing what a map calls important must lower the similarity.
    explainers: [gradcam, srise_corrected]   # by name; all of the suite unless given
    steps: 24
    fills: [blur, black]
    controls: [random_blobs, centre, mean_map]
    marks: [nightly]          # pytest -m nightly
    limits:
      - {metric: deletion_auc, better_than: control.random_blobs}   # under both fills
      - {metric: insertion_auc, better_than: control.random_blobs, under: {fill: blur}}
      - {metric: deletion_auc, better_than: control.centre, by: {absolute: 0.01}, severity: warning}
      - {metric: insertion_auc, at_least: 0.3, judge: mean, severity: info}
      - {metric: deletion_auc, not_worse_than: baseline, over: list}   # pytest --fx-baseline RUN

report: {formats: [html, json]}
```

The YAML is read strictly: YAML 1.2 scalars (`no` and `on` are text), no key twice, no anchors,
aliases, tags or merge keys. Every fault of a suite, and of the model cards that it names, is
reported at once with file, line, column and a suggestion, before any model loads; pytest then exits
with 2 and runs nothing.

An editor with a YAML language server completes and explains a suite whose first line is `#
yaml-language-server: $schema=` and the path of [suite.schema.json](suite.schema.json), which
`fxeval schema` prints.

Ids are looked up as pytest fixtures: `model_<id>`, `explainer_<id>`, `pairs_<id>`. Your
`conftest.py` wins over what comes with fxeval, and the nearest `conftest.py` wins over one further
up. `-` and `_` are the same in an id. `params` are fields of the object that the fixture returns; a
misspelt one is a fault of the suite. Paths of files (a card, precomputed maps) start at the suite's
folder; paths of a pair list start at the folder of `--fx-data`.

What the limits mean for a verdict is explained in [method.md](method.md); [metrics.md](metrics.md)
lists every metric with its rows, range, statistic, controls and source, and whether a limit on it
may decide.

## A suite that extends another

Five lines bring the checks, limits and explainers of a shipped suite to your own model and pairs,
here to a model card beside the file and to real faces (`pytest suites/mine.yaml --fx-data DIR`):

```yaml
fxeval: 1
suite: acme
extends: fxeval:lfw           # a shipped suite, or the path of a suite from this file on: base.yaml
models: [{use: card, params: {file: acme.yaml}, as: acme}]
pairs: [{use: lfw, n: 40}]
```

* Keys of the top level replace those of the extended suite as a whole; `suite` must be given, and
  `title` is never taken over.
* A check with the `id` of one of its checks replaces the keys that it gives, `limits` among them as
  a whole, and keeps the rest. Its `kind` stays. Other checks are added.
* A name in a check of the extended suite must still be in the list that it comes from: whoever
  replaces `explainers` lists it again, or gives the check `explainers` of its own.
* Relative paths start at the folder of the file in which they are written.
* The extended suite must not extend another one.

```yaml
fxeval: 1
suite: acme-strict
extends: fxeval:lfw
models: [{use: card, params: {file: acme.yaml}, as: acme}]
checks:
  - id: sanity                # a check of fxeval:lfw
    limits:                   # replaces its limits
      - {metric: repeat, at_least: 0.6}
      - {metric: change, at_least: 0.4}
```

Such a suite means the same as one with everything written out: its digest in the record is the
same. A fault is shown in the file that holds it, as is the place of each check and limit.

## Options of a run

| option of pytest | meaning |
|---|---|
| `--fx-data DIR` | folder of real faces; or `FXEVAL_DATA` |
| `--fx-weights DIR` | folder of weights; or `FXEVAL_WEIGHTS`; else `weights` in that of faces |
| `--fx-reports DIR` | where runs are written; `reports` unless given |
| `--fx-baseline DIR`, `--fx-base DIR` | folder or record of an earlier run, \
for limits that compare with `baseline` or `base` |
| `--fx-batch-size N` | most images in one forward pass; 16 on a CPU and 128 on a GPU unless given |
| `--fx-threads N` | torch threads per process; the cores, shared by the workers, unless given |
| `-n N` | processes, with pytest-xdist |
"""

_PARTS = (
    ("", "The file", "The keys of the top level."),
    ("Defaults", "`defaults`", ""),
    ("Model", "An entry of `models`", "An id, or a mapping:"),
    ("Explainer", "An entry of `explainers`", "An id, or a mapping:"),
    ("Pairs", "An entry of `pairs`", "An id, or a mapping:"),
    ("Verification", "`verification`", ""),
    ("Demand", "A limit of `verification`", "Exactly one of `at_most` and `at_least`."),
    ("Report", "`report`", ""),
)
_CHECK_KEYS = (
    "id", "kind", "why", "limits", "models", "explainers", "pairs", "seeds", "marks", "slices",
    "on_inconclusive", "looks",
)  # fmt: skip
_ENTRIES = {
    "ModelId": "id of a model",
    "ExplainerId": "id of an explainer",
    "PairsId": "id of a pair list",
    "Model": "mapping",
    "Explainer": "mapping",
    "Pairs": "mapping",
}
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false"}


def page() -> str:
    """Return the whole page."""
    schema = suite_schema()
    forms = {**schema["$defs"], "": schema}
    checks = {
        form["properties"]["kind"]["const"]: form
        for form in forms.values()
        if "const" in form.get("properties", {}).get("kind", {})
    }
    a_check = copy.deepcopy(next(iter(checks.values())))
    a_limit = forms[_target(a_check["properties"]["limits"]["items"])]
    a_check["properties"]["kind"]["enum"] = list(CATALOGUE)
    parts = [HEAD, "## Keys\n"]
    parts += [_part(title, about, forms[name]) for name, title, about in _PARTS]
    parts.append(_part("A check", "The keys that every kind has.", a_check, _CHECK_KEYS))
    *others, last = (f"`{form}`" for form in FORMS)
    about = f"Exactly one of {', '.join(others)} and {last}."
    parts += [
        _part("A limit of a check", about, a_limit),
        _part("`by` and `within`", "", forms["Margin"]),
        _part("An entry of `slices`", "The name of a column, or a mapping:", forms["Parted"]),
    ]
    parts.append("## Kinds of checks\n")
    for kind, form in checks.items():
        own = tuple(key for key in form["properties"] if key not in _CHECK_KEYS)
        parts.append(_part(f"`{kind}`", form["description"], form, own))
        parts.append(_metrics(CATALOGUE[kind].METRICS))
    parts.append(_named("Controls", {name: one.title for name, one in CONTROLS.items()}))
    figures = {name: f"{one.title}; {one.better} is better" for name, one in QUANTITIES.items()}
    parts.append(_named("Figures of verification", figures))
    return "\n".join(parts)


def _part(title: str, about: str, form: _Schema, keys: tuple[str, ...] | None = None) -> str:
    """Return the table of one form, or of some of its keys."""
    lines = [f"### {title}\n", (about or form["description"]) + "\n"]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key in form["properties"] if keys is None else keys:
        value = form["properties"][key]
        default = "**required**" if key in form.get("required", ()) else _default(value)
        meaning = value.get("description", "").replace("|", "\\|")
        lines.append(f"| `{key}` | {_kind(value)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(value: _Schema) -> str:
    """Return a default as it would stand in a suite; mappings have their own table."""
    default = value.get("default")
    if default in (None, "", [], {}) or isinstance(default, dict):
        return ""
    return f"`{re.sub(chr(34), '', json.dumps(default))}`"


def _kind(value: _Schema) -> str:
    """Say what a key takes, in words."""
    if "$ref" in value:
        return _ENTRIES.get(_target(value), "mapping")
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        items = value["items"]
        if entries := items.get("oneOf", items.get("anyOf")):
            kinds = dict.fromkeys(map(_kind, entries))
            return "list of: " + " or ".join(kinds)
        return f"list of: {_kind(items)}"
    if "oneOf" in value:
        named = ["const" in one for one in value["oneOf"]]
        if any(named) and not all(named):
            return " or ".join(map(_kind, value["oneOf"]))
        return "a name" if all(named) else "mapping"
    if value.get("type") == "object":
        return "mapping"
    return _bounded(_TYPES.get(value.get("type", ""), "number"), value)


def _bounded(word: str, value: _Schema) -> str:
    """Add the bounds of a number that a person would ask for."""
    low, high = value.get("minimum"), value.get("maximum")
    below = value.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{word}, {low:g} to {high:g}"
    if low is not None and below is not None and below <= 1:
        return f"{word}, {low:g} to below {below:g}"
    return word if low is None else f"{word}, at least {low:g}"


def _target(reference: _Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _metrics(metrics: tuple[Metric, ...]) -> str:
    lines = [
        "| [metric](metrics.md) | unit | better | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{one.name}` | {one.unit} | {one.better} | {one.meaning} |" for one in metrics]
    return "\n".join(lines) + "\n"


def _named(title: str, entries: Mapping[str, str]) -> str:
    lines = [f"### {title}\n", "| name | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {text} |" for name, text in entries.items())]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")

"""What is told of the metrics that a limit may name."""

import json
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Literal

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from fxeval.cli import main
from fxeval.functional.controls import CONTROLS
from fxeval.metrics import CATALOGUE, deletion_insertion
from fxeval.suite import metric_table
from fxeval.suite.metric_table import INFORMATION, lines

METRIC = deletion_insertion.METRICS[0]


class Empty(BaseModel):
    """Parameters of a kind that has none."""


def one(metric=METRIC, **parts):
    """Return the line of a metric of a kind that is not shipped."""
    protocol = SimpleNamespace(ROWS="pairs", METRICS=(metric,), Parameters=Empty, **parts)
    (found,) = lines({"acme.kind": protocol})
    return found


@pytest.mark.parametrize(
    ("changes", "parts", "words"),
    [
        ({}, {}, "yes"),
        ({"is_decision": True}, {}, "yes, against random orders"),
        ({}, {"DEMONSTRATIONS": {"legacy": "why"}}, "yes; not with legacy"),
        ({"information_only": "why"}, {"DEMONSTRATIONS": {"legacy": "why"}}, INFORMATION),
    ],
)
def test_whether_a_limit_may_decide_is_said(changes, parts, words):
    assert one(replace(METRIC, **changes), **parts).gates == words


@pytest.mark.parametrize(
    ("range", "words"),
    [((0.0, 1.0), "0 to 1"), ((-inf, 100.0), "up to 100"), ((0.0, inf), "from 0"),
     ((-inf, inf), "any")],
)  # fmt: skip
def test_a_range_without_an_end_is_worded(range, words):
    assert one(replace(METRIC, range=range)).range == words


def test_the_controls_are_those_that_the_parameter_allows():
    class Parameters(BaseModel):
        controls: tuple[Literal["centre", "edge"] | Literal["mine"], ...] = ()

    protocol = SimpleNamespace(
        ROWS="pairs", METRICS=(METRIC, replace(METRIC, statistic="ratio")), Parameters=Parameters,
        OWN_CONTROLS=("own_map",),
    )  # fmt: skip
    mean, ratio = lines({"acme.kind": protocol})
    assert mean.controls == ("centre", "edge", "mine", "own_map")
    assert ratio.controls == ()  # no row has a value that could be compared
    assert one().controls == ()
    by_kind = {line.kind: line.controls for line in lines()}
    assert sorted(by_kind["faithfulness.deletion_insertion"]) == sorted(CONTROLS)
    for kind, protocol in CATALOGUE.items():
        if "controls" in protocol.Parameters.model_fields:
            defaults = protocol.Parameters.model_fields["controls"].default
            assert {*defaults} <= {*by_kind[kind]} != set()


def test_the_page_gives_the_reason_once_for_all_metrics_that_share_it(monkeypatch):
    metrics = tuple(replace(METRIC, name=name, information_only="because") for name in ("a", "b"))
    protocol = SimpleNamespace(ROWS="pairs", METRICS=metrics, Parameters=Empty)
    monkeypatch.setattr(metric_table, "lines", lambda: lines({"acme.kind": protocol}))
    page = metric_table.page()
    assert page.count("| information only |") == 2
    assert page.endswith("* `acme.kind`, `a`, `b`: because.\n")


def test_a_metric_of_several_kinds_is_listed_for_each():
    run = CliRunner().invoke(main, ["list", "metrics", "occlusion-tmr", "--json"])
    found = json.loads(run.output)
    kinds = [
        kind for kind, of in CATALOGUE.items()
        if "occlusion_tmr" in [metric.name for metric in of.METRICS]
    ]  # fmt: skip
    assert [entry["kind"] for entry in found] == kinds
    assert len({entry["may gate"] for entry in found}) == 2  # one kind has a demonstration
    text = CliRunner().invoke(main, ["list", "metrics", "occlusion_tmr"]).output
    assert text.count("\n  may gate  yes, against random orders") == len(kinds)
    assert "range     no end" not in text

"""Looks in a suite file: keys, defaults, digests, and checks that cannot be extended."""

import json
import math

import pytest
from jsonschema import Draft202012Validator

from fxeval.errors import SuiteError
from fxeval.metrics import CATALOGUE, kinds
from fxeval.results import FIGURES
from fxeval.strict.yaml_file import parsed
from fxeval.suite.load import load
from fxeval.suite.plan import cells
from fxeval.suite.schema import suite_schema
from fxeval.tests.suite.test_load import GOOD, KNOWN

PLAIN = "    steps: 24\n"


def written(tmp_path, own="", defaults="on_inconclusive: extend", text=GOOD, **instead):
    text = text.replace("on_inconclusive: warn", defaults).replace(PLAIN, PLAIN + own)
    for old, new in instead.values():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return path


def looks_of(path):
    return [(cell.on_inconclusive, cell.looks) for cell in cells(load(path, KNOWN))]


def test_a_check_without_a_critical_limit_is_judged_once(tmp_path):
    assert looks_of(written(tmp_path)) == [("extend", None), ("extend", 5)]


@pytest.mark.parametrize(
    ("own", "defaults", "found"),
    [
        ("", "on_inconclusive: fail", ("fail", None)),
        ("", "on_inconclusive: extend, looks: 3", ("extend", 3)),
        ("    looks: 2\n", "on_inconclusive: extend", ("extend", 2)),
        ("    looks: open\n", "on_inconclusive: extend, looks: 10", ("extend", "open")),
        ("    on_inconclusive: extend\n", "on_inconclusive: warn", ("extend", 5)),
        ("    on_inconclusive: extend\n", "on_inconclusive: warn, looks: 4", ("extend", 4)),
        ("    on_inconclusive: warn\n", "on_inconclusive: extend, looks: 4", ("warn", None)),
    ],
)
def test_a_check_says_how_it_is_looked_at_and_else_the_defaults(tmp_path, own, defaults, found):
    path = written(tmp_path, own, defaults)
    assert looks_of(path)[1] == found
    schema = Draft202012Validator(json.loads(json.dumps(suite_schema())))
    assert not [*schema.iter_errors(parsed(path.read_bytes(), path).data)]


def test_suites_without_looks_keep_their_digest_and_looks_change_it(tmp_path):
    """The digest is the one that this suite had before there were looks."""
    plain = load(written(tmp_path, defaults="on_inconclusive: warn"), KNOWN).digest
    assert plain == "2ea2fa1fd58471e8339ee353f54203612e4d6b6661d17c10e172488480d2d696"
    others = {
        load(written(tmp_path, own, defaults), KNOWN).digest
        for own, defaults in (
            ("", "on_inconclusive: extend"),
            ("", "on_inconclusive: extend, looks: 4"),
            ("    looks: 4\n", "on_inconclusive: extend"),
            ("    on_inconclusive: extend\n", "on_inconclusive: warn"),
        )
    }
    assert len(others | {plain}) == 5


@pytest.mark.parametrize(
    ("own", "defaults", "place", "message"),
    [
        ("    looks: 1\n", "on_inconclusive: extend", "16:12", "expected 2 to 10 looks, or open"),
        ("    looks: 11\n", "on_inconclusive: extend", "16:12", "expected 2 to 10 looks, or open"),
        ("    looks: true\n", "on_inconclusive: extend", "16:12", "expected 2 to 10 looks"),
        ("    looks: never\n", "on_inconclusive: extend", "16:12", "expected 2 to 10 looks"),
        ("    looks: 3\n", "on_inconclusive: warn", "16:5", "goes with 'on_inconclusive: extend'"),
        ("", "looks: 3", "4:51", "goes with 'on_inconclusive: extend'"),
        ("    on_inconclusive: more\n", "seed: 7", "16:22", "'on_inconclusive'"),
    ],
)
def test_what_no_look_can_be_is_a_fault_with_its_place(tmp_path, own, defaults, place, message):
    defaults = defaults.replace("seed: 7", "on_unsupported: fail")
    with pytest.raises(SuiteError) as raised:
        load(written(tmp_path, own, defaults), KNOWN)
    assert message in str(raised.value)
    assert f"a.yaml:{place}: " in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "fill: blur}", "fill: blur, over: list}",
            "'over: list' is about all rows of the list, so there is nothing to extend",
        ),
        (
            "{metric: insertion_auc, at_least: 0.5, severity: info}",
            "{metric: insertion_auc, at_least: 0.5, severity: info, over: list}",
            "'over: list' is about all rows of the list",
        ),
    ],
)  # fmt: skip
def test_a_limit_about_the_list_cannot_be_extended(tmp_path, old, new, message):
    with pytest.raises(SuiteError, match=message):
        load(written(tmp_path, limit=(old, new)), KNOWN)
    load(written(tmp_path, defaults="on_inconclusive: warn", limit=(old, new)), KNOWN)


def of_kind(choose):
    """Return the first kind that a test asks for, with its metrics."""
    return next((name, kinds()[name].METRICS) for name in CATALOGUE if choose(kinds()[name]))


def other(kind, metric, own="", severity="critical"):
    return GOOD.partition("checks:")[0] + (
        f"checks:\n  - id: one\n    kind: {kind}\n{own}"
        f"    limits: [{{metric: {metric}, at_least: 0.2, severity: {severity}}}]\n"
    )


def test_a_figure_of_the_list_cannot_be_extended(tmp_path):
    kind, metrics = of_kind(lambda one: any(m.statistic in FIGURES for m in one.METRICS))
    name = next(one.name for one in metrics if one.statistic in FIGURES)
    with pytest.raises(SuiteError, match="cannot be judged at several looks; expected a metric"):
        load(written(tmp_path, text=other(kind, name)), KNOWN)
    load(written(tmp_path, text=other(kind, name, "    on_inconclusive: fail\n")), KNOWN)
    load(written(tmp_path, text=other(kind, name, severity="info")), KNOWN)


def test_a_check_that_chooses_cannot_be_extended(tmp_path):
    kind, metrics = of_kind(lambda one: getattr(one, "SELECTS", None) is not None)
    with pytest.raises(SuiteError, match=r"'on_inconclusive: extend' of the defaults: .* chooses"):
        load(written(tmp_path, text=other(kind, metrics[0].name)), KNOWN)
    own = "    on_inconclusive: extend\n"
    with pytest.raises(SuiteError, match=r"a.yaml:11:5: .*'on_inconclusive: extend': .* chooses"):
        load(written(tmp_path, text=other(kind, metrics[0].name, own)), KNOWN)


@pytest.mark.parametrize("kind", ["nonmated pairs", "patched pairs", "false matches"])
def test_rows_of_two_people_are_not_bet_on(tmp_path, kind):
    kind, metrics = of_kind(lambda one: kind == one.ROWS)
    name = next(m.name for m in metrics if m.statistic == "mean" and not m.information_only)
    with pytest.raises(SuiteError, match=r"'looks: open'.* may belong to two; expected a number"):
        load(written(tmp_path, text=other(kind, name, "    looks: open\n")), KNOWN)
    load(written(tmp_path, text=other(kind, name)), KNOWN)


def test_values_without_edges_are_not_bet_on(tmp_path):
    def choose(one):
        return one.ROWS == "mated pairs" and unbounded(one)

    def unbounded(one):
        return [m for m in one.METRICS if m.range[1] == math.inf and m.statistic == "mean"]

    kind, _ = of_kind(choose)
    name = unbounded(kinds()[kind])[0].name
    text = other(kind, name, "    looks: open\n")
    with pytest.raises(SuiteError, match=r"bets on values between two edges, and .* lies in .*inf"):
        load(written(tmp_path, text=text), KNOWN)
    load(written(tmp_path, text=other(kind, name)), KNOWN)


def test_medians_are_not_bet_on(tmp_path):
    def medians(one):
        return [m for m in one.METRICS if m.statistic == "median" and not m.information_only]

    kind, _ = of_kind(medians)
    name = medians(kinds()[kind])[0].name
    text = other(kind, name, "    looks: open\n")
    with pytest.raises(SuiteError, match=r"is a median and cannot be judged .* that is a mean"):
        load(written(tmp_path, text=text), KNOWN)
    load(written(tmp_path, text=other(kind, name)), KNOWN)

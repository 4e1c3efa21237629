"""Limits that compare, over whom, over which conditions, and with how many seeds."""

from pathlib import Path

import pytest

from fxeval.errors import SuiteError
from fxeval.statistics.limits import BetterThan, EquivalentTo, NotWorseThan
from fxeval.strict.yaml_file import parsed
from fxeval.suite.limit_rules import refusals_of
from fxeval.suite.load import KnownIds, planned
from fxeval.suite.plan import cells

KNOWN = KnownIds(
    models=frozenset({"net"}), explainers=frozenset({"cam", "rise"}), pairs=frozenset({"faces"})
)
DELETION = "faithfulness.deletion_insertion"
TEXT = """fxeval: 1
suite: s
defaults: {{seed: 7{defaults}}}
models: [net]
explainers: [cam, {{use: rise, as: rise-fine, params: {{masks: 9}}}}]
pairs: [faces]
checks:
  - id: c
    kind: {kind}
{keys}    limits:
      - {{metric: {metric}, {limit}}}
"""


def text(limit="at_most: 0.5", *, kind=DELETION, metric="deletion_auc", keys="", defaults=""):
    more = f"    {keys}\n" if keys else ""
    return TEXT.format(limit=limit, kind=kind, metric=metric, keys=more, defaults=defaults)


def suite(limit="at_most: 0.5", **more):
    raw = text(limit, **more).encode()
    return planned(parsed(raw, Path("s.yaml")), Path("s.yaml"), KNOWN)


def fault(limit, **more):
    """Return the single fault of a limit, and the text of the file from its place on."""
    with pytest.raises(SuiteError) as caught:
        suite(limit, **more)
    message = str(caught.value)
    assert message.count(": error: ") == 1
    _, row, column, rest = message.split(":", 3)
    line = text(limit, **more).splitlines()[int(row) - 1]
    return rest.removeprefix(" error: "), line[int(column) - 1 :]


def limit_of(*args, **more):
    return suite(*args, **more).checks[0].limits[0]


def test_every_form_that_compares_is_read_with_its_margin():
    assert limit_of("better_than: explainer:rise-fine, by: {absolute: 0.01}") == BetterThan(
        "deletion_auc", better_than="explainer:rise_fine", by={"absolute": 0.01},
        where="s.yaml:11:9",
    )  # fmt: skip
    for earlier in ("baseline", "base"):
        assert limit_of(f"not_worse_than: {earlier}, within: {{relative: 0.1}}") == NotWorseThan(
            "deletion_auc", not_worse_than=earlier, within={"relative": 0.1}, where="s.yaml:11:9"
        )
    for other in ("baseline", "base", "control.centre", "explainer:cam"):
        asked = f"equivalent_to: {other}, within: {{absolute: 0.1}}"
        assert limit_of(asked, keys="controls: [centre]") == EquivalentTo(
            "deletion_auc", equivalent_to=other, within={"absolute": 0.1}, where="s.yaml:12:9"
        )


def test_a_limit_says_over_whom_and_how_it_is_judged():
    limit = limit_of("at_most: 0.5, over: list, judge: worst")
    assert (limit.over, limit.judge) == ("list", "worst")
    limit = limit_of("at_most: 0.5")
    assert (limit.over, limit.judge) == ("population", "each")
    assert limit_of("not_worse_than: baseline, over: list").within == {}


@pytest.mark.parametrize(
    ("limit", "at", "words"),
    [
        ("better_than: explainer:ris", "explainer:ris", "no explainer 'ris' in this check or "
         "suite; there are: cam, rise_fine"),
        ("better_than: baseline", "baseline", "'better_than': expected control.<name> or "
         "explainer:<name>, got 'baseline'"),
        ("equivalent_to: bas, within: {absolute: 0.1}", "bas,", "'equivalent_to': expected "
         "control.<name> or explainer:<name> or baseline or base, got 'bas'"),
        ("not_worse_than: basline, within: {absolute: 0.1}", "basline",
         "'not_worse_than' must be"),
        ("not_worse_than: control.centre, within: {absolute: 0.1}", "control.centre",
         "'not_worse_than' must be 'baseline' or 'base', got 'control.centre'"),
        ("not_worse_than: baseline", "not_worse_than", "not_worse_than: expected 'within', as"),
        ("equivalent_to: base", "equivalent_to", "equivalent_to: expected 'within: {absolute"),
        ("equivalent_to: base, over: list", "equivalent_to", "equivalent_to: expected 'within"),
        ("not_worse_than: base, within: {absolute: 0.1, relative: 0.1}", "{absolute",
         "'within': expected exactly one of absolute, relative"),
        ("equivalent_to: base, within: {relative: 0.1}", "relative", "equivalent_to has one margin "
         "for all rows; expected 'absolute'"),
        ("at_most: 0.5, within: {absolute: 0.1}", "within", "'within' goes with not_worse_than and "
         "equivalent_to only"),
        ("not_worse_than: base, within: {absolute: 3}", "absolute", "'absolute: 3' can never fail: "
         "deletion_auc lies in [-1, 1]; expected a smaller margin"),
        ("equivalent_to: base, within: {absolute: 2}", "absolute", "'absolute: 2' can never fail"),
        ("better_than: explainer:cam, by: {absolute: 2}", "absolute", "'absolute: 2' can never "
         "pass"),
        ("at_most: 0.5, over: lists", "lists", "'over' must be 'population' or 'list'"),
        ("at_most: 0.5, judge: median", "median", "'judge' must be 'each', 'worst' or 'mean'"),
    ],
)  # fmt: skip
def test_a_comparison_that_cannot_be_meant_is_refused_at_its_place(limit, at, words):
    message, place = fault(limit)
    assert message.startswith(words)
    assert place.startswith(at)


@pytest.mark.parametrize(
    ("limit", "key", "meant"),
    [
        ("better_than: explainer:cam, within: {absolute: 0.1}", "within", "did you mean 'by'?"),
        ("not_worse_than: base, within: {absolute: 0.1}, by: {absolute: 0.1}", "by", ""),
    ],
)
def test_by_and_within_are_told_apart(limit, key, meant):
    message, place = fault(limit)
    assert message.startswith(f"'{key}' goes with ")
    assert meant in message
    assert place.startswith(key)


def test_a_name_that_is_nearly_right_has_a_suggestion():
    assert "did you mean 'rise_fine'?" in fault("better_than: explainer:rise_fin")[0]
    assert "did you mean 'baseline'?" in fault(
        "not_worse_than: basline, within: {absolute: 0.1}"
    )[0]  # fmt: skip


def test_noise_must_fail_a_limit_on_a_decision_which_takes_a_population():
    metric = "insertion_fraction_to_match"
    message, place = fault("at_most: 0.5, over: list", metric=metric)
    assert message.startswith(f"'over: list': {metric} says where decisions flip")
    assert place.startswith("over")


def test_without_conditions_there_is_nothing_to_judge_over():
    entropy = {"kind": "stability.repetition", "metric": "map_entropy"}
    message, place = fault("at_most: 0.5, judge: mean, severity: info", **entropy)
    assert message.startswith("stability.repetition has no conditions; remove 'judge'")
    assert place.startswith("judge")
    suite("at_most: 0.5, judge: each, severity: info", **entropy)


def test_a_cell_knows_the_explainers_that_it_compares_with_but_never_itself():
    found = {
        cell.explainer.name: [(one.name, one.id, dict(one.params)) for one in cell.others]
        for cell in cells(suite("better_than: explainer:rise-fine"))
    }
    assert found == {"cam": [("rise_fine", "rise", {"masks": 9})], "rise_fine": []}
    own = suite("better_than: explainer:rise-fine", keys="explainers: [cam]")
    [cell] = cells(own)
    assert [one.name for one in cell.others] == ["rise_fine"]  # of the suite, not of the check
    message, _ = fault("better_than: explainer:cam", keys="explainers: [cam]")
    assert message.startswith("no explainer is compared with itself, and this check has none but")


def test_seeds_are_those_of_the_check_else_of_the_suite_else_three():
    for more, seeds in (
        ({}, 3),
        ({"defaults": ", seeds: 5"}, 5),
        ({"defaults": ", seeds: 5", "keys": "seeds: 1"}, 1),
    ):
        made = suite(**more)
        assert made.checks[0].seeds == seeds
        assert {cell.seeds for cell in cells(made)} == {seeds}
    for wrong in ("0", "21", "x", "2.5"):
        message, _ = fault("at_most: 0.5", keys=f"seeds: {wrong}")
        assert message.startswith("'seeds' ")


def test_a_suite_without_the_new_keys_keeps_its_digest_and_every_new_key_changes_it():
    plain = suite().digest
    assert plain == "05002742c1e37f0ffea10aa4ab30a2f8cd2cd1c25ebc747d355daa0cb5c5380e"
    assert suite("at_most: 0.5, over: population, judge: each").digest == plain
    assert suite(defaults=", seeds: 3").digest == plain
    changed = [
        suite("at_most: 0.5, over: list"), suite("at_most: 0.5, judge: worst"),
        suite("at_most: 0.5, judge: mean"), suite(defaults=", seeds: 4"),
        suite("not_worse_than: base, within: {absolute: 0.1}"),
        suite("not_worse_than: base, within: {absolute: 0.2}"),
        suite("not_worse_than: baseline, within: {absolute: 0.1}"),
        suite("equivalent_to: base, within: {absolute: 0.1}"),
        suite("better_than: explainer:cam"), suite("better_than: explainer:rise-fine"),
    ]  # fmt: skip
    assert len({plain, *(one.digest for one in changed)}) == len(changed) + 1


def test_a_certificate_does_not_rest_on_the_list_alone():
    assert refusals_of(suite().checks[0].limits) == []
    [(where, message)] = refusals_of(suite("at_most: 0.5, over: list").checks[0].limits)
    assert where == "s.yaml:11:9"
    assert message == (
        "deletion_auc at most 0.5: 'over: list' says nothing about other people; expected "
        "'over: population' in a certification suite"
    )

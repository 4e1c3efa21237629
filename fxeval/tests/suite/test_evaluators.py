"""Checks that name further models: which they may name, and what their cells hold."""

from pathlib import Path

import pytest

from fxeval.errors import SuiteError
from fxeval.strict.yaml_file import parsed
from fxeval.suite import preflight
from fxeval.suite.load import KnownIds, planned
from fxeval.suite.plan import cells

KNOWN = KnownIds(frozenset({"a", "b", "c", "card"}), frozenset({"cam"}), frozenset({"faces"}))
TEXT = """\
fxeval: 1
suite: s
models: [a, b, {{use: c, as: see}}]
explainers: [cam]
pairs: [faces]
verification: {{operating_threshold: tau_fmr_1e-2, models: [b]}}
checks:
  - id: t
    kind: transfer.cross_model
{keys}    limits: [{{metric: transfer_index_cosine, at_least: 0.5{limit}}}]
"""


def suite(*keys: str, limit: str = "", text: str = TEXT):
    raw = text.format(keys="".join(f"    {key}\n" for key in keys), limit=limit).encode()
    return planned(parsed(raw, Path("s.yaml")), Path("s.yaml"), KNOWN)


def fault(*keys: str, limit: str = "") -> str:
    with pytest.raises(SuiteError) as caught:
        suite(*keys, limit=limit)
    return str(caught.value).partition("\n\n")[0]


def further(suite):
    return {
        cell.model.name: [use.name for use in cell.further["evaluators"]] for cell in cells(suite)
    }


def test_all_models_of_the_check_are_evaluators_unless_some_are_named():
    assert further(suite()) == {"a": ["b", "see"], "b": ["a", "see"], "see": ["a", "b"]}
    assert further(suite("models: [a, b]")) == {"a": ["b"], "b": ["a"]}
    assert further(suite("models: [a, b]", "evaluators: [see, a]")) == {
        "a": ["see"], "b": ["see", "a"],
    }  # fmt: skip


def test_an_evaluator_is_verified_as_the_suite_asks_it_to_be():
    of_a = next(cell for cell in cells(suite()) if cell.model.name == "a")
    assert of_a.verification.operating_threshold == "vendor"
    assert of_a.demands["b"].operating_threshold == "tau_fmr_1e-2"
    assert of_a.demands["see"].operating_threshold == "vendor"
    assert [use.name for use in of_a.models] == ["a", "b", "see"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["evaluators: [a, sea]"],
            "s.yaml:10:21: error: no model 'sea' in this check or suite; there are: a, b, see. "
            "Did you mean 'see'?",
        ),
        (
            ["evaluators: [a, a]"],
            "s.yaml:10:17: error: 'evaluators': expected every entry at most once",
        ),
        (["evaluators: []"], "s.yaml:10:17: error: 'evaluators' needs 1 or more entries"),
        (["evaluators: a"], "s.yaml:10:17: error: 'evaluators' must be a list"),
        (["evaluators: [3]"], "s.yaml:10:18: error: an entry of 'evaluators' must be text"),
    ],
)
def test_a_mistake_is_shown_at_the_entry(keys, message):
    assert message.split(". Did")[0] in fault(*keys)


def test_two_spellings_of_one_name_are_one_evaluator():
    text = TEXT.replace("as: see", "as: see-it")
    raw = text.format(keys="    evaluators: [see-it, see_it]\n", limit="").encode()
    with pytest.raises(SuiteError, match="'evaluators': 'see_it' is named twice"):
        planned(parsed(raw, Path("s.yaml")), Path("s.yaml"), KNOWN)


def test_a_limit_pins_an_evaluator_that_every_cell_has():
    pinned = ", under: {{evaluator: {}}}".format
    (limit,) = suite(limit=pinned("see")).checks[0].limits
    assert limit.under == {"evaluator": "see"}
    assert suite("models: [a]", "evaluators: [b]", limit=pinned("a"))
    said = fault("models: [a, b]", "evaluators: [see]", limit=pinned("a"))
    assert "this check has no evaluator 'a'; it has: see" in said


def test_a_limit_may_compare_with_the_own_map():
    metric = "occlusion_cosine_drop, better_than: control.own_map"
    text = TEXT.replace("transfer_index_cosine, at_least: 0.5", metric)
    assert suite(text=text).checks[0].limits[0].better_than == "control.own_map"


def test_who_the_evaluators_are_is_part_of_the_digest():
    digests = {
        suite(*keys).digest
        for keys in ([], ["evaluators: [a]"], ["evaluators: [a, b]"], ["models: [a, b]"])
    }
    assert len(digests) == 4
    assert suite().digest == suite().digest


def test_cards_of_evaluators_are_read_beforehand(tmp_path):
    text = TEXT.replace("{{use: c, as: see}}", "{{use: card, params: {{file: x.yaml}}, as: see}}")
    found = cells(suite("models: [a]", "evaluators: [b, see]", text=text))
    nobody = {role: frozenset() for role in ("model", "explainer", "pairs")}
    with pytest.raises(SuiteError, match=r"^s\.yaml:3:16: error: model 'see': .*x\.yaml"):
        preflight.check_cards_of(found, nobody, tmp_path)

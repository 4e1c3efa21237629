"""A suite that extends another: what it takes, where faults are, and how it runs."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fxeval import datasets, explainers
from fxeval.errors import SuiteError
from fxeval.explainers.precomputed import PrecomputedMaps
from fxeval.run.keys import fixture_key
from fxeval.strict.yaml_file import MAX_BYTES, parsed
from fxeval.suite.configure import configured
from fxeval.suite.load import load, planned
from fxeval.suite.plan import cells
from fxeval.suite.preflight import SHIPPED_CARDS, check_cards_of
from fxeval.suite.recognition import shipped_suites
from fxeval.tests.suite.test_load import GOOD, KNOWN

KNOWN = replace(
    KNOWN, models=KNOWN.models | {"mini_vit", "card"}, explainers=KNOWN.explainers | {"layercam"}
)
OWN = """\
fxeval: 1
suite: mine
extends: base.yaml
models: [acme_net]
pairs: [{use: lfw, n: 50}]
checks:
  - id: faithful
    steps: 12
    limits:
      - {metric: deletion_auc, better_than: control.edge}
  - id: again
    kind: sanity.model_randomisation
    limits: [{metric: rank_correlation_fully_randomised, at_most: 0.3, severity: info}]
"""
WRITTEN_OUT = """\
fxeval: 1
suite: mine
defaults: {seed: 7, device: cpu, confidence: 0.9, on_inconclusive: warn}
models: [acme_net]
explainers: [{use: cam, params: {layer: "a"}}]
pairs: [{use: lfw, n: 50}]
checks:
  - id: sane
    kind: sanity.model_randomisation
    redraws: 2
    limits: [{metric: rank_correlation_fully_randomised, at_most: 0.4, severity: info}]
  - id: faithful
    kind: faithfulness.deletion_insertion
    steps: 12
    fills: [blur]
    controls: [centre, edge]
    marks: [slow]
    limits:
      - {metric: deletion_auc, better_than: control.edge}
  - id: again
    kind: sanity.model_randomisation
    limits: [{metric: rank_correlation_fully_randomised, at_most: 0.3, severity: info}]
report: {formats: [html]}
"""


def write(folder, own=OWN, base=GOOD, name="base.yaml"):
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(base)
    (folder / "mine.yaml").write_text(own)
    return folder / "mine.yaml"


def message_of(folder, **texts):
    with pytest.raises(SuiteError) as caught:
        load(write(folder, **texts), KNOWN)
    return str(caught.value)


def test_a_suite_that_extends_is_the_suite_with_everything_written_out(tmp_path):
    (tmp_path / "written_out.yaml").write_text(WRITTEN_OUT)
    found, expected = load(write(tmp_path), KNOWN), load(tmp_path / "written_out.yaml", KNOWN)
    assert found.digest == expected.digest
    assert [cell.id for cell in cells(found)] == [cell.id for cell in cells(expected)]
    assert found.title == "mine"  # the title of the base would be untrue of another suite
    other = load(write(tmp_path, OWN.replace("steps: 12", "steps: 13")), KNOWN)
    assert other.digest != expected.digest


KNOWN_HERE = replace(KNOWN, explainers=KNOWN.explainers | {"rollout"})
"""With what the quickstart needs."""


def test_five_lines_bring_a_shipped_suite_to_other_models_and_pairs(tmp_path):
    own = "fxeval: 1\nsuite: mine\nextends: fxeval:quickstart\nmodels: [net]\npairs: [lfw]\n"
    found = load(write(tmp_path, own), KNOWN_HERE)
    shipped = load(shipped_suites()["quickstart"], KNOWN_HERE)
    assert [check.id for check in found.checks] == [check.id for check in shipped.checks]
    for mine, theirs in zip(found.checks, shipped.checks, strict=True):
        assert [limit.text() for limit in mine.limits] == [limit.text() for limit in theirs.limits]
        assert mine.parameters == theirs.parameters
        assert [one.name for one in mine.models] == ["net"]
        assert [one.name for one in mine.pairs] == ["lfw"]
        assert mine.where.startswith("fxeval:quickstart:")
        assert mine.line == 3


EXAMPLES = {
    name: "".join(line[4:] for line in path.read_text().splitlines(True) if line[:4] == "#   ")
    for name, path in shipped_suites().items()
    if "#   extends: " in path.read_text()
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_at_the_head_of_a_shipped_suite_takes_all_checks_to_others(tmp_path, name):
    everything = replace(
        KNOWN,
        models=frozenset(SHIPPED_CARDS) | {"my_model"},
        explainers=frozenset(explainers.SHIPPED) | {"my_explainer"},
        pairs=frozenset(datasets.SHIPPED),
    )
    found = load(write(tmp_path, EXAMPLES[name]), everything)
    shipped = load(shipped_suites()[name], everything)
    assert [check.id for check in found.checks] == [check.id for check in shipped.checks]
    given = {
        part: {one.use.id for check in found.checks for one in getattr(check, part)}
        for part in ("models", "explainers", "pairs")
    }
    if "my_model" in EXAMPLES[name]:  # other subjects, on the faces of the suite
        assert (given["models"], given["explainers"]) == ({"my_model"}, {"my_explainer"})
        assert given["pairs"] == {"rendered"}
    else:
        assert given["pairs"] <= {"lfw", "identity_folders"}


def test_every_place_is_in_the_file_that_holds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sane, faithful, again = load(write(Path()), KNOWN).checks
    assert (sane.where, sane.line) == ("base.yaml:9:5", 3)
    assert sane.limits[0].where == "base.yaml:12:14"
    assert (faithful.where, faithful.line) == ("mine.yaml:7:5", 7)
    assert faithful.limits[0].where == "mine.yaml:10:9"
    assert (again.where, again.line) == ("mine.yaml:11:5", 11)
    assert sane.models[0].use.where == "mine.yaml:4:10"
    assert sane.explainers[0].use.where == "base.yaml:6:14"
    assert sane.pairs[0].n_where == "mine.yaml:5:23"


# (text of OWN, what stands there instead, the same of the base, place, part of the message, help)
MISTAKES = [
    ("base.yaml", "other.yaml", "", "", "mine.yaml:3:10",
     "'extends': 'other.yaml' cannot be read: No such file or directory", ""),
    ("base.yaml", "..", "", "", "mine.yaml:3:10", "fxeval:NAME or the path of a suite, which", ""),
    ("base.yaml", "folder.yaml", "", "", "mine.yaml:3:10", "cannot be read: Is a directory", ""),
    ("base.yaml", "", "", "", "mine.yaml:3:9", "path of a suite, got nothing", ""),
    ("base.yaml", "3", "", "", "mine.yaml:3:10", "path of a suite, got 3", ""),
    ("base.yaml", "[base.yaml]", "", "", "mine.yaml:3:10", "path of a suite, got a list", ""),
    ("base.yaml", "/etc/base.yaml", "", "", "mine.yaml:3:10", "from this file on, got '/etc/b", ""),
    ("base.yaml", "https://example.org/base.yaml", "", "", "mine.yaml:3:10", "got a URL",
     "copy the suite beside this file"),
    ("base.yaml", "base.json", "", "", "mine.yaml:3:10", "which ends in .yaml or .yml", ""),
    ("base.yaml", "quickstart", "", "", "mine.yaml:3:10", "which ends in .yaml or .yml",
     "did you mean 'fxeval:quickstart'?"),
    ("base.yaml", "fxeval:quikstart", "", "", "mine.yaml:3:10", "no shipped suite 'fxeval:quiks",
     "did you mean 'fxeval:quickstart'?"),
    ("base.yaml", "mine.yaml", "", "", "mine.yaml:3:10",
     "expected a suite that extends none, but mine.yaml:3:10 extends another", "extend that one"),
    ("", "", "title:", "extends: other.yaml\ntitle:", "mine.yaml:3:10",
     "expected a suite that extends none, but base.yaml:3:10 extends another", "extend that one"),
    ("suite: mine\n", "", "", "", "mine.yaml:1:1", "the key 'suite' is missing", ""),
    # faults of the suite itself
    ("acme_net", "acme_nat", "", "", "mine.yaml:4:10", "unknown model 'acme_nat'", "did you mean"),
    ("id: faithful\n    steps", "id: faitful\n    steps", "", "", "mine.yaml:7:5",
     "base.yaml has no check 'faitful', and a new one needs 'kind'", "did you mean 'faithful'?"),
    ("steps: 12", "kind: sanity.model_randomisation", "", "", "mine.yaml:8:11",
     "the check of base.yaml is of the kind 'faithfulness.deletion_insertion', which stays",
     "give this check an id of its own"),
    ("steps: 12", "stps: 12", "", "", "mine.yaml:8:5", "unknown key 'stps'", "did you mean '"),
    ("steps: 12", "steps: 0", "", "", "mine.yaml:8:12", "'steps' must be at least 1, got 0", ""),
    ("steps: 12", "limits: [{metric: deletion_auc, at_least: 0.1}]", "", "", "mine.yaml:9:5",
     "the key 'limits' is already given in line 8", ""),
    ("control.edge", "control.inverse", "", "", "mine.yaml:10:45", "has no control 'inverse'", ""),
    ("id: faithful\n    steps: 12", "id: again\n    kind: faithfulness.deletion_insertion\n"
     "    fills: [blur]\n    controls: [edge]", "", "", "mine.yaml:13:9",
     "'again' is taken by an earlier check", ""),
    ("id: again\n    kind: sanity.model_randomisation", "id: sane\n    redraws: 3\n  - id: sane",
     "", "", "mine.yaml:13:9", "the id 'sane' is taken by an earlier check", ""),
    ("pairs:", "explainers: [srise]\npairs:", "redraws: 2", "explainers: [cam]", "mine.yaml:5:1",
     "the check 'sane' of base.yaml names 'cam', which these explainers leave out", "list it here"),
    # faults of the base, and what the suite makes of it
    ("", "", "fxeval: 1", "fxeval: 2", "base.yaml:1:9", "expected format version 1, got 2", ""),
    ("", "", "fxeval: 1\n", "", "base.yaml:1:1", "a suite starts with 'fxeval: 1'", ""),
    ("", "", "title: A suite", "title: 'A suite", "base.yaml:23:1", "inside a quoted text", ""),
    ("", "", "title:", "titel:", "base.yaml:3:1", "unknown key 'titel'", "did you mean 'title'?"),
    ("", "", "seed: 7", "seed: &a 7", "base.yaml:4:18", "anchors ('&a') are not allowed", ""),
    ("", "", "seed: 7", "seed: *a", "base.yaml:4:18", "aliases ('*a') are not allowed", ""),
    ("", "", "redraws: 2", "redraws: 21", "base.yaml:11:14", "'redraws' must be at most 20", ""),
    ("", "", "id: sane\n    kind", "kind", "base.yaml:9:5", "the key 'id' is missing", ""),
    ("limits:\n      - {metric: deletion_auc, better_than: control.edge}",
     "controls: [inverse]", "", "", "base.yaml:20:45", "has no control 'centre'", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "base_old", "base_new", "place", "fragment", "help"),
    MISTAKES,
    ids=[f"{place} {fragment}" for *_, place, fragment, _ in MISTAKES],
)
def test_a_mistake_is_shown_in_the_file_that_holds_it(
    tmp_path, monkeypatch, old, new, base_old, base_new, place, fragment, help
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    own, base = OWN.replace(old, new, 1), GOOD.replace(base_old, base_new, 1)
    message = message_of(tmp_path, own=own, base=base)
    head, source, *_ = message.split("\n")
    assert head.startswith(f"{place}: error: ")
    assert fragment in head
    assert message.count(": error: ") == 1, message
    file, line, _ = place.split(":")
    lines = (own if file == "mine.yaml" else base).split("\n")
    assert source.partition(" | ")[2] == lines[int(line) - 1].rstrip()
    assert (f"= help: {help}" in message) == bool(help) or "known: " in message
    assert ("= note: mine.yaml:3:10 extends this file" in message) == (file == "base.yaml")


def test_faults_of_both_files_are_shown_at_once_those_of_the_suite_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = message_of(
        tmp_path, own=OWN.replace("steps: 12", "steps: 0"), base=GOOD.replace("seed: 7", "seed: x")
    )
    heads = [line.partition(": error")[0] for line in message.split("\n") if ": error: " in line]
    assert heads == ["mine.yaml:8:12", "base.yaml:4:18"]


def test_what_is_replaced_is_replaced_as_a_whole_and_its_faults_go_with_it(tmp_path):
    own = OWN.replace("pairs:", "defaults: {seed: 8}\npairs:")
    suite = load(write(tmp_path, own, GOOD.replace("confidence: 0.9", "confidence: 7")), KNOWN)
    assert (suite.seed, suite.confidence, suite.on_inconclusive) == (8, 0.95, "fail")


def test_no_base_is_larger_than_a_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = message_of(tmp_path, base=GOOD + "#" * MAX_BYTES)
    assert message.startswith("base.yaml:1:1: error: the file has more than")
    assert "mine.yaml:3:10 extends this file" in message


def test_thousands_of_mistakes_make_a_short_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = "".join(f"  - {{id: c{number}, steps: 1}}\n" for number in range(600))
    base = GOOD.partition("  - id: sane")
    many = "".join(f"  - {{id: b{number}}}\n" for number in range(600))
    own = OWN.partition("  - id: faithful")[0] + checks
    message = message_of(tmp_path, own=own, base=base[0] + many + "".join(base[1:]))
    assert message.count(": error: ") == 20
    assert message.endswith("more errors")


def test_the_place_of_a_base_in_another_folder_is_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    write(tmp_path / "suites", OWN.replace("base.yaml", "../base.yaml"), GOOD, "../base.yaml")
    assert load(Path("suites/mine.yaml"), KNOWN).checks[0].where == "base.yaml:9:5"


def test_the_spelling_of_an_id_stays_that_of_the_extended_suite(tmp_path):
    base = GOOD.replace("id: faithful", "id: faith-ful")
    found = load(write(tmp_path, OWN.replace("id: faithful", "id: faith_ful"), base), KNOWN)
    assert [check.id for check in found.checks] == ["sane", "faith-ful", "again"]


def test_a_name_that_a_check_of_the_base_uses_may_be_given_another_meaning(tmp_path):
    base = GOOD.replace("redraws: 2", "explainers: [cam]")
    own = OWN.replace("pairs:", "explainers: [{use: srise, as: cam}]\npairs:")
    assert load(write(tmp_path, own, base), KNOWN).checks[0].explainers[0].use.id == "srise"


def test_relative_paths_start_at_the_file_in_which_they_are_written(tmp_path):
    base = GOOD.replace("models: [net]", "models: [{use: card, params: {file: acme.yaml}}]")
    base = base.replace('{use: cam, params: {layer: "a"}}', "{use: cam, params: {file: m.npz}}")
    own = OWN.replace("base.yaml", "../more/base.yaml").replace("models: [acme_net]\n", "")
    own = own.replace("steps: 12", "explainers: [{use: cam, params: {file: own.npz}}]")
    (tmp_path / "here").mkdir()
    path = write(tmp_path / "here", own, base, "../more/base.yaml")
    suite = load(path, KNOWN)
    sane, faithful, _ = suite.checks
    for check, folder in ((sane, tmp_path / "more"), (faithful, tmp_path / "here")):
        use = check.explainers[0].use
        found = configured(PrecomputedMaps(), use, "explainer", path.parent)
        assert found.file.resolve() == folder / use.params["file"]
    with pytest.raises(SuiteError, match=r"base\.yaml:5:10: error: model 'card'.*more/acme"):
        check_cards_of(cells(suite), {"model": frozenset()}, path.parent)


def test_suites_that_extend_the_same_one_do_not_share_what_their_fixtures_return(tmp_path):
    own = "fxeval: 1\nsuite: mine\nextends: fxeval:quickstart\nmodels: [net]\npairs: [lfw]\n"
    keys = set()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        found = {
            fixture_key(cell, cell.model)
            for cell in cells(load(write(tmp_path / folder, own), KNOWN_HERE))
        }
        assert len(found) == 1  # one model of one suite is one model
        keys |= found
    assert len(keys) == 2


def test_only_a_file_extends_a_suite():
    with pytest.raises(SuiteError, match="evaluate:3:1: error: only a file extends a suite"):
        planned(parsed(GOOD.replace("title", "extends").encode(), Path("evaluate")),
                Path("evaluate"), KNOWN)  # fmt: skip


anything = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PARTS = ["suite", "extends", "models", "explainers", "pairs", "checks", "defaults"]


@anything
@given(
    in_base=st.booleans(), key=st.sampled_from(PARTS), value=json_values,
    check=st.none() | st.fixed_dictionaries({"id": st.just("sane") | json_values}, optional={
        "kind": json_values, "limits": json_values, "explainers": json_values}),
)  # fmt: skip
def test_any_value_in_either_file_raises_nothing_but_a_suite_error(
    tmp_path, in_base, key, value, check
):
    own = {"fxeval": 1, "suite": "mine", "extends": "base.yaml", "models": ["net"],
           "checks": [{"id": "sane", "redraws": 3}, *([check] if check else [])]}  # fmt: skip
    base = {"fxeval": 1, "suite": "base", "explainers": ["cam"], "models": ["net"],
            "pairs": ["faces"], "checks": [
        {"id": "sane", "kind": "sanity.model_randomisation", "explainers": ["cam"],
         "limits": [{"metric": "rank_correlation_fully_randomised", "at_most": 0.4,
                     "severity": "info"}]}]}  # fmt: skip
    (base if in_base else own)[key] = value
    with suppress(SuiteError):
        load(write(tmp_path, json.dumps(own), json.dumps(base)), KNOWN)


@pytest.mark.slow
def test_the_lines_of_the_page_run_on_real_faces(pytester, data_root):
    page = Path(__file__).parents[3] / "docs" / "suite-format.md"
    if not page.is_file():
        pytest.skip("no docs beside an installed fxeval")
    own = page.read_text().partition("## A suite that extends")[2].partition("```yaml\n")[2]
    own = own.partition("```")[0].replace("n: 40", "n: 4")
    assert own.count("\n") == 5
    own, replaced = re.subn(r"models: .*", "models: [edgeface_xs]", own)
    assert replaced == 1
    (pytester.path / "mine.yaml").write_text(own)
    options = (f"--fx-data={data_root}", "--fx-threads=1", "-k", "sanity and leam")
    pytester.runpytest_inprocess("mine.yaml", *options)
    (path,) = pytester.path.glob("reports/*/acme.json")
    (cell,) = json.loads(path.read_text())["cells"]
    assert cell["id"] == "sanity[edgeface_xs-leam-lfw]"
    assert cell["where"].startswith("fxeval:lfw:")
    assert cell["verdict"]["outcome"] in {"pass", "fail", "inconclusive"}, cell["verdict"]
    assert cell["states"] == {"ok": 4}

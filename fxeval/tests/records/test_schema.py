"""The JSON Schemas that ``fxeval schema`` prints are those in ``docs`` and fit what they are of."""

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from fxeval import cli, datasets, explainers
from fxeval.metrics import CATALOGUE
from fxeval.statistics.limits import FORMS
from fxeval.strict.yaml_file import read
from fxeval.suite.format import Limit, Suite, check_forms
from fxeval.suite.preflight import SHIPPED_CARDS
from fxeval.suite.schema import suite_schema
from fxeval.tests.suite.test_load import GOOD, write

ROOT = Path(__file__).parents[3]
SUITES = sorted((ROOT / "suites").rglob("*.yaml"))
MODELINE = "# yaml-language-server: $schema="
VALIDATOR = jsonschema.Draft202012Validator(suite_schema())


def printed(*arguments):
    result = CliRunner().invoke(cli.main, ["schema", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def faults(folder, text):
    return [error.message for error in VALIDATOR.iter_errors(read(write(folder, text)).data)]


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="no docs beside an installed fxeval")
@pytest.mark.parametrize("what", ["suite", "record", "row"])
def test_the_schemas_in_docs_are_what_the_command_prints(what):
    path = ROOT / "docs" / f"{what}.schema.json"
    assert path.read_text(encoding="utf-8") == printed(what), f"fxeval schema {what} > {path}"


@pytest.mark.parametrize("what", ["suite", "record", "row"])
def test_what_is_printed_is_a_json_schema(what):
    jsonschema.Draft202012Validator.check_schema(json.loads(printed(what)))
    assert (printed() == printed(what)) == (what == "suite")


@pytest.mark.skipif(not SUITES, reason="no suites beside an installed fxeval")
@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_every_shipped_suite_names_its_schema_and_fits_it(path):
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    assert first.startswith(MODELINE)
    schema = (path.parent / first.removeprefix(MODELINE)).resolve()
    assert schema == ROOT / "docs" / "suite.schema.json"
    VALIDATOR.validate(read(path).data)


FEW = "fxeval: 1\nsuite: mine\nextends: fxeval:quickstart\nmodels: [net]\nchecks: CHECKS\n"


@pytest.mark.parametrize(
    ("checks", "fits"),
    [
        ("[{id: a, steps: 9}]", True),
        ("[{id: a, kind: sanity.model_randomisation, limits: [LIMIT]}, {id: b, redraws: 3}]", True),
        ("[{id: a, limits: [LIMIT]}]", True),
        ("[{steps: 9}]", False),
        ("[{id: a, steps: 0}]", False),
        ("[{id: a, stps: 9}]", False),
        ("[]", False),
    ],
)
def test_only_a_suite_that_extends_leaves_out_checks_and_keys_of_checks(tmp_path, checks, fits):
    limit = "{metric: rank_correlation_fully_randomised, at_most: 0.4, severity: info}"
    text = FEW.replace("CHECKS", checks.replace("LIMIT", limit))
    assert (faults(tmp_path, text) == []) is fits
    assert faults(tmp_path, text.replace("extends: fxeval:quickstart\n", ""))
    without = text.partition("checks:")[0]
    assert faults(tmp_path, without) == []
    assert faults(tmp_path, without.replace("extends: fxeval:quickstart\n", ""))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("models: [net]", "models: [your_own, {use: another, params: {layer: null}}]"),
        ("fill: blur", "under: {fill: blur, fraction: 0.01}"),
        ("redraws: 2", "why: because"),
        ("checks:", "verification: {limits: [{metric: verification_eer, at_most: 0.1}]}\nchecks:"),
    ],
)
def test_a_good_suite_fits(tmp_path, old, new):
    assert faults(tmp_path, GOOD) == []
    assert faults(tmp_path, GOOD.replace(old, new)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fxeval: 1", "fxeval: 2"),
        ("title:", "titel:"),
        ("title: A suite", "title:"),
        ("confidence: 0.9", "confidence: 95"),
        ("models: [net]", "models: []"),
        ("models: [net]", "models: [a b]"),
        ("[net]", "[{use: net, n: 3}]"),
        ("sanity.model_randomisation", "sanity.model_randomization"),
        ("redraws: 2", "redraws: 21"),
        ("redraws: 2", "crossing_step: 9"),
        ("fills: [blur]", "fills: [blurr]"),
        ("metric: rank_correlation_fully_randomised", "metric: deletion_auc"),
        (", at_most: 0.4", ""),
        ("at_most: 0.4", "at_most: 0.4, at_least: 0"),
        ("at_most: 0.4", "at_most: 0.4, by: {absolute: 1}"),
        ("control.centre", "centre"),
        ("{absolute: 0.01}", "{}"),
        ("{absolute: 0.01}", "{absolute: 0, relative: 0}"),
        ("fill: blur", "fill: blur, under: {fill: blur}"),
        ("fill: blur", "under: {fill: true}"),
        ("[html]", "[html, html]"),
    ],
)
def test_a_mistake_that_an_editor_can_see_does_not_fit(tmp_path, old, new):
    assert GOOD.count(old) == 1
    assert faults(tmp_path, GOOD.replace(old, new))


def test_what_comes_with_fxeval_is_offered():
    schema = suite_schema()
    offered = {
        role: set(schema["$defs"][f"{role}Id"]["anyOf"][0]["enum"])
        for role in ("Model", "Explainer", "Pairs")
    }
    assert offered == {
        "Model": {"card", *SHIPPED_CARDS},
        "Explainer": set(explainers.SHIPPED),
        "Pairs": set(datasets.SHIPPED),
    }
    forms = [form["$ref"].rpartition("/")[2] for form in schema["$defs"]["Check"]["oneOf"]]
    for form, (kind, protocol) in zip(forms, CATALOGUE.items(), strict=True):
        check, limit = schema["$defs"][form], schema["$defs"][form.replace("Check", "Limit")]
        assert check["properties"]["kind"]["const"] == kind
        assert set(protocol.Parameters.model_fields) <= check["properties"].keys()
        metrics = [one["const"] for one in limit["properties"]["metric"]["oneOf"]]
        assert metrics == [metric.name for metric in protocol.METRICS]


def test_every_key_is_explained():
    schema = suite_schema()
    for name, form in (*schema["$defs"].items(), ("Suite", schema)):
        for key, entry in form.get("properties", {}).items():
            assert entry["description"].strip(), f"{name}.{key}"
    assert "x-fxeval" not in json.dumps(schema)
    assert list(schema["properties"]) == list(Suite.model_fields)


def test_every_form_of_limit_is_a_key_of_a_limit():
    assert set(FORMS) <= set(Limit.model_fields)
    forms = {key for one in suite_schema()["$defs"]["ModelRandomisationLimit"]["oneOf"]
             for key in one["required"]}  # fmt: skip
    assert forms == set(FORMS)
    assert set(check_forms()) == set(CATALOGUE)

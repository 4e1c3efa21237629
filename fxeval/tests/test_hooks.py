"""What plug-ins add: kinds of check and fills."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from pydantic import create_model

from fxeval.cli import main
from fxeval.errors import FxevalError
from fxeval.functional.fills import SHIPPED_FILLS, add_fills, fills
from fxeval.metrics import CATALOGUE, add_metrics, kinds
from fxeval.tests.protocols import retention
from fxeval.tests.world import CONFTEST

HOOKS = """

class Rest:
    def prepare(self, images):
        return images

    def apply(self, images, prepared, removed):
        kept = (~removed)[:, None]
        count = kept.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        return torch.where(kept, images, (images * kept).sum(dim=(2, 3), keepdim=True) / count)


def pytest_fxeval_fills():
    return {"rest": Rest()}


def pytest_fxeval_metrics():
    from fxeval.tests.protocols import retention_of_pairs

    return {"acme.retention": retention_of_pairs}
"""
SUITE = """
fxeval: 1
suite: own
models: [tiny]
explainers: [occlusion]
pairs: [{use: memory, n: 4}]
checks:
  - id: removal
    kind: faithfulness.deletion_insertion
    fills: [rest, blur]
    steps: 4
    limits: [{metric: deletion_auc, at_most: 0.99, fill: rest}]
  - id: retention
    kind: acme.retention
    limits: [{metric: METRIC, at_least: -9}]
"""


@pytest.fixture(autouse=True)
def nothing_added():
    yield
    add_fills({})
    add_metrics({})


def run(pytester, hooks=HOOKS, change=("", "")):
    metric = retention.METRICS[0].name
    pytester.makeconftest(CONFTEST + hooks)
    (pytester.path / "suites").mkdir(exist_ok=True)
    text = SUITE.replace("METRIC", metric).replace(*change)
    (pytester.path / "suites" / "own.yaml").write_text(text)
    return pytester.runpytest("suites/own.yaml", "--fx-threads=1")


def test_a_suite_uses_the_kinds_and_fills_of_a_plug_in(pytester):
    run(pytester)
    (path,) = pytester.path.glob("reports/*/own.json")
    removal, own = json.loads(path.read_text())["cells"]
    assert {one["under"]["fill"] for one in removal["estimates"]} == {"rest", "blur"}
    values = {
        one["under"]["fill"]: one["value"]
        for one in removal["estimates"]
        if (one["metric"], one["map"]) == ("deletion_auc", "explainer")
    }
    assert values["rest"] != values["blur"]
    assert own["kind"] == "acme.retention"
    assert own["n_pairs"] == removal["n_pairs"] == 4
    assert own["estimates"]
    assert (path.parent / "own.html").is_file()


def test_what_is_not_there_is_suggested_from_all_there_is(pytester):
    result = run(pytester, change=("kind: acme.retention", "kind: acme.retntion"))
    result.stdout.fnmatch_lines(["*did you mean 'acme.retention'*"])
    result = run(pytester, change=("[rest, blur]", "[rst, blur]"))
    result.stdout.fnmatch_lines(
        ["*'blur', 'mean', 'black', 'white', 'random', 'road' or 'rest', got 'rst'*"]
    )


def test_without_hooks_the_additions_of_an_earlier_run_are_gone(pytester):
    run(pytester)
    assert "rest" in fills()
    assert "acme.retention" in kinds()
    result = run(pytester, hooks="")
    result.stdout.fnmatch_lines(["*'kind' must be *got 'acme.retention'*"])
    assert kinds() == CATALOGUE
    assert fills() == SHIPPED_FILLS


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ("def pytest_fxeval_fills():\n    return [3]", "pytest_fxeval_fills: expected a mapping"),
        ("def pytest_fxeval_fills():\n    return {'blur': 3}", "fill 'blur': expected a new name"),
        ("def pytest_fxeval_metrics():\n    return {'acme.x': 3}", "got int without ROWS"),
    ],
)
def test_what_a_plug_in_gives_is_checked_before_the_suite_is_read(pytester, hooks, words):
    result = run(pytester, hooks=f"\n\n{hooks}\n")
    result.stdout.fnmatch_lines([f"*{words}*"])
    assert result.ret == 2
    assert not (pytester.path / "reports").exists()


def test_two_plug_ins_may_not_give_one_name(pytester):
    pytester.makepyfile(
        one="def pytest_fxeval_fills():\n    return {'rest': 1}",
        two="def pytest_fxeval_fills():\n    return {'rest': 2}",
    )
    pytester.syspathinsert()
    pytester.makeconftest(CONFTEST)
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "own.yaml").write_text(SUITE)
    result = pytester.runpytest("suites/own.yaml", "-p", "one", "-p", "two")
    result.stdout.fnmatch_lines(["*expected each name once, got rest twice*"])


def test_a_protocol_with_a_decision_measures_controls():
    decision = replace(retention.METRICS[0], is_decision=True)
    protocol = SimpleNamespace(ROWS=retention.ROWS, METRICS=(decision,), measure=retention.measure)
    protocol.Parameters = create_model("WithoutControls", fraction=(float, 0.2))
    with pytest.raises(FxevalError, match="expected a parameter 'controls' beside"):
        add_metrics({"acme.flip": protocol})
    protocol.Parameters = retention.Parameters
    add_metrics({"acme.flip": protocol})
    assert kinds()["acme.flip"] is protocol


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"SELF_CHECK": "likness"}, "expected 'likeness' or 'margin', got 'likness'"),
        ({"SELF_CHECK_WITH": {"stepz": 8}}, "expected parameters of the check, got 'stepz'"),
        ({"SELF_CHECK": "margin"}, "expected rows of the kind 'twins'"),
    ],
)
def test_what_a_protocol_says_of_its_self_check_is_checked(says, words):
    parts = {
        name: getattr(retention, name) for name in ("ROWS", "METRICS", "Parameters", "measure")
    }
    with pytest.raises(FxevalError, match=words):
        add_metrics({"acme.retention": SimpleNamespace(**parts, **says)})
    assert kinds() == CATALOGUE


@pytest.mark.parametrize(
    ("kind", "words"),
    [("sanity.model_randomisation", "new kind"), ("Own", "a kind such as"), ("own", "a kind such")],
)
def test_a_kind_has_a_name_of_its_own(kind, words):
    with pytest.raises(FxevalError, match=words):
        add_metrics({kind: retention})
    assert kinds() == CATALOGUE


SECTIONS = """

def pytest_fxeval_sections(record):
    rows = [[cell.id, str(cell.n_pairs)] for cell in record.cells]
    return [{"title": "Sizes <b>", "text": "How many.", "columns": ["cell", "n"], "rows": rows}]
"""


def test_a_section_is_kept_in_the_record_and_shown_by_report(pytester):
    result = run(pytester, hooks=HOOKS + SECTIONS)
    assert result.ret == 1  # four identities decide nothing
    (path,) = pytester.path.glob("reports/*/own.json")
    [section] = json.loads(path.read_text())["sections"]
    assert section["rows"] == [
        ["removal[tiny-occlusion-memory]", "4"], ["retention[tiny-occlusion-memory]", "4"],
    ]  # fmt: skip
    page = path.with_suffix(".html").read_text()
    assert "Sizes &lt;b&gt;</h3>" in page
    assert "Added by plug-ins" in page
    again = CliRunner().invoke(main, ["report", str(path.parent), "--out", "again"])
    assert (pytester.path / "again" / "own.html").read_text() == page, again.output


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('no')", "pytest_fxeval_sections: KeyError: 'no'"),
        ("return [{'title': 'x', 'rows': [['1']]}]", "expected 0 cells in each row, got 1"),
        ("return [{'text': 'x'}]", "title"),
        ("return 3", "TypeError"),
    ],
)
def test_a_section_that_fails_loses_nothing_else(pytester, body, words):
    hooks = f"{HOOKS}\n\ndef pytest_fxeval_sections(record):\n    {body}\n"
    result = run(pytester, hooks=hooks)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines([f"error: *{words}*"])
    (path,) = pytester.path.glob("reports/*/own.json")
    record = json.loads(path.read_text())
    assert record["sections"] == []
    assert len(record["cells"]) == 2
    assert "Added by plug-ins" not in path.with_suffix(".html").read_text()

"""What the README says is true: its commands run, its examples work."""

import json
import re
import shutil
from pathlib import Path

import pytest

from fxeval.tests.world import CONFTEST, SUITE

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="no README beside an installed fxeval")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def commands():
    """The two commands, as lists of the steps they consist of."""
    return [
        [step.strip() for step in block.replace("\\\n", " ").split("&&")]
        for block in blocks("bash")[:2]
    ]


def test_the_first_command_runs_the_quickstart_and_its_gates_hold(pytester):
    step = commands()[0][-1]
    assert step == ".venv/bin/pytest suites/quickstart.yaml"
    shutil.copytree(ROOT / "suites", pytester.path / "suites", ignore=shutil.ignore_patterns("__*"))
    result = pytester.runpytest_subprocess(*step.split()[1:])
    (path,) = pytester.path.glob("reports/*/quickstart.json")
    record = json.loads(path.read_text())
    outcomes = {cell["id"]: cell["verdict"] for cell in record["cells"]}
    assert result.ret == 0, outcomes
    assert record["verdict"]["outcome"] == "pass"
    assert "nothing about real faces" in record["banners"][0]
    controls = {limit["control"] for cell in record["cells"] for limit in cell["limits"]}
    assert {"random_blobs", "centre", "mean_map"} <= controls
    (page,) = pytester.path.glob("reports/*/quickstart.html")
    assert page.stat().st_size < 2_000_000


def test_the_second_command_is_the_one_that_ci_runs():
    steps = commands()[1]
    assert steps == ['.venv/bin/pip install -e ".[test,dlib]"', ".venv/bin/pytest"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'pip install --quiet -e ".[test,dlib]"' in script
    assert "python -m pytest" in script


def test_the_examples_of_ones_own_subjects_run(pytester):
    examples = "\n\n".join(blocks("python"))
    pytester.makeconftest(CONFTEST + "\n\n" + examples)
    (pytester.path / "suites").mkdir()
    ids = re.findall(r"^def (model|explainer|pairs)_(\w+)\(", examples, re.MULTILINE)
    names = dict(ids)
    assert set(names) == {"model", "explainer", "pairs"}
    text = SUITE.replace("EXPLAINERS", names["explainer"]).replace("tiny", names["model"])
    text = text.replace("memory, n: 32", f"{names['pairs']}, n: 32")
    (pytester.path / "suites" / "own.yaml").write_text(text)
    pytester.runpytest_subprocess("suites/own.yaml", "--fx-threads=1")
    (path,) = pytester.path.glob("reports/*/small.json")
    record = json.loads(path.read_text())
    assert {cell["verdict"]["outcome"] for cell in record["cells"]} <= {
        "pass",
        "fail",
        "inconclusive",
    }
    assert {cell["states"]["ok"] for cell in record["cells"]} == {32}


def test_every_file_the_readme_points_at_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (ROOT / link).exists(), link

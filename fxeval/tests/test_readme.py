"""The README's commands do what it says, and it stays short; test_docs.py runs its examples."""

import json
import re
import shutil
from pathlib import Path

import pytest

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
    controls = {limit["better_than"] for cell in record["cells"] for limit in cell["limits"]}
    assert {"control.random_blobs", "control.centre", "control.mean_map"} <= controls
    (page,) = pytester.path.glob("reports/*/quickstart.html")
    assert page.stat().st_size < 2_000_000
    [shown] = blocks("text")
    # A cell for information shows how its limit would have ended.
    line = r"^([A-Z]+) +(\S+) +(\S+) +(?:\(\w+\) +)?(-?[\d.]+) \["
    rows = re.findall(line, shown, re.MULTILINE)
    assert {(word.lower(), check, explainer) for word, check, explainer, _ in rows} == {
        (cell["verdict"]["outcome"], cell["check"], cell["explainer"]) for cell in record["cells"]
    }
    for _, check, explainer, value in rows:
        [cell] = [c for c in record["cells"] if (c["check"], c["explainer"]) == (check, explainer)]
        measured = [limit["estimate"]["value"] for limit in cell["limits"]]
        assert min(abs(one - float(value)) for one in measured) < 1e-3


def test_the_second_command_is_the_one_that_ci_runs():
    steps = commands()[1]
    assert steps == ['.venv/bin/pip install -e ".[test,dlib]"', ".venv/bin/pytest -n 2"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'pip install --quiet -e ".[test,dlib]"' in script
    assert "python -m pytest -n 2\n" in script


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150

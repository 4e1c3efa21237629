"""What the README says is true: its commands run, its examples work."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from fxeval import datasets
from fxeval.models import ARCHITECTURES
from fxeval.models.cards import read_card
from fxeval.suite import preflight
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
    controls = {limit["better_than"] for cell in record["cells"] for limit in cell["limits"]}
    assert {"control.random_blobs", "control.centre", "control.mean_map"} <= controls
    (page,) = pytester.path.glob("reports/*/quickstart.html")
    assert page.stat().st_size < 2_000_000


def test_the_second_command_is_the_one_that_ci_runs():
    steps = commands()[1]
    assert steps == ['.venv/bin/pip install -e ".[test,dlib]"', ".venv/bin/pytest"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'pip install --quiet -e ".[test,dlib]"' in script
    assert "python -m pytest" in script


def test_the_examples_of_ones_own_subjects_run(pytester):
    own = run_examples(pytester, "\n\n".join(blocks("python")))
    assert own["explainers"] == ["mine", "input_gradient"]
    record = own["record"]
    assert len(record["cells"]) == 4
    assert {cell["verdict"]["outcome"] for cell in record["cells"]} <= {
        "pass",
        "fail",
        "inconclusive",
    }
    assert {cell["states"]["ok"] for cell in record["cells"]} == {32}


@pytest.mark.oracle
@pytest.mark.parametrize("library", ["captum", "pytorch_grad_cam"])
def test_the_examples_of_adapters_run(pytester, library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is absent: run .ci/oracles")
    word = {"captum": "captum", "pytorch_grad_cam": "peer"}[library]
    parts = [part for block in blocks("py") for part in block.split("@pytest.fixture")]
    adapters = ["@pytest.fixture" + part for part in parts if f"def explainer_{word}" in part]
    assert adapters
    subjects = [block for block in blocks("python") if "def explainer" not in block]
    own = run_examples(pytester, "\n\n".join([STAND_IN, f"import {library}", *adapters, *subjects]))
    assert len(own["explainers"]) == len(adapters)
    for cell in own["record"]["cells"]:
        # On this tiny network some maps are constant; none may be missing or broken.
        assert set(cell["states"]) <= {"ok", "degenerate_map"}, cell["problems"]
        assert cell["states"]["ok"] >= 16


# pytorch-grad-cam imports torchvision, of which it needs nothing here.
STAND_IN = """
import sys
from types import ModuleType
for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
    try:
        __import__(name)
    except ImportError:
        stand_in = sys.modules[name] = ModuleType(name)
        stand_in.Compose = stand_in.Normalize = stand_in.ToTensor = stand_in.resize = None
"""
IMPORTS = """
from dataclasses import dataclass
from fxeval.contracts import ExplainerTraits, SaliencyMaps
from fxeval.explainers.adapters import from_captum, from_function, from_grad_cam
"""


def run_examples(pytester, examples):
    """Run the examples of explainers on the examples of a model and of pairs."""
    pytester.makeconftest(CONFTEST + IMPORTS + "\n\n" + examples)
    (pytester.path / "suites").mkdir()
    found = {"model": [], "explainer": [], "pairs": []}
    for role, name in re.findall(r"^def (model|explainer|pairs)_(\w+)\(", examples, re.MULTILINE):
        found[role].append(name)
    [model], [pairs] = found["model"], found["pairs"]
    text = SUITE.replace("EXPLAINERS", ", ".join(found["explainer"])).replace("tiny", model)
    (pytester.path / "suites" / "own.yaml").write_text(text.replace("memory, n", f"{pairs}, n"))
    pytester.runpytest_subprocess("suites/own.yaml", "--fx-threads=1")
    (path,) = pytester.path.glob("reports/*/small.json")
    return {"explainers": found["explainer"], "record": json.loads(path.read_text())}


def test_the_example_of_a_model_card_has_no_fault(tmp_path):
    [card] = [block for block in blocks("yaml") if block.startswith("card: 1")]
    (tmp_path / "acme.yaml").write_text(card)
    found = read_card(tmp_path / "acme.yaml")
    assert found.crop.name == "arcface112"
    assert found.architecture in ARCHITECTURES


def test_the_example_of_prepared_faces_names_what_there_is():
    [line] = [block for block in blocks("yaml") if block.startswith("pairs:")]
    params = re.search(r"params: \{(.*)\}\}", line).group(1).split(", ")
    assert (
        preflight.check_params("pairs", "identity_folders", dict(p.split(": ") for p in params))
        == []
    )
    documented = set(
        re.findall(
            r"`(\w+)`",
            README.read_text().partition("| id | reads |")[2].partition("Photographs")[0],
        )
    )
    assert set(datasets.SHIPPED) <= documented


def test_every_file_the_readme_points_at_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (ROOT / link).exists(), link

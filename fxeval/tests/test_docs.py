"""What README and docs say is true: blocks run, YAML is valid, commands, files and links exist."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import NamedTuple, get_args

import click
import pytest
import yaml

import fxeval
from fxeval import datasets, explainers
from fxeval.cli import main
from fxeval.contracts import Colour, SimilarityKind
from fxeval.datasets.faces.alignment import CROPS
from fxeval.datasets.faces.label_folder import read_classes
from fxeval.datasets.lists.tables import parse_csv_pairs
from fxeval.functional.controls import CONTROLS
from fxeval.metrics import CATALOGUE
from fxeval.models import ARCHITECTURES, cards
from fxeval.models.cards import read_card
from fxeval.records.acknowledged import read_acknowledged
from fxeval.suite import markdown as suite_page
from fxeval.suite import metric_table, preflight
from fxeval.suite.load import KnownIds, load
from fxeval.tests.test_layers import FLOORS

ROOT = Path(__file__).parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]

pytestmark = pytest.mark.skipif(not README.is_file(), reason="no docs beside an installed fxeval")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def file(self) -> str:
        """The file that the block is, by its first line."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named else "block.py"


def blocks_of(page):
    if not page.is_file():
        return []
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(page, text[: one.start()].count("\n") + 1, one[1], one[2]) for one in found]


def without_blocks(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(*languages):
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize(
        "block", chosen, ids=[f"{block.page.stem}:{block.line}" for block in chosen]
    )


def of_page(name):
    return (ROOT / name).read_text(encoding="utf-8")


# Python


@blocks("python", "py")
def test_a_block_imports_nothing_below_fxeval(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            assert not str(node.module).startswith("fxeval."), node.module
        if isinstance(node, ast.Import):
            assert not [one.name for one in node.names if one.name.startswith("fxeval.")]


@blocks("python")
def test_a_block_runs_as_it_stands(block, pytester):
    if block.file == "conftest.py":
        run_conftest(pytester, block.text)
        return
    for one in blocks_of(block.page):  # modules that the page shows before
        if one.language == "python" and one.file != "conftest.py" and one.line <= block.line:
            (pytester.path / one.file).write_text(one.text, encoding="utf-8")
    (pytester.path / block.file).write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, block.file], cwd=pytester.path, env=environment(), text=True,
        capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.oracle
@blocks("py")
def test_a_block_for_another_library_runs_as_it_stands(block, pytester):
    library = "pytorch_grad_cam" if "pytorch_grad_cam" in block.text else "captum"
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is absent: run .ci/oracles")
    run_conftest(pytester, STAND_IN + block.text)


def environment():
    """This process's environment, in which fxeval is found from any folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


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

SUITE = """\
fxeval: 1
suite: page
models: [MODEL]
explainers: [EXPLAINERS]
pairs: [{use: PAIRS, n: 4}]
verification: {floor: none} # the networks of the pages are not trained
checks:
  - id: deletion-insertion
    kind: faithfulness.deletion_insertion
    steps: 3
    fills: [mean]
    limits: [{metric: deletion_auc, at_most: 0.5}]
"""
USUAL = {
    "model": ["mini_resnet"],
    "explainer": ["{use: occlusion, params: {patch: 16, stride: 16}}"],
    "pairs": ["rendered"],
}


def run_conftest(pytester, text):
    """Run a small suite beside a conftest, on its fixtures, and on shipped subjects elsewhere."""
    pytester.makeconftest(text)
    named = {
        role: re.findall(rf"^def {role}_(\w+)\(", text, re.MULTILINE) or ids
        for role, ids in USUAL.items()
    }
    hooks = re.findall(r"^def pytest_fxeval_(\w+)\(", text, re.MULTILINE)
    assert named != USUAL or hooks, "a conftest without fixtures or hooks of fxeval"
    suite = SUITE.replace("MODEL", named["model"][0]).replace("PAIRS", named["pairs"][0])
    suite = suite.replace("EXPLAINERS", ", ".join(named["explainer"]))
    fill = re.search(r"def pytest_fxeval_fills\(\):\n    return {\"(\w+)\"", text)
    suite = suite.replace("mean", fill[1]) if fill else suite
    pytester.path.joinpath("page.yaml").write_text(suite)
    result = pytester.runpytest_subprocess("page.yaml", "--fx-threads=1")
    (path,) = pytester.path.glob("reports/*/page.json")
    record = json.loads(path.read_text())
    cells = record["cells"]
    assert bool(record["sections"]) == ("sections" in hooks)
    assert len(cells) == len(named["explainer"]), result.outlines
    for cell in cells:
        assert cell["verdict"]["outcome"] in {"pass", "fail", "inconclusive"}, cell["verdict"]
        assert cell["states"] == {"ok": 4}, cell["problems"]


# YAML and tables

SHIPPED = KnownIds(
    models=frozenset({"card", *preflight.SHIPPED_CARDS}),
    explainers=frozenset(explainers.SHIPPED),
    pairs=frozenset(datasets.SHIPPED),
)
AROUND_PAIRS = """\
fxeval: 1
suite: around
models: [mini_resnet]
explainers: [leam]
checks:
  - {id: c, kind: sanity.two_sided, limits: [{metric: repeat, at_least: 0.5}]}
"""


@blocks("yaml")
def test_a_block_of_yaml_has_no_fault(block, tmp_path):
    file = tmp_path / "block.yaml"
    file.write_text(block.text, encoding="utf-8")
    if block.text.startswith("card: 1"):
        card = read_card(file)
        assert card.crop.name in {"arcface112", "acme96"}
        assert card.architecture in ARCHITECTURES
    elif block.text.startswith("0: background"):
        assert not read_classes(file).unknown
    elif block.text.startswith("acknowledged: 1"):
        file.rename(tmp_path / "acknowledged.yaml")
        assert read_acknowledged(tmp_path, date(2026, 12, 1)).known
    elif "jobs:" in block.text:
        jobs = yaml.safe_load(block.text)["jobs"]
        assert all(job["steps"] for job in jobs.values())
    else:
        if block.text.startswith("pairs:"):
            file.write_text(AROUND_PAIRS + block.text, encoding="utf-8")
        assert load(file, SHIPPED, check_params=preflight.check_params).checks


@blocks("csv")
def test_a_table_of_pairs_is_read(block):
    assert [line.is_mated for line in parse_csv_pairs(block.text, "block")] == [True, False]


# commands

COMMAND = re.compile(r"(?:\S+/)?(?:fxeval|pytest|python -m fxeval\S*)(?: |$)")
PLACEHOLDERS = {"suites/mine.yaml"}


def commands():
    """Every command of a page: inline, in a shell block, and in a step of a workflow."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        lines = re.findall(r"(?<!`)`([^`]+)`(?!`)", without_blocks(text))
        for block in blocks_of(page):
            if block.language == "bash":
                lines += re.split(r"&&|\n", block.text.replace("\\\n", " "))
            if block.language == "yaml":
                lines += re.findall(r"- run: (.*)", block.text)
        lines = [" ".join(line.split()) for line in lines]
        found += [(page.name, line) for line in lines if COMMAND.match(line)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_and_its_options_exist(page, line, request):
    words = shlex.split(line, comments=True)
    program, words = Path(words[0]).name, words[1:]
    if program == "fxeval":
        check_click(words)
        return
    if program == "python":
        assert importlib.util.find_spec(words[1]) is not None
    for word in words if program == "pytest" else ():
        option = word.partition("=")[0]
        if option.startswith("--") and option != "--help":
            missing = object()
            assert request.config.getoption(option, missing) is not missing, option
    for word in words:
        path = word.partition("::")[0]
        if path.startswith(("suites/", "fxeval/", "docs/")) and path not in PLACEHOLDERS:
            assert (ROOT / path).exists(), path


def check_click(words):
    command = main
    while isinstance(command, click.Group) and words:
        assert words[0] in command.commands, words[0]
        command, words = command.commands[words[0]], words[1:]
    options = {name for one in command.params for name in one.opts}
    for word in words[: words.index("--")] if "--" in words else words:  # the rest is pytest's
        if word.startswith("-"):
            assert word.partition("=")[0] in options, word


def test_commands_of_all_kinds_are_found():
    found = [line for _, line in commands()]
    assert {line.split()[1] for line in found if line.startswith("fxeval ")} == {*main.commands}
    assert any(line.startswith("pytest ") for line in found)
    assert any(line.startswith("python -m fxeval") for line in found)
    with pytest.raises(AssertionError, match="--dota"):
        check_click(["check-model", "acme.yaml", "--dota", "DIR"])


# links and files


def links_of(page):
    text = without_blocks(page.read_text(encoding="utf-8"))
    return [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")]


def anchors_of(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in links_of(page):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


def test_every_page_is_reached_from_the_readme():
    reached, open_pages = {README}, [README]
    while open_pages:
        page = open_pages.pop()
        for link in links_of(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target not in reached:
                reached.add(target)
                open_pages.append(target)
    assert {page.resolve() for page in PAGES} <= {page.resolve() for page in reached}


def test_the_page_of_architecture_names_what_there_is():
    page = of_page("docs/architecture.md")
    assert len(page.splitlines()) <= 90
    for path in re.findall(r"`([\w.]+/[\w./]*)`", page):
        places = [ROOT / path, ROOT / "fxeval" / path]
        inner = [room / path for room in (ROOT / "fxeval").iterdir()]
        inner += [ROOT / "fixtures" / path]
        inner += [place.with_suffix(".py") for place in places]
        assert any(place.exists() for place in places + inner), path
    table = page.partition("## Rooms")[2].partition("## Where")[0]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    rooms = [set(re.findall(r"`(\w+)/?`", cell)) for cell in first]
    floors = [set(floor.split()) for floor in FLOORS if floor != "__main__"]
    assert rooms == [*floors, {"tests"}, {"fixtures"}, {"suites"}]


# what comes with fxeval


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/explainers.md", explainers.SHIPPED),
        ("docs/models.md", preflight.SHIPPED_CARDS),
        ("docs/data.md", datasets.SHIPPED),
        ("docs/method.md", CONTROLS),
        ("docs/method.md", CATALOGUE),
    ],
)
def test_a_page_names_all_that_is_shipped(page, names):
    assert set(names) <= set(re.findall(r"`([\w.]+)`", of_page(page)))


def test_the_page_of_models_names_every_key_of_a_card_and_every_value_that_has_a_name():
    forms = (cards.Keys, cards.State, cards.Claim, cards.Golden)
    keys = [key for form in forms for key in form.model_fields]
    keys += [*get_args(cards.Runtime), *get_args(cards.Layout), *CROPS]
    keys += [*get_args(Colour), *get_args(SimilarityKind)]
    keys += [one for one in get_args(cards.Format) if one != "torch_export"]  # refused
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    keys += [f"fxeval[{extra}]" for extra in project["optional-dependencies"]]
    page = of_page("docs/models.md")
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_the_table_of_families_says_what_the_cards_say():
    table = of_page("docs/models.md").partition("| `family` | trained on real faces")[2]
    shown = {
        (*re.findall(r"`(\w+)`", cell), family, data)
        for family, real, synthetic in re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|$", table, re.M)
        for data, cells in (("real", real), ("synthetic", synthetic))
        for cell in cells.split(",")
        if cell.strip()
    }
    tags = {id: read_card(card).tags for id, card in preflight.SHIPPED_CARDS.items()}
    assert shown == {(id, one.family, one.training_data) for id, one in tags.items()}


def test_the_page_of_the_library_names_all_that_is_public():
    table = of_page("docs/library.md").partition("## A check")[0]
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert named == set(fxeval.__all__)


def test_the_format_of_a_suite_is_up_to_date():
    page = of_page("docs/suite-format.md")
    assert suite_page.page() == page, "run python -m fxeval.suite.markdown docs/suite-format.md"
    for form in suite_page.suite_schema()["$defs"].values():
        for key in form.get("properties", {}):
            assert f"`{key}`" in page


def test_the_table_of_metrics_is_up_to_date_and_names_every_one():
    page = of_page("docs/metrics.md")
    assert metric_table.page() == page, "run python -m fxeval.suite.metric_table docs/metrics.md"
    table = page.partition("|---|")[2]
    for kind, protocol in CATALOGUE.items():
        for metric in protocol.METRICS:
            assert table.count(f"\n| `{kind}` | `{metric.name}` | {protocol.ROWS} |") == 1


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(of_page("CITATION.cff"))
    assert citation["version"] == fxeval.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"]

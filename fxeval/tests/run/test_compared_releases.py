"""The releases of an explainer through ``fxeval compare`` and ``fxeval ab``: the gate's answers."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.releases import BASELINE, MARGIN, SHARES, WORLD, suite
from fxeval.tests.versions.checkouts import run as git

STORY = {
    "equal": ({"deletion": "same", "insertion": "same"}, "not_worse", 0),
    "slightly worse": ({"deletion": "not_worse", "insertion": "not_worse"}, "not_worse", 0),
    "worse": ({"deletion": "worse", "insertion": "not_worse"}, "worse", 1),
    "of 20 people": ({"deletion": "undecided", "insertion": "undecided"}, "undecided", 2),
}
"""By release: outcome of each cell, of all, and exit status."""

WORDS = "same|better|not worse|worse|undecided|not compared"


def in_terminal(text):
    """Return the outcome of all and of each cell, as the terminal shows them."""
    rows = re.findall(rf"^({WORDS.upper()}) +(deletion|insertion) ", text, re.M)
    return re.search(rf"^({WORDS.upper()})  gate: ", text, re.M)[1].lower(), {
        cell: word.lower() for word, cell in rows
    }


def in_markdown(text):
    rows = re.findall(rf"^\| \*{{0,2}}({WORDS})\*{{0,2}} \| (deletion|insertion) \|", text, re.M)
    head = re.search(rf"^## ({WORDS.upper()}): gate", text, re.M)[1]
    return head.lower(), {cell: word for word, cell in rows}


def on_the_page(text):
    """Return the outcome of all, and the cells that its head says are worse."""
    plain = " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", text, flags=re.S).split())
    head = re.search(rf"gate ({WORDS.upper()}) (.*?) What decided it", plain)
    return head[1].lower(), {*re.findall(r"(\w+)\[tiny-ours-memory\]", head[2])}


def check_views(name, terminal, markdown, page):
    cells, outcome, _ = STORY[name]
    expected = {cell: word.replace("_", " ") for cell, word in cells.items()}
    word = outcome.replace("_", " ")
    assert in_terminal(terminal) == (word, expected)
    assert in_markdown(markdown) == (word, expected)
    assert on_the_page(page) == (word, {cell for cell in cells if cells[cell] == "worse"})


def measured(pytester, side, share, people):
    """Measure a release; return the folder of its run."""
    (pytester.path / "noise.txt").write_text(str(share))
    (pytester.path / "gate.yaml").write_text(suite(people))
    pytester.runpytest_inprocess("gate.yaml", "--fx-threads=1", f"--fx-reports={side}")
    (folder,) = pytester.path.glob(f"{side}/*")
    return folder


@pytest.mark.parametrize("name", STORY)
def test_two_releases_compared_have_the_answer_of_the_gate_in_every_view(
    pytester, monkeypatch, name
):
    monkeypatch.setenv("COLUMNS", "160")
    cells, outcome, status = STORY[name]
    pytester.makeconftest(WORLD)
    first = measured(pytester, "first", BASELINE, 32)
    people = 20 if "20" in name else 32
    later = measured(pytester, "later", SHARES.get(name, BASELINE), people)
    files = "--json=c.json", "--html=c.html", "--markdown=c.md"
    done = CliRunner().invoke(main, ["compare", str(first), str(later), *files])
    assert done.exit_code == status, done.output
    (found,) = json.loads(Path("c.json").read_text())
    assert found["outcome"] == outcome
    changes = {one["cell"].partition("[")[0]: one for one in found["changes"]}
    assert {cell: one["outcome"] for cell, one in changes.items()} == cells
    assert all(one["within"] == {"absolute": MARGIN} for one in changes.values())
    check_views(name, done.output, Path("c.md").read_text(), Path("c.html").read_text())


@pytest.mark.parametrize(
    "name",
    [
        "worse",
        "of 20 people",
        pytest.param("slightly worse", marks=pytest.mark.slow),
        pytest.param("equal", marks=pytest.mark.slow),
    ],
)
def test_two_versions_in_git_have_the_answer_of_the_gate_in_every_view(tmp_path, monkeypatch, name):
    _, _, status = STORY[name]
    checkout, temporary = tmp_path / "checkout", tmp_path / "temporary"
    (checkout / "suites").mkdir(parents=True)
    temporary.mkdir()
    people = 20 if "20" in name else 32
    files = {
        "conftest.py": WORLD,
        "noise.txt": str(BASELINE),
        "suites/gate.yaml": suite(people, other="base"),
    }
    for path, text in files.items():
        (checkout / path).write_text(text)
    git(checkout, "init", "--initial-branch", "main")
    git(checkout, "add", "."), git(checkout, "commit", "-m", "version 1")
    git(checkout, "checkout", "-b", "change")
    (checkout / "noise.txt").write_text(f"{SHARES.get(name, BASELINE)}\n")
    git(checkout, "commit", "-am", "the next version")

    monkeypatch.chdir(checkout)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("COLUMNS", "200")
    for variable in ("FXEVAL_DATA", "GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(variable, raising=False)
    done = CliRunner().invoke(main, ["ab", "--markdown=ab.md", "--", "--fx-threads=1", "-q"])
    assert done.exit_code == status, done.output
    (folder,) = checkout.glob("reports/ab-*")
    check_views(
        name, done.output, (checkout / "ab.md").read_text(), (folder / "ab.html").read_text()
    )

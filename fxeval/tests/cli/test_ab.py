"""``fxeval ab`` on repositories that the tests make: a small world whose explainer changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from fxeval.cli import ab, main
from fxeval.tests.versions.checkouts import run as git
from fxeval.tests.versions.checkouts import state
from fxeval.tests.world import CONFTEST

SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7}
models: [tiny]
explainers: [mine]
pairs: [{use: memory, n: 32}]
verification: {floor: none}
checks:
  - id: deletion
    kind: faithfulness.deletion_insertion
    steps: 8
    fills: [mean]
    controls: [random_blobs]
    limits:
      - {metric: deletion_auc, at_most: 0.998}
      - {metric: deletion_auc, better_than: control.random_blobs}
"""
CELL = "deletion[tiny-mine-memory]"
WORLD = f"""{CONFTEST}

@pytest.fixture
def explainer_mine():
    from toy import maps
    return Explain(lambda m, p, r, g: maps.SIGN * occlusion(m, p, r, g))
"""
FILES = {
    "conftest.py": WORLD,
    "src/toy/__init__.py": "",
    "src/toy/maps.py": "SIGN = 1\n",
    "suites/small.yaml": SUITE,
}


@dataclass
class Checkout:
    """A repository on a branch that left main, and the place of temporary files."""

    folder: Path

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self):
        git(self.folder, "add", "."), git(self.folder, "commit", "-m", "a change")

    def ab(self, *arguments):
        """Run the command in the repository; return its status and what it printed."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(tempfile, "tempdir", str(self.folder.parent / "temporary"))
            patch.setenv("COLUMNS", "200")
            for name in ("FXEVAL_DATA", "GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS"):
                patch.delenv(name, raising=False)
            done = CliRunner().invoke(main, ["ab", *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    @property
    def made(self):
        """Return the folder of the last comparison."""
        return sorted(self.folder.glob("reports/ab-*"))[-1]


def checkout_in(folder):
    made = Checkout(folder / "a check out")
    made.folder.mkdir(), (folder / "temporary").mkdir()
    git(made.folder, "init", "--initial-branch", "main")
    for name, text in FILES.items():
        made.write(name, text)
    made.commit()
    git(made.folder, "checkout", "-b", "change")
    return made


@pytest.fixture
def checkout(tmp_path):
    return checkout_in(tmp_path)


@pytest.fixture(scope="module")
def worse(tmp_path_factory):
    """A comparison of a change that turns the maps upside down: status, output, checkout."""
    made = checkout_in(tmp_path_factory.mktemp("worse"))
    made.write("src/toy/maps.py", "SIGN = -1\n")
    before = state(made.folder)
    found = made.ab("--markdown", "said.md", "--", "--fx-threads=1", "-q")
    shutil.move(made.folder / "said.md", made.folder.parent / "said.md")
    shutil.move(made.folder / "reports", made.folder.parent / "reports")
    assert state(made.folder) == before
    shutil.move(made.folder.parent / "reports", made.folder / "reports")
    return *found, made


def measured_before(worse, monkeypatch, edit=lambda data: None):
    """Compare the runs that were measured, after the head's record was edited."""
    _, _, made = worse
    runs = {name: next((made.made / name).iterdir()) for name in ("base", "head")}
    copy = Path(shutil.copytree(runs["head"], made.folder.parent / "copies/x", dirs_exist_ok=True))
    data = json.loads((copy / "small.json").read_text())
    edit(data)
    (copy / "small.json").write_text(json.dumps(data))
    module = sys.modules[ab.callback.__module__]
    monkeypatch.setattr(module, "_run_sides", lambda *_: {**runs, "head": copy})
    return made.ab("--reports", made.folder.parent / "again")


def test_a_change_for_the_worse_is_found_and_its_cell_named(worse):
    status, output, made = worse
    assert status == 1, output
    shown = "".join(one for one in output.splitlines() if not one.startswith(("base |", "head |")))
    for text in (shown, *((made.made / f"ab.{suffix}").read_text() for suffix in ("md", "html"))):
        assert CELL in text.replace("\\", "")  # Markdown escapes brackets
        assert "deletion_auc" in text.replace("\\", "")
    assert (made.folder.parent / "said.md").read_text() == (made.made / "ab.md").read_text()


def test_each_side_says_what_it_is_and_what_it_prints(worse):
    _, output, made = worse
    commit = git(made.folder, "rev-parse", "HEAD")
    lines = output.splitlines()
    assert lines[0] == f"base: {commit[:10]}, from which it left main"
    assert lines[1] == f"head: the working tree: {commit[:10]} with changes"
    assert [line for line in lines if line.startswith("base | ") and "PASS" in line]
    assert [line for line in lines if line.startswith("head | ") and "FAIL" in line]


def test_the_records_tell_both_versions_apart(worse):
    _, _, made = worse
    sides = {}
    for name in ("base", "head"):
        (path,) = (made.made / name).glob("*/small.json")
        sides[name] = json.loads(path.read_text())["environment"]
    commit = git(made.folder, "rev-parse", "HEAD")
    assert {name: (side["commit"], side["dirty"]) for name, side in sides.items()} == {
        "base": (commit, False), "head": (commit, True),
    }  # fmt: skip


def test_nothing_is_left_but_reports(worse):
    _, _, made = worse
    assert {path.name for path in made.made.iterdir()} == {"base", "head", "ab.md", "ab.html"}
    assert [*(made.folder.parent / "temporary").iterdir()] == []


def test_the_same_runs_give_the_same_finding_again(worse, monkeypatch):
    assert measured_before(worse, monkeypatch)[0] == 1


def test_another_model_or_other_images_cannot_be_compared(worse, monkeypatch):
    def another_model(data):
        data["subjects"]["models"]["tiny"]["digest"] = "b" * 64

    def other_images(data):
        data["subjects"]["pairs"]["memory"]["digest"] = "c" * 64

    for edit, said in ((another_model, "model tiny is another: digest "),
                       (other_images, "pairs memory have other images: digest ")):  # fmt: skip
        status, output = measured_before(worse, monkeypatch, edit)
        assert status == 2
        assert "CANNOT SAY: base and head did not measure the same" in output
        assert said in output


def test_a_run_without_rows_is_named_with_its_side(worse, monkeypatch):
    _, _, made = worse
    shutil.rmtree(made.folder.parent / "copies", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "copytree", lambda source, target, **_: _record_alone(source, target))
        status, output = measured_before(worse, monkeypatch)
    shutil.rmtree(made.folder.parent / "copies")
    assert status == 2
    assert "CANNOT SAY: head: no cell was measured; its output stands above." in output


def _record_alone(source, target):
    target.mkdir(parents=True)
    return shutil.copyfile(source / "small.json", target / "small.json").parent


def test_an_equal_change_is_not_worse_and_the_head_decides_what_is_asked(checkout):
    checkout.write("suites/small.yaml", SUITE.replace("0.998", "0.999"))
    checkout.commit()
    checkout.write("src/toy/maps.py", "SIGN = 1 + 0\n")
    checkout.write("notes.py", "untracked"), checkout.write("data/mine.csv", "untracked")
    git(checkout.folder, "checkout", "--detach")
    status, output = checkout.ab("--suite-from", "head", "--link", "data", "--", "--fx-threads=1")
    assert status == 0, output
    assert "without files that are untracked: notes.py; git add them" in output
    assert ("suites/small.yaml: base and head differ in check 'deletion' (limits); both sides are "
            "asked what head asks") in output  # fmt: skip
    for name in ("base", "head"):
        (path,) = (checkout.made / name).glob("*/small.json")
        (limit, _) = json.loads(path.read_text())["cells"][0]["limits"]
        assert limit["at_most"] == 0.999


def test_a_side_that_cannot_be_imported_is_named(checkout):
    git(checkout.folder, "checkout", "main")
    checkout.write("conftest.py", f"{WORLD}\ndef (:\n"), checkout.commit()
    checkout.write("conftest.py", WORLD)
    status, output = checkout.ab()
    assert status == 2
    assert "SyntaxError" in output
    assert "CANNOT SAY: base: pytest was used wrongly (exit status 4)" in output
    assert "head | " not in output


def test_a_suite_that_differs_is_refused_before_anything_is_measured(checkout):
    checkout.write("suites/small.yaml", SUITE.replace("0.998", "0.999"))
    status, output = checkout.ab()
    assert status == 64
    assert "suites/small.yaml: base and head differ in check 'deletion' (limits)." in output
    assert "base | " not in output
    assert not (checkout.folder / "reports").exists()
    assert [*(checkout.folder.parent / "temporary").iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base", "nowhere"], "expected a commit, tag or branch that git knows, got 'nowhere'"),
        (["--head", "nowhere"], "expected a commit, tag or branch that git knows, got 'nowhere'"),
        (["--base", "HEAD", "--link", "nowhere"], "--link nowhere: expected a file or folder"),
        (["--within", "x"], "--within x: expected a number"),
        (["--within", "deletion=0.1", "--base", "HEAD"], "--within deletion: expected a metric"),
        (["suites/absent.yaml", "--base", "HEAD"], "suites/absent.yaml: expected a suite"),
        (["--", "--fx-reports=x"], "-- --fx-reports=x: the command decides that itself"),
        (["--", "-q", "--fx-reports", "x"], "-- --fx-reports: the command decides that itself"),
        (["--suite-from", "both"], "'both' is not one of"),
        ([], "expected a change, got"),
    ],
)
def test_a_wrong_usage_has_its_own_status(checkout, arguments, said):
    status, output = checkout.ab(*arguments)
    assert status == 64
    assert said in " ".join(output.split())


def test_outside_a_checkout_it_says_so(checkout):
    shutil.rmtree(checkout.folder / ".git")
    status, output = checkout.ab()
    assert status == 64
    assert "not a git repository" in output


def test_a_suite_may_be_named_by_its_whole_path_and_from_a_folder(checkout):
    checkout.write("src/toy/maps.py", "SIGN = -1\n")
    checkout.write("part/suites/small.yaml", SUITE), git(checkout.folder, "add", "part")
    for asked in (checkout.folder / "part/suites/small.yaml", "part"):
        status, output = checkout.ab(asked)
        assert status == 64
        assert "part/suites/small.yaml: only head has it." in output


def test_code_that_is_not_the_versions_own_decides_nothing(checkout):
    """As with an editable install of a package outside src/: both sides run the user's files."""
    for name in ("__init__.py", "maps.py"):
        checkout.write(f"lib/deep/toy/{name}", FILES[f"src/toy/{name}"])
    git(checkout.folder, "rm", "-r", "-q", "src")
    installed = f"import sys\nsys.path.append({str(checkout.folder / 'lib/deep')!r})\n"
    checkout.write("conftest.py", installed + WORLD), checkout.commit()
    checkout.write("lib/deep/toy/maps.py", "SIGN = -1\n")
    status, output = checkout.ab("--base", "HEAD", "--", "--fx-threads=1")
    assert status == 2, output
    own = checkout.folder / "lib/deep/toy/maps.py"
    assert (
        f"CANNOT SAY: base: expected its own version of lib/deep/toy/maps.py, got that of {own}"
        in output
    ), output
    assert "head | " not in output


STARTED = "base | "


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_leaves_no_worktree_and_decides_nothing(checkout):
    checkout.write("src/toy/maps.py", "import time\ntime.sleep(60)\nSIGN = 1\n")
    before = state(checkout.folder)
    temporary = checkout.folder.parent / "temporary"
    process = subprocess.Popen(
        [sys.executable, "-m", "fxeval", "ab", "--base", "HEAD"], cwd=checkout.folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    while not process.stdout.readline().startswith(STARTED):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "CANNOT SAY: stopped before there was an outcome." in said
    shutil.rmtree(checkout.folder / "reports", ignore_errors=True)
    assert state(checkout.folder) == before
    assert [*temporary.iterdir()] == []


def test_being_asked_to_stop_is_like_ctrl_c():
    module = sys.modules[ab.callback.__module__]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), module._stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before

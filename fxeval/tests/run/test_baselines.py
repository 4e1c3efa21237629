"""Whole runs that are compared with a named baseline."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from fxeval.cli import main
from fxeval.tests.versions.test_git import run as git

SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7}
models: [tiny]
explainers: [quick]
pairs: [{use: memory, n: 32}]
checks:
  - id: deletion
    kind: faithfulness.deletion_insertion
    steps: 2
    fills: [mean]
    controls: [random_blobs]
    limits:
      - {metric: deletion_auc, not_worse_than: baseline, within: {absolute: 0.0001}}
      - {metric: insertion_auc, at_least: -0.9}
report: {formats: [html, json, markdown]}
"""
MORE = """

@pytest.fixture
def explainer_quick():
    return Explain(lambda m, p, r, g: occlusion(m, p, r, g, 8))
"""
WORSE = MORE.replace("g: occl", "g: -occl")


@pytest.fixture
def run(world, monkeypatch):
    """Run the suite; returns what pytest said, and the record."""
    monkeypatch.delenv("GITHUB_BASE_REF", raising=False)
    conftest = world.path / "conftest.py"
    first = conftest.read_text()

    def once(*args, explainer=MORE, edit=lambda text: text):
        conftest.write_text(first + explainer)
        for old in world.path.glob("reports/*"):
            shutil.rmtree(old)
        result = world("-p", "no:cacheprovider", *args, edit=lambda _: edit(SUITE))
        found = [json.loads(path.read_text()) for path in world.path.glob("reports/*/*.json")]
        return result, found[0] if found else None

    once.world = world
    return once


@pytest.fixture
def based(run):
    """A run that is the baseline ``main``."""
    run()
    assert set_baseline(run.world, "main").exit_code == 0
    return run


def set_baseline(world, name, *more):
    (folder,) = world.path.glob("reports/*")
    return CliRunner().invoke(
        main, ["baseline", "set", name, str(folder), "--allow-dirty",
               "--baselines", str(world.path / "baselines"), *more],
    )  # fmt: skip


def test_a_run_is_compared_with_a_named_baseline(based):
    result, record = based("--fx-baseline=main")
    assert result.ret == 0, result.stdout.str()
    (cell,) = record["cells"]
    assert cell["verdict"]["outcome"] == "pass"
    assert cell["baseline"]["name"] == "main"
    assert cell["baseline"]["days"] == 0
    (remark,) = [one for one in cell["remarks"] if one.startswith("baseline: ")]
    assert "32 rows; baseline main, set on 20" in remark
    assert ", 0 days before this run" in remark
    (one,) = record["regressions"]["tested"]
    assert one["headroom"]["value"] == pytest.approx(0.0001)
    age = f"baseline main: run {cell['baseline']['run']}, set on {cell['baseline']['set_on']}, "
    room = "headroom 1.0e-04 [1.0e-04, 1.0e-04], deletion[tiny-quick-memory]: deletion_auc not "
    result.stdout.fnmatch_lines(
        [f"compared  {age}0 days before this run", "compared  " + glob(room) + "*"]
    )
    (page,), (summary,) = (run_files(based.world, name) for name in ("html", "md"))
    for text in (page, summary.replace("\\", "")):
        assert f"{age}0 days before this run" in text
        assert "1.0e−04 [1.0e−04, 1.0e−04]" in text


def glob(text):
    return text.replace("[", "[[]")


def run_files(world, suffix):
    return [path.read_text() for path in world.path.glob(f"reports/*/small.{suffix}")]


def limit_of(record):
    return next(one for one in record["cells"][0]["limits"] if one["not_worse_than"])


def other_class(path):
    data = json.loads(path.read_text())
    data["pointers"] = {"abacus": data["pointers"].popitem()[1]}
    path.write_text(json.dumps(data))


def other_suite(path):
    """Nothing is changed: the suite of the run is another one."""


def damaged(path):
    (rows,) = path.parent.glob("runs/*/rows.jsonl")
    rows.write_text(rows.read_text()[:-1])


def absent(path):
    shutil.rmtree(path.parent / "runs")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_class, "baseline main has no run of the hardware class"),
        (other_suite, "it is of the suite small, this is other"),
        (damaged, "rows.jsonl: damaged: its digest is not the one that the baseline names"),
        (absent, "small.json: expected a file, got nothing there"),
    ],
)
def test_what_cannot_be_compared_is_inconclusive_with_the_reason(based, change, said):
    change(based.world.path / "baselines" / "main.json")
    is_other = change is other_suite
    name = "suite: other" if is_other else "suite: small"
    result, record = based(
        "--fx-baseline=main", edit=lambda text: text.replace("suite: small", name)
    )
    assert result.ret == 1
    assert record["cells"][0]["verdict"]["outcome"] == "inconclusive"
    assert said in limit_of(record)["verdict"]["reason"]
    assert str(based.world.path) not in json.dumps(record)


def test_a_run_given_as_a_folder_is_compared_on_its_own_class_only(based):
    (path,) = based.world.path.glob("baselines/runs/*/small.json")
    path.write_text(path.read_text().replace('"capability": "', '"capability": "of an abacus, '))
    _, record = based("--fx-baseline", str(path.parent))
    assert "it was made on another hardware class: " in limit_of(record)["verdict"]["reason"]


def test_a_name_that_does_not_exist_stops_before_anything_is_measured(based):
    result, record = based("--fx-baseline=mian")
    assert (result.ret, record) == (2, None)
    result.stdout.fnmatch_lines(
        ["*--fx-baseline mian: expected *(known: main). Set one with: fxeval baseline set mian RUN"]
    )
    (based.world.path / "main").mkdir()
    result, record = based("--fx-baseline=main")
    assert (result.ret, record) == (2, None)
    result.stdout.fnmatch_lines(["*Write ./main for the path."])
    (based.world.path / "baselines" / "main.json").write_text("{")
    (based.world.path / "main").rmdir()
    result, record = based("--fx-baseline=main")
    assert (result.ret, record) == (2, None)
    result.stdout.fnmatch_lines(["*main.json: not a valid baseline: *"])


def test_the_folder_of_the_baselines_can_be_another(based):
    (based.world.path / "baselines").rename(based.world.path / "kept")
    result, record = based("--fx-baseline=main", "--fx-baselines=kept")
    assert result.ret == 0
    assert record["cells"][0]["baseline"]["name"] == "main"


@pytest.fixture
def branch(based):
    """A change that starts from a main branch with the baseline."""
    path = based.world.path
    (path / ".gitignore").write_text("__pycache__\n")
    (path / "code.py").write_text("1")
    git(path, "init", "--initial-branch", "main")
    git(path, "add", ".", ":!reports"), git(path, "commit", "-m", "first")
    git(path, "checkout", "-b", "change")
    return based


def remark_of(record):
    (found,) = [one for one in record["cells"][0]["remarks"] if one.startswith("baseline: ")]
    return found


def test_a_baseline_that_is_moved_alone_is_compared_with_and_said(branch):
    result, record = branch("--fx-baseline=main")
    assert result.ret == 0
    assert "change" not in remark_of(record)
    assert set_baseline(branch.world, "main", "--reason", "again").exit_code == 0
    result, record = branch("--fx-baseline=main")
    assert result.ret == 0
    assert remark_of(record).endswith(
        "; this change moves the baseline, and nothing else, since main"
    )


def test_a_baseline_that_is_moved_together_with_code_stops_the_run(branch, monkeypatch):
    assert set_baseline(branch.world, "main", "--reason", "again").exit_code == 0
    (branch.world.path / "code.py").write_text("2")
    result, record = branch("--fx-baseline=main")
    assert (result.ret, record) == (2, None)
    result.stdout.fnmatch_lines(
        [
            "*baseline main: this change moves the baseline that it is compared with: "
            "baselines/main.json differs from main, and so does code.py. Move the baseline in a "
            "change of its own, which touches nothing else."
        ]
    )
    git(branch.world.path, "branch", "origin/release")  # where a server says what it merges into
    monkeypatch.setenv("GITHUB_BASE_REF", "release")
    result, record = branch("--fx-baseline=main")
    assert (result.ret, record) == (2, None)
    result.stdout.fnmatch_lines(["*baselines/main.json differs from origin/release, *"])


def test_where_git_cannot_say_whether_a_baseline_is_moved_that_is_said(branch, monkeypatch):
    monkeypatch.setenv("GITHUB_BASE_REF", "nowhere")
    result, record = branch("--fx-baseline=main")
    assert result.ret == 0
    assert "whether this change moves the baseline was not checked: git merge-base HEAD " in (
        remark_of(record)
    )
    monkeypatch.delenv("GITHUB_BASE_REF")
    shutil.rmtree(branch.world.path / ".git")
    _, record = branch("--fx-baseline=main")
    assert "was not checked: git rev-parse --show-toplevel: fatal: not a git repo" in (
        remark_of(record)
    )


# Acknowledged regressions

CELL = "deletion[tiny-quick-memory]"


def acknowledge(world, *more, cell=CELL, days=30):
    until = (datetime.now(UTC) + timedelta(days=days)).date().isoformat()
    result = CliRunner().invoke(
        main, ["baseline", "ack", cell, "deletion_auc", "--suite", "small", "--until", until,
               "--reason", "it *blurs* more", "--baselines", str(world.path / "baselines"), *more],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return until


def edit_entries(world, old, new):
    path = world.path / "baselines" / "acknowledged.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_regression_fails_and_an_acknowledged_one_passes_and_every_view_says_so(based):
    result, record = based("--fx-baseline=main", explainer=WORSE)
    assert result.ret == 1
    assert limit_of(record)["verdict"]["outcome"] == "fail"
    until = acknowledge(based.world, "--by", "Ann")
    result, record = based(
        "--fx-baseline=main", "--junitxml=junit.xml", "-W", "default", explainer=WORSE
    )
    assert result.ret == 0, result.stdout.str()
    (cell,) = record["cells"]
    assert (cell["verdict"]["outcome"], limit_of(record)["verdict"]["outcome"]) == ("pass", "fail")
    why = f"acknowledged until {until} by Ann: it *blurs* more"
    assert why in cell["verdict"]["reason"]
    assert "1 of them acknowledged" in record["regressions"]["text"]
    word = f"fail (acknowledged until {until})"
    result.stdout.fnmatch_lines([f"*PytestWarning: {glob(CELL)}: {word}: *{why}"])
    result.stdout.fnmatch_lines([f"warning  {glob(CELL)}: {word}: *{why}"])
    (page,), (summary,) = (run_files(based.world, name) for name in ("html", "md"))
    assert f"(acknowledged until {until}) critical: " in page
    assert "holds, but for fails that are acknowledged." in page
    assert f"- **{word}** " in summary
    assert "it \\*blurs\\* more" in summary
    assert f"{word}: " in (based.world.path / "junit.xml").read_text()
    (folder,) = based.world.path.glob("reports/*")
    again = CliRunner().invoke(main, ["report", str(folder), "--out", str(folder / "again")])
    assert again.exit_code == 0, again.output
    (before, after) = (one / "small.json" for one in (folder, folder / "again"))
    assert before.read_text() == after.read_text()
    shown = CliRunner().invoke(
        main, ["baseline", "show", "main", "--against", str(folder), "--baselines",
               str(based.world.path / "baselines")],
    )  # fmt: skip
    assert f"acknowledged, active: small: {CELL}: deletion_auc, until {until} by Ann" in (
        shown.output
    )


def test_an_acknowledged_regression_that_passes_again_makes_the_cell_invalid(based):
    acknowledge(based.world)
    result, record = based("--fx-baseline=main")
    assert result.ret == 1
    assert record["cells"][0]["verdict"]["outcome"] == "invalid"
    result.stdout.fnmatch_lines(
        ["*acknowledged regression passes again: deletion_auc: remove it from *"
         "acknowledged.yaml:4:5*"]
    )  # fmt: skip


def test_an_acknowledgement_that_names_nothing_stops_the_suite_and_another_suite_is_let_be(based):
    acknowledge(based.world, cell="deletion[tiny-quick-people]")
    result, record = based("--fx-baseline=main")
    assert (result.ret, record) == (2, None)
    result.stdout.fnmatch_lines(
        ["*acknowledged.yaml:5:11: error: suite 'small' has no cell 'deletion?tiny-quick-people?'"]
    )
    edit_entries(based.world, 'suite: "small"', 'suite: "other"')
    assert based("--fx-baseline=main")[0].ret == 0


def test_an_expired_acknowledgement_lets_nothing_pass_and_is_named(based):
    until = acknowledge(based.world)
    edit_entries(based.world, until, "2026-01-31")
    result, record = based("--fx-baseline=main", explainer=WORSE)
    assert result.ret == 1
    assert "its acknowledgement expired on 2026-01-31 (" in limit_of(record)["verdict"]["reason"]
    assert any("expired on 2026-01-31: remove it" in one for one in record["cells"][0]["notes"])

"""A baseline that is moved in a change: alone, with other files, or nobody can say."""

import pytest

from fxeval.tests.versions.test_git import run
from fxeval.versions.git import GitError
from fxeval.versions.moved_baselines import moved_baseline


@pytest.fixture
def checkout(tmp_path):
    """A repository with a baseline on main, on a branch without any change."""
    run(tmp_path, "init", "--initial-branch", "main")
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "baselines/runs/one").mkdir(parents=True)
    (tmp_path / "baselines/main.json").write_text("one")
    (tmp_path / "baselines/other.json").write_text("one")
    (tmp_path / "baselines/runs/one/rows.jsonl").write_text("1")
    commit(tmp_path)
    run(tmp_path, "checkout", "-b", "change")
    return tmp_path


def commit(folder):
    run(folder, "add", "-A"), run(folder, "commit", "-m", "a change")


def asked(checkout, **given):
    folder = checkout / "baselines"
    return moved_baseline(folder, [folder / "main.json", folder / "runs/one"], **given)


def moved(checkout):
    (checkout / "baselines/main.json").write_text("two")


def copied(checkout):
    (checkout / "baselines/runs/one/rows.jsonl").write_text("2")


def removed(checkout):
    (checkout / "baselines/runs/one/rows.jsonl").unlink()


def added(checkout):
    (checkout / "baselines/runs/one/more.json").write_text("2")


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize(
    ("change", "file"),
    [
        (moved, "baselines/main.json"),
        (copied, "baselines/runs/one/rows.jsonl"),
        (removed, "baselines/runs/one/rows.jsonl"),
        (added, "baselines/runs/one/more.json"),
    ],
)
def test_a_change_of_a_baseline_is_seen_in_commits_and_in_the_working_tree(
    checkout, change, file, is_committed
):
    change(checkout)
    if is_committed:
        commit(checkout)
    assert asked(checkout).files == (file,)
    assert asked(checkout).others == ()
    (checkout / "code.py").write_text("2")
    assert asked(checkout).others == ("code.py",)
    assert asked(checkout).since == "main"


def test_code_alone_and_another_baseline_move_nothing(checkout):
    (checkout / "code.py").write_text("2")
    (checkout / "baselines/other.json").write_text("two")
    (checkout / "baselines-old").mkdir()
    (checkout / "baselines-old/main.json").write_text("two")
    found = asked(checkout)
    assert found.files == ()
    assert found.others == ("baselines-old/main.json", "code.py")


def test_what_main_did_since_is_no_part_of_the_change(checkout):
    (checkout / "code.py").write_text("2")
    commit(checkout)
    run(checkout, "checkout", "main")
    moved(checkout)
    commit(checkout)
    run(checkout, "checkout", "change")
    assert asked(checkout).files == ()
    run(checkout, "-c", "commit.gpgsign=false", "merge", "main")
    assert asked(checkout).files == ()


def test_output_of_runs_is_no_part_of_a_change_unless_git_keeps_it(checkout):
    moved(checkout)
    (checkout / "reports").mkdir()
    (checkout / "reports/rows.jsonl").write_text("1")
    assert asked(checkout).others == ("reports/rows.jsonl",)
    assert asked(checkout, output=[checkout / "reports"]).others == ()
    assert asked(checkout, output=[checkout / "reports", checkout.parent]).others == ()
    commit(checkout)
    assert asked(checkout, output=[checkout / "reports"]).others == ("reports/rows.jsonl",)


def test_the_named_branch_is_the_one_that_counts(checkout):
    moved(checkout)
    commit(checkout)
    run(checkout, "checkout", "-b", "on-top")
    assert asked(checkout, main="change").files == ()
    assert asked(checkout).files == ("baselines/main.json",)


def test_where_nobody_can_say_the_reason_is_given(checkout, tmp_path_factory):
    with pytest.raises(GitError, match="origin/nowhere"):
        asked(checkout, main="origin/nowhere")
    (checkout / ".gitignore").write_text("baselines")
    run(checkout, "rm", "-r", "--cached", "-q", "baselines")
    with pytest.raises(GitError, match="expected a file that git keeps, got one that it ignores"):
        asked(checkout)
    run(checkout, "checkout", "-q", "-f", "change")
    folder = checkout / "baselines"
    with pytest.raises(GitError, match="expected a place in the checkout, got one outside"):
        moved_baseline(folder, [folder / "main.json", tmp_path_factory.mktemp("far")])
    with pytest.raises(GitError, match="not a git repository"):
        moved_baseline(tmp_path_factory.mktemp("no"), [folder])
    run(checkout, "branch", "-m", "main", "trunk")
    with pytest.raises(GitError, match="expected a branch origin/HEAD, main or master"):
        asked(checkout)

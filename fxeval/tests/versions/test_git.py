"""Questions to git, asked of repositories that the tests make."""

import subprocess

import pytest

from fxeval.versions import git as asked
from fxeval.versions.git import GitError


def run(folder, *arguments):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def checkout(tmp_path):
    """A repository with two commits on main and one on a branch that went apart after the first."""
    run(tmp_path, "init", "--initial-branch", "main")
    (tmp_path / "a.txt").write_text("1")
    run(tmp_path, "add", "."), run(tmp_path, "commit", "-m", "first")
    run(tmp_path, "checkout", "-b", "change")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/b.txt").write_text("1")
    run(tmp_path, "add", "."), run(tmp_path, "commit", "-m", "change")
    run(tmp_path, "checkout", "main")
    (tmp_path / "c.txt").write_text("1")
    run(tmp_path, "add", "."), run(tmp_path, "commit", "-m", "second")
    run(tmp_path, "checkout", "change")
    return tmp_path


def test_the_merge_base_is_the_commit_before_they_went_apart(checkout):
    found = asked.merge_base(checkout / "folder", asked.main_branch(checkout))
    assert found == asked.git(checkout, "rev-parse", "main~1")


def test_files_that_changed_since_are_those_of_commits_and_of_the_working_tree(checkout):
    base = asked.merge_base(checkout, "main")
    (checkout / "a.txt").write_text("2")
    (checkout / "new ü.txt").write_text("1")
    (checkout / ".gitignore").write_text("*.log")
    (checkout / "a.log").write_text("1")
    found = asked.changed_files(checkout / "folder", base)
    assert found == [".gitignore", "a.txt", "folder/b.txt", "new ü.txt"]


def test_of_remote_and_local_branches_that_of_the_remote_is_meant(checkout, tmp_path_factory):
    clone = tmp_path_factory.mktemp("clone")
    run(clone, "clone", str(checkout), ".")
    assert asked.main_branch(clone) == "origin/HEAD"
    assert asked.main_branch(checkout) == "main"


def test_what_git_refuses_is_said(checkout, tmp_path_factory):
    with pytest.raises(GitError, match=r"git merge-base HEAD nowhere: .*nowhere"):
        asked.merge_base(checkout, "nowhere")
    bare = tmp_path_factory.mktemp("none")
    with pytest.raises(GitError, match="not a git repository"):
        asked.top(bare)
    run(bare, "init", "--initial-branch", "other")
    with pytest.raises(GitError, match=r"origin/HEAD, main or master .*, got none"):
        asked.main_branch(bare)


def test_without_git_it_says_so(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(GitError, match="No such file"):
        asked.top(checkout)

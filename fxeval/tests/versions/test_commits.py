"""The two versions of a comparison, in repositories that the tests make."""

import pytest

from fxeval.tests.versions.checkouts import commit, run, state, write
from fxeval.versions.commits import (
    base_version,
    changed_between,
    head_version,
    submodules,
    untracked,
)
from fxeval.versions.git import GitError, git


@pytest.fixture
def checkout(tmp_path):
    """A repository whose branch left main after its first commit; main went on."""
    folder = tmp_path / "a check out"
    folder.mkdir()
    run(folder, "init", "--initial-branch", "main")
    commit(folder, "first", a_py="1", gone_py="1")
    run(folder, "checkout", "-b", "change")
    commit(folder, "change", package__b_py="1")
    run(folder, "checkout", "main")
    commit(folder, "second", c_py="1")
    run(folder, "checkout", "change")
    return folder


def both(folder, base=None, head=None):
    later = head_version(folder, head)
    return base_version(folder, base, later), later


def test_by_default_the_working_tree_is_compared_with_where_it_left_the_main_branch(checkout):
    base, head = both(checkout / "package")
    assert base.commit == run(checkout, "rev-parse", "main~1")
    assert base.tree is None
    assert head.commit == run(checkout, "rev-parse", "change")
    assert head.tree is None
    assert base.title == f"{base.commit[:10]}, from which it left main"
    assert head.title == f"the working tree: {head.commit[:10]} without changes"
    assert changed_between(checkout, base, head) == ["package/b.py"]


def test_changes_of_tracked_files_are_a_part_of_the_head_and_of_nothing_else(checkout):
    write(checkout, "a_py", "2"), write(checkout, "new_py", "1"), write(checkout, "staged_py", "1")
    run(checkout, "add", "staged.py"), (checkout / "gone.py").unlink()
    before = state(checkout)
    base, head = both(checkout)
    assert state(checkout) == before
    assert head.title.endswith("with changes")
    assert changed_between(checkout, base, head) == ["a.py", "gone.py", "package/b.py", "staged.py"]
    assert git(checkout, "show", f"{head.tree}:a.py") == "2"
    assert untracked(checkout / "package") == ["new.py"]


def test_the_head_needs_no_author(checkout, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    run(checkout, "config", "user.useConfigOnly", "true")
    write(checkout, "a_py", "2")
    assert head_version(checkout, None).tree is not None


def test_named_commits_are_taken_as_they_are_named(checkout):
    write(checkout, "a_py", "2")
    base, head = both(checkout, base="main", head="change~1")
    assert base.commit == run(checkout, "rev-parse", "main")
    assert head.commit == run(checkout, "rev-parse", "main~1")
    assert head.tree is None
    assert base.title == f"main ({base.commit[:10]})"


def test_the_merge_base_is_that_of_the_named_head(checkout):
    run(checkout, "checkout", "main")
    base, _ = both(checkout, head="change")
    assert base.commit == run(checkout, "rev-parse", "main~1")


def test_a_detached_head_has_a_merge_base_too(checkout):
    run(checkout, "checkout", "--detach", "change")
    assert both(checkout)[0].commit == run(checkout, "rev-parse", "main~1")


def test_without_a_change_there_is_nothing_to_compare(checkout):
    run(checkout, "checkout", "main")
    with pytest.raises(GitError, match=r"expected a change, .* all of it is on main.*--base"):
        both(checkout)
    write(checkout, "a_py", "2")
    assert both(checkout)[0].commit == run(checkout, "rev-parse", "main")


def test_one_commit_may_be_compared_with_itself_on_demand(checkout):
    base, head = both(checkout, base="HEAD", head="HEAD")
    assert base.commit == head.commit
    assert changed_between(checkout, base, head) == []


@pytest.mark.parametrize("asked", ["nowhere", "a.py", "--all", "main..change", "HEAD:a.py", ""])
def test_what_is_no_commit_is_refused(checkout, asked):
    with pytest.raises(GitError, match="expected a commit"):
        both(checkout, base=asked)
    with pytest.raises(GitError, match="expected a commit"):
        both(checkout, head=asked)


def test_a_folder_without_git_and_a_repository_without_commits_are_named(tmp_path):
    with pytest.raises(GitError, match="not a git repository"):
        both(tmp_path)
    run(tmp_path, "init", "--initial-branch", "main")
    with pytest.raises(GitError, match="repository without any"):
        both(tmp_path)


def test_a_shallow_clone_says_how_to_fetch_the_history(checkout, tmp_path):
    run(checkout, "checkout", "main")
    run(tmp_path, "clone", "--depth", "1", "--branch", "change", checkout.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    run(shallow, "remote", "set-branches", "origin", "*"), run(shallow, "fetch", "--depth", "1")
    with pytest.raises(GitError, match=r"got none.*--base.*shallow.*fetch-depth: 0"):
        both(shallow)
    run(shallow, "remote", "remove", "origin")
    run(shallow, "branch", "-m", "other")
    with pytest.raises(GitError, match=r"expected a branch .*fetch-depth: 0"):
        both(shallow)
    with pytest.raises(GitError, match=r"got 'HEAD~1'.*fetch-depth: 0"):
        both(shallow, base="HEAD~1")


def test_histories_without_a_common_commit_are_named(checkout):
    run(checkout, "checkout", "--orphan", "alone"), commit(checkout, "alone")
    with pytest.raises(GitError, match=r"have in common, got none.*--base\.$"):
        both(checkout)


def test_files_in_conflict_stop_it(checkout):
    run(checkout, "checkout", "-b", "one"), commit(checkout, "one", a_py="2")
    run(checkout, "checkout", "change"), commit(checkout, "two", a_py="3")
    with pytest.raises(Exception, match="merge"):
        run(checkout, "merge", "one")
    with pytest.raises(GitError, match="stash create"):
        head_version(checkout, None)


def test_files_that_nobody_tracks_are_named_code_first(checkout):
    for name in ("a_txt", "z_py", "b_log", "suites__new_yaml", "package__y_py"):
        write(checkout, name, "1")
    write(checkout, "_gitignore", "*.log")
    assert untracked(checkout) == ["package/y.py", "suites/new.yaml", "z.py", ".gitignore", "a.txt"]


def test_submodules_are_named(checkout, tmp_path):
    other = tmp_path / "other"
    other.mkdir(), run(other, "init"), commit(other, "first", a_py="1")
    assert submodules(checkout) == []
    run(checkout, "-c", "protocol.file.allow=always", "submodule", "add", str(other), "parts/it")
    assert submodules(checkout / "package") == ["parts/it"]


def test_the_variables_of_a_hook_do_not_name_another_checkout(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir(), run(other, "init"), commit(other, "elsewhere", a_py="1")
    found = both(checkout)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert both(checkout) == found

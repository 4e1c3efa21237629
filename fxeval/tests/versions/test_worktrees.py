"""Worktrees of two versions, in repositories that the tests make."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fxeval.tests.versions.checkouts import commit, run, state, write
from fxeval.versions.commits import base_version, head_version
from fxeval.versions.git import GitError
from fxeval.versions.worktrees import LinkError, link, linked, worktrees


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a change that is not committed yet; temporary files lie beside it."""
    temporary = tmp_path / "temporary files"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    folder = tmp_path / "check out"
    folder.mkdir(), run(folder, "init", "--initial-branch", "main")
    commit(folder, "first", a_py="1", part__b_py="1")
    write(folder, "a_py", "2"), write(folder, "own_txt", "mine"), write(folder, "data__x_csv", "x")
    return folder


def versions(checkout):
    head = head_version(checkout, None)
    return base_version(checkout, None, head), head


def left():
    return [*Path(tempfile.gettempdir()).iterdir()]


def test_each_version_has_its_files_and_the_users_stay(checkout):
    before = state(checkout)
    with worktrees(checkout / "part", versions(checkout)) as roots:
        assert {name: (root / "a.py").read_text() for name, root in roots.items()} == {
            "base": "1", "head": "2",
        }  # fmt: skip
        assert {root.name for root in roots.values()} == {"check out"}
        assert not (roots["head"] / "own.txt").exists()
        for root in roots.values():
            (root / "a.py").write_text("3"), (root / "made").mkdir()
    assert state(checkout) == before
    assert left() == []


def test_the_head_is_its_commit_with_changes(checkout):
    commits = run(checkout, "rev-parse", "HEAD")
    with worktrees(checkout, versions(checkout)) as roots:
        for root in roots.values():
            assert run(root, "rev-parse", "HEAD") == commits
        assert run(roots["base"], "status", "--porcelain") == ""
        assert run(roots["head"], "status", "--porcelain") == "M  a.py"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_is_left_however_it_ends(checkout, error):
    before = state(checkout)
    with pytest.raises(error), worktrees(checkout, versions(checkout)):
        raise error
    assert state(checkout) == before
    assert left() == []


def test_nothing_is_left_of_a_worktree_that_was_spoilt(checkout):
    before = state(checkout)
    with worktrees(checkout, versions(checkout)) as roots:
        (roots["base"] / ".git").unlink()
    assert state(checkout) == before
    assert left() == []


def test_nothing_is_left_if_the_second_cannot_be_made(checkout):
    base, head = versions(checkout)
    wrong = type(head)("head", "0" * 40, None, "nothing")
    before = state(checkout)
    with pytest.raises(GitError), worktrees(checkout, (base, wrong)):
        raise AssertionError("it must not come so far")
    assert state(checkout) == before
    assert left() == []


STOPPED = """
import sys, tempfile, time
from pathlib import Path
from fxeval.versions.commits import base_version, head_version
from fxeval.versions.worktrees import worktrees
folder = Path(sys.argv[1])
head = head_version(folder, None)
with worktrees(folder, (base_version(folder, None, head), head)):
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_twice_leaves_nothing(checkout, tmp_path):
    before = state(checkout)
    (tmp_path / "stopped.py").write_text(STOPPED)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "stopped.py", checkout],
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "there\n"
    assert len(left()) == 1
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert process.wait(timeout=30) != 0
    process.stdout.close()
    assert state(checkout) == before
    assert left() == []


def test_other_worktrees_of_the_user_stay_even_if_they_are_not_there_at_the_moment(checkout):
    other = checkout.parent / "drive"
    run(checkout, "worktree", "add", "--detach", str(other))
    other.rename(checkout.parent / "unmounted")
    before = run(checkout, "worktree", "list", "--porcelain")
    with worktrees(checkout, versions(checkout)):
        pass
    assert run(checkout, "worktree", "list", "--porcelain") == before


def test_hooks_of_the_user_do_not_run(checkout):
    hook = checkout / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{checkout}/ran'\n"), hook.chmod(0o755)
    with worktrees(checkout, versions(checkout)):
        pass
    assert not (checkout / "ran").exists()


def test_the_variables_of_a_hook_do_not_lead_to_the_users_files(checkout):
    before = state(checkout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", str(checkout / ".git"))
        patch.setenv("GIT_INDEX_FILE", str(checkout / ".git/index"))
        patch.setenv("GIT_WORK_TREE", str(checkout))
        with worktrees(checkout, versions(checkout)) as roots:
            assert (roots["head"] / "a.py").read_text() == "2"
    assert state(checkout) == before


def test_a_linked_path_is_seen_at_its_place_in_both_and_stays_where_it_is(checkout):
    before = state(checkout)
    sources = linked(checkout / "part", ["../data", str(checkout / "own.txt")])
    assert sources == {"data": checkout / "data", "own.txt": checkout / "own.txt"}
    with worktrees(checkout, versions(checkout)) as roots:
        link(roots, sources)
        for root in roots.values():
            assert (root / "data/x.csv").read_text() == "x"
            assert (root / "own.txt").read_text() == "mine"
    assert state(checkout) == before


def test_a_linked_submodule_takes_its_empty_place(checkout, tmp_path):
    other = tmp_path / "other"
    other.mkdir(), run(other, "init"), commit(other, "first", c_py="1")
    run(checkout, "-c", "protocol.file.allow=always", "submodule", "add", str(other), "deep/it")
    run(checkout, "commit", "-m", "with a submodule")
    write(checkout, "a_py", "3")
    with worktrees(checkout, versions(checkout)) as roots:
        assert [*(roots["head"] / "deep/it").iterdir()] == []
        link(roots, linked(checkout, ["deep/it"]))
        assert (roots["base"] / "deep/it/c.py").read_text() == "1"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("absent", "a path where nothing is"),
        ("a.py", "one with tracked files"),
        ("part", "one with tracked files"),
        (".", "one outside it"),
        ("..", "one outside it"),
        (tempfile.gettempdir(), "one outside it"),
    ],
)
def test_what_cannot_be_linked_is_refused(checkout, asked, message):
    with pytest.raises(LinkError, match=rf"^--link .*: expected .*{message}"):
        linked(checkout, [asked])


def test_a_version_with_a_file_of_its_own_at_the_place_is_named(checkout):
    run(checkout, "rm", "--cached", "part/b.py")
    sources = linked(checkout, ["part/b.py"])
    with (
        worktrees(checkout, versions(checkout)) as roots,
        pytest.raises(LinkError, match=r"--link part/b\.py: base has another file"),
    ):
        link(roots, sources)


def test_a_link_of_the_users_own_is_shown_as_it_is(checkout, tmp_path):
    (tmp_path / "far").mkdir(), (tmp_path / "far/y.csv").write_text("y")
    (checkout / "far").symlink_to(tmp_path / "far")
    with worktrees(checkout, versions(checkout)) as roots:
        link(roots, linked(checkout, ["far"]))
        assert (Path(roots["base"]) / "far/y.csv").read_text() == "y"


def test_a_link_to_a_tracked_place_means_that_place_of_each_version(checkout):
    (checkout / "part/also_a.py").symlink_to("../a.py"), (checkout / "y").symlink_to("own.txt")
    with worktrees(checkout, versions(checkout)) as roots:
        link(roots, linked(checkout, ["part/also_a.py", "y"]))
        assert (roots["base"] / "part/also_a.py").read_text() == "1"
        assert (roots["head"] / "part/also_a.py").read_text() == "2"
        assert (roots["base"] / "y").read_text() == "mine"

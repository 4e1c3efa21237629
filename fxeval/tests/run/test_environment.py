"""The record says on what a result depends."""

import shutil
import subprocess

import pytest
import torch

from fxeval.run.environment import describe


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True
    )


def test_versions_device_and_threads_are_named():
    facts = describe(torch.device("cpu"), 16, ".")
    assert facts["torch"] == torch.__version__
    assert (facts["device"], facts["batch_size"]) == ("cpu", 16)
    assert facts["threads"] == torch.get_num_threads()
    assert all(value is None or isinstance(value, str | int | bool) for value in facts.values())


def test_without_git_there_is_no_commit_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = describe(torch.device("cpu"), 16, ".")
    assert facts["commit"] is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is absent")
def test_the_commit_and_uncommitted_changes_are_named(tmp_path):
    assert describe(torch.device("cpu"), 16, tmp_path)["commit"] is None
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    facts = describe(torch.device("cpu"), 16, tmp_path)
    assert len(facts["commit"]) == 40
    assert facts["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert describe(torch.device("cpu"), 16, tmp_path)["dirty"] is True

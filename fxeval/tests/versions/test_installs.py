"""Installing a version: into a virtual environment of its own, over the packages that are there."""

import os
import subprocess

import pytest

from fxeval.versions.installs import InstallError, installed

PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "fxeval-toy-maps"
version = "1.0"
dependencies = ["numpy"]
[tool.setuptools]
py-modules = ["toy_maps"]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A worktree with a project; pip asks no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "check out"
    (root / "evaluation").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "toy_maps.py").write_text("VERSION = 'its own'\n")
    return root


def test_a_version_is_installed_beside_the_packages_that_are_there(project, tmp_path):
    python = installed("base", project, project / "evaluation", tmp_path / "a venv")
    asked = "import numpy, pytest, toy_maps; print(toy_maps.VERSION, toy_maps.__file__)"
    done = subprocess.run(
        [python, "-P", "-c", asked], capture_output=True, text=True, check=False, cwd=project
    )
    assert done.stdout.startswith(f"its own {tmp_path / 'a venv'}{os.sep}"), done.stderr


def test_a_version_that_cannot_be_installed_is_named_with_what_pip_says(project, tmp_path):
    (project / "pyproject.toml").write_text(PROJECT.replace("py-modules", "py-moduls"))
    with pytest.raises(InstallError) as caught:
        installed("head", project, project, tmp_path / "venv")
    assert str(caught.value).startswith("head: it cannot be installed:\n")
    assert "py-moduls" in str(caught.value)


def test_without_a_project_there_is_nothing_to_install(project, tmp_path):
    (project / "pyproject.toml").rename(tmp_path / "pyproject.toml")
    with pytest.raises(InstallError, match=r"^base: expected a pyproject.toml or setup.py"):
        installed("base", project, project / "evaluation", tmp_path / "venv")

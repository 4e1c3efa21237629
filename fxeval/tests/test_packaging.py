"""The packages that pyproject.toml lists by hand are all that there are, and no others."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "pyproject.toml"


def test_every_package_is_listed_and_nothing_else():
    if not PROJECT.is_file():
        pytest.skip("no pyproject.toml beside an installed fxeval")
    settings = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {"fxeval": "fxeval", **settings["package-dir"]}
    found = {
        ".".join((name, *file.parent.relative_to(ROOT / folder).parts))
        for name, folder in folders.items()
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(settings["packages"]) == sorted(found)

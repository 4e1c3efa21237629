"""The packages that pyproject.toml lists by hand are all that there are, and no others."""

import importlib
import tomllib
from pathlib import Path

import pytest

from fxeval import fixtures

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


def installed_beside_code() -> set[Path]:
    """The files that are no modules and that the package's data patterns bring along."""
    settings = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["setuptools"]
    return {
        path.resolve()
        for name, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in Path(str(importlib.import_module(name).__file__)).parent.glob(pattern)
        if path.is_file()
    }


def files_below(folder: Path) -> set[Path]:
    return {
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }


def test_faces_networks_and_cards_come_with_the_package():
    if not PROJECT.is_file():
        pytest.skip("no pyproject.toml beside an installed fxeval")
    bundled = {path for path in files_below(ROOT / "fixtures") if path.suffix != ".py"}
    assert sum(path.suffix == ".safetensors" for path in bundled) >= 1
    assert sum(path.suffix == ".jpg" for path in bundled) >= 240
    assert bundled <= installed_beside_code(), "pyproject.toml: package-data names them not"


def test_what_is_bundled_takes_16_megabytes_at_most():
    sizes = {path: path.stat().st_size for path in files_below(Path(fixtures.__file__).parent)}
    total = sum(sizes.values())
    largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
    assert total <= 16_000_000, [(path.name, sizes[path]) for path in largest]

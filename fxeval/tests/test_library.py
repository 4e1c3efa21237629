"""The public names: complete, importable, lazy."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fxeval
from fxeval.cli import main


@pytest.mark.parametrize("name", fxeval.__all__)
def test_a_public_name_is_there_and_documented(name):
    found = getattr(fxeval, name)
    assert inspect.getdoc(found)
    assert name in dir(fxeval)


def test_the_public_names_are_those_that_type_checkers_see():
    tree = ast.parse(Path(fxeval.__file__).read_text(encoding="utf-8"))
    [seen] = [node for node in tree.body if isinstance(node, ast.If)]
    shown = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in seen.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(shown) == fxeval.__all__ == sorted(fxeval.__all__)
    for name, place in shown.items():
        module, _, attribute = place.rpartition(".")
        assert getattr(sys.modules[module], attribute) is getattr(fxeval, name)


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'fxeval' has no attribute 'evalaute'"):
        fxeval.evalaute  # noqa: B018
    space = {}
    exec("from fxeval import *", space)
    assert set(fxeval.__all__) <= space.keys()


@pytest.mark.parametrize("code", ["import fxeval", "import fxeval.cli", "import fxeval.plugin"])
def test_importing_loads_nothing_heavy(code):
    heavy = {"torch", "cv2", "numpy", "jinja2", "onnx", "scipy"}
    code += f"; import sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "fxeval", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(rf"fxeval, version {re.escape(fxeval.__version__)}\n", done.stdout)
    assert main.name == "main"

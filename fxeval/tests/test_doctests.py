"""Every example in a docstring is true."""

import doctest
import importlib
import pkgutil

import pytest

import fxeval

MODULES = [
    info.name
    for info in pkgutil.walk_packages(fxeval.__path__, "fxeval.")
    if ".tests" not in info.name
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = sum(
        len(test.examples)
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
    )
    assert examples >= 20

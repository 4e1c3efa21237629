"""Fixtures of fxeval's own tests."""

import os
import signal
from pathlib import Path

import pytest
import torch

from fxeval.tests.rounding import assert_rounded
from fxeval.tests.world import CONFTEST, SUITE

# Tests that import ONNX Runtime themselves send nothing either (fxeval.models.files.onnx_model).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what depends on rounding: the modules that compare with a bound of it."""
    for item in items:
        module = getattr(item, "module", None)
        if module is not None and any(value is assert_rounded for value in vars(module).values()):
            item.add_marker(pytest.mark.numerical)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real faces and weights: $FXEVAL_DATA, or ../shared/data beside the checkout."""
    candidates = [
        os.environ.get("FXEVAL_DATA"),
        Path(__file__).parents[2].parent / "shared" / "data",
    ]
    for candidate in candidates:
        if candidate and (Path(candidate) / "faces_manifest.json").is_file():
            return Path(candidate)
    pytest.skip("real faces are absent: set FXEVAL_DATA to a folder with faces_manifest.json")


@pytest.fixture
def world(pytester):
    """A folder with a conftest and a suite; returns a function that runs it."""
    pytester.makeconftest(CONFTEST)
    threads = torch.get_num_threads()
    (pytester.path / "suites").mkdir()

    def run(*args, explainers="occlusion", edit=lambda text: text, alone=False):
        text = edit(SUITE.replace("EXPLAINERS", explainers))
        (pytester.path / "suites" / "small.yaml").write_text(text)
        start = pytester.runpytest_subprocess if alone else pytester.runpytest_inprocess
        return start("suites/small.yaml", "--fx-threads=1", *args)

    run.path = pytester.path
    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def hears_ctrl_c():
    """Let Ctrl-C reach this process and those that a test starts.

    A shell starts jobs in the background deaf to it, and processes inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

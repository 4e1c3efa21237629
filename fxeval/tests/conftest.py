"""Fixtures of fxeval's own tests."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


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

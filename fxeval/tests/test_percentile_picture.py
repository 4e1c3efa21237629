"""The picture of exactly k pixels beside a percentile, and its table, are what is drawn."""

import importlib.util
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT, PICTURE = DOCS / "percentile_selection.py", DOCS / "percentile-selection.png"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="no docs beside an installed fxeval")


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location("percentile_selection", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def black(image):
    return (image == 0).all(axis=2)


def test_the_picture_shows_what_both_select(drawing):
    image, shares = drawing.picture()
    exact, by_percentile, zeros_exact, zeros_by_percentile = shares
    assert exact == zeros_exact == 125 / 112**2
    assert by_percentile == pytest.approx(0.01, abs=5e-4)  # a bilinear map hardly ties
    assert zeros_by_percentile == 1
    assert PICTURE.stat().st_size <= 120_000
    shown = cv2.imread(str(PICTURE))[..., ::-1]
    assert shown.shape == image.shape
    width = 112 + drawing.GAP
    face, *hidden = [shown[:, start : start + 112] for start in range(0, shown.shape[1], width)]
    assert np.array_equal(face, image[:, :112])
    for tile, share in zip(hidden, shares, strict=True):
        # Another machine may round a map otherwise; the size of what is hidden stays.
        assert (black(tile) & ~black(face)).mean() == pytest.approx(share, abs=5e-4)


@pytest.mark.slow
def test_the_table_holds_what_is_measured(drawing):
    page = (DOCS / "method.md").read_text(encoding="utf-8")
    table = page.partition("| network | unoccluded |")[2]
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    for network in drawing.NETWORKS:
        expected = [float(rate) for rate in shown[network].split(" | ")]
        assert drawing.rates(network) == pytest.approx(expected, abs=0.006)

"""Linear imputation agrees with pytorch-grad-cam, which ``.ci/oracles`` installs."""

import pytest

from fxeval.functional.road import imputed
from fxeval.tests.functional.test_road import faces, removed_of
from fxeval.tests.peers import pytorch_grad_cam_imputed

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("shape", ["scattered", "disc", "regions"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_is_that_of_pytorch_grad_cam(shape, share, monkeypatch):
    images, removed = faces(2, 112), removed_of(shape, share, 2, 112)
    expected = pytorch_grad_cam_imputed(monkeypatch, images, removed)
    assert float((imputed(images, removed) - expected).abs().max()) <= 2e-3
    # In float64 it has the peer's own precision, and not only that of a fill.
    assert float((imputed(images.double(), removed) - expected).abs().max()) <= 1e-6

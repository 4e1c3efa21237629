"""Linear classifiers of people: centroids by loops, a trained head at the one solution."""

import numpy as np
import pytest
import torch

from fxeval.errors import EvidenceError
from fxeval.functional import class_heads
from fxeval.functional.class_heads import gallery_head, trained_head


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_the_gallery_head_is_the_softmax_of_similarities_to_centroids(kind):
    rng = np.random.default_rng(1)
    enrolled, probes = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    target = [2, 0, 1, 0, 1, 2]
    head = gallery_head(kind, torch.from_numpy(enrolled), torch.tensor(target), 7.0)
    found = head.logits(torch.from_numpy(probes)).softmax(dim=1).numpy()
    for probe, row in zip(probes, found, strict=True):
        logits = []
        for name in range(3):
            own = [one for one, whose in zip(enrolled, target, strict=True) if whose == name]
            if kind == "cosine":
                centre = sum(one / np.sqrt(one @ one) for one in own)
                logits.append(7 * (probe @ centre) / np.sqrt((probe @ probe) * (centre @ centre)))
            else:
                gap = probe - sum(own) / len(own)
                logits.append(-7 * (gap @ gap))
        raised = np.exp(np.array(logits) - max(logits))
        assert np.allclose(row, raised / raised.sum(), rtol=0, atol=1e-12)


def test_the_trained_head_is_where_the_penalised_cross_entropy_has_no_slope():
    rng, penalty = np.random.default_rng(0), 1e-3
    target = np.repeat(np.arange(4), 3)
    x = rng.normal(size=(12, 5)) + 2 * rng.normal(size=(4, 5))[target]
    unit = x / np.sqrt((x**2).sum(axis=1, keepdims=True))
    head = trained_head(torch.from_numpy(x), torch.from_numpy(target), 4, penalty, is_unit=True)
    mean, deviation = unit.mean(axis=0), unit.std(axis=0)
    weight = head.weight.numpy() * deviation  # on the standardised features
    bias = head.bias.numpy() + head.weight.numpy() @ mean
    scaled = (unit - mean) / deviation
    logits = scaled @ weight.T + bias
    assert np.allclose(head.logits(torch.from_numpy(x)).numpy(), logits, rtol=0, atol=1e-9)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = raised / raised.sum(axis=1, keepdims=True) - np.eye(4)[target]
    assert np.abs(error.T @ scaled / 12 + penalty * weight).max() < 1e-6
    assert np.abs(error.mean(axis=0)).max() < 1e-6


def test_a_head_that_cannot_be_trained_says_what_to_change(monkeypatch):
    monkeypatch.setattr(class_heads, "ITERATIONS", 1)
    with pytest.raises(EvidenceError, match=r"no solution within 1 steps .* now 0\.001"):
        trained_head(torch.eye(3), torch.arange(3), 3, 1e-3)

"""What is known about a network with random weights, before anything is concluded from it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import nn

from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.functional.randomisation import coverage, randomise
from fxeval.functional.similarity import similarity
from fxeval.metrics.protocol import Redraw
from fxeval.models.loading import TorchFaceModel
from fxeval.records.schema import Network
from fxeval.run.redrawing import Redraws, auc_of
from fxeval.run.wanted import NetworkHandle
from fxeval.statistics.redrawn import network_notes, still_tells
from fxeval.tests.subjects import CROP, ConvNet, make_pairs


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_the_chance_check_is_the_mann_whitney_statistic_of_mates_and_next_people(kind):
    pairs = make_pairs(9)
    embeddings = torch.randn(18, 6, generator=torch.Generator().manual_seed(2))
    embeddings[9:] += 2.0 * embeddings[:9]  # reference i is image 9 + i
    nonmates = [(row + 1) % 9 for row in range(9)]
    mated = similarity(kind, embeddings[:9], embeddings[9:])
    nonmated = similarity(kind, embeddings[:9], embeddings[9:][nonmates])
    expected = mannwhitneyu(mated, nonmated).statistic / 81
    assert auc_of(kind, embeddings, pairs) == (pytest.approx(expected), 9)
    assert expected > 0.6
    # Only pairs whose images are there, and a network that tells nothing apart is at chance.
    assert auc_of(kind, embeddings[:12], pairs)[1] == 3
    assert auc_of(kind, torch.ones(18, 6), pairs) == (0.5, 9)


def test_people_that_come_again_are_nobodys_nonmates():
    identity = torch.tensor([0, 0, 1])
    pairs = replace(make_pairs(3), probe_identity=identity, reference_identity=identity)
    unit = torch.eye(3)
    embeddings = torch.cat([unit[[0, 0, 1]], unit[[0, 0, 1]]])
    assert auc_of("cosine", embeddings, pairs) == (1.0, 3)
    alone = replace(pairs, probe_identity=identity * 0, reference_identity=identity * 0)
    assert auc_of("cosine", embeddings, alone) == (None, 0)
    nonmated = replace(pairs, is_mated=torch.zeros(3, dtype=torch.bool))
    assert auc_of("cosine", embeddings, nonmated) == (None, 0)


def test_lists_of_the_same_images_share_the_copy_and_have_figures_of_their_own_pairs():
    pool = ForwardPool()
    pairs = make_pairs(6)
    model = TorchFaceModel("tiny", CROP, ConvNet().eval(), "cosine", None, "key")
    handle = NetworkHandle("trained", "key", lambda: PooledModel(model, pool, "key"), "tiny")
    turned = replace(pairs, reference=pairs.reference.roll(1))
    alone = replace(pairs, is_mated=torch.tensor([True] * 3 + [False] * 3))
    redraws, guard = Redraws(pool), SimpleNamespace(admit=lambda *_: None)
    found = [redraws.redrawn(handle, one, (5, Redraw(0)), guard) for one in (pairs, turned, alone)]
    assert len({one.network.key for one in found}) == len(redraws.kept) == 1
    assert [one.known.auc_pairs for one in found] == [6, 6, 3]
    for one, listed in zip(found, (pairs, turned, alone), strict=True):
        [only] = redraws.kept.values()
        embeddings = only.embed(pairs.images.float() / 255.0)
        assert (one.known.auc, one.known.auc_pairs) == auc_of("cosine", embeddings, listed)
    assert found[0].known.auc != found[1].known.auc


def of(**more):
    return Network(name="re-drawn network 1", spread=0.5, redrawn_share=0.9, **more)


def test_a_network_above_chance_is_named_and_how_far_chance_reaches_depends_on_the_pairs():
    [note] = network_notes([of(auc=0.7, auc_pairs=40, buffers_share=1.0)], [])
    assert "90.0% of the parameters and 100.0% of the buffers changed" in note
    assert "an AUC of 0.70, above chance (0.5 +- 0.13)" in note
    [note] = network_notes([of(auc=0.7, auc_pairs=10)], [])
    assert "above chance" not in note
    assert not still_tells(of())
    assert not still_tells(of(auc=1.0, auc_pairs=0))
    # What is left of a trained network may well tell people apart.
    [note] = network_notes([of(auc=0.9, auc_pairs=40, layers="fc")], [])
    assert "an AUC of 0.90" in note
    assert "above chance" not in note


def test_tensors_that_stay_as_they_were_are_named():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = ConvNet()
            self.norm = nn.LayerNorm(8)  # fresh: it is re-drawn to what it is
            self.register_buffer("mean", torch.full((3, 1, 1), 0.5))

        def forward(self, images):
            return self.norm(self.net(images - self.mean))

    network = Keeps().eval()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = coverage(network, randomise(network, images, 1, 0))
    assert found.kept == ("norm.weight", "norm.bias", "mean")
    assert 0.9 < found.parameters < 1.0
    assert found.buffers == pytest.approx(13 / 16)  # two statistics of six channels and a count
    part = coverage(network, randomise(network, images, 1, 0, ["net.fc"]), ["net.fc"])
    assert part.kept == ()
    with pytest.raises(ValueError, match="one architecture"):
        coverage(network, ConvNet())
    names = [f"layer{number}.weight" for number in range(6)]
    [note] = network_notes([of(kept=names)], [])
    assert "(as they were: layer0.weight, layer1.weight, layer2.weight, layer3.weight and 2" in note

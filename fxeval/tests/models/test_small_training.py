"""Two small networks learn faces by heart: one with true labels, one with permuted ones."""

import pytest
import torch
from torch.nn import functional as F

from fxeval.models import training
from fxeval.models.networks.small_cnn import SmallCNN
from fxeval.models.training import Lesson, cosface, permuted, trained
from fxeval.tests.rounding import assert_rounded

CPU = torch.device("cpu")


def lesson(n=6, side=8, epochs=60, seed=3, labels=None):
    images = torch.randint(256, (2 * n, 3, side, side), generator=torch.Generator().manual_seed(0))
    given = torch.arange(n).repeat(2) if labels is None else labels
    return Lesson(images.to(torch.uint8), given, epochs, seed)


def bits(network):
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def test_permuted_labels_are_the_same_ones_image_by_image():
    labels = torch.arange(50).repeat_interleave(4)
    found = permuted(labels, seed=1)
    assert found.sort().values.equal(labels)
    assert 0 < int((found == labels).sum()) < 20  # 4 of 200 by chance
    # Whole identities do not change places: images of one person get labels of several.
    assert min(len(set(found[labels == one].tolist())) for one in range(50)) > 1
    assert found.equal(permuted(labels, seed=1))
    assert not found.equal(permuted(labels, seed=2))


def test_both_are_learnt_by_heart_from_the_same_weights_in_the_same_order():
    labels = torch.arange(6).repeat(2)
    told = []
    for given in (labels, permuted(labels, seed=1)):
        done = []
        learnt = trained(lesson(labels=given), CPU, done.append)
        assert learnt.accuracy >= training.TARGET
        assert done == list(range(1, learnt.epochs + 1))
        assert learnt.forwards == 2 * 12 * learnt.epochs
        told.append(learnt)
    assert bits(told[0].network) != bits(told[1].network)
    none = [trained(lesson(labels=one, epochs=0), CPU) for one in (labels, permuted(labels, 1))]
    assert bits(none[0].network) == bits(none[1].network)  # before the first step
    assert none[0].accuracy == 0.0


def test_the_accuracy_is_that_of_the_nearest_centre(monkeypatch):
    kept = {}

    def spied(network, centres, images, labels):
        kept.update(centres=centres.clone(), labels=labels)
        return original(network, centres, images, labels)

    original = training._accuracy
    monkeypatch.setattr(training, "_accuracy", spied)
    one = lesson(epochs=2)
    learnt = trained(one, CPU)
    right = 0
    for image, label in zip(one.images, one.labels, strict=True):
        with torch.no_grad():
            embedding = learnt.network(image[None].float() / 255)[0]
        cosines = [
            float(F.cosine_similarity(embedding, centre, dim=0)) for centre in kept["centres"]
        ]
        right += max(range(6), key=cosines.__getitem__) == int(label)
    assert learnt.accuracy == right / 12
    assert 0 < right < 12


def test_the_loss_is_that_of_cosface():
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    centres = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 0])
    total = 0.0
    for embedding, label in zip(embeddings, labels.tolist(), strict=True):
        terms = [
            float(embedding @ centre / (embedding.norm() * centre.norm())) for centre in centres
        ]
        terms[label] -= 0.3
        exps = [float(torch.tensor(24.0 * term, dtype=torch.float64).exp()) for term in terms]
        total -= float(torch.tensor(exps[label] / sum(exps), dtype=torch.float64).log())
    found = float(cosface(embeddings, centres, labels))
    assert found == pytest.approx(total / 5, rel=1e-9)


def test_a_lesson_has_one_outcome_whatever_the_surroundings():
    threads = torch.get_num_threads()
    first = trained(lesson(epochs=4), CPU)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        torch.rand(3)  # the caller draws meanwhile
        before = torch.get_rng_state()
        with torch.no_grad():  # a caller's mode
            again = trained(lesson(epochs=4), CPU)
        assert torch.get_num_threads() == 2
        assert torch.get_rng_state().equal(before)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert bits(first.network) == bits(again.network)
    assert bits(trained(lesson(epochs=4, seed=4), CPU).network) != bits(first.network)
    assert all(one.grad is None for one in first.network.parameters())
    assert not first.network.training


@pytest.mark.parametrize(
    ("size", "stages", "cells"),
    [((8, 8), 1, (4, 4)), ((16, 16), 1, (8, 8)), ((112, 112), 4, (7, 7)), ((112, 96), 3, (14, 12)),
     ((150, 150), 4, (10, 10)), ((224, 224), 5, (7, 7)), ((7, 9), 1, (4, 5))],
)  # fmt: skip
def test_the_network_takes_crops_of_every_size(size, stages, cells):
    network = SmallCNN(size).eval()
    names = [name for name, _ in network.named_children()]
    assert names == [*["stem", "stage1", "stage2", "stage3", "stage4"][:stages], "head"]
    seen = []
    network.get_submodule(names[-2]).register_forward_hook(
        lambda _module, _given, out: seen.append(tuple(out.shape[2:]))
    )
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network(images)
        alone = torch.cat([network(one[None]) for one in images])
    assert found.shape == (3, 64)
    assert set(seen) == {cells}
    # An image's embedding does not depend on its batch; sums of 3 x 3 x 96 terms at most.
    assert_rounded(found.numpy(), alone.numpy(), terms=5000)

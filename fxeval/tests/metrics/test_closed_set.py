"""One definition of a closed set's classifier for questions and explainers; heads of subjects."""

import numpy as np
import pytest
import torch

from fxeval.contracts import Faces
from fxeval.explainers.cam_exact import CAM
from fxeval.explainers.closed_set import gallery_softmax
from fxeval.metrics.closed_set import SCALE, ClosedSet
from fxeval.metrics.questions import Confidence
from fxeval.tests.cam_subjects import SIZE, FaceNet, Net
from fxeval.tests.evidence import subject_of
from fxeval.tests.roaming_people import Roaming, knows_people
from fxeval.tests.rounding import FLOAT64, assert_rounded
from fxeval.tests.toy_world import SMALL

GALLERY = torch.tensor([[0, 1], [4, 5], [8, 9]])
PROBES = torch.tensor([2, 3, 6, 7, 10, 11])


def faces_of(n: int) -> Faces:
    ids = [f"{who}-{number}" for who in range(n) for number in range(4)]
    images = Roaming(n, shades=3).images(ids, SMALL)
    digests = tuple(f"{place:064d}" for place in range(len(ids)))
    return Faces("roaming", images, digests, torch.arange(n).repeat_interleave(4))


@pytest.mark.parametrize(("kind", "scale"), [("cosine", SCALE), ("cosine", 10.0), ("neg_l2", 0.2)])
def test_the_question_has_the_probabilities_of_the_gallery_softmax(kind, scale):
    model, faces = knows_people(similarity=kind), faces_of(3)
    subject = subject_of(model, faces)
    target = torch.tensor([0, 0, 1, 1, 2, 2])
    question = Confidence(target, target, ClosedSet(GALLERY, scale=scale))
    images = faces.images.float() / 255
    names = [f"{name}" for name in (0, 0, 1, 1, 2, 2)]
    classifier = gallery_softmax(model, images[GALLERY.flatten()], names, scale=scale)
    expected = classifier.probabilities(images[PROBES])
    clean = subject.clean()[PROBES]
    every = torch.arange(6)
    # Both start from the same float32 embeddings.
    found = question.people.logits(subject, clean).softmax(dim=1)
    assert_rounded(found, expected, terms=48, condition=4 * scale * 50, unit=FLOAT64)
    assert torch.equal(
        question.answer(subject, every, clean), found.gather(1, question.target[:, None])[:, 0]
    )
    named = classifier.predicted(images[PROBES])[0]
    margin = question.margin(subject, every, clean)
    assert ((margin > 0) == (named == question.target)).all()


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
def test_class_activation_maps_of_a_gallery_divide_the_logit_of_its_class(kind):
    model = FaceNet(Net(), similarity=kind)
    images = torch.rand((9, 3, *SIZE), generator=torch.Generator().manual_seed(3))
    gallery, probes = images[:6].unflatten(0, (3, 2)), images[6:]
    names = [f"{name}" for name in (0, 0, 1, 1, 2, 2)]
    classifier = gallery_softmax(model, images[:6], names, scale=10.0)
    generator = np.random.default_rng(0)
    for name in range(3):
        references = gallery[[name] * 3]
        found = CAM().explain(model, probes, references, generator=generator).positive
        expected = classifier.cam(probes, torch.full((3, 1), name))[:, 0] / 10.0
        assert_rounded(found, expected, terms=100, condition=4)


def test_a_row_has_the_same_answer_alone_and_in_company():
    subject = subject_of(knows_people(), faces_of(3))
    people = ClosedSet(GALLERY)
    together = people.logits(subject, subject.clean()[PROBES])
    for row, probe in enumerate(PROBES):
        assert torch.equal(people.logits(subject, subject.clean()[probe[None]])[0], together[row])
    assert people.logits(subject, subject.clean()[:0]).shape == (0, 3)


def test_every_subject_trains_a_head_of_its_own_once():
    faces = faces_of(3)
    one, other = (subject_of(knows_people(similarity=kind), faces) for kind in ("cosine", "neg_l2"))
    people = ClosedSet(GALLERY, "trained")
    first = people.logits(one, one.clean()[PROBES])
    assert not torch.equal(people.logits(other, other.clean()[PROBES]), first)
    assert torch.equal(people.logits(one, one.clean()[PROBES]), first)
    assert first.argmax(dim=1).tolist() == [0, 0, 1, 1, 2, 2]

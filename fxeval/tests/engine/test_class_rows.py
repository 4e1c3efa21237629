"""Closed sets: who is enrolled, what explainers see of it, and whom a model takes an image for."""

from dataclasses import dataclass, field

import pytest
import torch

from fxeval.contracts import ExplainerTraits
from fxeval.engine.class_rows import as_predicted, classes
from fxeval.engine.row_kinds import mated_pairs
from fxeval.engine.selection import load_pairs
from fxeval.metrics.classifier_deletion_retention import Parameters
from fxeval.run.workshop import Workshop
from fxeval.tests.evidence import subject_of
from fxeval.tests.roaming_people import Roaming, brightest_square, knows_people
from fxeval.tests.toy_world import SMALL, measured

KIND = "classifier.deletion_retention"
SOURCE = Roaming(32, looks=28)  # the last four look like the first four
PAIRS = load_pairs(SOURCE, SOURCE.listing(), SMALL)


def parameters(**given):
    return Parameters(**({"controls": ()} | given))


@pytest.mark.parametrize("each", [2, 3])
def test_nobody_who_is_asked_about_is_enrolled_with_the_same_image(each):
    table = classes(PAIRS, parameters(gallery_images=each))
    rows, people = table.rows, table.rows.question.people
    assert people.gallery.shape == (32, each)
    assert set(rows.enrolled.tolist()) == set(people.gallery.flatten().tolist())
    assert set(rows.enrolled.tolist()).isdisjoint(rows.image.tolist())
    assert sorted([*rows.enrolled.tolist(), *rows.image.tolist()]) == list(range(128))
    shown = table.faces.identity
    for row, image in enumerate(rows.image.tolist()):
        own = people.gallery[rows.question.truth[row]]
        assert set(shown[own].tolist()) == {int(shown[image])} == {int(rows.identities[row])}
        assert rows.against[row].tolist() == [own.tolist()]
    # The images of a person are taken in the order of their digests.
    digests = table.faces.image_digests
    for own in people.gallery.tolist():
        others = [image for image in rows.image.tolist() if shown[image] == shown[own[0]]]
        assert max(digests[one] for one in own) < min(digests[one] for one in others)


def test_what_a_model_predicts_is_asked_about_and_explained():
    rows = classes(PAIRS, parameters()).rows
    subject = subject_of(knows_people(), PAIRS.faces())
    found = as_predicted(rows, subject)
    question = found.question
    logits = question.people.logits(subject, subject.clean()[rows.image])
    assert torch.equal(question.target, logits.argmax(dim=1))
    assert torch.equal(question.truth, rows.question.truth)
    wrong = question.target != question.truth
    assert 0 < int(wrong.sum()) < 12  # only those who look alike
    assert torch.equal(found.against[:, 0], question.people.gallery[question.target])
    assert (
        question.margin(subject, torch.arange(len(rows)), subject.clean()[rows.image]) >= 0
    ).all()
    # The names of rows are of their images alone, so that rows of several models are compared.
    assert found.id == rows.id


def test_rows_that_are_no_classes_stay_as_they_are():
    rows = mated_pairs(PAIRS).rows
    assert as_predicted(rows, subject_of(knows_people(), PAIRS.faces())) is rows


@dataclass
class Noting:
    """Notes what it is given."""

    takes_centroids: bool
    seen: list = field(default_factory=list)

    @property
    def traits(self):
        return ExplainerTraits(needs={"gallery"}, takes_centroids=self.takes_centroids)

    def explain(self, model, probes, references, *, contrast=None, generator, gallery):
        self.seen += [
            (probe, reference, gallery, row)
            for row, (probe, reference) in enumerate(zip(probes, references, strict=True))
        ]
        return brightest_square(probes)


@pytest.mark.parametrize("takes_centroids", [True, False])
def test_explainers_see_the_gallery_of_the_predicted_class_and_no_probe(takes_centroids):
    explainer = Noting(takes_centroids)
    measured(
        KIND, parameters(gallery_images=3), explainer=explainer, source=SOURCE,
        network=knows_people(),
    )  # fmt: skip
    table = classes(PAIRS, parameters(gallery_images=3))
    subject = subject_of(knows_people(), table.faces)
    rows = as_predicted(table.rows, subject)
    images = table.faces.images.float() / 255
    row_of = {images[image].numpy().tobytes(): row for row, image in enumerate(rows.image.tolist())}
    enrolled = subject.clean()[rows.enrolled]
    met = set()
    for probe, reference, gallery, place in explainer.seen:
        row = row_of[probe.numpy().tobytes()]
        met.add(row)
        own = images[rows.against[row, 0]]
        assert torch.equal(reference, own if takes_centroids else own[0])
        assert torch.equal(gallery.embeddings, enrolled)
        named = table.faces.identity[rows.against[row, 0, 0]]
        # Whoever is in the image is a rival if the model takes it for somebody else.
        assert gallery.probe_identity[place] == gallery.reference_identity[place] == named
        names, _ = gallery.centroids()
        assert int(gallery.is_of_the_pair(names)[place].sum()) == 1
    assert met == set(range(len(rows)))


def test_maps_of_another_gallery_are_other_maps():
    explainer = Noting(takes_centroids=False)
    workshop = Workshop(batch_size=16, emit=lambda rows: None, progress=lambda *_: None)
    counts = []
    for each in (2, 3, 2):
        measured(
            KIND, parameters(gallery_images=each), explainer=explainer, source=SOURCE,
            network=knows_people(), workshop=workshop,
        )  # fmt: skip
        counts.append({len(gallery.identity) for *_, gallery, _ in explainer.seen})
        explainer.seen.clear()
    assert counts[:2] == [{64}, {96}]

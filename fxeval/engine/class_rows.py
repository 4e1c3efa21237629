"""The rows of a closed set: probes of people whose other images are the gallery."""

from dataclasses import replace

import torch

from fxeval.contracts import Pairs
from fxeval.engine.row_kinds import GENERATION_IMAGES, Table, ids_of, parted
from fxeval.errors import DataContractError
from fxeval.metrics.closed_set import SCALE, ClosedSet
from fxeval.metrics.protocol import Rows, Subject
from fxeval.metrics.questions import Confidence


def classes(pairs: Pairs, parameters: object) -> Table:
    """Return probes of a closed set.

    The images of a person are ordered by their digests: the first ``gallery_images`` (two unless
    the parameters name another number) are the gallery, all others are probes. People without a
    probe are left out.

    Raises:
        DataContractError: If fewer than two people have enough images.
    """
    faces = pairs.faces()
    each = getattr(parameters, "gallery_images", GENERATION_IMAGES)
    enrolled, probes = parted(faces, each, 1)
    if len(enrolled) < 2:
        text = (
            f"pairs '{pairs.name}': expected a closed set of at least 2 people with at least "
            f"{each + 1} images each, got 1. Use more people, or fewer gallery_images."
        )
        raise DataContractError(text, public=text)
    gallery = torch.stack(enrolled)  # (C, K)
    image = torch.cat(probes)
    truth = torch.arange(len(gallery)).repeat_interleave(torch.tensor([len(own) for own in probes]))
    people = ClosedSet(
        gallery,
        getattr(parameters, "head", "gallery"),
        getattr(parameters, "scale", SCALE),
        len(torch.unique(faces.identity[faces.identity >= 0])) - len(gallery),
    )
    rows = Rows(
        kind="classes",
        id=ids_of(faces, image, gallery[truth, 0]),
        image=image,
        source=image[:, None],
        against=gallery[truth][:, None],
        identities=faces.identity[image][:, None],
        is_mated=torch.ones(len(image), dtype=torch.bool),
        question=Confidence(truth, truth, people),
        enrolled=gallery.flatten(),
    )
    return Table(faces, rows)


def as_predicted(rows: Rows, subject: Subject) -> Rows:
    """Return rows of a closed set, asked about and explained as the class that a model predicts.

    Nobody tells a classifier who is in an image: it may be wrong, and its maps explain what it
    says. Rows of other kinds stay as they are.
    """
    question = rows.question
    if not isinstance(question, Confidence):
        return rows
    logits = question.people.logits(subject, subject.clean()[rows.image])
    predicted = logits.argmax(dim=1)
    return replace(
        rows,
        against=question.people.gallery[predicted][:, None],
        question=replace(question, target=predicted),
    )

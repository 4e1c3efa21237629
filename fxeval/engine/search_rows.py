"""The rows of searches in a gallery: probes of people who are enrolled."""

import math
from collections.abc import Sequence

import torch

from fxeval.contracts import Faces, Pairs
from fxeval.engine.row_kinds import Table, ids_of
from fxeval.errors import DataContractError
from fxeval.metrics.enrolled import Enrolled
from fxeval.metrics.protocol import Rows
from fxeval.metrics.questions import Rank
from fxeval.seeding import seed_of

GALLERY_IMAGES = 1
"""Enrolled images of a person, where a check names no number."""

LEAST_PEOPLE = 2
"""People in a gallery: with one, every search finds the mate."""


def searches(pairs: Pairs, seed: int, parameters: object) -> Table:
    """Return searches of people who are enrolled, one a probe.

    The images of a person are ordered by their digests: the first ``gallery_images`` are enrolled,
    the next ones, ``probes_each`` at most, are probes. Nobody is enrolled of whom no probe would be
    left, and neither is a share ``unenrolled`` of the others, drawn by the suite's seed: all their
    images are nonmated searches, which set thresholds and are no rows. A probe is explained against
    the first enrolled image of its person.

    Args:
        pairs: A whole list; its pairs say who is in its images.
        seed: The suite's.
        parameters: Of the check, with these three.

    Raises:
        DataContractError: If fewer than two people can be enrolled.
    """
    faces = pairs.faces()
    each = getattr(parameters, "gallery_images", GALLERY_IMAGES)
    most = getattr(parameters, "probes_each", None)
    known, unenrolled = _split(faces, each, getattr(parameters, "unenrolled", 0.0), seed)
    if len(known) < LEAST_PEOPLE:
        text = (
            f"pairs '{pairs.name}': expected at least {LEAST_PEOPLE} people to enrol, with more "
            f"than {each} images each, got {len(known)}. Use more people, or lower unenrolled or "
            "gallery_images."
        )
        raise DataContractError(text, public=text)
    probes = [images[each:][:most] for images in known]
    truth = torch.arange(len(known)).repeat_interleave(torch.tensor([*map(len, probes)]))
    gallery = torch.tensor([images[:each] for images in known])  # (P, each)
    image = torch.tensor([image for own in probes for image in own])
    enrolled = Enrolled(
        gallery.flatten(),
        torch.arange(len(known)).repeat_interleave(each),
        torch.tensor([image for images in unenrolled for image in images], dtype=torch.int64),
    )
    rows = Rows(
        kind="searches",
        id=ids_of(faces, image, gallery[truth, 0]),
        image=image,
        source=image[:, None],
        against=gallery[truth, :1],
        identities=faces.identity[image][:, None],
        is_mated=torch.ones(len(image), dtype=torch.bool),
        question=Rank(truth, enrolled),
        enrolled=enrolled.image,
    )
    return Table(faces, rows)


def _split(
    faces: Faces, each: int, share: float, seed: int
) -> tuple[list[list[int]], Sequence[list[int]]]:
    """Return the images of people who are enrolled, and of those who are not, by their digests."""
    digests, people = faces.image_digests, []
    for person in torch.unique(faces.identity[faces.identity >= 0]).tolist():
        images = (faces.identity == person).nonzero()[:, 0].tolist()
        people.append(sorted(images, key=lambda image: digests[image]))
    # By content, so that nothing depends on the numbers that people have in this list.
    people.sort(key=lambda images: digests[images[0]])
    few = [images for images in people if len(images) <= each]
    enough = [images for images in people if len(images) > each]
    drawn = sorted(enough, key=lambda images: seed_of(seed, "unenrolled", digests[images[0]]))
    out = drawn[: math.floor(share * len(enough) + 0.5)]
    return [images for images in enough if images not in out], [*out, *few]

"""Galleries of enrolled people, and searches in them (1:N identification)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.metrics.protocol import Subject

FALSE_POSITIVES = 10
"""False positives that a rate must allow, for a threshold at this rate to be measured."""


@dataclass(frozen=True, eq=False)
class Enrolled:
    """People whose images are enrolled, as a subject sees them.

    A person's similarity to a probe is that of the nearest of their images, in the subject's native
    similarity.

    Attributes:
        image: (G,) enrolled images; every subject embeds them itself, and none is perturbed.
        person: (G,) whose they are, 0 to P - 1; every number is there.
        unenrolled: (S,) images of people who are not enrolled: nonmated searches.

    Example:
        >>> some = Enrolled(torch.tensor([4, 7, 8]), torch.tensor([0, 1, 1]))
        >>> len(some)
        2
    """

    image: Tensor
    person: Tensor
    unenrolled: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    _galleries: dict[Subject, Embeddings] = field(default_factory=dict, init=False)
    _best: dict[Subject, Tensor] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return int(self.person.max()) + 1 if len(self.person) else 0

    def similarities(self, subject: Subject, embeddings: Embeddings) -> Tensor:
        """Return the (R, P) native similarities of (R, D) embeddings to each person, float64."""
        if subject not in self._galleries:
            self._galleries[subject] = _ready(subject, subject.clean()[self.image])
        gallery, compare = self._galleries[subject], _COMPARE[subject.similarity]
        found = embeddings.new_full((len(embeddings), len(self)), -torch.inf, dtype=torch.float64)
        # Row by row: the rounding of one product depends on the number of rows.
        for row, one in enumerate(_ready(subject, embeddings)):
            found[row].scatter_reduce_(0, self.person, compare(gallery, one), "amax")
        return found

    def threshold(self, subject: Subject, fpir: float) -> float | None:
        """Return the threshold at which so many nonmated searches return somebody, at most.

        A search returns somebody if the similarity to the nearest person is at least the threshold.

        Args:
            subject: The model.
            fpir: False positive identification rate, above 0 and below 1.

        Returns:
            In the native similarity; None if there are fewer than :func:`searches_needed` nonmated
            searches.

        Source:
            ISO/IEC 19795-1:2021, false-positive identification rate.
        """
        if len(self.unenrolled) < searches_needed(fpir):
            return None
        if subject not in self._best:
            clean = subject.clean()[self.unenrolled]
            self._best[subject] = self.similarities(subject, clean).amax(dim=1)
        ordered = self._best[subject].sort(descending=True).values
        last = float(ordered[math.floor(fpir * len(ordered) + 1e-9)])  # the first to be refused
        # A product rounds differently on another number of threads, by 1e-15; the next multiple
        # of 2^-40 but one hides that.
        return (math.floor(last * 2.0**40) + 2) / 2.0**40


def searches_needed(fpir: float) -> int:
    """Return how many nonmated searches a false positive identification rate needs.

    >>> searches_needed(0.1), searches_needed(0.01)
    (100, 1000)
    """
    return math.ceil(FALSE_POSITIVES / fpir - 1e-9)


def ranks_of(similarities: Tensor, mate: Tensor) -> Tensor:
    """Return the rank of each search's mate, (R,) int64, 1 = nearest; who ties comes before.

    Args:
        similarities: (R, P).
        mate: (R,) the mate of each.

    >>> ranks_of(torch.tensor([[0.3, 0.9, 0.3]]), torch.tensor([0])).item()
    3
    """
    own = similarities.gather(1, mate[:, None])
    return (similarities >= own).sum(dim=1)  # the mate itself is among them


def leads_of(similarities: Tensor, mate: Tensor) -> Tensor:
    """Return by how much each search's mate is nearer than the nearest other, (R,).

    Negative where the mate is not at rank 1, also where another ties with it.
    """
    own = mate[:, None]
    others = similarities.scatter(1, own, -torch.inf).amax(dim=1)
    lead = similarities.gather(1, own)[:, 0] - others
    return lead.masked_fill(lead == 0, -torch.finfo(lead.dtype).tiny)


def _ready(subject: Subject, embeddings: Embeddings) -> Embeddings:
    """Return embeddings in float64, of length 1 for cosine models."""
    found = embeddings.double()
    return F.normalize(found, dim=1, eps=1e-12) if subject.similarity == "cosine" else found


def _distance(gallery: Tensor, one: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(gallery - one, dim=1)
    return found.neg()


_COMPARE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": torch.mv,
    "neg_l2": _distance,
}

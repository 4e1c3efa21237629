"""The questions to a subject: similarity to a reference, margin, confidence, rank of the mate."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.functional.similarity import similarity
from fxeval.metrics.closed_set import ClosedSet
from fxeval.metrics.enrolled import Enrolled, leads_of, ranks_of
from fxeval.metrics.protocol import Subject


@dataclass(frozen=True, eq=False)
class Likeness:
    """Similarity of an image to its reference, or to the centroid of several references.

    The answer is the unclipped cosine; the decision is the native similarity at the model's
    operating threshold.

    Attributes:
        reference: (N, R) images, never perturbed.
    """

    unit: ClassVar[str] = "cosine similarity"

    reference: Tensor

    def answer(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the cosine."""
        return similarity("cosine", embeddings, self._references(subject, rows))

    def score(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the native similarity."""
        return similarity(subject.similarity, embeddings, self._references(subject, rows))

    def margin(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the native similarity less the operating threshold; NaN if there is none."""
        threshold = subject.operating_threshold
        if threshold is None:
            return torch.full((len(embeddings),), torch.nan, dtype=torch.float64)
        return self.score(subject, rows, embeddings).double() - threshold

    def take(self, rows: Tensor) -> "Likeness":
        """Return the question about some of the rows."""
        return Likeness(self.reference[rows])

    def _references(self, subject: Subject, rows: Tensor) -> Embeddings:
        clean, wanted = subject.clean(), self.reference[rows]
        if wanted.shape[1] == 1:
            return clean[wanted[:, 0]]
        if subject.similarity == "cosine":
            clean = F.normalize(clean.double(), dim=1, eps=1e-12).to(clean.dtype)
        return clean[wanted].mean(dim=1)


@dataclass(frozen=True, eq=False)
class Margin:
    """Similarity of an image to its mate minus that to its nonmate: a triplet.

    Attributes:
        mate: (N,) images of the same person.
        nonmate: (N,) images of others.
    """

    unit: ClassVar[str] = "difference of cosine similarities"

    mate: Tensor
    nonmate: Tensor

    def answer(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the cosine with the mate less that with the nonmate."""
        return self._difference("cosine", subject, rows, embeddings)

    def score(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the same in the native similarity."""
        return self._difference(subject.similarity, subject, rows, embeddings)

    def margin(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the same in the native similarity: negative = nearer to the nonmate."""
        return self.score(subject, rows, embeddings).double()

    def take(self, rows: Tensor) -> "Margin":
        """Return the question about some of the rows."""
        return replace(self, mate=self.mate[rows], nonmate=self.nonmate[rows])

    def _difference(
        self, kind: str, subject: Subject, rows: Tensor, embeddings: Embeddings
    ) -> Tensor:
        mate, nonmate = (subject.clean()[which[rows]] for which in (self.mate, self.nonmate))
        return similarity(kind, embeddings, mate) - similarity(kind, embeddings, nonmate)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Confidence:
    """Confidence of a classifier on the embedding in a row's class.

    Attributes:
        target: (N,) class that each row is asked about.
        truth: (N,) class of the person in the image.
        people: The classifier.
    """

    unit: ClassVar[str] = "probability"

    target: Tensor
    truth: Tensor
    people: ClosedSet

    def answer(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the probability of the target."""
        found = self.people.logits(subject, embeddings).softmax(dim=1)
        return found.gather(1, self.target[rows][:, None])[:, 0]

    def score(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the probability of the target, as a classifier has no other similarity."""
        return self.answer(subject, rows, embeddings)

    def margin(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the target's logit less the largest other one: negative = another is named."""
        found = self.people.logits(subject, embeddings)
        own = self.target[rows][:, None]
        others = found.scatter(1, own, -torch.inf).amax(dim=1)
        return found.gather(1, own)[:, 0] - others

    def take(self, rows: Tensor) -> "Confidence":
        """Return the question about some of the rows."""
        return replace(self, target=self.target[rows], truth=self.truth[rows])


@dataclass(frozen=True, eq=False)
class Rank:
    """Place of the mate among all people who are enrolled.

    Attributes:
        mate: (N,) number of each row's person among them.
        people: Who is enrolled.
    """

    unit: ClassVar[str] = "reciprocal rank"

    mate: Tensor
    people: Enrolled

    def answer(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return 1 / rank, in (0, 1]."""
        found = self.people.similarities(subject, embeddings)
        return 1.0 / ranks_of(found, self.mate[rows]).double()

    def score(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the native similarity to the mate."""
        found = self.people.similarities(subject, embeddings)
        return found.gather(1, self.mate[rows][:, None])[:, 0]

    def margin(self, subject: Subject, rows: Tensor, embeddings: Embeddings) -> Tensor:
        """Return the similarity to the mate less the largest other one: negative = not first."""
        return leads_of(self.people.similarities(subject, embeddings), self.mate[rows])

    def take(self, rows: Tensor) -> "Rank":
        """Return the question about some of the rows."""
        return replace(self, mate=self.mate[rows])

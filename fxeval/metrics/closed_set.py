"""Subjects as classifiers of a closed set of people."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.functional.class_heads import ClassHead, gallery_head, trained_head
from fxeval.metrics.protocol import Subject

HeadKind = Literal["gallery", "trained"]

SCALE = 64.0
"""Of the cosine, as the softmax losses of face recognition scale it."""

PENALTY = 1e-3
"""On the squared weights of a trained head."""


@dataclass(frozen=True, eq=False)
class ClosedSet:
    """People as the classes of a classifier on a subject's embedding.

    Attributes:
        gallery: (C, K) images of each person, which every subject embeds itself.
        head: ``gallery``: softmax of the scaled similarity to the centroid of each class
            (:func:`fxeval.functional.class_heads.gallery_head`). ``trained``: softmax regression on
            the embeddings of the gallery, divided by their length for cosine models
            (:func:`fxeval.functional.class_heads.trained_head`).
        scale: Of the similarity; the trained head has none.
        left_out: Number of people who were asked for and have too few images.
    """

    gallery: Tensor
    head: HeadKind = "gallery"
    scale: float = SCALE
    left_out: int = 0
    _made: dict[Subject, ClassHead] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.gallery)

    def logits(self, subject: Subject, embeddings: Embeddings) -> Tensor:
        """Return the (R, C) logits of (R, D) embeddings, float64.

        Raises:
            EvidenceError: If the head cannot be trained.
        """
        if subject not in self._made:
            self._made[subject] = self._head(subject)
        return self._made[subject].logits(embeddings)

    def _head(self, subject: Subject) -> ClassHead:
        classes, each = self.gallery.shape
        target = torch.arange(classes).repeat_interleave(each)
        enrolled = subject.clean()[self.gallery.flatten()]
        if self.head == "gallery":
            return gallery_head(subject.similarity, enrolled, target, self.scale)
        is_unit = subject.similarity == "cosine"
        return trained_head(enrolled, target, classes, PENALTY, is_unit=is_unit)

"""Linear classifiers of people on features of their images: logits are ``weight . x + bias``.

Two ways to the weights: the centroids of a gallery (:func:`gallery_head`), or softmax regression on
the features of labelled images (:func:`trained_head`).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import Embeddings, Gallery, SimilarityKind
from fxeval.errors import EvidenceError

ITERATIONS = 1000
"""Maximum number of solver steps; it converges in about a tenth of that."""

_FLATTEST = 1e-7  # largest slope at which the solver's answer counts as found
_MEMORY = 20  # moves that the solver remembers
_SHORTEST = 1e-9  # shortest step, relative to the one that the solver proposes


@dataclass(frozen=True, eq=False)
class ClassHead:
    """A linear classifier.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
        is_unit: x is the feature divided by its length.
    """

    weight: Tensor
    bias: Tensor
    is_unit: bool = False

    def logits(self, features: Tensor) -> Tensor:
        """Return (R, C) float64 logits of (R, D) features; a row's do not depend on the others."""
        found = features.to(self.weight)
        if self.is_unit:
            found = F.normalize(found, dim=1, eps=1e-12)
        # Row by row: the rounding of one product depends on the number of rows.
        rows = [self.weight @ row for row in found]
        return torch.stack(rows) + self.bias if rows else found.new_zeros(0, len(self.bias))


def gallery_head(
    kind: SimilarityKind, embeddings: Embeddings, target: Tensor, scale: float
) -> ClassHead:
    """Return the classifier by the similarity to the centroid of each class's embeddings.

    For ``cosine``, logits are scale * cos to the unit centroid of each class's unit embeddings. For
    ``neg_l2`` they are scale * (2 r . e - |r|^2) with the centroid r of the raw embeddings; up to
    |e|^2, common to all classes, that is minus scale times the squared distance, so that the
    probabilities are those of the distances.

    Args:
        kind: The model's native similarity.
        embeddings: (G, D).
        target: (G,) the class of each, 0 to C - 1, of which every one is there.
        scale: Above 0.
    """
    _, centroids = class_centroids(kind, Gallery(embeddings, target, target[:0]))
    weight = scale * class_weights(kind, centroids)
    is_unit = kind == "cosine"
    bias = weight.new_zeros(len(weight)) if is_unit else -scale * centroids.square().sum(dim=1)
    return ClassHead(weight, bias, is_unit)


def trained_head(
    features: Tensor, target: Tensor, n_classes: int, penalty: float, *, is_unit: bool = False
) -> ClassHead:
    """Train a classifier: softmax regression, each feature scaled to mean 0 and deviation 1.

    It minimises the mean cross-entropy plus penalty / 2 times the sum of all squared weights; the
    solution is unique, and nothing is drawn at random.

    Args:
        features: (N, D).
        target: (N,) the class of each.
        n_classes: C.
        penalty: Above 0; larger = smaller weights.
        is_unit: Divide each feature vector by its length first.

    Raises:
        EvidenceError: If the solver does not converge: the penalty is too small.
    """
    found = features.double()
    if is_unit:
        found = F.normalize(found, dim=1, eps=1e-12)
    centre, spread = found.mean(dim=0), found.std(dim=0, correction=0)
    # The spread of a constant channel is rounding; dividing by it would only amplify noise.
    spread = torch.where(spread > 1e-6 * found.abs().amax(dim=0), spread, 1.0)
    weight, bias = _softmax_regression((found - centre) / spread, target, n_classes, penalty)
    weight = weight / spread
    return ClassHead(weight, bias - weight @ centre, is_unit)


def class_centroids(kind: SimilarityKind, gallery: Gallery) -> tuple[Tensor, Tensor]:
    """Return a gallery's I identities (int64), and their (I, D) float64 centroids.

    Unit centroids of unit embeddings for ``cosine``, means of the raw ones for ``neg_l2``.
    """
    names, centroids = gallery.centroids()
    if kind == "neg_l2":
        raw = gallery.embeddings.double()
        centroids = torch.stack([raw[gallery.identity == name].mean(dim=0) for name in names])
    return names, centroids


def class_weights(kind: SimilarityKind, embeddings: Embeddings) -> Tensor:
    """Return the (n, D) float64 weights of identities as linear classes, from their centroids."""
    return F.normalize(embeddings.double(), dim=1) if kind == "cosine" else 2 * embeddings.double()


def _softmax_regression(
    features: Tensor, target: Tensor, n_classes: int, penalty: float
) -> tuple[Tensor, Tensor]:
    """Return the (C, D) weight and the (C,) bias that minimise the penalised cross-entropy.

    L-BFGS from zero, with steps halved until the value falls enough (Nocedal and Wright, Numerical
    Optimization, 2006, algorithms 3.1 and 7.5).
    """
    x = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    chosen = F.one_hot(target, n_classes).to(x)
    shrink = torch.full_like(x[0], penalty)
    shrink[-1] = 0.0  # the bias is free

    def look(point: Tensor) -> tuple[float, Tensor]:
        logits = x @ point.T
        loss = (logits.logsumexp(dim=1) - (logits * chosen).sum(dim=1)).mean()
        slope = (logits.softmax(dim=1) - chosen).T @ x / len(x) + shrink * point
        return float(loss + (shrink * point.square()).sum() / 2), slope

    point = x.new_zeros(n_classes, x.shape[1])
    value, slope = look(point)
    moves: deque[tuple[Tensor, Tensor]] = deque(maxlen=_MEMORY)
    for _ in range(ITERATIONS):
        if float(slope.abs().max()) <= _FLATTEST:
            return point[:, :-1], point[:, -1]
        step = -_newton_like(slope, moves)
        fall = 1e-4 * float((slope * step).sum())  # the Armijo condition's sufficient decrease
        size = 1.0
        found, there = look(point + step)
        while found > value + size * fall and size > _SHORTEST:
            size /= 2
            found, there = look(point + size * step)
        moves.append((size * step, there - slope))
        point, value, slope = point + size * step, found, there
    raise EvidenceError(
        f"softmax regression: no solution within {ITERATIONS} steps (slope "
        f"{float(slope.abs().max()):.1e}). Raise the penalty, now {penalty:g}."
    )


def _newton_like(slope: Tensor, moves: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the slope times the inverse curvature that past moves and slope changes imply."""
    result, shares = slope.clone(), []
    for move, change in reversed(moves):
        share = (move * result).sum() / (move * change).sum()
        result -= share * change
        shares.append(share)
    if moves:
        move, change = moves[-1]
        result *= (move * change).sum() / change.square().sum()
    for (move, change), share in zip(moves, reversed(shares), strict=True):
        result += (share - (change * result).sum() / (move * change).sum()) * move
    return result

"""The cloud of clean embeddings, and which perturbed images have left it."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.metrics.protocol import Evidence, FloatArray, Subject

WITHIN = 0.99
"""Share of the clean images that are within the cloud's radius of another one."""

_AT_ONCE = 1024  # embeddings that are compared with the whole cloud at once
_ROUNDING = 1e-9  # an image is not outside for the last digits of its distance


@dataclass(frozen=True, eq=False)
class Cloud:
    """Clean embeddings, and how far the nearest one of them ordinarily is.

    The distance of two embeddings is 1 minus their cosine. An image is **outside** if its nearest
    clean image is farther away than the radius.

    Attributes:
        of: (M, D) the embeddings as the subject returns them; they name the cloud.
        unit: (M, D) float64, of length 1.
        radius: Quantile ``WITHIN`` of the distances from each clean image to its nearest other one;
            NaN if there are fewer than two.

    Example:
        >>> import torch
        >>> cloud = cloud_of(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.1, 1.0]]))
        >>> cloud.outside(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        array([0., 1.])
    """

    of: Embeddings
    unit: Tensor
    radius: float

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.of.nbytes + self.unit.nbytes

    def outside(self, embeddings: Embeddings) -> FloatArray:
        """Say which of (R, D) embeddings are outside: (R,) 0 or 1, NaN without a radius."""
        if np.isnan(self.radius):
            return np.full(len(embeddings), np.nan)
        return (self.nearest(embeddings) > self.radius + _ROUNDING).astype(np.float64)

    def nearest(self, embeddings: Embeddings) -> FloatArray:
        """Return the distance of each of (R, D) embeddings to its nearest clean one, (R,)."""
        unit, found = _unit(embeddings), np.empty(len(embeddings))
        for start in range(0, len(unit), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found[part] = 1.0 - (unit[part] @ self.unit.T).amax(dim=1).numpy()
        return found


def clean_cloud(evidence: Evidence, on: Subject) -> Cloud:
    """Return the cloud of all clean images of a cell, made once for all of its groups."""
    clean = on.clean()
    found: Cloud = evidence.kept.get(("clean cloud", id(clean)), lambda: cloud_of(clean))
    return found


def cloud_of(clean: Embeddings) -> Cloud:
    """Return the cloud of (M, D) clean embeddings."""
    unit, nearest = _unit(clean), []
    for start in range(0, len(unit), _AT_ONCE):
        cosine = unit[start : start + _AT_ONCE] @ unit.T
        cosine.diagonal(start).fill_(-np.inf)  # an image is not its own neighbour
        nearest.append(1.0 - cosine.amax(dim=1).numpy())
    radius = float(np.quantile(np.concatenate(nearest), WITHIN)) if len(unit) > 1 else np.nan
    return Cloud(clean, unit, radius)


def _unit(embeddings: Embeddings) -> Tensor:
    return F.normalize(embeddings.double(), dim=1, eps=1e-12)

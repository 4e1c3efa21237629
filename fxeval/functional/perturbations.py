"""Images that are described but not made: which pixels are removed, and what replaces them."""

from dataclasses import dataclass

from torch import Tensor

DONOR = "donor"
"""The fill that replaces removed pixels by those of another image at the same places."""


@dataclass(frozen=True, eq=False)
class Perturbations:
    """R images, described but not yet made: which pixels of which image are replaced by a fill.

    In image ``image[r]`` the pixels are replaced whose rank under ``ranks[ranking[r]]`` lies in
    ``first[r] <= rank < last[r]``. Deletion of k pixels is [0, k), insertion of k is [k, n).

    Attributes:
        image: (R,) int64, row of ``Faces.images``.
        ranks: (Q, H*W) int32, rank of each pixel, 0 = most salient
            (``fxeval.functional.ranking.ranks``).
        ranking: (R,) int64, row of ``ranks``.
        first: (R,) int64.
        last: (R,) int64.
        fill: Name of the fill (``fxeval.functional.fills.fills``), or ``DONOR``.
        donor: (R,) int64, row of ``Faces.images``, whose pixels replace those that are removed; for
            the fill ``DONOR`` alone.
    """

    image: Tensor
    ranks: Tensor
    ranking: Tensor
    first: Tensor
    last: Tensor
    fill: str
    donor: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.donor is not None) != (self.fill == DONOR):
            raise ValueError(f"perturbations: expected donors for the fill '{DONOR}' alone")

    def __len__(self) -> int:
        return len(self.image)

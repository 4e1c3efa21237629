"""The comparisons behind rows whose map is the mean over several images of a person."""

from dataclasses import dataclass

import torch

from fxeval.contracts import Faces
from fxeval.engine.inputs import Comparison
from fxeval.metrics.protocol import Rows


@dataclass(frozen=True, eq=False)
class Sources:
    """Distinct comparisons, and which of them each row's map is the mean of.

    Attributes:
        asked: Comparisons with equally many references each; together M comparisons.
        places: For each row, its places among the M.
    """

    asked: tuple[Comparison, ...]
    places: tuple[tuple[int, ...], ...]


def sources_of(rows: Rows, faces: Faces, seed: int, *, takes_centroids: bool) -> Sources:
    """Collect the comparisons of some rows, each distinct one once.

    Args:
        rows: With one source or more each, -1 where there are fewer.
        faces: Owns the images.
        seed: Index of the explainer's seed.
        takes_centroids: Whether a source is compared with the centroid of all its references, or
            with the first one.
    """
    wanted: dict[tuple[int, tuple[int, ...]], None] = {}
    by_row: list[list[tuple[int, tuple[int, ...]]]] = []
    against = rows.against if rows.against.ndim == 3 else rows.against[:, :, None]
    for sources, references in zip(rows.source.tolist(), against.tolist(), strict=True):
        own = []
        for source, several in zip(sources, references, strict=True):
            known = tuple(one for one in several if one >= 0)
            if source >= 0:
                own.append((source, known if takes_centroids else known[:1]))
        by_row.append(own)
        wanted |= dict.fromkeys(own)
    # By content, so that nothing depends on which rows come first.
    digests = faces.image_digests
    ordered = sorted(
        wanted,
        key=lambda one: (len(one[1]), digests[one[0]], [digests[other] for other in one[1]]),
    )
    place = {one: number for number, one in enumerate(ordered)}
    asked = []
    for count in dict.fromkeys(len(references) for _, references in ordered):
        some = [one for one in ordered if len(one[1]) == count]
        images = torch.tensor([source for source, _ in some])
        several = torch.tensor([references for _, references in some])
        names = tuple(
            "-".join(digests[one][:12] for one in (source, *references))
            for source, references in some
        )
        single = several[:, 0] if count == 1 else several
        asked.append(Comparison(faces, names, images, single, None, seed, None, rows.enrolled))
    return Sources(tuple(asked), tuple(tuple(place[one] for one in own) for own in by_row))

"""Twins of a folder of aligned faces: images in which one part, and nothing else, is another.

The manifest names a file of changes and lists triplets:

``"twins": {"file": "twins.npz", "sha256": ..., "triplets": [{"kind": "redrawn", "part": "nose",
"probe": "7_0.jpg", "mate": "7_1.jpg", "identity": 7, "twin_identity": "7-nose"}, ...]}``

The probe and the mate show one identity, and each has a twin: the image, as decoded, plus a change
of some of its pixels. Both twins show the same other identity. The id of a twin is that of its
image and its part, such as ``7_0.jpg+nose`` or ``7_0.jpg+nose-pasted``.

The file has three arrays of uint8, in the order of the triplets, the probe's change before the
mate's:

* ``boxes``: (2T, 4) top, left, height and width of the box of changed pixels;
* ``masks``: the boxes' masks in row-major order, each filled up to whole bytes, the first pixel in
  the highest bit;
* ``values``: (3, n) changes of the n changed pixels, in steps of ``STEP`` grey levels, modulo 256:
  green, red less green, and blue less green, each less that of the pixel before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fxeval.datasets.faces.stored_arrays import StoredArrays
from fxeval.datasets.faults import each, of_list
from fxeval.strict.text import brief, printable

STEP = 3
"""Grey levels: all changes are multiples of it."""

KINDS = ("redrawn", "pasted")

MAX_TRIPLETS = 10_000
"""Most triplets of a folder."""

MAX_PIXELS = 20_000_000
"""Most pixels in the boxes of a folder; they take half a gigabyte while they are read."""

_MOST_STEPS = 255 // STEP
_AGAIN = "Get the folder again."
_KEYS = ("kind", "part", "probe", "mate", "identity", "twin_identity")


@dataclass(frozen=True)
class Triplet:
    """Two images of one identity and the twins of both.

    Attributes:
        kind: ``redrawn``: the part is another one; ``pasted``: it is cut from another image.
        part: Name of the part that is another in the twins.
        probe, mate: Files of the images.
        identity: Person in the images.
        twin_identity: Person in the twins.
    """

    kind: str
    part: str
    probe: str
    mate: str
    identity: str
    twin_identity: str

    @property
    def probe_twin(self) -> str:
        """Id of the probe's twin."""
        return self._twin_of(self.probe)

    @property
    def mate_twin(self) -> str:
        """Id of the mate's twin."""
        return self._twin_of(self.mate)

    def _twin_of(self, file: str) -> str:
        return f"{file}+{self.part}{'' if self.kind == 'redrawn' else f'-{self.kind}'}"


@dataclass(frozen=True, eq=False)
class Change:
    """The change that makes an image its twin.

    Attributes:
        file: The image.
        size: Its height and width.
        top, left: Place of the box of changed pixels.
        levels: (h, w, 3) int16 change of red, green and blue; 0 in pixels that stay.
    """

    file: str
    size: tuple[int, int]
    top: int
    left: int
    levels: NDArray[np.int16]

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the twin of an (H, W, 3) uint8 RGB image; values end at 0 and 255."""
        twin = image.astype(np.int16)
        twin[self._box] += self.levels
        return np.asarray(np.clip(twin, 0, 255), np.uint8)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) where a pixel changes."""
        mask = np.zeros(self.size, bool)
        mask[self._box] = self.levels.any(2)
        return mask

    @property
    def _box(self) -> tuple[slice, slice]:
        height, width = self.levels.shape[:2]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class Twins:
    """The twins of a folder; their changes are read when first asked for.

    Attributes:
        root: The folder.
        where: Its manifest, for messages.
        size: Height and width of its images.
        entry: What the manifest says under ``twins``.
        identities: Identity in each image, by file.
    """

    root: Path
    where: str
    size: tuple[int, int]
    entry: object
    identities: Mapping[str, str]

    @cached_property
    def triplets(self) -> tuple[Triplet, ...]:
        """All triplets, in the order of the manifest.

        Raises:
            DataContractError: If the manifest does not list triplets of its images.
        """
        given = self.entry.get("triplets") if isinstance(self.entry, dict) else None
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_TRIPLETS:
            raise of_list(
                self.where, f"expected 'twins' to be an object with 1 to {MAX_TRIPLETS} 'triplets'",
                f", got {printable(brief(repr(self.entry)))}", "Use a folder with twins.",
            )  # fmt: skip
        found = each(list(enumerate(given)), lambda numbered: self._triplet(*numbered))
        taken = {*self.identities}
        for id in (id for triplet in found for id in (triplet.probe_twin, triplet.mate_twin)):
            if id in taken:
                raise of_list(
                    f"{self.where}: twins", "expected each twin once, and no image of its name",
                    f", got {printable(brief(id))} twice", "Correct the manifest.",
                )  # fmt: skip
            taken.add(id)
        return tuple(found)

    @cached_property
    def changes(self) -> Mapping[str, Change]:
        """The change of each twin, by the twin's id.

        Raises:
            DataContractError: If the manifest or the file of changes is damaged.
        """
        places = [
            (id, file)
            for triplet in self.triplets
            for id, file in (
                (triplet.probe_twin, triplet.probe), (triplet.mate_twin, triplet.mate),
            )
        ]  # fmt: skip
        stored = StoredArrays.read(self.root, self.entry, "twins", self.where)
        found = _changes(stored, len(places), self.size)
        return {
            id: Change(file, self.size, *place, levels)
            for (id, file), (place, levels) in zip(places, found, strict=True)
        }

    def _triplet(self, number: int, given: object) -> Triplet:
        where = f"{self.where}: twins.triplets[{number}]"
        if not isinstance(given, dict) or not {*_KEYS} <= given.keys():
            raise of_list(
                where, f"expected an object with {', '.join(map(repr, _KEYS))}",
                f", got {printable(brief(repr(given)))}", "Correct the manifest.",
            )  # fmt: skip
        values = [given[key] for key in _KEYS]
        if not all(isinstance(value, str | int) and _is_plain(str(value)) for value in values):
            raise of_list(
                where, "expected printable names of 1 to 255 characters",
                f", got {printable(brief(repr(given)))}", "Correct the manifest.",
            )  # fmt: skip
        triplet = Triplet(*map(str, values))
        expected = (
            (triplet.kind in KINDS, f"expected 'kind' to be {' or '.join(map(repr, KINDS))}"),
            (triplet.probe != triplet.mate, "expected two images, got one as probe and as mate"),
            (
                triplet.identity != triplet.twin_identity,
                "expected the twins to be another identity",
            ),
            (
                all(
                    self.identities.get(file) == triplet.identity
                    for file in (triplet.probe, triplet.mate)
                ),
                "expected 'probe' and 'mate' to be images of 'identity'",
            ),
        )
        for is_so, said in expected:
            if not is_so:
                shown = f" ({printable(brief(repr(given)))})"
                raise of_list(where, said, shown, "Correct the manifest.")
        return triplet


def _is_plain(name: str) -> bool:
    return 1 <= len(name) <= 255 and name.isprintable()


def _changes(
    stored: StoredArrays, number: int, size: tuple[int, int]
) -> Sequence[tuple[tuple[int, int], NDArray[np.int16]]]:
    """Return top and left, and the levels, of every change."""
    boxes = stored.take("boxes", (number, 4)).astype(np.int64)
    ends = boxes[:, :2] + boxes[:, 2:]
    if (boxes[:, 2:] < 1).any() or (ends > size).any():
        raise of_list(stored.path, f"expected boxes within {size[0]} x {size[1]}", then=_AGAIN)
    areas = boxes[:, 2] * boxes[:, 3]
    if areas.sum() > MAX_PIXELS:
        said = f"expected boxes of at most {MAX_PIXELS} pixels in all"
        raise of_list(stored.path, said, f", got {areas.sum()}", _AGAIN)
    lengths = -(-areas // 8)
    bits = np.unpackbits(stored.take("masks", (int(lengths.sum()),)))
    stored_steps = stored.take("values", (3, int(bits.sum())))
    green, red, blue = np.cumsum(stored_steps, axis=1, dtype=np.uint8)
    steps = np.stack([red + green, green, blue + green], axis=1).view(np.int8)
    starts = np.concatenate([[0], np.cumsum(8 * lengths)])
    is_in_box = np.concatenate([np.arange(8 * n) < a for n, a in zip(lengths, areas, strict=True)])
    is_out = np.abs(steps.astype(np.int16)) > _MOST_STEPS
    if bits[~is_in_box].any() or not steps.any(1).all() or is_out.any():
        raise of_list(stored.path, "expected a visible change of every pixel marked", then=_AGAIN)
    found, read = [], 0
    for box, start, area in zip(boxes.tolist(), starts.tolist(), areas.tolist(), strict=False):
        top, left, height, width = box
        mask = bits[start : start + area].reshape(height, width).astype(bool)
        levels = np.zeros((height, width, 3), np.int16)
        levels[mask] = STEP * steps[read : read + int(mask.sum())].astype(np.int16)
        read += int(mask.sum())
        found.append(((top, left), levels))
    return found

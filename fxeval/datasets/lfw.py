"""Pairs of real faces in the form of Labeled Faces in the Wild (View 2).

A folder holds the images, a JSON manifest with the landmarks of each, and a pair list in the
format of LFW's ``pairs.txt``. LFW is a benchmark for research: its authors say that performance on
it must not be used to conclude that an algorithm is fit for any commercial purpose.

People's names stay in the folder and in error messages about it: images and identities are called
by digests.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import Crop, Exclusion, PairListing
from fxeval.datasets.alignment import align, read_image
from fxeval.errors import DataContractError

MAX_TEXT_BYTES = 64 << 20
"""Largest manifest or pair list read."""

Face = tuple[str, int]
"""A person's name and the number of the image."""


@dataclass(frozen=True)
class PairLine:
    """One line of a pair list.

    Attributes:
        probe: The first image.
        reference: The second image.
        where: ``file:line``.
    """

    probe: Face
    reference: Face
    where: str

    @property
    def is_mated(self) -> bool:
        """Whether both images show one person."""
        return self.probe[0] == self.reference[0]


@dataclass(frozen=True)
class LfwPairs:
    """An LFW pair list on a folder of images with a manifest; implements ``PairSource``.

    Attributes:
        root: The folder.
        pairs_file: The pair list; a relative path starts at the root.
        errata_file: Pair lines without header, ``#`` comments allowed: pairs known to be labelled
            wrongly, which become exclusions; None = none.
        manifest_file: JSON with ``images``: objects with ``file``, ``sha256``, ``identity``,
            ``number`` and ``landmarks5``.
        name: Id shown in reports.
        banner: None: real faces need no warning.
    """

    root: Path
    pairs_file: Path = Path("pairs/lfw_view2.txt")
    errata_file: Path | None = None
    manifest_file: Path = Path("faces_manifest.json")
    name: str = "lfw_view2"
    banner: str | None = None

    def listing(self) -> PairListing:
        """Return all pairs but the excluded ones, in the order of the list.

        Raises:
            DataContractError: With ``file:line``, if a line is wrong or names an unknown image.
        """
        path = self.root / self.pairs_file
        wrong = set() if self.errata_file is None else self._errata(self.root / self.errata_file)
        kept, excluded = [], []
        for line in parse_pairs(_read_text(path), str(path)):
            one, two = self._image(line.probe, line.where), self._image(line.reference, line.where)
            if frozenset((line.probe, line.reference)) in wrong:
                reason = f"{Path(str(self.errata_file)).name} lists it as labelled wrongly"
                excluded.append(Exclusion(f"{one.id}-{two.id}", reason))
            else:
                kept.append((one, two, line.is_mated))
        return PairListing(
            probe=tuple(one.id for one, _, _ in kept),
            reference=tuple(two.id for _, two, _ in kept),
            is_mated=tuple(is_mated for _, _, is_mated in kept),
            probe_identity=tuple(one.identity for one, _, _ in kept),
            reference_identity=tuple(two.identity for _, two, _ in kept),
            excluded=tuple(excluded),
        )

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces aligned to the crop, in the order of the ids.

        Raises:
            DataContractError: Naming every file that is missing, unreadable or not the one the
                manifest describes.
        """
        known = {image.id: image for image in self._manifest.values()}
        faces = np.empty((len(image_ids), *crop.size, 3), np.uint8)
        faults = []
        for row, image_id in enumerate(image_ids):
            try:
                if image_id not in known:
                    raise DataContractError(f"{self.root}: the manifest has no image '{image_id}'.")
                faces[row] = self._aligned(known[image_id], crop)
            except DataContractError as error:
                faults.append(str(error))
        if faults:
            raise DataContractError(
                f"pairs '{self.name}': {len(faults)} of {len(image_ids)} images cannot be used:\n"
                + "\n".join(f"  {fault}" for fault in faults)
            )
        return torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous()

    def _aligned(self, image: "_Image", crop: Crop) -> np.ndarray:
        path = _inside(self.root, image.file, image.where)
        pixels = read_image(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != image.sha256:
            raise DataContractError(
                f"{path}: SHA-256 {image.sha256} expected ({image.where}), got {digest}. The "
                "landmarks belong to another file: fetch the image again."
            )
        return align(pixels, image.landmarks, crop)

    def _image(self, face: Face, where: str) -> "_Image":
        if face not in self._manifest:
            raise DataContractError(
                f"{where}: image {face[1]} of '{face[0]}' is not in the manifest "
                f"{self.root / self.manifest_file}. Correct the line or add the image."
            )
        return self._manifest[face]

    def _errata(self, path: Path) -> set[frozenset[Face]]:
        lines = enumerate(_read_text(path).splitlines(), start=1)
        used = ((number, line) for number, line in lines if line.strip() and line[0] != "#")
        parsed = (_pair_line(line, f"{path}:{number}") for number, line in used)
        return {frozenset((line.probe, line.reference)) for line in parsed}

    @cached_property
    def _manifest(self) -> dict[Face, "_Image"]:
        path = self.root / self.manifest_file
        try:
            entries = list(json.loads(_read_text(path))["images"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataContractError(
                f"{path}: JSON with a list 'images' expected ({error!r})."
            ) from error
        pairs = [_manifest_entry(e, f"{path}: images[{i}]") for i, e in enumerate(entries)]
        manifest = dict(pairs)
        if len(manifest) != len(pairs) or len({i.id for i in manifest.values()}) != len(pairs):
            raise DataContractError(
                f"{path}: {len(pairs)} different images expected, but some share identity and "
                "number, or content. Remove the repetitions."
            )
        return manifest


@dataclass(frozen=True)
class _Image:
    """An entry of the manifest."""

    file: str
    sha256: str
    identity: str
    landmarks: tuple[tuple[float, float], ...]
    where: str

    @property
    def id(self) -> str:
        return self.sha256[:16]


def parse_pairs(text: str, where: str) -> list[PairLine]:
    r"""Parse a list in the format of LFW's ``pairs.txt``.

    The header is ``folds<TAB>n`` (View 2), or ``n`` for one fold (View 1). Each fold has n lines
    ``name i j`` (mated), then n lines ``name1 i name2 j`` (nonmated).

    Args:
        text: The file's text.
        where: Its path, for messages.

    Returns:
        folds·2n pairs in the order of the file.

    Raises:
        DataContractError: With ``file:line``, expected and found.

    >>> [line.is_mated for line in parse_pairs("1\t1\nAnn\t1\t2\nAnn\t1\tBob\t1", "x")]
    [True, False]
    """
    header, *lines = text.rstrip().splitlines() or [""]
    counts = header.split()
    if not 1 <= len(counts) <= 2 or not all(_NUMBER.fullmatch(count) for count in counts):
        raise DataContractError(
            f"{where}:1: header 'folds<TAB>pairs of each kind in a fold' expected, got {header!r}."
        )
    n_folds, n = (1, *map(int, counts))[-2:]
    if len(lines) != 2 * n_folds * n:
        raise DataContractError(
            f"{where}: {2 * n_folds * n} pairs expected (the header says {n_folds} folds of {n} "
            f"mated and {n} nonmated), got {len(lines)} lines. The list is cut or its header wrong."
        )
    pairs = []
    for index, line in enumerate(lines):
        pair = _pair_line(line, f"{where}:{index + 2}")
        mated_expected = index // n % 2 == 0
        if pair.is_mated != mated_expected:
            kind, form = (
                ("mated", "name i j") if mated_expected else ("nonmated", "name1 i name2 j")
            )
            raise DataContractError(
                f"{pair.where}: a {kind} pair '{form}' expected here, got {line!r}. Each fold has "
                f"{n} mated lines, then {n} nonmated ones."
            )
        pairs.append(pair)
    return pairs


_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


def _pair_line(line: str, where: str) -> PairLine:
    fields = line.split()
    if len(fields) == 3:
        fields.insert(2, fields[0])
    numbers = fields[1::2]
    if len(fields) != 4 or not all(_NUMBER.fullmatch(number) for number in numbers):
        raise DataContractError(
            f"{where}: 'name i j' or 'name1 i name2 j' with image numbers from 1 expected, got "
            f"{line!r}."
        )
    probe, reference = (fields[0], int(fields[1])), (fields[2], int(fields[3]))
    if probe == reference:
        raise DataContractError(f"{where}: two different images expected, got {line!r}.")
    return PairLine(probe, reference, where)


def _manifest_entry(entry: dict[str, Any], where: str) -> tuple[Face, _Image]:
    try:
        file, sha256, person = (str(entry[key]) for key in ("file", "sha256", "identity"))
        number = int(entry["number"])
        landmarks = tuple((float(x), float(y)) for x, y in entry["landmarks5"])
        identity = hashlib.sha256(person.encode()).hexdigest()[:16]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataContractError(
            f"{where}: 'file', 'sha256', 'identity', 'number' and 'landmarks5' (five points) "
            f"expected ({error!r})."
        ) from error
    if len(landmarks) != 5 or not np.isfinite(landmarks).all():
        raise DataContractError(f"{where}: 'landmarks5' of five finite points expected.")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise DataContractError(f"{where}: 'sha256' of 64 hexadecimal digits expected.")
    return (person, number), _Image(file, sha256, identity, landmarks, where)


def _inside(root: Path, file: str, where: str) -> Path:
    """Return the path of a file that a manifest names, refusing any way out of the folder."""
    parts = file.split("/")
    path = root / PurePosixPath(file)
    if (
        not {"", ".", ".."}.isdisjoint(parts)
        or not file.isprintable()
        or not {"\\", ":"}.isdisjoint(file)
        or not path.resolve().is_relative_to(root.resolve())
    ):
        raise DataContractError(
            f"{where}: a relative path inside {root} expected, got {file!r}. Correct the manifest."
        )
    return path


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise DataContractError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataContractError(f"{path}: UTF-8 text expected ({error}).") from error
    if len(data) > MAX_TEXT_BYTES:
        raise DataContractError(f"{path}: at most {MAX_TEXT_BYTES} bytes expected.")
    return text

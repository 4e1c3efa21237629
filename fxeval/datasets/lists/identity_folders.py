"""One folder per identity, the usual form of face data sets: ``root/<identity>/<image>``.

The images are aligned, or a manifest beside them gives their landmarks. The folder serves as a list
of identities, divided into parts for closed-set classification on request, and as a source of drawn
pairs. Names of folders and files are not passed on: images and identities are named by digests.
"""

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fxeval.contracts import Crop, DataCard, Exclusion, IdentityListing, PairListing
from fxeval.datasets.faces.alignment import CropName, crop_from
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.images import UnreadableFormatError, decode_image, image_bytes
from fxeval.datasets.faces.manifests import Face, Manifest, digest_of, path_fault
from fxeval.datasets.faces.regions import FaceParts
from fxeval.datasets.faults import each, of_all, of_folder, of_list
from fxeval.datasets.lists.drawing import drawn_pairs
from fxeval.datasets.lists.tables import IdentityRow, parse_identities
from fxeval.datasets.text_files import read_text
from fxeval.errors import DataContractError
from fxeval.redaction import PublicReason, public_counts
from fxeval.seeding import generator_of
from fxeval.slices import AttributeValue
from fxeval.strict.text import hint, printable

SPLITS = ("train", "validation", "test")
"""Names of the parts, in the order of their fractions."""
MAX_FILES = 1_000_000
"""Most files and folders examined."""

_CLAIMED = PublicReason("two identities claim the same image")
_SAME = PublicReason("another file holds the same image")
_MAGIC = (b"\xff\xd8", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class IdentityFolders(FaceParts):
    """One folder per identity; implements ``IdentitySource`` and, by drawing, ``PairSource``.

    Attributes:
        root: The folder that contains one folder per identity.
        manifest_file: Manifest with landmarks (``datasets/faces/manifests.py``), which also gives
            the identities; a relative path starts at the root; None = all images are aligned.
        crop: The crop that images without manifest have (``crop_from``).
        min_images: Identities with fewer usable images are left out, and so are those with fewer
            images than there are parts.
        fractions: Fractions of each identity's images for train, validation and test, which sum to
            1; () = no parts. Every identity is in every part whose fraction is above 0.
        splits_file: Table ``img,identity,split`` that gives the parts instead.
        split: The part that pairs are drawn from; None = all images.
        mated: Number of mated pairs; None = all.
        nonmated: Number of nonmated pairs; None = as many as mated ones.
        folds: Number of folds, with no identity in two of them; None = no folds.
        seed: Seed of the draw of parts and of pairs.
        name: Id shown in reports.
        banner: Warning that every report on these faces must show.
    """

    root: Path
    manifest_file: Path | None = None
    crop: CropName = "arcface112"
    min_images: int = 2
    fractions: tuple[float, ...] = ()
    splits_file: Path | None = None
    split: str | None = None
    mated: int | None = None
    nonmated: int | None = None
    folds: int | None = None
    seed: int = 0
    name: str = "identity_folders"
    banner: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        crop_from(self.crop, "crop")
        one = math.fsum(self.fractions) if all(map(math.isfinite, self.fractions)) else math.nan
        if self.fractions and not (
            len(self.fractions) <= len(SPLITS) and min(self.fractions) >= 0 and abs(one - 1) < 1e-9
        ):
            raise of_all(
                f"'fractions': expected up to three numbers from 0 ({', '.join(SPLITS)}) that sum "
                f"to 1, got {self.fractions}"
            )
        if self.fractions and self.splits_file is not None:
            raise of_all("expected 'fractions' or 'splits_file', got both", then="Remove one.")

    def identities(self) -> IdentityListing:
        """Return all usable images in the order of their paths, and the others as exclusions.

        Without manifest every image is decoded once, to find out whether it can be used.

        Raises:
            DataContractError: If the folder, manifest or table is unusable, or every image is.
        """
        return self._listing

    def listing(self) -> PairListing:
        """Draw pairs from the chosen part; see :func:`fxeval.datasets.lists.drawing.drawn_pairs`.

        Raises:
            DataContractError: As for ``identities``, and if there are not enough pairs.
        """
        people = self.identities()
        if self.split is not None:
            if self.split not in people.split:
                known = hint(self.split, {*people.split})
                raise of_folder(self.root, f"has no part '{self.split}'", then=known)
            rows = [row for row, part in enumerate(people.split) if part == self.split]
            image = tuple(people.image[row] for row in rows)
            identity = tuple(people.identity[row] for row in rows)
            people = IdentityListing(image, identity, excluded=people.excluded)
        return drawn_pairs(
            people, self.seed, mated=self.mated, nonmated=self.nonmated, folds=self.folds
        )

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return a digest of each image's file and landmarks (``FaceFolder.image_digests``)."""
        return self._folder.image_digests(image_ids)

    def attributes(self, image_ids: Sequence[str]) -> Mapping[str, Sequence[AttributeValue]]:
        """Return what the manifest says about images (``FaceFolder.attributes``)."""
        return self._folder.attributes(image_ids)

    def card(self) -> DataCard:
        """Describe the folder; its failures are those of the manifest and all exclusions."""
        card = self._folder.card()
        failures = Counter() if self.manifest_file is None else Counter(card.failures)
        failures.update(exclusion.reason for exclusion in self.identities().excluded)
        return replace(card, failures=dict(sorted(failures.items())))

    @cached_property
    def _folder(self) -> FaceFolder:
        if self.manifest_file is not None:
            return FaceFolder(self.root, self.manifest_file)
        return _AlignedFolders(self.root, aligned_to=crop_from(self.crop, "crop"))

    @cached_property
    def _listing(self) -> IdentityListing:
        folder = self._folder
        excluded = list(folder.excluded) if isinstance(folder, _AlignedFolders) else []
        pictures = folder.looks if isinstance(folder, _AlignedFolders) else {}
        faces = _distinct(folder.faces, excluded, pictures)
        parts = {} if self.splits_file is None else self._listed(faces, excluded)
        if self.splits_file is not None:
            faces = _without(faces, excluded, "the table of parts does not name it", {*parts})
        least = max(self.min_images, sum(fraction > 0 for fraction in self.fractions))
        counts = Counter(face.identity for face in faces)
        enough = {face.id for face in faces if counts[face.identity] >= least}
        faces = _without(faces, excluded, f"its identity has fewer than {least} images", enough)
        if not faces:
            reasons = Counter(exclusion.reason for exclusion in excluded)
            most = public_counts(dict(reasons.most_common(5)))  # all reasons here are public
            counted = "; ".join(f"{reason}: {number}" for reason, number in most.items())
            shown = counted or "the folder is empty"
            raise of_folder(
                self.root,
                f"expected usable images in one folder per identity, got none ({shown})",
                then="Images of another size need the name of their crop ('crop') or a manifest; "
                "links are not followed.",
            )
        if self.splits_file is not None:
            self._check_closed(faces, parts)
        elif self.fractions:
            parts = self._dealt(faces)
        return IdentityListing(
            image=tuple(face.id for face in faces),
            identity=tuple(digest_of(str(face.identity)) for face in faces),
            split=tuple(parts[face.id] for face in faces) if parts else (),
            excluded=tuple(excluded),
        )

    def _dealt(self, faces: Sequence[Face]) -> dict[str, str]:
        """Draw the part of each image, for each identity independently of all others."""
        own: dict[str, list[str]] = defaultdict(list)
        for face in faces:
            own[digest_of(str(face.identity))].append(face.id)
        parts: dict[str, str] = {}
        for identity, ids in own.items():
            order = generator_of("splits", self.seed, identity).permutation(sorted(ids)).tolist()
            shares = shares_of(len(ids), self.fractions)
            names = [name for name, n in zip(SPLITS, shares, strict=False) for _ in range(n)]
            parts.update(zip(order, names, strict=True))
        return parts

    def _listed(self, faces: Sequence[Face], excluded: Sequence[Exclusion]) -> dict[str, str]:
        """Read the part of each image that the table names."""
        path = self.root / str(self.splits_file)
        by_file = {face.file: face for face in faces}
        known = {exclusion.pair for exclusion in excluded}
        known |= {digest_of(face.file) for face in self._folder.faces}
        parts: dict[str, str] = {}

        def take(row: IdentityRow) -> None:
            face = by_file.get(row.image)
            if not row.split:
                raise of_list(f"{path}:1", "expected the columns img,identity,split")
            if face is None and digest_of(row.image) not in known:
                raise of_list(row.where, "the folder has no such image", then="Remove the row.")
            if face is not None and face.identity != row.identity:
                raise of_list(
                    row.where,
                    "expected the identity given by the folder or manifest, got another",
                    then="Correct the row.",
                )
            if face is not None:
                parts[face.id] = row.split

        rows = parse_identities(read_text(path), str(path))
        each(rows if rows[0].split else rows[:1], take)
        return parts

    def _check_closed(self, faces: Sequence[Face], parts: dict[str, str]) -> None:
        names = {parts[face.id] for face in faces}
        own = defaultdict(set)
        for face in faces:
            own[face.identity].add(parts[face.id])
        lacking = [one for one in own.values() if one != names]
        if lacking:
            raise of_list(
                self.root / str(self.splits_file),
                f"expected every identity in each of {len(names)} parts, because its class must be "
                f"both learned and tested, got {len(lacking)} of {len(own)} that lack a part",
                then="Move images between the parts.",
            )


class _AlignedFolders(FaceFolder):
    """Aligned images in one folder per identity; each image is examined once."""

    @property
    def excluded(self) -> tuple[Exclusion, ...]:
        """Files that are in the folder but cannot be used."""
        return tuple(
            Exclusion(digest_of(file), PublicReason(reason)) for file, reason in self._found[1]
        )

    @property
    def looks(self) -> dict[str, str]:
        """SHA-256 of the pixels of each image, by its id."""
        return self._found[2]

    @cached_property
    def _content(self) -> Manifest:
        return Manifest(tuple(self._found[0]), self.aligned_to)

    @cached_property
    def _found(self) -> tuple[list[Face], list[tuple[str, str]], dict[str, str]]:
        crop = self.aligned_to
        assert crop is not None
        faces, failures, looks = [], [], {}
        for number, (file, reason) in enumerate(_files(self.root)):
            if number >= MAX_FILES:
                raise of_folder(self.root, f"expected at most {MAX_FILES} files, got more")
            sha256 = look = ""
            if not reason:
                sha256, look, reason = _looked_at(self.root / file, crop)
            if reason:
                failures.append((file, reason))
            else:
                name = file.split("/")[0]
                faces.append(Face(file, sha256, name, None, crop.template, str(self.root)))
                looks[faces[-1].id] = look
        return faces, failures, looks


def shares_of(n_images: int, fractions: Sequence[float]) -> list[int]:
    """Divide images among parts by largest remainder, with at least one for each fraction above 0.

    Args:
        n_images: At least as many as there are fractions above 0.
        fractions: Fractions that sum to 1.

    >>> shares_of(10, (0.8, 0.1, 0.1)), shares_of(4, (0.8, 0.1, 0.1))
    ([8, 1, 1], [2, 1, 1])
    """
    shares = [math.floor(fraction * n_images) for fraction in fractions]
    rest = [fraction * n_images - share for fraction, share in zip(fractions, shares, strict=True)]
    for part in np.argsort(-np.array(rest), kind="stable")[: n_images - sum(shares)]:
        shares[part] += 1
    for part, fraction in enumerate(fractions):
        # A part that rounding left empty takes an image from the largest one.
        if fraction > 0 and not shares[part]:
            shares[shares.index(max(shares))] -= 1
            shares[part] = 1
    return shares


def _distinct(
    faces: Sequence[Face], excluded: list[Exclusion], looks: Mapping[str, str]
) -> list[Face]:
    """Return the faces without duplicate content and without content that two identities claim.

    Images have the same content if they have the same pixels or, where nobody looked, bytes.
    """
    owners: dict[str, set[str | None]] = defaultdict(set)
    for face in faces:
        owners[looks.get(face.id, face.id)].add(face.identity)
    kept: dict[str, Face] = {}
    for face in sorted(faces, key=lambda face: face.file):
        look = looks.get(face.id, face.id)
        if len(owners[look]) > 1:
            excluded.append(Exclusion(face.id, _CLAIMED))
        elif kept.setdefault(look, face) is not face:
            excluded.append(Exclusion(face.id, _SAME))
    return list(kept.values())


def _without(
    faces: Sequence[Face], excluded: list[Exclusion], reason: str, allowed: set[str]
) -> list[Face]:
    why = PublicReason(reason)
    excluded += [Exclusion(face.id, why) for face in faces if face.id not in allowed]
    return [face for face in faces if face.id in allowed]


def _files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of everything at the places of images, and its fault or ""."""
    for folder in _entries(root):
        no_folder = "" if folder.is_dir(follow_symlinks=False) else "not in an identity's folder"
        if reason := _fault(folder, no_folder):
            yield folder.name, reason
            continue
        for entry in _entries(Path(folder.path)):
            no_file = "" if entry.is_file(follow_symlinks=False) else "no regular file"
            yield f"{folder.name}/{entry.name}", _fault(entry, no_file)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        shown = printable(str(folder))
        raise of_folder(shown, "cannot be read", f" ({error.strerror})") from error


def _fault(entry: "os.DirEntry[str]", otherwise: str) -> str:
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():
        return "a link"
    return "an odd name" if path_fault(entry.name) else otherwise


def _looked_at(path: Path, crop: Crop) -> tuple[str, str, str]:
    """Return the SHA-256 of an image and of its pixels, and why it cannot be used or ""."""
    try:
        data = image_bytes(path)
    except DataContractError:
        return "", "", "cannot be read"
    if not data.startswith(_MAGIC):
        return "", "", "no JPEG or PNG"
    try:
        pixels = decode_image(data, str(path))
    except UnreadableFormatError as error:
        return "", "", error.reason
    except DataContractError:
        return "", "", "truncated, damaged or too large"
    is_fit = pixels.shape[:2] == crop.size
    reason = "" if is_fit else f"not of {crop.size[1]} x {crop.size[0]} pixels"
    return hashlib.sha256(data).hexdigest(), hashlib.sha256(pixels.tobytes()).hexdigest(), reason

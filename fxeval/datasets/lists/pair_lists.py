"""Common parts of all pair lists: their lines become a listing over a folder of faces."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, get_args

from fxeval.contracts import Crop, DataCard, Exclusion, PairListing
from fxeval.datasets.faces.alignment import CropName, crop_from
from fxeval.datasets.faces.face_folder import FaceFolder, ImageKey
from fxeval.datasets.faces.manifests import Face, digest_of
from fxeval.datasets.faces.regions import FaceParts
from fxeval.datasets.faults import bare, of_all, of_list
from fxeval.datasets.lists.absent_images import absence, reason_of
from fxeval.datasets.lists.contradictions import (
    MANIFEST,
    against_manifest,
    contradictions,
    refuse_rows,
    without,
)
from fxeval.datasets.lists.further_columns import values_of
from fxeval.datasets.lists.pair_lines import PairLine
from fxeval.seeding import seed_of
from fxeval.slices import AttributeValue
from fxeval.strict.text import brief

OnMissing = Literal["error", "exclude"]


def listing_of(
    lines: Sequence[PairLine],
    folder: FaceFolder,
    on_missing: OnMissing = "error",
    on_contradiction: OnMissing = "error",
) -> PairListing:
    """Find the images of a list in a folder.

    Identities are named by digests. Those that only follow from mated pairs are replaced by those
    of the manifest, if it names them.

    Args:
        lines: Either all pairs or all triplets.
        folder: Folder of the images.
        on_missing: Treatment of a pair with an image that is not in the folder: an error, or an
            exclusion in the listing.
        on_contradiction: Treatment of a pair that the pictures or the manifest contradict. If it is
            an exclusion, all images are decoded here; otherwise whoever reads them compares them.

    Returns:
        The pairs in the order of the lines.

    Raises:
        DataContractError: If images are missing (the message names the first of them), identities
            contradict the manifest, or no pair is left.
    """
    kept: list[tuple[PairLine, list[Face]]] = []
    excluded: list[Exclusion] = []
    missing: dict[ImageKey, str] = {}
    for line in lines:
        found = {key: folder.find(key) for key in line.images}
        faces = [face for face in found.values() if face is not None]
        if len(faces) == len(line.images):
            kept.append((line, faces))
            continue
        absent = [key for key, face in found.items() if face is None]
        for key in absent:
            missing.setdefault(key, line.where)
        ids = [face.id if face else digest_of(str(key)) for key, face in found.items()]
        excluded.append(Exclusion("-".join(ids), reason_of(folder, absent)))
    if missing and (on_missing == "error" or not kept):
        counted = f"{len(excluded)} of {len(lines)} pairs have a missing image"
        raise absence(missing, folder, counted)
    kept, wrong = _compared(kept)
    lines, faces_of = [line for line, _ in kept], [faces for _, faces in kept]
    listing = _listing(lines, faces_of, tuple(excluded))
    if on_contradiction == "exclude":
        looks = folder.pictures(face for own in faces_of for face in own)
        return without(listing, contradictions(listing, looks) | wrong)
    refuse_rows(bare(folder.described_in), listing, wrong)
    return listing


_Found = list[tuple[PairLine, list[Face]]]


def _compared(kept: _Found) -> tuple[_Found, dict[int, str]]:
    """Compare the identities of a list with the manifest's; return rows that contradict them."""
    is_known = all(face.is_named and face.sha256 for _, faces in kept for face in faces)
    if not kept or not is_known:
        return kept, {}
    known = [[str(face.identity) for face in faces] for _, faces in kept]
    if kept[0][0].is_inferred:
        wrong = [
            row for row, (line, _) in enumerate(kept)
            if line.is_mated != (known[row][0] == known[row][1])
        ]  # fmt: skip
        kept = [
            (line if row in wrong else replace(line, identities=tuple(known[row])), faces)
            for row, (line, faces) in enumerate(kept)
        ]
    else:
        people = [
            list(zip(line.identities, own, strict=True))
            for (line, _), own in zip(kept, known, strict=True)
        ]
        wrong = against_manifest(people)
    return kept, {row: MANIFEST for row in wrong if not kept[row][0].set_aside}


def _listing(
    lines: list[PairLine], faces: list[list[Face]], excluded: tuple[Exclusion, ...]
) -> PairListing:
    people = {name: digest_of(name) for line in lines for name in line.identities}
    aside = tuple(line.set_aside for line in lines)
    has_contrast = any(len(line.images) == 3 for line in lines)
    has_folds = any(line.fold is not None for line in lines)
    return PairListing(
        probe=tuple(own[0].id for own in faces),
        reference=tuple(own[1].id for own in faces),
        is_mated=tuple(line.is_mated for line in lines),
        probe_identity=tuple(people[line.identities[0]] for line in lines),
        reference_identity=tuple(people[line.identities[1]] for line in lines),
        excluded=excluded,
        set_aside=aside if any(aside) else (),
        fold=tuple(line.fold or 0 for line in lines) if has_folds else (),
        contrast=tuple(own[2].id for own in faces) if has_contrast else (),
        contrast_identity=(
            tuple(people[line.identities[2]] for line in lines) if has_contrast else ()
        ),
        place=tuple(bare(line.where) for line in lines),
        attributes={
            name: values_of([line.attributes[name] for line in lines])
            for name in lines[0].attributes
        },
    )


def subset_rows(listing: PairListing, n: int, seed: int) -> list[int]:
    """Choose n pairs with the list's share of mated ones and with as many identities as possible.

    Args:
        listing: At least n pairs.
        n: At least 1.
        seed: Seed of the choice, which otherwise depends on the image ids alone.

    Returns:
        Rows in ascending order.
    """
    order = sorted(
        range(len(listing)),
        key=lambda row: seed_of(seed, "subset", listing.probe[row], listing.reference[row]),
    )
    n_mated = round(n * sum(listing.is_mated) / len(listing))
    chosen: list[int] = []
    for mated, wanted in ((True, n_mated), (False, n - n_mated)):
        rows = [row for row in order if listing.is_mated[row] == mated]
        people = [listing.probe_identity[row] for row in rows]
        already = [listing.probe_identity[row] for row in chosen]
        chosen += by_turns(rows, people, already)[:wanted]
    return sorted(chosen)


def by_turns(
    rows: Sequence[int], identities: Sequence[str], already: Iterable[str] = ()
) -> list[int]:
    """Reorder rows: the first row of each identity, then the second of each, and so on.

    Args:
        rows: Rows in the order to keep within a turn.
        identities: Identity of each row.
        already: Identities of rows that were chosen before, one for each row.

    >>> by_turns([0, 1, 2], ["Ann", "Ann", "Bob"])
    [0, 2, 1]
    """
    met = Counter(already)
    turns = []
    for identity in identities:
        turns.append(met[identity])
        met[identity] += 1
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]


@dataclass(frozen=True)
class ImageList(FaceParts):
    """A list of images over a folder.

    Attributes:
        root: The folder.
        file: The list; a relative path starts at the root.
        manifest_file: Manifest of the folder (``datasets/faces/manifests.py``); a relative path
            starts at the root; None = ``manifest.json``.
        aligned_to: The crop that all images have, in a folder without manifest (``crop_from``).
        on_missing: Treatment of an entry whose image is not in the folder: ``error`` or
            ``exclude``.
        on_contradiction: Treatment of an entry that the pictures or the manifest contradict, such
            as a mated pair of one picture under two names: ``error`` or ``exclude``.
        subset: Number of entries to use, of as many identities as possible; None = all.
        seed: Seed of the choice of a subset.
        title: Name of the list in reports; None = its file's name.
    """

    root: Path
    file: Path
    manifest_file: Path | None = None
    aligned_to: CropName | None = None
    on_missing: OnMissing = "error"
    subset: int | None = None
    seed: int = 0
    title: str | None = None
    on_contradiction: OnMissing = "error"
    banner: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aligned_to is not None and self.manifest_file is not None:
            raise of_all(
                "expected 'aligned_to' (a folder without manifest) or 'manifest_file', got both",
                then="Remove one of the two.",
            )
        check_on_missing(self.on_missing)
        check_on_missing(self.on_contradiction, "on_contradiction")
        if self.subset is not None and self.subset < 1:
            raise of_all(f"'subset': expected at least 1, got {self.subset}")
        aligned_crop(self.aligned_to)

    @property
    def name(self) -> str:
        """Id shown in reports; for a subset with its size, and with its seed if that is not 0."""
        name = self.title or Path(self.file).stem
        if self.subset is None:
            return name
        return f"{name}[{self.subset}{f', seed {self.seed}' if self.seed else ''}]"

    @cached_property
    def folder(self) -> FaceFolder:
        """The folder of the images."""
        crop = aligned_crop(self.aligned_to)
        return FaceFolder(self.root, self.manifest_file or Path("manifest.json"), crop)

    @property
    def _folder(self) -> FaceFolder:
        return self.folder

    @property
    def path(self) -> Path:
        """The path of the list."""
        return self.root / self.file

    def check_size(self, n: int) -> None:
        """Check that the list has enough entries for the subset.

        Raises:
            DataContractError: If it has fewer.
        """
        if self.subset is not None and self.subset > n:
            raise of_list(
                self.path,
                f"expected a 'subset' of at most {n} (the length of the list), got {self.subset}",
            )


@dataclass(frozen=True)
class PairList(ImageList, ABC):
    """A list of pairs over a folder; subclasses parse it. Implements ``PairSource``."""

    @abstractmethod
    def lines(self) -> list[PairLine]:
        """Parse the list.

        Raises:
            DataContractError: With ``file:line``, if it is malformed.
        """

    def listing(self) -> PairListing:
        """Return all pairs, or those of the subset, in the order of the list.

        Raises:
            DataContractError: With ``file:line``, if a line is wrong or its image is missing.
        """
        how = self.on_missing, self.on_contradiction
        listing = listing_of(self.lines(), self.folder, *how)
        self.check_size(len(listing))
        if self.subset is None:
            return listing
        return listing.take(subset_rows(listing, self.subset, self.seed))

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return a digest of each image's file and landmarks (``FaceFolder.image_digests``)."""
        return self.folder.image_digests(image_ids)

    def attributes(self, image_ids: Sequence[str]) -> Mapping[str, Sequence[AttributeValue]]:
        """Return what the manifest says about images (``FaceFolder.attributes``)."""
        return self.folder.attributes(image_ids)

    def card(self) -> DataCard:
        """Describe the folder or, without manifest, the images in it that the list uses."""
        listing = self.listing()
        return self.folder.card({*listing.probe, *listing.reference, *listing.contrast})


def check_on_missing(on_missing: str, parameter: str = "on_missing") -> None:
    """Check a value of :data:`OnMissing`.

    Raises:
        DataContractError: If it is another value.
    """
    if on_missing not in get_args(OnMissing):
        raise of_all(
            f"'{parameter}': expected 'error' or 'exclude'", f", got {brief(repr(on_missing))}"
        )


def aligned_crop(name: CropName | None) -> Crop | None:
    """Return the crop that ``aligned_to`` names, None for None.

    Raises:
        DataContractError: If there is no such crop.
    """
    return None if name is None else crop_from(name, "aligned_to")

"""Pairs of real faces in the format of Labeled Faces in the Wild.

The data are a folder of images and a pair list in the format of LFW's ``pairs.txt`` (View 2, ten
folds) or of ``pairsDevTrain.txt`` and ``pairsDevTest.txt`` (View 1). LFW is a benchmark for
research: its authors say that performance on it must not be used to conclude that an algorithm is
suitable for any commercial purpose.

Names of people appear only in the folder and in error messages about it: images and identities are
named by digests.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fxeval.contracts import DataCard, PairListing
from fxeval.datasets.faces.alignment import CropName
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.regions import FaceParts
from fxeval.datasets.faults import each, of_list
from fxeval.datasets.lists.formats import read_as
from fxeval.datasets.lists.pair_lines import PairLine
from fxeval.datasets.lists.pair_lists import OnMissing, aligned_crop, check_on_missing, listing_of
from fxeval.datasets.text_files import lines_of, read_text
from fxeval.redaction import PublicReason
from fxeval.slices import AttributeValue
from fxeval.strict.text import brief


@dataclass(frozen=True)
class LfwPairs(FaceParts):
    """An LFW pair list over a folder of images; implements ``PairSource``.

    Attributes:
        root: The folder.
        pairs_file: The pair list; a relative path starts at the root.
        errata_file: List of pairs known to be labelled wrongly: pair lines without header, ``#``
            comments allowed. Such pairs stay in the verification protocol but are never explained.
            None = no such list.
        manifest_file: Manifest of the folder (``datasets/faces/manifests.py``) with ``number``.
        title: Name of the list in reports and in the claims of model cards; None = its file's name.
        banner: None: real faces need no warning.
        aligned_to: The crop that all images have (``crop_from``), in files such as
            ``Ann/Ann_0001.jpg``; the manifest is then not read. None = as the manifest says.
        on_missing: Treatment of a pair with an image that is not in the folder: ``error`` or
            ``exclude``.
        on_contradiction: Treatment of a pair that the pictures contradict, such as a mated pair of
            one picture under two names: ``error`` or ``exclude``.
    """

    root: Path
    pairs_file: Path = Path("pairs/lfw_view2.txt")
    errata_file: Path | None = None
    manifest_file: Path = Path("faces_manifest.json")
    title: str | None = None
    banner: str | None = None
    aligned_to: CropName | None = None
    on_missing: OnMissing = "error"
    on_contradiction: OnMissing = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        aligned_crop(self.aligned_to)
        check_on_missing(self.on_missing)
        check_on_missing(self.on_contradiction, "on_contradiction")

    @property
    def name(self) -> str:
        """Id shown in reports."""
        return self.title or self.pairs_file.stem

    def listing(self) -> PairListing:
        """Return all pairs in the order of the list, with their folds.

        Raises:
            DataContractError: With ``file:line``, if a line is wrong or names a missing image.
        """
        path = self.root / self.pairs_file
        lines = read_as("lfw", path, parse_pairs)
        if self.errata_file is not None:
            wrong = self._errata(self.root / self.errata_file)
            file = brief(self.errata_file.name)
            reason = PublicReason(f"{file} lists it as labelled wrongly")
            lines = [
                replace(line, set_aside=reason) if frozenset(line.images) in wrong else line
                for line in lines
            ]
        return listing_of(lines, self._folder, self.on_missing, self.on_contradiction)

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return a digest of each image's file and landmarks (``FaceFolder.image_digests``)."""
        return self._folder.image_digests(image_ids)

    def attributes(self, image_ids: Sequence[str]) -> Mapping[str, Sequence[AttributeValue]]:
        """Return what the manifest says about images (``FaceFolder.attributes``)."""
        return self._folder.attributes(image_ids)

    def card(self) -> DataCard:
        """Describe the folder or, without manifest, the images in it that the list uses."""
        listing = self.listing()
        return self._folder.card({*listing.probe, *listing.reference})

    def _errata(self, path: Path) -> set[frozenset[object]]:
        lines = enumerate(lines_of(read_text(path), str(path)), start=1)
        used = ((number, line) for number, line in lines if line.strip() and line[0] != "#")
        pairs = each(used, lambda given: _pair_line(given[1], f"{path}:{given[0]}"))
        return {frozenset(pair.images) for pair in pairs}

    @cached_property
    def _folder(self) -> FaceFolder:
        return FaceFolder(self.root, self.manifest_file, aligned_crop(self.aligned_to))


def parse_pairs(text: str, where: str) -> list[PairLine]:
    r"""Parse a list in the format of LFW's ``pairs.txt``.

    The header is ``folds<TAB>n`` (View 2), or ``n`` for one fold (View 1). Each fold has n lines
    ``name i j`` (mated), then n lines ``name1 i name2 j`` (nonmated).

    Args:
        text: The file's text.
        where: Its path, for messages.

    Returns:
        folds·2n pairs in the order of the file, with their folds.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.

    >>> [line.is_mated for line in parse_pairs("1\t1\nAnn\t1\t2\nAnn\t1\tBob\t1", "x")]
    [True, False]
    """
    header, *lines = lines_of(text, where)
    counts = header.split()
    if not 1 <= len(counts) <= 2 or not all(_NUMBER.fullmatch(count) for count in counts):
        raise of_list(
            f"{where}:1",
            "expected the header 'folds<TAB>pairs of each kind in a fold'",
            f", got {brief(header)!r}",
        )
    n_folds, n = (1, *map(int, counts))[-2:]
    if len(lines) != 2 * n_folds * n:
        raise of_list(
            where,
            f"expected {2 * n_folds * n} pairs (the header says {n_folds} folds of {n} mated and "
            f"{n} nonmated), got {len(lines)} lines",
            then="The list is truncated or its header is wrong.",
        )

    def parse(numbered: tuple[int, str]) -> PairLine:
        index, line = numbered
        pair = _pair_line(line, f"{where}:{index + 2}")
        mated_expected = index // n % 2 == 0
        if pair.is_mated != mated_expected:
            kind, form = (
                ("mated", "name i j") if mated_expected else ("nonmated", "name1 i name2 j")
            )
            raise of_list(
                pair.where,
                f"expected a {kind} pair '{form}' here",
                f", got {brief(line)!r}",
                f"Each fold has {n} mated lines, then {n} nonmated ones.",
            )
        return replace(pair, fold=index // (2 * n))

    return each(enumerate(lines), parse)


_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_IMAGE_NUMBER = re.compile(r"0{0,8}[1-9][0-9]{0,5}")


def _pair_line(line: str, where: str) -> PairLine:
    fields = line.split()
    if line.count("\t") in (2, 3):  # names may contain blanks
        fields = [field.strip() for field in line.split("\t")]
    if len(fields) == 3:
        fields.insert(2, fields[0])
    numbers = fields[1::2]
    is_sound = len(fields) == 4 and all(fields)
    if not is_sound or not all(_IMAGE_NUMBER.fullmatch(number) for number in numbers):
        raise of_list(
            where,
            "expected 'name i j' or 'name1 i name2 j' with image numbers from 1",
            f", got {brief(line)!r}",
        )
    probe, reference = (fields[0], int(fields[1])), (fields[2], int(fields[3]))
    if probe == reference:
        raise of_list(where, "expected two different images", f", got {brief(line)!r}")
    return PairLine((probe, reference), (fields[0], fields[2]), where)

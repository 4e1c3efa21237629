"""Lists of two files and a label, the pair lists of most re-implementations of ArcFace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from fxeval.datasets.faces.manifests import composed, stem_identity
from fxeval.datasets.faults import each, of_list
from fxeval.datasets.lists.formats import read_as
from fxeval.datasets.lists.pair_lines import (
    PairLine,
    check_distinct,
    check_labels,
    image_path,
    inferred,
)
from fxeval.datasets.lists.pair_lists import PairList
from fxeval.datasets.lists.tables import identities_of
from fxeval.datasets.text_files import lines_of
from fxeval.strict.text import brief

IdentityFrom: TypeAlias = Literal["folder", "stem", "mated"]
"""What names the person in an image: its folder, its file's name, or the mated pairs."""

_LABELS = {"1": True, "true": True, "0": False, "-1": False, "false": False}


@dataclass(frozen=True)
class FilePairs(PairList):
    """A list of lines ``Ann/Ann_0001.jpg Ann/Ann_0002.jpg 1`` over a folder of images.

    The label is 1 (mated), 0 or -1 (nonmated). Columns are separated by blanks, or by tabs or
    commas if file names contain blanks.

    Attributes:
        identity: What names the person in an image: ``folder`` (``Ann/1.jpg``), ``stem``
            (``Ann_0001.jpg``), or ``mated`` (images that mated pairs link are one person, which
            gives too many people); None = folder or stem, whichever fits all labels.
        identities_file: CSV with ``img`` and ``identity`` that names them instead; a relative path
            starts at the root.
    """

    identity: IdentityFrom | None = None
    identities_file: Path | None = None

    def lines(self) -> list[PairLine]:
        """Parse the list; see :func:`parse_file_pairs`."""
        known = identities_of(self.root, self.identities_file)

        def parse(text: str, where: str) -> list[PairLine]:
            return parse_file_pairs(text, where, self.identity, known)

        return read_as("arcface_pairs", self.path, parse)


def parse_file_pairs(
    text: str,
    where: str,
    identity: IdentityFrom | None = None,
    identities: Mapping[str, str] | None = None,
) -> list[PairLine]:
    r"""Parse a list of lines ``file file label``.

    Args:
        text: The file's text.
        where: Its path, for messages.
        identity: What names the person in an image; None = whichever of folder and stem fits.
        identities: Person in each image, which decides if it is given.

    Returns:
        The pairs in the order of the file.

    Raises:
        DataContractError: With ``file:line``, what was expected and what was found.

    >>> [line.identities for line in parse_file_pairs("a/1.jpg a/2.jpg 1\na/1.jpg b/1.jpg 0", "x")]
    [('a', 'a'), ('a', 'b')]
    """
    numbered = list(enumerate(lines_of(text, where), start=1))
    rows = each(numbered, lambda line: _pair(line[1], f"{where}:{line[0]}"))
    if identities is not None or identity == "mated":
        return inferred(rows, identities)
    rules = {"folder": _folder, "stem": stem_identity}
    if identity is None:
        identity = _rule(rows, where)
    who = rules[identity]

    def named(row: tuple[str, str, bool, str]) -> PairLine:
        people = tuple(who(image) for image in row[:2])
        if None in people:
            raise of_list(
                row[3],
                f"expected images named by identity ({identity})",
                f", got '{brief(row[0])}' and '{brief(row[1])}'",
            )
        return PairLine(row[:2], tuple(map(str, people)), row[3])

    lines = each(rows, named)
    check_distinct(lines)
    check_labels(lines, [is_mated for _, _, is_mated, _ in rows])
    return lines


def _pair(line: str, where: str) -> tuple[str, str, bool, str]:
    """Return (image, image, is mated, where) of a line."""
    fields = line.split()
    for mark in "\t,":
        if line.count(mark) == 2:
            fields = [field.strip() for field in line.split(mark)]
            break
    if len(fields) != 3 or fields[2].lower() not in _LABELS:
        raise of_list(
            where, "expected 'file file 1' (mated) or 'file file 0'", f", got '{brief(line)}'"
        )
    one, two = (image_path(field, where) for field in fields[:2])
    return one, two, _LABELS[fields[2].lower()], where


def _folder(file: str) -> str | None:
    """Return the innermost folder of a file."""
    parts = file.split("/")
    return composed(parts[-2]) if len(parts) > 1 else None


def _rule(rows: Sequence[tuple[str, str, bool, str]], where: str) -> Literal["folder", "stem"]:
    """Return the rule under which all labels fit the identities."""
    wrong = {}
    for name, who in (("folder", _folder), ("stem", stem_identity)):
        people = [(who(one), who(two)) for one, two, *_ in rows]
        wrong[name] = sum(
            None in pair or (pair[0] == pair[1]) != row[2]
            for pair, row in zip(people, rows, strict=True)
        )
    few = {name for name, number in wrong.items() if number < len(rows) / 10}
    if len(few) == 1:  # a few labels may be wrong all the same, and are then named
        return "folder" if "folder" in few else "stem"
    images = {image for one, two, *_ in rows for image in (one, two)}
    both = {(_folder(image), stem_identity(image)) for image in images}
    n_folders, n_stems = (len({pair[place] for pair in both}) for place in (0, 1))
    if few and n_folders == len(both) == n_stems:
        return "folder"
    raise of_list(
        where,
        "expected identities in either the folders or the names of the files, got "
        + (f"{n_folders} by folders and {n_stems} by names, which both fit the labels" if few else
           f"{wrong['folder']} labels of {len(rows)} that do not fit the folders and "
           f"{wrong['stem']} that do not fit the names"),
        then="Set 'identity' to folder, stem or mated, or give 'identities_file'.",
    )  # fmt: skip

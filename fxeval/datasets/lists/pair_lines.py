"""Lines of a pair list: two or three images, their identities, and checks of both."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fxeval.datasets.faces.face_folder import ImageKey
from fxeval.datasets.faces.manifests import path_fault
from fxeval.datasets.faults import bare, each, of_list
from fxeval.strict.text import brief


@dataclass(frozen=True)
class PairLine:
    """One pair of a list, or one triplet.

    Attributes:
        images: The probe, the reference and, in a triplet, the nonmate.
        identities: Person in each of them.
        where: ``file:line``.
        fold: Number of its fold, from 0; None if the list has no folds.
        set_aside: Reason why the pair is never explained, or "".
        is_inferred: Whether the identities only follow from the mated pairs.
        attributes: Cells of further columns by name; "" = empty.
    """

    images: tuple[ImageKey, ...]
    identities: tuple[str, ...]
    where: str
    fold: int | None = None
    set_aside: str = ""
    is_inferred: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_mated(self) -> bool:
        """Whether probe and reference show one person."""
        return self.identities[0] == self.identities[1]


def called(key: ImageKey) -> str:
    """Return a short description of an image, for messages."""
    if isinstance(key, str):
        return f"the image '{brief(key)}'"
    return f"image {key[1]} of '{brief(key[0])}'"


def image_path(file: str, where: str) -> str:
    """Return a path from a list after checking it.

    Raises:
        DataContractError: With ``file:line``, if it is not a plain path inside a folder.
    """
    if fault := path_fault(file):
        raise of_list(
            where, "expected a relative path inside the folder", f", got '{brief(file)}' ({fault})"
        )
    return file


def check_labels(lines: Iterable[PairLine], labels: Iterable[bool]) -> None:
    """Compare the label of each pair with its identities.

    Raises:
        DataContractError: With ``file:line``, if they contradict each other.
    """

    def check(given: tuple[PairLine, bool]) -> None:
        line, is_mated = given
        if line.is_mated != is_mated:
            one, two = (brief(name) for name in line.identities[:2])
            raise of_list(
                line.where,
                f"expected a {'mated' if is_mated else 'nonmated'} pair of "
                f"{'one identity' if is_mated else 'two identities'}",
                f", got '{one}' and '{two}'",
                "Correct the label or the identities.",
            )

    each(zip(lines, labels, strict=True), check)


def check_distinct(lines: Iterable[PairLine]) -> None:
    """Compare the lines with each other.

    Raises:
        DataContractError: With ``file:line``, if a line contains an image twice, a line repeats
            another, or an image has two identities.
    """
    known: dict[tuple[ImageKey, ...], str] = {}
    owners: dict[ImageKey, tuple[str, str]] = {}

    def check(line: PairLine) -> None:
        if len(set(line.images)) < len(line.images):
            key, count = Counter(line.images).most_common(1)[0]
            raise of_list(
                line.where, "expected different images", f", got {called(key)} {count} times"
            )
        if (first := known.setdefault(line.images, line.where)) != line.where:
            raise of_list(line.where, f"repeats {bare(first)}", then="Remove one of them.")
        for key, identity in zip(line.images, line.identities, strict=True):
            owner, place = owners.setdefault(key, (identity, line.where))
            if owner != identity:
                raise of_list(
                    line.where,
                    f"expected one identity for each image, as in {bare(place)}",
                    f", got '{brief(identity)}' here and '{brief(owner)}' there for {called(key)}",
                    "Correct one of them.",
                )

    each(lines, check)


def inferred(
    pairs: Iterable[tuple[str, str, bool, str]], identities: Mapping[str, str] | None = None
) -> list[PairLine]:
    """Assign identities to the images of a list.

    Without a table, images linked by mated pairs are treated as one person, named by the first of
    these images in alphabetical order.

    Args:
        pairs: (image, image, is mated, where) of each pair.
        identities: Person in each image, or None.

    Raises:
        DataContractError: With ``file:line``, if an image is not in the table, or labels contradict
            each other or the table.
    """
    rows = list(pairs)
    if identities is None:
        images = (image for one, two, *_ in rows for image in (one, two))
        owner = joined(images, ((one, two) for one, two, is_mated, _ in rows if is_mated))
    else:
        owner = dict(identities)

    def named(row: tuple[str, str, bool, str]) -> PairLine:
        one, two, _, where = row
        for image in (one, two):
            if image not in owner:
                raise of_list(
                    where, "the table of identities lacks an image", f": '{brief(image)}'",
                    "Add it.",
                )  # fmt: skip
        people = owner[one], owner[two]
        return PairLine((one, two), people, where, is_inferred=identities is None)

    lines = each(rows, named)
    check_distinct(lines)
    check_labels(lines, [is_mated for _, _, is_mated, _ in rows])
    return lines


def joined(images: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for each image the first in alphabetical order of all images connected with it.

    Args:
        images: Names of the images.
        pairs: Pairs of images that belong together.

    >>> joined("abcd", [("c", "b"), ("d", "c")])
    {'a': 'a', 'b': 'b', 'c': 'b', 'd': 'b'}
    """
    parent = {image: image for image in images}  # union-find

    def root(image: str) -> str:
        while parent[image] != image:
            parent[image] = image = parent[parent[image]]
        return image

    for one, two in pairs:
        first, second = sorted((root(one), root(two)))
        parent[second] = first
    return {image: root(image) for image in parent}

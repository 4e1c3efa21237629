"""Says which images of a list are not in its folder, and what the folder calls its files."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from fxeval.datasets.faces.face_folder import FaceFolder, ImageKey
from fxeval.datasets.faces.manifests import Face, identity_in
from fxeval.datasets.faults import bare, first_of
from fxeval.datasets.lists.pair_lines import called
from fxeval.errors import DataContractError
from fxeval.redaction import PublicReason
from fxeval.strict.text import brief, printable

_EXAMPLES = 3

_Form = Callable[[str], str]


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).suffix else name


def _without_folders(name: str) -> str:
    return name.rpartition("/")[2]


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)


def _all_ends(name: str) -> str:
    plain = _without_zeros(_without_suffix(_without_folders(name))).casefold()
    return re.sub(r"[\s_-]+", "_", plain)


_FORMS: Mapping[str, _Form] = {
    "with another suffix": _without_suffix,
    "in another case": str.casefold,
    "with other zeros before the number": _without_zeros,
    "in another folder": _without_folders,
    "under a name that differs in several of suffix, case, zeros, folder and blanks": _all_ends,
}
"""How names may differ, and what they are compared by."""


def reason_of(
    folder: FaceFolder, keys: Iterable[ImageKey], which: str = "an image"
) -> PublicReason:
    """Return why an entry with missing images is left out, in words for a record."""
    for key in keys:
        failure = folder.failure(key)
        if isinstance(failure, PublicReason):
            return PublicReason(f"{which} failed in prepare: {failure}")
        if failure is not None:
            return PublicReason(f"{which} failed in prepare")
    return PublicReason(f"{which} is not in the folder")


def absence(missing: Mapping[ImageKey, str], folder: FaceFolder, counted: str) -> DataContractError:
    """Return the error about the images of a list that are not in its folder.

    Args:
        missing: Each image, and the first line that names it.
        folder: The folder.
        counted: How many entries of the list lack an image, in words for a record.
    """
    faults = []
    for key, where in missing.items():
        failure = folder.failure(key)
        why = "" if failure is None else f" (failed in prepare: {printable(failure)})"
        faults.append(f"{where}: {called(key)}{why}")
    advice = (
        f"{_told_about(missing, folder)}\nCorrect the list, add the images, or leave such entries "
        "out by 'on_missing: exclude'."
    )
    first = bare(next(iter(missing.values())))
    return DataContractError(
        f"{counted}: {len(missing)} images are not in {folder.described_in}"
        + first_of(faults, advice),
        public=f"{counted}; the first is {first}",
    )


def _told_about(missing: Mapping[ImageKey, str], folder: FaceFolder) -> str:
    """Say what the folder calls its files, and how the names of the list differ from them."""
    faces = folder.faces
    if not faces:
        return "It has no images."
    known = _alike(missing, faces) or _further(missing, faces)
    if links := folder.links:
        shown = ", ".join(f"'{brief(name)}'" for name in links[:_EXAMPLES])
        known += f" Links to folders, which are not followed: {len(links)}, such as {shown}."
    return f"The folder has {len(faces)} images, such as {_some(faces)}.{known}"


def _alike(missing: Mapping[ImageKey, str], faces: Sequence[Face]) -> str:
    """Say under which other names the most missing images are there; "" if none is."""
    best = 0, ""
    for difference, form in _FORMS.items():
        known = {form(name): face for face in reversed(faces) for name in _names(face)}
        found = [(key, face) for key in missing if (face := known.get(form(_name(key))))]
        if len(found) > best[0]:
            key, face = found[0]
            told = f" {len(found)} of the missing ones may be there {difference}: {called(key)} as "
            best = len(found), f"{told}'{brief(face.file)}'."
    return best[1]


def _further(missing: Mapping[ImageKey, str], faces: Sequence[Face]) -> str:
    """Say of how many missing images the people are there with other images; "" if of none."""
    own = defaultdict(list)
    for face in faces:
        own[identity_in(_names(face)[-1])].append(face)
    people = [who for key in missing if (who := identity_in(_name(key))) in own]
    if not people:
        return ""
    who = str(people[0])
    return (
        f" {len(people)} of the missing ones are further images of people who are there: of "
        f"'{brief(who)}' it has {len(own[who])}, such as {_some(own[who])}."
    )


def _some(faces: Sequence[Face]) -> str:
    return ", ".join(f"'{brief(face.file)}'" for face in faces[:_EXAMPLES])


def _name(key: ImageKey) -> str:
    return key if isinstance(key, str) else f"{key[0]}/{key[0]}_{key[1]}"


def _names(face: Face) -> list[str]:
    names = [face.file] + ([face.source_file] if face.source_file else [])
    if face.key:
        names.append(f"{face.key[0]}/{face.key[0]}_{face.key[1]}")
    return names

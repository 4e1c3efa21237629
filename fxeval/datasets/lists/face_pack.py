"""Pairs of rendered faces: a folder of aligned images and a manifest."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, groupby, islice
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from fxeval.contracts import Crop, DataCard, PairListing
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.manifests import Face
from fxeval.datasets.faces.regions import FaceParts
from fxeval.datasets.faults import of_all, of_list
from fxeval.datasets.lists.drawing import some_between, some_nonmated
from fxeval.seeding import generator_of
from fxeval.slices import AttributeValue

BANNER = (
    "Rendered faces: these results validate explainers and metrics; they say nothing about real "
    "faces."
)

Nuisance: TypeAlias = Literal["mild", "aged", "posed"]
"""What the images of a person differ in: little, as in LFW; age, as in CALFW; pose, as in CPLFW."""

NAMES = {"mild": "rendered_faces", "aged": "rendered_faces_age", "posed": "rendered_faces_pose"}
"""Names of the lists in reports."""

_BASE: Nuisance = "mild"
_FacePair: TypeAlias = tuple[Face, Face]


@dataclass(frozen=True)
class FacePack(FaceParts):
    """Pairs of rendered faces, which come with fxeval.

    It implements ``PairSource``, ``LabelSource`` and ``LandmarkSource``. The crop in
    ``manifest.json`` (``datasets/faces/manifests.py``) is ``arcface112``, and each image's
    ``identity`` and ``number`` are whole numbers. If the images have an attribute ``nuisance``,
    there are three lists; otherwise there is one list, of all images.

    Attributes:
        root: The folder.
        nuisance: Which list: ``mild`` has the pairs of mild images; ``aged`` and ``posed`` have the
            pairs of such an image with a mild one, or with another such image.
        seed: Seed of the draw of nonmated pairs.
        banner: Warning that every report on these faces must show.
    """

    root: Path
    nuisance: Nuisance = _BASE
    seed: int = 0
    banner: str | None = BANNER

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nuisance not in NAMES:
            raise of_all(
                "'nuisance': expected mild, aged or posed", f", got {str(self.nuisance)[:60]!r}"
            )

    @property
    def name(self) -> str:
        """Id shown in reports."""
        return NAMES[self.nuisance]

    def listing(self) -> PairListing:
        """Return one mated pair of each identity, the other mated pairs, then as many nonmated.

        The first n pairs are therefore of n identities, as long as there are that many. As many
        nonmated as mated pairs have two mild images, a mild and another one, and two others, so
        that nuisances do not tell mated from nonmated pairs. In ``aged`` and ``posed`` they are of
        people with one attribute ``look``, as far as there are such pairs.

        Raises:
            DataContractError: If the manifest cannot be used, or has no images of the nuisance.
        """
        people = [list(own) for _, own in groupby(self._faces, key=lambda face: face.identity)]
        mated = self._mated(people)
        pairs = mated + self._nonmated(people, mated)
        return PairListing(
            probe=tuple(one.file for one, _ in pairs),
            reference=tuple(two.file for _, two in pairs),
            is_mated=tuple(one.identity == two.identity for one, two in pairs),
            probe_identity=tuple(str(one.identity) for one, _ in pairs),
            reference_identity=tuple(str(two.identity) for _, two in pairs),
        )

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces aligned to the crop, in the order of the ids.

        Raises:
            DataContractError: If files are missing, unreadable or not those that the manifest
                describes; the message names them all.
        """
        return self._folder.images(self._folder.ids_of(image_ids), crop)

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return a digest of each image's file and landmarks (``FaceFolder.image_digests``)."""
        return self._folder.image_digests(self._folder.ids_of(image_ids))

    def attributes(self, image_ids: Sequence[str]) -> Mapping[str, Sequence[AttributeValue]]:
        """Return what the manifest says about images (``FaceFolder.attributes``)."""
        return self._folder.attributes(self._folder.ids_of(image_ids))

    def card(self) -> DataCard:
        """Describe the folder."""
        return self._folder.card()

    def _mated(self, people: Sequence[Sequence[Face]]) -> list[_FacePair]:
        firsts: list[_FacePair] = []
        others: list[_FacePair] = []
        for faces in people:
            pairs = [pair for pair in combinations(faces, 2) if self._belongs(pair)]
            firsts += pairs[:1]
            others += pairs[1:]
        return firsts + others

    def _nonmated(
        self, people: Sequence[Sequence[Face]], mated: Sequence[_FacePair]
    ) -> list[_FacePair]:
        """Draw as many pairs of two nuisances as are mated, as far as there are.

        They are of one look where there are enough people who look alike.
        """
        wanted = Counter((self._look(pair[0]), _nuisances(pair)) for pair in mated)
        alike = [
            pair
            for (look, nuisances), count in sorted(wanted.items())
            for pair in self._drawn(
                [faces for faces in people if self._look(faces[0]) == look], look, nuisances, count
            )
        ]
        missing = Counter(map(_nuisances, mated)) - Counter(map(_nuisances, alike))
        others = [
            pair
            for nuisances, count in sorted(missing.items())
            for pair in islice(self._unlike(people, nuisances, len(mated)), count)
        ]
        return alike + others

    def _unlike(
        self, people: Sequence[Sequence[Face]], nuisances: tuple[str, str], most: int
    ) -> Iterator[_FacePair]:
        """Draw pairs of people who look different, among ``most`` pairs of anybody."""
        drawn = self._drawn(people, "", nuisances, most)
        return (pair for pair in drawn if self._look(pair[0]) != self._look(pair[1]))

    def _look(self, face: Face) -> str:
        """Return what people share who are compared; "" where anybody is compared with anybody."""
        return "" if self.nuisance == _BASE else str(face.attributes.get("look", ""))

    def _drawn(
        self,
        people: Sequence[Sequence[Face]],
        look: str,
        nuisances: tuple[str, str],
        wanted: int,
    ) -> Iterator[_FacePair]:
        one, two = nuisances
        # An address without nuisances keeps the pairs that packs had before they knew nuisances.
        words = () if one == two in (_BASE, "") else (one, two)
        address = (self.seed, *words, look) if look else (self.seed, *words)
        generator = generator_of("nonmated pairs", *address)
        firsts, seconds = (
            [[face for face in faces if _nuisance(face) == kind] for faces in people]
            for kind in nuisances
        )
        if one == two:
            rows = some_nonmated([*map(len, firsts)], wanted, generator)
        else:
            rows = some_between([*map(len, firsts)], [*map(len, seconds)], wanted, generator)
        left, right = [*chain(*firsts)], [*chain(*seconds)]
        return ((left[first], right[second]) for first, second in rows)

    def _belongs(self, pair: _FacePair) -> bool:
        """Return whether a pair of two nuisances belongs to the list."""
        found = set(_nuisances(pair))
        return found == {""} or (self.nuisance in found and found <= {_BASE, self.nuisance})

    @cached_property
    def _folder(self) -> FaceFolder:
        return FaceFolder(self.root)

    @cached_property
    def _faces(self) -> list[Face]:
        """All images by identity, mild ones first, and number."""
        path, faces = self._folder.described_in, self._folder.faces
        if self._folder.crop != ARCFACE_112:
            raise of_list(
                path, f"expected 'crop' to be '{ARCFACE_112.name}'", then="Render the pack again."
            )
        known = any("nuisance" in face.attributes for face in faces)
        for face in faces:
            for key, value in (("identity", face.identity), ("number", face.number)):
                if not str(value).isdecimal():
                    raise of_list(face.where, f"expected '{key}' to be a whole number")
            nuisance = face.attributes.get("nuisance")
            if known and not (isinstance(nuisance, str) and nuisance):
                raise of_list(
                    face.where,
                    "expected the attribute 'nuisance' to be text, as other images have it",
                    then="Render the pack again.",
                )
        if self.nuisance not in map(_nuisance, faces) and (known or self.nuisance != _BASE):
            raise of_list(
                path,
                f"expected images whose attribute 'nuisance' is '{self.nuisance}', got none",
                then="Choose another list, or another pack.",
            )
        return sorted(faces, key=_place)


@dataclass(frozen=True)
class AgedFacePack(FacePack):
    """Pairs of rendered faces at different ages, which come with fxeval."""

    nuisance: Nuisance = "aged"


@dataclass(frozen=True)
class PosedFacePack(FacePack):
    """Pairs of rendered faces in different poses, which come with fxeval."""

    nuisance: Nuisance = "posed"


def _nuisance(face: Face) -> str:
    """Return the kind of nuisance of an image; "" if its pack has none."""
    return str(face.attributes.get("nuisance", ""))


def _place(face: Face) -> tuple[int, bool, int]:
    return int(face.identity or 0), _nuisance(face) not in ("", _BASE), face.number or 0


def _nuisances(pair: _FacePair) -> tuple[str, str]:
    one, two = pair
    return _nuisance(one), _nuisance(two)

"""The tables of a data set: pairs and images by id, before any pixel is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from fxeval.errors import DataContractError
from fxeval.slices import AttributeValue, check_columns

_T = TypeVar("_T")


def _fault(text: str) -> DataContractError:
    """Return an error about the columns; its text holds only numbers, so it is public."""
    return DataContractError(text, public=text)


@dataclass(frozen=True)
class DataCard:
    """Facts about a data set for reports. A source may have a method ``card() -> DataCard``.

    Attributes:
        root_digest: SHA-256 over the digests of all files, as hex; None if they have none.
        n_images: Number of images.
        licence: The licence as the owner states it; None = not stated.
        may_show: Whether its pictures may be shown in a report.
        failures: Reason to number of images that could not be used (failure to acquire). A record
            quotes those that are a ``PublicReason`` (``fxeval.redaction``).
    """

    root_digest: str | None
    n_images: int
    licence: str | None = None
    may_show: bool = False
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Exclusion:
    """A pair that is on the list but not used, and why.

    Attributes:
        pair: Id of the pair.
        reason: Why it is not used; a record quotes a ``PublicReason`` (``fxeval.redaction``).
    """

    pair: str
    reason: str


def _make_tuples(listing: "IdentityListing | PairListing") -> None:
    """Turn columns that came as lists, arrays or tensors, whose truth is not known, into tuples."""
    for one in fields(listing):
        column: Any = getattr(listing, one.name)
        if not isinstance(column, tuple) and one.name != "attributes":
            column = column.tolist() if hasattr(column, "tolist") else column
            object.__setattr__(listing, one.name, tuple(column))


@dataclass(frozen=True)
class IdentityListing:
    """Images by id; the columns have one entry per image.

    Attributes:
        image: Ids of the images.
        identity: Who is in each image.
        split: Part of the data set each image belongs to (``train``, ``test``, ...); () = one part.
        excluded: Images that are listed but can't be used, and why.
    """

    image: tuple[str, ...]
    identity: tuple[str, ...]
    split: tuple[str, ...] = ()
    excluded: tuple[Exclusion, ...] = ()

    def __post_init__(self) -> None:
        _make_tuples(self)
        lengths = {len(self.image), len(self.identity), len(self.split) or len(self.image)}
        if len(lengths) != 1:
            raise _fault(f"identity listing: expected columns of one length, got {lengths}.")
        if len(set(self.image)) != len(self.image):
            raise _fault("identity listing: an image is listed twice. Remove one.")

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class PairListing:
    """Pairs by image id, before any pixel is read; the columns have one entry per pair.

    Attributes:
        probe: Ids of the images that are explained.
        reference: Ids of the images they are compared with.
        is_mated: Whether both show one identity.
        probe_identity: Who is in the probe.
        reference_identity: Who is in the reference.
        excluded: Pairs that are listed but cannot be used, and why (an image is missing, no face
            was found). They are not rows.
        set_aside: Why a row is never explained, although it counts for verification (its label is
            known to be wrong); "" for all other rows. () = every row may be explained. A record
            quotes reasons that are a ``PublicReason`` (``fxeval.redaction``).
        fold: Number of each row's fold from 0; () = no folds (``verification.figures.folds_of``).
        contrast: Ids of nonmates that the list names (triplets); () = the harness draws them.
        contrast_identity: Who is in the nonmates.
        place: Where the list has each row (``pairs.csv:7``), for messages; a record quotes it.
            () = messages number the rows.
        sources: Ids of other images of the person in the probe, from which a map of that person is
            made, for each row; () = maps are made from the probes themselves.
        attributes: Further columns by name, such as the pose or the glasses of each pair: text, a
            number, true or false, or None where it is not known. A check may tell its results
            apart by them (``slices``).
    """

    probe: tuple[str, ...]
    reference: tuple[str, ...]
    is_mated: tuple[bool, ...]
    probe_identity: tuple[str, ...]
    reference_identity: tuple[str, ...]
    excluded: tuple[Exclusion, ...] = ()
    set_aside: tuple[str, ...] = ()
    fold: tuple[int, ...] = ()
    contrast: tuple[str, ...] = ()
    contrast_identity: tuple[str, ...] = ()
    place: tuple[str, ...] = field(default=(), compare=False)
    sources: tuple[tuple[str, ...], ...] = ()
    attributes: Mapping[str, tuple[AttributeValue, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _make_tuples(self)
        n = len(self.probe)
        known = check_columns("pair listing", self.attributes, n)
        object.__setattr__(self, "attributes", known)
        needed = (self.reference, self.is_mated, self.probe_identity, self.reference_identity)
        optional = (
            self.set_aside, self.fold, self.contrast, self.contrast_identity, self.place,
            self.sources,
        )  # fmt: skip
        lengths = {n, *map(len, needed), *(len(column) or n for column in optional)}
        if len(lengths) != 1 or bool(self.contrast) != bool(self.contrast_identity):
            raise _fault(f"pair listing: expected columns of one length, got {lengths}.")
        for row, (mated, one, two) in enumerate(
            zip(self.is_mated, self.probe_identity, self.reference_identity, strict=True)
        ):
            if mated != (one == two):
                raise _fault(
                    f"pair listing: row {row} is marked {'mated' if mated else 'nonmated'} but its "
                    f"identities {'differ' if mated else 'are equal'}. Correct the label."
                )
        for row, nonmate in enumerate(self.contrast_identity):
            if nonmate in (self.probe_identity[row], self.reference_identity[row]):
                raise _fault(
                    f"pair listing: the nonmate of row {row} shows an identity of the pair itself. "
                    "Name an image of another person."
                )

    def __len__(self) -> int:
        return len(self.probe)

    def with_nonmates(self) -> "PairListing":
        """Return the pairs, followed by each probe with the nonmate that the list names."""
        if not self.contrast:
            return self
        return PairListing(
            probe=self.probe * 2,
            reference=self.reference + self.contrast,
            is_mated=self.is_mated + (False,) * len(self),
            probe_identity=self.probe_identity * 2,
            reference_identity=self.reference_identity + self.contrast_identity,
            excluded=self.excluded,
            set_aside=self.set_aside * 2,
            fold=self.fold * 2,
            place=self.place * 2,
            attributes={name: column * 2 for name, column in self.attributes.items()},
        )

    def take(self, rows: Sequence[int]) -> "PairListing":
        """Return the listing of the given rows, in the given order."""

        def pick(column: tuple[_T, ...]) -> tuple[_T, ...]:
            return tuple(column[row] for row in rows) if column else ()

        columns = {
            one.name: pick(getattr(self, one.name))
            for one in fields(self)
            if one.name not in ("excluded", "attributes")
        }
        kept = {name: pick(column) for name, column in self.attributes.items()}
        return replace(self, **columns, attributes=kept)


@runtime_checkable
class TwinSource(Protocol):
    """A pair source of triplets whose nonmate is a twin of the mate, with a twin of each probe too.

    A twin is an image of which one part, and nothing else, is another person's.
    """

    def twins_of(self, probes: Sequence[str], nonmates: Sequence[str]) -> Sequence[str]:
        """Return, for the probe and the nonmate of each triplet, the id of the probe's twin.

        It is the probe with the same part of the same other person as the nonmate, and ``images``
        knows its id.
        """

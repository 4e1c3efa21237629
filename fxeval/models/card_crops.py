"""Reads the crop of a card: a name, or a description of its own."""

from typing import Annotated

from pydantic import Field

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import CROP_FORMS, CROPS, crop_from
from fxeval.errors import DataContractError
from fxeval.strict.forms import Strict, matching
from fxeval.strict.forms import read as read_form
from fxeval.strict.text import brief, describe, suggestion
from fxeval.strict.yaml_file import Document

CardName = Annotated[
    str,
    matching(
        r"[A-Za-z][A-Za-z0-9_.-]{0,79}",
        "expected a letter, then letters, digits, '.', '-' and '_', 80 at most",
    ),
]


class _Crop(Strict):
    """A crop that has no name in the catalogue, as it is written."""

    name: CardName
    size: Annotated[list[Annotated[int, Field(ge=16, le=1024)]], Field(min_length=2, max_length=2)]
    template: Annotated[
        list[Annotated[list[float], Field(min_length=2, max_length=2)]],
        Field(min_length=5, max_length=5),
    ]


def crop_of(given: object, document: Document) -> Crop | None:
    """Return the crop that a card names or describes, noting what is wrong with it."""
    if isinstance(given, str):
        known = _crop_or_none(given)
        if known is None:
            near = suggestion(given, CROPS) or f"expected {CROP_FORMS}"
            document.fault(document.value(("crop",)), f"no crop {describe(given)}", near)
        return known
    if not isinstance(given, dict):
        if given is not None:
            text = f"'crop' must be a name or a mapping, got {describe(given)}"
            document.fault(document.value(("crop",)), text)
        return None
    form = read_form(document, _Crop, ("crop",), given)
    if not all(getattr(form, key, None) for key in ("name", "size", "template")):
        return None
    if not _is_a_face(form.template):
        text = (
            "'template': expected five points (x, y) in pixels: eye at the image's left, eye at "
            "the image's right, nose tip, mouth corner at the left, at the right; eyes above mouth"
        )
        document.fault(document.value(("crop", "template")), text)
        return None
    crop = _crop_or_none({"name": form.name, "size": form.size, "template": form.template})
    if crop is None:
        text = f"the crop {brief(form.name)} of the catalogue has another size or template"
        document.fault(document.value(("crop", "name")), text, "give it another name")
    return crop


def _crop_or_none(value: object) -> Crop | None:
    try:
        return crop_from(value, "crop")
    except DataContractError:  # the caller says it, with its place in the card
        return None


def _is_a_face(template: list[list[float]]) -> bool:
    """Say whether points are an upright face: pixels in the order (x, y), eyes above the mouth."""
    left, right, _, *mouth = template
    across, down = right[0] - left[0], abs(right[1] - left[1])
    height = (sum(y for _, y in mouth) - left[1] - right[1]) / 2
    return across > max(2, down) and height > across / 5 and mouth[0][0] < mouth[1][0]

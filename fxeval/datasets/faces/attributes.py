"""Attributes of an image: whatever its folder's manifest says about it, such as an angle or an age.

Their names and values are the folder's own; results can be told apart by them.
"""

import re
import sys
from typing import TypeAlias

from fxeval.datasets.faults import of_list
from fxeval.strict.text import brief, printable

MAX_ATTRIBUTES = 20
"""Most attributes of an image."""

Attribute: TypeAlias = str | int | float | bool
"""Printable text of at most 255 characters, a finite number, true or false."""

_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def attributes_of(given: object, where: str) -> dict[str, Attribute]:
    """Return the attributes of an image.

    Args:
        given: The object of the manifest.
        where: The image's entry, for messages.

    Raises:
        DataContractError: If it is no flat object of names and such values.
    """
    if not isinstance(given, dict) or len(given) > MAX_ATTRIBUTES:
        raise of_list(
            where,
            f"expected 'attributes' to be an object of at most {MAX_ATTRIBUTES} names and values",
            f", got {len(given)}" if isinstance(given, dict) else f", got {_shown(given)}",
            "Correct the manifest.",
        )
    for name, value in given.items():
        if not _ATTRIBUTE.fullmatch(name):
            raise of_list(
                where,
                "expected the names of 'attributes' to be of at most 64 letters (A to Z), digits "
                "and underscores, with no digit first",
                f", got {_shown(name)}",
                "Rename the attribute.",
            )
        if not _is_attribute(value):
            raise of_list(
                where,
                "expected the values of 'attributes' to be printable text of at most 255 "
                "characters, finite numbers, true or false",
                f", got {_shown(value)} for '{name}'",
                "Correct the value, or leave the attribute out of this image.",
            )
    return given


def _is_attribute(value: object) -> bool:
    if isinstance(value, str):
        return value.isprintable() and len(value) <= 255
    # NaN fails the comparison, and so does a whole number that no float can hold.
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _shown(value: object) -> str:
    return printable(brief(repr(value)))

"""Data errors with two messages: the full one for the user and a public one for records.

The public message may name a list, manifest or table by its bare name and line, give counts and say
what was expected. It contains no text from a file and no name of an image or folder, because any of
these may be a person's name.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from fxeval.errors import DataContractError
from fxeval.strict.text import printable

SHOWN = 5
"""Most faults that a message names; the others are counted."""

_LONGEST = 100
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def bare(where: str | Path) -> str:
    """Return the name and line of a list without its folder, for a record.

    >>> bare("/srv/Ann Lee/lfw.txt:7"), bare("/srv/faces/manifest.json: images[3]")
    ('lfw.txt:7', 'manifest.json: images[3]')
    """
    name = Path(where).name
    shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return printable(shown)


def of_list(where: str | Path, said: str, private: str = "", then: str = "") -> DataContractError:
    """Return the error for a fault in a list, manifest or table.

    Args:
        where: Path, and the line or entry.
        said: The fault, in words that may be published: expectations and counts only.
        private: Continuation for the user only, such as the line itself.
        then: Advice to the user.

    >>> fault = of_list("/srv/lfw.txt:7", "expected 'name i j'", ", got 'Ann,1'", "Correct it.")
    >>> fault.detail
    "/srv/lfw.txt:7: expected 'name i j', got 'Ann,1'. Correct it."
    >>> fault.public
    "lfw.txt:7: expected 'name i j'"
    """
    return _fault(where, bare(where), (said, private, then))


def of_image(
    where: str | Path, said: str, then: str = "",
    kind: type[DataContractError] = DataContractError,
) -> DataContractError:  # fmt: skip
    """Return the error for a fault in an image, which a record never names; see :func:`of_list`."""
    return _fault(where, "an image", (said, "", then), kind)


def of_folder(where: str | Path, said: str, private: str = "", then: str = "") -> DataContractError:
    """Return the error for a fault of a folder, which no record names; see :func:`of_list`."""
    return _fault(where, "the folder", (said, private, then))


def of_all(said: str, private: str = "", then: str = "") -> DataContractError:
    """Return the error for a fault that belongs to no single file; see :func:`of_list`."""
    advice = f" {then}" if then else ""
    return DataContractError(f"{said}{private}.{advice}", public=said)


def first_of(faults: Sequence[str], then: str = "") -> str:
    """Return the first few of many faults as the rest of a message, a line each, and a count.

    Args:
        faults: One message for each fault.
        then: Advice to the user.

    >>> print("7 lines are wrong" + first_of([f"x:{n}: odd" for n in range(1, 8)], "Correct them."))
    7 lines are wrong:
      x:1: odd
      x:2: odd
      x:3: odd
      x:4: odd
      x:5: odd
      and 2 more.
    Correct them.
    """
    lines = [f"  {fault}" for fault in faults[:SHOWN]]
    if len(faults) > SHOWN:
        lines.append(f"  and {len(faults) - SHOWN} more.")
    return ":\n" + "\n".join([*lines, then] if then else lines)


def each(items: Iterable[_Item], read: Callable[[_Item], _Found]) -> list[_Found]:
    """Read every line of a list, so that all its faults are told at once.

    Args:
        items: The lines, or entries.
        read: Reads one of them.

    Raises:
        DataContractError: If any is wrong: the error of the only one, or one about all of them.
    """
    found, errors = [], []
    for item in items:
        try:
            found.append(read(item))
        except DataContractError as error:
            errors.append(error)
    refuse(errors)
    return found


def refuse(errors: Sequence[DataContractError]) -> None:
    """Raise nothing for no error, the only one, or one error about all of them."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        counted = f"{len(errors)} faults"
        raise DataContractError(
            f"{counted}{first_of([str(error) for error in errors])}",
            public=f"{errors[0].public}; it is the first of {counted}",
        )


def _fault(
    where: str | Path, shown: str, words: tuple[str, str, str],
    kind: type[DataContractError] = DataContractError,
) -> DataContractError:  # fmt: skip
    said, private, then = words
    advice = f" {then}" if then else ""
    return kind(f"{where}: {said}{private}.{advice}", public=f"{shown}: {said}")

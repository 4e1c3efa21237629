"""Data errors with two messages: the full one for the user and a public one for records.

The public message may name a list, manifest or table by its bare name and line, give counts and say
what was expected. It contains no text from a file and no name of an image or folder, because any of
these may be a person's name.
"""

from pathlib import Path

from fxeval.errors import DataContractError
from fxeval.strict.text import printable

_LONGEST = 100


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


def _fault(
    where: str | Path, shown: str, words: tuple[str, str, str],
    kind: type[DataContractError] = DataContractError,
) -> DataContractError:  # fmt: skip
    said, private, then = words
    advice = f" {then}" if then else ""
    return kind(f"{where}: {said}{private}.{advice}", public=f"{shown}: {said}")

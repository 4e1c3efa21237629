"""Faults of data in two versions: all that there is to say, and what a record may say of it.

A record may name a list, a manifest or a table by its bare name and line, count, and say what was
expected. What comes out of a file, and the names of images and of folders, may be people's names.
"""

from pathlib import Path

from fxeval.errors import DataContractError

_LONGEST = 100


def bare(where: str | Path) -> str:
    """Return the name and the line of a list without its folder, fit for a record.

    >>> bare("/srv/Ann Lee/lfw.txt:7"), bare("/srv/faces/manifest.json: images[3]")
    ('lfw.txt:7', 'manifest.json: images[3]')
    """
    name = Path(where).name
    shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return "".join(char if char.isprintable() else "?" for char in shown)


def of_list(where: str | Path, said: str, private: str = "", then: str = "") -> DataContractError:
    """Return a fault of a list, a manifest or a table.

    Args:
        where: Its path, and the line or the entry.
        said: What is wrong, for everyone: of counts and expectations alone.
        private: What comes after that for whoever runs, such as the line itself.
        then: What is to be done, for whoever runs.

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
    """Return a fault of an image, whose name no record holds; arguments as of :func:`of_list`."""
    return _fault(where, "an image", (said, "", then), kind)


def of_folder(where: str | Path, said: str, private: str = "", then: str = "") -> DataContractError:
    """Return a fault of a folder, whose name no record holds; arguments as of :func:`of_list`."""
    return _fault(where, "the folder", (said, private, then))


def of_all(said: str, private: str = "", then: str = "") -> DataContractError:
    """Return a fault that no file alone has; arguments as of :func:`of_list`."""
    advice = f" {then}" if then else ""
    return DataContractError(f"{said}{private}.{advice}", public=said)


def _fault(
    where: str | Path, shown: str, words: tuple[str, str, str],
    kind: type[DataContractError] = DataContractError,
) -> DataContractError:  # fmt: skip
    said, private, then = words
    advice = f" {then}" if then else ""
    return kind(f"{where}: {said}{private}.{advice}", public=f"{shown}: {said}")

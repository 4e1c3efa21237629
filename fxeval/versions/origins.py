"""Whether a side ran its own version of what changed, and not a copy from elsewhere."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath


def loaded_in(folder: Path) -> dict[str, Path]:
    """Return the file of each module that the processes of a side wrote down."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.json")):
        read = json.loads(file.read_bytes())
        found.update({name: Path(path) for name, path in read.items()})
    return found


def loaded_from_elsewhere(
    loaded: Mapping[str, Path], worktree: Path, checkout: Path, changed: Sequence[str]
) -> Iterator[tuple[str, Path]]:
    """Yield files that changed, and from where a side loaded other code in their stead.

    An installed package, or an editable install of the user's checkout, may come before the version
    that is meant; both sides would then run the same code, and nothing would ever be worse.

    Args:
        loaded: The file of each module, by its name.
        worktree: Root of the side's worktree.
        checkout: Root of the user's checkout.
        changed: Files that differ between the two versions, from the root on.
    """
    elsewhere = {
        name: file
        for name, file in loaded.items()
        if not file.is_relative_to(worktree)
        and name.partition(".")[0] not in sys.stdlib_module_names
    }
    by_place = {file.resolve(): file for file in elsewhere.values()}
    for path in changed:
        own = worktree / path
        if not path.endswith(".py"):
            file = _beside_a_package(worktree, path, elsewhere)
            if file is not None and _content(file) != _content(own):
                yield path, file
            continue
        same_place = by_place.get((checkout / path).resolve())
        file = same_place or elsewhere.get(module_name(worktree, path))
        if file is not None and _content(file) != _content(own):
            yield path, file


def module_name(root: Path, path: str) -> str:
    """Return the name under which Python imports a file, by the packages that it lies in.

    Args:
        root: Root of a worktree.
        path: The file, from the root on.
    """
    file = PurePosixPath(path)
    parts = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    # A file that one side lacks lies in the packages that the other one knows.
    while folder.name and (root / folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def _beside_a_package(root: Path, path: str, elsewhere: Mapping[str, Path]) -> Path | None:
    """Return where a package that came from elsewhere keeps a file that is no module, if one did.

    Weights and tables of a package are read from beside its code.
    """
    for folder in PurePosixPath(path).parents:
        if (root / folder / "__init__.py").is_file():
            code = elsewhere.get(module_name(root, f"{folder}/__init__.py"))
            return None if code is None else code.parent / PurePosixPath(path).relative_to(folder)
    return None


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None

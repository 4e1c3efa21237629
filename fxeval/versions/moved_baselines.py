"""Is a baseline moved in the same change as the code that is compared with it?

A change that rewrites what it is judged by can pass anything. So a baseline moves in a change of
its own: one that touches the folder of the baselines and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fxeval.versions.git import GitError, changed_files, git, main_branch, merge_base, top


@dataclass(frozen=True)
class MovedBaseline:
    """What a change does to a baseline.

    Attributes:
        since: The branch that the change starts from.
        files: The files of the baseline that it changes, from the root of the checkout.
        others: The files that it changes outside of the folder of the baselines.
    """

    since: str
    files: tuple[str, ...]
    others: tuple[str, ...]


def moved_baseline(
    folder: Path, files: Sequence[Path], *, main: str | None = None, output: Sequence[Path] = ()
) -> MovedBaseline:
    """Return what the change from the main branch to the working tree does to a baseline.

    Args:
        folder: That of the baselines.
        files: File of the baseline, and folders of the runs that it names.
        main: The branch that the change starts from; None = that of the remote, or ``main``.
        output: Folders that runs write to: new files there are no part of a change.

    Raises:
        GitError: If the folder is in no checkout, the baseline is not in git, or git does not know
            what the change starts from.
    """
    root = top(folder).resolve()
    inside = _within(root, folder)
    own = [_within(root, path) for path in files]
    if not git(root, "ls-files", "--cached", "--others", "--exclude-standard", "--", own[0]):
        raise GitError(f"{own[0]}: expected a file that git keeps, got one that it ignores.")
    since = main or main_branch(root)
    changed = changed_files(root, merge_base(root, since))
    written = [_within(root, path) for path in output if path.resolve().is_relative_to(root)]
    new = {*git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")}
    return MovedBaseline(
        since=since,
        files=tuple(one for one in changed if any(_lies_in(one, path) for path in own)),
        others=tuple(
            one
            for one in changed
            if not _lies_in(one, inside)
            and not (one in new and any(_lies_in(one, path) for path in written))
        ),
    )


def _within(root: Path, path: Path) -> str:
    """Return a path as git writes it.

    Raises:
        GitError: If it lies outside of the checkout.
    """
    try:
        return path.resolve().relative_to(root).as_posix()
    except ValueError:
        raise GitError(f"{path.name}: expected a place in the checkout, got one outside.") from None


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")

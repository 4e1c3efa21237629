"""A worktree of git for each of two versions, made beside the user's own and taken away again.

The user's files, index, stashes and branches stay as they are: git keeps a note of each worktree
while it exists, and nothing else.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fxeval.errors import FxevalError
from fxeval.versions.commits import SUBMODULE, Version
from fxeval.versions.git import GitError, git, top

SECONDS = 900
"""Longest time to write the files of one version, which may be many and large."""

# Hooks of the user's, such as post-checkout, are about a checkout that somebody works in.
_WITHOUT_HOOKS = ("-c", "core.hooksPath=/dev/null")


class LinkError(FxevalError):
    """A file cannot be shown to both versions."""


@contextlib.contextmanager
def worktrees(folder: Path, versions: Sequence[Version]) -> Iterator[Mapping[str, Path]]:
    """Yield the root of a worktree for each version, by its side; they are gone afterwards.

    Args:
        folder: A folder of the user's checkout.
        versions: The versions.

    Raises:
        GitError: If git cannot write one.

    Example:
        >>> with worktrees(Path(), [base, head]) as roots:  # doctest: +SKIP
        ...     print(sorted(roots))
        ['base', 'head']
    """
    root = top(folder)
    made: list[Path] = []
    place = Path(tempfile.mkdtemp(prefix="fxeval-ab-")).resolve()
    try:
        roots = {}
        for version in versions:
            # The last folder keeps its name: some checkouts are packages themselves.
            path = place / version.side / root.name
            path.parent.mkdir()
            made.append(path)
            _add(root, path, version)
            roots[version.side] = path
        yield roots
    finally:
        with _undisturbed():
            for path in made:
                _remove(root, path)
            shutil.rmtree(place, ignore_errors=True)


def _add(root: Path, path: Path, version: Version) -> None:
    """Write a worktree with the files of a version; its HEAD is the commit, changes are changes."""
    add = ("worktree", "add", "--detach", str(path), version.commit)
    git(root, *_WITHOUT_HOOKS, *add, seconds=SECONDS)
    if version.tree is not None:
        tree = f"{version.tree}^{{tree}}"
        git(path, *_WITHOUT_HOOKS, "read-tree", "--reset", "-u", tree, seconds=SECONDS)


def _remove(root: Path, path: Path) -> None:
    """Take away a worktree, and git's note of it.

    ``git worktree prune`` would take away notes of others, too, such as those on a drive that is
    not there at the moment.
    """
    remove = ("worktree", "remove", "--force", "--force", str(path))
    try:
        git(root, *_WITHOUT_HOOKS, *remove, seconds=SECONDS)
    except GitError:  # a half-written one, or files that cannot be deleted
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(GitError):
            git(root, *_WITHOUT_HOOKS, *remove, seconds=SECONDS)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C wait until everything is as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def linked(folder: Path, asked: Sequence[str]) -> dict[str, Path]:
    """Return files and folders that git does not track, by their places from the root on.

    Args:
        folder: Where relative paths start.
        asked: Paths in the user's checkout.

    Raises:
        LinkError: If one is not there, lies outside the checkout, or git tracks it.
    """
    root, found = top(folder).resolve(), {}
    for text in asked:
        source = Path(os.path.normpath(folder.absolute() / text))
        place = _within(root, source, text).as_posix()
        entries = git(root, "--literal-pathspecs", "ls-files", "--stage", "--", place)
        if entries and not entries.startswith(SUBMODULE):
            raise LinkError(
                f"--link {text}: expected a path that git does not track, got one with tracked "
                "files: each side has its own version of them."
            )
        found[place] = source
    return found


def link(roots: Mapping[str, Path], sources: Mapping[str, Path]) -> None:
    """Show files or folders of the user's checkout at their places in worktrees.

    Args:
        roots: Roots of the worktrees, by side.
        sources: See :func:`linked`.

    Raises:
        LinkError: If a version has files of its own there.
    """
    for place, source in sources.items():
        for side, worktree in roots.items():
            _show(source, worktree / place, f"--link {place}: {side}")


def _within(root: Path, source: Path, text: str) -> Path:
    """Return a path from the root of the checkout on."""
    if not source.exists():
        raise LinkError(f"--link {text}: expected a file or folder, got a path where nothing is.")
    parent = source.parent.resolve()  # the last part may itself be a link to elsewhere
    if not parent.is_relative_to(root) or source.resolve() == root:
        raise LinkError(
            f"--link {text}: expected a path in the checkout, got one outside it, which both sides "
            "see anyway by its absolute path."
        )
    return parent.relative_to(root) / source.name


def _show(source: Path, target: Path, what: str) -> None:
    """Make a link at a place of a worktree.

    Raises:
        LinkError: If a file of the version's own is there.
    """
    try:
        if target.is_dir() and not target.is_symlink():
            target.rmdir()  # the place of a submodule: a worktree has none of its files
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(_pointed(source, target), target_is_directory=source.is_dir())
    except OSError as error:
        raise LinkError(f"{what} has another file at that place ({error.strerror}).") from error


def _pointed(source: Path, target: Path) -> Path:
    """Return what a link points at: a link to a tracked place means that place of each version."""
    if source.is_symlink():
        own = source.readlink()
        if not own.is_absolute() and (target.parent / own).exists():
            return own
    return source

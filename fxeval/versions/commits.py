"""The two versions of a checkout that a comparison is about: a base, and the change on it."""

from dataclasses import dataclass
from pathlib import Path

from fxeval.versions.git import GitError, git, main_branch, merge_base

SIDES = BASE, HEAD = "base", "head"

SUBMODULE = "160000 "
"""What git's list of files says of the place of a submodule."""

_HISTORY = (
    " This clone is shallow, so its history ends early: fetch all of it (git fetch --unshallow; in "
    "GitHub's actions/checkout: fetch-depth: 0)."
)


@dataclass(frozen=True)
class Version:
    """A version of the checkout, as its files are.

    Attributes:
        side: ``base`` or ``head``.
        commit: The commit, as 40 hex digits.
        tree: Commit that holds changes of tracked files on top of it; None = no changes.
        title: What messages call it.

    Example:
        ``Version("head", "4f1a...", "90cc...", "the working tree: 4f1a2b3c4d with changes")``
    """

    side: str
    commit: str
    tree: str | None
    title: str


def head_version(folder: Path, asked: str | None) -> Version:
    """Return the version that is judged.

    Args:
        folder: A folder of the checkout.
        asked: A commit; None = the working tree as it is: HEAD and the changes of tracked files.

    Raises:
        GitError: If git does not know the commit, or files are in conflict.
    """
    if asked is not None:
        return _named(folder, HEAD, asked)
    commit = _commit(folder, "HEAD")
    changes = git(folder, "stash", "create") or None
    what = "with changes" if changes else "without changes"
    return Version(HEAD, commit, changes, f"the working tree: {commit[:10]} {what}")


def base_version(folder: Path, asked: str | None, head: Version) -> Version:
    """Return the version that the other one is compared with.

    Args:
        folder: A folder of the checkout.
        asked: A commit; None = the one from which the head and the main branch went apart.
        head: The version that is judged.

    Raises:
        GitError: If git does not know the commit, there is no such commit, or head is no change
            of it.
    """
    if asked is not None:
        return _named(folder, BASE, asked)
    try:
        branch = main_branch(folder)
    except GitError as error:
        raise GitError(f"{error} (--base){_shallow(folder)}") from error
    try:
        commit = merge_base(folder, branch, head.commit)
    except GitError as error:
        raise GitError(
            f"expected a commit that {head.commit[:10]} and {branch} have in common, got none: "
            f"{error} Name a commit with --base.{_shallow(folder)}"
        ) from error
    if commit == head.commit and head.tree is None:
        raise GitError(
            f"expected a change, got {commit[:10]} for both sides: all of it is on {branch}. Name "
            "another commit with --base, such as HEAD~1."
        )
    return Version(BASE, commit, None, f"{commit[:10]}, from which it left {branch}")


def changed_between(folder: Path, base: Version, head: Version) -> list[str]:
    """Return the files that differ between two versions, from the root on.

    Raises:
        GitError: If git does not know one of them.
    """
    ends = (version.tree or version.commit for version in (base, head))
    names = git(folder, "diff", "--name-only", "--no-renames", "-z", *ends, "--").split("\0")
    return [name for name in names if name]


def untracked(folder: Path) -> list[str]:
    """Return the files that git neither tracks nor ignores; code and suites first.

    Raises:
        GitError: If the folder is in no checkout.
    """
    root = git(folder, "rev-parse", "--show-toplevel")
    names = git(Path(root), "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return sorted(filter(None, names), key=lambda name: (not name.endswith(_MATTER), name))


_MATTER = (".py", ".yaml", ".yml")


def submodules(folder: Path) -> list[str]:
    """Return the paths of submodules, whose files no worktree gets.

    Raises:
        GitError: If the folder is in no checkout.
    """
    root = git(folder, "rev-parse", "--show-toplevel")
    entries = git(Path(root), "ls-files", "--stage", "-z").split("\0")
    return [one.partition("\t")[2] for one in entries if one.startswith(SUBMODULE)]


def _named(folder: Path, side: str, asked: str) -> Version:
    commit = _commit(folder, asked)
    return Version(side, commit, None, asked if commit == asked else f"{asked} ({commit[:10]})")


def _commit(folder: Path, asked: str) -> str:
    """Return the digits of a commit.

    Raises:
        GitError: If git does not know it.
    """
    if asked.startswith("-"):  # git would read it as an option
        raise GitError(f"expected a commit, got {asked!r}.")
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", f"{asked}^{{commit}}")
    except GitError as error:
        git(folder, "rev-parse", "--show-toplevel")  # outside a checkout that is what to say
        if asked == "HEAD":
            raise GitError("expected a commit to compare, got a repository without any.") from error
        raise GitError(
            f"expected a commit, tag or branch that git knows, got {asked!r}.{_shallow(folder)}"
        ) from error


def _shallow(folder: Path) -> str:
    """Say that the history is cut off where it is."""
    try:
        return _HISTORY if git(folder, "rev-parse", "--is-shallow-repository") == "true" else ""
    except GitError:
        return ""

"""Questions to git about the checkout in which a command was started."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from fxeval.errors import FxevalError

SECONDS = 60
"""Longest time that one question may take."""

PLACES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
)  # fmt: skip
"""Variables that git sets for its hooks, and that name one checkout whatever folder is asked."""


class GitError(FxevalError):
    """Git is missing, the folder is in no checkout, or git refused what it was asked."""


def without_places(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which git finds the checkout of the folder that it is asked about.

    >>> without_places({"GIT_DIR": "/srv/other/.git", "LANG": "C"})
    {'LANG': 'C'}
    """
    return {name: value for name, value in environment.items() if name not in PLACES}


def git(folder: Path, *arguments: str, seconds: float = SECONDS) -> str:
    """Return what git prints, without the white space around it.

    Args:
        folder: A folder of the checkout.
        *arguments: Of git, such as ``"rev-parse", "HEAD"``.
        seconds: Longest time that it may take.

    Raises:
        GitError: If git cannot be started, takes too long, or fails; with what it said.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
            errors="replace",
            env=without_places(os.environ),
        )
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split()) or f"exit status {error.returncode}"
        raise GitError(f"git {' '.join(arguments)}: {said}.") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise GitError(f"git {' '.join(arguments)}: {error}.") from error
    return done.stdout.strip()


def top(folder: Path) -> Path:
    """Return the root of the checkout that a folder lies in.

    Raises:
        GitError: If it lies in none.
    """
    return Path(git(folder, "rev-parse", "--show-toplevel"))


def main_branch(folder: Path) -> str:
    """Return the branch that changes are made for: that of the remote, else ``main``, ``master``.

    Raises:
        GitError: If there is none of these.
    """
    for name in ("origin/HEAD", "origin/main", "origin/master", "main", "master"):
        try:
            git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except GitError:
            continue
        return name
    raise GitError(
        "expected a branch origin/HEAD, main or master that a change starts from, got none. Name "
        "the commit to compare with."
    )


def merge_base(folder: Path, other: str, of: str = "HEAD") -> str:
    """Return the commit from which two commits went apart.

    Args:
        folder: A folder of the checkout.
        other: The one.
        of: The other one.

    Raises:
        GitError: If they have no commit in common, or git does not know the other one.
    """
    return git(folder, "merge-base", of, other)


def changed_files(folder: Path, since: str) -> list[str]:
    """Return the files that differ between a commit and the working tree, from the root's view.

    New files that git does not ignore are among them.

    Raises:
        GitError: If git does not know the commit.
    """
    root = top(folder)
    known = git(root, "diff", "--name-only", "-z", since, "--").split("\0")
    new = git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return sorted({name for name in [*known, *new] if name})

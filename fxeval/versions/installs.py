"""A virtual environment of its own for a version, in which that version is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from fxeval.errors import FxevalError
from fxeval.versions.git import without_places

SECONDS = 3600
"""Longest time that pip may take."""

SHOWN_LINES = 30
_PROJECT = ("pyproject.toml", "setup.py")


class InstallError(FxevalError):
    """A version cannot be installed."""


def installed(side: str, root: Path, start: Path, place: Path) -> Path:
    """Install a version, and return the Python that runs it.

    The packages of this Python are seen from there, after the version's own, so that nothing large
    is installed again.

    Args:
        side: ``base`` or ``head``, for messages.
        root: Root of its worktree.
        start: Folder in which pytest will start; the project is the nearest one around it.
        place: Where the virtual environment goes.

    Raises:
        InstallError: If there is no project, or it cannot be installed.
    """
    project = _project(side, root, start)
    # The pip of this Python is seen from there, too.
    has_pip = importlib.util.find_spec("pip") is not None
    with_pip = ["--without-pip"] if has_pip else []
    _run(side, [sys.executable, "-m", "venv", *with_pip, str(place)], root)
    folder = "Scripts" if os.name == "nt" else "bin"
    python = place / folder / ("python.exe" if os.name == "nt" else "python")
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(_run(side, [str(python), "-c", asked], root).splitlines()[-1])
    lines = [f"import site; site.addsitedir({path!r})\n" for path in _site_packages()]
    (own / "fxeval_ab.pth").write_text("".join(lines), encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(side, [*pip, str(project)], root)
    return python


def _project(side: str, root: Path, start: Path) -> Path:
    """Return the nearest folder, from the start up to the root, that pip can install."""
    for folder in (start, *start.parents):
        if any((folder / name).is_file() for name in _PROJECT):
            return folder
        if folder == root:
            break
    raise InstallError(
        f"{side}: expected a pyproject.toml or setup.py at the root of the checkout, got none: "
        "there is nothing to install. Leave out --install."
    )


def _site_packages() -> list[str]:
    """Return the folders of this Python's installed packages."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _run(side: str, command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, env=without_places(os.environ), timeout=SECONDS, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(f"{side}: it cannot be installed: {error}") from error
    if done.returncode != 0:
        said = "\n".join(done.stdout.splitlines()[-SHOWN_LINES:])
        raise InstallError(f"{side}: it cannot be installed:\n{said}")
    return done.stdout

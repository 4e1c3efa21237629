"""Checkouts that tests make and ask git about."""

import subprocess


def run(folder, *arguments):
    """Run git as somebody, and return what it prints."""
    done = subprocess.run(
        ["git", "-C", folder, "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def commit(folder, message, **files):
    """Write files, by names in which ``__`` is a slash and ``_py`` a suffix, and commit all."""
    for name, text in files.items():
        write(folder, name, text)
    run(folder, "add", "."), run(folder, "commit", "--allow-empty", "-m", message)
    return run(folder, "rev-parse", "HEAD")


def write(folder, name, text):
    stem, _, suffix = name.replace("__", "/").rpartition("_")
    path = folder / f"{stem}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def state(folder):
    """Return what a command must leave as it is: files, index, stashes, branches, worktrees."""
    asked = ["status --porcelain -z", "diff --cached", "diff", "stash list", "worktree list",
             "for-each-ref", "rev-parse HEAD", "ls-files --stage -z"]  # fmt: skip
    files = {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }
    return [run(folder, *one.split()) for one in asked], files

"""Reads user-supplied text files within limits and splits them into lines."""

import re
from pathlib import Path

from fxeval.datasets.faults import of_list
from fxeval.strict.text import UNFIT

MAX_BYTES = 64 << 20
"""Largest list or manifest read."""

MAX_LINE = 4000
"""Longest line of a list, in characters."""

MAX_LINES = 1_000_000
"""Most lines of a list."""

_UNFIT = re.compile(
    f"[{UNFIT}\r\ufeff]"
)  # a line may hold no carriage return, nor a byte order mark


def read_text(path: Path) -> str:
    """Return a file's text without its byte order mark.

    Raises:
        DataContractError: If it is missing, not a regular file, larger than ``MAX_BYTES`` or not
            UTF-8.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise of_list(path, "expected a text file, got a folder or a special file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise of_list(path, "expected UTF-8 text", f" ({error})", "Save it as UTF-8.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise of_list(path, "cannot be read", f" ({reason})") from error
    if len(data) > MAX_BYTES:
        raise of_list(path, f"expected at most {MAX_BYTES} bytes, got more", then="Split it.")
    return text


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a file's bytes.

    Raises:
        DataContractError: If it is missing, not a regular file, or larger than the limit.
    """
    try:
        if path.exists() and not path.is_file():
            raise of_list(path, "expected a file, got a folder or a special file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise of_list(path, "cannot be read", f" ({error.strerror})") from error
    if len(data) > limit:
        raise of_list(path, f"expected at most {limit} bytes, got more")
    return data


def lines_of(text: str, where: str) -> list[str]:
    r"""Split text into lines, without line ends and without blank lines at its end.

    Args:
        text: The file's text, with line ends ``\n`` or ``\r\n``.
        where: Its path, for messages.

    Raises:
        DataContractError: With ``file:line``, if a line is too long or contains a control
            character, or if there are more than ``MAX_LINES``.

    >>> lines_of("Ann 1 2\r\nBob 1 2\n\n", "x")
    ['Ann 1 2', 'Bob 1 2']
    """
    text = text.replace("\r\n", "\n").rstrip(" \t\n")
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise of_list(
            where, f"expected at most {MAX_LINES} lines, got {len(lines)}", then="Split it."
        )
    # One search over the whole text; only a text with a fault is searched again line by line.
    if max(map(len, lines)) <= MAX_LINE and not _UNFIT.search(text):
        return lines
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE:
            raise of_list(
                f"{where}:{number}", f"expected at most {MAX_LINE} characters, got {len(line)}"
            )
        if unfit := _UNFIT.search(line):
            raise of_list(
                f"{where}:{number}",
                f"expected plain text, got character U+{ord(unfit.group()):04X} in column "
                f"{unfit.start() + 1}",
                then="Remove it.",
            )
    return lines

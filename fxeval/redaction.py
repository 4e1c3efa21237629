"""Keeps out of records what they must not hold: paths of the machine and names of people.

Records and scorecards are passed on; the output of a run is not, and shows the whole message.
The text for a record is a field of fxeval's own errors (``FxevalError.public``), never parsed out
of the message. For an error raised by user code, a record gives only the type and the place.
"""

import re
import traceback
from collections.abc import Mapping
from pathlib import Path

OTHER_REASON = "another reason, which is in the output of the run"
"""Stands in a record for a reason that is not marked as public."""

# Names of folders may contain spaces; another path, or the suffix of a file, ends one.
_LEADING = re.compile(
    r"(?:\b[A-Za-z]:|~|(?<![\w.:/\\]))[/\\](?=[^\s/\\])"
    r"(?:(?:(?! [/\\]|\.\w{1,11}\s)[^\n'\":,;()])*[/\\])?"
)
# A line of source, or the caret under it, as messages about YAML show them.
_EXCERPT = re.compile(r"\s+\d* *\|")
_PACKAGE = Path(__file__).parent
_LIBRARIES = ("/torch/", "/site-packages/", "/dist-packages/", "/lib/python3")


class PublicReason(str):
    """A reason that may appear in a record: the code that made it knows that it names nobody."""

    __slots__ = ()


def message_of(error: BaseException) -> str:
    """Return the message of an error, whose ``__str__`` may be user code that fails itself."""
    try:
        return str(error)
    except Exception:
        return "(its message cannot be read)"


def of_user_code(error: BaseException) -> str:
    """Return what a record says about an error raised by user code: its type and place.

    >>> of_user_code(KeyError("Ann Lee"))
    'KeyError'
    """
    return f"{type(error).__name__}{place_of(error)}"


def place_of(error: BaseException) -> str:
    """Return the name and line of the user's file that raised an error; "" without a traceback.

    If no frame belongs to user code, the last frame counts.
    """
    # The last first, and no line of source is read: endless recursion has a thousand frames.
    frames = [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ][::-1]
    if not frames:
        return ""
    file, line = next((one for one in frames if _is_user_code(one[0])), frames[0])
    return f" ({Path(file).name}:{line})"


def _is_user_code(file: str) -> bool:
    # "<string>" and "<frozen importlib>" are not files.
    if Path(file).is_relative_to(_PACKAGE) or file.startswith("<"):
        return False
    return not any(part in Path(file).as_posix() for part in _LIBRARIES)


def public_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Count each reason; reasons that may name people are counted together under one heading.

    >>> public_counts({PublicReason("no face found"): 3, "Ann Lee moved": 1})
    {'no face found': 3, 'another reason, which is in the output of the run': 1}
    """
    found: dict[str, int] = {}
    for reason, number in counts.items():
        shown = str(reason) if isinstance(reason, PublicReason) else OTHER_REASON
        found[shown] = found.get(shown, 0) + number
    return found


def without_paths(text: str) -> str:
    """Return a message with each absolute path cut down to the name of its file.

    >>> without_paths("/home/ann lee/w/net.pt: not the '/srv/card' that ../a/suite.yaml names")
    "net.pt: not the 'card' that ../a/suite.yaml names"
    >>> without_paths("/srv/a/../net.pt is out of /srv/b c/d; C:/ann/x.pt is a model and/or none")
    'net.pt is out of d; x.pt is a model and/or none'
    """
    return _LEADING.sub("", text)


def in_one_line(text: str) -> str:
    r"""Return a message in one line, without excerpts of files and without absolute paths.

    >>> in_one_line("/srv/a.yaml:3:1: error: got x\n     3 | x: y\n       | ^")
    'a.yaml:3:1: error: got x'
    """
    lines = (line for line in text.splitlines() if not _EXCERPT.match(line))
    return " ".join(without_paths(line.strip()) for line in lines)


def without_credentials(text: str) -> str:
    """Return an argument of a command line; of an address in it only the kind is left.

    >>> without_credentials("--fx-store=postgresql+pg8000://ann:secret@db.example/runs")
    '--fx-store=postgresql+pg8000://***'
    >>> without_credentials("suites/mine.yaml")
    'suites/mine.yaml'
    """
    return re.sub(r"://.*", "://***", text, flags=re.DOTALL)

"""What an error may say in a record: where and what, but no path of the machine and nobody's name.

Records and scorecards are handed on; the output of a run is not. There the whole message stays.
"""

import re

from fxeval.errors import DataContractError, FxevalError

# Folders may have spaces in their names; another path, or the suffix of a file, ends one.
_LEADING = re.compile(
    r"(?:\b[A-Za-z]:|~|(?<![\w.:/\\]))[/\\](?=[^\s/\\])"
    r"(?:(?:(?! [/\\]|\.\w{1,11}\s)[^\n'\":,;()])*[/\\])?"
)
_EXCERPT = re.compile(r"\s+\d* *\|")
_NAMELESS = re.compile(r"(?:pairs '[^'/\\]*'|pair listing|landmarks): [^/\\\n]*")
_COUNT = re.compile(r"\d+ of \d+ (?:images|pairs) [a-z ]+")
# Lists and manifests are named for what they hold, images and folders for who is in them.
_LIST = re.compile(r"[^\s/\\'\"]+\.(?:txt|csv|json|bin|onnx|yaml)(?::[0-9]+)*")


def for_a_record(error: FxevalError) -> str:
    r"""Return what a record says of an error, in one line and without excerpts of files.

    >>> for_a_record(FxevalError("/srv/a.yaml:3:1: error: got x\n     3 | x: y\n       | ^"))
    'a.yaml:3:1: error: got x'
    """
    if not isinstance(error, DataContractError):
        lines = (line for line in str(error).splitlines() if not _EXCERPT.match(line))
        return " ".join(without_paths(line.strip()) for line in lines)
    said = without_names(str(error))
    return said if said == str(error) else f"{said}; why is in the output of the run"


def without_paths(text: str) -> str:
    """Return a message whose absolute paths are only the names of their files.

    >>> without_paths("/home/ann lee/w/net.pt: not the '/srv/card' that ../a/suite.yaml names")
    "net.pt: not the 'card' that ../a/suite.yaml names"
    >>> without_paths("/srv/a/../net.pt is out of /srv/b c/d; C:/ann/x.pt is a model and/or none")
    'net.pt is out of d; x.pt is a model and/or none'
    """
    return _LEADING.sub("", text)


def without_names(text: str) -> str:
    """Return of a message about data which list it is about, and where: all else may be a name.

    >>> without_names("/srv/pairs.txt:7: 'name i j' expected, got 'Ann,1,2'.")
    'the data cannot be used (pairs.txt:7)'
    >>> without_names("pairs 'lfw': 9 mated pairs asked for, the list holds 8.")
    "pairs 'lfw': 9 mated pairs asked for, the list holds 8."
    """
    if _NAMELESS.fullmatch(text):
        return text
    shown = without_paths(text)
    found = [pattern.search(shown) for pattern in (_COUNT, _LIST)]
    facts = ", ".join(one[0].strip() for one in found if one)
    where = f" ({facts})" if facts else ""
    return f"the data cannot be used{where}"

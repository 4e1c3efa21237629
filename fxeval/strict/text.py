"""Words for messages: suggestions for wrong names, values short and printable."""

import difflib
import signal
from collections.abc import Iterable, Sequence

UNFIT = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
"""Inside of a regular expression's ``[...]``: control characters but tab and line ends, line breaks
that editors do not count, characters that reverse the reading direction, lone surrogates and
noncharacters. None may reach a terminal or a page."""


def hint(name: str, known: Iterable[str]) -> str:
    """Return the sentence that helps after a wrong name.

    >>> hint("deletoin", ["deletion", "insertion"])
    "Did you mean 'deletion'?"
    >>> hint("x", ["deletion", "insertion"])
    'Known: deletion, insertion.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(names)}." if names else "There are none."


def suggestion(name: object, known: Iterable[str]) -> str:
    """Return ``did you mean '...'?`` for a name that is near a known one, else nothing."""
    near = difflib.get_close_matches(str(name)[:100], list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def describe(value: object) -> str:
    """Return a value as a user wrote it, short: ``'warn'``, ``0``, ``a list``, ``nothing``."""
    if isinstance(value, str):
        return f"'{brief(value)}'"
    if isinstance(value, dict | list):
        kind = "mapping" if isinstance(value, dict) else "list"
        return f"a {kind}" if value else f"an empty {kind}"
    words = {None: "nothing", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else brief(repr(value))


def brief(text: str) -> str:
    """Return the text on one line, cut to 60 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def printable(text: str) -> str:
    """Return the text with a question mark for every character a terminal should not get."""
    return "".join(char if char.isprintable() else "?" for char in text)


def said_of_exit(code: int) -> str:
    """Say how a process ended, by its exit status; minus a signal's number if one killed it.

    >>> said_of_exit(3), said_of_exit(-9)
    ('exit status 3', 'signal 9, SIGKILL')
    """
    if code >= 0:
        return f"exit status {code}"
    known = {int(one): one.name for one in signal.Signals}
    return f"signal {-code}, {known.get(-code, 'of no name')}"


def either(words: Sequence[str]) -> str:
    """Return words as a choice.

    >>> either(["blur", "mean", "black"])
    'blur, mean or black'
    """
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

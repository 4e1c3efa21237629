"""Looks names up for people: what is unknown is answered with a suggestion."""

import difflib
from collections.abc import Iterable


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
    return f"Known: {', '.join(names)}." if names else "There is none."

"""The changes between two runs, as text, as Markdown and as a page. It makes no verdict."""

from collections.abc import Mapping, Sequence

from fxeval.records.changes import Comparison, Finding

_STATUS: Mapping[Finding, int] = {"not_worse": 0, "worse": 1, "undecided": 2}


def exit_status(comparisons: Sequence[Comparison]) -> int:
    """Return 0 if nothing got worse, 1 if something did, 2 if that cannot be said.

    Of several comparisons the worst counts; without any there is nothing to say.
    """
    found = {one.outcome for one in comparisons}
    return next((_STATUS[one] for one in ("worse", "undecided") if one in found), 0 if found else 2)

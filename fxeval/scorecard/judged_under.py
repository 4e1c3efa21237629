"""Under which conditions the limits of a cell judge, and into which slices its rows fall."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

TO_PASS, TO_FAIL = 30, 10
"""Identities that a verdict needs, as ``VERDICTS`` of the wording says."""


def judged_under(cell: Json) -> dict[str, Any]:
    """Return the axes that all limits of a cell pin to one value, but those of its slices.

    No limit is about another value of such an axis.

    >>> limits = [{"under": {"fill": "blur", "fraction": at}} for at in (0.1, 0.2)]
    >>> judged_under({"asked": limits, "slices": []})
    {'fill': 'blur'}
    """
    first, *others = [one["under"] for one in cell.get("asked") or cell["limits"]] or [{}]
    kept = (axis for axis in first if axis not in slices_of(cell))
    return {
        axis: first[axis] for axis in kept if all(one.get(axis) == first[axis] for one in others)
    }


def is_under(under: Json, pinned: Json) -> bool:
    """Say whether a condition is one of those that are pinned; an axis that it lacks is no matter.

    >>> is_under({"fill": "blur", "fraction": 0.1}, {"fill": "blur"})
    True
    >>> is_under({"fill": "white"}, {"fill": "blur"}), is_under({}, {"fill": "blur"})
    (False, True)
    """
    return all(under.get(axis, value) == value for axis, value in pinned.items())


def slices_of(cell: Json) -> tuple[str, ...]:
    """Return the columns that the cell's rows are sliced by."""
    return tuple(one["column"] for one in cell.get("slices") or ())


def column_of(cell: Json, row: Json) -> str:
    """Return the column whose slice a row is about; "" if it is about all rows."""
    return next((one for one in slices_of(cell) if one in row["under"]), "")


def too_few(row: Json) -> str:
    """Say that there are too few identities for a verdict; "" if there are enough."""
    n = row["n_identities"]
    if n < TO_FAIL:
        return "too few for a verdict"
    return "too few to pass" if n < TO_PASS else ""

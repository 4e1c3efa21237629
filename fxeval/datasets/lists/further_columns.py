"""Further columns of a table: what a list says of its pairs beyond its format, such as a pose."""

from collections.abc import Sequence

from fxeval.datasets.faults import of_list
from fxeval.slices import AttributeValue, name_fault, number_of
from fxeval.strict.text import brief, printable, suggestion

MAX_COLUMNS = 100
"""Most further columns of a table."""


def check_further(further: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse further columns whose names no suite can write, or that are misspelt known ones.

    Args:
        further: Their names.
        known: The columns that the format has.
        where: ``file:line``.

    Raises:
        DataContractError: With the first such column, or if they are more than ``MAX_COLUMNS``.
    """
    if len(further) > MAX_COLUMNS:
        said = f"expected at most {MAX_COLUMNS} further columns, got {len(further)}"
        raise of_list(where, said)
    for name in further:
        if fault := name_fault(name):
            shown = printable(brief(repr(name)))
            raise of_list(where, f"expected names of columns {fault}", f", got {shown}")
        if help := suggestion(name, known):
            raise of_list(
                where,
                "a column has nearly the name of another one, and may be misspelt",
                f": '{brief(name)}'; {help}",
                "Give a further column a name of its own.",
            )


def values_of(cells: Sequence[str]) -> tuple[AttributeValue, ...]:
    """Return the values of a further column of a table.

    They are numbers if every cell that is not empty or ``nan`` is one; these cells are not known.

    >>> values_of(["1", "", "NaN"]), values_of(["1", "left"])
    ((1.0, None, None), ('1', 'left'))
    """
    numbers = [number_of(cell) for cell in cells]
    is_missing = [not cell or cell.lower() == "nan" for cell in cells]
    if any(one is None and not missing for one, missing in zip(numbers, is_missing, strict=True)):
        return tuple(cell or None for cell in cells)
    return tuple(numbers)

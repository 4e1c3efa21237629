"""What a user may write after ``--within``."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from fxeval.cli.usage import WrongUsage

if TYPE_CHECKING:
    from fxeval.statistics.changes import Margins


def margins_of(within: Sequence[str], over: Literal["suite", "list", "population"]) -> "Margins":
    """Return by how much a later run may be worse.

    Args:
        within: ``0.02``, in the unit of every metric, or ``5%`` of the earlier value; with
            ``METRIC=`` before it of that metric alone.
        over: What changes are about.

    Raises:
        WrongUsage: If one is no amount, or stands twice.
    """
    from fxeval.statistics.changes import Margins

    found: dict[str, Mapping[Literal["absolute", "relative"], float]] = {}
    for text in within:
        metric, _, amount = text.rpartition("=")
        if metric in found:
            raise WrongUsage(f"--within {text}: {metric or 'all metrics'} have a margin already.")
        found[metric] = _amount(text, amount)
    return Margins(found, over)


def _amount(text: str, amount: str) -> Mapping[Literal["absolute", "relative"], float]:
    is_share = amount.endswith("%")
    try:
        number = float(amount.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise WrongUsage(
            f"--within {text}: expected an amount of at least 0, such as 0.02, or a share of the "
            f"earlier value, such as 5%, got {amount!r:.80}."
        )
    return {"relative": number / 100} if is_share else {"absolute": number}

"""The looks at a cell that is measured further while it is undecided, in words."""

import math
from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def looked_at(cell: Json) -> str:
    """Say at which look a cell stopped, and how sure its intervals are there; "" without looks.

    >>> looks = {"kind": "planned", "units": "identities", "identities": [60, 90, 150],
    ...          "rows": [60, 90, 150], "left_out": 0, "used": 1, "confidence": 0.9992}
    >>> looked_at({"looks_taken": looks, "verdict": {"outcome": "pass"}})
    'look 1 of 3, 60 of 150 identities, decided at 99.92 %'
    """
    looks = cell.get("looks_taken")
    if looks is None:
        return ""
    at, used = looks["used"] - 1, looks["used"]
    of = looks[looks["units"]]
    end = "left open" if cell["verdict"]["outcome"] == "inconclusive" else "decided"
    seen = f"{of[at]:,} of {of[-1]:,} {looks['units']}"
    level = percent(looks["confidence"])
    if looks["kind"] == "open":
        return f"open look {used}, {seen}, {end} at {level} over all looks"
    missing = looks["left_out"]
    why = f" ({missing} left out: too few identities)" if missing else ""
    return f"look {used} of {len(of)}{why}, {seen}, {end} at {level}"


def percent(confidence: float) -> str:
    """Write a confidence with two digits of what it leaves out.

    >>> percent(0.95), percent(0.99921), percent(1 - 2.7e-12)
    ('95 %', '99.921 %', '99.99999999973 %')
    """
    left = 1.0 - confidence
    digits = max(0, 1 - math.floor(math.log10(100.0 * left))) if left > 0.0 else 0
    text = f"{100.0 * confidence:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"

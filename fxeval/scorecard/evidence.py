"""What a verdict rests on: the table beside a cell's limits, and what a reader should be told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fxeval.scorecard.wording import begun, condition, counted, number

Json = Mapping[str, Any]

LARGE_SHARE = 0.10
"""A share of the rows above which a page says that a result leans on one identity."""

HEADS: Mapping[str, str] = {
    "about": "the population: all people like those of the list, of which the list is "
    "a sample; or this list, and nobody else. A limit that names no condition must hold under each "
    "unless it says worst or mean.",
    "effective identities": "as many identities with equally many rows each would weigh as much as "
    "the identities of the list.",
    "largest share": "share of the rows in which one identity has a part; marked above 10 %.",
    "least difference shown": "the smallest distance of the truth from the limit that a list like "
    "this one shows with a probability of 80 %. Smaller ones stay inconclusive.",
    "without any one identity": "whether the verdict would be the same if any single identity were "
    "left out of the list.",
    "seeds": "values with differently seeded maps of one stochastic explainer: their number, their "
    "standard deviation, and the worst, which decides.",
    "method": "how the interval was computed, and its two-sided level.",
}
"""The columns and what they mean."""


@dataclass(frozen=True)
class Entry:
    """A cell of the table.

    Attributes:
        text: Its text.
        is_flagged: Whether a reader must not miss it.
    """

    text: str
    is_flagged: bool = False


@dataclass(frozen=True)
class Evidence:
    """What is known of the limits of a cell: once where it is the same for all, else one row each.

    Attributes:
        shared: Names and entries of the columns in which all limits agree.
        heads: Names of the other columns, the limit's first; () if there are none.
        rows: Entries of each row.
    """

    shared: tuple[tuple[str, Entry], ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


def evidence(cell: Json) -> Evidence | None:
    """Return the evidence of a cell; None if its record says nothing beside value and interval."""
    limits = cell["limits"]
    columns = {head: [entry(limit) for limit in limits] for head, entry in _ENTRIES.items()}
    known = {head: entries for head, entries in columns.items() if any(e.text for e in entries)}
    if not known.keys() - _ALWAYS:
        return None
    shared = {head: entries[0] for head, entries in known.items() if len(set(entries)) == 1}
    apart = {head: entries for head, entries in known.items() if head not in shared}
    names = [Entry(limit["text"] + condition(limit["under"])) for limit in limits]
    rows = tuple(zip(names, *apart.values(), strict=True)) if apart else ()
    return Evidence(tuple(shared.items()), ("limit", *apart) if apart else (), rows)


def leaning(cell: Json) -> str:
    """Say in a sentence that a result leans on one identity; "" if none does."""
    shares = [(_share(limit), limit) for limit in cell["limits"]]
    share, limit = max(shares, key=lambda one: one[0], default=(0.0, None))
    parts = []
    if share > LARGE_SHARE and limit is not None:
        parts.append(
            f"one identity has a part in {100 * share:.0f} % of the rows of {limit['metric']}: "
            "such a result leans on one person"
        )
    hanging = [one for one in cell["limits"] if one["hangs_on_one"]]
    if hanging:
        verdicts = counted(len(hanging), "verdict")
        each = "would be another one" if len(hanging) == 1 else "would each be another one"
        parts.append(f"{verdicts} of {len(cell['limits'])} {each} without some single identity")
    said = "; ".join(parts)
    return begun(said) + "." if said else ""


def settles(limit: Json) -> str:
    """Return what would settle an inconclusive limit, unless its reason says it already."""
    text: str = limit["settles"]
    is_told = limit["verdict"]["outcome"] != "inconclusive" or text in limit["verdict"]["reason"]
    return "" if is_told else text


def repeats(cell: Json) -> list[tuple[str, str]]:
    """Return facts on whether the explainer repeats its maps, as names and values."""
    found = cell["repeatability"]
    if found is None:
        return []
    again = "yes" if found["repeats"] else f"no: {found['reason'] or 'its maps differ'}"
    if found["change"]:
        again += f"; largest change {found['change']:.2g} of a map's range"
    own = "no"
    if found["depends_on_seed"]:
        own = f"yes; judged with {counted(cell['seeds'], 'seed')}"
    on = counted(found["n_rows"], "row")
    return [(f"repeats with the same seed, on {on}", again), ("depends on its seed", own)]


def _share(limit: Json) -> float:
    return (limit["estimate"] or {}).get("largest_share") or 0.0


def _about(limit: Json) -> Entry:
    over = "this list" if limit["over"] == "list" else "the population"
    worst = ", worst slice" if limit.get("slice") else ", worst condition"
    how = {"worst": worst, "mean": ", mean over conditions"}.get(limit["judge"], "")
    return Entry(over + how)


def _effective(limit: Json) -> Entry:
    figures = limit["estimate"] or {}
    effective = figures.get("effective_identities")
    return Entry("" if effective is None else f"{effective:.1f} of {figures['n_identities']:,}")


def _largest(limit: Json) -> Entry:
    figures = limit["estimate"] or {}
    if figures.get("largest_share") is None:
        return Entry("")
    share = _share(limit)
    is_large = share > LARGE_SHARE
    return Entry(f"{100 * share:.1f} %{', above 10 %' if is_large else ''}", is_flagged=is_large)


def _detectable(limit: Json) -> Entry:
    return Entry("" if limit["detectable"] is None else number(limit["detectable"]))


def _hanging(limit: Json) -> Entry:
    words = {None: "", True: "another verdict", False: "the same verdict"}
    return Entry(words[limit["hangs_on_one"]], is_flagged=bool(limit["hangs_on_one"]))


def _seeds(limit: Json) -> Entry:
    spread = limit["seeds"]
    if spread is None:
        return Entry("")
    values = spread["values"]
    worst = values[spread["worst"]] if spread["worst"] < len(values) else None
    return Entry(f"{len(values)}: SD {number(spread['sd'])}, worst {number(worst)}")


def _method(limit: Json) -> Entry:
    return Entry((limit["estimate"] or {}).get("method", "no estimate"))


_ENTRIES: Mapping[str, Callable[[Json], Entry]] = {
    "about": _about,
    "effective identities": _effective,
    "largest share": _largest,
    "least difference shown": _detectable,
    "without any one identity": _hanging,
    "seeds": _seeds,
    "method": _method,
}
_ALWAYS = {"about", "method"}
"""Columns of which older records knew something, too."""

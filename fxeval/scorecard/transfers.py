"""Transfer: what the maps made with one network do to another, as tables that are shaded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxeval.scorecard.wording import counted, interval, map_name, number, plain

Json = Mapping[str, Any]

DRAWN = 6
"""Most matrices that are drawn; the others are rows of the overview."""

_SHADES = 9

_INDEX = "1 = as strong as the evaluator's own map; so is a map that is the same for all networks"
_TITLES: Mapping[str, str] = {
    "occlusion_tmr": "mated pairs still accepted: lower = stronger",
    "occlusion_cosine_drop": "drop of the cosine: higher = stronger",
    "transfer_index": f"transfer index on acceptance: {_INDEX}",
    "transfer_index_cosine": f"transfer index on the cosine drop: {_INDEX}",
    "occlusion_area": "share of the pixels that were occluded",
}
_UNSHADED = ("occlusion_area",)
_LOWER_IS_STRONGER = ("occlusion_tmr",)


@dataclass(frozen=True)
class Entry:
    """A value of a table.

    Attributes:
        value: The estimate.
        ends: Its interval in words.
        shade: From 0 to 8, the stronger the darker; None = no ground.
        is_own: Whether a model is judged with its own maps.
    """

    value: str
    ends: str
    shade: int | None = None
    is_own: bool = False


@dataclass(frozen=True)
class Heat:
    """One metric: generators by evaluators.

    Attributes:
        title: What the numbers are.
        heads: Names of the means that follow the evaluators.
        rows: Name, entries of the evaluators, and the means over them.
        foot: Rows that are no generator's: clean, means of the columns, controls.
        agreement: Spearman's correlation between generators, a row each; () if there is none.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...], tuple[str, ...]], ...]
    foot: tuple[tuple[str, tuple[str, ...]], ...]
    agreement: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Transfer:
    """A matrix with all that its part of the page shows."""

    name: str
    about: str
    matrix: Json
    tables: tuple[Heat, ...]


def transfers(record: Json) -> tuple[Transfer, ...]:
    """Return the matrices of a record that are drawn."""
    return tuple(
        Transfer(name(one), _about(one), one, tuple(_heats(one)))
        for one in (record.get("transfers") or ())[:DRAWN]
    )


def overview(record: Json) -> list[list[str]]:
    """Return a row for each matrix: what it is of, and its means with and without own maps."""
    rows = []
    for one in record.get("transfers") or ():
        tables = {table["metric"]: table for table in one["tables"]}
        row = [one["explainer"], one["pairs"], plain(one["fill"]), plain(one["fraction"])]
        for metric in ("occlusion_tmr", "transfer_index"):
            found = tables.get(metric) or {}
            row += [number(found.get(key)) for key in ("mean_with_self", "mean_without_self")]
        row.append("looks like an artefact" if one["warning"] else "none")
        rows.append([one["check"], *row])
    return rows


OVERVIEW = (
    "check",
    "explainer",
    "pairs",
    "fill",
    "fraction",
    "accepted, own maps",
    "accepted, others' maps",
    "transfer index, own maps",
    "transfer index, others' maps",
    "warning",
)
"""The columns of the overview."""


def name(matrix: Json) -> str:
    """Return what a matrix is of."""
    return (
        f"{matrix['check']} of {matrix['explainer']} on {matrix['pairs']}, fill {matrix['fill']}, "
        f"fraction {plain(matrix['fraction'])}"
    )


def suspicious(record: Json) -> str:
    """Say that matrices look like an artefact of the occluded area; "" if none does."""
    found = record.get("transfers") or ()
    warned = [one for one in found if one["warning"]]
    if not warned:
        return ""
    n = counted(len(found), "transfer matrix", "transfer matrices")
    return f"{len(warned):,} of {n}: {warned[0]['warning']}"


def lines(record: Json) -> list[str]:
    """Return a line for each matrix: the means with own maps and with those of others."""
    found = []
    for one in record.get("transfers") or ():
        table = next((t for t in one["tables"] if t["metric"] == "occlusion_tmr"), None)
        if table is not None:
            clean = [value for value in one["clean"] if value is not None]
            mean = sum(clean) / len(clean) if clean else None
            found.append(
                f"{name(one)}: of mated pairs {number(mean)} are accepted with nothing occluded, "
                f"{number(table['mean_with_self'])} with a model's own maps, "
                f"{number(table['mean_without_self'])} with those of others"
            )
    return found


def _about(matrix: Json) -> str:
    sizes = (len(matrix["generators"]), "generator"), (len(matrix["evaluators"]), "evaluator")
    return " by ".join(counted(*size) for size in sizes)


def _heats(matrix: Json) -> Iterator[Heat]:
    for table in matrix["tables"]:
        metric = table["metric"]
        known = [value for line in table["values"] for value in line if value is not None]
        ground = None if metric in _UNSHADED or not known else (min(known), max(known))
        yield Heat(
            title=_TITLES.get(metric, map_name(metric)),
            heads=("mean", "mean without own"),
            rows=tuple(
                (
                    generator,
                    tuple(
                        _entry(table, (i, j), ground, generator == evaluator)
                        for j, evaluator in enumerate(matrix["evaluators"])
                    ),
                    tuple(number(table[key][i]) for key in ("row_means", "row_means_without_self")),
                )
                for i, generator in enumerate(matrix["generators"])
            ),
            foot=tuple(_foot(matrix, table)),
            agreement=_agreement(matrix, table),
        )


def _entry(
    table: Json, at: tuple[int, int], ground: tuple[float, float] | None, is_own: bool
) -> Entry:
    i, j = at
    value, low, high = (table[key][i][j] for key in ("values", "low", "high"))
    if value is None:
        return Entry("none", "", None, is_own)
    written = interval({"value": value, "low": low, "high": high})
    text, _, ends = written.partition(" ")
    shade = None
    if ground is not None:
        least, largest = ground
        share = (value - least) / (largest - least) if largest > least else 0.0
        share = 1 - share if table["metric"] in _LOWER_IS_STRONGER else share
        shade = min(_SHADES - 1, int(share * _SHADES))
    return Entry(text, ends, shade, is_own)


def _foot(matrix: Json, table: Json) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "mean of the column", _numbers(table["column_means"])
    yield "mean without own maps", _numbers(table["column_means_without_self"])
    of = {"occlusion_tmr": "tmr", "occlusion_cosine_drop": "cosine_drop"}.get(table["metric"])
    if of == "tmr":
        yield "clean: nothing occluded", _numbers(matrix["clean"])
    if of is not None:
        for control in matrix["controls"]:
            yield f"control {map_name(control['map'])}", _numbers(control[of])


def _numbers(values: Sequence[float | None]) -> tuple[str, ...]:
    return tuple(map(number, values))


def _agreement(matrix: Json, table: Json) -> tuple[tuple[str, ...], ...]:
    known = any(value is not None for line in table["agreement"] for value in line)
    if not known:
        return ()
    pairs = zip(matrix["generators"], table["agreement"], strict=False)
    return tuple((generator, *(number(value, 2) for value in line)) for generator, line in pairs)

"""The cost of explaining, and the diagnostics that explainers give for their maps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fxeval.scorecard.wording import number, plain

Json = Mapping[str, Any]

DIAGNOSTICS: Mapping[str, str] = {
    "negative_activation_share": "activations below 0 at the layer, which class activation maps "
    "are not made for",
    "supported_share": "pixels that enough masks covered",
    "correlation_over_noise": "largest correlation of a pixel, divided by what chance gives",
    "completeness_gap": "part of the similarity's change that the attributions miss",
    "supporting_share": "dimensions of the embedding that speak for a match",
    "unplaced_share": "part of the similarity that cannot be assigned to a place",
    "identities": "identities whose maps were compared",
    "subtrees": "neurons whose excitation was summed",
    "excitation_passes": "passes of excitation through the network, beside those counted",
    "mass_lost": "part of the excitation that did not arrive at the image",
    "clean_confidence": "probability of the predicted class before anything is removed",
    "tied_share": "pixels whose value another pixel has too, so that the map gives them no order",
    "orders_of_ties": "random orders of tied pixels that the values are means over",
    "decision_flips": "flips of the decision along a curve, the most of all fills and ways; more "
    "than 1: the curve returns, and a coarse one can miss the first flip",
    "rounds_used": "greedy rounds until no change helped any more",
}


def cost_rows(cells: Sequence[Json]) -> list[list[str]]:
    """Return a table: explainer, model, pairs, side, maps; forwards, backwards and time per map.

    Every set of maps of the trained network is listed once, with its cost when it was made.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        for made in cell.get("explaining", ()):
            if made["network"] == "trained" and not made["was_shared"]:
                about = (cell["explainer"], cell["model"], cell["pairs"], made["side"])
                rows.setdefault(about, [*about, plain(made["n_maps"]), *_per_map(made)])
    return list(rows.values())


def explaining_rows(cell: Json) -> list[list[str]]:
    """Return a table of one cell: network, side, maps, costs per map, which cell made them."""
    return [
        [
            made["network"],
            made["side"],
            plain(made["n_maps"]),
            *_per_map(made),
            "an earlier cell" if made["was_shared"] else "this cell",
        ]
        for made in cell.get("explaining", ())
    ]


def layers_read(cell: Json) -> list[str]:
    """Return the layers that a cell's maps were made at, and how each was read as a map."""
    layers = [layer for made in cell.get("explaining", ()) for layer in made.get("layers", ())]
    said = [
        f"{layer['name']} ({' x '.join(map(str, layer['shape']))}), read as "
        f"{layer['reading'].replace('_', ' ')}: {' x '.join(map(str, layer['grid']))} places"
        for layer in layers
    ]
    return list(dict.fromkeys(said))


def diagnostic_rows(cell: Json) -> Iterator[list[str]]:
    """Yield a table of one cell: diagnostic, mean, least, largest, meaning."""
    for one in cell.get("diagnostics", ()):
        figures = [number(one[key]) for key in ("mean", "least", "largest")]
        yield [one["name"].replace("_", " "), *figures, DIAGNOSTICS.get(one["name"], "")]


def _per_map(made: Json) -> list[str]:
    n = max(1, made["n_maps"])
    passes = [plain(round(made[key] / n, 1)) for key in ("forwards", "backwards")]
    return [*passes, f"{made['seconds'] / n:.3f} s"]

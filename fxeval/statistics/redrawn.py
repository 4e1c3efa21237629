"""Judges whether re-drawn networks are fit for a comparison, from their part of the record."""

from collections.abc import Sequence

from fxeval.records.schema import Network, Row
from fxeval.results import Outcome, Verdict

COLLAPSED_BELOW = 1e-4
"""Embedding spread below which a re-drawn network cannot tell faces apart."""

REDRAWN_SHARE = 0.5
"""Share of parameters below which a re-drawn network is still mostly the trained one."""

CONSTANT_SHARE = 0.2
"""Share of constant maps above which a re-drawn network's maps do not show a change."""


def network_notes(networks: Sequence[Network], rows: Sequence[Row]) -> list[str]:
    """Return a sentence about each re-drawn network."""
    return [
        f"{network.name}: {_made(network)}, embedding spread {_spread(network):.3g}, "
        f"{_constant(network, rows)} of {len(rows)} maps constant"
        for network in networks
    ]


def _made(network: Network) -> str:
    if network.made == "foreign":
        return (
            "stands in for the black box, with the same crop and size of embedding (architecture "
            "of mini_resnet, random weights)"
        )
    return f"{network.redrawn_share:.1%} of the parameters changed"


BLACK_BOX = (
    "black box: the map is not that of any network with this crop; whether it is that of these "
    "weights can't be shown"
)
"""What a pass means if the network is a black box."""


def black_box_note(networks: Sequence[Network]) -> str:
    """Return what a pass means if the network is a black box; "" if it is not."""
    return BLACK_BOX if any(network.made == "foreign" for network in networks) else ""


def network_objection(
    networks: Sequence[Network], rows: Sequence[Row], *, with_constant: bool = True
) -> Verdict | None:
    """Return why the re-drawn networks say nothing about the explainer; None if they do.

    Args:
        networks: Their part of the record.
        rows: The rows of the cell.
        with_constant: Whether constant maps are an objection; not if the metrics say for themselves
            how many they allow.
    """
    for network in networks:
        if not _spread(network) >= COLLAPSED_BELOW:  # NaN included
            return Verdict(
                Outcome.INVALID,
                "the re-drawn network is collapsed: it embeds every face alike (spread "
                f"{_spread(network):.2g}, at least {COLLAPSED_BELOW:g} needed)",
            )
        if network.redrawn_share < REDRAWN_SHARE and network.made != "nudged":
            return Verdict(
                Outcome.INVALID,
                f"only {network.redrawn_share:.0%} of the parameters could be re-drawn (at least "
                f"{REDRAWN_SHARE:.0%} needed): the network keeps its weights elsewhere",
            )
        constant = _constant(network, rows)
        if with_constant and constant > CONSTANT_SHARE * len(rows):
            return Verdict(
                Outcome.INCONCLUSIVE,
                f"{constant} of {len(rows)} maps of the re-drawn network are constant (at most "
                f"{CONSTANT_SHARE:.0%} allowed)",
            )
    return None


def _constant(network: Network, rows: Sequence[Row]) -> int:
    return sum(network.name in row.constant_under for row in rows)


def _spread(network: Network) -> float:
    return float("nan") if network.spread is None else network.spread

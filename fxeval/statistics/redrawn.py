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
        f"{network.name}: {network.redrawn_share:.1%} of the parameters changed, embedding spread "
        f"{_spread(network):.3g}, {_constant(network, rows)} of {len(rows)} maps constant"
        for network in networks
    ]


def network_objection(networks: Sequence[Network], rows: Sequence[Row]) -> Verdict | None:
    """Return why the re-drawn networks say nothing about the explainer; None if they do."""
    for network in networks:
        if not _spread(network) >= COLLAPSED_BELOW:  # NaN included
            return Verdict(
                Outcome.INVALID,
                "the re-drawn network is collapsed: it embeds every face alike (spread "
                f"{_spread(network):.2g}, at least {COLLAPSED_BELOW:g} needed)",
            )
        if network.redrawn_share < REDRAWN_SHARE:
            return Verdict(
                Outcome.INVALID,
                f"only {network.redrawn_share:.0%} of the parameters could be re-drawn (at least "
                f"{REDRAWN_SHARE:.0%} needed): the network keeps its weights elsewhere",
            )
        constant = _constant(network, rows)
        if constant > CONSTANT_SHARE * len(rows):
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

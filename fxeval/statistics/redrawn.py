"""Judges whether re-drawn networks are fit for a comparison, from their part of the record."""

import math
from collections.abc import Sequence

from fxeval.records.schema import Network, Row
from fxeval.results import Outcome, Verdict

COLLAPSED_BELOW = 1e-4
"""Embedding spread below which a re-drawn network cannot tell faces apart."""

REDRAWN_SHARE = 0.5
"""Share of parameters below which a re-drawn network is still mostly the trained one."""

CONSTANT_SHARE = 0.2
"""Share of constant maps above which a re-drawn network's maps do not show a change."""


SHOWN = 4
"""Names of tensors in a sentence."""


def network_notes(networks: Sequence[Network], rows: Sequence[Row]) -> list[str]:
    """Return a sentence about each re-drawn network."""
    return [
        f"{network.name}: {_made(network)}, embedding spread {_spread(network):.3g}"
        f"{_auc(network)}, "
        f"{_constant(network, rows)} of {len(rows)} maps constant"
        for network in networks
    ]


def _made(network: Network) -> str:
    if network.made == "foreign":
        return (
            "stands in for the black box, with the same crop and size of embedding (architecture "
            "of mini_resnet, random weights)"
        )
    of = f"{network.redrawn_share:.1%} of the parameters{_buffers(network)} changed"
    return of + _kept(network)


BLACK_BOX = (
    "black box: the map is not that of any network with this crop; whether it is that of these "
    "weights can't be shown"
)
"""What a pass means if the network is a black box."""


def black_box_note(networks: Sequence[Network]) -> str:
    """Return what a pass means if the network is a black box; "" if it is not."""
    return BLACK_BOX if any(network.made == "foreign" for network in networks) else ""


def still_tells(network: Network) -> bool:
    """Say whether a network tells mated pairs from nonmated ones better than by chance.

    >>> of = {"name": "re-drawn network 1", "spread": 0.5, "redrawn_share": 1.0, "auc_pairs": 32}
    >>> still_tells(Network(auc=0.6, **of)), still_tells(Network(auc=0.8, **of))
    (False, True)
    """
    return network.auc is not None and network.auc > 0.5 + _chance(network.auc_pairs)


def _chance(pairs: int) -> float:
    """Return how far the figure of a network that knows nothing lies from 0.5 at most.

    Two standard deviations of the Mann-Whitney statistic of as many mated as nonmated pairs.
    """
    return 2.0 * math.sqrt((2 * pairs + 1) / (12.0 * pairs * pairs)) if pairs else math.inf


def _buffers(network: Network) -> str:
    of = network.buffers_share
    return "" if of is None else f" and {of:.1%} of the buffers"


def _kept(network: Network) -> str:
    if not network.kept:
        return ""
    more = len(network.kept) - SHOWN
    named = ", ".join(network.kept[:SHOWN]) + f" and {more} more" * (more > 0)
    return f" (as they were: {named})"


def _auc(network: Network) -> str:
    if network.auc is None:
        return ""
    found = f", mated pairs told from nonmated ones with an AUC of {network.auc:.2f}"
    if network.layers or not still_tells(network):
        return found
    return f"{found}, above chance (0.5 +- {_chance(network.auc_pairs):.2f})"


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
        if network.layers:  # what else is trained, and how many maps it leaves constant, is shown
            continue
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

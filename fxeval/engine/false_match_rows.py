"""Rows of pairs of different people that the model takes for one."""

from dataclasses import replace

from fxeval.contracts import Pairs
from fxeval.engine.row_kinds import Table, all_pairs


def false_matches(pairs: Pairs) -> Table:
    """Return the pairs; the donor of a row is another image of the person in its probe.

    It is the probe itself where the list has no other image of the person, or the same picture
    under another name: nothing that it gives could change the probe.
    """
    table, digests = all_pairs(pairs), pairs.image_digests
    donor = pairs.probe.clone()
    if pairs.sources is not None:
        for row, image in enumerate(pairs.sources[:, 0].tolist()):
            if image >= 0 and digests[image] != digests[donor[row]]:
                donor[row] = image
    return replace(table, rows=replace(table.rows, kind="false matches", donor=donor))

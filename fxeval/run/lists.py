"""The pair lists of a run: read once, chosen from, and loaded once in each crop."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fxeval.contracts import Crop, PairListing, Pairs, PairSource
from fxeval.datasets.prepared_source import PreparedSource
from fxeval.engine.choosing import Asked, chosen, held_out_of, way_of
from fxeval.engine.forward_pool import ForwardPool
from fxeval.engine.row_kinds import Table
from fxeval.engine.selection import COMMON_CROP, common_digests, landmarks_of, load_pairs
from fxeval.engine.slicing import Listed
from fxeval.engine.tables import Making, table_of
from fxeval.engine.twin_rows import twins_of
from fxeval.errors import DataContractError
from fxeval.hooks.watch import modes_kept
from fxeval.metrics import kinds
from fxeval.run.descriptions import left_out
from fxeval.run.guard import Guard
from fxeval.run.keys import fixture_key
from fxeval.run.map_maker import PREPARING, Progress
from fxeval.suite.cells import Cell
from fxeval.verification.look_alikes import Matching, false_matches


class Lists:
    """Reads lists, chooses what cells measure of them, and loads it.

    Args:
        pool: Takes notes of what user code changed.
        guard: Compares loaded images with what they were.
        progress: Takes (cell id, stage, done, total).

    Attributes:
        told: Messages about data; printed, and in no record.
    """

    def __init__(self, pool: ForwardPool, guard: Guard, progress: Progress) -> None:
        self._pool, self._guard, self._progress = pool, guard, progress
        self.told: dict[str, None] = {}
        self._pairs: dict[tuple[Any, ...], Pairs] = {}
        self._listings: dict[tuple[str, str, str], PairListing] = {}
        self._contents: dict[tuple[Any, ...], tuple[str, ...]] = {}
        # By identity: the pairs are kept alive, and they cannot be hashed.
        self._remarks: dict[int, Sequence[str]] = {}
        self._listed: dict[int, Listed] = {}

    @property
    def kept(self) -> Sequence[dict[Any, Any]]:
        """What is remembered for later cells."""
        return self._pairs, self._listings, self._contents

    def loaded(
        self, cell: Cell, source: PairSource, crop: Crop, matching: Matching | None = None
    ) -> Pairs:
        """Return what a cell measures of a list, in a crop.

        Args:
            cell: The cell.
            source: The list.
            crop: Of the images.
            matching: Whom the cell's model takes for whom, for rows that are chosen by that.

        Raises:
            DataContractError: If the list holds less than what is asked for.
            EvidenceError: If the model takes nobody for somebody else.
        """
        kind = kinds()[cell.kind].ROWS
        held_out = held_out_of(kind, cell.parameters)
        by = None if matching is None else (matching.key, matching.threshold)
        key = fixture_key(cell, cell.pairs), cell.n, cell.seed, crop, way_of(kind), held_out, by
        if key not in self._pairs:
            listing = self._listing(cell, source)
            asked = Asked(cell.n, cell.seed, cell.pairs.id, cell.n_where)
            if matching is None:
                rows, remarks = chosen(listing, kind, held_out, asked)
            else:
                rows, remarks = false_matches(listing, matching, asked)
            self._pairs[key] = load_pairs(source, rows, crop, self._pool.note)
            if listing.excluded:
                self.told[left_out(cell.pairs.name, listing)] = None
            self._remarks[id(self._pairs[key])] = remarks
            self._listed[id(self._pairs[key])] = Listed(source, listing, self._pairs[key], rows)
        self._guard.keep(self._pairs[key].images)
        return self._pairs[key]

    def remarks(self, pairs: Pairs) -> Sequence[str]:
        """Return what is to be said about loaded pairs, such as what was left out."""
        return self._remarks[id(pairs)]

    def listed(self, pairs: Pairs) -> Listed:
        """Return the list that pairs were loaded from."""
        return self._listed[id(pairs)]

    def table(self, cell: Cell, pairs: Pairs, source: PairSource, crop: Crop) -> Table:
        """Return the rows of a cell.

        Where cells of models with different crops are compared, a row has the same name in all of
        them, and with it the same draws: that of its images in ``COMMON_CROP``.
        """
        protocol = kinds()[cell.kind]
        table = self.rows(cell, source, pairs, crop)
        if not hasattr(protocol, "OTHERS"):
            return table
        key = fixture_key(cell, cell.pairs), pairs.image_ids
        if key not in self._contents and crop == COMMON_CROP:
            self._contents[key] = pairs.image_digests
        if key not in self._contents:
            try:
                self._contents[key] = common_digests(source, pairs.image_ids, self._pool.note)
            except DataContractError:  # it has these images in one crop alone
                self._contents[key] = pairs.image_digests
        named = replace(pairs, image_digests=self._contents[key])
        alike = self.rows(cell, source, named, crop)
        return replace(table, rows=alike.rows, versions=alike.versions)

    def rows(self, cell: Cell, source: PairSource, pairs: Pairs, crop: Crop) -> Table:
        """Return the rows of a cell, named by the content of their images in a crop."""
        landmarks = partial(landmarks_of, source, pairs.image_ids, crop, self._pool.note)
        twins = partial(twins_of, source, pairs, crop, self._pool.note)
        making = Making(cell.seed, cell.parameters, landmarks, twins)
        return table_of(kinds()[cell.kind].ROWS, pairs, making)

    def _listing(self, cell: Cell, source: PairSource) -> PairListing:
        """Return a list, read once for all kinds of rows and crops."""
        key = fixture_key(cell, cell.pairs)
        if key not in self._listings:
            with modes_kept(self._pool.note, f"pairs '{source.name}'"):
                if isinstance(source, PreparedSource):
                    source.prepare(partial(self._progress, cell.id, PREPARING))
                self._listings[key] = source.listing()
        return self._listings[key]

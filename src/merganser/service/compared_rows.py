"""What this node looks at, and changes, in an exchange: the same whether it asked or was asked.

A look at many rows goes in slices, and lets the loop turn between them; each row is seen as it was at some moment since
the look began, which is all that `core.exchange` asks for. A meeting changes all its rows in one turn, in one batch.

Rows that a peer sends are taken by `core.horizon.met` alone, and only if they are not too far ahead of this clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice

import msgspec

from merganser.core import horizon, rows
from merganser.core.exchange import BUCKETS_MAX, DAMAGED, StretchSurvey, bucket_of
from merganser.core.hash_tree import stretches_in
from merganser.model.errors import ClockSkewError, CorruptionError, UnavailableError
from merganser.model.ids import PartitionId, TableId
from merganser.model.messages import Listed, Region, Tallied, TalliedTogether
from merganser.model.timestamp import Timestamp
from merganser.service.hash_trees import Change, HashTrees
from merganser.service.horizons import Horizons
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.values import check_row, decode_row, encode_row

SLICE_ROWS = 256  # fingerprinted between two turns of the loop: about a millisecond
SLICE_BYTES = 1_000_000  # the same, where rows are large
SCAN_ROWS = 10  # to open a scan costs as much
PAGE_S = 3.0  # what one answer may take, so that it comes before its asker gives up
PAGE_KEYS = 2048
PAGE_BYTES = 256 * 1024
"""Of rows, or of keys, in one message, but for one row, which may be larger."""

Held = tuple[bytes, bytes | None]


class Meeting(msgspec.Struct, frozen=True):
    """What came of a meeting."""

    held: tuple[bytes | None, ...]
    """What is held now of the first keys, as many as there was room for."""
    changed: int
    unmet: tuple[int, ...]
    """Positions of those that could not meet: damaged, or too far ahead of the clock."""
    horizon_us: int
    """This replica's, when that was so."""


class ComparedRows:
    """This node's rows for exchanges; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        trees: HashTrees,
        horizons: Horizons,
        *,
        observe: Callable[[Timestamp], None],
        admit: Callable[[], Awaitable[None]],
        on_damaged: Callable[[TableId, bytes], None],
    ) -> None:
        """Look at what ``engine`` holds.

        Args:
            topology: knows the ring.
            engine: holds the rows.
            trees: through which they are changed.
            horizons: this node's.
            observe: raises ClockSkewError for what lies too far ahead.
            admit: waits between slices while clients need this node more.
            on_damaged: told of each row whose checksum is wrong.
        """
        self._topology = topology
        self._engine = engine
        self._trees = trees
        self._horizons = horizons
        self._observe = observe
        self._admit = admit
        self._on_damaged = on_damaged
        self._loop = asyncio.get_running_loop()

    # Looking

    async def nodes(
        self, table: TableId, partition: PartitionId, level: int, positions: Sequence[int]
    ) -> tuple[int, ...]:
        """Return nodes of a tree that is ready, once what they tell of is durable.

        Raises:
            UnavailableError: it is not ready.
            StorageFailedError: it will not be durable.
        """
        hashes = self._trees.nodes(table, partition, level, positions)
        await self.durable()
        return hashes

    async def twigs(self, table: TableId, partition: PartitionId, leaves: Sequence[int]) -> tuple[int, ...]:
        """Return the twigs of leaves of a tree that is ready, once what they tell of is durable.

        Those that are not kept are counted from the rows.

        Raises:
            UnavailableError: the tree is not ready.
            CorruptionError: the engine cannot read a leaf whose twigs are not kept.
            StorageFailedError: it will not be durable.
        """
        hashes: list[int] = []
        for leaf in leaves:
            kept = self._trees.twigs(table, partition, leaf)
            hashes += await self._counted_twigs(table, partition, leaf) if kept is None else kept
        await self.durable()
        return tuple(hashes)

    async def _counted_twigs(self, table: TableId, partition: PartitionId, leaf: int) -> list[int]:
        return [survey.total for survey in await self.survey(table, partition, stretches_in(leaf))]

    async def survey(self, table: TableId, partition: PartitionId, stretches: Sequence[int]) -> list[StretchSurvey]:
        """Go through stretches to their ends.

        Raises:
            CorruptionError: the engine cannot read them.
        """
        surveys, pace = list[StretchSurvey](), _Pace(self._admit)
        for stretch in stretches:
            count, sums = 0, dict[int, int]()
            start: bytes | None = b""
            while start is not None:
                slice_rows, start = self._slice(table, partition, stretch, start)
                count += len(slice_rows)
                for key, stored in slice_rows:
                    bucket = bucket_of(key, BUCKETS_MAX)
                    sums[bucket] = sums.get(bucket, 0) ^ self._fingerprint(table, key, stored)
                await pace.has_read(len(slice_rows))
            surveys.append(StretchSurvey(count, sums))
        return surveys

    async def tally(self, table: TableId, partition: PartitionId, stretch: int, buckets: int, start: bytes) -> Tallied:
        """Return sums of a stretch from ``start`` on, as far as one answer goes.

        Raises:
            CorruptionError: the engine cannot read it.
            StorageFailedError: what they tell of will not be durable.
        """
        until, pace = self._loop.time() + PAGE_S, _Pace(self._admit)
        tallied = await self._tally(table, partition, stretch, buckets, start, until, pace)
        await self.durable()
        return tallied

    async def tally_together(
        self, table: TableId, partition: PartitionId, stretches: Sequence[int], buckets: Sequence[int]
    ) -> TalliedTogether:
        """Return sums of the first of some stretches, each whole, as many as one answer takes.

        Raises:
            CorruptionError: the engine cannot read them.
            StorageFailedError: what they tell of will not be durable.
        """
        found: list[tuple[int, ...]] = []
        until, pace = self._loop.time() + PAGE_S, _Pace(self._admit)
        for stretch, number in zip(stretches, buckets, strict=True):
            tallied = await self._tally(table, partition, stretch, number, b"", until, pace)
            if tallied.resume is not None:
                break
            found.append(tallied.sums)
        await self.durable()
        return TalliedTogether(tuple(found))

    async def _tally(
        self,
        table: TableId,
        partition: PartitionId,
        stretch: int,
        buckets: int,
        start: bytes,
        until: float,
        pace: _Pace,
    ) -> Tallied:
        sums = [0] * buckets
        resume: bytes | None = start
        while resume is not None and self._loop.time() < until:
            slice_rows, resume = self._slice(table, partition, stretch, resume)
            for key, stored in slice_rows:
                sums[bucket_of(key, buckets)] ^= self._fingerprint(table, key, stored)
            await pace.has_read(len(slice_rows))
        return Tallied(tuple(sums), resume)

    async def page(self, table: TableId, partition: PartitionId, regions: Sequence[Region], start: bytes) -> Listed:
        """List keys of ``regions``, stretches ascending, from ``start`` on, as far as one answer goes.

        Raises:
            CorruptionError: the engine cannot read them.
            StorageFailedError: what they tell of will not be durable.
        """
        entries: list[tuple[bytes, int]] = []
        size, until, resume, pace = 0, self._loop.time() + PAGE_S, None, _Pace(self._admit)
        for region in regions:
            low, end = self._trees.stretch_range(table, partition, region.stretch)
            chosen, resume = frozenset(region.chosen), max(low, start) if start < end else None
            while resume is not None:
                if len(entries) >= PAGE_KEYS or size >= PAGE_BYTES or self._loop.time() >= until:
                    await self.durable()
                    return Listed(tuple(entries), resume)
                slice_rows, resume = self._slice(table, partition, region.stretch, resume)
                for key, stored in slice_rows:
                    if region.buckets == 1 or bucket_of(key, region.buckets) in chosen:
                        entries.append((key, self._fingerprint(table, key, stored)))
                        size += len(key)
                await pace.has_read(len(slice_rows))
        await self.durable()
        return Listed(tuple(entries), None)

    async def fingerprints(self, table: TableId, wanted: Sequence[bytes]) -> tuple[int | None, ...]:
        """Return what each of the keys holds now, None for nothing, once it is durable.

        Raises:
            StorageFailedError: it will not be durable.
        """
        found: list[int | None] = []
        for number, key in enumerate(wanted):
            if number and number % SLICE_ROWS == 0:
                await self._admit()
            stored = self._stored(key)
            found.append(stored if stored is None else self._fingerprint(table, key, stored))
        await self.durable()
        return tuple(found)

    async def durable(self) -> None:
        """Return once all that has been seen is durable.

        Raises:
            StorageFailedError: it will not be.
        """
        if not self._engine.is_all_durable:
            await self._engine.durable()

    # Meeting

    def own(self, table: TableId, wanted: Sequence[bytes]) -> tuple[list[Held], int]:
        """Return what is held of the first of these keys, as many as a message takes, and how many those are.

        What is damaged is left out, and counted.
        """
        own: list[Held] = []
        size = count = 0
        for key in wanted:
            if size >= PAGE_BYTES:
                break
            count += 1
            stored = self._stored(key)
            if stored is None or self._fingerprint(table, key, stored) != DAMAGED:
                own.append((key, stored))
                size += len(key) + len(stored or b"")
        return own, count

    def meet(self, table: TableId, partition: PartitionId, others: Sequence[Held], *, other_us: int) -> Meeting:
        """Become equal with one who holds ``others``, all in one turn of the loop; durable after `durable`.

        Args:
            table: of the keys; known here.
            partition: of the keys; held here.
            others: distinct keys and what the other replica holds of them.
            other_us: its horizon.

        Raises:
            CorruptionError: a row of ``others`` is damaged; nothing was written.
            UnavailableError: this disk is too full for more rows; nothing was written.
            StorageFailedError: it is unknown whether anything was written.
        """
        if self._engine.shortage is not None:
            raise UnavailableError(self._engine.shortage)
        horizon_us, floor_us = (
            self._horizons.horizon_us(table, partition),
            self._horizons.floor_us(table, partition),
        )
        held: list[bytes | None] = []
        changes: list[Change] = []
        unmet: list[int] = []
        size = 0
        for position, (key, other) in enumerate(others):
            if size >= PAGE_BYTES:
                break
            stored = self._stored(key)
            try:
                after = self._met(key, stored, other, horizon_us=horizon_us, floor_us=floor_us, other_us=other_us)
            except (_DamagedHereError, ClockSkewError):
                unmet.append(position)
                held.append(None)
                continue
            if after != stored:
                changes.append((table, key, stored, after))
            held.append(after)
            size += 0 if after == other else len(after or b"")
        if changes:
            self._trees.write(changes)
        return Meeting(tuple(held), len(changes), tuple(unmet), horizon_us)

    def _met(
        self, key: bytes, stored: bytes | None, other: bytes | None, *, horizon_us: int, floor_us: int, other_us: int
    ) -> bytes | None:
        theirs = None if other is None else decode_row(key, other)
        try:
            mine = None if stored is None else decode_row(key, stored)
        except CorruptionError as error:
            self._on_damaged(keys.table_in(key), key)
            raise _DamagedHereError from error
        if theirs is not None:
            self._observe(rows.newest(theirs))
        wanted = horizon.met(mine, theirs, horizon_us=horizon_us, floor_us=floor_us, other_us=other_us)
        if wanted == mine:
            return stored
        return None if wanted is None else encode_row(key, wanted)

    # Rows

    def _slice(
        self, table: TableId, partition: PartitionId, stretch: int, start: bytes
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Return the next rows of a stretch, and where to go on; None: at its end."""
        low, end = self._trees.stretch_range(table, partition, stretch)
        found = list(islice(_until_bytes(self._engine.scan(max(low, start), end)), SLICE_ROWS))
        is_last = not found or (len(found) < SLICE_ROWS and sum(len(stored) for _, stored in found) < SLICE_BYTES)
        return found, None if is_last else keys.after(found[-1][0])

    def _stored(self, key: bytes) -> bytes | None:
        """Return what is stored; something that no checksum fits if the engine cannot tell."""
        try:
            return self._engine.get(key)
        except CorruptionError:
            return b""

    def _fingerprint(self, table: TableId, key: bytes, stored: bytes) -> int:
        try:
            check_row(key, stored)
        except CorruptionError:
            self._on_damaged(table, key)
            return DAMAGED
        return self._trees.fingerprint_of(table, key, stored)


class _Pace:
    """Lets the loop turn, and clients go first, whenever a slice's worth of rows has been read."""

    def __init__(self, admit: Callable[[], Awaitable[None]]) -> None:
        self._admit = admit
        self._rows = 0

    async def has_read(self, rows: int) -> None:
        self._rows += rows + SCAN_ROWS
        if self._rows >= SLICE_ROWS:
            self._rows = 0
            await self._admit()


class _DamagedHereError(Exception):
    """What this node holds of a key is damaged."""


def _until_bytes(scan: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    size = 0
    for key, stored in scan:
        yield key, stored
        size += len(stored)
        if size >= SLICE_BYTES:
            return

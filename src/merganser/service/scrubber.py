"""Go through all rows of this node, again and again, to find what rots unread.

A pass takes an interval: partition after partition, in the order of their keys, each in slices at a bounded rate, and
with pauses between them that spread the pass over its time. Where a pass is, is kept on the disk, so a restart goes
on there::

    pausing --> next partition: slice, slice, ... --> each leaf recounted --> position kept --+
       ^                                                                                      |
       +------------------------- the last one: a pass is over -------------------------------+

What it finds it hands to `service.damage`: rows whose checksum does not hold, and stretches that the engine cannot
read, which it goes round. Each leaf of the hash tree is counted anew, because a row that rots after it was counted
leaves its leaf as it was: no exchange would look there.

Source: Swift's object auditor; ZFS's scrub; Schwarz 2004, "Disk Scrubbing in Large Archival Storage Systems".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from merganser.core.hash_tree import FANOUT
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, StorageFailedError, UnavailableError
from merganser.model.ids import PartitionId
from merganser.service.damage import Damage
from merganser.service.hash_trees import HashTrees
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.registers import decode_register
from merganser.storage.values import decode_row, seal, unseal

SCRUB_INTERVAL_S = 7 * 86_400.0
LOOK_S = 60.0  # between two looks at a cluster without tables
SLICE_ROWS = 256  # decoded between two turns of the loop: about a millisecond
SLICE_BYTES = 1024 * 1024  # the same, where rows are large
SLICE_LEAVES = 32  # opening a scan costs as much as ten rows
ROWS_PER_S = 20_000  # a tenth of a core
BYTES_PER_S = 16 * 1024 * 1024  # a tenth of what a slow disk reads
PROBE_BYTES = 40  # of a key: table, token and as much of the partition key as tells most keys apart

_POSITION_KEY = keys.metadata_key("scrub")


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far the pass under way has come."""

    began_us: int = 0
    """By the wall clock; 0: no pass ever began."""
    table: int = 0
    partition: int = -1
    """The last that was looked through."""


class Scrubbed(msgspec.Struct, frozen=True):
    """What was found in one partition."""

    rows: int
    damaged: int
    """Rows whose checksum does not hold."""
    unreadable: int
    """Stretches that the engine cannot read."""
    leaves_wrong: int
    """Leaves of the hash tree that did not tell what is stored."""


class Scrubber:
    """The scrub of this node; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        trees: HashTrees,
        damage: Damage,
        *,
        wall_us: Callable[[], int],
        rng: random.Random,
        admit: Callable[[], Awaitable[None]],
        interval_s: float = SCRUB_INTERVAL_S,
    ) -> None:
        """Look through what ``engine`` holds once per ``interval_s``.

        ``admit`` waits while clients need this node more.
        """
        self._topology = topology
        self._engine = engine
        self._trees = trees
        self._damage = damage
        self._wall_us = wall_us
        self._rng = rng
        self._admit = admit
        self.interval_s = interval_s
        """May be set at any time; pauses that have begun stay as long as they were."""
        self.position = _load(engine)
        self.passes = 0
        """Completed since the start."""
        self.rows = 0
        """Looked at since the start, and so on."""
        self.leaves_wrong = 0

    async def run(self) -> None:
        """Look through everything once per interval, for as long as the node lives."""
        if self.position.began_us == 0:
            self._keep(Position(self._wall_us()))
        while True:
            place = self._next()
            if place is not None:
                await asyncio.sleep(self._pause_s())
                await self.scrub(*place)
                self._keep(Position(self.position.began_us, place[0].id, place[1]))
            elif self.position.table:
                self.passes += 1
                self._keep(Position(self._wall_us()))
            else:  # it holds nothing
                await asyncio.sleep(min(LOOK_S, self.interval_s))
                self._keep(Position(self._wall_us()))

    async def look_where_suspected(self) -> None:
        """Look through what somebody could not read, for as long as the node lives."""
        while True:
            table_id, start, end = await self._damage.suspected()
            table = self._topology.table(table_id)
            if table is not None:
                for partition in self._topology.partitions_between(table, start, end):
                    await self.scrub(table, partition)

    async def scrub(self, table: Table, partition: PartitionId, *, is_dry_run: bool = False) -> Scrubbed:
        """Check every row and every leaf of one partition; hand over what is damaged, unless it is a dry run."""
        position, end = self._topology.partition_range(table, partition, partition)
        rows = damaged = unreadable = 0
        leaves: set[int] = set()
        while position < end:
            await self._admit()
            found = self._slice(table, position, end)
            rows, damaged = rows + len(found.keys), damaged + len(found.damaged)
            leaves.update(self._trees.leaf_of(table.id, partition, key) for key in found.keys)
            if not is_dry_run:
                for key in found.damaged:
                    self._damage.met_row(table.id, key)
            position = found.position
            if found.is_blocked:
                beyond = _readable_from(self._engine, position, end)
                unreadable += 1
                if not is_dry_run:
                    self._damage.met_stretch(table.id, position, beyond)
                position = beyond
            await asyncio.sleep(max(len(found.keys) / ROWS_PER_S, found.bytes / BYTES_PER_S))
        wrong = 0 if is_dry_run else await self._recount(table, partition, leaves)
        self.rows += rows
        self.leaves_wrong += wrong
        return Scrubbed(rows, damaged, unreadable, wrong)

    def _slice(self, table: Table, start: bytes, end: bytes) -> _Slice:
        """Check some rows in one turn of the loop."""
        found = _Slice(start, decode_register if table.has_leaders else decode_row)
        try:
            for key, stored in self._engine.scan(start, end):
                found.add(key, stored)
                if len(found.keys) >= SLICE_ROWS or found.bytes >= SLICE_BYTES:
                    return found
        except CorruptionError:
            found.is_blocked = True
            return found
        found.position = end
        return found

    async def _recount(self, table: Table, partition: PartitionId, leaves: set[int]) -> int:
        """Count ``leaves`` anew, and those that are not empty by the tree; returns how many were wrong."""
        wrong = 0
        for number, leaf in enumerate(sorted(leaves | self._counted(table, partition))):
            if number % SLICE_LEAVES == 0:
                await self._admit()
            try:
                wrong += not self._trees.recount(table.id, partition, leaf)
            except CorruptionError:
                continue  # it is on the list
            except (UnavailableError, StorageFailedError):
                break  # the table is gone, or the disk has failed: the tree is of no use
        return wrong

    def _counted(self, table: Table, partition: PartitionId) -> set[int]:
        """Return which leaves are not empty by the tree."""
        try:
            branches = self._trees.nodes(table.id, partition, 1, range(FANOUT))
            full = [leaf for b, count in enumerate(branches) if count for leaf in range(b * FANOUT, (b + 1) * FANOUT)]
            counts = self._trees.nodes(table.id, partition, 2, full)
        except (UnavailableError, StorageFailedError):
            return set()  # the tree is still being counted
        return {leaf for leaf, count in zip(full, counts, strict=True) if count}

    def _next(self) -> tuple[Table, PartitionId] | None:
        """Return the partition after the position, in the order of the keys."""
        return next(iter(self._left()), None)

    def _left(self) -> list[tuple[Table, PartitionId]]:
        done = (self.position.table, self.position.partition)
        return [(table, partition) for table, partition in self._topology.held() if (table.id, partition) > done]

    def _pause_s(self) -> float:
        """Return how long to wait so that what is left takes the rest of the interval; less behind time, never more."""
        left = len(self._left())
        until_us = self.position.began_us + int(self.interval_s * 1e6)
        pause_s = (until_us - self._wall_us()) / 1e6 / left * self._rng.uniform(0.8, 1.2)
        return min(max(0.0, pause_s), self.interval_s / left)

    def _keep(self, position: Position) -> None:
        """Remember how far it is; should that not reach the disk, a restart does some partitions again."""
        self.position = position
        try:
            stored = seal(_POSITION_KEY, msgspec.msgpack.encode(position))
            self._engine.commit(Batch().put(_POSITION_KEY, stored))
        except StorageFailedError:
            return  # the engine has told; reads go on, and so does this


class _Slice:
    """What some rows in a row came to."""

    __slots__ = ("_decode", "bytes", "damaged", "is_blocked", "keys", "position")

    def __init__(self, start: bytes, decode: Callable[[bytes, bytes], object]) -> None:
        self._decode = decode
        self.keys: list[bytes] = []
        self.bytes = 0
        self.damaged: list[bytes] = []
        self.position = start
        """Where to go on."""
        self.is_blocked = False
        """The engine cannot read what comes next."""

    def add(self, key: bytes, stored: bytes) -> None:
        try:
            self._decode(key, stored)
        except CorruptionError:
            self.damaged.append(key)
        self.keys.append(key)
        self.bytes += len(key) + len(stored)
        self.position = keys.after(key)


def _readable_from(engine: Engine, start: bytes, end: bytes) -> bytes:
    """Return from where the engine can read again, having failed at ``start``; ``end`` if it cannot before.

    By halving: 320 probes, each of some 10 µs. Of several damaged blocks one after another it may take the first or
    the last for the end; what lies between is within the stretch then, and what comes after is met again.
    """
    low, high = _number(start), _number(end)
    while low < high:
        middle = (low + high) // 2
        try:
            next(iter(engine.scan(middle.to_bytes(PROBE_BYTES, "big"), end)), None)
        except CorruptionError:
            low = middle + 1
        else:
            high = middle
    return min(end, max(low.to_bytes(PROBE_BYTES, "big"), keys.after(start)))


def _number(key: bytes) -> int:
    return int.from_bytes(key[:PROBE_BYTES].ljust(PROBE_BYTES, b"\x00"), "big")


def _load(engine: Engine) -> Position:
    """Return how far an earlier life had come; the beginning if that is damaged: it is of no other use."""
    try:
        stored = engine.get(_POSITION_KEY)
        return Position() if stored is None else msgspec.msgpack.decode(unseal(_POSITION_KEY, stored), type=Position)
    except (CorruptionError, msgspec.MsgspecError):
        return Position()

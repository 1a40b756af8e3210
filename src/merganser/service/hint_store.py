"""The hints that this node keeps for others: durable, bounded, and given up only for an ack.

A hint is stored under ``hint|``, its target's number and the key of its row (`storage.keys`), as the time it
was first stored and the row in its stored form. Two hints for one key and target are one: their merge. So
the store holds what each target misses, in the order of its keys, and never more than its rows.

Taken are hints for tables of the newest map, within the bounds of `core.hint_policy`. A hint leaves when its
target has acked exactly what is stored, when its table is gone, or when it turns out damaged. When its target
holds the key no more, it becomes a hint for each node that does.

How much is stored is counted once at the start, in the background; until then nothing is taken.

Source: DeCandia 2007 §4.6.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice

import msgspec

from merganser.core import rows
from merganser.core.hint_policy import NOT_KEPT_HERE, objection
from merganser.core.horizon import right_after
from merganser.model.cluster import ClusterMap
from merganser.model.errors import CorruptionError, RefusedError, UnavailableError
from merganser.model.ids import NodeId, TableId, Token
from merganser.model.messages import Found, Hint, Merged, ReadHint
from merganser.model.row import Row
from merganser.model.timestamp import Timestamp
from merganser.service.horizons import Horizons
from merganser.service.replica import NO_SUCH_TABLE, refused_by_protocol
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.values import check_row, decode_row, encode_row, seal, unseal

SLICE_HINTS = 256  # read between two turns of the loop: a millisecond

_STORED_AT = struct.Struct(">q")
_MERGED = Merged()


class StoredHint(msgspec.Struct, frozen=True):
    """One hint as it was read from the store."""

    key: bytes
    """Of the row."""
    row: bytes
    value: bytes
    """What is stored, whole: tells whether it has changed since."""


class Held(msgspec.Struct):
    """What is stored for one target."""

    hints: int = 0
    stored_bytes: int = 0
    oldest_us: int = 0
    """When the oldest was stored, or earlier."""


class Summary(msgspec.Struct, frozen=True):
    """What is stored for one target, for people."""

    node: int
    """Its number."""
    hints: int
    bytes: int
    oldest_s: int
    """Age of the oldest hint, or somewhat more."""


class HintStore:
    """This node's hints; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        horizons: Horizons,
        *,
        wall_us: Callable[[], int],
        observe: Callable[[Timestamp], None],
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Keep hints in ``engine``; `count` is to run before any is taken.

        Args:
            topology: knows the tables and who holds what.
            engine: holds the hints.
            horizons: know what this node has sealed.
            wall_us: their age.
            observe: refuses timestamps from too far ahead (ClockSkewError).
            catch_up: fetches a newer map from a peer.
        """
        self._topology = topology
        self._engine = engine
        self._horizons = horizons
        self._wall_us = wall_us
        self._observe = observe
        self._catch_up = catch_up
        self._held: dict[int, Held] = {}
        self._bytes = 0
        self._is_counted = False
        self._tables = {table.id for table in topology.map.tables}
        self._has_orphans = True  # a crash may have come between a dropped table and its hints
        topology.when_changed(self._look_for_orphans)
        self.stored = 0
        """Hints taken since the start, those merged into one that was there among them."""
        self.refused = 0
        """Hints not taken for want of room or time."""
        self.damaged = 0
        """Hints that could not be read any more and were given up."""

    async def keep(self, sender: NodeId, request: Hint) -> Merged:
        """Store a hint; returns once it is durable. The answer tells of something newer for that key, as a replica's.

        A hint from before the seal of its partition is not stored: the answer outranks it (`core.horizon`).

        Raises:
            RefusedError: no such table, a leader-based one, no room, or the target is away for too long; nothing was
                stored.
            UnavailableError: what is stored has yet to be counted; nothing was stored.
            ClockSkewError: the row is from too far in the future; nothing was stored.
            CorruptionError: the row is damaged; nothing was stored.
            StorageFailedError: it is unknown whether it is durable.
        """
        await self._admit(sender, request.map_epoch, request.table, request.key)
        if not self._is_counted:
            raise UnavailableError("this node is starting and counts its hints, ask another")
        incoming = decode_row(request.key, request.row)
        self._observe(rows.newest(incoming))
        partition = self._topology.ring.partition_of(keys.token_in(request.key))
        sealed_us = self._horizons.of(request.table, partition).sealed_us
        if rows.newest(incoming).micros <= sealed_us:
            return Merged(right_after(sealed_us))
        outcome = self._merge(request.target, request.key, request.row, incoming)
        if not self._engine.is_durable(keys.hint_key(request.target, request.key)):
            await self._engine.durable()
        return outcome

    async def read(self, sender: NodeId, request: ReadHint) -> Found:
        """Return the merge of what is kept under a key for its replicas.

        Raises:
            RefusedError: no such table, or a leader-based one.
            CorruptionError: a hint is damaged.
        """
        await self._admit(sender, request.map_epoch, request.table, request.key)
        found: Row | None = None
        for target in self._targets_of(request.table, request.key):
            hint_key = keys.hint_key(target, request.key)
            value = self._engine.get(hint_key)
            if value is None:
                continue
            row = decode_row(request.key, _unpacked(hint_key, value)[1])
            found = row if found is None else rows.merge(found, row)
            if not self._engine.is_durable(hint_key):
                await self._engine.durable()
        return Found(None if found is None else encode_row(request.key, found))

    def targets(self) -> list[int]:
        """Return the numbers of the nodes that hints are stored for."""
        return sorted(target for target, held in self._held.items() if held.hints)

    def held(self, target: int) -> Held:
        """Return how much is stored for the node with number ``target``."""
        return self._held.get(target) or Held()

    def total(self) -> int:
        """Return how many hints are stored, for whomever."""
        return sum(held.hints for held in self._held.values())

    def has_misplaced(self) -> bool:
        """Tell whether hints are stored for tables that this node may not keep anything of."""
        outside = {table.id for table in self._topology.map.tables if not self._topology.may_keep(table)}
        if not outside or not self.total():
            return False
        return any(
            keys.table_in(keys.split_hint_key(key)[1]) in outside
            for key, _ in self._engine.scan(*keys.all_hints_range())
        )

    def summary(self) -> list[Summary]:
        """Return what is stored for whom."""
        now_us = self._wall_us()
        return [
            Summary(target, held.hints, held.stored_bytes, max(0, (now_us - held.oldest_us) // 1_000_000))
            for target in self.targets()
            if (held := self._held[target])
        ]

    def slice(self, target: int, start: bytes, *, hints_max: int, bytes_max: int) -> list[StoredHint]:
        """Return the next hints for ``target``, in the order of their keys; at least one if there is any.

        Args:
            target: a node's number.
            start: the least key of a row to return.
            hints_max: at most so many.
            bytes_max: no more once they amount to that.
        """
        found: list[StoredHint] = []
        damaged: list[bytes] = []
        for hint_key, value in self._engine.scan(keys.hint_key(target, start), keys.hint_range(target)[1]):
            try:
                hint = stored_hint(hint_key, value)
            except CorruptionError:
                damaged.append(hint_key)
                continue
            found.append(hint)
            bytes_max -= len(value)
            if len(found) == hints_max or bytes_max <= 0:
                break
        self._give_up(damaged)
        return found

    def delivered(self, target: int, hints: Iterable[StoredHint]) -> None:
        """Give up hints that ``target`` has acked, but for those that were merged with another meanwhile.

        Raises:
            StorageFailedError: they stay, and will be delivered again.
        """
        acked = [
            keys.hint_key(target, hint.key)
            for hint in hints
            if self._engine.get(keys.hint_key(target, hint.key)) == hint.value
        ]
        self._remove(acked)

    def retarget(self, target: int, hint: StoredHint, replicas: Iterable[int]) -> None:
        """Keep a hint for each of ``replicas`` instead, before this one is given up; the bounds do not stop that.

        Raises:
            StorageFailedError: it stays.
        """
        row = decode_row(hint.key, hint.row)
        for replica in replicas:
            self._merge(replica, hint.key, hint.row, row, is_bounded=False)
        self.delivered(target, [hint])

    def swept(self, target: int, *, since_us: int) -> None:
        """Note that every hint stored for ``target`` before ``since_us`` has been delivered."""
        held = self._held.get(target)
        if held is not None:
            held.oldest_us = max(held.oldest_us, since_us)

    def has_hints(self, table: TableId, first_token: Token, last_token: Token, *, until_us: int) -> bool:
        """Tell whether a hint for those tokens has a cell or a tombstone of ``until_us`` or earlier.

        A damaged hint counts: nobody knows what it held.
        """
        if not self._is_counted:
            return True
        low, high = keys.token_range(table, first_token, last_token)
        return any(self._has_hints(target, low, high, until_us) for target in self.targets())

    async def count(self) -> None:
        """Find out how much is stored; yields to the loop."""
        page = self._page(keys.all_hints_range()[0])
        while page:
            for hint_key, value in page:
                self._add(keys.split_hint_key(hint_key)[0], len(hint_key) + len(value), _stored_at(hint_key, value))
            await asyncio.sleep(0)
            page = self._page(keys.after(page[-1][0]))
        self._is_counted = True

    async def give_up_orphans(self) -> None:
        """Give up the hints for tables that are gone, if any may be there; yields to the loop.

        Raises:
            StorageFailedError: some may be left, and a later call goes on.
        """
        if not self._has_orphans:
            return
        page = self._page(keys.all_hints_range()[0])
        self._has_orphans = False  # a table that is dropped from now on sets it again
        try:
            while page:
                self._remove([hint_key for hint_key, _ in page if self._is_orphan(hint_key)])
                await asyncio.sleep(0)
                page = self._page(keys.after(page[-1][0]))
        finally:
            self._has_orphans = self._has_orphans or bool(page)

    async def _admit(self, sender: NodeId, map_epoch: int, table: TableId, key: bytes) -> None:
        if map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        epoch, known = self._topology.map.epoch, self._topology.table(table)
        if known is None or keys.table_in(key) != table:
            raise RefusedError(NO_SUCH_TABLE, f"no table with id {table} at epoch {epoch}", map_epoch=epoch)
        if known.has_leaders:
            raise refused_by_protocol(known, epoch)
        if not self._topology.may_keep(known):
            place = " ".join(filter(None, self._topology.me.domain)) or "no zone"
            raise RefusedError(NOT_KEPT_HERE, f"table {known.name} may not be kept in {place}", map_epoch=epoch)

    def _targets_of(self, table: TableId, key: bytes) -> list[int]:
        known = self._topology.table(table)
        replicas = () if known is None else self._topology.replicas(known, key)
        return [number for node in replicas if (number := self._topology.number_of(node)) is not None]

    def _merge(self, target: int, key: bytes, stored: bytes, incoming: Row, *, is_bounded: bool = True) -> Merged:
        hint_key = keys.hint_key(target, key)
        value = self._engine.get(hint_key)
        stored_at_us, outcome = self._wall_us(), _MERGED
        if value is not None:
            stored_at_us, held = _unpacked(hint_key, value)
            if held == stored:
                return _MERGED
            row = decode_row(key, held)
            merged = rows.merge(row, incoming)
            is_outranked = not row.context and rows.newest(row) >= rows.newest(incoming)
            outcome = Merged(rows.newest(row)) if is_outranked else _MERGED
            if merged == row:
                return outcome
            stored = encode_row(key, merged)
        self._put(
            target, hint_key, seal(hint_key, _STORED_AT.pack(stored_at_us) + stored), value, is_bounded=is_bounded
        )
        self.stored += 1
        return outcome

    def _put(self, target: int, hint_key: bytes, value: bytes, before: bytes | None, *, is_bounded: bool) -> None:
        added = len(value) - len(before) if before is not None else len(hint_key) + len(value)
        held = self._held.get(target)
        refusal = objection(
            hint_bytes=added,
            stored_bytes=self._bytes,
            is_known_key=before is not None,
            oldest_us=held.oldest_us if held is not None else None,
            now_us=self._wall_us(),
        )
        if is_bounded and refusal is not None:
            self.refused += 1
            raise RefusedError(*refusal)
        self._engine.commit(Batch().put(hint_key, value))
        self._add(target, added, _stored_at(hint_key, value), hints=int(before is None))

    def _add(self, target: int, size: int, stored_at_us: int, *, hints: int = 1) -> None:
        held = self._held.get(target)
        if held is None:
            held = self._held[target] = Held(oldest_us=stored_at_us)
        held.hints += hints
        held.stored_bytes += size
        held.oldest_us = min(held.oldest_us, stored_at_us)
        self._bytes += size

    def _remove(self, hint_keys: list[bytes]) -> None:
        values = {hint_key: self._engine.get(hint_key) for hint_key in hint_keys}
        batch = Batch()
        for hint_key in values:
            batch.delete(hint_key)
        if batch.operations:
            self._engine.commit(batch)
        for hint_key, value in values.items():
            if value is not None:
                self._subtract(keys.split_hint_key(hint_key)[0], len(hint_key) + len(value))

    def _subtract(self, target: int, size: int) -> None:
        held = self._held[target]
        held.hints -= 1
        held.stored_bytes -= size
        self._bytes -= size
        if not held.hints:
            del self._held[target]

    def _give_up(self, damaged: list[bytes]) -> None:
        self.damaged += len(damaged)
        self._remove(damaged)

    def _has_hints(self, target: int, low: bytes, high: bytes, until_us: int) -> bool:
        for hint_key, value in self._engine.scan(keys.hint_key(target, low), keys.hint_key(target, high)):
            try:
                hint = stored_hint(hint_key, value)
                if rows.oldest_us(decode_row(hint.key, hint.row)) <= until_us:
                    return True
            except CorruptionError:
                return True
        return False

    def _page(self, start: bytes) -> list[tuple[bytes, bytes]]:
        return list(islice(self._engine.scan(start, keys.all_hints_range()[1]), SLICE_HINTS))

    def _is_orphan(self, hint_key: bytes) -> bool:
        _, key = keys.split_hint_key(hint_key)
        return self._topology.table(keys.table_in(key)) is None

    def _look_for_orphans(self, newer: ClusterMap) -> None:
        tables = {table.id for table in newer.tables}
        self._has_orphans = self._has_orphans or not tables >= self._tables
        self._tables = tables


def stored_hint(hint_key: bytes, value: bytes) -> StoredHint:
    """Return the hint stored as ``value``.

    Raises:
        CorruptionError: it is damaged.
    """
    _, key = keys.split_hint_key(hint_key)
    _, row = _unpacked(hint_key, value)
    check_row(key, row)
    return StoredHint(key, row, value)


def _unpacked(hint_key: bytes, value: bytes) -> tuple[int, bytes]:
    payload = unseal(hint_key, value)
    if len(payload) < _STORED_AT.size:
        raise CorruptionError(f"a hint of {len(payload)} bytes is too short to say when it was stored")
    stored_at_us: int = _STORED_AT.unpack_from(payload)[0]
    return stored_at_us, payload[_STORED_AT.size :]


def _stored_at(hint_key: bytes, value: bytes) -> int:
    """Return when a hint was stored; damaged ones, which delivery gives up, are from no particular time."""
    try:
        return _unpacked(hint_key, value)[0]
    except CorruptionError:
        return 2**63 - 1

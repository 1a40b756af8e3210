"""A replica keeps rows of the partitions it holds and answers for them.

Every write is a merge into what is stored, so repeated, reordered and late writes are harmless. An
answer leaves only when what it says would survive a power cut: writes wait for the group commit,
and so does a read that met a write still on its way to the disk.

Of the time before a seal no client write is taken, and of the time before a horizon nothing but what those vouch for
who have one as high (`core.horizon`). What is read goes out with the horizon, which says up to when its absence
means something.

A stored row that is damaged is refused, to readers and to writers, and noted for `service.healing`.

Source: DeCandia 2007 §4.5; design notes in docs/internals/leaderless.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from merganser.core import horizon, rows
from merganser.core.clock import HybridClock
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.messages import A_CLIENTS, Apply, Found, Merged, Read, ReadRange, Reply, Rows
from merganser.model.row import Row
from merganser.model.timestamp import Timestamp
from merganser.model.value_messages import Mint
from merganser.service.damage import Damage
from merganser.service.durable_answers import DurableAnswers
from merganser.service.hash_trees import HashTrees
from merganser.service.horizons import Horizons
from merganser.service.local_indexes import LocalIndexes
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.values import check_row, decode_row, encode_row, replaces

NO_SUCH_TABLE = "no_such_table"
NOT_A_REPLICA = "not_a_replica"
OTHER_PROTOCOL = "other_protocol"
"""The table is leader-based: nobody but its leaders changes what it holds."""

_MERGED = Merged()


class Replica:
    """This node's rows; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        clock: HybridClock,
        horizons: Horizons,
        trees: HashTrees,
        damage: Damage,
        local: LocalIndexes,
        *,
        durable_answers: DurableAnswers,
        wall_us: Callable[[], int],
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Serve out of ``engine``, which ``local`` indexes.

        ``damage`` takes note of damaged rows, ``durable_answers`` gives those that wait for the engine, ``catch_up``
        fetches a newer cluster map from a peer.
        """
        self._topology = topology
        self._engine = engine
        self._clock = clock
        self._horizons = horizons
        self._damage = damage
        self._local = local
        self._durable_answers = durable_answers
        self._trees = trees
        self._wall_us = wall_us
        self._catch_up = catch_up

    async def apply(self, sender: NodeId, request: Apply) -> Merged:
        """Merge a row into what its key holds; returns once the result is durable.

        The answer tells when the key held something newer, or this node has sealed the time of the row, so that a
        coordinator whose clock is behind finds out.

        Raises:
            RefusedError: not a replica of the key, no such table, or a leader-based one.
            ClockSkewError: the row is from too far in the future; nothing was written.
            CorruptionError: the row, or what is stored under its key, is damaged; nothing was written.
            StorageFailedError: it is unknown whether it is durable.
        """
        if request.map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        outcome = self._applied(request)
        if not self._engine.is_durable(request.key):
            await self._engine.durable()
        return outcome

    def begin_apply(self, _sender: NodeId, request: Apply) -> asyncio.Future[Reply] | Merged | None:
        """Do as `apply`, as a `net.transport.Beginner`."""
        if request.map_epoch > self._topology.map.epoch:
            return None
        outcome = self._applied(request)
        return outcome if self._engine.is_durable(request.key) else self._durable_answers.after(outcome)

    def _applied(self, request: Apply) -> Merged:
        """Merge a row in this turn of the loop; raises as `apply`."""
        partition = self._partition_of(request.table, request.key, is_merge=True)
        check_placed(self._topology, request.map_epoch)
        incoming = decode_row(request.key, request.row)
        self._check_kind(request.table, is_causal=bool(incoming.context))
        newest = rows.newest(incoming)
        self._clock.observe(newest, self._wall_us())
        standing = self._horizons.known(request.table, partition)
        if standing is None:
            return self._take(request.table, partition, request.key, incoming, request.row)
        return self._take_part(request, partition, standing, incoming, newest)

    async def siblings_of(self, sender: NodeId, request: Mint) -> tuple[int, int]:
        """Return how many values this replica holds of a key of a table that keeps siblings, and their bytes.

        Raises:
            RefusedError: not a replica of the key, no such table, or one without siblings.
            CorruptionError: what is stored is damaged.
        """
        await self._admit(sender, request.map_epoch, request.table, request.key, is_merge=True)
        self._check_kind(request.table, is_causal=True)
        try:
            stored = self._engine.get(request.key)
            return (0, 0) if stored is None else (len(decode_row(request.key, stored).cells), len(stored))
        except CorruptionError:
            self._damage.met_row(request.table, request.key)
            raise

    async def read(self, sender: NodeId, request: Read) -> Found:
        """Return what is stored under a key.

        Raises:
            RefusedError: not a replica of the key, no such table, or rows may have vanished here.
            CorruptionError: the stored row is damaged.
        """
        if request.map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        partition = self._partition_of(request.table, request.key)
        self._check_placed(request.map_epoch, request.table)
        found = self._found(request, partition)
        if not self._engine.is_durable(request.key):
            await self._engine.durable()
        return found

    def read_at_once(self, _sender: NodeId, request: Read) -> Found | None:
        """Return what `read` does, None if that would have to wait, or this node holds no replica of the key.

        Raises:
            as `read`.
        """
        current = self._topology.map
        if not current.placed <= request.map_epoch <= current.epoch or not self._engine.is_durable(request.key):
            return None
        partition = self._held_partition(request.table, request.key)
        return None if partition is None else self._found(request, partition)

    async def read_range(self, sender: NodeId, request: ReadRange) -> Rows:
        """Return a page of a range, tombstones included; at least one row if there is any.

        Raises:
            RefusedError: not a replica of the whole range, no such table, or rows may have vanished here.
            CorruptionError: a stored row is damaged.
        """
        await self._admit(sender, request.map_epoch, request.table, request.start)
        page = self._read_range(request)
        if not self._engine.is_all_durable:
            await self._engine.durable()
        return page

    def read_range_at_once(self, _sender: NodeId, request: ReadRange) -> Rows | None:
        """Return what `read_range` does, None if that would have to wait.

        Raises:
            as `read_range`.
        """
        engine = self._engine
        is_durable = engine.is_all_durable or (
            request.index is None and engine.is_range_durable(request.start, request.end)
        )
        return self._read_range(request) if is_durable and request.map_epoch <= self._topology.map.epoch else None

    def check_holds(self, table: TableId, partitions: Sequence[PartitionId], *, map_epoch: int) -> None:
        """Return if this node is asked for all that is in ``partitions`` by who knows that map.

        Raises:
            RefusedError: it is not, there is no such table, or rows may have vanished here.
        """
        known = self._topology.table(table)
        if known is None:
            raise self._no_such_table(table)
        check_known(self._topology, map_epoch)
        self._check_placed(map_epoch, table)
        for partition in partitions:
            if not 0 <= partition < self._topology.ring.partitions or not self._answers_for(known, partition):
                raise self._not_a_replica(partition)
        self._horizons.of_range(table, partitions)

    async def durable(self) -> None:
        """Return once all that can be read here would survive a power cut."""
        if not self._engine.is_all_durable:
            await self._engine.durable()

    def _read_range(self, request: ReadRange) -> Rows:
        partitions = self._held_range(request)
        if request.index is None:
            return self._page(request, self._horizons.of_range(request.table, partitions))
        return self._index_page(request, request.index)

    def _found(self, request: Read, partition: PartitionId) -> Found:
        standing = self._horizons.known(request.table, partition)
        if standing is not None:
            self._horizons.check_whole(request.table, partition)
        try:
            stored = self._engine.get(request.key)
            if stored is not None:
                check_row(request.key, stored)
        except CorruptionError:
            self._damage.met_row(request.table, request.key)
            raise
        return Found(stored) if standing is None else Found(stored, standing.horizon_us)

    def _take_part(
        self, request: Apply, partition: PartitionId, standing: horizon.Standing, incoming: Row, newest: Timestamp
    ) -> Merged:
        vouched_us = request.vouched_us
        floor_us = 0 if vouched_us == A_CLIENTS else self._horizons.floor_us(request.table, partition)
        part = horizon.taken(
            incoming,
            newest_us=newest.micros,
            sealed_us=standing.sealed_us,
            floor_us=floor_us,
            vouched_us=vouched_us,
        )
        if part is None:
            return Merged(horizon.right_after(max(standing.sealed_us, floor_us)))
        encoded = request.row if part is incoming else encode_row(request.key, part)
        return self._take(request.table, partition, request.key, part, encoded)

    def _take(self, table: TableId, partition: PartitionId, key: bytes, incoming: Row, encoded: bytes) -> Merged:
        try:
            stored = self._engine.get(key)
            if stored is not None and stored != encoded:
                check_row(key, stored)
                if not replaces(encoded, stored):
                    return self._merge(table, partition, key, stored, incoming, encoded)
        except CorruptionError:
            self._damage.met_row(table, key)
            raise
        if stored != encoded:
            self._trees.put(table, partition, key, stored, encoded)
        return _MERGED

    def _merge(
        self, table: TableId, partition: PartitionId, key: bytes, stored: bytes, incoming: Row, encoded: bytes
    ) -> Merged:
        held = decode_row(key, stored)
        merged = rows.merge(held, incoming)
        if merged is not held and merged != held:
            after = encoded if merged is incoming else encode_row(key, merged)
            self._trees.put(table, partition, key, stored, after)
        if incoming.context:  # nothing outranks a put: what is newer stands beside it, or has replaced it knowingly
            return _MERGED
        newest = rows.newest(held)
        return Merged(newest) if newest >= rows.newest(incoming) else _MERGED  # a tombstone as old wins, too

    def _page(self, request: ReadRange, horizons: tuple[int, ...]) -> Rows:
        page: list[tuple[bytes, bytes]] = []
        rows_left, bytes_left = request.rows_max, request.bytes_max
        _, table_end = keys.table_range(request.table)
        end, key = min(request.end, table_end), None
        try:
            for row in self._engine.scan(request.start, end, reverse=request.reverse):
                key, stored = row
                if page and (rows_left <= 0 or bytes_left <= 0):
                    return Rows(tuple(page), is_last=False, horizons=horizons)
                check_row(key, stored)
                page.append(row)
                rows_left -= 1
                bytes_left -= len(key) + len(stored)
        except CorruptionError:
            if key is None or (page and page[-1][0] == key):  # it was well: what comes after it cannot be read
                self._damage.met_somewhere(request.table, request.start, end)
            else:
                self._damage.met_row(request.table, key)
            raise
        return Rows(tuple(page), is_last=True, horizons=horizons)

    def _index_page(self, request: ReadRange, index: int) -> Rows:
        page = self._local.page(
            request.start,
            request.end,
            index=index,
            reverse=request.reverse,
            rows_max=request.rows_max,
            bytes_max=request.bytes_max,
        )
        for entry, stored in page.found:
            key = keys.row_of(entry)
            try:
                check_row(key, stored)
            except CorruptionError:
                self._damage.met_row(request.table, key)
                raise
        return Rows(tuple(page.found), is_last=page.resume is None, resume=page.resume)

    async def _admit(
        self, sender: NodeId, map_epoch: int, table: TableId, key: bytes, *, is_merge: bool = False
    ) -> PartitionId:
        if map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        return self._partition_of(table, key, is_merge=is_merge)

    def _partition_of(self, table: TableId, key: bytes, *, is_merge: bool = False) -> PartitionId:
        """Return the partition of a key that this node holds a replica of; raises a RefusedError if it does not."""
        partition = self._held_partition(table, key)
        known = self._topology.table(table)
        if known is None or keys.table_in(key) != table:
            raise self._no_such_table(table)
        if is_merge and known.has_leaders:
            raise refused_by_protocol(known, self._topology.map.epoch)
        if partition is None:
            raise self._not_a_replica(self._topology.ring.partition_of(keys.token_in(key)))
        return partition

    def _held_partition(self, table: TableId, key: bytes) -> PartitionId | None:
        """Return the partition of a key, None if this node holds no replica of it, or there is no such table."""
        topology = self._topology
        known = topology.table(table)
        table_in_key, token = keys.place_in(key)
        if known is None or table_in_key != table:
            return None
        partition = topology.ring.partition_of(token)
        return partition if self._answers_for(known, partition) else None

    def _check_kind(self, table: TableId, *, is_causal: bool) -> None:
        known = self._topology.table(table)
        if known is not None and known.is_causal != is_causal:
            raise refused_by_kind(known, self._topology.map.epoch)

    def _held_range(self, request: ReadRange) -> Sequence[PartitionId]:
        """Return the partitions of a range that this node holds all of; raises a RefusedError if it does not."""
        known = self._topology.table(request.table)
        if known is None:
            raise self._no_such_table(request.table)
        if not known.has_leaders:  # horizons are told partition by partition
            check_known(self._topology, request.map_epoch)
        self._check_placed(request.map_epoch, request.table)
        partitions = self._topology.partitions_between(known, request.start, request.end)
        for partition in partitions:
            if not self._answers_for(known, partition):
                raise self._not_a_replica(partition)
        return partitions

    def _answers_for(self, table: Table, partition: PartitionId) -> bool:
        """Tell whether this node is asked for rows of a partition; as a newcomer it may lack what the others hold.

        Of leaderless tables it is asked together with as many others as it takes without it.
        """
        holders = self._topology.ring.holders(partition, table.rule)
        return self._topology.node in (holders.serving if table.has_leaders else holders.members)

    def _check_placed(self, map_epoch: int, table: TableId) -> None:
        """As `check_placed`, where it matters which replicas are asked; of leader-based tables any is as good."""
        known = self._topology.table(table)
        if known is None or not known.has_leaders:
            check_placed(self._topology, map_epoch)

    def _no_such_table(self, table: TableId) -> RefusedError:
        epoch = self._topology.map.epoch
        return RefusedError(NO_SUCH_TABLE, f"no table with id {table} at epoch {epoch}", map_epoch=epoch)

    def _not_a_replica(self, partition: int) -> RefusedError:
        epoch = self._topology.map.epoch
        message = f"node {self._topology.node} holds no replica of partition {partition} at epoch {epoch}"
        return RefusedError(NOT_A_REPLICA, message, map_epoch=epoch)


def refused_by_kind(table: Table, map_epoch: int) -> RefusedError:
    """Return what to raise for a row of the kind that a table does not hold."""
    kind = "rows with a causal context" if table.is_causal else "rows without a causal context"
    return RefusedError(OTHER_PROTOCOL, f"table {table.name} holds {kind}", map_epoch=map_epoch)


def check_placed(topology: Topology, map_epoch: int) -> None:
    """Return unless who holds what has changed since the map of ``map_epoch``, by which something is asked.

    Two who go by the same placement count the same nodes: a quorum of one placement and a quorum of the next share a
    node (`core.ring`), and one of each after that need not.

    Raises:
        RefusedError: it has.
    """
    placed = topology.map.placed
    if map_epoch < placed:
        raise RefusedError(
            NOT_A_REPLICA,
            f"who holds what has changed at epoch {placed}, and this is asked by the map of epoch {map_epoch}",
            map_epoch=topology.map.epoch,
        )


def check_known(topology: Topology, map_epoch: int) -> None:
    """Return if this node knows a map as new as that of ``map_epoch``, by which partitions may have other numbers.

    Raises:
        RefusedError: it does not.
    """
    epoch = topology.map.epoch
    if map_epoch > epoch:
        raise RefusedError(NOT_A_REPLICA, f"this is of epoch {map_epoch}, this node at {epoch}", map_epoch=epoch)


def refused_by_protocol(table: Table, map_epoch: int) -> RefusedError:
    """Return what to raise when what a leader-based table holds is to be merged, sealed or purged."""
    message = f"table {table.name} is leader-based: its rows are changed by the leaders of its partitions alone"
    return RefusedError(OTHER_PROTOCOL, message, map_epoch=map_epoch)
